//! What there is: the tenant as a catalog, its schemas, streams and views.
//!
//! | Flight SQL | here |
//! |---|---|
//! | catalog | the tenant |
//! | schema | `public`, and `information_schema`, which describes it |
//! | table | a stream (`TABLE`) or a view (`VIEW`) |
//! | keys | none |

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_flight::FlightData;
use arrow_flight::sql::metadata::{GetCatalogsBuilder, GetDbSchemasBuilder, GetTablesBuilder};
use arrow_flight::sql::{Command, CommandGetDbSchemas, CommandGetTables};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tonic::{Code, Status};

use crate::batches::{self, failed};
use crate::problem::Problem;
use crate::questions::Asker;
use crate::{schema, sql_info, type_info};

const PUBLIC: &str = "public";
const SCHEMAS: [&str; 2] = ["information_schema", PUBLIC];
const TABLE: &str = "TABLE";
const VIEW: &str = "VIEW";
/// All streams and views, as lines of `[name, type]`.
const LISTING: &str = "SELECT table_name, table_type FROM information_schema.tables \
                       WHERE table_schema = 'public' ORDER BY table_name";
/// Tables that are described at a time, for one client.
const DESCRIBED_AT_ONCE: usize = 2;
/// Tables in one batch.
const BATCH_TABLES: usize = 64;

type Rows = BoxStream<'static, Result<FlightData, Status>>;

/// The columns of a description; none where the command is of another kind.
pub(crate) fn schema_of(command: &Command) -> Option<SchemaRef> {
    Some(match command {
        Command::CommandGetCatalogs(_) => GetCatalogsBuilder::new().schema(),
        Command::CommandGetDbSchemas(_) => {
            GetDbSchemasBuilder::new(None::<String>, None::<String>).schema()
        }
        Command::CommandGetTables(asked) => tables_builder(asked.include_schema).schema(),
        Command::CommandGetTableTypes(_) => table_types(),
        Command::CommandGetSqlInfo(_) => sql_info::schema(),
        Command::CommandGetXdbcTypeInfo(_) => type_info::schema(),
        Command::CommandGetPrimaryKeys(_) => primary_keys(),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => foreign_keys(),
        _ => return None,
    })
}

/// The rows of a description; none where the command is of another kind.
///
/// # Errors
/// Why there are none.
pub(crate) async fn rows(asker: Asker, command: Command) -> Result<Option<Rows>, Problem> {
    let tenant = asker.caller.tenant.clone();
    let batch = match command {
        Command::CommandGetCatalogs(_) => {
            let mut builder = GetCatalogsBuilder::new();
            builder.append(tenant.as_str());
            builder.build().map_err(|error| failed(&error))?
        }
        Command::CommandGetDbSchemas(asked) => schemas(tenant.as_str(), &asked)?,
        Command::CommandGetTables(asked) => return tables(asker, asked).await.map(Some),
        Command::CommandGetTableTypes(_) => {
            let kinds: ArrayRef = Arc::new(StringArray::from(vec![TABLE, VIEW]));
            RecordBatch::try_new(table_types(), vec![kinds]).map_err(|error| failed(&error))?
        }
        Command::CommandGetSqlInfo(asked) => sql_info::batch(&asked.info)?,
        Command::CommandGetXdbcTypeInfo(asked) => type_info::batch(asked.data_type)?,
        other => match schema_of(&other) {
            Some(schema) => RecordBatch::new_empty(schema),
            None => return Ok(None),
        },
    };
    Ok(Some(batches::one(batch)))
}

fn schemas(tenant: &str, asked: &CommandGetDbSchemas) -> Result<RecordBatch, Problem> {
    let mut builder = GetDbSchemasBuilder::new(None::<String>, None::<String>);
    for name in SCHEMAS {
        if is_catalog(asked.catalog.as_deref(), tenant)
            && fits(asked.db_schema_filter_pattern.as_deref(), name)
        {
            builder.append(tenant, name);
        }
    }
    builder.build().map_err(|error| failed(&error))
}

/// A stream or view.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    name: String,
    kind: &'static str,
}

async fn tables(asker: Asker, asked: CommandGetTables) -> Result<Rows, Problem> {
    let columns = tables_builder(asked.include_schema).schema();
    let tenant = asker.caller.tenant.clone();
    let is_asked = is_catalog(asked.catalog.as_deref(), tenant.as_str())
        && fits(asked.db_schema_filter_pattern.as_deref(), PUBLIC);
    let all = if is_asked { listing(&asker.lines(LISTING).await?)? } else { Vec::new() };
    let wanted = all.into_iter().filter(|table| {
        let is_kind = asked.table_types.iter().any(|kind| kind == table.kind);
        (is_kind || asked.table_types.is_empty())
            && fits(asked.table_name_filter_pattern.as_deref(), &table.name)
    });
    let wanted: Vec<Table> = wanted.collect();
    let chunks: Vec<Vec<Table>> = wanted.chunks(BATCH_TABLES).map(<[Table]>::to_vec).collect();
    let includes_schema = asked.include_schema;
    let batches = stream::iter(chunks).then(move |chunk| {
        let asker = asker.clone();
        async move { batch(&asker, chunk, includes_schema).await }
    });
    Ok(batches::many(columns, batches))
}

/// A batch of tables.
async fn batch(
    asker: &Asker,
    tables: Vec<Table>,
    includes_schema: bool,
) -> Result<RecordBatch, Problem> {
    let described = tables.into_iter().map(async |table| {
        let columns =
            if includes_schema { columns(asker, &table.name).await? } else { Schema::empty() };
        Ok::<_, Problem>((table, columns))
    });
    let mut described = stream::iter(described).buffered(DESCRIBED_AT_ONCE);
    let mut builder = tables_builder(includes_schema);
    while let Some(table) = described.next().await {
        let (table, columns) = table?;
        builder
            .append(asker.caller.tenant.as_str(), PUBLIC, &table.name, table.kind, &columns)
            .map_err(|error| failed(&error))?;
    }
    builder.build().map_err(|error| failed(&error))
}

/// The columns of a table; none of a view that cannot be planned any more, or
/// of a stream that went meanwhile.
async fn columns(asker: &Asker, name: &str) -> Result<Schema, Problem> {
    let name = name.replace('"', "\"\"");
    match asker.describe(&format!("SELECT * FROM \"{name}\"")).await {
        Ok(answer) => schema::of_answer(&answer.schema),
        Err(problem) => match problem.code {
            Code::InvalidArgument | Code::NotFound | Code::Unimplemented => Ok(Schema::empty()),
            _ => Err(problem),
        },
    }
}

fn tables_builder(includes_schema: bool) -> GetTablesBuilder {
    let none = None::<String>;
    GetTablesBuilder::new(none.clone(), none.clone(), none, Vec::<String>::new(), includes_schema)
}

/// Reads the lines of [`LISTING`].
fn listing(lines: &[u8]) -> Result<Vec<Table>, Problem> {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let read = |line| {
        let (name, kind): (String, String) = serde_json::from_slice(line).map_err(|error| {
            Problem::internal(format!("the list of tables cannot be read: {error}"))
        })?;
        Ok(Table { name, kind: if kind == VIEW { VIEW } else { TABLE } })
    };
    lines.map(read).collect()
}

/// An empty name means tables without a catalog, of which there are none.
fn is_catalog(asked: Option<&str>, tenant: &str) -> bool {
    asked.is_none_or(|asked| asked == tenant)
}

fn fits(pattern: Option<&str>, name: &str) -> bool {
    pattern.is_none_or(|pattern| is_like(pattern, name))
}

/// SQL's LIKE: `%` is anything, `_` any character, `\` makes the next one plain.
/// Takes no longer than pattern times name.
fn is_like(pattern: &str, name: &str) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum Part {
        Anything,
        Any,
        One(char),
    }
    let mut characters = pattern.chars();
    let mut parts = Vec::new();
    while let Some(character) = characters.next() {
        let part = match character {
            '%' => Part::Anything,
            '_' => Part::Any,
            '\\' => Part::One(characters.next().unwrap_or('\\')),
            other => Part::One(other),
        };
        // Several in a row are one, so that going back does not multiply.
        if part != Part::Anything || parts.last() != Some(&Part::Anything) {
            parts.push(part);
        }
    }
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut part) = (0, 0);
    // Where to go on when the part behind the last `%` does not fit here.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(character) = name.get(at) {
        match parts.get(part) {
            Some(Part::Anything) => {
                part += 1;
                retry = Some((at, part));
                continue;
            }
            Some(Part::Any) => {}
            Some(Part::One(one)) if one == character => {}
            _ => match retry {
                Some((from, behind)) => {
                    retry = Some((from + 1, behind));
                    (at, part) = (from + 1, behind);
                    continue;
                }
                None => return false,
            },
        }
        at += 1;
        part += 1;
    }
    parts.get(part..).unwrap_or_default().iter().all(|part| *part == Part::Anything)
}

fn table_types() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("table_type", DataType::Utf8, false)]))
}

fn primary_keys() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

fn foreign_keys() -> SchemaRef {
    let side = |side: &str| {
        let text =
            |name: &str, nullable| Field::new(format!("{side}_{name}"), DataType::Utf8, nullable);
        [
            text("catalog_name", true),
            text("db_schema_name", true),
            text("table_name", false),
            text("column_name", false),
        ]
    };
    let key = [
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ];
    Arc::new(Schema::new([&side("pk")[..], &side("fk"), &key].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_sql() {
        for (pattern, name, expected) in [
            ("audit", "audit", true),
            ("audit", "audits", false),
            ("%", "", true),
            ("", "", true),
            ("", "a", false),
            ("a%", "audit", true),
            ("%it", "audit", true),
            ("%d%t", "audit", true),
            ("a%d%x", "audit", false),
            ("a_dit", "audit", true),
            ("a\\_dit", "audit", false),
            ("a\\_b", "a_b", true),
            ("100\\%", "100%", true),
            ("\\", "\\", true),
            ("ä_", "äö", true),
            ("%%%a%%%", "bab", true),
            ("%aab", "aaab", true),
        ] {
            assert_eq!(is_like(pattern, name), expected, "{name} LIKE {pattern}");
        }
        // Quadratic at worst.
        assert!(!is_like(&"%a".repeat(1_000), &"ab".repeat(900)));
    }

    #[test]
    fn lists_are_read() {
        let found = listing(b"[\"a\\\"b\",\"BASE TABLE\"]\n[\"v\",\"VIEW\"]\n").unwrap();
        let table = |name: &str, kind| Table { name: name.to_owned(), kind };
        assert_eq!(found, [table("a\"b", TABLE), table("v", VIEW)]);
        assert_eq!(listing(b"[1]\n").unwrap_err().code, Code::Internal);
    }

    #[test]
    fn schemas_are_found_by_catalog_and_pattern() {
        let rows = |catalog: Option<&str>, pattern: Option<&str>| {
            let asked = CommandGetDbSchemas {
                catalog: catalog.map(str::to_owned),
                db_schema_filter_pattern: pattern.map(str::to_owned),
            };
            schemas("default", &asked).unwrap().num_rows()
        };
        assert_eq!(rows(None, None), 2);
        assert_eq!(rows(Some("default"), Some("pub%")), 1);
        assert_eq!(rows(Some(""), None), 0);
        assert_eq!(rows(Some("other"), Some("public")), 0);
    }
}

//! PostgreSQL's functions that tell of the session and of its catalogs.
//!
//! What describes things that there are none of (defaults, constraints,
//! comments) is null; what asks for a permission is true, since who may read is
//! decided before a statement comes here.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use aquifer_query::PostgresSession;
use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};

use super::names::{Oids, identifiers, namespace, type_of_name, type_words};
use super::words;
use crate::sql::{Listing, PUBLIC};

/// Answers for one row, of its arguments as text; null where one is.
type Answer = Arc<dyn Fn(&[Option<String>]) -> ScalarValue + Send + Sync>;

/// A function of text and numbers that is computed row by row: catalogs are
/// small.
struct Function {
    name: &'static str,
    returns: DataType,
    signature: Signature,
    answer: Answer,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

// Within one session a name is one function.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant =
            args.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let texts = args
            .args
            .iter()
            .map(|argument| cast(&argument.to_array(rows)?, &DataType::Utf8).map_err(Into::into))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let row = |row: usize| {
            let values: Vec<_> = texts.iter().map(|array| text_at(array, row)).collect();
            (self.answer)(&values)
        };
        if is_constant {
            return Ok(ColumnarValue::Scalar(row(0)));
        }
        if rows == 0 {
            let nothing = datafusion::arrow::array::new_empty_array(&self.returns);
            return Ok(ColumnarValue::Array(nothing));
        }
        Ok(ColumnarValue::Array(ScalarValue::iter_to_array((0..rows).map(row))?))
    }
}

fn text_at(array: &ArrayRef, row: usize) -> Option<String> {
    (!array.is_null(row)).then(|| array.as_string::<i32>().value(row).to_owned())
}

fn function(
    name: &'static str,
    returns: DataType,
    answer: impl Fn(&[Option<String>]) -> ScalarValue + Send + Sync + 'static,
) -> ScalarUDF {
    let any = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
    ScalarUDF::new_from_impl(Function {
        name,
        returns,
        // They tell of this session and this listing.
        signature: Signature::one_of(any, Volatility::Stable),
        answer: Arc::new(answer),
    })
}

fn text(text: impl Into<String>) -> ScalarValue {
    ScalarValue::Utf8(Some(text.into()))
}

fn texts(of: &[&str]) -> ScalarValue {
    let values: Vec<_> = of.iter().map(|of| text(*of)).collect();
    ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Utf8))
}

fn text_list() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

/// The functions of one session.
pub(super) fn all(session: &PostgresSession, listing: &Listing, oids: Oids) -> Vec<ScalarUDF> {
    let mut functions = constants(session, listing);
    functions.extend(privileges());
    functions.extend(nulls());
    functions.extend(settings(session));
    functions.extend(objects(listing, oids));
    functions.extend(names());
    functions
}

fn constants(session: &PostgresSession, listing: &Listing) -> Vec<ScalarUDF> {
    let version = session.settings.get("server_version").cloned().unwrap_or_default();
    let version = format!("PostgreSQL {version} (Aquifer {})", env!("CARGO_PKG_VERSION"));
    let mut functions = Vec::new();
    let mut constant = |names: &[&'static str], value: ScalarValue| {
        for name in names.iter().copied() {
            let value = value.clone();
            functions.push(function(name, value.data_type(), move |_| value.clone()));
        }
    };
    constant(&["version"], text(version));
    constant(&["current_schema"], text(PUBLIC));
    constant(&["current_database", "current_catalog"], text(&listing.tenant));
    let user = session.user.as_str();
    constant(
        &["current_user", "session_user", "user", "current_role", "pg_get_userbyid"],
        text(user),
    );
    constant(&["pg_backend_pid"], ScalarValue::Int32(Some(session.process.cast_signed())));
    constant(&["pg_encoding_to_char", "pg_client_encoding", "getdatabaseencoding"], text("UTF8"));
    constant(
        &[
            "pg_is_in_recovery",
            "pg_is_wal_replay_paused",
            "pg_is_xlog_replay_paused",
            "pg_relation_is_publishable",
            "row_security_active",
        ],
        ScalarValue::Boolean(Some(false)),
    );
    constant(
        &[
            "has_schema_privilege",
            "has_database_privilege",
            "has_foreign_data_wrapper_privilege",
            "has_function_privilege",
            "has_language_privilege",
            "has_sequence_privilege",
            "has_server_privilege",
            "has_tablespace_privilege",
            "has_type_privilege",
            "pg_collation_is_visible",
            "pg_conversion_is_visible",
            "pg_function_is_visible",
            "pg_has_role",
            "pg_opclass_is_visible",
            "pg_operator_is_visible",
            "pg_opfamily_is_visible",
            "pg_statistics_obj_is_visible",
            "pg_table_is_visible",
            "pg_ts_config_is_visible",
            "pg_ts_dict_is_visible",
            "pg_ts_parser_is_visible",
            "pg_ts_template_is_visible",
            "pg_type_is_visible",
        ],
        ScalarValue::Boolean(Some(true)),
    );
    constant(&["pg_is_other_temp_schema"], ScalarValue::Boolean(Some(false)));
    constant(
        &["pg_stat_get_numscans", "pg_my_temp_schema", "txid_current"],
        ScalarValue::Int64(Some(0)),
    );
    // Bytes are counted of streams as a whole, and not told here.
    constant(
        &[
            "pg_database_size",
            "pg_indexes_size",
            "pg_relation_size",
            "pg_table_size",
            "pg_total_relation_size",
        ],
        ScalarValue::Int64(None),
    );
    functions.push(function("current_schemas", text_list(), |arguments| {
        match arguments.first().cloned().flatten().as_deref() {
            Some("true" | "t") => texts(&["pg_catalog", PUBLIC]),
            _ => texts(&[PUBLIC]),
        }
    }));
    functions
}

/// Streams and views are read here, and nothing more is done with them.
fn privileges() -> Vec<ScalarUDF> {
    let may = |arguments: &[Option<String>]| {
        let asked = arguments.last().cloned().flatten();
        let is_read = |one: &str| one.trim().eq_ignore_ascii_case("select");
        ScalarValue::Boolean(asked.map(|asked| asked.split(',').any(is_read)))
    };
    ["has_any_column_privilege", "has_column_privilege", "has_table_privilege"]
        .map(|name| function(name, DataType::Boolean, may))
        .to_vec()
}

fn nulls() -> Vec<ScalarUDF> {
    let names = [
        "col_description",
        "inet_client_addr",
        "inet_server_addr",
        "obj_description",
        "pg_describe_object",
        "pg_get_constraintdef",
        "pg_get_expr",
        "pg_get_function_arg_default",
        "pg_get_function_arguments",
        "pg_get_function_identity_arguments",
        "pg_get_function_result",
        "pg_get_functiondef",
        "pg_get_indexdef",
        "pg_get_partkeydef",
        "pg_get_ruledef",
        "pg_get_serial_sequence",
        "pg_get_statisticsobjdef_columns",
        "pg_get_triggerdef",
        "pg_tablespace_location",
        "shobj_description",
    ];
    names.map(|name| function(name, DataType::Utf8, |_| ScalarValue::Utf8(None))).to_vec()
}

fn settings(session: &PostgresSession) -> Vec<ScalarUDF> {
    let settings = session.settings.clone();
    let current = function("current_setting", DataType::Utf8, move |arguments| {
        let name = arguments.first().cloned().flatten().unwrap_or_default().to_lowercase();
        ScalarValue::Utf8(settings.get(&name).cloned())
    });
    // A statement changes nothing of the session that it runs in.
    let set = function("set_config", DataType::Utf8, |arguments| {
        ScalarValue::Utf8(arguments.get(1).cloned().flatten())
    });
    vec![current, set]
}

fn objects(listing: &Listing, oids: Oids) -> Vec<ScalarUDF> {
    let id = |arguments: &[Option<String>]| {
        arguments.first().cloned().flatten().and_then(|text| text.parse::<i64>().ok())
    };
    let (by_name, by_id, of_view) = (oids.clone(), oids.clone(), oids);
    let views = listing.views.clone();
    vec![
        function("format_type", DataType::Utf8, move |arguments| {
            ScalarValue::Utf8(id(arguments).map(type_words))
        }),
        function("to_regclass", DataType::Int64, move |arguments| {
            let name = arguments.first().cloned().flatten();
            ScalarValue::Int64(name.and_then(|name| by_name.class(&name)))
        }),
        function("to_regtype", DataType::Int64, |arguments| {
            let name = arguments.first().cloned().flatten();
            ScalarValue::Int64(name.and_then(|name| type_of_name(&name)))
        }),
        function("to_regnamespace", DataType::Int64, |arguments| {
            let name = arguments.first().cloned().flatten();
            ScalarValue::Int64(name.map(|name| namespace(&name)).filter(|id| *id != 0))
        }),
        function("regclass_name", DataType::Utf8, move |arguments| {
            let id = id(arguments);
            let name = id.map(|id| by_id.name(id).unwrap_or_else(|| id.to_string()));
            ScalarValue::Utf8(name)
        }),
        function("regtype_name", DataType::Utf8, move |arguments| {
            ScalarValue::Utf8(id(arguments).map(|id| match id {
                0 => "-".to_owned(),
                id => type_words(id),
            }))
        }),
        function("regnamespace_name", DataType::Utf8, move |arguments| {
            use super::names::{INFORMATION_ID, PG_CATALOG_ID, PUBLIC_ID};
            ScalarValue::Utf8(id(arguments).map(|id| match id {
                PG_CATALOG_ID => "pg_catalog".to_owned(),
                PUBLIC_ID => PUBLIC.to_owned(),
                INFORMATION_ID => "information_schema".to_owned(),
                other => other.to_string(),
            }))
        }),
        function("regproc_name", DataType::Utf8, move |arguments| {
            ScalarValue::Utf8(id(arguments).map(|id| match id {
                super::tables::ARRAY_IN => "array_in".to_owned(),
                0 => "-".to_owned(),
                other => other.to_string(),
            }))
        }),
        function("pg_get_viewdef", DataType::Utf8, move |arguments| {
            let name = id(arguments).and_then(|id| of_view.name(id));
            let view = name.and_then(|name| views.iter().find(|(of, _)| *of == name));
            ScalarValue::Utf8(view.map(|(_, sql)| sql.clone()))
        }),
    ]
}

fn names() -> Vec<ScalarUDF> {
    let first = |arguments: &[Option<String>]| arguments.first().cloned().flatten();
    let quote_ident = move |arguments: &[Option<String>]| {
        ScalarValue::Utf8(first(arguments).map(|name| words::quote_ident(&name)))
    };
    let quote_literal = move |arguments: &[Option<String>]| {
        ScalarValue::Utf8(first(arguments).map(|text| words::quote_literal(&text)))
    };
    let parse_ident = move |arguments: &[Option<String>]| {
        let parts = identifiers(&first(arguments).unwrap_or_default());
        texts(&parts.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let format = |arguments: &[Option<String>]| match arguments {
        [Some(pattern), values @ ..] => ScalarValue::Utf8(words::format(pattern, values)),
        _ => ScalarValue::Utf8(None),
    };
    let size_pretty = move |arguments: &[Option<String>]| {
        let bytes = first(arguments).and_then(|bytes| bytes.parse().ok());
        ScalarValue::Utf8(bytes.map(words::size_pretty))
    };
    vec![
        function("pg_size_pretty", DataType::Utf8, size_pretty),
        function("quote_ident", DataType::Utf8, quote_ident),
        function("quote_literal", DataType::Utf8, quote_literal),
        function("parse_ident", text_list(), parse_ident),
        function("format", DataType::Utf8, format),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_name_is_one_function() {
        let session = PostgresSession {
            user: "alice".to_owned(),
            process: 7,
            settings: BTreeMap::from([("search_path".to_owned(), "public".to_owned())]),
        };
        let listing = Listing { tenant: "default".to_owned(), ..Listing::default() };
        let functions = all(&session, &listing, Oids::new(&listing));
        let mut names: Vec<_> = functions.iter().map(|function| function.name()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

//! Statements with places for what is said in another way by each side.
//!
//! | place | stands for |
//! |---|---|
//! | `{actor.login}` | a field of the value, as text |
//! | `{actor.id:int}` | the same as a whole number |
//! | `{:text}` | the whole value as text |
//! | `{:bytes}` | how many bytes it has |
//! | `{name=}` | a text that the figure sets |

use std::collections::BTreeMap;

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Aquifer,
    DataFusion,
    DuckDb,
}

/// How fields are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fields {
    /// As columns of the chunks, which they have.
    Columns,
    /// By functions over the value.
    Json,
}

/// What the figure sets.
pub(super) type Texts = BTreeMap<&'static str, String>;

/// The statement of one side; none where it has no way to say it.
pub(super) fn fill(
    template: &str,
    dialect: Dialect,
    fields: Fields,
    texts: &Texts,
) -> Option<String> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('{') {
        let (place, behind) = behind.split_once('}')?;
        filled += before;
        filled += &match (place.strip_suffix('='), place) {
            (Some(name), _) => texts.get(name)?.clone(),
            (None, ":text") => whole(dialect).to_owned(),
            (None, ":bytes") => bytes(dialect).to_owned(),
            (None, place) => {
                let (path, is_number) = match place.split_once(':') {
                    Some((path, _)) => (path, true),
                    None => (place, false),
                };
                field(path, is_number, dialect, fields)?
            }
        };
        rest = behind;
    }
    Some(filled + rest)
}

fn whole(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Aquifer => "_value",
        Dialect::DataFusion => "CAST(_value AS VARCHAR)",
        Dialect::DuckDb => "decode(_value)",
    }
}

fn bytes(dialect: Dialect) -> &'static str {
    match dialect {
        // Of bytes there is no length in DataFusion but that of their text.
        Dialect::Aquifer => "octet_length(_value)",
        Dialect::DataFusion => "octet_length(CAST(_value AS VARCHAR))",
        Dialect::DuckDb => "octet_length(_value)",
    }
}

fn field(path: &str, is_number: bool, dialect: Dialect, fields: Fields) -> Option<String> {
    let names: Vec<&str> = path.split('.').collect();
    let quoted = |mark: char| names.iter().map(move |name| format!("{mark}{name}{mark}"));
    Some(match (fields, dialect) {
        (Fields::Columns, Dialect::Aquifer) => path.to_owned(),
        (Fields::Columns, Dialect::DuckDb) => quoted('"').collect::<Vec<_>>().join("."),
        (Fields::Columns, Dialect::DataFusion) => {
            let inner = names.iter().skip(1).map(|name| format!("['{name}']"));
            format!("\"{}\"{}", names.first()?, inner.collect::<String>())
        }
        (Fields::Json, Dialect::Aquifer) if is_number => {
            format!("json_get_int(_value, {})", quoted('\'').collect::<Vec<_>>().join(", "))
        }
        (Fields::Json, Dialect::Aquifer) => {
            let steps = quoted('\'').collect::<Vec<_>>();
            let (last, before) = steps.split_last()?;
            let before: String = before.iter().map(|step| format!("->{step}")).collect();
            format!("(_value{before}->>{last})")
        }
        (Fields::Json, Dialect::DuckDb) => {
            let text = format!("json_extract_string(decode(_value), '$.{path}')");
            if is_number { format!("TRY_CAST({text} AS BIGINT)") } else { text }
        }
        (Fields::Json, Dialect::DataFusion) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_has_its_own_words() {
        use Dialect::{Aquifer, DataFusion, DuckDb};
        use Fields::{Columns, Json};
        let texts = Texts::from([("from", "now".to_owned())]);
        let check = |template: &str, dialect, fields, expected: Option<&str>| {
            assert_eq!(fill(template, dialect, fields, &texts).as_deref(), expected);
        };
        check("SELECT 1", DataFusion, Json, Some("SELECT 1"));
        check("{:text} < '{from=}'", Aquifer, Json, Some("_value < 'now'"));
        check("{unknown=}", Aquifer, Json, None);
        check("{:bytes}", DuckDb, Columns, Some("octet_length(_value)"));
        check("{actor.login},{type}", Aquifer, Columns, Some("actor.login,type"));
        check("{actor.login}", DuckDb, Columns, Some("\"actor\".\"login\""));
        check("{actor.login}", DataFusion, Columns, Some("\"actor\"['login']"));
        check("{actor.login}", Aquifer, Json, Some("(_value->'actor'->>'login')"));
        check("{type}", Aquifer, Json, Some("(_value->>'type')"));
        check("{actor.id:int}", Aquifer, Json, Some("json_get_int(_value, 'actor', 'id')"));
        check(
            "{actor.id:int}",
            DuckDb,
            Json,
            Some("TRY_CAST(json_extract_string(decode(_value), '$.actor.id') AS BIGINT)"),
        );
        check("count(*), {type}", DataFusion, Json, None);
    }
}

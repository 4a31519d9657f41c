//! Object ids by name, and types by id.

use std::collections::BTreeMap;

use datafusion::arrow::datatypes::DataType;

use crate::sql::Listing;

/// The first id that PostgreSQL gives to what users create.
const FIRST: u32 = 16_384;

pub(crate) const PG_CATALOG_ID: i64 = 11;
pub(crate) const PUBLIC_ID: i64 = 2_200;
pub(crate) const INFORMATION_ID: i64 = 12_000;
pub(crate) const OWNER_ID: i64 = 10;
pub(crate) const DATABASE_ID: i64 = 5;

/// The ids of PostgreSQL's own catalogs that clients compare with.
const CATALOGS: &[(&str, i64)] = &[
    ("pg_attrdef", 2604),
    ("pg_attribute", 1249),
    ("pg_authid", 1260),
    ("pg_class", 1259),
    ("pg_constraint", 2606),
    ("pg_database", 1262),
    ("pg_description", 2609),
    ("pg_extension", 3079),
    ("pg_index", 2610),
    ("pg_namespace", 2615),
    ("pg_proc", 1255),
    ("pg_tablespace", 1213),
    ("pg_trigger", 2620),
    ("pg_type", 1247),
];

/// Types by their ids: name, length, category, array's id, input function.
pub(crate) const TYPES: &[(i64, &str, i16, &str, i64, &str)] = &[
    (16, "bool", 1, "B", 1000, "boolean"),
    (17, "bytea", -1, "U", 1001, "bytea"),
    (18, "char", 1, "Z", 1002, "\"char\""),
    (19, "name", 64, "S", 1003, "name"),
    (20, "int8", 8, "N", 1016, "bigint"),
    (21, "int2", 2, "N", 1005, "smallint"),
    (23, "int4", 4, "N", 1007, "integer"),
    (24, "regproc", 4, "N", 1008, "regproc"),
    (25, "text", -1, "S", 1009, "text"),
    (26, "oid", 4, "N", 1028, "oid"),
    (114, "json", -1, "U", 199, "json"),
    (700, "float4", 4, "N", 1021, "real"),
    (701, "float8", 8, "N", 1022, "double precision"),
    (705, "unknown", -2, "X", 0, "unknown"),
    (1042, "bpchar", -1, "S", 1014, "character"),
    (1043, "varchar", -1, "S", 1015, "character varying"),
    (1082, "date", 4, "D", 1182, "date"),
    (1083, "time", 8, "D", 1183, "time without time zone"),
    (1114, "timestamp", 8, "D", 1115, "timestamp without time zone"),
    (1184, "timestamptz", 8, "D", 1185, "timestamp with time zone"),
    (1186, "interval", 16, "T", 1187, "interval"),
    (1700, "numeric", -1, "N", 1231, "numeric"),
    (2205, "regclass", 4, "N", 2210, "regclass"),
    (2206, "regtype", 4, "N", 2211, "regtype"),
    (2950, "uuid", 16, "U", 2951, "uuid"),
    (3802, "jsonb", -1, "U", 3807, "jsonb"),
];

/// The ids of streams and views: a hash of the name, moved on where two names
/// share one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Oids {
    by_name: BTreeMap<String, i64>,
    by_id: BTreeMap<i64, String>,
}

impl Oids {
    pub(crate) fn new(listing: &Listing) -> Self {
        let mut names: Vec<&str> = listing.streams.iter().map(|name| name.as_str()).collect();
        names.extend(listing.views.iter().map(|(name, _)| name.as_str()));
        names.sort_unstable();
        let mut oids = Self::default();
        for name in names {
            let mut id = hashed(name);
            while oids.by_id.contains_key(&id) {
                id = if id >= i64::from(i32::MAX) { FIRST.into() } else { id + 1 };
            }
            oids.by_name.insert(name.to_owned(), id);
            oids.by_id.insert(id, name.to_owned());
        }
        oids
    }

    /// The id of a stream or view; 0 where there is none.
    pub(crate) fn of(&self, name: &str) -> i64 {
        self.by_name.get(name).copied().unwrap_or_default()
    }

    /// What has this id.
    pub(crate) fn name(&self, id: i64) -> Option<String> {
        let catalog = || CATALOGS.iter().find(|(_, of)| *of == id).map(|(name, _)| *name);
        self.by_id.get(&id).cloned().or_else(|| catalog().map(str::to_owned))
    }

    /// The id of what `text` names, as PostgreSQL's `regclass` reads it: with a
    /// schema or without, in quotes or folded to lower case.
    pub(crate) fn class(&self, text: &str) -> Option<i64> {
        if let Ok(id) = text.parse() {
            return Some(id);
        }
        let parts = identifiers(text);
        let last = parts.last()?;
        let whole = parts.join(".");
        let stored = [text, whole.as_str(), last.as_str()]
            .into_iter()
            .find_map(|name| self.by_name.get(name));
        let folded = || {
            let same = |name: &&String| name.eq_ignore_ascii_case(last);
            self.by_name.keys().find(same).and_then(|name| self.by_name.get(name))
        };
        let catalog = || CATALOGS.iter().find(|(name, _)| name == last).map(|(_, id)| id);
        stored.or_else(folded).or_else(catalog).copied()
    }
}

fn hashed(name: &str) -> i64 {
    // FNV-1a: short, the same on every machine, and spread well enough.
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let room = i32::MAX.unsigned_abs() - FIRST;
    i64::from(FIRST + hash % room)
}

/// The parts of a name that may be quoted.
pub(crate) fn identifiers(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut is_quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let Some(part) = parts.last_mut() else { break };
        match character {
            '"' if is_quoted && characters.peek() == Some(&'"') => {
                part.push('"');
                characters.next();
            }
            '"' => is_quoted = !is_quoted,
            '.' if !is_quoted => parts.push(String::new()),
            other if is_quoted => part.push(other),
            other => part.extend(other.to_lowercase()),
        }
    }
    parts
}

/// The id of the type that clients are told of for values of an Arrow type.
pub(crate) fn type_id(data_type: &DataType) -> i64 {
    match data_type {
        DataType::Boolean => 16,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => 21,
        DataType::Int32 | DataType::UInt16 => 23,
        DataType::Int64 | DataType::UInt32 => 20,
        DataType::Float16 | DataType::Float32 => 700,
        DataType::Float64 => 701,
        DataType::UInt64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => 1700,
        DataType::Date32 | DataType::Date64 => 1082,
        DataType::Time32(_) | DataType::Time64(_) => 1083,
        DataType::Timestamp(_, None) => 1114,
        DataType::Timestamp(_, Some(_)) => 1184,
        DataType::Interval(_) | DataType::Duration(_) => 1186,
        DataType::Dictionary(_, values) => type_id(values),
        other if other.is_nested() => 114,
        _ => 25,
    }
}

/// The id of a schema; 0 where there is none.
pub(crate) fn namespace(text: &str) -> i64 {
    match text.trim_matches('"') {
        "pg_catalog" => PG_CATALOG_ID,
        "public" => PUBLIC_ID,
        "information_schema" => INFORMATION_ID,
        _ => 0,
    }
}

/// How SQL writes the type of an id, as `format_type` does.
pub(crate) fn type_words(id: i64) -> String {
    let plain = TYPES.iter().find(|(of, ..)| *of == id).map(|(.., words)| (*words).to_owned());
    let array = || {
        let of = TYPES.iter().find(|(_, _, _, _, array, _)| *array == id && id != 0);
        of.map(|(.., words)| format!("{words}[]"))
    };
    plain.or_else(array).unwrap_or_else(|| "???".to_owned())
}

/// The name of the type of an id that [`type_id`] gives.
pub(crate) fn type_name(id: i64) -> &'static str {
    TYPES.iter().find(|(of, ..)| *of == id).map_or("text", |(_, name, ..)| *name)
}

/// The id of the type of a name.
pub(crate) fn type_of_name(name: &str) -> Option<i64> {
    let parts = identifiers(name);
    let last = parts.last()?;
    let known = TYPES.iter().find(|(_, of, .., words)| of == last || words == last);
    known.map(|(id, ..)| *id)
}

#[cfg(test)]
mod tests {
    use aquifer_types::StreamName;

    use super::*;

    #[test]
    fn names_have_the_same_id_in_every_statement() {
        let listing = |names: &[&str]| Listing {
            streams: names.iter().map(|name| StreamName::new(name).expect("a name")).collect(),
            ..Listing::default()
        };
        let few = Oids::new(&listing(&["audit", "a.b"]));
        let many = Oids::new(&listing(&["zebra", "Orders", "audit", "a.b"]));
        assert_eq!(few.of("audit"), many.of("audit"));
        assert!(few.of("audit") >= FIRST.into());
        let class = |text, expected: &str| assert_eq!(many.class(text), Some(many.of(expected)));
        class("audit", "audit");
        class("AUDIT", "audit");
        class("\"Orders\"", "Orders");
        class("public.\"Orders\"", "Orders");
        class("a.b", "a.b");
        assert_eq!(many.class("pg_catalog.pg_class"), Some(1259));
        assert_eq!(many.class("17"), Some(17));
        assert_eq!(many.class("nothing"), None);
        assert_eq!(many.name(many.of("zebra")).as_deref(), Some("zebra"));
        assert_eq!(type_words(1009), "text[]");
        assert_eq!(type_name(1184), "timestamptz");
        assert_eq!(type_of_name("pg_catalog.int4"), Some(23));
    }
}

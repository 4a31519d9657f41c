//! Avro's schemas (Apache Avro 1.12, "Schema Declaration"), as far as values are
//! read with them.
//!
//! Types stand in a list and name each other by their places, so a schema that
//! holds itself is as finite as any. What a name means is looked up once.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// The most types in a schema.
const TYPES_MAX: usize = 10_000;
/// How deep declarations may lie in each other.
const DEPTH_MAX: usize = 64;

/// The place of a type in its schema.
pub(super) type Place = usize;

/// What a value of a type is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Date,
    /// Milliseconds, microseconds or nanoseconds in a second.
    Timestamp {
        units: i64,
        is_local: bool,
    },
    /// The digits behind the point; the number of bytes, where it is fixed.
    Decimal {
        scale: u32,
        fixed: Option<usize>,
    },
    Fixed(usize),
    Enum(Vec<String>),
    Array(Place),
    Map(Place),
    Union(Vec<Place>),
    /// Each name as the JSON text of a member's.
    Record(Vec<(String, Place)>),
}

/// A schema.
#[derive(Debug)]
pub(super) struct Schema {
    types: Vec<Type>,
    pub(super) root: Place,
}

impl Schema {
    /// Reads a schema from its JSON.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let value: Value =
            serde_json::from_slice(text).map_err(|error| format!("its schema: {error}"))?;
        let mut parser = Parser { types: Vec::new(), names: HashMap::new() };
        let root = parser.declared(&value, "", 0).map_err(|why| format!("its schema: {why}"))?;
        Ok(Self { types: parser.types, root })
    }

    pub(super) fn get(&self, place: Place) -> Result<&Type, String> {
        self.types.get(place).ok_or_else(|| "its schema: a type is absent".to_owned())
    }

    /// Whether values of both are encoded in the same way.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.types == other.types && self.root == other.root
    }

    /// The fields of the root, where it is a record.
    pub(super) fn fields(&self) -> &[(String, Place)] {
        match self.types.get(self.root) {
            Some(Type::Record(fields)) => fields,
            _ => &[],
        }
    }
}

struct Parser {
    types: Vec<Type>,
    names: HashMap<String, Place>,
}

impl Parser {
    fn add(&mut self, kind: Type) -> Result<Place, String> {
        if self.types.len() >= TYPES_MAX {
            return Err(format!("it has more than {TYPES_MAX} types"));
        }
        self.types.push(kind);
        Ok(self.types.len() - 1)
    }

    fn declared(&mut self, value: &Value, space: &str, depth: usize) -> Result<Place, String> {
        if depth > DEPTH_MAX {
            return Err(format!("its types are more than {DEPTH_MAX} deep"));
        }
        match value {
            Value::String(name) => self.of_name(name, space),
            Value::Array(variants) => {
                let places = variants
                    .iter()
                    .map(|variant| self.declared(variant, space, depth + 1))
                    .collect::<Result<Vec<_>, _>>()?;
                match places.is_empty() {
                    true => Err("a union has no variants".to_owned()),
                    false => self.add(Type::Union(places)),
                }
            }
            Value::Object(object) => self.of_object(object, space, depth),
            other => Err(format!("{other} is no type")),
        }
    }

    fn of_name(&mut self, name: &str, space: &str) -> Result<Place, String> {
        let primitive = match name {
            "null" => Type::Null,
            "boolean" => Type::Boolean,
            "int" => Type::Int,
            "long" => Type::Long,
            "float" => Type::Float,
            "double" => Type::Double,
            "bytes" => Type::Bytes,
            "string" => Type::Text,
            _ => {
                let full = full_name(name, space);
                let found = self.names.get(&full).or_else(|| self.names.get(name));
                return found.copied().ok_or_else(|| format!("the type {name} is not declared"));
            }
        };
        self.add(primitive)
    }

    fn of_object(
        &mut self,
        object: &Map<String, Value>,
        space: &str,
        depth: usize,
    ) -> Result<Place, String> {
        let kind = object.get("type").ok_or("a type does not say what it is")?;
        let Value::String(kind) = kind else { return self.declared(kind, space, depth + 1) };
        if let Some(logical) = logical(kind, object) {
            let place = self.add(logical)?;
            // Only what is fixed has a name of its own.
            if kind == "fixed" {
                let (full, _) = declared_name(object, space)?;
                self.names.insert(full, place);
            }
            return Ok(place);
        }
        let items = |key: &str| object.get(key).ok_or_else(|| format!("{kind} without {key}"));
        match kind.as_str() {
            "array" => {
                let place = self.declared(items("items")?, space, depth + 1)?;
                self.add(Type::Array(place))
            }
            "map" => {
                let place = self.declared(items("values")?, space, depth + 1)?;
                self.add(Type::Map(place))
            }
            "fixed" => {
                let size = size_of(object).ok_or("fixed without a size")?;
                self.named(object, space, Type::Fixed(size))
            }
            "enum" => {
                let symbols = items("symbols")?.as_array().ok_or("symbols are a list")?;
                let symbols = symbols.iter().map(|symbol| symbol.as_str().map(str::to_owned));
                let symbols: Option<Vec<String>> = symbols.collect();
                self.named(object, space, Type::Enum(symbols.ok_or("a symbol is no text")?))
            }
            "record" | "error" => self.record(object, space, depth),
            name => self.of_name(name, space),
        }
    }

    fn named(
        &mut self,
        object: &Map<String, Value>,
        space: &str,
        kind: Type,
    ) -> Result<Place, String> {
        let (full, _) = declared_name(object, space)?;
        let place = self.add(kind)?;
        self.names.insert(full, place);
        Ok(place)
    }

    fn record(
        &mut self,
        object: &Map<String, Value>,
        space: &str,
        depth: usize,
    ) -> Result<Place, String> {
        let (full, space) = declared_name(object, space)?;
        // Known before its fields are: they may hold it.
        let place = self.add(Type::Null)?;
        self.names.insert(full, place);
        let fields = object.get("fields").and_then(Value::as_array);
        let mut found = Vec::new();
        for field in fields.ok_or("a record without fields")? {
            let name = field.get("name").and_then(Value::as_str).ok_or("a field without a name")?;
            let kind = field.get("type").ok_or("a field without a type")?;
            let of_field = self.declared(kind, &space, depth + 1)?;
            let name = serde_json::to_string(name).map_err(|error| error.to_string())?;
            found.push((name, of_field));
        }
        if let Some(declared) = self.types.get_mut(place) {
            *declared = Type::Record(found);
        }
        Ok(place)
    }
}

fn size_of(object: &Map<String, Value>) -> Option<usize> {
    usize::try_from(object.get("size")?.as_u64()?).ok()
}

/// The full name that an object declares, and the space of names in it.
fn declared_name(object: &Map<String, Value>, space: &str) -> Result<(String, String), String> {
    let name = object.get("name").and_then(Value::as_str).ok_or("a type without a name")?;
    let space = match (name.rsplit_once('.'), object.get("namespace").and_then(Value::as_str)) {
        (Some((space, _)), _) => space,
        (None, Some(given)) => given,
        (None, None) => space,
    };
    Ok((full_name(name, space), space.to_owned()))
}

fn full_name(name: &str, space: &str) -> String {
    match name.contains('.') || space.is_empty() {
        true => name.to_owned(),
        false => format!("{space}.{name}"),
    }
}

/// What a logical type makes of a type. One that is not known, or does not fit,
/// is ignored, as the specification wants it.
fn logical(kind: &str, object: &Map<String, Value>) -> Option<Type> {
    let name = object.get("logicalType")?.as_str()?;
    let stamp = |units, is_local| Some(Type::Timestamp { units, is_local });
    match (kind, name) {
        ("int", "date") => Some(Type::Date),
        ("long", "timestamp-millis") => stamp(1_000, false),
        ("long", "timestamp-micros") => stamp(1_000_000, false),
        ("long", "timestamp-nanos") => stamp(1_000_000_000, false),
        ("long", "local-timestamp-millis") => stamp(1_000, true),
        ("long", "local-timestamp-micros") => stamp(1_000_000, true),
        ("long", "local-timestamp-nanos") => stamp(1_000_000_000, true),
        ("bytes" | "fixed", "decimal") => {
            let scale = object.get("scale").map_or(Some(0), Value::as_u64)?;
            let scale = u32::try_from(scale).ok().filter(|scale| *scale <= 38)?;
            let fixed = if kind == "fixed" { Some(size_of(object)?) } else { None };
            // Wider ones do not fit into the arithmetic here.
            fixed.is_none_or(|size| size <= 16).then_some(Type::Decimal { scale, fixed })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_their_spaces() {
        let schema = Schema::parse(
            br#"{"type":"record","name":"a.Node","fields":[
                {"name":"next","type":["null","Node"]},
                {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["X"]}},
                {"name":"again","type":"a.Kind"},
                {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
                {"name":"odd","type":{"type":"string","logicalType":"strange"}}]}"#,
        )
        .unwrap();
        let fields = schema.fields();
        let kinds: Vec<_> = fields.iter().map(|(_, place)| schema.get(*place).unwrap()).collect();
        let Type::Union(variants) = kinds[0] else { panic!("{kinds:?}") };
        assert_eq!(variants[1], schema.root);
        assert_eq!(kinds[1], kinds[2]);
        assert_eq!(*kinds[3], Type::Timestamp { units: 1_000_000, is_local: false });
        assert_eq!(*kinds[4], Type::Text);
        assert_eq!(fields[0].0, "\"next\"");
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(80), "}".repeat(80));
        for (text, part) in [
            ("{", "EOF"),
            ("5", "no type"),
            ("[]", "no variants"),
            ("\"unknown\"", "not declared"),
            (r#"{"type":"array"}"#, "without items"),
            (r#"{"type":"record","name":"a"}"#, "without fields"),
            (r#"{"type":"fixed","name":"a"}"#, "without a size"),
            (r#"{"name":"a"}"#, "what it is"),
            (deep.as_str(), "deep"),
        ] {
            let why = Schema::parse(text.as_bytes()).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }
}

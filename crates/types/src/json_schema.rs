//! The fields that a JSON Schema declares (<https://json-schema.org>, drafts 4
//! to 2020-12).
//!
//! What makes a column is the part that says what a value *is*: `properties` of
//! an object, and a `type` (with `format` `date-time` or `date`). A list of types
//! is one type where the others are `null`, or `integer` beside `number`. So is
//! an `anyOf`, `oneOf` or `allOf` whose one part is not `null`, as programs write
//! it that derive schemas from classes. A `$ref` into the document is followed.
//! All else is accepted and makes no column: arrays, choices, maps, references
//! elsewhere, schemas that contain themselves, names that no column can have.
//! Nothing here refuses a value: a record that is not as declared is stored, and
//! null in the column that it does not fit.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};

use crate::schema::lower_case;
use crate::{FieldKind, NewField, SCHEMA_DEPTH_MAX, SCHEMA_FIELDS_MAX, StreamSchema};

/// The longest JSON Schema, in bytes.
pub const JSON_SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Schemas, and what is looked through in them, for one document; references
/// may lead to each many times.
const STEPS_MAX: usize = 100_000;
/// References that lie within each other.
const REFERENCES_MAX: usize = 64;
/// The most characters of a place that is told.
const PLACE_CHARACTERS_MAX: usize = 200;

/// Keywords whose value is a schema.
const ONE: &[&str] = &[
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose value is a list of schemas.
const SEVERAL: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value has schemas by name.
const NAMED: &[&str] =
    &["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];
/// Keywords whose value is a string.
const TEXTS: &[&str] = &["$id", "$ref", "$schema", "description", "format", "title"];
/// What `type` may say.
const TYPES: &[&str] = &["array", "boolean", "integer", "null", "number", "object", "string"];

/// Why a document is no JSON Schema, or too large a one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {why}")]
pub struct JsonSchemaError {
    /// Where in the document: a JSON Pointer as a fragment, `#` for all of it.
    pub at: String,
    /// What is wrong there.
    pub why: String,
}

/// The fields of a JSON Schema, in its order, objects before what is in them.
///
/// # Errors
/// [`JsonSchemaError`] where the text is no JSON Schema, or beyond a limit.
pub fn fields_of_json_schema(text: &str) -> Result<Vec<NewField>, JsonSchemaError> {
    let whole = |why: String| JsonSchemaError { at: "#".to_owned(), why };
    if text.len() > JSON_SCHEMA_BYTES_MAX {
        let (size, limit) = (text.len(), JSON_SCHEMA_BYTES_MAX);
        return Err(whole(format!("it has {size} bytes, the limit is {limit}")));
    }
    let root: Json = serde_json::from_str(text).map_err(|error| whole(error.to_string()))?;
    let mut check = Check { root: &root, place: Vec::new(), references: HashMap::new() };
    check.schema(&root)?;
    let references = check.references;
    let mut walk =
        Walk { references, active: Vec::new(), path: Vec::new(), steps: 0, fields: Vec::new() };
    if let Meaning::Object(properties) = walk.meaning(&root).map_err(whole)? {
        walk.properties(properties).map_err(whole)?;
    }
    Ok(walk.fields)
}

type Members = [(String, Json)];

/// A JSON document with the members of its objects in their order.
#[derive(Debug)]
enum Json {
    Null,
    Boolean,
    Number,
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    const fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

fn member<'a>(members: &'a Members, name: &str) -> Option<&'a Json> {
    members.iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// The document's structure: every keyword that is known has what it should.
struct Check<'a> {
    root: &'a Json,
    place: Vec<String>,
    /// Where the references lead that are into the document.
    references: HashMap<&'a str, &'a Json>,
}

impl<'a> Check<'a> {
    fn schema(&mut self, schema: &'a Json) -> Result<(), JsonSchemaError> {
        let members = match schema {
            Json::Boolean => return Ok(()),
            Json::Object(members) => members,
            other => return Err(self.wrong(format!("a schema is an object, not {}", other.name()))),
        };
        for (keyword, value) in members {
            self.place.push(keyword.clone());
            self.keyword(keyword, value)?;
            self.place.pop();
        }
        Ok(())
    }

    fn keyword(&mut self, keyword: &str, value: &'a Json) -> Result<(), JsonSchemaError> {
        let is_list = matches!(value, Json::List(_));
        if keyword == "type" {
            return self.types(value);
        }
        if keyword == "required" || keyword == "enum" {
            let all_texts = |list: &[Json]| list.iter().all(|entry| matches!(entry, Json::Text(_)));
            let is_sound = match value {
                Json::List(list) => keyword == "enum" || all_texts(list),
                _ => false,
            };
            let wanted = if keyword == "enum" { "a list" } else { "a list of names" };
            return self.expect(is_sound, wanted, value);
        }
        if TEXTS.contains(&keyword) {
            self.expect(matches!(value, Json::Text(_)), "a string", value)?;
        }
        if let (true, Json::Text(reference)) = (keyword == "$ref", value) {
            return self.reference(reference);
        }
        if ONE.contains(&keyword) || (keyword == "items" && !is_list) {
            return self.schema(value);
        }
        if SEVERAL.contains(&keyword) || keyword == "items" {
            let Json::List(schemas) = value else {
                return self.expect(false, "a list of schemas", value);
            };
            for (at, schema) in schemas.iter().enumerate() {
                self.place.push(at.to_string());
                self.schema(schema)?;
                self.place.pop();
            }
        }
        if NAMED.contains(&keyword) {
            let Json::Object(members) = value else {
                return self.expect(false, "an object of schemas", value);
            };
            for (name, schema) in members {
                self.place.push(name.clone());
                self.schema(schema)?;
                self.place.pop();
            }
        }
        Ok(())
    }

    fn types(&self, value: &Json) -> Result<(), JsonSchemaError> {
        let known = |value: &Json| match value {
            Json::Text(name) if TYPES.contains(&name.as_str()) => Ok(()),
            Json::Text(name) => {
                let name: String = name.chars().take(80).collect();
                Err(self.wrong(format!("'{name}' is none of the types {}", TYPES.join(", "))))
            }
            other => Err(self.wrong(format!("it should be a type's name, not {}", other.name()))),
        };
        match value {
            Json::List(names) if !names.is_empty() => names.iter().try_for_each(known),
            Json::List(_) => Err(self.wrong("it names no type".to_owned())),
            other => known(other),
        }
    }

    /// One into the document has to lead somewhere.
    fn reference(&mut self, reference: &'a str) -> Result<(), JsonSchemaError> {
        if self.references.contains_key(reference) {
            return Ok(());
        }
        let Some(pointer) = reference.strip_prefix('#') else { return Ok(()) };
        if !pointer.is_empty() && !pointer.starts_with('/') {
            // A name that some schema in the document gives itself.
            return Ok(());
        }
        let mut at = self.root;
        for part in pointer.split('/').skip(1) {
            let part = unescaped(part);
            let next = match at {
                Json::Object(members) => member(members, &part),
                Json::List(list) => part.parse::<usize>().ok().and_then(|index| list.get(index)),
                _ => None,
            };
            at = next.ok_or_else(|| {
                let reference: String = reference.chars().take(80).collect();
                self.wrong(format!("'{reference}' leads nowhere in this document"))
            })?;
        }
        self.references.insert(reference, at);
        Ok(())
    }

    fn expect(&self, is_sound: bool, wanted: &str, found: &Json) -> Result<(), JsonSchemaError> {
        match is_sound {
            true => Ok(()),
            false => Err(self.wrong(format!("it should be {wanted}, not {}", found.name()))),
        }
    }

    fn wrong(&self, why: String) -> JsonSchemaError {
        let mut at = String::from("#");
        for part in &self.place {
            at.push('/');
            at.push_str(&part.replace('~', "~0").replace('/', "~1"));
        }
        if at.chars().count() > PLACE_CHARACTERS_MAX {
            at = at.chars().take(PLACE_CHARACTERS_MAX).chain(['…']).collect();
        }
        JsonSchemaError { at, why }
    }
}

/// A part of a JSON Pointer in a fragment, as the name that it means.
fn unescaped(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| *first == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).replace("~1", "/").replace("~0", "~")
}

/// What a schema says of its values.
enum Meaning<'a> {
    /// They are columns of this kind.
    Scalar(FieldKind),
    /// They are objects with these properties.
    Object(&'a Members),
    /// Nothing that makes a column.
    Nothing,
}

/// Collects fields. A failure is about the whole document.
struct Walk<'a> {
    references: HashMap<&'a str, &'a Json>,
    /// The references that lead to where the walk is.
    active: Vec<&'a str>,
    path: Vec<String>,
    steps: usize,
    fields: Vec<NewField>,
}

impl<'a> Walk<'a> {
    fn properties(&mut self, properties: &'a Members) -> Result<(), String> {
        if self.path.len() >= SCHEMA_DEPTH_MAX {
            return Ok(());
        }
        // What can be no column is looked at as well.
        self.steps += properties.len();
        let mut names = HashSet::new();
        for (name, schema) in properties {
            if !StreamSchema::is_name(name) || !names.insert(lower_case(name)) {
                continue;
            }
            let (references, fields) = (self.active.len(), self.fields.len());
            self.path.push(name.clone());
            match self.meaning(schema)? {
                Meaning::Scalar(kind) => self.field(kind)?,
                Meaning::Object(properties) => {
                    self.field(FieldKind::Object)?;
                    self.properties(properties)?;
                    if self.fields.len() == fields + 1 {
                        // Values will tell what is in it.
                        self.fields.pop();
                    }
                }
                Meaning::Nothing => {}
            }
            self.path.pop();
            self.active.truncate(references);
        }
        Ok(())
    }

    fn field(&mut self, kind: FieldKind) -> Result<(), String> {
        if self.fields.len() >= SCHEMA_FIELDS_MAX {
            return Err(format!("it declares more than {SCHEMA_FIELDS_MAX} fields"));
        }
        self.fields.push(NewField { path: self.path.clone(), kind, is_declared: true });
        Ok(())
    }

    /// Follows references; those that were followed stay active.
    fn meaning(&mut self, mut schema: &'a Json) -> Result<Meaning<'a>, String> {
        loop {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(format!(
                    "its references lead to more than {STEPS_MAX} schemas and parts of them"
                ));
            }
            let Json::Object(members) = schema else { return Ok(Meaning::Nothing) };
            // Looking one up is a search.
            self.steps += members.len();
            let properties = match member(members, "properties") {
                Some(Json::Object(properties)) if !properties.is_empty() => Some(properties),
                _ => None,
            };
            if let Some(types) = member(members, "type") {
                if let Json::List(names) = types {
                    self.steps += names.len();
                }
                return Ok(match (kind_of(types, member(members, "format")), properties) {
                    (Some(FieldKind::Object), Some(properties)) => Meaning::Object(properties),
                    (Some(FieldKind::Object) | None, _) => Meaning::Nothing,
                    (Some(kind), _) => Meaning::Scalar(kind),
                });
            }
            if let Some(properties) = properties {
                return Ok(Meaning::Object(properties));
            }
            schema = match member(members, "$ref") {
                Some(Json::Text(reference)) => {
                    let target = self.references.get(reference.as_str()).copied();
                    let is_inside = self.active.contains(&reference.as_str());
                    let Some(target) = target.filter(|_| !is_inside) else {
                        return Ok(Meaning::Nothing);
                    };
                    if self.active.len() >= REFERENCES_MAX {
                        return Ok(Meaning::Nothing);
                    }
                    self.active.push(reference);
                    target
                }
                _ => match only_part(members, &mut self.steps) {
                    Some(part) => part,
                    None => return Ok(Meaning::Nothing),
                },
            };
        }
    }
}

/// The kind of values of these types; none where there is no one.
fn kind_of(types: &Json, format: Option<&Json>) -> Option<FieldKind> {
    let names = match types {
        Json::List(names) => names.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut names: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            Json::Text(name) if name != "null" => Some(name.as_str()),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        ["boolean"] => Some(FieldKind::Boolean),
        ["integer"] => Some(FieldKind::Int64),
        ["number"] | ["integer", "number"] => Some(FieldKind::Float64),
        ["object"] => Some(FieldKind::Object),
        ["string"] => Some(match format {
            Some(Json::Text(format)) if format == "date-time" => FieldKind::Timestamp,
            Some(Json::Text(format)) if format == "date" => FieldKind::Date,
            _ => FieldKind::Text,
        }),
        _ => None,
    }
}

/// The one schema of a choice or a conjunction that is not `null`. `steps` grows
/// by what is looked through in its parts.
fn only_part<'a>(members: &'a Members, steps: &mut usize) -> Option<&'a Json> {
    let mut is_null = |schema: &Json| match schema {
        Json::Object(members) => {
            *steps += members.len();
            matches!(member(members, "type"), Some(Json::Text(name)) if name == "null")
        }
        _ => false,
    };
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|name| member(members, name));
    let mut lists = lists.filter_map(|list| match list {
        Json::List(parts) => Some(parts),
        _ => None,
    });
    let (Some(parts), None) = (lists.next(), lists.next()) else { return None };
    let mut parts = parts.iter().filter(|part| !is_null(part));
    let only = parts.next()?;
    parts.next().is_none().then_some(only)
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Boolean)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            list.push(entry);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut names = HashSet::new();
        while let Some((name, value)) = entries.next_entry::<String, Json>()? {
            if !names.insert(name.clone()) {
                let name: String = name.chars().take(80).collect();
                return Err(A::Error::custom(format!("an object has '{name}' twice")));
            }
            members.push((name, value));
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        let fields = fields_of_json_schema(text).map_err(|error| error.to_string())?;
        assert!(fields.iter().all(|field| field.is_declared));
        let shown = fields.iter().map(|field| format!("{} {:?}", field.path.join("."), field.kind));
        Ok(shown.collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn types_are_columns_in_the_documents_order() {
        let check = |properties: &str, expected: &str| {
            let text = format!(r#"{{"type":"object","properties":{{{properties}}}}}"#);
            assert_eq!(shown(&text).as_deref(), Ok(expected), "{text}");
        };
        check("", "");
        check(
            r#""z":{"type":"string"},"a":{"type":"integer"},"n":{"type":"number"},"b":{"type":"boolean"}"#,
            "z Text, a Int64, n Float64, b Boolean",
        );
        check(
            r#""t":{"type":"string","format":"date-time"},"d":{"type":"string","format":"date"},
               "u":{"type":"string","format":"uuid"},"i":{"type":"integer","format":"date"}"#,
            "t Timestamp, d Date, u Text, i Int64",
        );
        check(
            r#""a":{"type":["string","null"]},"b":{"type":["null","integer","number"]},
               "c":{"type":["string","integer"]},"d":{"type":"null"},"e":{"type":["null"]}"#,
            "a Text, b Float64",
        );
        check(
            r#""o":{"type":["object","null"],"properties":{"p":{"properties":{"q":{"type":"boolean"}}},
               "r":{"type":"array","items":{"type":"string"}}}},"e":{"type":"object","properties":{}},
               "m":{"type":"object","additionalProperties":{"type":"string"}},
               "l":{"type":"object","properties":{"x":{"type":"array"}}}"#,
            "o Object, o.p Object, o.p.q Boolean",
        );
        // What can be no column, or is one already.
        check(
            r#""_a":{"type":"string"},"a.b":{"type":"string"},"":{"type":"string"},
               "Ab":{"type":"string"},"aB":{"type":"integer"},"c":true,"d":false,"e":{}"#,
            "Ab Text",
        );
    }

    #[test]
    fn what_is_no_object_has_no_fields() {
        for text in ["true", "{}", r#"{"type":"string"}"#, r#"{"type":"array","items":{}}"#] {
            assert_eq!(shown(text).as_deref(), Ok(""), "{text}");
        }
    }

    #[test]
    fn references_are_followed_once() {
        let check = |text: &str, expected: &str| {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        };
        check(
            r##"{"$ref":"#/definitions/event","definitions":{"event":{"type":"object","properties":{
                "id":{"$ref":"#/definitions/a~1b%20c"}}},"a/b c":{"type":"integer"}}}"##,
            "id Int64",
        );
        // As programs write it that derive schemas from classes.
        check(
            r##"{"properties":{"a":{"anyOf":[{"$ref":"#/$defs/x"},{"type":"null"}],"default":null},
                "b":{"allOf":[{"$ref":"#/$defs/x"}]},"c":{"oneOf":[{"type":"string"},{"type":"integer"}]},
                "d":{"anyOf":[{"type":"null"},{"type":"string","format":"date-time"}]},
                "e":{"type":"object","properties":{"f":{"type":"string"}},"oneOf":[{"required":["f"]},{}]}},
                "$defs":{"x":{"type":"object","properties":{"y":{"type":"number"}}}}}"##,
            "a Object, a.y Float64, b Object, b.y Float64, d Timestamp, e Object, e.f Text",
        );
        // A tree, a reference to itself, one that lies elsewhere, one by name.
        check(
            r##"{"properties":{"v":{"type":"string"},"left":{"$ref":"#"}}}"##,
            "v Text, left Object, left.v Text",
        );
        check(r##"{"properties":{"a":{"$ref":"#/properties/a"}}}"##, "");
        check(
            r##"{"properties":{"a":{"$ref":"https://example.com/a.json"},"b":{"$ref":"#b"}}}"##,
            "",
        );
    }

    #[test]
    fn a_document_that_is_no_schema_is_told_where() {
        let check = |text: &str, expected: &str| {
            let error = shown(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        };
        check("", "#: EOF");
        check("[]", "#: a schema is an object, not a list");
        check(r#"{"type":"text"}"#, "#/type: 'text' is none of the types array");
        check(r#"{"type":[]}"#, "#/type: it names no type");
        check(r#"{"type":["string",1]}"#, "#/type: it should be a type's name, not a number");
        check(r#"{"properties":[]}"#, "#/properties: it should be an object of schemas");
        check(
            r#"{"properties":{"a/b":{"properties":{"c~":7}}}}"#,
            "#/properties/a~1b/properties/c~0: a schema is an object, not a number",
        );
        check(r#"{"items":[{"type":1}]}"#, "#/items/0/type: it should be a type's name");
        check(r#"{"not":null}"#, "#/not: a schema is an object, not null");
        check(r#"{"anyOf":{}}"#, "#/anyOf: it should be a list of schemas");
        check(r#"{"required":true}"#, "#/required: it should be a list of names");
        check(r#"{"format":1}"#, "#/format: it should be a string");
        check(r#"{"a":1,"a":2}"#, "#: an object has 'a' twice");
        check(
            r##"{"properties":{"a":{"$ref":"#/$defs/b"}}}"##,
            "#/properties/a/$ref: '#/$defs/b' leads nowhere",
        );
        check(&format!("{}{}", r#"{"not":"#.repeat(200), "}".repeat(200)), "#: recursion limit");
        check(&" ".repeat(JSON_SCHEMA_BYTES_MAX + 1), "#: it has 262145 bytes");
    }

    #[test]
    fn a_document_has_bounds() {
        let field = |at: usize| format!(r#""f{at}":{{"type":"string"}}"#);
        let of = |count: usize| {
            let fields: Vec<String> = (0..count).map(field).collect();
            format!(r#"{{"properties":{{{}}}}}"#, fields.join(","))
        };
        assert_eq!(fields_of_json_schema(&of(SCHEMA_FIELDS_MAX)).unwrap().len(), SCHEMA_FIELDS_MAX);
        let error = shown(&of(SCHEMA_FIELDS_MAX + 1)).unwrap_err();
        assert_eq!(error, "#: it declares more than 512 fields");
        // Deeper objects are left to the value.
        let mut deep = r#"{"type":"string"}"#.to_owned();
        for _ in 0..SCHEMA_DEPTH_MAX {
            deep = format!(r#"{{"properties":{{"a":{deep},"b":{{"type":"boolean"}}}}}}"#);
        }
        assert_eq!(fields_of_json_schema(&deep).unwrap().len(), 2 * SCHEMA_DEPTH_MAX);
        let deeper = format!(r#"{{"properties":{{"a":{deep}}}}}"#);
        let fields = fields_of_json_schema(&deeper).unwrap();
        assert!(fields.iter().all(|field| field.path.len() <= SCHEMA_DEPTH_MAX));
        // A document of some kilobytes that stands for many times as much.
        let wide = (0..40).map(|at| format!(r##""n{at}":{{"$ref":"#/$defs/next"}}"##));
        let level = |next: usize| {
            let fields: Vec<String> =
                wide.clone().map(|f| f.replace("next", &next.to_string())).collect();
            format!(r#""{}":{{"properties":{{{}}}}}"#, next - 1, fields.join(","))
        };
        let levels: Vec<String> = (1..=8).map(level).collect();
        let text = format!(
            r##"{{"$ref":"#/$defs/0","$defs":{{{},"8":{{"type":"array"}}}}}}"##,
            levels.join(",")
        );
        let error = shown(&text).unwrap_err();
        assert!(error.contains("fields") || error.contains("schemas"), "{error}");
        // One whose few schemas are long, and which references lead to often.
        let many = |part: &str| {
            let parts = (0..2000).map(|at| part.replace('N', &at.to_string()));
            parts.collect::<Vec<_>>().join(",")
        };
        let references = |at: usize| format!(r##""n{at}":{{"$ref":"#/$defs/long"}}"##);
        let references = (0..1000).map(references).collect::<Vec<_>>().join(",");
        for long in [
            many(r#""kN":1"#),
            format!(r#""anyOf":[{}]"#, many(r#"{"type":"null"}"#)),
            format!(r#""type":[{}]"#, many(r#""null""#)),
            format!(r#""properties":{{{}}}"#, many(r#""_N":true"#)),
        ] {
            let text =
                format!(r#"{{"properties":{{{references}}},"$defs":{{"long":{{{long}}}}}}}"#);
            let error = shown(&text).unwrap_err();
            assert!(error.contains("schemas"), "{error}");
        }
    }

    #[test]
    fn fuzz_json_schema() {
        let seeds: [&[u8]; 2] = [
            br##"{"$ref":"#/$defs/x","$defs":{"x":{"type":"object","properties":{"a":{"type":["string","null"],"format":"date-time"},"b":{"anyOf":[{"$ref":"#"},{"type":"null"}]}}}}}"##,
            br#"{"properties":{"a":{"properties":{"b":{"type":"integer"}},"required":["b"]},"c":{"items":[true]}}}"#,
        ];
        let seeds = seeds.map(<[u8]>::to_vec);
        aquifer_testkit::fuzz("json_schema", 0.2, &seeds, |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            let Ok(fields) = fields_of_json_schema(text) else { return };
            // Each is one that a schema takes.
            let schema = StreamSchema::default().extended(&fields);
            for field in &fields {
                let found = schema.find(&field.path).map(|found| found.kind);
                assert!(schema.is_closed() || found == Some(field.kind), "{text}: {field:?}");
            }
        });
    }
}

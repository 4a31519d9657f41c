//! The columns that the values of a stream have beside the value itself.
//!
//! A schema only grows: a field keeps its id, its place, its name and its kind
//! for ever, and what a later value has in its place and does not fit is no part
//! of the column. So a chunk that was written under an older version is read
//! under a newer one without a look into it.
//!
//! What a version stands for: a chunk that says it was written under version
//! `v` (not 0) was looked at whole, so **no record in it has anything but null
//! at the path of a field whose `since` is above `v`**, unless the schema was
//! closed to new fields by then, and then there is no such field. Version 0
//! says nothing: such a chunk has no columns of fields.
//!
//! ```text
//! StreamSchema { version, is_closed, fields: [SchemaField] }
//! SchemaField { id, parent?, name, kind: FieldKind, since, is_declared }
//! ```

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The first id of a field; what lies below belongs to the fixed columns.
pub const FIELD_ID_MIN: i32 = 1000;
/// The most fields of a schema, objects and opaque ones included.
pub const SCHEMA_FIELDS_MAX: usize = 512;
/// The most names in a field's path.
pub const SCHEMA_DEPTH_MAX: usize = 8;
/// The most bytes of a field's name.
pub const FIELD_NAME_BYTES_MAX: usize = 128;
/// The most bytes of all names of a schema together.
const NAMES_BYTES_MAX: usize = 32 << 10;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// `true` and `false`.
    Boolean,
    /// Whole numbers as JSON writes them, without fraction or exponent, that
    /// fit 64 bits.
    Int64,
    /// Numbers.
    Float64,
    /// Strings.
    Text,
    /// Strings that RFC 3339 calls a date and time, to the microsecond, UTC.
    /// Only where it was declared.
    Timestamp,
    /// Strings `YYYY-MM-DD`. Only where it was declared.
    Date,
    /// Objects with fields of their own.
    Object,
    /// Known to occur, and no column: arrays, and objects whose names are data.
    Opaque,
}

impl FieldKind {
    /// As it is stored and shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Text => "text",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Object => "object",
            Self::Opaque => "opaque",
        }
    }

    /// Whether there is a column of such a field by itself.
    #[must_use]
    pub const fn is_scalar(self) -> bool {
        !matches!(self, Self::Object | Self::Opaque)
    }
}

impl fmt::Display for FieldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One field of the values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaField {
    /// Its permanent id, from [`FIELD_ID_MIN`] on.
    pub id: i32,
    /// The object that it is a part of; absent at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<i32>,
    /// Its name, as the first value wrote it.
    pub name: String,
    /// What it holds.
    pub kind: FieldKind,
    /// The first version of the schema that has it.
    pub since: u32,
    /// Whether somebody said that it is there, before a value did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_declared: bool,
}

/// The fields of a stream's values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct StreamSchema {
    version: u32,
    is_closed: bool,
    /// In the order of their ids; a parent comes before its fields.
    fields: Vec<SchemaField>,
}

/// Why something is no schema, or not the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(String);

impl SchemaError {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// A field that is to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewField {
    /// The names down to it.
    pub path: Vec<String>,
    /// What it holds.
    pub kind: FieldKind,
    /// Whether somebody declared it.
    pub is_declared: bool,
}

impl StreamSchema {
    /// Which version it is; 0 has no fields.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Whether no field is added any more.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// All fields, in the order of their ids.
    #[must_use]
    pub fn fields(&self) -> &[SchemaField] {
        &self.fields
    }

    /// The fields of an object, or those at the top.
    pub fn children(&self, parent: Option<i32>) -> impl Iterator<Item = &SchemaField> {
        self.fields.iter().filter(move |field| field.parent == parent)
    }

    /// The field of this id.
    #[must_use]
    pub fn field(&self, id: i32) -> Option<&SchemaField> {
        let at = self.fields.binary_search_by_key(&id, |field| field.id).ok()?;
        self.fields.get(at)
    }

    /// The field at a path, whose names are as they are written in values.
    #[must_use]
    pub fn find<S: AsRef<str>>(&self, path: &[S]) -> Option<&SchemaField> {
        let mut found: Option<&SchemaField> = None;
        for name in path {
            let parent = found.map(|field| field.id);
            found = Some(self.children(parent).find(|field| field.name == name.as_ref())?);
        }
        found
    }

    /// The names down to a field.
    #[must_use]
    pub fn path(&self, id: i32) -> Vec<&str> {
        let mut names = Vec::new();
        let mut at = self.field(id);
        while let Some(field) = at {
            names.push(field.name.as_str());
            at = field.parent.and_then(|parent| self.field(parent));
        }
        names.reverse();
        names
    }

    /// Whether a field of this name can be a column at all. What starts with `_`
    /// could be taken for a fixed column, a dot for a path.
    #[must_use]
    pub fn is_name(name: &str) -> bool {
        let is_bounded = !name.is_empty() && name.len() <= FIELD_NAME_BYTES_MAX;
        is_bounded
            && !name.starts_with('_')
            && !name.contains('.')
            && !name.chars().any(char::is_control)
    }

    /// The schema's next version: this one with `new` behind its fields, in
    /// their order, each with the objects above it. What has no place (a name
    /// that differs only by case from one beside it, a field below what is no
    /// object, one too deep) is left out. Where the bound on fields leaves one
    /// out, the schema is closed for good.
    ///
    /// Without anything to add it is the same version, but that version 1 says
    /// that values were looked at.
    #[must_use]
    pub fn extended(&self, new: &[NewField]) -> Self {
        let mut next = self.clone();
        next.version = self.version.saturating_add(1);
        let mut names: usize = self.fields.iter().map(|field| field.name.len()).sum();
        for field in new {
            if next.is_closed {
                break;
            }
            if next.add(field, &mut names).is_none() {
                next.is_closed = true;
            }
        }
        if next.fields.len() == self.fields.len()
            && next.is_closed == self.is_closed
            && self.version > 0
        {
            return self.clone();
        }
        next
    }

    /// The schema's next version, to which no field is added any more; the same
    /// one where that is so already. For whoever could not look at all that
    /// values have.
    #[must_use]
    pub fn closed(mut self) -> Self {
        if !self.is_closed {
            self.version = self.version.saturating_add(1);
            self.is_closed = true;
        }
        self
    }

    /// `None` where there is no room.
    fn add(&mut self, new: &NewField, names: &mut usize) -> Option<()> {
        let is_sound = (1..=SCHEMA_DEPTH_MAX).contains(&new.path.len())
            && new.path.iter().all(|name| Self::is_name(name));
        if !is_sound {
            return Some(());
        }
        let mut parent = None;
        let last = new.path.len() - 1;
        for (depth, name) in new.path.iter().enumerate() {
            let beside = self.children(parent).find(|field| is_alike(&field.name, name));
            if let Some(field) = beside {
                if field.name != *name || field.kind != FieldKind::Object {
                    return Some(());
                }
                parent = Some(field.id);
                continue;
            }
            if self.fields.len() >= SCHEMA_FIELDS_MAX || *names + name.len() > NAMES_BYTES_MAX {
                return None;
            }
            let id = self.fields.last().map_or(FIELD_ID_MIN, |field| field.id + 1);
            *names += name.len();
            self.fields.push(SchemaField {
                id,
                parent,
                name: name.clone(),
                kind: if depth == last { new.kind } else { FieldKind::Object },
                since: self.version,
                is_declared: new.is_declared,
            });
            parent = Some(id);
        }
        Some(())
    }

    /// What is stored in one document.
    ///
    /// # Errors
    /// [`SchemaError`] where it is not what any version writes.
    pub fn from_json(text: &str) -> Result<Self, SchemaError> {
        serde_json::from_str(text).map_err(|error| SchemaError::new(error.to_string()))
    }

    /// The text that [`StreamSchema::from_json`] reads.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A schema of these fields, such as one that was put together from what
    /// chunks say of themselves.
    ///
    /// # Errors
    /// [`SchemaError`] where they are not one schema's.
    pub fn new(
        version: u32,
        is_closed: bool,
        fields: Vec<SchemaField>,
    ) -> Result<Self, SchemaError> {
        if fields.len() > SCHEMA_FIELDS_MAX {
            return Err(SchemaError::new(format!("there are {} fields", fields.len())));
        }
        let mut objects: BTreeMap<i32, usize> = BTreeMap::new();
        let mut last = FIELD_ID_MIN - 1;
        for field in &fields {
            let unsound = |why: &str| SchemaError::new(format!("the field {} {why}", field.id));
            if field.id <= last {
                return Err(unsound("is out of order"));
            }
            last = field.id;
            if !Self::is_name(&field.name) {
                return Err(unsound("has no name of a column"));
            }
            if field.since == 0 || field.since > version {
                return Err(unsound("is of a later version"));
            }
            let depth = match field.parent {
                None => 1,
                Some(parent) => {
                    1 + *objects.get(&parent).ok_or_else(|| unsound("has no object above it"))?
                }
            };
            if depth > SCHEMA_DEPTH_MAX {
                return Err(unsound("lies too deep"));
            }
            if field.kind == FieldKind::Object {
                objects.insert(field.id, depth);
            }
        }
        Ok(Self { version, is_closed, fields })
    }
}

/// Whether two names are the same but for their case.
fn is_alike(a: &str, b: &str) -> bool {
    a == b || lower_case(a) == lower_case(b)
}

/// A name without its case, as names are told apart.
pub(crate) fn lower_case(name: &str) -> String {
    name.chars().flat_map(char::to_lowercase).collect()
}

/// A schema as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_closed: bool,
    fields: Vec<SchemaField>,
}

impl TryFrom<Stored> for StreamSchema {
    type Error = SchemaError;

    fn try_from(stored: Stored) -> Result<Self, SchemaError> {
        Self::new(stored.version, stored.is_closed, stored.fields)
    }
}

impl From<StreamSchema> for Stored {
    fn from(schema: StreamSchema) -> Self {
        let StreamSchema { version, is_closed, fields } = schema;
        Self { version, is_closed, fields }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(path: &str, kind: FieldKind) -> NewField {
        let path = path.split('/').map(str::to_owned).collect();
        NewField { path, kind, is_declared: false }
    }

    #[test]
    fn fields_keep_their_place_and_what_has_none_is_left_out() {
        let first = StreamSchema::default().extended(&[
            new("type", FieldKind::Text),
            new("actor/login", FieldKind::Text),
            new("Type", FieldKind::Text),
            new("type/below", FieldKind::Text),
            new("_value", FieldKind::Text),
            new("a.b", FieldKind::Text),
            new("", FieldKind::Text),
        ]);
        let shown = |schema: &StreamSchema| -> Vec<String> {
            let path = |field: &SchemaField| schema.path(field.id).join("/");
            schema.fields().iter().map(|f| format!("{} {} {}", f.id, path(f), f.since)).collect()
        };
        assert_eq!(shown(&first), ["1000 type 1", "1001 actor 1", "1002 actor/login 1"]);
        let second = first.extended(&[new("actor/id", FieldKind::Int64)]);
        assert_eq!(second.version(), 2);
        assert_eq!(shown(&second)[3], "1003 actor/id 2");
        assert_eq!(second.extended(&[new("actor/id", FieldKind::Text)]), second);
        assert_eq!(second.find(&["actor", "id"]).map(|field| field.id), Some(1003));
        assert_eq!(second.find(&["actor", "ID"]), None);
        let read = StreamSchema::from_json(&second.to_json()).unwrap();
        assert_eq!(read, second);
    }

    #[test]
    fn looked_at_and_found_empty_is_a_version() {
        let looked_at = StreamSchema::default().extended(&[]);
        assert_eq!((looked_at.version(), looked_at.fields().len()), (1, 0));
        assert_eq!(looked_at.extended(&[]), looked_at);
    }

    #[test]
    fn a_schema_that_has_no_room_is_closed_for_good() {
        let many: Vec<NewField> =
            (0..600).map(|at| new(&format!("f{at}"), FieldKind::Int64)).collect();
        let full = StreamSchema::default().extended(&many);
        assert_eq!((full.fields().len(), full.is_closed()), (SCHEMA_FIELDS_MAX, true));
        assert_eq!(full.extended(&[new("g", FieldKind::Text)]), full);
        assert_eq!(full.clone().closed(), full);
        let closed = StreamSchema::default().closed();
        assert_eq!((closed.version(), closed.is_closed()), (1, true));
        assert_eq!(closed.extended(&[new("g", FieldKind::Text)]), closed);
    }

    #[test]
    fn what_no_version_writes_is_refused() {
        let check = |json: &str, why: &str| {
            let error = StreamSchema::from_json(json).unwrap_err().to_string();
            assert!(error.contains(why), "{json}: {error}");
        };
        let one = r#"{"id":1000,"name":"a","kind":"object","since":1}"#;
        check("{}", "version");
        check(r#"{"version":1,"fields":[{"id":9,"name":"a","kind":"text","since":1}]}"#, "order");
        check(&format!(r#"{{"version":1,"fields":[{one},{one}]}}"#), "order");
        check(&format!(r#"{{"version":0,"fields":[{one}]}}"#), "later");
        check(
            r#"{"version":1,"fields":[{"id":1000,"parent":7,"name":"a","kind":"text","since":1}]}"#,
            "above",
        );
        check(
            r#"{"version":1,"fields":[{"id":1000,"name":"_a","kind":"text","since":1}]}"#,
            "name",
        );
    }
}

//! Fields that somebody declares: unlike what values bring along, they are
//! either added as they were said or refused by name.

use crate::{FieldKind, NewField, StreamSchema};

/// Why declared fields cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeclareError {
    /// The field is there, and is of another kind for ever.
    #[error(
        "the field {field} is of kind {has} and cannot become {wanted}: a field keeps its kind"
    )]
    Kind {
        /// Its names, joined by dots.
        field: String,
        /// What it is.
        has: FieldKind,
        /// What was declared.
        wanted: FieldKind,
    },
    /// Another field has the name but for its case.
    #[error("the field {field} differs from another one only by the case of its letters")]
    Case {
        /// Its names, joined by dots.
        field: String,
    },
    /// The schema has no room for it.
    #[error("the schema has no room for the field {field}: it has {fields} fields")]
    Full {
        /// Its names, joined by dots.
        field: String,
        /// How many there are.
        fields: usize,
    },
}

impl DeclareError {
    /// The field, its names joined by dots.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Kind { field, .. } | Self::Case { field } | Self::Full { field, .. } => field,
        }
    }
}

impl StreamSchema {
    /// The schema with all of `new`; itself where it has them all.
    ///
    /// # Errors
    /// [`DeclareError`] names the first field that cannot be added.
    pub fn declared(&self, new: &[NewField]) -> Result<Self, DeclareError> {
        let has = |schema: &Self, field: &NewField| {
            schema.find(&field.path).is_some_and(|found| found.kind == field.kind)
        };
        if new.iter().all(|field| has(self, field)) {
            return Ok(self.clone());
        }
        let next = self.extended(new);
        match new.iter().find(|field| !has(&next, field)) {
            Some(field) => Err(why_not(self, &next, field)),
            None => Ok(next),
        }
    }
}

/// `next` is `schema` with everything that could be added.
fn why_not(schema: &StreamSchema, next: &StreamSchema, new: &NewField) -> DeclareError {
    for depth in 1..=new.path.len() {
        let path = new.path.get(..depth).unwrap_or_default();
        let field = path.join(".");
        let wanted = if depth == new.path.len() { new.kind } else { FieldKind::Object };
        match next.find(path) {
            Some(found) if found.kind == wanted => {}
            Some(found) => return DeclareError::Kind { field, has: found.kind, wanted },
            None if next.is_closed() => {
                return DeclareError::Full { field, fields: schema.fields().len() };
            }
            None => return DeclareError::Case { field },
        }
    }
    DeclareError::Full { field: new.path.join("."), fields: schema.fields().len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SCHEMA_FIELDS_MAX;

    fn new(path: &str, kind: FieldKind) -> NewField {
        let path = path.split('.').map(str::to_owned).collect();
        NewField { path, kind, is_declared: true }
    }

    #[test]
    fn what_cannot_be_added_is_named() {
        let found = NewField { is_declared: false, ..new("a.b", FieldKind::Text) };
        let schema = StreamSchema::default().extended(&[found]);
        let check = |path: &str, kind: FieldKind, expected: &str| {
            let told = schema.declared(&[new("z", FieldKind::Int64), new(path, kind)]);
            let told = told.map(|next| next.fields().len().to_string());
            assert_eq!(told.unwrap_or_else(|error| error.to_string()), expected, "{path}");
        };
        check("c", FieldKind::Date, "4");
        check("a.c", FieldKind::Date, "4");
        check("a.b", FieldKind::Text, "3");
        check(
            "a.b",
            FieldKind::Date,
            "the field a.b is of kind text and cannot become date: a field keeps its kind",
        );
        check(
            "a",
            FieldKind::Text,
            "the field a is of kind object and cannot become text: a field keeps its kind",
        );
        check(
            "a.b.c",
            FieldKind::Text,
            "the field a.b is of kind text and cannot become object: a field keeps its kind",
        );
        check(
            "a.B",
            FieldKind::Text,
            "the field a.B differs from another one only by the case of its letters",
        );
    }

    #[test]
    fn what_is_there_is_declared_again_without_a_change() {
        let field = new("a", FieldKind::Int64);
        let schema = StreamSchema::default().declared(std::slice::from_ref(&field)).unwrap();
        assert_eq!((schema.version(), schema.fields().len()), (1, 1));
        assert!(schema.fields().iter().all(|field| field.is_declared));
        assert_eq!(schema.declared(&[field]).unwrap(), schema);
        assert_eq!(schema.declared(&[]).unwrap(), schema);
        assert_eq!(StreamSchema::default().declared(&[]).unwrap(), StreamSchema::default());
    }

    #[test]
    fn a_schema_without_room_says_so_and_stays_open() {
        let many: Vec<NewField> =
            (0..SCHEMA_FIELDS_MAX).map(|at| new(&format!("f{at}"), FieldKind::Int64)).collect();
        let schema = StreamSchema::default().declared(&many).unwrap();
        let error = schema.declared(&[new("more", FieldKind::Text)]).unwrap_err();
        let told = "the schema has no room for the field more: it has 512 fields";
        assert_eq!((error.to_string().as_str(), error.field()), (told, "more"));
        assert!(!schema.is_closed());
    }
}

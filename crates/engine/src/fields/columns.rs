//! The columns of one stream's table.
//!
//! In this order: the fixed ones, the fields of its values in the order in which
//! they were found, `_unfit`, and behind them what a statement has derived.

use std::collections::BTreeSet;
use std::sync::Arc;

use aquifer_stream::ChunkMeta;
use aquifer_types::{SchemaField, StreamSchema};
use arrow_schema::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, Result};

use super::derived::{Computed, Derived};
use crate::schema::{UNFIT, table_schema, viewed_field};

/// The columns of a table, as one statement sees it.
#[derive(Debug)]
pub(crate) struct Columns {
    stream: StreamSchema,
    /// How many are the same in every table.
    fixed: usize,
    /// Without those that were derived.
    own: SchemaRef,
    derived: Vec<Arc<Derived>>,
    all: SchemaRef,
}

/// What a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// One of those that every table has.
    Fixed(usize),
    /// A field at the top, by its name; `_unfit` is among them.
    Field(&'a str),
    /// Derived, by its place among those.
    Derived(usize),
}

/// What a part of a scan has of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Chunks with columns in which everything fits.
    Fitting,
    /// Chunks with columns, and records that do not fit.
    Mixed,
    /// Chunks without columns, but for those of which all values were found to
    /// have no field.
    Values,
}

impl Part {
    /// What a chunk is.
    pub(crate) fn of(chunk: &ChunkMeta) -> Self {
        match (chunk.schema_version, chunk.unfit) {
            (0, _) | (_, None) => Self::Values,
            (_, Some(0)) => Self::Fitting,
            (_, Some(_)) => Self::Mixed,
        }
    }
}

impl Columns {
    /// Those of a stream whose values have this schema.
    pub(crate) fn new(stream: StreamSchema) -> Self {
        let fixed = table_schema();
        let mut fields: Vec<FieldRef> = fixed.fields().iter().cloned().collect();
        let of_values = aquifer_chunk::field_columns(&stream);
        let (unfit, own): (Vec<_>, Vec<_>) =
            of_values.into_iter().map(Arc::new).partition(|field| field.name() == UNFIT);
        fields.extend(own.iter().chain(&unfit).map(viewed_field));
        let own = Arc::new(Schema::new(fields));
        Self { stream, fixed: fixed.fields().len(), all: own.clone(), own, derived: Vec::new() }
    }

    /// These, and `derived` behind them; those that are there already once.
    pub(crate) fn with(&self, derived: impl IntoIterator<Item = Arc<Derived>>) -> Self {
        let mut all = self.derived.clone();
        for new in derived {
            if !all.iter().any(|known| known.name() == new.name()) {
                all.push(new);
            }
        }
        let fields = self.own.fields().iter().cloned().chain(all.iter().map(|new| new.field()));
        Self {
            stream: self.stream.clone(),
            fixed: self.fixed,
            own: self.own.clone(),
            all: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            derived: all,
        }
    }

    /// All of them.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.all
    }

    /// Without those that were derived.
    pub(crate) fn own(&self) -> &SchemaRef {
        &self.own
    }

    /// The fields of the values.
    pub(crate) fn stream(&self) -> &StreamSchema {
        &self.stream
    }

    /// What a statement has derived.
    pub(crate) fn derived(&self) -> &[Arc<Derived>] {
        &self.derived
    }

    /// What the column of this index is.
    pub(crate) fn place(&self, index: usize) -> Option<Place<'_>> {
        if index < self.fixed {
            return Some(Place::Fixed(index));
        }
        match self.own.fields().get(index) {
            Some(field) => Some(Place::Field(field.name())),
            None => {
                let at = index - self.own.fields().len();
                (at < self.derived.len()).then_some(Place::Derived(at))
            }
        }
    }

    /// Whether any column of this projection has to do with fields.
    pub(crate) fn is_of_fields(&self, projection: &[usize]) -> bool {
        projection.iter().any(|index| *index >= self.fixed)
    }

    /// The fields at the top that the columns of this projection are made of.
    pub(crate) fn roots(&self, projection: &[usize]) -> BTreeSet<String> {
        let root = |index: &usize| match self.place(*index)? {
            Place::Fixed(_) => None,
            Place::Field(name) => Some(name.to_owned()),
            Place::Derived(at) => self.derived.get(at).map(|derived| derived.root().to_owned()),
        };
        projection.iter().filter_map(root).collect()
    }

    /// The schema with nothing but these fields at the top; whole where `_unfit`
    /// is among them, which speaks of all.
    pub(crate) fn narrowed(&self, roots: &BTreeSet<String>) -> StreamSchema {
        if roots.contains(UNFIT) {
            return self.stream.clone();
        }
        let mut kept: BTreeSet<i32> = BTreeSet::new();
        let mut fields: Vec<SchemaField> = Vec::new();
        for field in self.stream.fields() {
            let is_kept = match field.parent {
                None => roots.contains(&field.name),
                Some(parent) => kept.contains(&parent),
            };
            if is_kept {
                kept.insert(field.id);
                fields.push(field.clone());
            }
        }
        let (version, is_closed) = (self.stream.version(), self.stream.is_closed());
        // A part of a schema, with the objects above it, is one.
        StreamSchema::new(version, is_closed, fields).unwrap_or_else(|_| self.stream.clone())
    }

    /// How each of the derived columns is computed.
    pub(crate) fn computed(&self, session: &dyn Session) -> Result<Vec<Computed>> {
        let names = DFSchema::try_from(self.own.as_ref().clone())?;
        self.derived.iter().map(|derived| derived.computed(session, &names)).collect()
    }
}

#[cfg(test)]
mod tests {
    use aquifer_types::{FieldKind, NewField};

    use super::*;

    fn schema() -> StreamSchema {
        let field = |path: &str, kind| NewField {
            path: path.split('.').map(str::to_owned).collect(),
            kind,
            is_declared: false,
        };
        StreamSchema::default().extended(&[
            field("verb", FieldKind::Text),
            field("actor.login", FieldKind::Text),
            field("actor.id", FieldKind::Int64),
            field("tags", FieldKind::Opaque),
        ])
    }

    #[test]
    fn fields_stand_behind_the_fixed_columns_and_unfit_behind_them() {
        let columns = Columns::new(schema());
        let names: Vec<_> =
            columns.schema().fields().iter().skip(7).map(|field| field.name().clone()).collect();
        assert_eq!(names, ["verb", "actor", UNFIT]);
        assert_eq!(columns.place(6), Some(Place::Fixed(6)));
        assert_eq!(columns.place(8), Some(Place::Field("actor")));
        assert_eq!(columns.place(10), None);
        assert!(!columns.is_of_fields(&[0, 6]) && columns.is_of_fields(&[0, 7]));
        assert_eq!(Columns::new(StreamSchema::default()).schema(), &table_schema());
    }

    #[test]
    fn a_narrowed_schema_has_whole_objects_and_nothing_else() {
        let columns = Columns::new(schema());
        let check = |roots: &[&str], expected: &[&str]| {
            let roots = roots.iter().map(|&root| root.to_owned()).collect();
            let narrowed = columns.narrowed(&roots);
            let paths: Vec<String> =
                narrowed.fields().iter().map(|field| narrowed.path(field.id).join(".")).collect();
            assert_eq!(paths, expected, "{roots:?}");
        };
        check(&["verb"], &["verb"]);
        check(&["actor"], &["actor", "actor.login", "actor.id"]);
        check(&[UNFIT], &["verb", "actor", "actor.login", "actor.id", "tags"]);
        check(&[], &[]);
    }
}

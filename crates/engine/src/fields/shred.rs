//! Columns of fields out of values, where nobody has made them yet: in chunks
//! that were written before there was a schema, and in the tail.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use aquifer_chunk::{Shredder, field_columns};
use aquifer_types::StreamSchema;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, FieldRef, Schema};
use datafusion::arrow::compute::cast;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use parking_lot::Mutex;

use crate::Error;
use crate::schema::viewed_field;

/// The columns that `values` have under `schema`, by their names, as a table has
/// them; `_unfit` is among them where there is any.
pub(crate) fn shred(
    schema: &StreamSchema,
    values: &dyn Array,
) -> Result<Vec<(FieldRef, ArrayRef)>, Error> {
    Shredding::new(schema).columns(values)
}

/// A shredder, and the columns that it fills.
struct Shredding {
    shredder: Shredder,
    fields: Vec<FieldRef>,
}

impl Shredding {
    fn new(schema: &StreamSchema) -> Self {
        let fields = field_columns(schema).into_iter().map(Arc::new);
        let fields = fields.map(|field| viewed_field(&field)).collect();
        Self { shredder: Shredder::new(schema), fields }
    }

    fn columns(&mut self, values: &dyn Array) -> Result<Vec<(FieldRef, ArrayRef)>, Error> {
        let columns = self.shredder.shred(values)?;
        let viewed = columns.iter().zip(&self.fields).map(|(column, field)| {
            let column = cast(column, field.data_type());
            Ok((field.clone(), column.map_err(|error| Error::Plan(error.to_string()))?))
        });
        viewed.collect()
    }
}

/// Shreds batch by batch for all columns of one scan: the columns of the last
/// batch are kept, since each of them asks on its own.
pub(super) struct Values {
    state: Mutex<State>,
}

struct State {
    shredding: Shredding,
    last: Option<(ArrayRef, Vec<(FieldRef, ArrayRef)>)>,
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").finish_non_exhaustive()
    }
}

impl Values {
    pub(super) fn new(schema: &StreamSchema) -> Arc<Self> {
        let state = State { shredding: Shredding::new(schema), last: None };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn column(&self, name: &str, values: &ArrayRef) -> Result<Option<ArrayRef>, Error> {
        let mut state = self.state.lock();
        let State { shredding, last } = &mut *state;
        // The array is held, so nothing else can be at its place.
        let known = last.take().filter(|(of, _)| Arc::ptr_eq(of, values));
        let (of, columns) = match known {
            Some(known) => known,
            None => (values.clone(), shredding.columns(values)?),
        };
        let found = columns.iter().find(|(field, _)| field.name() == name);
        let found = found.map(|(_, column)| column.clone());
        *last = Some((of, columns));
        Ok(found)
    }
}

/// A field at the top, read out of a value.
#[derive(Debug, Clone)]
pub(super) struct FieldOfValue {
    pub(super) field: FieldRef,
    /// `_value`.
    pub(super) value: Arc<dyn PhysicalExpr>,
    pub(super) values: Arc<Values>,
}

impl fmt::Display for FieldOfValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field({}, {})", self.value, self.field.name())
    }
}

impl PartialEq for FieldOfValue {
    fn eq(&self, other: &Self) -> bool {
        self.field == other.field
            && self.value.eq(&other.value)
            && Arc::ptr_eq(&self.values, &other.values)
    }
}

impl Eq for FieldOfValue {}

impl Hash for FieldOfValue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.field.name().hash(state);
        self.value.hash(state);
    }
}

impl PhysicalExpr for FieldOfValue {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(self.field.data_type().clone())
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(true)
    }

    fn return_field(&self, _: &Schema) -> Result<FieldRef> {
        Ok(self.field.clone())
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let values = self.value.evaluate(batch)?.into_array(batch.num_rows())?;
        match self.values.column(self.field.name(), &values)? {
            Some(column) => Ok(ColumnarValue::Array(column)),
            None => internal_err!("values have no field {}", self.field.name()),
        }
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.value]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        match (children.pop(), children.is_empty()) {
            (Some(value), true) => Ok(Arc::new(Self { value, ..Self::clone(&self) })),
            _ => internal_err!("a field is of one value"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

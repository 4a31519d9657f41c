//! The columns that a scan of the tail gives: those of its blocks, the fields of
//! their values, and what is derived from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aquifer_types::Offset;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use datafusion::common::{Result, internal_err};
use datafusion::physical_expr::PhysicalExpr;

use crate::fields::{Columns, Computed, Place};
use crate::schema::{UNFIT, VALUE};
use crate::tail_cache::{Block, FieldColumn, range_within};
use crate::zones::ByColumn;

/// What of a block is wanted, and in what order.
#[derive(Debug, Clone)]
pub(crate) struct TailColumns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    columns: Arc<Columns>,
    projection: Vec<usize>,
    schema: SchemaRef,
    /// The fields at the top that are needed for it.
    roots: BTreeSet<String>,
    /// In the order of the table's derived columns.
    derived: Vec<Derived>,
}

#[derive(Debug)]
struct Derived {
    root: String,
    /// The columns that both expressions are over.
    place: SchemaRef,
    fitting: Arc<dyn PhysicalExpr>,
    mixed: Arc<dyn PhysicalExpr>,
}

impl TailColumns {
    /// The columns of this projection.
    pub(crate) fn new(
        columns: Arc<Columns>,
        computed: &[Computed],
        projection: &[usize],
    ) -> Result<Self> {
        let derived = columns.derived().iter().zip(computed).map(|(derived, computed)| {
            let (fitting, mixed) = computed.in_tail()?;
            let (root, place) = (derived.root().to_owned(), computed.place().clone());
            Ok(Derived { root, place, fitting, mixed })
        });
        let derived = derived.collect::<Result<_>>()?;
        Ok(Self(Arc::new(Inner {
            schema: Arc::new(columns.schema().project(projection)?),
            roots: columns.roots(projection),
            projection: projection.to_vec(),
            derived,
            columns,
        })))
    }

    /// They as a schema.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    /// They of what a block has of `[from, end)`, and by how many bytes it has
    /// grown for that.
    pub(crate) fn of(
        &self,
        block: &Block,
        from: Offset,
        end: Offset,
    ) -> Result<(RecordBatch, usize)> {
        let range = range_within(&block.rows, from, end);
        let rows = block.rows.slice(range.start, range.len());
        let inner = &*self.0;
        let (mut fields, grown) = match inner.roots.is_empty() {
            true => (BTreeMap::new(), 0),
            false => block.fields(&inner.columns, &inner.roots)?,
        };
        for field in fields.values_mut() {
            field.column = field.column.slice(range.start, range.len());
            field.unfit = field.unfit.slice(range.start, range.len());
        }
        let columns = inner.projection.iter().map(|index| match inner.columns.place(*index) {
            Some(Place::Fixed(at)) => Ok(rows.column(at).clone()),
            Some(Place::Field(name)) => match fields.get(name) {
                Some(field) => Ok(field.column.clone()),
                None => internal_err!("a block has no field {name}"),
            },
            Some(Place::Derived(at)) => inner.derived(at, &rows, &fields),
            None => internal_err!("a table has no column {index}"),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let count = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let batch = RecordBatch::try_new_with_options(inner.schema.clone(), columns, &count)?;
        Ok((batch, grown))
    }

    /// What is known of these of its columns in a block, without reading any field
    /// that the block does not have; and by how many bytes it has grown for that.
    pub(crate) fn zones(&self, block: &Block, columns: &[usize]) -> Result<(ByColumn, usize)> {
        let inner = &*self.0;
        let version = inner.columns.stream().version();
        let (mut found, mut all_grown) = (ByColumn::new(), 0);
        for index in columns {
            let Some(place) = inner.projection.get(*index).and_then(|at| inner.columns.place(*at))
            else {
                return internal_err!("a scan has no column {index}");
            };
            let root = match place {
                Place::Fixed(_) => continue,
                Place::Field(name) => name,
                Place::Derived(at) => match inner.derived.get(at) {
                    Some(derived) => derived.root.as_str(),
                    None => return internal_err!("a table has no derived column {at}"),
                },
            };
            let Some(field) = block.known_field(version, root) else { continue };
            let name = inner.schema.field(*index).name();
            // What cannot be computed is not known; whoever reads the rows is told why.
            let read = || match place {
                Place::Derived(at) => {
                    let fields = BTreeMap::from([(root.to_owned(), field)]);
                    inner.derived(at, &block.rows, &fields).ok()
                }
                _ => Some(field.column),
            };
            let (zone, grown) = block.zones().zone(version, name, read);
            all_grown += grown;
            found.extend(zone.map(|zone| (name.clone(), zone)));
        }
        Ok((found, all_grown))
    }
}

impl Inner {
    fn derived(
        &self,
        at: usize,
        rows: &RecordBatch,
        fields: &BTreeMap<String, FieldColumn>,
    ) -> Result<ArrayRef> {
        let Some(derived) = self.derived.get(at) else {
            return internal_err!("a table has no derived column {at}");
        };
        let Some(field) = fields.get(&derived.root) else {
            return internal_err!("a block has no field {}", derived.root);
        };
        let columns = derived.place.fields().iter().map(|column| match column.name().as_str() {
            VALUE => rows.column_by_name(VALUE).cloned(),
            UNFIT => Some(field.unfit.clone()),
            _ => Some(field.column.clone()),
        });
        let Some(columns) = columns.collect::<Option<Vec<_>>>() else {
            return internal_err!("a block has no values");
        };
        let batch = RecordBatch::try_new(derived.place.clone(), columns)?;
        let expr = match field.unfit.null_count() == field.unfit.len() {
            true => &derived.fitting,
            false => &derived.mixed,
        };
        expr.evaluate(&batch)?.into_array(batch.num_rows())
    }
}

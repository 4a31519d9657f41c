//! What the footers of chunks say of their fields, for the order of joins.
//!
//! Which side of a join is the small one depends on what its filters leave and on
//! how many keys it has. Without least and greatest values, a range of dates is
//! taken for next to nothing, and the larger side is kept in memory.

use arrow_array::Array as _;
use arrow_schema::{DataType, FieldRef, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use datafusion::parquet::basic::Type;
use datafusion::parquet::file::metadata::ParquetMetaData;

use super::columns::{Columns, Place};

/// What a text takes beside its bytes.
const VIEW_BYTES: u64 = 16;

/// In the session of a plan that has joins: scans look into footers for it.
#[derive(Debug)]
pub(crate) struct HasJoins;

/// The fields at the top of which every chunk so far has said something.
#[derive(Debug, Default)]
pub(crate) struct Known {
    fields: Vec<Bounded>,
}

#[derive(Debug)]
struct Bounded {
    /// Among all columns of the table.
    index: usize,
    field: FieldRef,
    range: Option<(ScalarValue, ScalarValue)>,
    nulls: u64,
    /// Of a text.
    bytes: u64,
}

impl Known {
    /// Those of `projection` of which footers say something, before any did.
    pub(crate) fn new(columns: &Columns, projection: &[usize]) -> Self {
        let of = |index: &usize| {
            let is_field = matches!(columns.place(*index)?, Place::Field(_));
            let field = columns.schema().fields().get(*index)?.clone();
            let is_told = is_field && stored_as(field.data_type()).is_some();
            is_told.then(|| Bounded { index: *index, field, range: None, nulls: 0, bytes: 0 })
        };
        Self { fields: projection.iter().filter_map(of).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Takes in a chunk in which everything fits its columns.
    pub(crate) fn add(&mut self, footer: &ParquetMetaData) {
        self.fields.retain_mut(|field| field.add(footer).is_some());
    }

    /// Writes what is known into the statistics of the table's columns. All of it
    /// is inexact: nobody is to answer a question with it.
    pub(crate) fn write(&self, schema: &SchemaRef, statistics: &mut Statistics) {
        for field in &self.fields {
            let is_it = |of: &FieldRef| of.name() == field.field.name();
            if !schema.fields().get(field.index).is_some_and(is_it) {
                continue;
            }
            let Some(column) = statistics.column_statistics.get_mut(field.index) else { continue };
            let count = |of: u64| Precision::Inexact(usize::try_from(of).unwrap_or(usize::MAX));
            *column = ColumnStatistics {
                null_count: count(field.nulls),
                byte_size: if field.is_text() { count(field.bytes) } else { Precision::Absent },
                ..ColumnStatistics::new_unknown()
            };
            if let Some((min, max)) = &field.range {
                column.min_value = Precision::Inexact(min.clone());
                column.max_value = Precision::Inexact(max.clone());
            }
        }
    }
}

impl Bounded {
    fn is_text(&self) -> bool {
        stored_as(self.field.data_type()) == Some(Type::BYTE_ARRAY)
    }

    /// `None` where the footer does not say enough.
    fn add(&mut self, footer: &ParquetMetaData) -> Option<()> {
        let schema = footer.file_metadata().schema_descr();
        let name = self.field.name().as_str();
        let is_it = |at: &usize| match schema.column(*at).path().parts() {
            [one] => one == name,
            _ => false,
        };
        let index = (0..schema.num_columns()).find(is_it)?;
        if Some(schema.column(index).physical_type()) != stored_as(self.field.data_type()) {
            return None;
        }
        let converter = StatisticsConverter::from_column_index(index, &self.field, schema).ok()?;
        let converter = converter.with_missing_null_counts_as_zero(false);
        let groups = footer.row_groups();
        let nulls = converter.row_group_null_counts(groups).ok()?;
        if self.is_text() {
            for (at, group) in groups.iter().enumerate() {
                let rows = u64::try_from(group.num_rows()).ok()?;
                let stored = u64::try_from(group.column(index).uncompressed_size()).ok()?;
                self.bytes += rows * VIEW_BYTES + stored;
                self.nulls += if nulls.is_null(at) { return None } else { nulls.value(at) };
            }
            return Some(());
        }
        let mins = converter.row_group_mins(groups).ok()?;
        let maxes = converter.row_group_maxes(groups).ok()?;
        for (at, group) in groups.iter().enumerate() {
            if nulls.is_null(at) {
                return None;
            }
            self.nulls += nulls.value(at);
            if u64::try_from(group.num_rows()).ok()? <= nulls.value(at) {
                continue;
            }
            let min = ScalarValue::try_from_array(&mins, at).ok()?;
            let max = ScalarValue::try_from_array(&maxes, at).ok()?;
            if min.is_null() || max.is_null() {
                return None;
            }
            self.range = Some(match self.range.take() {
                None => (min, max),
                Some((least, greatest)) => (
                    if min < least { min } else { least },
                    if max > greatest { max } else { greatest },
                ),
            });
        }
        Some(())
    }
}

/// How a chunk stores a type of which something is taken: bounds where they are
/// never cut short, and how many bytes a text has.
fn stored_as(data_type: &DataType) -> Option<Type> {
    match data_type {
        DataType::Int64 | DataType::Timestamp(..) => Some(Type::INT64),
        DataType::Float64 => Some(Type::DOUBLE),
        DataType::Date32 => Some(Type::INT32),
        DataType::Utf8 | DataType::Utf8View => Some(Type::BYTE_ARRAY),
        _ => None,
    }
}

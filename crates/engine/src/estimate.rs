//! What plans are told of rows that were not looked at. All of it is about: no
//! answer may rest on it.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::logical_expr::interval_arithmetic::Interval;

/// The part of rows that is taken to pass a filter, as DataFusion assumes it.
const FILTERED_ASSUMED: f64 = 0.2;

/// The statistics of what passes a filter, without those of its columns.
pub(crate) fn passing(statistics: Statistics) -> Statistics {
    let mut statistics = statistics.to_inexact();
    let part = |of: Precision<usize>| of.with_estimated_selectivity(FILTERED_ASSUMED);
    statistics.num_rows = part(statistics.num_rows);
    statistics.total_byte_size = part(statistics.total_byte_size);
    statistics
}

/// Says of the columns of `projection` whose rows are not all as wide that they
/// have at most `bytes` together.
pub(crate) fn share_bytes(
    bytes: Precision<usize>,
    schema: &SchemaRef,
    projection: &[usize],
    statistics: &mut Statistics,
) {
    let is_wide = |index: &&usize| schema.field(**index).data_type().primitive_width().is_none();
    let wide: Vec<usize> = projection.iter().filter(is_wide).copied().collect();
    for index in &wide {
        if let Some(column) = statistics.column_statistics.get_mut(*index) {
            column.byte_size = bytes.map(|bytes| bytes / wide.len()).to_inexact();
        }
    }
}

/// How many different values there can be, where one input knows its bounds and
/// another does not. Bounds of the one are not said of all: plans rely on them.
pub(crate) fn with_distinct(mut union: Statistics, inputs: &[Arc<Statistics>]) -> Statistics {
    let rows = union.num_rows;
    for (at, column) in union.column_statistics.iter_mut().enumerate() {
        if column.min_value != Precision::Absent || column.distinct_count != Precision::Absent {
            continue;
        }
        let values = |of: &Arc<Statistics>| {
            let known = of.column_statistics.get(at)?;
            let (min, max) = (known.min_value.get_value()?, known.max_value.get_value()?);
            let values = Interval::try_new(min.clone(), max.clone()).ok()?.cardinality()?;
            usize::try_from(values).ok()
        };
        let values = inputs.iter().filter_map(values).max();
        if let (Some(values), Some(rows)) = (values, rows.get_value()) {
            column.distinct_count = Precision::Inexact(values.min(*rows));
        }
    }
    union
}

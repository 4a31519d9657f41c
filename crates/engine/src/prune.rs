//! What is known of records without reading them: the bounds of chunks, of the
//! tail, and of its blocks, and the zones of their fields, held against a
//! question's filters.
//!
//! Bounds may be wider than what is there, never narrower. Where nothing can be
//! proved, everything is kept.

use std::collections::HashSet;
use std::sync::Arc;

use aquifer_types::{Offset, PartitionIndex, Timestamp};
use arrow_array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, TimestampMicrosecondArray, UInt64Array,
};
use arrow_schema::SchemaRef;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};

use crate::schema::{APPENDED, OFFSET, PARTITION, TIMESTAMP};
use crate::zones::{ByColumn, Zone};

/// What is known of some records of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) partition: PartitionIndex,
    /// No offset is lower.
    pub(crate) base: Offset,
    /// Every offset is lower.
    pub(crate) next: Offset,
    /// The lowest and the highest timestamp in µs, where they are known.
    pub(crate) timestamps: Option<(i64, i64)>,
    /// When the last of them was appended, in µs, where it is known.
    pub(crate) appended_max: Option<i64>,
}

/// The microseconds of a timestamp, as chunks store it.
pub(crate) fn micros(timestamp: Timestamp) -> i64 {
    timestamp.0.clamp(-(i64::MAX / 1000), i64::MAX / 1000) * 1000
}

/// The partition's number as the column `_partition` has it.
pub(crate) fn partition_value(partition: PartitionIndex) -> i32 {
    i32::try_from(partition.0).unwrap_or(i32::MAX)
}

/// A filter in the form that bounds are held against.
#[derive(Debug)]
pub(crate) struct Pruner(Option<Arc<PruningPredicate>>);

impl Pruner {
    /// A pruner for records of `schema` that must meet `filter`.
    pub(crate) fn new(filter: Option<&Arc<dyn PhysicalExpr>>, schema: &SchemaRef) -> Self {
        let builder = PruningPredicateBuilder::new().with_file_schema(schema.clone());
        Self(filter.and_then(|filter| builder.build(filter.clone())))
    }

    /// For each of them, whether records within it may meet the filter.
    pub(crate) fn keep(&self, bounds: &[Bounds]) -> Vec<bool> {
        let pruned = self.0.as_ref().filter(|_| !bounds.is_empty());
        pruned
            .and_then(|predicate| predicate.prune(&Containers { bounds, zones: None }).ok())
            .filter(|keep| keep.len() == bounds.len())
            .unwrap_or_else(|| vec![true; bounds.len()])
    }

    /// Whether records within these bounds, of whose columns so much is known,
    /// may meet the filter.
    pub(crate) fn keep_by_zones(&self, bounds: Bounds, zones: &ByColumn) -> bool {
        let of = Containers { bounds: &[bounds], zones: Some(zones) };
        let kept = self.0.as_ref().and_then(|predicate| predicate.prune(&of).ok());
        kept.is_none_or(|keep| keep != [false])
    }
}

struct Containers<'a> {
    bounds: &'a [Bounds],
    /// Only where there is one of them.
    zones: Option<&'a ByColumn>,
}

impl Containers<'_> {
    fn partitions(&self) -> ArrayRef {
        let each = self.bounds.iter().map(|bounds| partition_value(bounds.partition));
        Arc::new(Int32Array::from_iter_values(each))
    }

    fn offsets(&self, of: impl Fn(&Bounds) -> i64) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(self.bounds.iter().map(of)))
    }

    fn times(&self, of: impl Fn(&Bounds) -> Option<i64>) -> ArrayRef {
        let times: TimestampMicrosecondArray = self.bounds.iter().map(of).collect();
        Arc::new(times.with_timezone("UTC"))
    }

    fn zone(&self, column: &Column) -> Option<&Zone> {
        self.zones?.get(column.name())
    }
}

impl PruningStatistics for Containers<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name() {
            PARTITION => Some(self.partitions()),
            OFFSET => Some(self.offsets(|bounds| bounds.base.0)),
            TIMESTAMP => Some(self.times(|bounds| Some(bounds.timestamps?.0))),
            _ => self.zone(column)?.least.to_array().ok(),
        }
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name() {
            PARTITION => Some(self.partitions()),
            OFFSET => Some(self.offsets(|bounds| bounds.next.0.saturating_sub(1))),
            TIMESTAMP => Some(self.times(|bounds| Some(bounds.timestamps?.1))),
            APPENDED => Some(self.times(|bounds| bounds.appended_max)),
            _ => self.zone(column)?.greatest.to_array().ok(),
        }
    }

    fn num_containers(&self) -> usize {
        self.bounds.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let nulls = match [PARTITION, OFFSET, TIMESTAMP, APPENDED].contains(&column.name()) {
            true => vec![0; self.bounds.len()],
            false => vec![self.zone(column)?.nulls],
        };
        Some(Arc::new(UInt64Array::from(nulls)))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        // All zones are of the same rows.
        let rows = self.zones?.values().next()?.rows;
        Some(Arc::new(UInt64Array::from(vec![rows])))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::DFSchema;
    use datafusion::prelude::{Expr, SessionContext, col, lit};

    use super::*;
    use crate::schema::table_schema;

    fn keep(filter: Expr, bounds: &[Bounds]) -> Vec<bool> {
        let schema = table_schema();
        let names = DFSchema::try_from(schema.as_ref().clone()).unwrap();
        let filter = SessionContext::new().create_physical_expr(filter, &names).unwrap();
        Pruner::new(Some(&filter), &schema).keep(bounds)
    }

    #[test]
    fn bounds_that_cannot_meet_a_filter_are_left_out() {
        let bounds = |partition, base, next, timestamps: Option<(i64, i64)>| Bounds {
            partition: PartitionIndex(partition),
            base: Offset(base),
            next: Offset(next),
            timestamps: timestamps.map(|(from, to)| (from * 1000, to * 1000)),
            appended_max: timestamps.map(|(_, to)| to * 1000),
        };
        let all = [
            bounds(0, 0, 10, Some((100, 200))),
            bounds(0, 10, 20, Some((150, 300))),
            bounds(1, 0, 5, None),
        ];
        let time =
            |ms: i64| lit(ScalarValue::TimestampMicrosecond(Some(ms * 1000), Some("UTC".into())));
        let check = |filter: Expr, expected: [bool; 3]| {
            assert_eq!(keep(filter.clone(), &all), expected, "{filter}");
        };
        check(col(PARTITION).eq(lit(0)), [true, true, false]);
        check(col(PARTITION).not_eq(lit(0)), [false, false, true]);
        check(col(OFFSET).gt_eq(lit(10_i64)), [false, true, false]);
        check(col(OFFSET).gt_eq(lit(9_i64)), [true, true, false]);
        check(col(OFFSET).lt(lit(0_i64)), [false, false, false]);
        check(col(TIMESTAMP).lt(time(150)), [true, false, true]);
        check(col(TIMESTAMP).gt(time(200)), [false, true, true]);
        check(col(APPENDED).gt(time(250)), [false, true, true]);
        check(col(OFFSET).eq(lit(3_i64)).or(col(PARTITION).eq(lit(1))), [true, false, true]);
        check(col(OFFSET).is_null(), [false, false, false]);
        check(col("_value").is_null(), [true, true, true]);
        check(lit(true), [true, true, true]);
    }
}

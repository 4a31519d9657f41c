//! What is known of the columns of a block's fields: their least and greatest
//! values, held against a question's filters before its rows are.
//!
//! A zone is found when a filter first asks for a column that the block has
//! already, and is kept beside it. It may be wider than what a question reads of
//! the block, never narrower.

use std::collections::{BTreeMap, HashMap};

use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, SortOptions};
use datafusion::arrow::compute::sort_to_indices;
use datafusion::common::ScalarValue;

/// A block keeps so many zones: what statements derive has no end of names.
const ZONES_MAX: usize = 64;
/// What one of them takes, about.
const ZONE_BYTES: usize = 256;
/// Longer text is not kept; nothing is known of that side then.
const BOUND_BYTES_MAX: usize = 64;

/// What is known of one column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Zone {
    /// Null where it is not known.
    pub(crate) least: ScalarValue,
    /// The same.
    pub(crate) greatest: ScalarValue,
    pub(crate) nulls: u64,
    pub(crate) rows: u64,
}

impl Zone {
    /// The zone of a column, if its values have an order.
    fn of(column: &ArrayRef) -> Option<Self> {
        if !is_ordered(column.data_type()) {
            return None;
        }
        let end = |descending: bool| {
            let options = SortOptions { descending, nulls_first: false };
            let first = sort_to_indices(column, Some(options), Some(1)).ok()?;
            let value = match first.values().first() {
                Some(at) => ScalarValue::try_from_array(column, usize::try_from(*at).ok()?),
                None => ScalarValue::try_from(column.data_type()),
            };
            bounded(value.ok()?)
        };
        let (least, greatest) = (end(false)?, end(true)?);
        let (nulls, rows) = (column.null_count() as u64, column.len() as u64);
        Some(Self { least, greatest, nulls, rows })
    }
}

fn is_ordered(data_type: &DataType) -> bool {
    data_type.is_primitive()
        || matches!(data_type, DataType::Boolean | DataType::Utf8 | DataType::Utf8View)
}

/// The value, or null where it is too long.
fn bounded(value: ScalarValue) -> Option<ScalarValue> {
    match value.try_as_str().flatten() {
        Some(text) if text.len() > BOUND_BYTES_MAX => {
            ScalarValue::try_from(&value.data_type()).ok()
        }
        _ => Some(value),
    }
}

/// The zones of a block, by the names of columns. Those of which nothing is known
/// are among them.
#[derive(Debug, Default)]
pub(crate) struct Zones {
    /// The version of the schema that they were found under.
    version: u32,
    known: HashMap<String, Option<Zone>>,
    /// So many were told of as growth; there may be fewer.
    counted: usize,
}

impl Zones {
    /// The zone of the column `name`, and by how many bytes the block has grown
    /// for it. `read` gives the column, where there is anything to say of it.
    pub(crate) fn zone(
        &mut self,
        version: u32,
        name: &str,
        read: impl FnOnce() -> Option<ArrayRef>,
    ) -> (Option<Zone>, usize) {
        if self.version != version {
            self.known.clear();
            self.version = version;
        }
        if let Some(known) = self.known.get(name) {
            return (known.clone(), 0);
        }
        if self.known.len() >= ZONES_MAX {
            return (None, 0);
        }
        let zone = read().and_then(|column| Zone::of(&column));
        self.known.insert(name.to_owned(), zone.clone());
        let grown = self.known.len().saturating_sub(self.counted);
        self.counted += grown;
        (zone, grown * ZONE_BYTES)
    }
}

/// The zones of some columns, by their names.
pub(crate) type ByColumn = BTreeMap<String, Zone>;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        BooleanArray, Float64Array, Int64Array, ListArray, StringViewArray, StructArray,
    };

    use super::*;

    #[test]
    fn a_zone_is_as_wide_as_its_column() {
        let check = |column: ArrayRef, least: ScalarValue, greatest: ScalarValue| {
            let (nulls, rows) = (column.null_count() as u64, column.len() as u64);
            let zone = Zone { least, greatest, nulls, rows };
            assert_eq!(Zone::of(&column), Some(zone), "{column:?}");
        };
        let int = |of: Option<i64>| ScalarValue::Int64(of);
        check(
            Arc::new(Int64Array::from(vec![Some(3), None, Some(-7), Some(5)])),
            int(Some(-7)),
            int(Some(5)),
        );
        check(Arc::new(Int64Array::from(vec![None, None])), int(None), int(None));
        check(Arc::new(Int64Array::from(Vec::<i64>::new())), int(None), int(None));
        let float = |of: f64| ScalarValue::Float64(Some(of));
        check(Arc::new(Float64Array::from(vec![0.0, -0.0])), float(-0.0), float(0.0));
        let text = |of: Option<&str>| ScalarValue::Utf8View(of.map(str::to_owned));
        let long = "z".repeat(BOUND_BYTES_MAX + 1);
        check(
            Arc::new(StringViewArray::from(vec![Some("b"), Some(long.as_str()), None, Some("a")])),
            text(Some("a")),
            text(None),
        );
        check(
            Arc::new(BooleanArray::from(vec![Some(true), None])),
            ScalarValue::Boolean(Some(true)),
            ScalarValue::Boolean(Some(true)),
        );
    }

    #[test]
    fn of_objects_and_lists_nothing_is_known() {
        let fields =
            arrow_schema::Fields::from(vec![arrow_schema::Field::new("a", DataType::Int64, true)]);
        let object: ArrayRef = Arc::new(StructArray::new_null(fields, 2));
        let list: ArrayRef = Arc::new(ListArray::new_null(
            Arc::new(arrow_schema::Field::new("item", DataType::Int64, true)),
            2,
        ));
        assert_eq!(Zone::of(&object), None);
        assert_eq!(Zone::of(&list), None);
    }

    #[test]
    fn a_zone_is_found_once_for_each_version_and_there_is_an_end_of_them() {
        let column = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
        let mut zones = Zones::default();
        let mut check = |version: u32, name: &str, value: i64, least: Option<i64>, grown: bool| {
            let (zone, bytes) = zones.zone(version, name, || Some(column(value)));
            assert_eq!(zone.map(|zone| zone.least), least.map(|of| ScalarValue::Int64(Some(of))));
            assert_eq!(bytes > 0, grown, "{version} {name}");
        };
        check(1, "a", 1, Some(1), true);
        check(1, "a", 2, Some(1), false);
        check(1, "b", 2, Some(2), true);
        check(2, "a", 3, Some(3), false);
        check(2, "c", 4, Some(4), false);
        for at in 2..ZONES_MAX {
            check(2, &format!("c{at}"), 4, Some(4), true);
        }
        check(2, "d", 5, None, false);
        check(2, "a", 6, Some(3), false);
    }
}

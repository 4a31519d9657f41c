//! How much rows hold: what a slice or a view refers to, and not the buffers
//! that it shares with others.

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::DataType;

/// What a view takes beside the bytes that it refers to.
const VIEW_BYTES: usize = 16;

/// The bytes that the rows of `batch` hold.
pub(crate) fn held_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| held(column.as_ref())).sum()
}

/// The bytes that the values of `array` hold.
pub(crate) fn held(array: &dyn Array) -> usize {
    let views = |views: &[u128]| -> usize {
        // The lower half of the first word of a view is its length.
        views.iter().map(|view| VIEW_BYTES + usize::try_from(*view as u32).unwrap_or(0)).sum()
    };
    match array.data_type() {
        DataType::Utf8View => views(array.as_string_view().views()),
        DataType::BinaryView => views(array.as_binary_view().views()),
        DataType::Struct(_) => {
            array.as_struct().columns().iter().map(|column| held(column.as_ref())).sum()
        }
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let ends = lists.value_offsets();
            let (first, last) = (ends.first().copied(), ends.last().copied());
            let from = usize::try_from(first.unwrap_or(0)).unwrap_or(0);
            let to = usize::try_from(last.unwrap_or(0)).unwrap_or(0);
            size_of_val(ends) + held(lists.values().slice(from, to.saturating_sub(from)).as_ref())
        }
        _ => {
            let data = array.to_data();
            data.get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{
        ArrayRef, BinaryViewArray, Int64Array, ListArray, StringArray, StringViewArray, StructArray,
    };
    use datafusion::arrow::datatypes::{Field, Int64Type};

    use super::*;

    #[test]
    fn a_slice_holds_its_own_part() {
        let check = |name: &str, array: ArrayRef, rows: usize, expected: usize| {
            let batch = RecordBatch::try_from_iter([("c", array)]).expect("a batch");
            let whole = held_bytes(&batch);
            let slice = held_bytes(&batch.slice(1, rows));
            assert_eq!(slice, expected, "{name}, of {whole}");
            assert!(batch.num_rows() < 100 || slice < whole / 10, "{name}: {slice} of {whole}");
        };
        let long = "x".repeat(100);
        let texts = || std::iter::repeat_n(long.as_str(), 1000);
        check("numbers", Arc::new(Int64Array::from_iter_values(0..1000)), 2, 16);
        check("text", Arc::new(StringArray::from_iter_values(texts())), 2, 200 + 12);
        check("views", Arc::new(StringViewArray::from_iter_values(texts())), 2, 232);
        check("bytes", Arc::new(BinaryViewArray::from_iter_values(texts())), 1, 116);
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts()));
        let field = Arc::new(Field::new("a", DataType::Utf8View, false));
        check("structs", Arc::new(StructArray::from(vec![(field, texts)])), 1, 116);
        let lists = (0..1000).map(|_| Some(vec![Some(1), Some(2)]));
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(lists);
        check("lists", Arc::new(lists), 1, 2 * 4 + 2 * 8);
    }
}

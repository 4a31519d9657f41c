//! Rows of a tail, in the columns of a table, as a search looks at them.

use aquifer_search::Searchable;
use aquifer_search::run::RowSet;
use aquifer_types::{Header, Offset, PartitionIndex, Record, Timestamp};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, BinaryArray, BinaryViewArray, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use bytes::Bytes;

use crate::schema::{HEADERS, KEY, OFFSET, TIMESTAMP, VALUE};

/// Rows of one partition.
#[derive(Debug, Clone)]
pub(super) struct TableRows {
    partition: PartitionIndex,
    offsets: Int64Array,
    timestamps: TimestampMicrosecondArray,
    keys: BinaryViewArray,
    values: BinaryViewArray,
    headers: ListArray,
    header_keys: StringArray,
    header_values: BinaryArray,
}

impl TableRows {
    /// The rows of a batch; nothing where its columns are not those of a table.
    pub(super) fn new(partition: PartitionIndex, rows: &RecordBatch) -> Option<Self> {
        let headers = rows.column_by_name(HEADERS)?.as_list_opt::<i32>()?.clone();
        let pairs = headers.values().as_struct_opt()?;
        let [header_keys, header_values] = pairs.columns() else { return None };
        Some(Self {
            partition,
            offsets: rows.column_by_name(OFFSET)?.as_primitive_opt::<Int64Type>()?.clone(),
            timestamps: rows
                .column_by_name(TIMESTAMP)?
                .as_primitive_opt::<TimestampMicrosecondType>()?
                .clone(),
            keys: rows.column_by_name(KEY)?.as_binary_view_opt()?.clone(),
            values: rows.column_by_name(VALUE)?.as_binary_view_opt()?.clone(),
            header_keys: header_keys.as_string_opt::<i32>()?.clone(),
            header_values: header_values.as_binary_opt::<i32>()?.clone(),
            headers,
        })
    }
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableRow<'a> {
    rows: &'a TableRows,
    row: usize,
}

impl TableRow<'_> {
    fn timestamp(&self) -> i64 {
        self.rows.timestamps.value(self.row).div_euclid(1000)
    }
}

impl Searchable for TableRow<'_> {
    fn place(&self) -> (i64, i64, i64) {
        let offset = self.rows.offsets.value(self.row);
        (self.timestamp(), i64::from(self.rows.partition.get()), offset)
    }

    fn key(&self) -> Option<&[u8]> {
        let keys = &self.rows.keys;
        keys.is_valid(self.row).then(|| keys.value(self.row))
    }

    fn value(&self) -> Option<&[u8]> {
        let values = &self.rows.values;
        values.is_valid(self.row).then(|| values.value(self.row))
    }

    fn each_header(&self, each: &mut dyn FnMut(&[u8], Option<&[u8]>) -> bool) {
        let ends = self.rows.headers.value_offsets();
        let end = |at: usize| ends.get(at).map_or(0, |end| usize::try_from(*end).unwrap_or(0));
        for at in end(self.row)..end(self.row + 1) {
            let values = &self.rows.header_values;
            let value = values.is_valid(at).then(|| values.value(at));
            if !each(self.rows.header_keys.value(at).as_bytes(), value) {
                return;
            }
        }
    }
}

impl RowSet for TableRows {
    type Row<'a> = TableRow<'a>;

    fn len(&self) -> usize {
        self.offsets.len()
    }

    fn row(&self, place: usize) -> Option<TableRow<'_>> {
        (place < self.len()).then_some(TableRow { rows: self, row: place })
    }

    fn record(&self, place: usize) -> Option<Record> {
        let row = self.row(place)?;
        let mut headers = Vec::new();
        row.each_header(&mut |key, value| {
            headers.push(Header {
                key: Bytes::copy_from_slice(key),
                value: value.map(Bytes::copy_from_slice),
            });
            true
        });
        Some(Record {
            offset: Offset(self.offsets.value(place)),
            timestamp: Timestamp(row.timestamp()),
            key: row.key().map(Bytes::copy_from_slice),
            headers,
            value: row.value().map(Bytes::copy_from_slice),
        })
    }
}

#[cfg(test)]
mod tests {
    use aquifer_chunk::Rows;
    use aquifer_types::{BatchBuilder, Epoch};

    use super::*;

    #[test]
    fn rows_of_a_table_are_the_records_that_they_were() {
        let records: Vec<Record> = (0..4_i64)
            .map(|n| Record {
                offset: Offset(7 + n),
                timestamp: Timestamp(n - 2),
                key: (n % 2 == 0).then(|| Bytes::from(format!("key {n}"))),
                headers: (0..n)
                    .map(|at| Header {
                        key: Bytes::from(format!("h{at}")),
                        value: (at % 2 == 0).then(|| Bytes::from(vec![0xff, at as u8])),
                    })
                    .collect(),
                value: (n != 1).then(|| Bytes::from("v".repeat(n as usize * 20))),
            })
            .collect();
        let mut builder = BatchBuilder::new(Offset(7), Epoch(1));
        for (delta, record) in (0..).zip(&records) {
            let Record { timestamp, key, headers, value, .. } = record;
            builder.push_at(delta, *timestamp, key.as_deref(), headers, value.as_deref());
        }
        let batch = builder.finish();
        let partition = PartitionIndex(3);
        let rows = Rows::from_batches(partition, [(&batch, Timestamp(0))], 1 << 20).unwrap();
        let table = crate::tail::as_table(rows.record_batch()).unwrap();
        let rows = TableRows::new(partition, &table).unwrap();
        let found: Vec<Record> = (0..rows.len()).filter_map(|row| rows.record(row)).collect();
        assert_eq!(found, records);
        assert!(rows.row(4).is_none() && rows.record(4).is_none());
        assert_eq!(rows.row(3).unwrap().place(), (1, 3, 10));
        assert!(TableRows::new(partition, &table.project(&[0, 1]).unwrap()).is_none());
    }
}

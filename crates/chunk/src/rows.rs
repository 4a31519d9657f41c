//! Rows: records in Arrow's columns.

use aquifer_types::{
    Batch, BatchBuilder, Epoch, Header, Offset, PartitionIndex, Record, Timestamp, TimestampType,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, BinaryArray, BooleanArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow_buffer::Buffer;
use arrow_select::filter::filter_record_batch;
use bytes::Bytes;

use crate::rows_builder::{Order, RowsBuilder};
use crate::schema::{from_micros, schema};
use crate::{ChunkStats, Error};

/// A batch's offsets are counted from its base with 31 bits.
const OFFSET_DELTA_MAX: u64 = i32::MAX as u64;

/// Some records of one partition, in the order of their offsets, as an Arrow
/// record batch with the columns of [`schema`]. Cloning and slicing share the
/// bytes.
#[derive(Debug, Clone)]
pub struct Rows {
    batch: RecordBatch,
    partitions: Int32Array,
    offsets: Int64Array,
    timestamps: TimestampMicrosecondArray,
    appended: TimestampMicrosecondArray,
    keys: BinaryArray,
    headers: ListArray,
    header_keys: StringArray,
    header_values: BinaryArray,
    values: BinaryArray,
}

impl Rows {
    /// Rows from a record batch that has exactly the columns of [`schema`].
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the columns are others, or offsets do not grow
    /// strictly.
    pub fn try_new(batch: RecordBatch) -> Result<Self, Error> {
        let rows = Self::from_columns(&batch).filter(|_| *batch.schema() == *schema());
        let rows = rows.ok_or_else(|| Error::Mismatch {
            why: format!("their columns are not those of a chunk: {}", batch.schema()),
        })?;
        let mut order = Order { from: Offset::ZERO, next: Offset::MAX };
        for offset in rows.offsets() {
            order.admit(offset)?;
        }
        Ok(rows)
    }

    fn from_columns(batch: &RecordBatch) -> Option<Self> {
        let [partitions, offsets, timestamps, appended, keys, headers, values] = batch.columns()
        else {
            return None;
        };
        let headers = headers.as_list_opt::<i32>()?;
        let [header_keys, header_values] = headers.values().as_struct_opt()?.columns() else {
            return None;
        };
        Some(Self {
            partitions: partitions.as_primitive_opt::<Int32Type>()?.clone(),
            offsets: offsets.as_primitive_opt::<Int64Type>()?.clone(),
            timestamps: timestamps.as_primitive_opt::<TimestampMicrosecondType>()?.clone(),
            appended: appended.as_primitive_opt::<TimestampMicrosecondType>()?.clone(),
            keys: keys.as_binary_opt::<i32>()?.clone(),
            header_keys: header_keys.as_string_opt::<i32>()?.clone(),
            header_values: header_values.as_binary_opt::<i32>()?.clone(),
            headers: headers.clone(),
            values: values.as_binary_opt::<i32>()?.clone(),
            batch: batch.clone(),
        })
    }

    /// The records of batches, each with the time of its append: what is still in
    /// the journal, in the columns of a chunk. Control batches are passed over.
    ///
    /// # Errors
    /// [`Error::Batch`] where a batch cannot be decompressed within
    /// `decompressed_bytes_max`, [`Error::OutOfOrder`], [`Error::TooLarge`] where
    /// they are more than 512 MiB together.
    pub fn from_batches<'a>(
        partition: PartitionIndex,
        batches: impl IntoIterator<Item = (&'a Batch, Timestamp)>,
        decompressed_bytes_max: usize,
    ) -> Result<Self, Error> {
        let mut builder = RowsBuilder::new(partition, 0);
        let mut order = Order { from: Offset::ZERO, next: Offset::MAX };
        for (batch, appended) in batches {
            if batch.header().is_control {
                continue;
            }
            let base_offset = batch.header().base_offset;
            let in_batch = |source| Error::Batch { base_offset, source };
            for record in batch.records(decompressed_bytes_max).map_err(in_batch)? {
                let record = record.map_err(in_batch)?;
                order.admit(record.offset)?;
                builder.push(&record, appended)?;
            }
        }
        builder.finish()
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The offset of the first row.
    #[must_use]
    pub fn first_offset(&self) -> Option<Offset> {
        self.offsets.values().first().copied().map(Offset)
    }

    /// The offset of the last row.
    #[must_use]
    pub fn last_offset(&self) -> Option<Offset> {
        self.offsets.values().last().copied().map(Offset)
    }

    /// The offsets, one a row.
    #[must_use]
    pub fn offsets(&self) -> impl ExactSizeIterator<Item = Offset> + '_ {
        self.offsets.values().iter().copied().map(Offset)
    }

    /// When each row was appended.
    #[must_use]
    pub fn appended(&self) -> impl ExactSizeIterator<Item = Timestamp> + '_ {
        self.appended.values().iter().copied().map(from_micros)
    }

    /// The key of each row; `None` where it has none.
    #[must_use]
    pub fn keys(&self) -> impl ExactSizeIterator<Item = Option<&[u8]>> + '_ {
        self.keys.iter()
    }

    /// Whether each row is without a value: with a key, it deletes the key.
    #[must_use]
    pub fn are_tombstones(&self) -> impl ExactSizeIterator<Item = bool> + '_ {
        (0..self.len()).map(|row| self.values.is_null(row))
    }

    /// The rows whose place in `keep` is true; where `keep` is shorter, none
    /// behind it.
    ///
    /// # Errors
    /// [`Error::Encode`] where Arrow refuses.
    pub fn retain(&self, mut keep: Vec<bool>) -> Result<Self, Error> {
        keep.resize(self.len(), false);
        let batch = filter_record_batch(&self.batch, &BooleanArray::from(keep));
        let batch = batch.map_err(Error::encode)?;
        Self::from_columns(&batch).ok_or_else(|| Error::encode("a filter changed the columns"))
    }

    /// The records, one a row. Their bytes are those of the rows: holding a
    /// record holds the memory of all rows that were read together.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records {
            rows: self,
            keys: shared(self.keys.values()),
            header_keys: shared(self.header_keys.values()),
            header_values: shared(self.header_values.values()),
            values: shared(self.values.values()),
            next: 0,
        }
    }

    /// The row in place `row`, borrowed; nothing behind the last one.
    #[must_use]
    pub fn row(&self, row: usize) -> Option<Row<'_>> {
        (row < self.len()).then_some(Row { rows: self, row })
    }

    /// The rows from `start` on, `length` of them or as many as there are.
    #[must_use]
    pub fn slice(&self, start: usize, length: usize) -> Self {
        let start = start.min(self.len());
        let length = length.min(self.len() - start);
        let batch = self.batch.slice(start, length);
        Self {
            partitions: self.partitions.slice(start, length),
            offsets: self.offsets.slice(start, length),
            timestamps: self.timestamps.slice(start, length),
            appended: self.appended.slice(start, length),
            keys: self.keys.slice(start, length),
            headers: self.headers.slice(start, length),
            header_keys: self.header_keys.clone(),
            header_values: self.header_values.clone(),
            values: self.values.slice(start, length),
            batch,
        }
    }

    /// The rows at `offset` and behind it.
    #[must_use]
    pub fn starting_at(&self, offset: Offset) -> Self {
        let start = self.offsets.values().partition_point(|row| *row < offset.0);
        self.slice(start, self.len())
    }

    /// The rows before `offset`.
    #[must_use]
    pub fn before(&self, offset: Offset) -> Self {
        self.slice(0, self.offsets.values().partition_point(|row| *row < offset.0))
    }

    /// Plain batches of at most `bytes_max` bytes each, unless one record is
    /// larger: no producer, no transaction, no compression. Each lies within one
    /// epoch, as `epoch_of` an offset says. Gaps between offsets stay. A batch
    /// whose time is that of its append has one time for all of its records.
    #[must_use]
    pub fn to_batches(
        &self,
        epoch_of: &dyn Fn(Offset) -> Epoch,
        timestamp_type: TimestampType,
        bytes_max: usize,
    ) -> Vec<Batch> {
        let is_append_time = timestamp_type == TimestampType::Append;
        let mut batches = Vec::new();
        let mut open: Option<OpenBatch> = None;
        let records = self.records();
        let mut headers = Vec::new();
        for row in 0..self.len() {
            let offset = Offset(self.offsets.value(row));
            let epoch = epoch_of(offset);
            let timestamp = from_micros(self.timestamps.value(row));
            let (key, value) = (nullable(&self.keys, row), nullable(&self.values, row));
            records.headers_into(row, &mut headers);
            // The lengths, the deltas and the attributes of a record have at
            // most 40 bytes, those of a header 10.
            let bytes: usize = 40
                + key.map_or(0, <[u8]>::len)
                + value.map_or(0, <[u8]>::len)
                + headers.iter().map(header_bytes).sum::<usize>();
            let is_of_another_time =
                |open: &OpenBatch| is_append_time && open.first_timestamp != timestamp;
            if let Some(batch) = open.take_if(|open| {
                is_of_another_time(open) || !open.takes(offset, epoch, bytes, bytes_max)
            }) {
                batches.push(batch.builder.finish());
            }
            let open = open.get_or_insert_with(|| {
                let mut builder = BatchBuilder::new(offset, epoch);
                if is_append_time {
                    builder = builder.append_time();
                } else {
                    builder.reserve(bytes_max.min(self.batch_bytes_left(row)));
                }
                OpenBatch { base: offset, epoch, first_timestamp: timestamp, builder }
            });
            open.builder.push_at(
                u32::try_from(offset.since(open.base)).unwrap_or(u32::MAX),
                timestamp,
                key,
                &headers,
                value,
            );
        }
        batches.extend(open.map(|open| open.builder.finish()));
        batches
    }

    /// The rows as Arrow has them.
    #[must_use]
    pub const fn record_batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// The bytes of all keys, headers and values together.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        let headers = self.header_range();
        (span(self.keys.value_offsets())
            + span(self.values.value_offsets())
            + between(self.header_keys.value_offsets(), &headers)
            + between(self.header_values.value_offsets(), &headers)) as u64
    }

    /// What the rows amount to.
    #[must_use]
    pub fn stats(&self) -> ChunkStats {
        let timestamps = self.timestamps.values().iter().copied();
        ChunkStats {
            records: self.len() as u64,
            raw_bytes: self.raw_bytes(),
            min_timestamp: timestamps.clone().min().map(from_micros),
            max_timestamp: timestamps.max().map(from_micros),
            max_appended: self.appended.values().iter().copied().max().map(from_micros),
            unfit: None,
        }
    }

    /// The bytes of all values together.
    pub(crate) fn value_bytes(&self) -> u64 {
        span(self.values.value_offsets()) as u64
    }

    /// The column `_value`.
    pub(crate) const fn values(&self) -> &BinaryArray {
        &self.values
    }

    pub(crate) fn check_partition(&self, partition: PartitionIndex) -> Result<(), Error> {
        let wrong = |row: &&i32| i64::from(**row) != i64::from(partition.0);
        match self.partitions.values().iter().find(wrong) {
            None => Ok(()),
            Some(other) => Err(Error::Mismatch {
                why: format!("they are of partition {other}, not {partition}"),
            }),
        }
    }

    fn header_range(&self) -> std::ops::Range<usize> {
        let ends = self.headers.value_offsets();
        let at = |end: Option<&i32>| end.map_or(0, |end| *end as usize);
        at(ends.first())..at(ends.last())
    }

    /// About what the rows from `row` on take as a batch.
    fn batch_bytes_left(&self, row: usize) -> usize {
        let rows = self.len() - row;
        let share = (self.raw_bytes() as usize).saturating_mul(rows) / self.len().max(1);
        share + rows * 16
    }
}

/// One row of [`Rows`], whose bytes are not copied or counted.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    rows: &'a Rows,
    row: usize,
}

impl<'a> Row<'a> {
    /// Its offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        Offset(self.rows.offsets.value(self.row))
    }

    /// Its timestamp.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        from_micros(self.rows.timestamps.value(self.row))
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        nullable(&self.rows.keys, self.row)
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        nullable(&self.rows.values, self.row)
    }

    /// A copy that does not hold the memory of the other rows.
    #[must_use]
    pub fn to_record(&self) -> Record {
        Record {
            offset: self.offset(),
            timestamp: self.timestamp(),
            key: self.key().map(Bytes::copy_from_slice),
            headers: self
                .headers()
                .map(|(key, value)| Header {
                    key: Bytes::copy_from_slice(key),
                    value: value.map(Bytes::copy_from_slice),
                })
                .collect(),
            value: self.value().map(Bytes::copy_from_slice),
        }
    }

    /// Keys and values of its headers, in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let Rows { headers, header_keys, header_values, .. } = self.rows;
        let ends = headers.value_offsets();
        let end = |at: usize| ends.get(at).map_or(0, |end| *end as usize);
        (end(self.row)..end(self.row + 1))
            .map(|at| (header_keys.value(at).as_bytes(), nullable(header_values, at)))
    }
}

struct OpenBatch {
    base: Offset,
    epoch: Epoch,
    first_timestamp: Timestamp,
    builder: BatchBuilder,
}

impl OpenBatch {
    fn takes(&self, offset: Offset, epoch: Epoch, bytes: usize, bytes_max: usize) -> bool {
        self.epoch == epoch
            && offset.since(self.base) <= OFFSET_DELTA_MAX
            && self.builder.bytes().saturating_add(bytes) <= bytes_max
    }
}

/// The records of [`Rows`], one after the other.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rows: &'a Rows,
    keys: Bytes,
    header_keys: Bytes,
    header_values: Bytes,
    values: Bytes,
    next: usize,
}

impl Records<'_> {
    fn headers_into(&self, row: usize, headers: &mut Vec<Header>) {
        headers.clear();
        let ends = self.rows.headers.value_offsets();
        let (Some(start), Some(end)) = (ends.get(row), ends.get(row + 1)) else { return };
        headers.extend((*start as usize..*end as usize).map(|at| {
            Header {
                key: part(&self.header_keys, self.rows.header_keys.value_offsets(), at),
                value: self.rows.header_values.is_valid(at).then(|| {
                    part(&self.header_values, self.rows.header_values.value_offsets(), at)
                }),
            }
        }));
    }
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let row = self.next;
        if row >= self.rows.len() {
            return None;
        }
        self.next += 1;
        let mut headers = Vec::new();
        self.headers_into(row, &mut headers);
        let Rows { offsets, timestamps, keys, values, .. } = self.rows;
        Some(Record {
            offset: Offset(offsets.value(row)),
            timestamp: from_micros(timestamps.value(row)),
            key: keys.is_valid(row).then(|| part(&self.keys, keys.value_offsets(), row)),
            headers,
            value: values.is_valid(row).then(|| part(&self.values, values.value_offsets(), row)),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.rows.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Records<'_> {}

/// Arrow's memory as `Bytes`, shared.
fn shared(buffer: &Buffer) -> Bytes {
    struct Owner(Buffer);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Owner(buffer.clone()))
}

/// The bytes of one element; Arrow has checked that they are there.
fn part(all: &Bytes, ends: &[i32], at: usize) -> Bytes {
    all.slice(ends[at] as usize..ends[at + 1] as usize)
}

fn nullable(array: &BinaryArray, row: usize) -> Option<&[u8]> {
    array.is_valid(row).then(|| array.value(row))
}

fn header_bytes(header: &Header) -> usize {
    10 + header.key.len() + header.value.as_ref().map_or(0, Bytes::len)
}

fn span(ends: &[i32]) -> usize {
    between(ends, &(0..ends.len().saturating_sub(1)))
}

fn between(ends: &[i32], range: &std::ops::Range<usize>) -> usize {
    let at = |index: usize| ends.get(index).map_or(0, |end| *end as usize);
    at(range.end).saturating_sub(at(range.start))
}

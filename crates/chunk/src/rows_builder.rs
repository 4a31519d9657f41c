//! Turns records into rows.

use std::sync::Arc;

use aquifer_types::{Offset, PartitionIndex, Record, Timestamp};
use arrow_array::builder::{ArrayBuilder, BinaryBuilder, StringBuilder};
use arrow_array::{
    ArrayRef, Int32Array, Int64Array, ListArray, RecordBatch, StructArray,
    TimestampMicrosecondArray,
};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};

use crate::schema::{header_field, header_fields, schema, to_micros};
use crate::{Error, Rows};

/// The most bytes that rows built together may have. Arrow's positions have 31
/// bits, and a wrong byte in a header's key is replaced by three.
const ROWS_BYTES_MAX: usize = 1 << 29;
/// What a row and a header take beside their bytes; so that many empty ones
/// count as well.
const ROW_OVERHEAD_BYTES: usize = 32;
const HEADER_OVERHEAD_BYTES: usize = 16;

/// Collects records of one partition.
#[derive(Debug)]
pub(crate) struct RowsBuilder {
    partition: PartitionIndex,
    room: usize,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    appended: Vec<i64>,
    keys: BinaryBuilder,
    header_ends: Vec<i32>,
    header_keys: StringBuilder,
    header_values: BinaryBuilder,
    values: BinaryBuilder,
    bytes: usize,
}

impl RowsBuilder {
    /// Room for `bytes` of records is kept from the start.
    pub(crate) fn new(partition: PartitionIndex, bytes: usize) -> Self {
        Self {
            partition,
            room: bytes,
            offsets: Vec::new(),
            timestamps: Vec::new(),
            appended: Vec::new(),
            keys: BinaryBuilder::new(),
            header_ends: vec![0],
            header_keys: StringBuilder::new(),
            header_values: BinaryBuilder::new(),
            values: BinaryBuilder::with_capacity(0, bytes),
            bytes: 0,
        }
    }

    /// The memory that the rows so far take, about.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Adds a record. The caller keeps offsets growing.
    pub(crate) fn push(&mut self, record: &Record, appended: Timestamp) -> Result<(), Error> {
        let payload = record.payload_bytes();
        let bytes = payload
            .saturating_add(ROW_OVERHEAD_BYTES)
            .saturating_add(record.headers.len().saturating_mul(HEADER_OVERHEAD_BYTES));
        if self.bytes.saturating_add(bytes) > ROWS_BYTES_MAX {
            return Err(Error::TooLarge {
                offset: record.offset,
                bytes: payload,
                limit: ROWS_BYTES_MAX - self.bytes,
            });
        }
        self.bytes += bytes;
        self.offsets.push(record.offset.0);
        self.timestamps.push(to_micros(record.timestamp));
        self.appended.push(to_micros(appended));
        self.keys.append_option(record.key.as_deref());
        self.values.append_option(record.value.as_deref());
        for header in &record.headers {
            self.header_keys.append_value(String::from_utf8_lossy(&header.key));
            self.header_values.append_option(header.value.as_deref());
        }
        let headers = i32::try_from(self.header_keys.len()).map_err(Error::encode)?;
        self.header_ends.push(headers);
        Ok(())
    }

    /// The rows so far; the builder is empty again.
    pub(crate) fn finish(&mut self) -> Result<Rows, Error> {
        let count = self.offsets.len();
        let next = BinaryBuilder::with_capacity(count, self.room);
        let mut values = std::mem::replace(&mut self.values, next);
        let headers = StructArray::try_new(
            header_fields(),
            vec![
                Arc::new(self.header_keys.finish()) as ArrayRef,
                Arc::new(self.header_values.finish()),
            ],
            None,
        )
        .map_err(Error::encode)?;
        let ends = std::mem::replace(&mut self.header_ends, vec![0]);
        let headers = ListArray::try_new(
            Arc::new(header_field()),
            OffsetBuffer::new(ScalarBuffer::from(ends)),
            Arc::new(headers),
            None,
        )
        .map_err(Error::encode)?;
        let time = |micros: &mut Vec<i64>| {
            TimestampMicrosecondArray::from(std::mem::take(micros)).with_timezone("UTC")
        };
        let partition = i32::try_from(self.partition.0).map_err(Error::encode)?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from_value(partition, count)),
            Arc::new(Int64Array::from(std::mem::take(&mut self.offsets))),
            Arc::new(time(&mut self.timestamps)),
            Arc::new(time(&mut self.appended)),
            Arc::new(self.keys.finish()),
            Arc::new(headers),
            Arc::new(values.finish()),
        ];
        self.bytes = 0;
        Rows::try_new(RecordBatch::try_new(schema(), columns).map_err(Error::encode)?)
    }
}

/// Offsets that grow strictly within a range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    /// The lowest offset that may follow.
    pub(crate) from: Offset,
    /// The first that may not.
    pub(crate) next: Offset,
}

impl Order {
    pub(crate) fn admit(&mut self, offset: Offset) -> Result<(), Error> {
        if offset < self.from || offset >= self.next {
            return Err(Error::OutOfOrder { offset, from: self.from, next: self.next });
        }
        self.from = offset.plus(1);
        Ok(())
    }
}

//! Building batches where Aquifer, and not a producer, makes them.

use bytes::Bytes;

use super::records::{varlong_bytes, write_varlong};
use super::{Batch, BatchHeader, Compression, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use crate::{Epoch, Header, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

/// Collects records into one batch.
#[derive(Debug)]
pub struct BatchBuilder {
    header: BatchHeader,
    records: Vec<u8>,
    next_delta: u32,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new(Offset::ZERO, Epoch(0))
    }
}

impl BatchBuilder {
    /// A batch that begins at `base_offset` of its partition; a batch that is yet
    /// to be appended begins at 0.
    #[must_use]
    pub fn new(base_offset: Offset, epoch: Epoch) -> Self {
        Self {
            header: BatchHeader {
                base_offset,
                length: 0,
                epoch,
                checksum: 0,
                compression: Compression::None,
                is_append_time: false,
                is_transactional: false,
                is_control: false,
                last_offset_delta: 0,
                base_timestamp: Timestamp(0),
                max_timestamp: Timestamp(i64::MIN),
                producer_id: None,
                producer_epoch: ProducerEpoch(-1),
                base_sequence: Sequence(-1),
                record_count: 0,
            },
            // Room for the header, so that finishing does not copy the records.
            records: vec![0; HEADER_BYTES],
            next_delta: 0,
        }
    }

    /// Makes it the batch of an idempotent producer.
    #[must_use]
    pub const fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, first: Sequence) -> Self {
        self.header.producer_id = Some(id);
        self.header.producer_epoch = epoch;
        self.header.base_sequence = first;
        self
    }

    /// Makes it a part of its producer's open transaction.
    #[must_use]
    pub const fn transactional(mut self) -> Self {
        self.header.is_transactional = true;
        self
    }

    /// Makes the time of its records that of their append. Readers take the
    /// highest for that of all, so they bear the same.
    #[must_use]
    pub const fn append_time(mut self) -> Self {
        self.header.is_append_time = true;
        self
    }

    /// Makes it a batch of markers instead of records; see [`super::Marker`].
    pub(super) const fn control(mut self) -> Self {
        self.header.is_control = true;
        self
    }

    /// Compresses the records when the batch is finished.
    #[must_use]
    pub const fn compression(mut self, compression: Compression) -> Self {
        self.header.compression = compression;
        self
    }

    /// Reserves room for `bytes` more bytes of records.
    pub fn reserve(&mut self, bytes: usize) {
        self.records.reserve(bytes);
    }

    /// Adds a record at the next offset.
    pub fn push(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        headers: &[Header],
        value: Option<&[u8]>,
    ) {
        self.push_at(self.next_delta, timestamp, key, headers, value);
    }

    /// Adds a record `delta` offsets behind the base offset. Deltas grow; gaps
    /// between them are kept.
    pub fn push_at(
        &mut self,
        delta: u32,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        headers: &[Header],
        value: Option<&[u8]>,
    ) {
        debug_assert!(delta >= self.next_delta, "offsets within a batch grow");
        if self.header.record_count == 0 {
            self.header.base_timestamp = timestamp;
        }
        let timestamp_delta = timestamp.0.wrapping_sub(self.header.base_timestamp.0);
        let mut body_bytes = 1
            + varlong_bytes(timestamp_delta)
            + varlong_bytes(delta.into())
            + nullable_bytes(key)
            + nullable_bytes(value)
            + varlong_bytes(headers.len() as i64);
        for header in headers {
            body_bytes +=
                nullable_bytes(Some(&header.key)) + nullable_bytes(header.value.as_deref());
        }
        let out = &mut self.records;
        write_varlong(out, body_bytes as i64);
        out.push(0);
        write_varlong(out, timestamp_delta);
        write_varlong(out, delta.into());
        write_nullable(out, key);
        write_nullable(out, value);
        write_varlong(out, headers.len() as i64);
        for header in headers {
            write_nullable(out, Some(&header.key));
            write_nullable(out, header.value.as_deref());
        }
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        self.header.last_offset_delta = delta;
        self.header.record_count += 1;
        self.next_delta = delta.saturating_add(1);
    }

    /// Lets the batch end at `delta` although no record is there.
    pub fn cover_through(&mut self, delta: u32) {
        self.header.last_offset_delta = self.header.last_offset_delta.max(delta);
    }

    /// How many records were added.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.header.record_count as usize
    }

    /// Whether nothing was added.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    /// The size of the batch so far, before compression.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.records.len()
    }

    /// The finished batch.
    ///
    /// # Panics
    /// Never with a codec that can be written; compression into memory cannot
    /// fail otherwise.
    #[must_use]
    pub fn finish(mut self) -> Batch {
        if self.header.compression != Compression::None {
            let raw = Bytes::copy_from_slice(&self.records[HEADER_BYTES..]);
            match self.header.compression.compress(raw) {
                Ok(compressed) => {
                    self.records.truncate(HEADER_BYTES);
                    self.records.extend_from_slice(&compressed);
                }
                // Uncompressed is always a valid answer.
                Err(_) => self.header.compression = Compression::None,
            }
        }
        self.header.length = (self.records.len() - LENGTH_PREFIX_BYTES) as u32;
        if self.header.record_count == 0 {
            self.header.max_timestamp = Timestamp(-1);
        }
        let head = self.header.encode(&self.records[HEADER_BYTES..]);
        self.records[..HEADER_BYTES].copy_from_slice(&head);
        let mut checksum = [0; 4];
        checksum.copy_from_slice(&head[17..21]);
        self.header.checksum = u32::from_be_bytes(checksum);
        Batch { header: self.header, bytes: Bytes::from(self.records) }
    }
}

fn nullable_bytes(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varlong_bytes(bytes.len() as i64) + bytes.len())
}

fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => write_varlong(out, -1),
        Some(bytes) => {
            write_varlong(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

//! Kafka's RecordBatch v2: the unit on the wire, in the journal and in memory.
//!
//! A batch is kept as its producer sent it. Only two fields are set by the
//! ledger, `baseOffset` and `partitionLeaderEpoch`, and both lie outside the
//! checksum. Layout (big endian; Kafka documentation, "Record Batch"):
//!
//! | at | field | bytes |
//! |---|---|---|
//! | 0 | base offset | 8 |
//! | 8 | length of what follows | 4 |
//! | 12 | partition leader epoch | 4 |
//! | 16 | magic, 2 | 1 |
//! | 17 | CRC-32C of all from 21 | 4 |
//! | 21 | attributes: compression 0–2, timestamp type 3, transactional 4, control 5 | 2 |
//! | 23 | last offset delta | 4 |
//! | 27 | base timestamp | 8 |
//! | 35 | maximum timestamp | 8 |
//! | 43 | producer id, −1 for none | 8 |
//! | 51 | producer epoch | 2 |
//! | 53 | base sequence | 4 |
//! | 57 | number of records | 4 |
//! | 61 | records, compressed together | |

mod accept;
mod builder;
mod compression;
mod header;
mod marker;
mod records;

use bytes::{Bytes, BytesMut};

pub use accept::{BatchRules, KEYS_MISSING_MAX};
pub use builder::BatchBuilder;
pub use compression::Compression;
pub use header::{BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES};
pub use marker::Marker;
pub use records::{Records, decode_records};

use crate::{Epoch, ErrorKind, Offset, Record};

/// What is wrong with a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header or its length field announce, or more.
    #[error("the batch has {have} bytes where its length says {want}")]
    Length {
        /// Bytes that are there.
        have: usize,
        /// Bytes that should be.
        want: usize,
    },
    /// A format older or newer than version 2.
    #[error("record batch format {0} is not supported, only format 2 is")]
    Magic(i8),
    /// The bytes are not those that were checksummed.
    #[error("the batch's CRC-32C is {stored:#010x}, its bytes give {computed:#010x}")]
    Checksum {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A field holds what it may not.
    #[error("the batch's {field} is {value}: {why}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: i64,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The compressed part cannot be decoded.
    #[error("the batch's {codec} data cannot be decompressed: {why}")]
    Decompression {
        /// The codec that the attributes name.
        codec: &'static str,
        /// The codec's own words.
        why: String,
    },
    /// Decompressed, the records are larger than the limit.
    #[error("the batch's records are larger than {limit} bytes when decompressed")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A record is not well formed.
    #[error("record {index} of the batch is malformed: {why}")]
    Record {
        /// Which record, from 0.
        index: u32,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A record is larger than the stream allows.
    #[error("record {index} has {bytes} bytes, the stream allows {limit} (record_bytes_max)")]
    RecordTooLarge {
        /// Which record, from 0.
        index: u32,
        /// Its key, headers and value together.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Records of a compacted stream have no key.
    #[error(
        "record {} has no key, the stream keeps the newest record of each key",
        .indexes.first().copied().unwrap_or_default()
    )]
    KeyMissing {
        /// Which records, from 0, in their order: the first [`KEYS_MISSING_MAX`].
        indexes: Vec<u32>,
    },
    /// The timestamp type is the server's to set.
    #[error("a producer may not say that its timestamps are the server's")]
    TimestampType,
}

impl BatchError {
    /// What a caller should do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TooLarge { .. } | Self::RecordTooLarge { .. } => ErrorKind::TooLarge,
            Self::Checksum { .. } => ErrorKind::Damaged,
            Self::Magic(_) => ErrorKind::Unsupported,
            _ => ErrorKind::InvalidRequest,
        }
    }
}

/// Bounds for a batch that arrives from outside.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// The most bytes that its records may have when decompressed.
    pub decompressed_bytes_max: usize,
    /// The most bytes of one record's key, headers and value; each header counts
    /// 32 bytes more.
    pub record_bytes_max: usize,
}

/// One whole batch with a header that was checked. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    /// Reads a batch that fills `bytes`, checking its length, header and
    /// checksum, but not its records. This is the check for bytes that were
    /// validated before they were stored.
    ///
    /// # Errors
    /// [`BatchError`]: the bytes are not those that were stored.
    pub fn read(bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::read(&bytes)?;
        if header.total_bytes() != bytes.len() {
            return Err(BatchError::Length { have: bytes.len(), want: header.total_bytes() });
        }
        header.verify_checksum(&bytes)?;
        Ok(Self { header, bytes })
    }

    /// The batch's header.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch, header and all, as it goes on the wire.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same batch at its place in a partition.
    #[must_use]
    pub fn placed(&self, base_offset: Offset, epoch: Epoch) -> Self {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        header::place(&mut bytes, base_offset, epoch);
        let mut placed = self.header;
        placed.base_offset = base_offset;
        placed.epoch = epoch;
        Self { header: placed, bytes: bytes.freeze() }
    }

    /// The first 61 bytes as they are at `base_offset`; the rest is in
    /// [`Batch::records_bytes`]. Lets a writer place a batch without copying it
    /// first.
    #[must_use]
    pub fn placed_header(&self, base_offset: Offset, epoch: Epoch) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(&self.bytes[..HEADER_BYTES]);
        header::place(&mut bytes, base_offset, epoch);
        bytes
    }

    /// The records' bytes behind the header, compressed as the producer sent
    /// them.
    #[must_use]
    pub fn records_bytes(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// The records, in order; control batches hold markers, not records.
    ///
    /// # Errors
    /// [`BatchError`] where the records cannot be decompressed within
    /// `decompressed_bytes_max`; each item may fail alike.
    pub fn records(&self, decompressed_bytes_max: usize) -> Result<Records, BatchError> {
        decode_records(&self.header, self.bytes.slice(HEADER_BYTES..), decompressed_bytes_max)
    }

    /// All records at once.
    ///
    /// # Errors
    /// As [`Batch::records`].
    pub fn to_records(&self, decompressed_bytes_max: usize) -> Result<Vec<Record>, BatchError> {
        self.records(decompressed_bytes_max)?.collect()
    }
}

/// Splits bytes that hold several batches one behind the other, as a Kafka
/// produce request may and a fetch answer does. A rest that is no whole batch is
/// an error.
///
/// # Errors
/// [`BatchError::Length`] where the bytes end within a batch.
pub fn split_batches(mut bytes: Bytes) -> Result<Vec<Bytes>, BatchError> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let total = BatchHeader::peek_total_bytes(&bytes)?;
        if total > bytes.len() {
            return Err(BatchError::Length { have: bytes.len(), want: total });
        }
        batches.push(bytes.split_to(total));
    }
    Ok(batches)
}

#[cfg(test)]
mod tests;

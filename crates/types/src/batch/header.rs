//! The fixed part of a batch.

use super::{BatchError, Compression};
use crate::{Epoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

/// The bytes before a batch's records.
pub const HEADER_BYTES: usize = 61;
/// The bytes that the batch's length field does not count: base offset and the
/// length itself.
pub const LENGTH_PREFIX_BYTES: usize = 12;

const AT_LENGTH: usize = 8;
const AT_EPOCH: usize = 12;
const AT_MAGIC: usize = 16;
const AT_CRC: usize = 17;
const AT_ATTRIBUTES: usize = 21;
const AT_LAST_OFFSET_DELTA: usize = 23;
const AT_BASE_TIMESTAMP: usize = 27;
const AT_MAX_TIMESTAMP: usize = 35;
const AT_PRODUCER_ID: usize = 43;
const AT_PRODUCER_EPOCH: usize = 51;
const AT_BASE_SEQUENCE: usize = 53;
const AT_RECORD_COUNT: usize = 57;

const ATTRIBUTE_APPEND_TIME: i16 = 1 << 3;
const ATTRIBUTE_TRANSACTIONAL: i16 = 1 << 4;
const ATTRIBUTE_CONTROL: i16 = 1 << 5;

/// The decoded header of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record, or of the place where it was.
    pub base_offset: Offset,
    /// Bytes behind the length field.
    pub length: u32,
    /// The partition's epoch when the batch was appended.
    pub epoch: Epoch,
    /// The CRC-32C of everything from the attributes on.
    pub checksum: u32,
    /// How the records are compressed.
    pub compression: Compression,
    /// Timestamps are the server's (`LogAppendTime`), all equal to the maximum.
    pub is_append_time: bool,
    /// Part of a transaction.
    pub is_transactional: bool,
    /// Holds transaction markers and no records.
    pub is_control: bool,
    /// The last record's offset less the base offset.
    pub last_offset_delta: u32,
    /// What the records' timestamps count from.
    pub base_timestamp: Timestamp,
    /// The highest timestamp of its records.
    pub max_timestamp: Timestamp,
    /// The idempotent producer, if there is one.
    pub producer_id: Option<ProducerId>,
    /// The producer's epoch; meaningful with a producer id.
    pub producer_epoch: ProducerEpoch,
    /// The sequence of the first record; meaningful with a producer id.
    pub base_sequence: Sequence,
    /// How many records the batch holds.
    pub record_count: u32,
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], BatchError> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or(BatchError::Length { have: bytes.len(), want: HEADER_BYTES })
}

fn non_negative(name: &'static str, value: i64) -> Result<u32, BatchError> {
    u32::try_from(value).map_err(|_| BatchError::Field {
        field: name,
        value,
        why: "it may not be negative",
    })
}

impl BatchHeader {
    /// The whole size of the batch that begins `bytes`, read from its first 12
    /// bytes.
    ///
    /// # Errors
    /// [`BatchError`] where there are fewer bytes, or the length is impossible.
    pub fn peek_total_bytes(bytes: &[u8]) -> Result<usize, BatchError> {
        let length = i32::from_be_bytes(field(bytes, AT_LENGTH)?);
        let length = usize::try_from(length).unwrap_or(0);
        if length < HEADER_BYTES - LENGTH_PREFIX_BYTES {
            return Err(BatchError::Field {
                field: "length",
                value: length as i64,
                why: "it is shorter than a header",
            });
        }
        Ok(length + LENGTH_PREFIX_BYTES)
    }

    /// Decodes and checks the fields; the checksum is not verified here.
    ///
    /// # Errors
    /// [`BatchError`] names the first field that is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, BatchError> {
        let total = Self::peek_total_bytes(bytes)?;
        let magic = i8::from_be_bytes(field(bytes, AT_MAGIC)?);
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        let attributes = i16::from_be_bytes(field(bytes, AT_ATTRIBUTES)?);
        let base_offset = i64::from_be_bytes(field(bytes, 0)?);
        if base_offset < 0 {
            return Err(BatchError::Field {
                field: "base offset",
                value: base_offset,
                why: "it may not be negative",
            });
        }
        let producer_id = i64::from_be_bytes(field(bytes, AT_PRODUCER_ID)?);
        let epoch = i32::from_be_bytes(field(bytes, AT_EPOCH)?);
        let last_offset_delta = i32::from_be_bytes(field(bytes, AT_LAST_OFFSET_DELTA)?);
        let record_count = i32::from_be_bytes(field(bytes, AT_RECORD_COUNT)?);
        let header = Self {
            base_offset: Offset(base_offset),
            length: (total - LENGTH_PREFIX_BYTES) as u32,
            // Producers send −1: they do not know it.
            epoch: Epoch(u32::try_from(epoch).unwrap_or(0)),
            checksum: u32::from_be_bytes(field(bytes, AT_CRC)?),
            compression: Compression::from_attributes(attributes)?,
            is_append_time: attributes & ATTRIBUTE_APPEND_TIME != 0,
            is_transactional: attributes & ATTRIBUTE_TRANSACTIONAL != 0,
            is_control: attributes & ATTRIBUTE_CONTROL != 0,
            last_offset_delta: non_negative("last offset delta", last_offset_delta.into())?,
            base_timestamp: Timestamp(i64::from_be_bytes(field(bytes, AT_BASE_TIMESTAMP)?)),
            max_timestamp: Timestamp(i64::from_be_bytes(field(bytes, AT_MAX_TIMESTAMP)?)),
            producer_id: (producer_id >= 0).then_some(ProducerId(producer_id)),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(bytes, AT_PRODUCER_EPOCH)?)),
            base_sequence: Sequence(i32::from_be_bytes(field(bytes, AT_BASE_SEQUENCE)?)),
            record_count: non_negative("record count", record_count.into())?,
        };
        if base_offset.checked_add(i64::from(header.last_offset_delta)).is_none() {
            return Err(BatchError::Field {
                field: "base offset",
                value: base_offset,
                why: "its last record's offset would be too large",
            });
        }
        Ok(header)
    }

    /// The size of the whole batch in bytes.
    #[must_use]
    pub const fn total_bytes(&self) -> usize {
        self.length as usize + LENGTH_PREFIX_BYTES
    }

    /// The offset of the last record.
    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as u64)
    }

    /// The first offset behind the batch.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as u64 + 1)
    }

    /// The sequence of the last record.
    #[must_use]
    pub const fn last_sequence(&self) -> Sequence {
        self.base_sequence.plus(self.last_offset_delta)
    }

    pub(super) fn verify_checksum(&self, bytes: &[u8]) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(bytes.get(AT_ATTRIBUTES..).unwrap_or_default());
        if computed != self.checksum {
            return Err(BatchError::Checksum { stored: self.checksum, computed });
        }
        Ok(())
    }

    /// Writes this header, with the checksum of itself and `records`, before
    /// them.
    pub(super) fn encode(&self, records: &[u8]) -> [u8; HEADER_BYTES] {
        let mut attributes = self.compression.attributes();
        for (is_set, bit) in [
            (self.is_append_time, ATTRIBUTE_APPEND_TIME),
            (self.is_transactional, ATTRIBUTE_TRANSACTIONAL),
            (self.is_control, ATTRIBUTE_CONTROL),
        ] {
            if is_set {
                attributes |= bit;
            }
        }
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &self.base_offset.0.to_be_bytes());
        put(AT_LENGTH, &self.length.to_be_bytes());
        put(AT_EPOCH, &self.epoch.0.to_be_bytes());
        put(AT_MAGIC, &[2]);
        put(AT_ATTRIBUTES, &attributes.to_be_bytes());
        put(AT_LAST_OFFSET_DELTA, &self.last_offset_delta.to_be_bytes());
        put(AT_BASE_TIMESTAMP, &self.base_timestamp.0.to_be_bytes());
        put(AT_MAX_TIMESTAMP, &self.max_timestamp.0.to_be_bytes());
        put(AT_PRODUCER_ID, &self.producer_id.map_or(-1, ProducerId::get).to_be_bytes());
        put(AT_PRODUCER_EPOCH, &self.producer_epoch.0.to_be_bytes());
        put(AT_BASE_SEQUENCE, &self.base_sequence.0.to_be_bytes());
        put(AT_RECORD_COUNT, &self.record_count.to_be_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[AT_ATTRIBUTES..]), records);
        bytes[AT_CRC..AT_CRC + 4].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }
}

/// Sets what the ledger decides; both fields lie outside the checksum.
pub(super) fn place(bytes: &mut [u8], base_offset: Offset, epoch: Epoch) {
    bytes[..AT_LENGTH].copy_from_slice(&base_offset.0.to_be_bytes());
    bytes[AT_EPOCH..AT_MAGIC].copy_from_slice(&epoch.0.to_be_bytes());
}

/// Sets the maximum timestamp and the checksum of a batch that was read before.
pub(super) fn set_max_timestamp(bytes: &mut [u8], timestamp: Timestamp) {
    bytes[AT_MAX_TIMESTAMP..AT_PRODUCER_ID].copy_from_slice(&timestamp.0.to_be_bytes());
    let checksum = crc32c::crc32c(&bytes[AT_ATTRIBUTES..]);
    bytes[AT_CRC..AT_ATTRIBUTES].copy_from_slice(&checksum.to_be_bytes());
}

/// Makes the timestamps those of the append, and sets the checksum.
pub(super) fn set_append_time(bytes: &mut [u8], timestamp: Timestamp) {
    bytes[AT_ATTRIBUTES + 1] |= ATTRIBUTE_APPEND_TIME as u8;
    set_max_timestamp(bytes, timestamp);
}

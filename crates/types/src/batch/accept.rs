//! Letting a producer's batch in: everything about it is checked once, record
//! by record, without allocating for any of them.

use bytes::{Bytes, BytesMut};

use super::records::{take_bytes, take_varint, take_varlong};
use super::{Batch, BatchError, BatchLimits, header};
use crate::Timestamp;

/// Records without a key that a refusal names.
pub const KEYS_MISSING_MAX: usize = 1024;

/// What a stream asks of the batches that are appended to it, beside their
/// sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchRules {
    /// All records get this time, the server's; absent, they keep their own.
    pub append_time: Option<Timestamp>,
    /// Every record needs a key.
    pub needs_keys: bool,
}

/// The few facts about one record that decide about its batch.
struct RecordFacts {
    offset_delta: i32,
    timestamp_delta: i64,
    payload_bytes: usize,
    has_key: bool,
}

impl Batch {
    /// Reads a batch from a producer: everything that [`Batch::read`] checks, and
    /// that it has at least one record, that its count is true, its offsets count
    /// up from 0, its sizes are within `limits`. Corrects `maxTimestamp` where the
    /// producer left it wrong, as Kafka's broker does, and the checksum with it.
    ///
    /// # Errors
    /// [`BatchError`] says which field or record is wrong.
    pub fn accept(bytes: Bytes, limits: BatchLimits) -> Result<Self, BatchError> {
        Self::accept_with(bytes, limits, BatchRules::default())
    }

    /// [`Batch::accept`] under a stream's rules. The bytes are shared, not
    /// copied, unless a timestamp has to be corrected.
    ///
    /// # Errors
    /// As [`Batch::accept`], and where a rule is broken.
    pub fn accept_with(
        bytes: Bytes,
        limits: BatchLimits,
        rules: BatchRules,
    ) -> Result<Self, BatchError> {
        Self::accept_measured(bytes, limits, rules, &mut 0)
    }

    /// [`Batch::accept_with`] for those who bound what many batches take: the
    /// bytes of the records when decompressed are added to `measured`, also where
    /// the batch is refused. Where they were too many, or could not be
    /// decompressed, that is the limit.
    ///
    /// # Errors
    /// As [`Batch::accept_with`].
    pub fn accept_measured(
        bytes: Bytes,
        limits: BatchLimits,
        rules: BatchRules,
        measured: &mut usize,
    ) -> Result<Self, BatchError> {
        let batch = Self::read(bytes)?;
        let header = &batch.header;
        let wrong = |field, value: i64, why| Err(BatchError::Field { field, value, why });
        if header.record_count == 0 {
            return wrong("record count", 0, "a batch has at least one record");
        }
        if header.last_offset_delta != header.record_count - 1 {
            let delta = header.last_offset_delta.into();
            return wrong("last offset delta", delta, "a producer's offsets count up from 0");
        }
        if header.is_append_time {
            return Err(BatchError::TimestampType);
        }
        if header.producer_id.is_some() && header.base_sequence.get() < 0 {
            let sequence = header.base_sequence.get().into();
            return wrong("base sequence", sequence, "an idempotent producer counts from 0");
        }
        let timestamp_max = batch.walk(limits, rules, measured)?;
        match rules.append_time {
            Some(time) => batch.corrected(|bytes| header::set_append_time(bytes, time)),
            None if batch.header.max_timestamp == timestamp_max => Ok(batch),
            None => batch.corrected(|bytes| header::set_max_timestamp(bytes, timestamp_max)),
        }
    }

    /// Checks all records; returns their highest timestamp.
    fn walk(
        &self,
        limits: BatchLimits,
        rules: BatchRules,
        measured: &mut usize,
    ) -> Result<Timestamp, BatchError> {
        let raw = self.bytes.slice(super::HEADER_BYTES..);
        let records = self.header.compression.decompress(raw, limits.decompressed_bytes_max);
        *measured += records.as_ref().map_or(limits.decompressed_bytes_max, Bytes::len);
        let records = records?;
        let mut rest = &records[..];
        let mut timestamp_max = Timestamp(i64::MIN);
        let mut keyless = Vec::new();
        for index in 0..self.header.record_count {
            let broken = |why| BatchError::Record { index, why };
            let record = walk_record(&mut rest).map_err(broken)?;
            if i64::from(record.offset_delta) != i64::from(index) {
                return Err(broken("its offset delta is out of order"));
            }
            if record.payload_bytes > limits.record_bytes_max {
                return Err(BatchError::RecordTooLarge {
                    index,
                    bytes: record.payload_bytes,
                    limit: limits.record_bytes_max,
                });
            }
            // All of them are told: a producer sends the others anew without them.
            if rules.needs_keys && !record.has_key && keyless.len() < KEYS_MISSING_MAX {
                keyless.push(index);
            }
            let timestamp = self.header.base_timestamp.0.wrapping_add(record.timestamp_delta);
            timestamp_max = timestamp_max.max(Timestamp(timestamp));
        }
        if !rest.is_empty() {
            let index = self.header.record_count;
            return Err(BatchError::Record { index, why: "bytes follow the last record" });
        }
        if !keyless.is_empty() {
            return Err(BatchError::KeyMissing { indexes: keyless });
        }
        Ok(timestamp_max)
    }

    fn corrected(&self, correct: impl FnOnce(&mut [u8])) -> Result<Self, BatchError> {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        correct(&mut bytes);
        let header = super::BatchHeader::read(&bytes)?;
        Ok(Self { header, bytes: bytes.freeze() })
    }
}

fn walk_record(rest: &mut &[u8]) -> Result<RecordFacts, &'static str> {
    let length = take_varint(rest).ok_or("its length is no varint")?;
    let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
    let (mut body, behind) = rest.split_at(length.ok_or("its length is beyond the batch")?);
    *rest = behind;
    let Some((_attributes, after)) = body.split_first() else { return Err("it is empty") };
    body = after;
    let timestamp_delta = take_varlong(&mut body).ok_or("its timestamp is no varint")?;
    let offset_delta = take_varint(&mut body).ok_or("its offset is no varint")?;
    let key = take_bytes(&mut body).ok_or("its key is cut off")?;
    let value = take_bytes(&mut body).ok_or("its value is cut off")?;
    let headers = walk_headers(&mut body).ok_or("its headers are cut off")?;
    if !body.is_empty() {
        return Err("bytes follow its headers");
    }
    Ok(RecordFacts {
        offset_delta,
        timestamp_delta,
        payload_bytes: key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers,
        has_key: key.is_some(),
    })
}

/// What a header counts beside its bytes. Decoded it takes more than that, and
/// two bytes on the wire are one: a batch of a few KiB could hold millions.
const HEADER_OVERHEAD_BYTES: usize = 32;

/// Returns the bytes of all keys and values, and what the headers count beside.
fn walk_headers(body: &mut &[u8]) -> Option<usize> {
    let count = take_varint(body).filter(|count| *count >= 0)?;
    let mut bytes = 0;
    for _ in 0..count {
        bytes += HEADER_OVERHEAD_BYTES + take_bytes(body)??.len();
        bytes += take_bytes(body)?.map_or(0, <[u8]>::len);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Header;
    use crate::batch::{BatchBuilder, Compression};

    const LIMITS: BatchLimits =
        BatchLimits { decompressed_bytes_max: 1 << 20, record_bytes_max: 1 << 16 };

    fn batch(key: Option<&[u8]>) -> Batch {
        let mut builder = BatchBuilder::default().compression(Compression::Lz4);
        builder.push(Timestamp(5), Some(b"k"), &[], Some(b"v"));
        builder.push(Timestamp(9), key, &[], None);
        builder.push(Timestamp(9), Some(b"k"), &[], None);
        builder.push(Timestamp(9), key, &[], None);
        builder.finish()
    }

    #[test]
    fn the_servers_time_takes_the_place_of_the_producers() {
        let rules = BatchRules { append_time: Some(Timestamp(77)), ..BatchRules::default() };
        let accepted = Batch::accept_with(batch(None).bytes().clone(), LIMITS, rules).unwrap();
        assert!(accepted.header().is_append_time);
        let stored = Batch::read(accepted.bytes().clone()).unwrap();
        let records = stored.to_records(1 << 20).unwrap();
        assert!(records.iter().all(|record| record.timestamp == Timestamp(77)));
        // As a producer must not say it of itself.
        let again = Batch::accept(stored.bytes().clone(), LIMITS);
        assert_eq!(again.unwrap_err(), BatchError::TimestampType);
    }

    #[test]
    fn headers_without_bytes_count_as_well() {
        for (count, is_taken) in [(0, true), (1_000, true), (10_000, false), (400_000, false)] {
            let headers = vec![Header { key: Bytes::new(), value: None }; count];
            let mut builder = BatchBuilder::default().compression(Compression::Zstd);
            builder.push(Timestamp(5), None, &headers, None);
            let accepted = Batch::accept(builder.finish().bytes().clone(), LIMITS);
            let is_too_large = matches!(accepted, Err(BatchError::RecordTooLarge { .. }));
            assert_eq!((accepted.is_ok(), is_too_large), (is_taken, !is_taken), "{count}");
        }
    }

    #[test]
    fn keys_are_asked_for_where_the_rules_say_so() {
        let rules = BatchRules { needs_keys: true, ..BatchRules::default() };
        let check = |key, result| {
            let bytes = batch(key).bytes().clone();
            assert_eq!(Batch::accept_with(bytes, LIMITS, rules).map(drop), result);
        };
        check(Some(b""), Ok(()));
        check(None, Err(BatchError::KeyMissing { indexes: vec![1, 3] }));
    }
}

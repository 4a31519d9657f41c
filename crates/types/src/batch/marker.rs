//! Transaction markers: the control batches that say how a transaction ended.
//!
//! A control batch holds one record (Kafka documentation, "Control Batches";
//! big endian):
//!
//! | in | field | bytes |
//! |---|---|---|
//! | key | version, 0 | 2 |
//! | key | type: 0 abort, 1 commit | 2 |
//! | value | version, 0 | 2 |
//! | value | coordinator epoch | 4 |

use super::{Batch, BatchBuilder, BatchError};
use crate::{ProducerEpoch, ProducerId, Sequence, Timestamp};

const TYPE_ABORT: i16 = 0;
const TYPE_COMMIT: i16 = 1;
/// A marker is far below it, whoever wrote it.
const DECOMPRESSED_BYTES_MAX: usize = 4096;

/// How a producer's transaction ended in the marker's partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Whose transaction it was.
    pub producer: ProducerId,
    /// The producer's epoch when it ended, or the one that fences it.
    pub epoch: ProducerEpoch,
    /// Whether its records count.
    pub is_commit: bool,
    /// The epoch of the server that ended it.
    pub coordinator_epoch: i32,
}

impl Marker {
    /// The control batch that says it, `at` this time.
    #[must_use]
    pub fn to_batch(self, at: Timestamp) -> Batch {
        let kind = if self.is_commit { TYPE_COMMIT } else { TYPE_ABORT };
        let mut key = [0; 4];
        key[2..].copy_from_slice(&kind.to_be_bytes());
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        let mut builder = BatchBuilder::default()
            .producer(self.producer, self.epoch, Sequence(-1))
            .transactional()
            .control();
        builder.push(at, Some(&key), &[], Some(&value));
        builder.finish()
    }
}

impl Batch {
    /// The marker in a control batch; none in a batch of records, and none where
    /// the marker is of a type that is not known.
    ///
    /// # Errors
    /// [`BatchError`] where the control record cannot be decoded.
    pub fn marker(&self) -> Result<Option<Marker>, BatchError> {
        let header = self.header();
        let Some(producer) = header.producer_id.filter(|_| header.is_control) else {
            return Ok(None);
        };
        let cut_off = BatchError::Record { index: 0, why: "its marker is cut off" };
        let record = self.records(DECOMPRESSED_BYTES_MAX)?.next().ok_or(cut_off.clone())??;
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let kind = key.and_then(|key| key.get(2..)?.first_chunk::<2>());
        let coordinator = value.and_then(|value| value.get(2..)?.first_chunk::<4>());
        let (Some(kind), Some(coordinator)) = (kind, coordinator) else { return Err(cut_off) };
        let kind = i16::from_be_bytes(*kind);
        Ok(matches!(kind, TYPE_ABORT | TYPE_COMMIT).then_some(Marker {
            producer,
            epoch: header.producer_epoch,
            is_commit: kind == TYPE_COMMIT,
            coordinator_epoch: i32::from_be_bytes(*coordinator),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, Offset};

    #[test]
    fn a_marker_is_written_and_read_as_kafka_does() {
        for is_commit in [false, true] {
            let marker = Marker {
                producer: ProducerId(4_000_000_000),
                epoch: ProducerEpoch(7),
                is_commit,
                coordinator_epoch: 3,
            };
            let batch = marker.to_batch(Timestamp(1_700_000_000_000));
            let placed = batch.placed(Offset(9), Epoch(3));
            let read = Batch::read(placed.bytes().clone()).unwrap();
            assert_eq!(read.marker(), Ok(Some(marker)));
            let header = read.header();
            assert!(header.is_control && header.is_transactional);
            assert_eq!(header.base_sequence, Sequence(-1));
            assert_eq!((header.base_offset, header.next_offset()), (Offset(9), Offset(10)));
            // The record: length, attributes, deltas, key and value, no headers.
            let kind = u8::from(is_commit);
            let record = [32, 0, 0, 0, 8, 0, 0, 0, kind, 12, 0, 0, 0, 0, 0, 3, 0];
            assert_eq!(read.records_bytes(), record);
        }
    }

    #[test]
    fn what_is_no_marker_is_none_and_a_cut_one_is_an_error() {
        let mut plain = BatchBuilder::default();
        plain.push(Timestamp(0), Some(b"\0\0\0\x01"), &[], Some(b"\0\0\0\0\0\0"));
        assert_eq!(plain.finish().marker(), Ok(None));
        let check = |key: Option<&[u8]>, value: Option<&[u8]>| {
            let mut builder = BatchBuilder::default()
                .producer(ProducerId(1), ProducerEpoch(0), Sequence(-1))
                .transactional()
                .control();
            builder.push(Timestamp(0), key, &[], value);
            builder.finish().marker()
        };
        assert_eq!(check(Some(&[0, 0, 0, 9]), Some(&[0; 6])), Ok(None));
        assert!(check(Some(&[0, 0, 0]), Some(&[0; 6])).is_err());
        assert!(check(Some(&[0; 4]), Some(&[0; 5])).is_err());
        assert!(check(None, None).is_err());
    }
}

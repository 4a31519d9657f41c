//! Streams and partitions that were looked up once, for doors that come back to
//! them with every request.

use std::sync::Arc;

use aquifer_types::{
    Epoch, Offset, Partition, PartitionIndex, StreamConfig, StreamId, StreamPath, Timestamp,
    TimestampType,
};

use super::StreamStore;
use crate::Error;
use crate::api::Isolation;
use crate::index::{PartitionLog, PartitionsWatch, StreamIndex, Waker};
use crate::read::{Cursor, HotRead, View};

/// A stream; cheap to clone. It stays the same stream when another one takes
/// its name.
#[derive(Debug, Clone)]
pub struct StreamHandle(Arc<StreamIndex>);

/// A partition; cheap to clone.
#[derive(Debug, Clone)]
pub struct PartitionHandle(Arc<PartitionLog>);

/// Where a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// The earliest offset that can be read.
    pub start: Offset,
    /// The first offset that is not yet in a chunk.
    pub tiered: Offset,
    /// The first offset that an open transaction hides.
    pub stable: Offset,
    /// The offset that the next record gets.
    pub end: Offset,
    /// Its stream was deleted.
    pub is_deleted: bool,
}

impl PartitionOffsets {
    /// The end of what a reader sees.
    #[must_use]
    pub const fn visible(&self, isolation: Isolation) -> Offset {
        match isolation {
            Isolation::Committed => self.stable,
            Isolation::Uncommitted => self.end,
        }
    }
}

impl StreamHandle {
    /// Its identity.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.0.id
    }

    /// Its full name.
    #[must_use]
    pub fn path(&self) -> &StreamPath {
        &self.0.path
    }

    /// Its configuration now.
    #[must_use]
    pub fn config(&self) -> Arc<StreamConfig> {
        self.0.config()
    }

    /// The epoch that its appends bear.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.epoch()
    }

    /// One of its partitions.
    ///
    /// # Errors
    /// [`Error::PartitionNotFound`].
    pub fn partition(&self, index: PartitionIndex) -> Result<PartitionHandle, Error> {
        self.0.partition(index).map(PartitionHandle)
    }
}

impl PartitionHandle {
    /// Which it is.
    #[must_use]
    pub fn partition(&self) -> Partition {
        self.0.partition
    }

    /// Where it stands now.
    #[must_use]
    pub fn offsets(&self) -> PartitionOffsets {
        self.0.with(|state| PartitionOffsets {
            start: state.start,
            tiered: state.tiered,
            stable: state.stable(),
            end: state.end,
            is_deleted: state.is_deleted,
        })
    }

    pub(super) fn log(&self) -> &Arc<PartitionLog> {
        &self.0
    }
}

impl StreamStore {
    /// A stream by its name.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`].
    pub fn stream(&self, path: &StreamPath) -> Result<StreamHandle, Error> {
        self.inner.index.stream(path).map(StreamHandle)
    }

    /// One cut over streams that were looked up before; one that was deleted
    /// since then is empty in it.
    #[must_use]
    pub fn view_of(&self, streams: &[StreamHandle], isolation: Isolation) -> View {
        let streams: Vec<_> = streams.iter().map(|stream| stream.0.clone()).collect();
        View::take(&self.inner.reader, &streams, isolation)
    }

    /// A stream by its identity, whoever's it is.
    #[must_use]
    pub fn stream_by_id(&self, id: StreamId) -> Option<StreamHandle> {
        self.inner.index.stream_by_id(id).map(StreamHandle)
    }

    /// Lets `waker` follow partitions: it wakes when one of them grows, when
    /// more of it becomes stable, and when it is deleted.
    #[must_use]
    pub fn watch_partitions<'a>(
        &self,
        waker: &Waker,
        partitions: impl IntoIterator<Item = &'a PartitionHandle>,
    ) -> PartitionsWatch {
        let mut watch = PartitionsWatch::new(waker);
        for partition in partitions {
            watch.add(&partition.0);
        }
        watch
    }

    /// What can be read at once, without disk or tier 2: batches as their
    /// producers sent them, about `bytes_max` bytes; the first one is read
    /// however large it is if `needs_one`. The first may begin before `from`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Damaged`].
    pub fn read_hot(
        &self,
        partition: &PartitionHandle,
        from: Offset,
        bytes_max: usize,
        needs_one: bool,
        isolation: Isolation,
    ) -> Result<HotRead, Error> {
        let read =
            self.inner.reader.read_hot(&partition.0, from, bytes_max, needs_one, isolation)?;
        if let HotRead::Batches { batches, .. } = &read {
            let bytes: usize = batches.iter().map(|batch| batch.bytes().len()).sum();
            self.inner.metrics.reads.inc();
            self.inner.metrics.read_bytes.inc_by(bytes as u64);
        }
        Ok(read)
    }

    /// A walk through a partition from `from` to `end`, which must be visible.
    #[must_use]
    pub fn cursor(&self, partition: &PartitionHandle, from: Offset, end: Offset) -> Cursor {
        self.inner.reader.cursor(&partition.0, from, end)
    }

    /// The epochs of the chunk that covers `offset`, each with its first offset,
    /// in order, and whose time its records bear; none where no chunk does.
    #[must_use]
    pub fn chunk_epochs(
        &self,
        partition: &PartitionHandle,
        offset: Offset,
    ) -> (Vec<(Epoch, Offset)>, TimestampType) {
        partition.0.with(|state| {
            let chunk = crate::index::chunk_at(&state.chunks, offset);
            chunk
                .map_or_else(Default::default, |chunk| (chunk.epochs.clone(), chunk.timestamp_type))
        })
    }

    /// The first record with `timestamp` or a later one, with its own time;
    /// none where there is none that can be seen.
    ///
    /// # Errors
    /// What reading the records around it can fail of.
    pub async fn find_time(
        &self,
        partition: &PartitionHandle,
        timestamp: Timestamp,
        isolation: Isolation,
    ) -> Result<Option<(Offset, Timestamp)>, Error> {
        let offsets = partition.offsets();
        let (start, end) = (offsets.start, offsets.visible(isolation));
        self.inner.reader.find_time(&partition.0, timestamp, start, end).await
    }

    /// The first record with the highest timestamp, and that; none in an empty
    /// partition.
    ///
    /// # Errors
    /// As [`StreamStore::find_time`].
    pub async fn find_newest(
        &self,
        partition: &PartitionHandle,
        isolation: Isolation,
    ) -> Result<Option<(Offset, Timestamp)>, Error> {
        let offsets = partition.offsets();
        let end = offsets.visible(isolation);
        // Where a whole batch or chunk is readable its maximum is exact; the
        // start may have cut through the one that held the highest.
        let mut candidates: Vec<Timestamp> = partition.0.with(|state| {
            let chunks = state.chunks.iter().filter_map(|chunk| chunk.max_timestamp);
            let tail = state.tail.iter().filter(|entry| entry.base < end);
            chunks.chain(tail.map(|entry| entry.max_timestamp)).collect()
        });
        candidates.sort_unstable();
        candidates.dedup();
        let mut floor = Timestamp(i64::MIN);
        let mut found = None;
        for candidate in candidates.into_iter().rev() {
            if candidate < floor {
                break;
            }
            let reader = &self.inner.reader;
            let start = offsets.start;
            if let Some(at) = reader.find_time(&partition.0, candidate, start, end).await? {
                // A later record may still be higher than this one, if the
                // candidate's own record was cut off.
                if at.1 <= floor {
                    continue;
                }
                floor = at.1;
                found = Some(at);
            }
        }
        Ok(found)
    }
}

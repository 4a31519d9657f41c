//! Creating, describing, changing and deleting streams.

use std::sync::Arc;

use aquifer_types::{
    Epoch, Offset, PARTITIONS_MAX, Partition, PartitionIndex, StreamConfig, StreamId, StreamPath,
    StreamSchema, TenantName,
};

use super::StreamStore;
use crate::Error;
use crate::api::{
    ChunkDescription, Isolation, NewStream, PartitionDescription, Position, StreamDescription,
    StreamShape, StreamSummary, StreamUpdate, Truncation,
};
use crate::chunk_meta::ChunkMeta;
use crate::index::{PartitionLog, StreamIndex};
use crate::ledger::{DocumentKey, Operation};

impl StreamStore {
    /// Creates a stream.
    ///
    /// # Errors
    /// [`Error::StreamExists`]; [`Error::Invalid`] where the configuration or the
    /// number of partitions is out of bounds.
    pub async fn create_stream(&self, new: NewStream) -> Result<StreamDescription, Error> {
        self.create_stream_with(new, &[]).await
    }

    /// Whether a stream could be created as things are now.
    ///
    /// # Errors
    /// As creation.
    pub fn check_new_stream(&self, new: &NewStream) -> Result<(), Error> {
        if new.partitions == 0 || new.partitions > PARTITIONS_MAX {
            return Err(Error::Invalid(format!(
                "a stream has 1 to {PARTITIONS_MAX} partitions, not {}",
                new.partitions
            )));
        }
        self.check_config(&new.config)?;
        if new.class == aquifer_types::StreamClass::Shared {
            return Err(Error::Unsupported(
                "class shared needs the shared ledger, which does not exist yet; use durable"
                    .into(),
            ));
        }
        if self.inner.index.stream(&new.path).is_ok() {
            return Err(Error::StreamExists(new.path.clone()));
        }
        if self.document(&DocumentKey::of_view(&new.path)).is_some() {
            return Err(Error::ViewExists(new.path.clone()));
        }
        Ok(())
    }

    /// Whether a configuration is within its bounds and this server's.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn check_config(&self, config: &StreamConfig) -> Result<(), Error> {
        config.validate().map_err(|error| Error::Invalid(error.to_string()))?;
        self.check_record_limit(config.record_bytes_max)
    }

    fn check_record_limit(&self, record_bytes_max: u64) -> Result<(), Error> {
        let limit = (self.inner.options.commit_bytes_max as u64).saturating_sub(1 << 16);
        if record_bytes_max > limit {
            return Err(Error::Invalid(format!(
                "record_bytes_max is {record_bytes_max}, this server takes at most {limit} (commit_bytes_max)"
            )));
        }
        Ok(())
    }

    /// The name of the stream with this id, if it exists.
    #[must_use]
    pub fn stream_path(&self, id: StreamId) -> Option<StreamPath> {
        self.inner.index.stream_by_id(id).map(|stream| stream.path.clone())
    }

    /// The epoch of this start. The partitions of a stream are in an epoch of
    /// their own where it was created later.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.inner.recovery.epoch
    }

    /// The streams of a tenant, by name.
    #[must_use]
    pub fn list_streams(&self, tenant: &TenantName) -> Vec<StreamSummary> {
        self.inner.index.streams_of(tenant).iter().map(summary).collect()
    }

    /// Differs from an earlier answer where a stream came, got more partitions,
    /// or went; asked before what it is about is looked at.
    #[must_use]
    pub fn shapes_version(&self) -> u64 {
        self.inner.index.shapes()
    }

    /// What an append needs to know of a stream; cheap however many partitions
    /// it has.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`].
    pub fn stream_shape(&self, path: &StreamPath) -> Result<StreamShape, Error> {
        Ok(self.shape_of(&*self.inner.index.stream(path)?))
    }

    /// The streams of a tenant, by name, without what their partitions hold.
    #[must_use]
    pub fn list_stream_shapes(&self, tenant: &TenantName) -> Vec<(StreamPath, StreamShape)> {
        let streams = self.inner.index.streams_of(tenant);
        streams.iter().map(|stream| (stream.path.clone(), self.shape_of(stream))).collect()
    }

    fn shape_of(&self, stream: &StreamIndex) -> StreamShape {
        StreamShape {
            id: stream.id,
            partitions: stream.partitions().len() as u32,
            config: stream.config(),
            epoch: stream.epoch(),
        }
    }

    /// The schema of a stream's values: which columns its chunks have beside the
    /// fixed ones. Of version 0 where there is none, or no such stream. It is
    /// never older than what a chunk follows that was seen before it was asked
    /// for.
    #[must_use]
    pub fn schema(&self, id: &StreamId) -> StreamSchema {
        let Some(stream) = self.inner.index.stream_by_id(*id) else {
            return StreamSchema::default();
        };
        match self.inner.index.schema(&stream) {
            Ok(known) => (*known.schema).clone(),
            Err(error) => {
                tracing::warn!(%error, "the stream is taken for one without a schema");
                StreamSchema::default()
            }
        }
    }

    /// A stream with all its partitions.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`].
    pub fn describe_stream(&self, path: &StreamPath) -> Result<StreamDescription, Error> {
        let stream = self.inner.index.stream(path)?;
        let epoch = stream.epoch();
        let partitions = stream.partitions();
        let partitions = partitions
            .iter()
            .map(|log| {
                log.with(|state| PartitionDescription {
                    partition: log.partition.index,
                    start_offset: state.start,
                    tiered_offset: state.first_untiered(),
                    stable_offset: state.stable(),
                    end_offset: state.end,
                    chunks: state.chunks.len() as u64,
                    bytes: state.tail_bytes + state.chunk_bytes,
                    epoch,
                })
            })
            .collect();
        Ok(StreamDescription { summary: summary(&stream), partitions })
    }

    /// Changes a stream's configuration or its number of partitions.
    ///
    /// # Errors
    /// As creation; a number of partitions can only grow.
    pub async fn update_stream(
        &self,
        path: &StreamPath,
        update: StreamUpdate,
    ) -> Result<StreamDescription, Error> {
        let id = self.inner.index.stream(path)?.id;
        let mut operations = Vec::new();
        if let Some(config) = update.config {
            self.check_record_limit(config.record_bytes_max.unwrap_or(0))?;
            operations.push(Operation::AlterStream { id, change: config, expected: None });
        }
        if let Some(partitions) = update.partitions {
            operations.push(Operation::GrowStream { id, partitions });
        }
        if !operations.is_empty() {
            self.commit(operations).await.map_err(|error| gone(error, path))?;
        }
        self.describe_stream(path)
    }

    /// Gives a stream another configuration in the place of the one that the
    /// caller has seen.
    ///
    /// # Errors
    /// [`Error::ConfigChanged`] where somebody else changed it meanwhile; then
    /// what is there now can be seen. [`Error::StreamNotFound`], and as creation.
    pub async fn replace_config(
        &self,
        path: &StreamPath,
        expected: &StreamConfig,
        config: StreamConfig,
    ) -> Result<(), Error> {
        let id = self.inner.index.stream(path)?.id;
        self.check_config(&config)?;
        let expected = Some(Box::new(expected.clone()));
        let operation = Operation::AlterStream { id, change: config.into(), expected };
        self.commit(vec![operation]).await.map_err(|error| gone(error, path))?;
        Ok(())
    }

    /// Makes the beginning of a stream unreadable, in one commit for all of its
    /// partitions.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] beyond the end of a partition.
    pub async fn truncate_stream(
        &self,
        path: &StreamPath,
        to: Truncation,
    ) -> Result<StreamDescription, Error> {
        let stream = self.inner.index.stream(path)?;
        let mut cut: Vec<(PartitionIndex, Offset)> = Vec::new();
        match to {
            Truncation::Cut(offsets) => {
                for (index, offset) in offsets {
                    stream.partition(index)?;
                    cut.push((index, offset));
                }
            }
            Truncation::Time(timestamp) => {
                for log in stream.partitions().iter() {
                    let position = Position::Time(timestamp);
                    let offset =
                        self.inner.reader.resolve(log, position, Isolation::Committed).await?;
                    cut.push((log.partition.index, offset));
                }
            }
            Truncation::All => {
                for log in stream.partitions().iter() {
                    cut.push((log.partition.index, log.with(|state| state.end)));
                }
            }
        }
        let operations = cut
            .into_iter()
            .map(|(index, start)| Operation::Truncate {
                partition: Partition::new(stream.id, index),
                start,
            })
            .collect();
        self.commit(operations).await.map_err(|error| gone(error, path))?;
        self.inner.ledger.wake_keeper();
        self.describe_stream(path)
    }

    /// Deletes a stream; its objects in tier 2 follow after the grace time.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`].
    pub async fn delete_stream(&self, path: &StreamPath) -> Result<(), Error> {
        let id = self.inner.index.stream(path)?.id;
        self.commit(vec![Operation::DeleteStream { id }])
            .await
            .map_err(|error| gone(error, path))?;
        self.inner.ledger.wake_keeper();
        Ok(())
    }

    /// The live chunks of a stream, by partition and offset.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`].
    pub fn list_chunks(&self, path: &StreamPath) -> Result<Vec<ChunkDescription>, Error> {
        self.list_chunks_from(path, (PartitionIndex(0), Offset::ZERO), usize::MAX)
    }

    /// The first `count` of the live chunks that cover an offset at or behind
    /// `from`, by partition and offset. A first one that begins below `from`
    /// was made of others since those were listed.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`].
    pub fn list_chunks_from(
        &self,
        path: &StreamPath,
        (partition, offset): (PartitionIndex, Offset),
        count: usize,
    ) -> Result<Vec<ChunkDescription>, Error> {
        let stream = self.inner.index.stream(path)?;
        let mut chunks = Vec::new();
        for log in stream.partitions().iter().skip(partition.get() as usize) {
            let list = log.with(|state| state.chunks.clone());
            let is_wanted =
                |chunk: &&Arc<ChunkMeta>| chunk.partition.index > partition || chunk.next > offset;
            let wanted = list.iter().filter(is_wanted).take(count - chunks.len());
            chunks.extend(wanted.map(|chunk| described(chunk)));
        }
        Ok(chunks)
    }

    /// Where tier 2 is: the URL under which a chunk's path leads to its object,
    /// without credentials.
    #[must_use]
    pub fn tier2_address(&self) -> String {
        self.inner.tier.store.to_string()
    }
}

fn described(chunk: &ChunkMeta) -> ChunkDescription {
    ChunkDescription {
        partition: chunk.partition.index,
        base_offset: chunk.base,
        next_offset: chunk.next,
        object_path: chunk.object_path.clone(),
        object_bytes: chunk.object_bytes,
        records: chunk.records,
        raw_bytes: chunk.raw_bytes,
        timestamps: chunk.min_timestamp.zip(chunk.max_timestamp),
        index_path: chunk.index_path.clone(),
        index_bytes: chunk.index_bytes,
        generation: chunk.generation,
        schema_version: chunk.schema_version,
    }
}

/// A stream that went between its lookup and the decision.
fn gone(error: Error, path: &StreamPath) -> Error {
    match error {
        Error::Overtaken(_) => Error::StreamNotFound(path.clone()),
        error => error,
    }
}

fn summary(stream: &Arc<StreamIndex>) -> StreamSummary {
    let partitions = stream.partitions();
    let sum = |of: fn(&PartitionLog) -> u64| partitions.iter().map(|log| of(log)).sum();
    StreamSummary {
        path: stream.path.clone(),
        id: stream.id,
        partitions: partitions.len() as u32,
        class: stream.class,
        config: (*stream.config()).clone(),
        created: stream.created,
        records: sum(|log| log.with(|state| state.end.since(state.start))),
        bytes: sum(|log| log.with(|state| state.tail_bytes + state.chunk_bytes)),
    }
}

//! Cutting chunks from the journal and adding them.
//!
//! Announce, encode, put, commit. A crash after the announcement leaves an
//! object, or a part of one, under a name that the next start gives up; a crash
//! after the commit leaves a live chunk. A put whose answer was lost is decided
//! by comparing what is there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aquifer_chunk::{ChunkEncoder, ChunkSpec, EncodeOptions, EncodedChunk, Rows, TimestampType};
use aquifer_env::tasks;
use aquifer_types::{ChunkId, Epoch, Offset, Partition, Timestamp};
use futures::StreamExt;

use super::Tier;
use crate::Error;
use crate::chunk_meta::ChunkMeta;
use crate::index::{PartitionLog, StreamIndex, TailEntry, TailKind};
use crate::ledger::Operation;
use crate::read::from_chunk;

/// What threads that encode are called.
const ENCODING_THREAD: &str = "aq-encode";
/// Journal bytes that are read and encoded at once.
const PIECE_BYTES: usize = 4 << 20;
/// What is stored was let in under `batch_decompressed_bytes_max`, whose bound
/// this is.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;
/// Above this part of its limit the journal's oldest files are emptied early.
const PRESSURE_PERCENT: u64 = 70;

/// By partition: an offset, and a time on the monotonic clock.
pub(super) type Waiting = HashMap<Partition, (Offset, u64)>;

/// A run of batches that is to become a chunk.
struct Cut {
    base: Offset,
    next: Offset,
    /// Those with records that count; there may be none.
    entries: Vec<TailEntry>,
    epochs: Vec<(Epoch, Offset)>,
    timestamp_type: TimestampType,
}

/// A chunk that was encoded, before it is put.
pub(super) struct Encoded {
    pub(super) spec: ChunkSpec,
    pub(super) chunk: EncodedChunk,
}

/// Runs what takes long beside everything else, on a thread that gives way.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let done = tasks::run_in_background(ENCODING_THREAD, work).await;
    done.map_err(|error| Error::NotEncoded(error.to_string()))
}

impl Tier {
    /// Gives up what earlier runs announced and did not finish.
    pub(super) async fn give_up_old_uploads(&self) -> Result<(), Error> {
        let old: Vec<ChunkId> = self.ledger.with_hot(|hot| hot.intents.keys().copied().collect());
        for chunk in old {
            self.commit(Operation::AbandonUpload { chunk }).await?;
        }
        Ok(())
    }

    /// Cuts and uploads every chunk that is due, a few at once.
    pub(super) async fn upload_due(self: &Arc<Self>) -> Result<(), Error> {
        let due = self.find_due();
        if !due.is_empty() {
            self.owner.check().await?;
        }
        let concurrency = self.options.tier_concurrency;
        let mut uploads = futures::stream::iter(due)
            .map(|(stream, log, is_forced)| {
                let tier = self.clone();
                async move { tier.upload_partition(&stream, &log, is_forced).await }
            })
            .buffer_unordered(concurrency);
        let mut result = Ok(());
        while let Some(uploaded) = uploads.next().await {
            // One partition's failure does not keep the others back.
            if let Err(error) = uploaded {
                tracing::debug!(%error, "an upload failed");
                result = Err(error);
            }
        }
        result
    }

    /// The partitions with a chunk to cut, the one with the oldest record first.
    fn find_due(&self) -> Vec<(Arc<StreamIndex>, Arc<PartitionLog>, bool)> {
        let now = self.now();
        let now_ns = self.environment.clock.monotonic_ns();
        let mut known = std::mem::take(&mut *self.waiting.lock());
        let mut waiting = Waiting::with_capacity(known.len());
        let is_asked = self.is_pressed.swap(false, Ordering::Relaxed);
        let is_pressed = is_asked || self.is_journal_pressed();
        let oldest_file = self.ledger.oldest_live_file();
        let mut lag = 0;
        let mut due = Vec::new();
        for stream in self.reader.index.all_streams() {
            let config = stream.config();
            for log in stream.partitions().iter() {
                let Some((base, oldest, bytes, is_in_the_way)) = log.with(|state| {
                    let first = state.tail.front()?;
                    // Any of them: what was relocated lies further on than what
                    // follows it.
                    let is_in_the_way = is_pressed
                        && state.tail.iter().any(|entry| Some(entry.file) == oldest_file);
                    Some((first.base, first.appended, state.tail_bytes, is_in_the_way))
                }) else {
                    continue;
                };
                let seen = known.remove(&log.partition).filter(|(first, _)| *first == base);
                let since_ns = seen.map_or(now_ns, |(_, since_ns)| since_ns);
                waiting.insert(log.partition, (base, since_ns));
                // A wall clock that was set back lets nothing wait for longer.
                let waited = now_ns.saturating_sub(since_ns) / 1_000_000;
                let age = waited.max(now.get().saturating_sub(oldest.get()).max(0) as u64);
                lag = lag.max(age);
                let is_forced = age >= config.chunk_max_age_ms || is_in_the_way;
                if is_forced || bytes >= config.chunk_target_bytes {
                    due.push((oldest, stream.clone(), log.clone(), is_forced));
                }
            }
        }
        *self.waiting.lock() = waiting;
        self.lag_ms.store(lag, Ordering::Relaxed);
        due.sort_by_key(|(oldest, ..)| *oldest);
        due.into_iter().map(|(_, stream, log, is_forced)| (stream, log, is_forced)).collect()
    }

    /// Whether the journal's oldest files are emptied early.
    pub(super) fn is_journal_pressed(&self) -> bool {
        self.ledger.journal_bytes() > self.options.journal_bytes_max / 100 * PRESSURE_PERCENT
    }

    /// Uploads a partition's chunks until less than a whole one is left.
    async fn upload_partition(
        &self,
        stream: &Arc<StreamIndex>,
        log: &Arc<PartitionLog>,
        is_forced: bool,
    ) -> Result<(), Error> {
        let target = stream.config().chunk_target_bytes;
        let mut is_first = true;
        loop {
            let Some(cut) = cut(log, target, is_forced && is_first) else { return Ok(()) };
            is_first = false;
            self.upload(stream, log, cut).await?;
        }
    }

    async fn upload(
        &self,
        stream: &Arc<StreamIndex>,
        log: &Arc<PartitionLog>,
        cut: Cut,
    ) -> Result<(), Error> {
        let spec = self.spec(stream, log, cut.base, cut.next, cut.epochs);
        let spec = ChunkSpec { timestamp_type: cut.timestamp_type, ..spec };
        self.announce(&spec).await?;
        let id = spec.chunk_id;
        let result = async {
            let encoded = self.encode(stream, spec, &cut.entries).await?;
            self.put(&encoded).await?;
            Ok(encoded)
        };
        let encoded = match result.await {
            Ok(encoded) => encoded,
            Err(error) => {
                self.give_up(id).await;
                return Err(error);
            }
        };
        let meta = meta(&encoded);
        let (raw, bytes) = (meta.raw_bytes, meta.object_bytes);
        match self.commit(Operation::AddChunk { chunk: meta }).await {
            Ok(_) => {
                self.metrics.chunks_written.inc();
                self.metrics.chunk_bytes_written.inc_by(bytes);
                self.metrics.chunk_raw_bytes.inc_by(raw);
                self.ledger.wake_keeper();
                Ok(())
            }
            Err(error) => {
                self.give_up(id).await;
                // The stream was truncated or deleted meanwhile.
                if matches!(error, Error::Overtaken(_)) { Ok(()) } else { Err(error) }
            }
        }
    }

    pub(super) fn spec(
        &self,
        stream: &StreamIndex,
        log: &PartitionLog,
        base: Offset,
        next: Offset,
        epochs: Vec<(Epoch, Offset)>,
    ) -> ChunkSpec {
        ChunkSpec {
            tenant: stream.path.tenant.clone(),
            stream: stream.path.name.clone(),
            stream_id: stream.id,
            partition: log.partition.index,
            base,
            next,
            epochs,
            generation: 0,
            replaces: Vec::new(),
            schema_version: 0,
            chunk_id: self.new_chunk_id(),
            timestamp_type: TimestampType::Create,
            compacted: Vec::new(),
        }
    }

    pub(super) async fn announce(&self, spec: &ChunkSpec) -> Result<(), Error> {
        let operation = Operation::IntendUpload {
            chunk: spec.chunk_id,
            partition: Partition::new(spec.stream_id, spec.partition),
            object_path: spec.object_path(),
        };
        self.commit(operation).await.map(|_| ())
    }

    pub(super) async fn give_up(&self, chunk: ChunkId) {
        if let Err(error) = self.commit(Operation::AbandonUpload { chunk }).await {
            // The next start gives it up.
            tracing::warn!(%error, %chunk, "an upload could not be given up");
        }
    }

    pub(super) fn encode_options(&self) -> EncodeOptions {
        EncodeOptions {
            zstd_level: self.options.chunk_zstd_level,
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
            ..EncodeOptions::default()
        }
    }

    async fn encode(
        &self,
        stream: &StreamIndex,
        spec: ChunkSpec,
        entries: &[TailEntry],
    ) -> Result<Encoded, Error> {
        let started = self.environment.clock.monotonic_ns();
        let mut encoder = self.push_tail(self.encoder(stream, spec, false)?, entries).await?;
        if let Some(walk) = encoder.take_outgrown() {
            self.count_fields(&encoder);
            let spec = encoder.spec().clone();
            drop(encoder);
            let next = self.next_encoder(stream, spec, walk).await?;
            encoder = self.push_tail(next, entries).await?;
        }
        let encoded = self.finish(encoder).await?;
        let elapsed = self.environment.clock.monotonic_ns().saturating_sub(started);
        self.metrics.chunk_encode_seconds.observe(elapsed as f64 / 1e9);
        Ok(encoded)
    }

    /// Pushes what the journal has of a cut.
    async fn push_tail(
        &self,
        mut encoder: ChunkEncoder,
        entries: &[TailEntry],
    ) -> Result<ChunkEncoder, Error> {
        let (base, partition) = (encoder.spec().base, encoder.spec().partition);
        let mut rest = entries;
        while !rest.is_empty() {
            let (piece, behind) = TailEntry::split(rest, PIECE_BYTES);
            rest = behind;
            let Some(batches) = self.reader.read_tail(piece).await? else {
                return Err(Error::Overtaken("the stream was truncated".into()));
            };
            let appended: Vec<Timestamp> = piece.iter().map(|entry| entry.appended).collect();
            encoder = aside(move || {
                for (batch, appended) in batches.iter().zip(appended) {
                    if batch.header().base_offset >= base {
                        encoder.push_batch(batch, appended)?;
                        continue;
                    }
                    // The start was moved into the batch.
                    let rows =
                        Rows::from_batches(partition, [(batch, appended)], DECOMPRESSED_BYTES_MAX)?;
                    encoder.push_rows(&rows.starting_at(base))?;
                }
                Ok(encoder)
            })
            .await?
            .map_err(from_chunk)?;
        }
        flushed(encoder).await
    }

    pub(super) async fn finish(&self, encoder: ChunkEncoder) -> Result<Encoded, Error> {
        self.count_fields(&encoder);
        let spec = encoder.spec().clone();
        let chunk = aside(move || encoder.finish()).await?.map_err(from_chunk)?;
        Ok(Encoded { spec, chunk })
    }

    /// Puts a chunk under its name. Where the answer is lost, looks whether the
    /// object is there and the same.
    pub(super) async fn put(&self, encoded: &Encoded) -> Result<(), Error> {
        let started = self.environment.clock.monotonic_ns();
        let path = encoded.spec.object_path();
        let result = self.put_once(&path, encoded.chunk.bytes.clone()).await;
        let elapsed = self.environment.clock.monotonic_ns().saturating_sub(started);
        self.metrics.chunk_put_seconds.observe(elapsed as f64 / 1e9);
        result
    }
}

/// The encoder when it has looked at all that was pushed.
pub(super) async fn flushed(mut encoder: ChunkEncoder) -> Result<ChunkEncoder, Error> {
    let flushed = aside(move || encoder.flush().map(|()| encoder)).await?;
    flushed.map_err(from_chunk)
}

/// The next chunk of a partition: a whole one, or what there is if it must be.
fn cut(log: &PartitionLog, target: u64, is_forced: bool) -> Option<Cut> {
    log.with(|state| {
        if state.is_deleted || (!is_forced && state.tail_bytes < target) {
            return None;
        }
        let mut bytes = 0;
        let stable = state.stable();
        // A chunk says once for all of its records whose time they bear. Nobody
        // sees that of markers.
        let has_time = |entry: &&TailEntry| entry.kind != TailKind::Control;
        let timestamp_type = state.tail.iter().find(has_time);
        let timestamp_type = timestamp_type.map(|of| of.timestamp_type).unwrap_or_default();
        let entries: Vec<TailEntry> = state
            .tail
            .iter()
            .take_while(|entry| {
                let is_alike = !has_time(entry) || entry.timestamp_type == timestamp_type;
                let is_in = entry.next <= stable && bytes < target && is_alike;
                bytes += u64::from(entry.len);
                is_in
            })
            .copied()
            .collect();
        let next = entries.last()?.next;
        let epochs = epochs(&entries);
        // What is stable is decided: aborted records and markers go no further.
        let entries = entries.into_iter().filter(|entry| !state.is_hidden(entry)).collect();
        Some(Cut { base: state.tiered, next, entries, epochs, timestamp_type })
    })
}

fn epochs(entries: &[TailEntry]) -> Vec<(Epoch, Offset)> {
    let mut epochs: Vec<(Epoch, Offset)> = Vec::new();
    for entry in entries {
        if epochs.last().is_none_or(|(epoch, _)| *epoch != entry.epoch) {
            epochs.push((entry.epoch, entry.base));
        }
    }
    epochs
}

pub(super) fn meta(encoded: &Encoded) -> ChunkMeta {
    let Encoded { spec, chunk } = encoded;
    ChunkMeta {
        id: spec.chunk_id,
        partition: Partition::new(spec.stream_id, spec.partition),
        base: spec.base,
        next: spec.next,
        object_path: spec.object_path(),
        object_bytes: chunk.bytes.len() as u64,
        checksum: format!("crc32c:{:08x}", chunk.checksum),
        records: chunk.stats.records,
        raw_bytes: chunk.stats.raw_bytes,
        min_timestamp: chunk.stats.min_timestamp,
        max_timestamp: chunk.stats.max_timestamp,
        max_appended: chunk.stats.max_appended,
        epochs: spec.epochs.clone(),
        generation: spec.generation,
        schema_version: spec.schema_version,
        unfit: chunk.stats.unfit,
        timestamp_type: spec.timestamp_type,
        index_path: None,
        index_bytes: None,
        key_id: None,
    }
}

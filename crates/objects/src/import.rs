//! One object into one stream.
//!
//! A thread decodes the object and hands on parts of whole rows, at most
//! [`PARTS_AHEAD_MAX`] ahead; each part is one commit, of its records together
//! with how far the object is ([`crate::imported`]). The last one notes the
//! object as whole and counts it in its job. A crash between two commits leaves
//! the object at the end of the first: it goes on behind the rows that were
//! dealt with.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::source::{SourceBody, SourceObject, SourceStore};
use aquifer_env::store::StoreError;
use aquifer_env::tasks;
use aquifer_stream::{
    AppendRequest, DocumentExpectation, Operation, PartitionAppend, StreamHandle,
};
use aquifer_types::{
    BatchBuilder, NewRecord, PartitionIndex, StreamPath, TenantName, Timestamp, TimestampType,
    partition_for_key,
};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::Error;
use crate::format;
use crate::imported::{Known, ObjectKey, Progress};
use crate::objects::Shared;
use crate::ranges::Ranges;
use crate::rows::{BadRow, Halt, Part, RowLimits, Rows};
use crate::spec::{Format, ImportSpec};

/// Parts that are decoded while one is committed.
const PARTS_AHEAD_MAX: usize = 2;
/// Of an upload that is refused in its middle, so much is still taken.
const DRAIN_BYTES_MAX: u64 = 64 << 20;
/// The pause before a commit that was refused for now is tried again.
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// Others finish objects at the same time: so often is a finish tried anew.
const FINISH_TRIES_MAX: usize = 64;

/// Where objects go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) tenant: TenantName,
    pub(crate) spec: Arc<ImportSpec>,
    pub(crate) stream: StreamHandle,
    pub(crate) partitions: u32,
}

/// An object, and how its bytes are had.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) url: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    Source(SourceStore, SourceObject),
    Body(SourceBody),
    Memory(Bytes),
}

/// What an import tells while it runs, and asks at its end.
pub(crate) trait Watcher: Send + Sync {
    /// How far the object is, and why it waits if it does.
    fn at(&self, progress: &Progress, waiting: Option<&str>);
    /// Bad rows of a part.
    fn bad(&self, url: &str, rows: &[BadRow]);
    /// What is to be committed with the object's end.
    fn finishing(&self, progress: &Progress) -> Result<Vec<Operation>, Error>;
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Imported {
    /// This version had been imported before.
    Before,
    /// All of it is in the stream.
    Whole(Progress),
}

impl Target {
    /// # Errors
    /// Where the stream, or the partition, does not exist.
    pub(crate) fn new(
        shared: &Shared,
        tenant: &TenantName,
        spec: Arc<ImportSpec>,
    ) -> Result<Self, Error> {
        let path = StreamPath::new(tenant.clone(), spec.stream.clone());
        let stream = shared.store.stream(&path)?;
        let partitions = shared.store.stream_shape(&path)?.partitions;
        if let Some(partition) = spec.partition {
            stream.partition(PartitionIndex(partition))?;
        }
        Ok(Self { tenant: tenant.clone(), spec, stream, partitions })
    }

    pub(crate) fn key(&self, url: &str) -> ObjectKey {
        ObjectKey::new(&self.tenant, self.stream.id(), url)
    }
}

/// Imports what is not imported of an object.
///
/// # Errors
/// [`Error::Row`] where a row is bad and the import is to stop there;
/// [`Error::Broken`] where the object cannot be read to its end;
/// [`Error::Objects`], [`Error::Store`]; [`Error::Stopped`]. What was committed
/// before stays, and is known.
pub(crate) async fn import(
    shared: &Arc<Shared>,
    target: &Target,
    input: Input,
    watcher: &dyn Watcher,
    stopping: &mut watch::Receiver<bool>,
) -> Result<Imported, Error> {
    let key = target.key(&input.url);
    let _claim = shared.claim(&key.name()).ok_or_else(|| Error::Busy(input.url.clone()))?;
    let known = key.known(&shared.store, &input.url, &input.version)?;
    let Known::From(progress, expected) = known else { return Ok(Imported::Before) };
    let config = target.stream.config();
    let limits = RowLimits {
        part_bytes: shared.options.part_bytes,
        record_bytes_max: usize::try_from(config.record_bytes_max).unwrap_or(usize::MAX),
        errors_max: shared.options.errors_max,
    };
    let (sender, mut parts) = mpsc::channel(PARTS_AHEAD_MAX);
    let rows = Rows::new(sender, &target.spec, limits, progress.rows);
    let url = input.url.clone();
    let content = opened(&target.spec, input.name.as_str(), input.content).await?;
    let (spec, name, ratio_max) = (target.spec.clone(), input.name, shared.options.ratio_max);
    let decoding = tasks::spawn_blocking(move || decode(content, &name, &spec, ratio_max, rows));
    let mut commits = Commits { shared, target, key, progress, expected, watcher, stopping };
    let mut held: Option<Part> = None;
    loop {
        let part = tokio::select! {
            part = parts.recv() => part,
            _ = commits.stopping.wait_for(|is_stopping| *is_stopping) => return Err(Error::Stopped),
        };
        let Some(part) = part else { break };
        // The last part is committed with the object's end.
        if let Some(before) = held.replace(part) {
            commits.commit(before, false).await?;
        }
    }
    let held = held.unwrap_or_else(|| Part { rows: commits.progress.rows, ..Part::default() });
    let decoded = decoding.await.map_err(Error::internal)?;
    commits.commit(held, matches!(decoded, Decoded::Whole)).await?;
    match decoded {
        Decoded::Whole => Ok(Imported::Whole(commits.progress)),
        Decoded::Bad(BadRow { row, why }) => Err(Error::Row { object: url, row, why }),
        Decoded::Broken(BadRow { row, why }) => Err(Error::Broken { object: url, row, why }),
        Decoded::Source(error) => Err(error.into()),
        Decoded::Stopped => Err(Error::Stopped),
    }
}

/// The bytes of an object, as its format needs them.
#[derive(Debug)]
enum Opened {
    Stream(SourceStore, SourceObject),
    Body(SourceBody),
    Ranges(Ranges),
}

async fn opened(spec: &ImportSpec, name: &str, content: Content) -> Result<Opened, Error> {
    let told = format::told(spec, name);
    Ok(match content {
        Content::Source(store, object) => {
            let is_parquet = match told {
                Some(format) => format == Format::Parquet,
                None if object.bytes < 12 => false,
                None => store.read_range(&object, 0..4).await? == b"PAR1"[..],
            };
            match is_parquet && object.bytes > 0 {
                true => Opened::Ranges(Ranges::of_source(store, object)),
                false => Opened::Stream(store, object),
            }
        }
        Content::Body(body) => Opened::Body(body),
        Content::Memory(bytes) => Opened::Ranges(Ranges::of_bytes(bytes)),
    })
}

/// How decoding ended.
#[derive(Debug)]
enum Decoded {
    Whole,
    Bad(BadRow),
    Broken(BadRow),
    Source(StoreError),
    Stopped,
}

/// Decodes an object; blocks.
fn decode(
    opened: Opened,
    name: &str,
    spec: &ImportSpec,
    ratio_max: u64,
    mut rows: Rows,
) -> Decoded {
    let body = match opened {
        Opened::Ranges(ranges) => {
            let failure = ranges.failure();
            let run = |rows: &mut Rows| format::parquet::decode(ranges, ratio_max, rows);
            return ended(caught(&mut rows, run), &failure, rows);
        }
        Opened::Stream(store, object) => {
            let runtime = tokio::runtime::Handle::current();
            match runtime.block_on(store.read(&object)) {
                Ok(body) => body,
                Err(error) => return Decoded::Source(error),
            }
        }
        Opened::Body(body) => {
            let mut body = body;
            let failure = body.failure();
            let run = |rows: &mut Rows| format::decode(&mut body, name, spec, ratio_max, rows);
            let decoded = ended(caught(&mut rows, run), &failure, rows);
            if matches!(decoded, Decoded::Bad(_) | Decoded::Broken(_)) {
                // Who still sends would not read what is answered.
                let _ = std::io::copy(&mut body.take(DRAIN_BYTES_MAX), &mut std::io::sink());
            }
            return decoded;
        }
    };
    let failure = body.failure();
    let run = |rows: &mut Rows| format::decode(body, name, spec, ratio_max, rows);
    ended(caught(&mut rows, run), &failure, rows)
}

/// Takes a panic of a library at what somebody else wrote for the end of what can
/// be read: rows before it were handed on whole.
fn caught(rows: &mut Rows, run: impl FnOnce(&mut Rows) -> Result<(), Halt>) -> Option<Halt> {
    match catch_unwind(AssertUnwindSafe(|| run(&mut *rows))) {
        Ok(result) => result.err(),
        Err(_) => Some(rows.broken("the object is not sound: its decoder gave up")),
    }
}

fn ended(
    halt: Option<Halt>,
    failure: &parking_lot::Mutex<Option<StoreError>>,
    rows: Rows,
) -> Decoded {
    let failure = failure.lock().take();
    match (halt, failure) {
        // What broke off is not the object's fault, whatever it looks like.
        (Some(_), Some(error)) => match rows.finish(None) {
            Ok(()) => Decoded::Source(error),
            Err(_) => Decoded::Stopped,
        },
        (halt, _) => match rows.finish(halt) {
            Ok(()) => Decoded::Whole,
            Err(Halt::Bad(bad)) => Decoded::Bad(bad),
            Err(Halt::Broken(bad)) => Decoded::Broken(bad),
            Err(Halt::Stopped) => Decoded::Stopped,
        },
    }
}

/// The commits of one object.
struct Commits<'a> {
    shared: &'a Arc<Shared>,
    target: &'a Target,
    key: ObjectKey,
    progress: Progress,
    expected: DocumentExpectation,
    watcher: &'a dyn Watcher,
    stopping: &'a mut watch::Receiver<bool>,
}

impl Commits<'_> {
    async fn commit(&mut self, part: Part, is_last: bool) -> Result<(), Error> {
        // What ended before the rows that were dealt with takes none of them back.
        if !is_last && part.records.is_empty() && part.rows <= self.progress.rows {
            return Ok(());
        }
        self.watcher.bad(&self.progress.url, &part.errors);
        let next = Progress {
            rows: part.rows,
            records: self.progress.records + part.records.len() as u64,
            bytes: self.progress.bytes + part.bytes as u64,
            bad: self.progress.bad + part.bad,
            ..self.progress.clone()
        };
        let request = AppendRequest {
            path: self.target.stream.path().clone(),
            appends: self.batches(&part.records),
            idempotency_key: None,
        };
        let (records, bytes, bad) = (part.records.len() as u64, part.bytes as u64, part.bad);
        drop(part);
        let mut tries = 0;
        loop {
            let documents = match is_last {
                true => {
                    let (store, options) = (&self.shared.store, &self.shared.options);
                    let mut operations =
                        self.key.finish(store, &next.version, self.expected, options)?;
                    operations.extend(self.watcher.finishing(&next)?);
                    operations
                }
                false => vec![self.key.keep(&next, self.expected)?],
            };
            let store = &self.shared.store;
            let error = match store.append_with_documents(request.clone(), documents).await {
                Ok(_) => break,
                Err(error) => error,
            };
            let is_overtaken = matches!(error, aquifer_stream::Error::DocumentChanged { .. });
            tries += 1;
            if is_last && is_overtaken && tries < FINISH_TRIES_MAX {
                continue;
            }
            // Whether an indefinite one happened is found out by beginning anew.
            if !(error.is_definite() && error.kind().is_retriable()) {
                return Err(error.into());
            }
            self.watcher.at(&self.progress, Some(&error.to_string()));
            let pause = error.retry_after().unwrap_or(BUSY_PAUSE);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.stopping.wait_for(|is_stopping| *is_stopping) => {
                    return Err(Error::Stopped);
                }
            }
        }
        let metrics = &self.shared.metrics;
        metrics.records_imported.inc_by(records);
        metrics.bytes_imported.inc_by(bytes);
        metrics.rows_refused.inc_by(bad);
        if is_last {
            metrics.objects_imported.inc();
        }
        self.progress = next;
        self.expected = self.key.expectation(&self.shared.store);
        self.watcher.at(&self.progress, None);
        Ok(())
    }

    /// A batch a partition. Records without a key go to one partition for each
    /// object, so that they keep its order.
    fn batches(&self, records: &[NewRecord]) -> Vec<PartitionAppend> {
        let now = Timestamp(self.shared.clock.now_ms());
        let timestamp_type = self.target.stream.config().timestamp_type;
        let partitions = self.target.partitions.max(1);
        let home = PartitionIndex(self.key.home() % partitions);
        let mut open: BTreeMap<PartitionIndex, BatchBuilder> = BTreeMap::new();
        for record in records {
            let partition = match (self.target.spec.partition, &record.key) {
                (Some(partition), _) => PartitionIndex(partition),
                (None, Some(key)) => partition_for_key(key, partitions),
                (None, None) => home,
            };
            let timestamp = match timestamp_type {
                TimestampType::Create => record.timestamp.unwrap_or(now),
                TimestampType::Append => now,
            };
            open.entry(partition).or_default().push(
                timestamp,
                record.key.as_deref(),
                &record.headers,
                record.value.as_deref(),
            );
        }
        let finished = open.into_iter().map(|(partition, builder)| {
            let batch = match timestamp_type {
                TimestampType::Create => builder.finish(),
                TimestampType::Append => builder.append_time().finish(),
            };
            PartitionAppend { partition, batch, expected_offset: None }
        });
        finished.collect()
    }
}

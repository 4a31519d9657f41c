//! The store as the doors see it.

mod background;
mod beside;
mod declared;
mod documents;
mod each;
mod groups;
mod handle;
mod leases;
mod streams;
mod transactions;

use std::path::PathBuf;
use std::sync::Arc;

use aquifer_catalog::Catalog;
use aquifer_env::store::TierStore;
use aquifer_env::{Clock, DirectoryLock, Disk, Random, RealClock, RealDisk, RealRandom, uuid_v4};
use aquifer_types::{CommitId, Offset, PartitionIndex, StreamId, StreamPath};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::leases::Lease;
use crate::Error;
use crate::api::{
    AppendAnswer, AppendRequest, Appended, Block, Form, Health, Isolation, Position, ReadAnswer,
    ReadRequest,
};
use crate::group_lag::GroupLag;
use crate::index::{Index, PartitionLog, StreamIndex};
use crate::ledger::recovery::{Places, recover};
use crate::ledger::{
    Commit, Committed, Idempotency, LocalLedger, Operation, Outcome, Precondition, RecoveryReport,
    Resolution,
};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::read::{ChunkCache, Leases, Reader, View};
use crate::retention::Retention;
use crate::tier::Tier;

use self::transactions::Expiry;
pub use each::{EachAppend, EachAppended, SubmittedAppends};
pub use groups::POSITION_METADATA_BYTES_MAX;
pub use handle::{PartitionHandle, PartitionOffsets, StreamHandle};

/// The longest idempotency key, in bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The outside, as the store uses it.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Under the data directory.
    pub disk: Arc<dyn Disk>,
    /// For times and ages.
    pub clock: Arc<dyn Clock>,
    /// For ids.
    pub random: Arc<dyn Random>,
    /// Tier 2; absent, it is opened by its URL.
    pub tier2: Option<TierStore>,
}

impl Environment {
    /// The real machine.
    #[must_use]
    pub fn real() -> Self {
        Self {
            disk: Arc::new(RealDisk::new()),
            clock: Arc::new(RealClock::new()),
            random: Arc::new(RealRandom),
            tier2: None,
        }
    }
}

/// The store; cheap to clone.
#[derive(Debug, Clone)]
pub struct StreamStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Arc<Options>,
    environment: Environment,
    index: Arc<Index>,
    ledger: LocalLedger,
    reader: Arc<Reader>,
    tier: Arc<Tier>,
    retention: tokio::sync::Mutex<Retention>,
    expiry: tokio::sync::Mutex<Expiry>,
    metrics: Arc<Metrics>,
    recovery: RecoveryReport,
    tasks: Mutex<JoinSet<()>>,
    stopping: watch::Sender<bool>,
    _lock: DirectoryLock,
}

impl StreamStore {
    /// Opens the store in its data directory, which is created where it does not
    /// exist, recovers what is there and begins to serve.
    ///
    /// # Errors
    /// [`Error::Start`], [`Error::Damaged`], [`Error::Unsupported`]; nothing was
    /// changed then.
    pub async fn open(
        options: Options,
        environment: Environment,
        registry: &mut Registry,
    ) -> Result<Self, Error> {
        options.validate()?;
        let options = Arc::new(Options {
            data: std::path::absolute(&options.data)
                .map_err(|error| Error::Start(format!("{}: {error}", options.data.display())))?,
            ..options
        });
        let metrics = Arc::new(Metrics::register(registry));
        let data = options.data.clone();
        environment.disk.create_dir_all(&data).map_err(|error| {
            Error::Start(format!("cannot create the data directory {}: {error}", data.display()))
        })?;
        let lock = DirectoryLock::acquire(&data).map_err(|e| Error::Start(e.to_string()))?;
        if environment.disk.open_read(&data.join(crate::recover::MARKER)).is_ok() {
            return Err(Error::Start(format!(
                "a recovery into {} was interrupted: run it again",
                data.display()
            )));
        }
        let store = open_tier2(&options, &environment).await?;

        let (disk, clock) = (environment.disk.clone(), environment.clock.clone());
        let recover_options = options.clone();
        let recovery = aquifer_env::tasks::run_blocking(move || {
            let catalog = open_catalog(&disk, &recover_options)?;
            recover(&disk, &clock, &recover_options, catalog)
        })
        .await?;
        let report = recovery.report.clone();
        tracing::info!(
            epoch = report.epoch.get(),
            groups = report.groups,
            batches = report.batches,
            torn_bytes = report.torn_bytes,
            clean = report.was_clean,
            "recovered"
        );
        let index = recovery.index.clone();
        let lag = GroupLag::new(Arc::downgrade(&index), options.group_lag_series_max);
        registry.register_collector(Box::new(lag));
        let ledger = LocalLedger::start(
            recovery,
            options.clone(),
            environment.clock.clone(),
            environment.disk.clone(),
            metrics.clone(),
        )?;
        let reader = Arc::new(Reader {
            index: index.clone(),
            journal: ledger.reader(),
            store: store.clone(),
            cache: ChunkCache::new(options.chunk_cache_bytes_max),
            leases: Leases::new(options.view_lease_ms),
            clock: environment.clock.clone(),
            window_bytes: 4 << 20,
        });
        let tier = Arc::new(Tier::new(
            options.clone(),
            environment.clone(),
            store,
            ledger.clone(),
            reader.clone(),
            metrics.clone(),
            report.epoch,
        ));
        let retention = Retention::new(
            environment.clock.clone(),
            ledger.clone(),
            index.clone(),
            metrics.clone(),
        );
        let store = Self {
            inner: Arc::new(Inner {
                options,
                environment,
                index,
                ledger,
                reader,
                tier,
                retention: tokio::sync::Mutex::new(retention),
                expiry: tokio::sync::Mutex::default(),
                metrics,
                recovery: report,
                tasks: Mutex::new(JoinSet::new()),
                stopping: watch::Sender::new(false),
                _lock: lock,
            }),
        };
        store.spawn_background();
        Ok(store)
    }

    /// Finishes what was taken in, marks the journal as clean and stops. What is
    /// asked afterwards is refused.
    ///
    /// # Errors
    /// None at present; what fails is logged, and nothing acknowledged depends
    /// on it.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.inner.stopping.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock());
        while tasks.join_next().await.is_some() {}
        self.inner.ledger.stop().await;
        Ok(())
    }

    /// What the start found.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.inner.recovery
    }

    /// The configuration in force.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Several operations, all or none of them.
    ///
    /// # Errors
    /// As the ledger decides.
    pub async fn commit(&self, operations: Vec<Operation>) -> Result<Committed, Error> {
        self.commit_once(operations, None).await
    }

    /// [`StreamStore::commit`] as long as `require` holds, under an id of the
    /// caller's, which
    /// [`StreamStore::resolve`] takes. The same id again gives the first answer
    /// again, for `commit_outcomes_ms`, whatever the operations are.
    ///
    /// # Errors
    /// As the ledger decides; [`Error::Fenced`] where a precondition does not
    /// hold, or somebody was told that it is not done; [`Error::Throttled`] where no more can be remembered.
    pub async fn commit_as(
        &self,
        id: CommitId,
        require: Vec<Precondition>,
        operations: Vec<Operation>,
    ) -> Result<Committed, Error> {
        let commit = Commit { id: Some(id), require, ..Commit::of(operations) };
        self.inner.ledger.commit(commit).await
    }

    /// What became of a commit under this id, whose answer was lost or
    /// indefinite. Afterwards it is certain, over restarts as well: one that is
    /// absent will not be done. Ask within `commit_outcomes_ms` of the attempt;
    /// what was done before that is not known any more.
    ///
    /// # Errors
    /// [`Error::Indefinite`], [`Error::NotWritten`] or [`Error::StorageFull`]
    /// while the journal cannot be written; [`Error::Throttled`].
    pub async fn resolve(&self, id: CommitId) -> Result<Resolution, Error> {
        self.inner.ledger.resolve(id).await
    }

    async fn commit_once(
        &self,
        operations: Vec<Operation>,
        idempotency: Option<Idempotency>,
    ) -> Result<Committed, Error> {
        self.inner.ledger.commit(Commit { idempotency, ..Commit::of(operations) }).await
    }

    /// Appends batches, all or none of them; answers when they are durable as
    /// the stream's class says.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_definite`] says whether certainly nothing was
    /// appended.
    pub async fn append(&self, request: AppendRequest) -> Result<AppendAnswer, Error> {
        self.append_measured(request, None, Vec::new()).await
    }

    /// [`StreamStore::append`] with documents that are put or deleted in the
    /// same commit: all of it happens or nothing. Without batches it is a commit
    /// of the documents alone.
    ///
    /// # Errors
    /// As [`StreamStore::append`]; [`Error::DocumentChanged`] where what a
    /// document expects does not hold; [`Error::Invalid`] for other operations.
    pub async fn append_with_documents(
        &self,
        request: AppendRequest,
        documents: Vec<Operation>,
    ) -> Result<AppendAnswer, Error> {
        let is_document = |operation: &Operation| {
            matches!(operation, Operation::PutDocument { .. } | Operation::DeleteDocument { .. })
        };
        if !documents.iter().all(is_document) {
            return Err(Error::Invalid("only documents go with an append".into()));
        }
        self.append_measured(request, None, documents).await
    }

    /// [`StreamStore::append`] for a door that adds something of its own to the
    /// batches, such as the time of the append: `checksum` is that of the
    /// request as its client sent it, and the same idempotency key with another
    /// checksum is refused.
    ///
    /// # Errors
    /// As [`StreamStore::append`].
    pub async fn append_with_checksum(
        &self,
        request: AppendRequest,
        checksum: u32,
    ) -> Result<AppendAnswer, Error> {
        self.append_measured(request, Some(checksum), Vec::new()).await
    }

    async fn append_measured(
        &self,
        request: AppendRequest,
        checksum: Option<u32>,
        beside: Vec<Operation>,
    ) -> Result<AppendAnswer, Error> {
        let started = self.inner.environment.clock.monotonic_ns();
        let result = self.append_inner(request, checksum, beside).await;
        let metrics = &self.inner.metrics;
        match &result {
            // Documents alone are no append.
            Ok(answer) if answer.appends.is_empty() => {}
            Ok(answer) => {
                metrics.appends.inc();
                let records = answer.appends.iter().map(|a| u64::from(a.count)).sum();
                metrics.append_records.inc_by(records);
                let now = self.inner.environment.clock.monotonic_ns();
                metrics.append_seconds.observe(now.saturating_sub(started) as f64 / 1e9);
            }
            Err(_) => {
                metrics.append_failures.inc();
            }
        }
        result
    }

    async fn append_inner(
        &self,
        request: AppendRequest,
        checksum: Option<u32>,
        beside: Vec<Operation>,
    ) -> Result<AppendAnswer, Error> {
        let stream = self.inner.index.stream(&request.path)?;
        let mut request_checksum = checksum.unwrap_or(0);
        let mut bytes = 0;
        let mut operations = Vec::with_capacity(request.appends.len());
        let has_key = request.idempotency_key.is_some();
        for append in request.appends {
            let log = stream.partition(append.partition)?;
            self.check_backlog(&log)?;
            let header = append.batch.header();
            if header.is_control || header.record_count == 0 {
                return Err(Error::Invalid("a batch to append has records".into()));
            }
            if header.is_transactional && header.producer_id.is_none() {
                return Err(Error::Invalid("a transactional batch has a producer id".into()));
            }
            if has_key && checksum.is_none() {
                request_checksum = crc32c::crc32c_append(request_checksum, append.batch.bytes());
            }
            bytes += append.batch.bytes().len() as u64;
            operations.push(Operation::Append {
                partition: log.partition,
                batch: append.batch,
                expected_offset: append.expected_offset,
            });
        }
        self.check_journal()?;
        operations.extend(beside);
        let idempotency = match request.idempotency_key {
            None => None,
            Some(key) if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX => {
                return Err(Error::Invalid(format!(
                    "an idempotency key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes, this one has {}",
                    key.len()
                )));
            }
            Some(key) => Some(Idempotency {
                tenant: request.path.tenant.clone(),
                key,
                stream: stream.id,
                request_checksum,
            }),
        };
        let committed = self.commit_once(operations, idempotency).await.map_err(|error| {
            match error {
                // The stream was deleted between the lookup and the decision.
                Error::Overtaken(_) => Error::StreamNotFound(request.path.clone()),
                error => error,
            }
        })?;
        self.inner.metrics.append_bytes.inc_by(bytes);
        let outcomes = &committed.outcomes;
        let has_new = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Appended(_)));
        let appends: Vec<Appended> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Appended(appended) | Outcome::Duplicate(appended) => Some(*appended),
                _ => None,
            })
            .collect();
        let is_duplicate = !appends.is_empty() && !has_new;
        Ok(AppendAnswer { appends, is_duplicate, appended: committed.at })
    }

    fn check_journal(&self) -> Result<(), Error> {
        let bytes = self.inner.ledger.journal_bytes();
        let limit = self.inner.options.journal_bytes_max;
        if bytes >= limit {
            self.inner.tier.press();
            return Err(Error::Backpressure {
                what: "the journal".into(),
                bytes,
                limit,
                limit_name: "journal_bytes_max",
                why: self.inner.tier.why_behind(),
            });
        }
        Ok(())
    }

    fn check_backlog(&self, log: &PartitionLog) -> Result<(), Error> {
        let bytes = log.with(|state| state.tail_bytes);
        let limit = self.inner.options.journal_partition_bytes_max;
        if bytes >= limit {
            self.inner.tier.press();
            return Err(Error::Backpressure {
                what: format!("partition {}", log.partition.index),
                bytes,
                limit,
                limit_name: "journal_partition_bytes_max",
                why: self.inner.tier.why_behind(),
            });
        }
        Ok(())
    }

    /// Reads one partition, waiting up to `request.wait` for a first record.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] below the earliest offset or beyond the end, and
    /// what reading can fail of.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadAnswer, Error> {
        let stream = self.inner.index.stream(&request.path)?;
        let log = stream.partition(request.partition)?;
        let mut watch = log.watch();
        let bytes_max = request.bytes_max.min(self.inner.options.read_bytes_max);
        let from = self.inner.reader.resolve(&log, request.from, request.isolation).await?;
        let deadline = tokio::time::sleep(request.wait);
        tokio::pin!(deadline);
        loop {
            watch.borrow_and_update();
            let answer =
                self.read_now(&log, from, bytes_max, request.isolation, request.form).await?;
            // A gap that reaches the visible end moves the reader on at once.
            if !answer.blocks.is_empty() || answer.next_offset > from || request.wait.is_zero() {
                let bytes: usize = answer.blocks.iter().map(|block| block.bytes()).sum();
                self.inner.metrics.reads.inc();
                self.inner.metrics.read_bytes.inc_by(bytes as u64);
                return Ok(answer);
            }
            tokio::select! {
                changed = watch.changed() => {
                    if changed.is_err() || log.with(|state| state.is_deleted) {
                        return Err(Error::StreamNotFound(request.path));
                    }
                }
                () = &mut deadline => return Ok(answer),
            }
        }
    }

    async fn read_now(
        &self,
        log: &Arc<PartitionLog>,
        from: Offset,
        bytes_max: usize,
        isolation: Isolation,
        form: Form,
    ) -> Result<ReadAnswer, Error> {
        let is_listed = form == Form::Raw && isolation == Isolation::Committed;
        // Taken before the batches: tiering forgets what they may overlap with.
        let (start, stable, end, mut aborted) = log.with(|state| {
            let aborted = is_listed.then(|| state.transactions.aborted_from(from));
            (state.start, state.stable(), state.end, aborted.unwrap_or_default())
        });
        let visible = match isolation {
            Isolation::Committed => stable,
            Isolation::Uncommitted => end,
        };
        if from < start || from > end {
            return Err(Error::out_of_range(log.partition, from, start, end));
        }
        let mut cursor = self.inner.reader.cursor(log, from, visible).with_form(form);
        let mut blocks = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max {
            let more = cursor.next(bytes_max - bytes).await?;
            if more.is_empty() {
                break;
            }
            bytes += more.iter().map(|block| block.bytes()).sum::<usize>();
            blocks.extend(more);
        }
        let next_offset = cursor.position().max(from);
        let first_batch = blocks.iter().find_map(|block| match block {
            Block::Batch(batch) => Some(batch.header().base_offset),
            Block::Rows(_) => None,
        });
        aborted.retain(|aborted| {
            first_batch.is_some_and(|first| aborted.last_offset >= first)
                && aborted.first_offset < next_offset
        });
        Ok(ReadAnswer {
            blocks,
            from,
            next_offset,
            start_offset: start,
            stable_offset: stable,
            end_offset: end,
            aborted,
        })
    }

    /// The offset that a position means now.
    ///
    /// # Errors
    /// Where the stream or partition does not exist, or the records around a
    /// time cannot be read.
    pub async fn resolve_position(
        &self,
        path: &StreamPath,
        partition: PartitionIndex,
        at: Position,
    ) -> Result<Offset, Error> {
        let log = self.inner.index.stream(path)?.partition(partition)?;
        self.inner.reader.resolve(&log, at, Isolation::Committed).await
    }

    /// Follows the stable offset of a partition; also told when the end moves
    /// without it.
    ///
    /// # Errors
    /// Where the stream or partition does not exist.
    pub fn watch(
        &self,
        path: &StreamPath,
        partition: PartitionIndex,
    ) -> Result<watch::Receiver<Offset>, Error> {
        Ok(self.inner.index.stream(path)?.partition(partition)?.watch())
    }

    /// One cut over streams: everything that was acknowledged before, all of a
    /// commit or nothing of it.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`].
    pub fn view(&self, streams: &[StreamPath], isolation: Isolation) -> Result<View, Error> {
        let streams: Vec<Arc<StreamIndex>> =
            streams.iter().map(|path| self.inner.index.stream(path)).collect::<Result<_, _>>()?;
        Ok(View::take(&self.inner.reader, &streams, isolation))
    }

    /// Enforces retention now, and not only at the next `retention_interval_ms`.
    /// Returns in how many partitions something went.
    ///
    /// # Errors
    /// As the ledger's.
    pub async fn enforce_retention(&self) -> Result<usize, Error> {
        self.inner.retention.lock().await.enforce().await
    }

    /// How the store is.
    #[must_use]
    pub fn health(&self) -> Health {
        let appends = match self.inner.ledger.failure() {
            Some(error) => Err(error.to_string()),
            None => self.check_journal().map_err(|error| error.to_string()),
        };
        Health {
            appends,
            tier2: self.inner.tier.last_failure().map_or(Ok(()), Err),
            catalog: self.inner.ledger.catalog_failure().map_or(Ok(()), Err),
            journal_bytes: (
                self.inner.ledger.journal_bytes(),
                self.inner.options.journal_bytes_max,
            ),
            tiering_lag_ms: self.inner.tier.lag_ms(),
        }
    }

    fn new_stream_id(&self) -> StreamId {
        StreamId(uuid_v4(&*self.inner.environment.random))
    }
}

async fn open_tier2(options: &Options, environment: &Environment) -> Result<TierStore, Error> {
    if let Some(store) = &environment.tier2 {
        return Ok(store.clone());
    }
    let url = options.tier2_url();
    let pairs: Vec<(String, String)> =
        options.tier2_options.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    aquifer_env::store::open_store(&url, &pairs)
        .map_err(|error| Error::Start(format!("tier 2 {url}: {error}")))
}

fn open_catalog(disk: &Arc<dyn Disk>, options: &Options) -> Result<Catalog, Error> {
    let path: PathBuf = Places::new(options).catalog;
    // Where there is a journal there was a catalog: a lost one is not taken for
    // a new one.
    let journal = options.data.join("journal");
    let had_journal = disk.list(&journal).is_ok_and(|files| !files.is_empty());
    let had_snapshot = disk.list(&options.data.join("ledger")).is_ok_and(|files| !files.is_empty());
    let catalog_options =
        aquifer_catalog::Options { create: !(had_journal && had_snapshot), ..Default::default() };
    Catalog::open(&path, catalog_options).map_err(|error| Error::Start(error.to_string()))
}

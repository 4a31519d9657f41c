//! Re-reading everything, with no server running: the journal, the snapshots,
//! the catalog, the manifests and every live chunk.
//!
//! Nothing is changed. SQLite cannot open a catalog with a write-ahead log
//! without writing beside it, so a copy in the system's temporary directory is
//! opened and removed; a crash leaves that copy behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aquifer_catalog::{Catalog, Check};
use aquifer_env::store::{StoreErrorKind, TierStore, open_store};
use aquifer_env::{DirectoryLock, Disk, tasks};
use aquifer_types::{Batch, Epoch, GroupSequence, Offset, StreamSchema};
use bytes::Bytes;

use crate::Error;
use crate::chunk_meta::ChunkMeta;
use crate::index::{Index, PartitionState, TailEntry, chunk_of_row};
use crate::ledger::document::DocumentKey;
use crate::ledger::event::{AppendEvent, Event, KIND_APPEND, KIND_EVENT, KIND_RELOCATED};
use crate::ledger::hot_state::HotState;
use crate::ledger::recovery::{Places, check_agreement, open_journal};
use crate::ledger::snapshot;
use crate::options::Options;
use crate::store::Environment;
use crate::tier::manifest::{self, Manifest, ManifestKey};

/// Bytes of the catalog that are copied at once.
const COPY_BYTES: u64 = 1 << 20;

/// What [`verify`] reads at the moment, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// What is read: `journal` or `chunks`.
    pub what: &'static str,
    /// How much of it was read.
    pub done: u64,
    /// How much there is.
    pub total: u64,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, or the object of tier 2.
    pub place: String,
    /// The bytes that are damaged, where they are known: from, and up to.
    pub range: Option<(u64, u64)>,
    /// What is wrong.
    pub what: String,
}

/// What was read, and what is wrong with it.
#[derive(Debug, Clone, Default)]
pub struct VerifyReport {
    /// Groups of the journal that are sound.
    pub journal_groups: u64,
    /// Bytes of them.
    pub journal_bytes: u64,
    /// Batches in them whose checksums and offsets were checked.
    pub batches: u64,
    /// Bytes that the next start cuts off the journal's end; nothing of them was
    /// acknowledged.
    pub torn_bytes: u64,
    /// Snapshots of the ledger that are sound.
    pub snapshots: u64,
    /// Manifests that are sound.
    pub manifests: u64,
    /// Chunks that are sound.
    pub chunks: u64,
    /// Bytes of them.
    pub chunk_bytes: u64,
    /// Records in them.
    pub chunk_records: u64,
    /// Search indexes that are sound.
    pub indexes: u64,
    /// Bytes of them.
    pub index_bytes: u64,
    /// What is damaged or missing.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, place: impl Into<String>, what: impl ToString) {
        self.findings.push(Finding { place: place.into(), range: None, what: what.to_string() });
    }
}

/// Told how far it is.
pub type OnProgress = Arc<dyn Fn(VerifyProgress) + Send + Sync>;

/// Checks every byte of the data directory and of the chunks that it names.
/// Damage is no error but a finding.
///
/// # Errors
/// [`Error::Start`] where there is no data directory, or a server uses it; where
/// the disk or tier 2 cannot be read at all.
pub async fn verify(
    options: Options,
    environment: Environment,
    on_progress: OnProgress,
) -> Result<VerifyReport, Error> {
    let start = |error: &dyn std::fmt::Display| Error::Start(error.to_string());
    let data = std::path::absolute(&options.data).map_err(|error| start(&error))?;
    let options = Options { data: data.clone(), ..options };
    environment.disk.list(&data).map_err(|error| {
        Error::Start(format!("there is no data directory {}: {error}", data.display()))
    })?;
    let _lock = DirectoryLock::acquire(&data).map_err(|error| start(&error))?;
    let store = match &environment.tier2 {
        Some(store) => store.clone(),
        None => {
            let url = options.tier2_url();
            let pairs = options.tier2_options.iter().map(|(k, v)| (k.clone(), v.clone()));
            open_store(&url, &pairs.collect::<Vec<_>>())
                .map_err(|error| Error::Start(format!("tier 2 {url}: {error}")))?
        }
    };
    let progress = on_progress.clone();
    let (mut report, chunks) = tasks::run_blocking(move || {
        let mut local = Local { options, environment, report: VerifyReport::default() };
        let chunks = local.check(&progress)?;
        Ok::<_, Error>((local.report, chunks))
    })
    .await?;
    check_chunks(&store, &chunks, &mut report, &on_progress).await?;
    check_manifests(&store, &mut report).await?;
    Ok(report)
}

/// The data directory's own files.
struct Local {
    options: Options,
    environment: Environment,
    report: VerifyReport,
}

impl Local {
    /// Returns the live chunks, as far as they can be told.
    fn check(&mut self, on_progress: &OnProgress) -> Result<Vec<ChunkMeta>, Error> {
        let places = Places::new(&self.options);
        let is_journal_sound = self.check_journal(&places.journal, on_progress)?;
        let has_snapshot = self.check_snapshots(&places.ledger)?;
        let copy = self.copy_catalog(&places.catalog)?;
        let catalog = copy.as_ref().and_then(|copy| self.check_catalog(&places.catalog, copy));
        let mut chunks = Vec::new();
        if let Some(catalog) = &catalog {
            match catalog.load() {
                Ok(rows) => chunks = rows.chunks.into_iter().map(chunk_of_row).collect(),
                Err(error) => self.report.find(places.catalog.display().to_string(), error),
            }
            if is_journal_sound && has_snapshot {
                match self.replay(catalog) {
                    Ok(live) => chunks = live,
                    Err(error) => self.report.find(places.journal.display().to_string(), error),
                }
            }
        }
        drop(catalog);
        for path in copy.iter().flat_map(|copy| with_suffixes(copy)) {
            // A copy that stays does no harm.
            let _ = self.environment.disk.remove(&path);
        }
        Ok(chunks)
    }

    fn check_journal(&mut self, dir: &Path, on_progress: &OnProgress) -> Result<bool, Error> {
        let disk = self.environment.disk.clone();
        let journal = aquifer_journal::verify(disk, dir, |done, total| {
            on_progress(VerifyProgress { what: "journal", done, total });
        })?;
        self.report.journal_groups = journal.groups;
        self.report.journal_bytes = journal.bytes;
        self.report.torn_bytes = journal.torn_tail.as_ref().map_or(0, |torn| torn.bytes);
        for damaged in &journal.damaged {
            self.report.findings.push(Finding {
                place: damaged.path.display().to_string(),
                range: Some((damaged.from, damaged.to)),
                what: damaged.why.clone(),
            });
        }
        Ok(journal.is_sound())
    }

    /// Returns whether a start would have one to go on from, or needs none.
    fn check_snapshots(&mut self, dir: &Path) -> Result<bool, Error> {
        let disk = self.environment.disk.clone();
        let found = match snapshot::list(&*disk, dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            listed => listed.map_err(|error| unreadable(dir, &error))?,
        };
        for (sequence, path) in &found {
            let bytes = read_file(&*disk, path)?;
            let place = path.display().to_string();
            match snapshot::decode(&bytes, &place) {
                Ok((_, named)) if named == *sequence => self.report.snapshots += 1,
                Ok((_, named)) => {
                    self.report.find(place, format!("the snapshot says that it is {named}"));
                }
                Err(Error::Damaged { why, .. }) => self.report.find(place, why),
                Err(error) => self.report.find(place, error),
            }
        }
        Ok(self.report.snapshots > 0 || found.is_empty())
    }

    /// Copies the catalog's files; none if there are none.
    fn copy_catalog(&mut self, path: &Path) -> Result<Option<PathBuf>, Error> {
        let disk = self.environment.disk.clone();
        if disk.open_read(path).is_err() {
            self.report.find(path.display().to_string(), "the catalog is not there");
            return Ok(None);
        }
        let id = aquifer_env::uuid_v4(&*self.environment.random);
        let name = format!("aquifer-verify-{}-{id}.sqlite", std::process::id());
        let copy = std::env::temp_dir().join(name);
        for (from, to) in with_suffixes(path).into_iter().zip(with_suffixes(&copy)).take(2) {
            match copy_file(&*disk, &from, &to) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && from != path => {}
                copied => copied.map_err(|error| unreadable(&from, &error))?,
            }
        }
        Ok(Some(copy))
    }

    fn check_catalog(&mut self, path: &Path, copy: &Path) -> Option<Catalog> {
        let options = aquifer_catalog::Options { create: false, check: None, ..Default::default() };
        let place = path.display().to_string();
        let opened = Catalog::open(copy, options).and_then(|catalog| {
            let findings = catalog.integrity_check(Check::Full)?;
            Ok((catalog, findings))
        });
        match opened {
            Ok((catalog, findings)) => {
                let is_sound = findings.is_empty();
                findings.iter().for_each(|finding| self.report.find(place.clone(), finding));
                is_sound.then_some(catalog)
            }
            Err(error) => {
                // The copy's name would mislead.
                let what = error.to_string().replace(&copy.display().to_string(), &place);
                self.report.find(place, what);
                None
            }
        }
    }

    /// Goes through the journal as a start does, checking every batch; returns
    /// the live chunks.
    fn replay(&mut self, catalog: &Catalog) -> Result<Vec<ChunkMeta>, Error> {
        let (disk, clock) = (&self.environment.disk, &self.environment.clock);
        let places = Places::new(&self.options);
        let found = match disk.list(&places.ledger) {
            Ok(_) => snapshot::read_newest(disk, &places.ledger)?,
            // Stopped before the first start was done.
            Err(_) => return Ok(Vec::new()),
        };
        let mut hot = found.hot;
        let (_, recovered) = open_journal(disk, clock, &self.options, &places, hot.epoch)?;
        let index = Index::new(0, self.options.chunk_grace_ms);
        let rows = catalog.load().map_err(|error| Error::Start(error.to_string()))?;
        index.restore(&hot, rows)?;
        let first = recovered.first_sequence();
        let first = first.min(GroupSequence(recovered.last_sequence().get() + 1));
        let mut batches = 0;
        recovered.for_each_group(first, |group| {
            let is_behind = group.sequence() > found.sequence;
            for frame in group.frames() {
                let at = || format!("journal group {}", group.sequence());
                match frame.kind {
                    KIND_APPEND => {
                        check_batch(frame.meta, frame.payload, &at())?;
                        batches += 1;
                        let event = AppendEvent::decode(frame.meta, frame.payload)?;
                        if is_behind {
                            let _ = hot.apply_append(&event);
                        }
                        add_to_tail(&index, &event, group.file());
                    }
                    KIND_RELOCATED => {
                        check_batch(frame.meta, frame.payload, &at())?;
                        batches += 1;
                        let event = AppendEvent::decode(frame.meta, frame.payload)?;
                        add_to_tail(&index, &event, group.file());
                    }
                    KIND_EVENT => {
                        let event: Event = serde_json::from_slice(frame.meta)
                            .map_err(|error| Error::Damaged { at: at(), why: error.to_string() })?;
                        if is_behind {
                            let _ = hot.apply(&event);
                        }
                        index.publish(&event, &mut Vec::new());
                    }
                    kind => {
                        let what = format!("{}: frame kind {kind} is not known", at());
                        return Err(Error::Unsupported(what));
                    }
                }
            }
            Ok(())
        })?;
        self.report.batches = batches;
        check_agreement(&hot, &index)?;
        Ok(self.check_partitions(&hot, &index))
    }

    fn check_partitions(&mut self, hot: &HotState, index: &Index) -> Vec<ChunkMeta> {
        let mut live = Vec::new();
        for (at, stream, _) in hot.all_partitions() {
            let Some(log) = index.partition(at) else { continue };
            let place = format!("stream {} partition {}", stream.path, at.index);
            let schema = DocumentKey::of_schema(&stream.path.tenant, at.stream);
            let schema = hot.documents.get(&schema);
            let problems = log.with(|state| {
                live.extend(state.chunks.iter().map(|chunk| (**chunk).clone()));
                let mut problems = check_coverage(state);
                problems.extend(check_schema(state, schema.map(|schema| schema.value.as_str())));
                problems
            });
            for problem in problems {
                self.report.find(place.clone(), problem);
            }
        }
        live
    }
}

/// A batch's checksum and every record in it.
fn check_batch(meta: &[u8], payload: &[u8], at: &str) -> Result<(), Error> {
    let damaged = |why: String| Error::Damaged { at: at.to_owned(), why };
    AppendEvent::decode(meta, payload)?;
    Batch::read(Bytes::copy_from_slice(payload)).map_err(|error| damaged(error.to_string()))?;
    Ok(())
}

fn add_to_tail(index: &Index, event: &AppendEvent, file: aquifer_journal::FileId) {
    let Some(log) = index.partition(event.partition) else { return };
    let entry = TailEntry::new(&event.batch, event.appended, file, 0);
    log.restore(|state| {
        let _ = state.find(entry);
    });
}

/// Chunks lie side by side from the start to the tiered offset, batches from
/// there to the end; only where an epoch begins may offsets have been left out.
fn check_coverage(state: &PartitionState) -> Vec<String> {
    let mut problems = Vec::new();
    let mut at = state.chunks.first().map_or(state.tiered, |chunk| chunk.base);
    if state.start < state.tiered && at > state.start {
        problems.push(format!("no chunk covers offsets {} to {at}", state.start));
    }
    let mut epoch = Epoch(0);
    for chunk in state.chunks.iter() {
        if chunk.base != at {
            problems.push(format!("chunk {} begins at {}, not at {at}", chunk.id, chunk.base));
        }
        at = chunk.next;
        epoch = chunk.epochs.last().map_or(epoch, |(epoch, _)| *epoch);
    }
    if at != state.tiered {
        problems.push(format!("the chunks end at {at}, the tiered offset is {}", state.tiered));
    }
    let mut next: Offset = state.tiered;
    for entry in &state.tail {
        let is_begun = entry.epoch > epoch;
        if entry.base > next && !is_begun {
            problems.push(format!("the journal lacks offsets {next} to {}", entry.base));
        }
        if entry.base < next && next != state.tiered {
            problems.push(format!("offset {} was given twice", entry.base));
        }
        next = entry.next;
        epoch = entry.epoch;
    }
    if next > state.end {
        problems.push(format!("batches reach {next}, the end is {}", state.end));
    }
    problems
}

async fn check_chunks(
    store: &TierStore,
    chunks: &[ChunkMeta],
    report: &mut VerifyReport,
    on_progress: &OnProgress,
) -> Result<(), Error> {
    let total = chunks.iter().map(|chunk| chunk.object_bytes).sum();
    let mut done = 0;
    for chunk in chunks {
        let place = chunk.object_path.clone();
        match store.get(&place).await {
            Ok(bytes) => {
                let expected = chunk.clone();
                let problem = tasks::run_blocking(move || check_chunk(&expected, &bytes)).await;
                match problem {
                    None => {
                        report.chunks += 1;
                        report.chunk_bytes += chunk.object_bytes;
                        report.chunk_records += chunk.records;
                    }
                    Some(what) => report.find(place, what),
                }
            }
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                report.find(place, "the object is not there");
            }
            Err(error) => return Err(crate::tier::from_store(error)),
        }
        check_index(store, chunk, report).await?;
        done += chunk.object_bytes;
        on_progress(VerifyProgress { what: "chunks", done, total });
    }
    Ok(())
}

/// Checks the search index beside a chunk, where it has one.
async fn check_index(
    store: &TierStore,
    chunk: &ChunkMeta,
    report: &mut VerifyReport,
) -> Result<(), Error> {
    let Some(place) = chunk.index_path.clone() else { return Ok(()) };
    let bytes = match store.get(&place).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind == StoreErrorKind::NotFound => {
            report.find(place, "the object is not there");
            return Ok(());
        }
        Err(error) => return Err(crate::tier::from_store(error)),
    };
    let length = bytes.len() as u64;
    let object = place.clone();
    let verified = tasks::run_blocking(move || aquifer_chunk::verify_index(object, &bytes)).await;
    match verified {
        Err(error) => report.find(place, error),
        Ok(found) if found.chunk != chunk.id => {
            report.find(place, format!("it is the index of chunk {}", found.chunk));
        }
        Ok(_) if chunk.index_bytes.is_some_and(|written| written != length) => {
            report.find(
                place,
                format!("it has {length} bytes, {:?} were written", chunk.index_bytes),
            );
        }
        Ok(_) => {
            report.indexes += 1;
            report.index_bytes += length;
        }
    }
    Ok(())
}

/// What is wrong between a partition's chunks and its stream's schema.
fn check_schema(state: &PartitionState, schema: Option<&str>) -> Option<String> {
    let newest = state.chunks.iter().map(|chunk| chunk.schema_version).max().unwrap_or(0);
    let schema = match schema.map(StreamSchema::from_json) {
        None => StreamSchema::default(),
        Some(Ok(schema)) => schema,
        Some(Err(error)) => return Some(format!("its schema cannot be read: {error}")),
    };
    (newest > schema.version()).then(|| {
        let version = schema.version();
        format!("a chunk follows version {newest} of the schema, which is at version {version}")
    })
}

/// What is wrong with a chunk.
fn check_chunk(expected: &ChunkMeta, bytes: &Bytes) -> Option<String> {
    let length = bytes.len() as u64;
    if length != expected.object_bytes {
        return Some(format!("it has {length} bytes, {} were written", expected.object_bytes));
    }
    let found = match aquifer_chunk::verify(expected.object_path.as_str(), bytes) {
        Ok(found) => found,
        Err(error) => return Some(error.to_string()),
    };
    let checksum = format!("crc32c:{:08x}", found.checksum);
    if expected.checksum.starts_with("crc32c:") && expected.checksum != checksum {
        return Some(format!("its checksum is {checksum}, expected {}", expected.checksum));
    }
    let said = |spec: &aquifer_chunk::ChunkSpec| {
        (spec.chunk_id, spec.stream_id, spec.partition, spec.base, spec.next)
    };
    let partition = expected.partition;
    let meant = (expected.id, partition.stream, partition.index, expected.base, expected.next);
    if said(&found.spec) != meant {
        return Some(format!("it is {:?}, expected {meant:?}", said(&found.spec)));
    }
    let counted = (found.stats.records, found.stats.raw_bytes);
    if counted != (expected.records, expected.raw_bytes) {
        return Some(format!(
            "it has {} records of {} bytes, expected {} of {}",
            counted.0, counted.1, expected.records, expected.raw_bytes
        ));
    }
    let fields = (found.spec.schema_version, found.stats.unfit);
    if fields != (expected.schema_version, expected.unfit) {
        return Some(format!(
            "it follows version {} of the schema with {:?} unfit records, expected {} with {:?}",
            fields.0, fields.1, expected.schema_version, expected.unfit
        ));
    }
    None
}

async fn check_manifests(store: &TierStore, report: &mut VerifyReport) -> Result<(), Error> {
    let entries = store.list(manifest::FOLDER).await.map_err(crate::tier::from_store)?;
    for key in entries.iter().filter_map(|entry| ManifestKey::of_path(&entry.path)) {
        let bytes = store.get(&key.path()).await.map_err(crate::tier::from_store)?;
        match tasks::run_blocking(move || Manifest::decode(&bytes, key)).await {
            Ok(_) => report.manifests += 1,
            Err(Error::Damaged { why, .. }) => report.find(key.path(), why),
            Err(error) => report.find(key.path(), error),
        }
    }
    Ok(())
}

/// A catalog, its log and the log's index.
fn with_suffixes(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    })
}

fn copy_file(disk: &dyn Disk, from: &Path, to: &Path) -> std::io::Result<()> {
    let source = disk.open_read(from)?;
    let target = disk.create(to)?;
    let length = source.len()?;
    let mut at = 0;
    while at < length {
        let mut piece = vec![0; (length - at).min(COPY_BYTES) as usize];
        source.read_at(&mut piece, at)?;
        target.write_at(&piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

fn read_file(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, Error> {
    let read = || -> std::io::Result<Vec<u8>> {
        let file = disk.open_read(path)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    read().map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Start(format!("cannot read {}: {error}", path.display()))
}

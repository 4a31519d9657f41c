//! Rebuilding a data directory from tier 2 alone.
//!
//! The newest manifest that can be read tells what is there; chunks that were
//! added after it are found by their names and footers; without a manifest the
//! footers are all there is. The data directory gets a catalog and a snapshot of
//! the ledger, from which an ordinary start goes on. Every partition goes on at
//! the ceiling that the manifest reserved, so no offset is given twice; what lay
//! between the last chunk and there is lost, and a gap.
//!
//! Order, and what a crash leaves: a new epoch is claimed (an owner that still
//! runs is fenced), two manifests of the recovered state are written and older
//! ones deleted (repeating the recovery finds them), then the data directory is
//! filled, between the creation and the removal of the file [`MARKER`]: a start
//! refuses a directory that has it, a recovery begins it anew.

mod chain;
mod found;
mod plan;
mod schemas;

use std::path::Path;
use std::sync::Arc;

use aquifer_catalog::{Catalog, Change, GarbageRow, PartitionRow, StreamRow, TombstoneRow};
use aquifer_env::store::{TierStore, open_store};
use aquifer_env::{DirectoryLock, Disk, tasks};
use aquifer_types::{
    Epoch, GroupSequence, Offset, PartitionIndex, ProducerId, StreamPath, Timestamp,
};

use self::found::{Found, delete_manifests};
use crate::Error;
use crate::index::chunk_row;
use crate::ledger::hot_state::{HotChunk, HotPartition, HotState, HotStream};
use crate::ledger::recovery::Places;
use crate::ledger::snapshot;
use crate::ledger::transactions::Transactional;
use crate::options::Options;
use crate::store::Environment;
use crate::tier::manifest::{Manifest, ManifestKey};
use crate::tier::owner::{self, Owner};
use crate::tier::put_once;

/// Exists while a data directory is being rebuilt.
pub(crate) const MARKER: &str = "RECOVERING";
/// Manifests that are written, so that the loss of one leaves another.
const MANIFESTS: u64 = 2;

/// What came back, and what did not.
#[derive(Debug, Clone, Default)]
pub struct RecoverReport {
    /// The epoch of the recovery; the next start has a higher one.
    pub epoch: Epoch,
    /// The manifest that was used; without one, the chunks' footers told all.
    pub manifest: Option<String>,
    /// Streams.
    pub streams: u64,
    /// Their partitions.
    pub partitions: u64,
    /// Their live chunks.
    pub chunks: u64,
    /// The records in them.
    pub records: u64,
    /// Consumer groups.
    pub groups: u64,
    /// Their positions.
    pub group_positions: u64,
    /// Objects that are there, are not used and are not deleted either.
    pub left_alone: u64,
    /// Where each partition ends and goes on.
    pub gaps: Vec<Gap>,
    /// What could not be read or is not known.
    pub warnings: Vec<String>,
}

/// How far a partition came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The stream.
    pub stream: StreamPath,
    /// The partition's number.
    pub partition: PartitionIndex,
    /// The earliest offset that can be read.
    pub start_offset: Offset,
    /// Everything from the start up to here came back.
    pub recovered_offset: Offset,
    /// The end when the manifest was written, where there is one: what lies
    /// between, and an unknown number of later records, was only in the journal
    /// and is lost.
    pub seen_end_offset: Option<Offset>,
    /// The offset that the next record gets.
    pub next_offset: Offset,
}

/// Rebuilds `options.data` from the tier 2 at `url` (or `environment.tier2`,
/// where there is one). `on_progress` is told how many footers of how many were
/// read.
///
/// # Errors
/// [`Error::Start`] where the data directory is not empty or is in use;
/// [`Error::Tier2`], [`Error::Fenced`]; [`Error::Unsupported`] where a newer
/// version wrote the newest manifest. It can be repeated.
pub async fn recover_from(
    url: &str,
    options: Options,
    environment: Environment,
    on_progress: impl FnMut(u64, u64),
) -> Result<RecoverReport, Error> {
    options.validate()?;
    let start = |error: &dyn std::fmt::Display| Error::Start(error.to_string());
    let data = std::path::absolute(&options.data).map_err(|error| start(&error))?;
    let options = Options { data: data.clone(), ..options };
    let store = match &environment.tier2 {
        Some(store) => store.clone(),
        None => {
            let pairs = options.tier2_options.iter().map(|(k, v)| (k.clone(), v.clone()));
            open_store(url, &pairs.collect::<Vec<_>>())
                .map_err(|error| Error::Start(format!("tier 2 {url}: {error}")))?
        }
    };
    let disk = environment.disk.clone();
    disk.create_dir_all(&data).map_err(|error| start(&error))?;
    let _lock = DirectoryLock::acquire(&data).map_err(|error| start(&error))?;
    check_empty(&*disk, &options)?;

    let mut epoch = claim(&store, &environment, Epoch(0)).await?;
    let mut found = Found::read(&store).await?;
    if found.manifest.is_none() && found.objects.is_empty() {
        return Err(Error::Start(format!("{store} holds neither a manifest nor chunks")));
    }
    let others = found.read_others(&store, on_progress).await?;
    let now = Timestamp(environment.clock.now_ms());
    let due = Timestamp(now.get().saturating_add_unsigned(options.chunk_grace_ms));
    let keys = found.keys.clone();
    let ahead = options.manifest_offsets_ahead;
    let (mut manifest, mut report) = plan::plan(&mut found, others, ahead, now, due);
    report.warnings.append(&mut schemas::restore(&store, &mut manifest).await?);
    let newest = newest_epoch(&manifest, &keys);
    if newest >= epoch {
        epoch = claim(&store, &environment, newest).await?;
    }
    report.epoch = epoch;
    set_epoch(&mut manifest, epoch);
    let manifest = Arc::new(manifest);
    for sequence in 1..=MANIFESTS {
        let key = ManifestKey { epoch, sequence };
        let encoding = manifest.clone();
        let bytes = tasks::run_blocking(move || encoding.encode(key)).await?;
        put_once(&store, &key.path(), bytes).await?;
    }
    delete_manifests(&store, &keys, ManifestKey { epoch, sequence: 1 }).await?;
    tasks::run_blocking(move || fill(&*disk, &options, &manifest, epoch)).await?;
    Ok(report)
}

/// Claims an epoch above every claimed one and above `known`.
async fn claim(store: &TierStore, environment: &Environment, known: Epoch) -> Result<Epoch, Error> {
    let newest = owner::claimed(store).await?.last().copied().unwrap_or_default();
    let keys = store.list(crate::tier::manifest::FOLDER).await.map_err(crate::tier::from_store)?;
    let written = keys.iter().filter_map(|entry| ManifestKey::of_path(&entry.path));
    let written = written.map(|key| key.epoch).max().unwrap_or_default();
    let epoch = Epoch(newest.max(written).max(known).get().saturating_add(1));
    Owner::new(store.clone(), environment.clone(), epoch).claim().await?;
    Ok(epoch)
}

fn newest_epoch(manifest: &Manifest, keys: &[ManifestKey]) -> Epoch {
    let entries = || manifest.streams.iter().flat_map(|stream| &stream.partitions);
    let chunks = entries().flat_map(|entry| &entry.chunks);
    let of_chunks = chunks.flat_map(|chunk| chunk.epochs.iter().map(|(epoch, _)| *epoch)).max();
    let of_streams = entries().map(|entry| entry.epoch).max();
    let of_manifests = keys.last().map(|key| key.epoch);
    of_chunks.max(of_streams).max(of_manifests).unwrap_or_default()
}

/// Producer ids that are given between two recoveries at the most.
const PRODUCERS_AN_EPOCH: u32 = u32::BITS;

fn set_epoch(manifest: &mut Manifest, epoch: Epoch) {
    // Later ones than the manifest knows may have been given.
    let unused = ProducerId(i64::from(epoch.get()) << PRODUCERS_AN_EPOCH);
    manifest.next_producer = manifest.next_producer.max(unused);
    for stream in &mut manifest.streams {
        for entry in &mut stream.partitions {
            entry.epoch = epoch;
        }
    }
}

/// Refuses a data directory that holds anything that a recovery did not leave.
fn check_empty(disk: &dyn Disk, options: &Options) -> Result<(), Error> {
    let places = Places::new(options);
    let data = &options.data;
    let unreadable =
        |error: std::io::Error| Error::Start(format!("cannot read {}: {error}", data.display()));
    let marker = data.join(MARKER);
    let files = disk.list(data).map_err(unreadable)?;
    let is_repeated = files.contains(&marker);
    let is_catalog = |path: &Path| {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let catalog = name(&places.catalog).unwrap_or_default();
        name(path).is_some_and(|name| name.starts_with(&catalog))
    };
    let mut found = files.iter().find(|path| {
        let is_own = is_repeated && (**path == marker || is_catalog(path));
        !is_own && path.file_name().is_none_or(|name| name != "LOCK")
    });
    let mut inside = Vec::new();
    for dir in [&places.journal, &places.ledger] {
        inside.extend(disk.list(dir).unwrap_or_default());
    }
    if !is_repeated {
        found = found.or(inside.first());
    }
    if let Some(found) = found {
        return Err(Error::Start(format!(
            "{} is not empty ({} is there): recover into an empty data directory",
            data.display(),
            found.display()
        )));
    }
    Ok(())
}

/// Fills the data directory.
fn fill(
    disk: &dyn Disk,
    options: &Options,
    manifest: &Manifest,
    epoch: Epoch,
) -> Result<(), Error> {
    let places = Places::new(options);
    let data = &options.data;
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull => Error::StorageFull(error.to_string()),
        _ => Error::NotWritten(format!("{}: {error}", data.display())),
    };
    let marker = data.join(MARKER);
    match disk.create(&marker) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(failed(error));
        }
        _ => disk.sync_dir(data).map_err(failed)?,
    }
    // What an interrupted recovery left.
    let mut stale = disk.list(&places.journal).unwrap_or_default();
    stale.extend(disk.list(&places.ledger).unwrap_or_default());
    let catalog_name = places.catalog.to_string_lossy().into_owned();
    let in_data = disk.list(data).map_err(failed)?;
    stale.extend(in_data.into_iter().filter(|p| p.to_string_lossy().starts_with(&catalog_name)));
    for path in stale {
        disk.remove(&path).map_err(failed)?;
    }
    let unwritten = |error: aquifer_catalog::Error| Error::NotWritten(error.to_string());
    let mut catalog =
        Catalog::open(&places.catalog, aquifer_catalog::Options::default()).map_err(unwritten)?;
    catalog.apply(0, &rows_of(manifest, epoch)).map_err(unwritten)?;
    catalog.checkpoint().map_err(unwritten)?;
    catalog.close().map_err(unwritten)?;
    disk.create_dir_all(&places.ledger).map_err(failed)?;
    snapshot::write(disk, &places.ledger, &hot_of(manifest, epoch), GroupSequence(0))?;
    disk.remove(&marker).map_err(failed)?;
    disk.sync_dir(data).map_err(failed)
}

/// Where partitions begin that are added to a recovered stream. One of the same
/// number may have been added, and given offsets, after the last manifest, and
/// be lost with the machine. No epoch comes twice, and no partition is given
/// 2^40 offsets before a manifest knows it, so nothing is given twice.
fn new_partitions_from(epoch: Epoch) -> Offset {
    Offset::ZERO.plus(u64::from(epoch.get()) << 40)
}

/// The state of the ledger that a manifest describes.
fn hot_of(manifest: &Manifest, epoch: Epoch) -> HotState {
    let mut hot = HotState { epoch, ..HotState::default() };
    for stream in &manifest.streams {
        let partitions = stream.partitions.iter().map(|entry| {
            let mut partition = HotPartition {
                start: entry.start,
                tiered: entry.tiered,
                end: entry.end,
                ceiling: Some(entry.ceiling),
                ..HotPartition::default()
            };
            for chunk in &entry.chunks {
                let kept = HotChunk { id: chunk.id, next: chunk.next };
                partition.chunks.insert(chunk.base, kept);
            }
            for (id, producer) in &entry.producers {
                partition.producers.restore(*id, producer.clone());
            }
            partition
        });
        hot.names.insert(stream.path.clone(), stream.id);
        hot.partitions += stream.partitions.len() as u64;
        let kept = HotStream {
            path: stream.path.clone(),
            class: stream.class,
            config: stream.config.clone(),
            created: stream.created,
            epoch,
            partitions: partitions.collect(),
            partitions_from: new_partitions_from(epoch),
        };
        hot.streams.insert(stream.id, kept);
    }
    for group in &manifest.groups {
        let positions = group.positions.iter().cloned().collect();
        hot.groups.insert((group.tenant.clone(), group.group.clone()), positions);
    }
    for entry in &manifest.answers {
        let _ = hot.answers.keep(&entry.tenant, &entry.key, entry.answer.clone());
    }
    for (key, document) in &manifest.documents {
        let _ = hot.documents.put(key, document.clone());
    }
    hot.documents.raise_version(manifest.documents_version);
    hot.transactions.next_producer = manifest.next_producer;
    for entry in &manifest.transactional {
        let key = (entry.tenant.clone(), entry.id.clone());
        let kept = Transactional {
            producer: entry.producer,
            epoch: entry.epoch,
            previous: None,
            timeout_ms: entry.timeout_ms,
            last_used: entry.last_used,
            ended: None,
            open: None,
        };
        let _ = hot.transactions.put(&key, Some(kept));
    }
    hot.count_positions();
    hot
}

/// The rows of the catalog that a manifest describes.
fn rows_of(manifest: &Manifest, epoch: Epoch) -> Vec<Change> {
    let mut rows = Vec::new();
    for stream in &manifest.streams {
        rows.push(Change::PutStream(StreamRow {
            stream_id: stream.id.0,
            tenant: stream.path.tenant.to_string(),
            name: stream.path.name.to_string(),
            partitions: stream.partitions.len() as i32,
            class: stream.class.name().into(),
            config_json: serde_json::to_string(&stream.config).unwrap_or_default(),
            created_ms: stream.created.get(),
            epoch: epoch.get().into(),
        }));
        for entry in &stream.partitions {
            rows.push(Change::PutPartition(PartitionRow {
                stream_id: stream.id.0,
                partition: entry.partition.get() as i32,
                start_offset: entry.start.get(),
                tiered_offset: entry.tiered.get(),
                epoch: 0,
            }));
            rows.extend(entry.chunks.iter().map(chunk_row));
        }
    }
    rows.extend(manifest.garbage.iter().map(|entry| {
        Change::AddGarbage(GarbageRow {
            object_path: entry.object_path.clone(),
            reason: aquifer_catalog::garbage_reason::ABANDONED.into(),
            since_ms: entry.since.get(),
            due_ms: entry.due.get(),
        })
    }));
    rows.extend(manifest.tombstones.iter().map(|tombstone| {
        Change::PutTombstone(TombstoneRow {
            stream_id: tombstone.id.0,
            tenant: tombstone.path.tenant.to_string(),
            name: tombstone.path.name.to_string(),
            deleted_ms: tombstone.at.get(),
        })
    }));
    rows
}

//! Starting: from the newest whole snapshot, the catalog and the journal to the
//! state in which the last run stopped.
//!
//! The snapshot holds the hot state through group S, the catalog the cold
//! metadata through group C. Every group that the journal still has is read:
//! its batches above the tiered offset make the index of the tail, its facts
//! behind S go into the hot state, those behind C into the catalog. All facts
//! go into the index, which converges (see [`crate::index`]). Reading changes
//! nothing on disk; a start that is refused leaves everything as it was.

use std::path::PathBuf;
use std::sync::Arc;

use aquifer_catalog::{Catalog, Change, Snapshot, garbage_reason};
use aquifer_env::{Clock, Disk};
use aquifer_journal::{Durability, FileId, Group, GroupBuilder, Journal, Recovered};
use aquifer_types::{
    Epoch, GroupSequence, Partition, PartitionIndex, StreamClass, StreamId, StreamName, StreamPath,
    TenantName, Timestamp,
};

use super::event::{AppendEvent, Event, KIND_APPEND, KIND_EVENT, KIND_RELOCATED};
use super::hot_state::HotState;
use super::snapshot;
use crate::Error;
use crate::index::{Garbage, Groups, Index, TailEntry, Tombstone, chunk_of_row};
use crate::options::Options;

/// The part of the journal's limit that is kept in released files, and how many
/// those are at most.
const RECYCLED_PART: u64 = 4;
const RECYCLED_FILES_MAX: usize = 32;

/// Where things lie in the data directory.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) journal: PathBuf,
    pub(crate) ledger: PathBuf,
    pub(crate) catalog: PathBuf,
}

impl Places {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            journal: options.data.join("journal"),
            ledger: options.data.join("ledger"),
            catalog: options.data.join("catalog.sqlite"),
        }
    }
}

/// A ledger that was brought up to date and may begin to serve.
pub(crate) struct Recovery {
    pub(crate) hot: HotState,
    pub(crate) index: Arc<Index>,
    pub(crate) journal: Journal,
    pub(crate) catalog: Catalog,
    /// Everything through it is in the snapshot that the next start needs.
    pub(crate) snapshot_oldest: GroupSequence,
    /// The first group that each journal file holds.
    pub(crate) first_sequences: Vec<(FileId, GroupSequence)>,
    /// The last group.
    pub(crate) last_sequence: GroupSequence,
    /// Everything through it is in the catalog.
    pub(crate) catalog_position: GroupSequence,
    pub(crate) report: RecoveryReport,
}

/// What a start found, for the log.
#[derive(Debug, Clone, Default)]
pub struct RecoveryReport {
    /// The epoch that began.
    pub epoch: Epoch,
    /// Groups read from the journal.
    pub groups: u64,
    /// Batches that are only in the journal.
    pub batches: u64,
    /// Bytes cut off behind the last whole group; nothing acknowledged.
    pub torn_bytes: u64,
    /// Whether the last run shut down in order.
    pub was_clean: bool,
}

/// Brings the state back. `catalog` is given so that a test can bring its own.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    options: &Options,
    mut catalog: Catalog,
) -> Result<Recovery, Error> {
    let places = Places::new(options);
    let start = |error: &dyn std::fmt::Display| Error::Start(error.to_string());
    disk.create_dir_all(&places.ledger).map_err(|error| start(&error))?;
    let found = snapshot::read_newest(disk, &places.ledger)?;
    for (_, error) in &found.damaged {
        tracing::warn!(%error, "a snapshot is damaged, an older one is used");
    }
    let (mut journal, recovered) = open_journal(disk, clock, options, &places, found.hot.epoch)?;
    let mut journal_first = recovered.first_sequence();
    let applied = GroupSequence(catalog.applied_position().map_err(|e| start(&e))?.unwrap_or(0));
    if journal_first > recovered.last_sequence() {
        journal_first = GroupSequence(recovered.last_sequence().get() + 1);
    }
    check_reach(&recovered, journal_first, found.sequence, applied)?;

    let index = Arc::new(Index::new(options.tail_cache_bytes_max, options.chunk_grace_ms));
    let rows = catalog.load().map_err(|error| start(&error))?;
    let mut hot = found.hot;
    index.restore(&hot, rows)?;
    let mut replay = Replay {
        hot: &mut hot,
        index: &index,
        catalog: &mut catalog,
        snapshot: found.sequence,
        applied,
        durable: journal.0.synced_through(),
        pending: Vec::new(),
        report: RecoveryReport {
            was_clean: recovered.is_clean_shutdown(),
            torn_bytes: recovered.torn_tail().map_or(0, |torn| torn.bytes),
            ..RecoveryReport::default()
        },
    };
    recovered.for_each_group(journal_first, |group| replay.group(&group))?;
    let Replay { applied, pending, mut report, .. } = replay;
    // Older commits of positions were replayed over the snapshot's.
    *index.groups.write() = Groups(hot.groups.clone());
    *index.documents.write() = hot.documents.clone();
    // So were older ends of transactions.
    for (at, _, partition) in hot.all_partitions() {
        if let Some(log) = index.partition(at) {
            log.restore(|state| state.transactions = partition.transactions.clone());
        }
    }
    // Streams may have raised it above that of any start.
    let epoch = journal.1.max(hot.epoch.next());
    journal.0.set_epoch(epoch).map_err(from_journal)?;
    report.epoch = epoch;
    hot.begin(epoch);
    index.all_streams().iter().for_each(|stream| stream.set_epoch(epoch));
    check_agreement(&hot, &index)?;
    let first_sequences =
        recovered.files().iter().map(|file| (file.file, file.first_sequence)).collect();
    // The last groups may be in the page cache only. The catalog must not know
    // what a power cut can still take away, so they are made durable first.
    journal.0.start().map_err(from_journal)?;
    let mut last_sequence = recovered.last_sequence();
    let catalog_position = last_sequence;
    if last_sequence > applied {
        catalog.apply(last_sequence.get(), &pending).map_err(|error| start(&error))?;
    }
    if report.was_clean {
        forget_reserved(&mut hot);
    }
    if !report.was_clean
        && let Some(skipped) = skip_relaxed(&mut hot, &index, &mut journal.0)?
    {
        last_sequence = skipped;
    }
    snapshot::remove_damaged(&**disk, &found.damaged);
    Ok(Recovery {
        hot,
        index,
        journal: journal.0,
        catalog,
        snapshot_oldest: found.oldest,
        first_sequences,
        last_sequence,
        catalog_position,
        report,
    })
}

/// Opens the journal under an epoch above every earlier one.
pub(crate) fn open_journal(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    options: &Options,
    places: &Places,
    known: Epoch,
) -> Result<((Journal, Epoch), Recovered), Error> {
    let journal_options = aquifer_journal::Options {
        file_bytes: options.journal_file_bytes,
        group_bytes_max: (options.commit_bytes_max + options.group_bytes_max) as u64 + (1 << 20),
        // What truncation and tiering commit on a full disk needs a file to go to.
        disk_reserve_bytes: match options.disk_reserve_bytes {
            0 => 0,
            bytes => bytes + options.journal_file_bytes,
        },
        recycled_files_max: recycled_files_max(options),
        clock: clock.clone(),
        ..aquifer_journal::Options::default()
    };
    let open = |epoch| Journal::open(disk.clone(), &places.journal, journal_options.clone(), epoch);
    // Opening changes nothing: an epoch below all others asks for the highest.
    let found = match open(Epoch(0)) {
        Ok(_) => Epoch(0),
        Err(aquifer_journal::Error::Fenced { found, .. }) => found,
        Err(error) => return Err(from_journal(error)),
    };
    let epoch = Epoch(found.max(known).get() + 1);
    let (journal, recovered) = open(epoch).map_err(from_journal)?;
    Ok(((journal, epoch), recovered))
}

/// Released files that are kept for their next use: files are released in
/// bursts, and what a burst lacks must be written anew in the time of appends.
fn recycled_files_max(options: &Options) -> usize {
    let files = options.journal_bytes_max / RECYCLED_PART / options.journal_file_bytes.max(1);
    usize::try_from(files).unwrap_or(usize::MAX).min(RECYCLED_FILES_MAX)
}

/// Refuses a journal that does not reach from the snapshot and the catalog on,
/// or ends before them.
fn check_reach(
    recovered: &Recovered,
    first: GroupSequence,
    snapshot: GroupSequence,
    applied: GroupSequence,
) -> Result<(), Error> {
    let last = recovered.last_sequence();
    let needed = GroupSequence(snapshot.min(applied).get() + 1);
    if first > needed && last >= needed {
        return Err(Error::Start(format!(
            "the journal begins at group {first}, but the snapshot ends at {snapshot} and the catalog at {applied}: journal files or a snapshot are missing"
        )));
    }
    if last < snapshot || last < applied {
        return Err(Error::Start(format!(
            "the journal ends at group {last}, but the snapshot ends at {snapshot} and the catalog at {applied}: journal files are missing"
        )));
    }
    Ok(())
}

/// INV-01: what decisions are made on and what readers see agree.
pub(crate) fn check_agreement(hot: &HotState, index: &Index) -> Result<(), Error> {
    for (at, stream, partition) in hot.all_partitions() {
        let Some(log) = index.partition(at) else {
            return Err(Error::Internal(format!("INV-01: {} {at} is not published", stream.path)));
        };
        let seen = log.with(|state| (state.start, state.tiered, state.end));
        if seen != (partition.start, partition.tiered, partition.end) {
            return Err(Error::Internal(format!(
                "INV-01: {} {at}: decided {:?}, published {seen:?}",
                stream.path,
                (partition.start, partition.tiered, partition.end)
            )));
        }
    }
    Ok(())
}

/// After an unclean stop relaxed partitions go on where they had reserved, so
/// that no offset that was acknowledged and lost is given again.
fn skip_relaxed(
    hot: &mut HotState,
    index: &Index,
    journal: &mut Journal,
) -> Result<Option<GroupSequence>, Error> {
    let skipped: Vec<Event> = hot
        .all_partitions()
        .filter(|(_, stream, partition)| {
            stream.class == StreamClass::Relaxed && partition.reserved > partition.end
        })
        .map(|(at, _, partition)| Event::OffsetsSkipped { partition: at, end: partition.reserved })
        .collect();
    if skipped.is_empty() {
        return Ok(None);
    }
    let mut group = GroupBuilder::new(4096);
    for event in &skipped {
        let meta = serde_json::to_vec(event).map_err(|e| Error::Internal(e.to_string()))?;
        group.push(KIND_EVENT, &meta, &[]).map_err(from_journal)?;
    }
    let written = journal.write(&mut group, Durability::Sync).map_err(from_journal)?;
    journal.sync().map_err(from_journal)?;
    for event in &skipped {
        let _ = hot.apply(event);
        index.publish(event, &mut Vec::new());
    }
    Ok(Some(written.sequence))
}

/// After a clean stop nothing hangs on what relaxed partitions had reserved.
/// They reserve anew, durably, before they append: if that were lost, the
/// journal would still end in the mark of the clean stop.
fn forget_reserved(hot: &mut HotState) {
    for stream in hot.streams.values_mut() {
        for partition in &mut stream.partitions {
            partition.reserved = partition.reserved.min(partition.end);
        }
    }
}

struct Replay<'a> {
    hot: &'a mut HotState,
    index: &'a Index,
    catalog: &'a mut Catalog,
    snapshot: GroupSequence,
    applied: GroupSequence,
    /// Groups through it are proved durable.
    durable: GroupSequence,
    pending: Vec<Change>,
    report: RecoveryReport,
}

/// Changes that are applied to the catalog in one transaction while replaying.
const REPLAY_CHANGES_MAX: usize = 10_000;

impl Replay<'_> {
    fn group(&mut self, group: &Group<'_>) -> Result<(), Error> {
        self.report.groups += 1;
        let sequence = group.sequence();
        for frame in group.frames() {
            let at = || format!("journal group {sequence}");
            match frame.kind {
                KIND_APPEND => {
                    let event = AppendEvent::decode(frame.meta, frame.payload)?;
                    if sequence > self.snapshot {
                        let _ = self.hot.apply_append(&event);
                    }
                    let place = group.position() + u64::from(frame.payload_offset_in_group);
                    self.tail(&event, group.file(), place);
                }
                // Its first place is in a file that may be gone, or comes before.
                KIND_RELOCATED => {
                    let event = AppendEvent::decode(frame.meta, frame.payload)?;
                    let place = group.position() + u64::from(frame.payload_offset_in_group);
                    self.tail(&event, group.file(), place);
                }
                KIND_EVENT => {
                    // Its bytes are proved by the group's checksum.
                    let event: Event = serde_json::from_slice(frame.meta).map_err(|error| {
                        Error::Unsupported(format!(
                            "{}: an event is not known, a newer version wrote this journal: {error}",
                            at()
                        ))
                    })?;
                    if sequence > self.snapshot {
                        let _ = self.hot.apply(&event);
                    }
                    let mut changes = Vec::new();
                    self.index.publish(&event, &mut changes);
                    if sequence > self.applied {
                        self.pending.append(&mut changes);
                    }
                }
                kind => {
                    return Err(Error::Unsupported(format!(
                        "{}: frame kind {kind} is not known; a newer version wrote this journal",
                        at()
                    )));
                }
            }
        }
        if self.pending.len() >= REPLAY_CHANGES_MAX && sequence <= self.durable {
            self.flush(sequence)?;
        }
        Ok(())
    }

    fn tail(&mut self, event: &AppendEvent, file: FileId, place: u64) {
        let Some(log) = self.index.partition(event.partition) else { return };
        let entry = TailEntry::new(&event.batch, event.appended, file, place);
        let mut found = (false, None);
        log.restore(|state| found = state.find(entry));
        if let (true, before) = found {
            self.report.batches += u64::from(before.is_none());
            self.index.files.add(file, 1);
            self.index.files.remove(before);
        }
    }

    fn flush(&mut self, through: GroupSequence) -> Result<(), Error> {
        if through > self.applied {
            self.catalog
                .apply(through.get(), &self.pending)
                .map_err(|error| Error::Start(error.to_string()))?;
            self.applied = through;
        }
        self.pending.clear();
        Ok(())
    }
}

impl Index {
    /// Fills the index from the snapshot's state and the catalog's rows.
    pub(crate) fn restore(&self, hot: &HotState, rows: Snapshot) -> Result<(), Error> {
        let unreadable =
            |error: &dyn std::fmt::Display| Error::Start(format!("the catalog: {error}"));
        let mut ignored = Vec::new();
        for row in &rows.streams {
            let path = StreamPath::new(
                TenantName::new(&row.tenant).map_err(|e| unreadable(&e))?,
                StreamName::new(&row.name).map_err(|e| unreadable(&e))?,
            );
            let event = Event::StreamCreated {
                id: StreamId(row.stream_id),
                path,
                partitions: row.partitions as u32,
                class: row.class.parse().map_err(|e| unreadable(&e))?,
                config: serde_json::from_str(&row.config_json).map_err(|e| unreadable(&e))?,
                created: Timestamp(row.created_ms),
                epoch: Epoch(0),
            };
            self.publish(&event, &mut ignored);
        }
        for (id, stream) in &hot.streams {
            let created = Event::StreamCreated {
                id: *id,
                path: stream.path.clone(),
                partitions: stream.partitions.len() as u32,
                class: stream.class,
                config: stream.config.clone(),
                created: stream.created,
                epoch: Epoch(0),
            };
            let count = stream.partitions.len() as u32;
            let from = stream.partitions_from;
            let grown = Event::PartitionsAdded { id: *id, partitions: count, from };
            let altered = Event::StreamAltered { id: *id, config: stream.config.clone() };
            for event in [created, grown, altered] {
                self.publish(&event, &mut ignored);
            }
        }
        for (at, _, partition) in hot.all_partitions() {
            if let Some(log) = self.partition(at) {
                log.restore(|state| {
                    state.start = partition.start;
                    state.tiered = partition.tiered;
                    state.end = partition.end;
                });
            }
        }
        *self.documents.write() = hot.documents.clone();
        for ((tenant, group), positions) in &hot.groups {
            let positions: Vec<_> = positions.iter().map(|(at, p)| (*at, p.clone())).collect();
            self.groups.write().commit(tenant, group, &positions);
        }
        let mut chunks: std::collections::HashMap<Partition, Vec<Arc<crate::ChunkMeta>>> =
            std::collections::HashMap::new();
        for row in rows.chunks {
            let chunk = chunk_of_row(row);
            chunks.entry(chunk.partition).or_default().push(Arc::new(chunk));
        }
        for (at, mut list) in chunks {
            list.sort_by_key(|chunk| chunk.base);
            if let Some(log) = self.partition(at) {
                log.restore(|state| {
                    let next = list.last().map_or(state.tiered, |chunk| chunk.next);
                    state.tiered = state.tiered.max(next);
                    state.end = state.end.max(next);
                    state.set_chunks(list);
                });
            }
        }
        for row in &rows.partitions {
            let at = Partition::new(StreamId(row.stream_id), PartitionIndex(row.partition as u32));
            // Chunks below the start stay: if the catalog has them, their
            // truncation comes in the replay, and makes garbage of them.
            if let Some(log) = self.partition(at) {
                log.restore(|state| {
                    state.start = state.start.max(aquifer_types::Offset(row.start_offset));
                    state.tiered = state.tiered.max(state.start);
                    state.end = state.end.max(state.start);
                });
            }
        }
        let mut garbage = self.garbage.lock();
        for row in rows.garbage {
            let kept = Garbage {
                since: Timestamp(row.since_ms),
                due: Timestamp(row.due_ms),
                reason: garbage_reason::known(&row.reason),
                counted_ns: None,
            };
            garbage.insert(row.object_path, kept);
        }
        drop(garbage);
        let mut tombstones = self.tombstones.lock();
        for row in rows.tombstones {
            let (Ok(tenant), Ok(name)) = (TenantName::new(&row.tenant), StreamName::new(&row.name))
            else {
                continue;
            };
            let id = StreamId(row.stream_id);
            let path = StreamPath::new(tenant, name);
            tombstones.insert(id, Tombstone { id, path, at: Timestamp(row.deleted_ms) });
        }
        Ok(())
    }
}

/// The journal's errors as the store says them.
pub(crate) fn from_journal(error: aquifer_journal::Error) -> Error {
    use aquifer_types::ErrorKind;
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    match error.kind() {
        ErrorKind::StorageFull => Error::StorageFull(text),
        ErrorKind::Damaged => Error::Damaged { at: "the journal".into(), why: text },
        ErrorKind::Indefinite => Error::Indefinite(text),
        ErrorKind::Unsupported => Error::Unsupported(text),
        _ if error.is_definite() => Error::NotWritten(text),
        _ => Error::Indefinite(text),
    }
}

impl From<aquifer_journal::Error> for Error {
    fn from(error: aquifer_journal::Error) -> Self {
        from_journal(error)
    }
}

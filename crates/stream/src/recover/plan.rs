//! What the recovered store will be: a manifest of it, made from what was found.
//! No I/O.

use std::collections::{BTreeMap, HashMap, HashSet};

use aquifer_types::{
    Epoch, Offset, Partition, PartitionIndex, ProducerEpoch, StreamClass, StreamConfig, StreamId,
    StreamPath, Timestamp,
};

use super::chain::{Chain, Known, choose};
use super::found::Found;
use super::{Gap, RecoverReport};
use crate::chunk_meta::ChunkMeta;
use crate::tier::manifest::{GarbageEntry, Manifest, PartitionEntry, StreamEntry};

/// Where no manifest says how far offsets were given, the recovered partition
/// goes on so far ahead: more than a journal can have held.
const OFFSETS_UNKNOWN: u64 = 1 << 40;

/// Makes the plan. `epoch` is that of the recovery.
pub(super) fn plan(
    found: &mut Found,
    mut others: HashMap<Partition, Vec<ChunkMeta>>,
    ahead: u64,
    now: Timestamp,
    due: Timestamp,
) -> (Manifest, RecoverReport) {
    let mut report = RecoverReport {
        manifest: found.manifest.as_ref().map(|(key, _)| key.path()),
        ..RecoverReport::default()
    };
    let known = found.manifest.take().map(|(_, manifest)| manifest);
    let has_manifest = known.is_some();
    let mut manifest = known.unwrap_or_else(|| Manifest::empty(now));
    if !has_manifest {
        report.warnings.push(
            "there is no manifest that can be read: streams are taken from their chunks alone; \
             configurations, empty streams, starts, deletions and group positions are unknown"
                .into(),
        );
    }
    manifest.written = now;
    for stream in &mut manifest.streams {
        add_unknown_partitions(stream, &others);
        for entry in &mut stream.partitions {
            let at = Partition::new(stream.id, entry.partition);
            let more = others.remove(&at).unwrap_or_default();
            recover_partition(&stream.path, entry, more, found, ahead, &mut report);
        }
    }
    add_unknown_streams(&mut manifest, others, found, has_manifest, ahead, now, &mut report);
    forget_what_is_lost(&mut manifest);
    fence_producers(&mut manifest);
    collect_garbage(&mut manifest, found, has_manifest, now, due, &mut report);
    report.warnings.append(&mut found.warnings);
    report.streams = manifest.streams.len() as u64;
    report.groups = manifest.groups.len() as u64;
    report.group_positions = manifest.groups.iter().map(|g| g.positions.len() as u64).sum();
    (manifest, report)
}

/// Partitions that were added after the manifest was written.
fn add_unknown_partitions(stream: &mut StreamEntry, others: &HashMap<Partition, Vec<ChunkMeta>>) {
    let highest = others.keys().filter(|at| at.stream == stream.id).map(|at| at.index).max();
    while let Some(highest) = highest
        && (stream.partitions.len() as u64) <= u64::from(highest.get())
    {
        let partition = PartitionIndex(stream.partitions.len() as u32);
        stream.partitions.push(unknown_partition(partition));
    }
}

fn unknown_partition(partition: PartitionIndex) -> PartitionEntry {
    PartitionEntry {
        partition,
        epoch: Epoch(0),
        start: Offset::ZERO,
        tiered: Offset::ZERO,
        end: Offset::ZERO,
        ceiling: Offset::ZERO,
        chunks: Vec::new(),
        producers: Vec::new(),
    }
}

/// Sets what a partition has and where it goes on.
fn recover_partition(
    path: &StreamPath,
    entry: &mut PartitionEntry,
    more: Vec<ChunkMeta>,
    found: &Found,
    ahead: u64,
    report: &mut RecoverReport,
) {
    let is_known = entry.ceiling > Offset::ZERO;
    let listed = std::mem::take(&mut entry.chunks);
    let known = is_known.then(|| Known {
        from: listed.first().map_or(entry.tiered, |chunk| chunk.base),
        through: entry.tiered,
    });
    let (live, gone): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|chunk| found.objects.contains_key(&chunk.object_path));
    for chunk in gone {
        report.warnings.push(format!("{} is not there any more", chunk.object_path));
    }
    let Chain { mut chunks, missing } = choose(live, more, known);
    for (from, to) in missing.iter().filter(|(_, to)| *to > entry.start) {
        report.warnings.push(format!(
            "{path} partition {}: the chunks of offsets {from} to {to} are lost",
            entry.partition
        ));
    }
    if !is_known {
        entry.start = chunks.first().map_or(Offset::ZERO, |chunk| chunk.base);
    }
    chunks.retain(|chunk| chunk.next > entry.start);
    for chunk in &mut chunks {
        // One that is lost is built anew.
        if chunk.index_path.as_ref().is_some_and(|path| !found.indexes.contains_key(path)) {
            (chunk.index_path, chunk.index_bytes) = (None, None);
        }
    }
    let tiered = chunks.last().map_or(entry.start, |chunk| chunk.next).max(entry.start);
    let seen_end = is_known.then_some(entry.end);
    let end = if is_known { entry.ceiling } else { tiered.plus(OFFSETS_UNKNOWN) };
    report.partitions += 1;
    report.chunks += chunks.len() as u64;
    report.records += chunks.iter().map(|chunk| chunk.records).sum::<u64>();
    report.gaps.push(Gap {
        stream: path.clone(),
        partition: entry.partition,
        start_offset: entry.start,
        recovered_offset: tiered,
        seen_end_offset: seen_end,
        next_offset: end.max(tiered),
    });
    entry.tiered = tiered;
    entry.end = end.max(tiered);
    entry.ceiling = entry.end.plus(ahead);
    entry.chunks = chunks;
}

/// Streams that the manifest does not know, from their chunks.
fn add_unknown_streams(
    manifest: &mut Manifest,
    others: HashMap<Partition, Vec<ChunkMeta>>,
    found: &Found,
    has_manifest: bool,
    ahead: u64,
    now: Timestamp,
    report: &mut RecoverReport,
) {
    let mut streams: BTreeMap<StreamId, BTreeMap<PartitionIndex, Vec<ChunkMeta>>> = BTreeMap::new();
    for (at, chunks) in others {
        streams.entry(at.stream).or_default().insert(at.index, chunks);
    }
    // Of several streams of one name, the one that was appended to last lives.
    let newest = |partitions: &BTreeMap<PartitionIndex, Vec<ChunkMeta>>| {
        partitions.values().flatten().filter_map(|chunk| chunk.max_appended).max()
    };
    let mut streams: Vec<_> = streams.into_iter().collect();
    streams.sort_by_key(|(_, partitions)| std::cmp::Reverse(newest(partitions)));
    let mut names: HashSet<StreamPath> =
        manifest.streams.iter().map(|stream| stream.path.clone()).collect();
    for (id, mut partitions) in streams {
        let name = partitions
            .values()
            .flatten()
            .find_map(|chunk| found.objects.get(&chunk.object_path))
            .map(|(name, _)| StreamPath::new(name.tenant.clone(), name.stream.clone()));
        let (Some(path), Some(highest)) = (name, partitions.keys().max().copied()) else {
            continue;
        };
        if !names.insert(path.clone()) {
            report.warnings.push(format!(
                "stream {path} ({id}) has the name of another stream and is left out"
            ));
            continue;
        }
        if has_manifest {
            report.warnings.push(format!(
                "stream {path} ({id}) is younger than the manifest: its configuration is unknown"
            ));
        }
        let mut entry = StreamEntry {
            id,
            path,
            class: StreamClass::Durable,
            config: StreamConfig::default(),
            created: now,
            partitions: Vec::new(),
        };
        for index in 0..=highest.get() {
            let mut partition = unknown_partition(PartitionIndex(index));
            let chunks = partitions.remove(&PartitionIndex(index)).unwrap_or_default();
            recover_partition(&entry.path, &mut partition, chunks, found, ahead, report);
            entry.partitions.push(partition);
        }
        manifest.streams.push(entry);
    }
}

/// Drops what refers to records that are not there: a repeated request must not
/// be told that it is stored.
fn forget_what_is_lost(manifest: &mut Manifest) {
    let mut tiered: HashMap<Partition, Offset> = HashMap::new();
    for stream in &mut manifest.streams {
        for entry in &mut stream.partitions {
            tiered.insert(Partition::new(stream.id, entry.partition), entry.tiered);
            let tiered = entry.tiered;
            entry
                .producers
                .retain(|(_, producer)| producer.end_offset().is_some_and(|end| end <= tiered));
        }
    }
    manifest.answers.retain(|entry| {
        entry.answer.appends.iter().all(|appended| {
            let at = Partition::new(entry.answer.stream, appended.partition);
            let end = appended.base_offset.plus(appended.count.into());
            tiered.get(&at).is_some_and(|tiered| end <= *tiered)
        })
    });
    for group in &mut manifest.groups {
        group.positions.retain(|(at, _)| tiered.contains_key(at));
    }
    manifest.groups.retain(|group| !group.positions.is_empty());
}

/// A producer may have had later epochs than the manifest knows, and what it
/// wrote may be lost: nobody goes on as one that there was. An exhausted epoch
/// gives the next one a new id.
fn fence_producers(manifest: &mut Manifest) {
    for entry in &mut manifest.transactional {
        entry.epoch = ProducerEpoch(i16::MAX);
    }
}

/// What is there and nobody needs: known garbage, deleted streams' chunks, and
/// chunks, or indexes, whose offsets are truncated or covered by those that were chosen.
/// Anything else that was not chosen stays, for a person to look at.
fn collect_garbage(
    manifest: &mut Manifest,
    found: &Found,
    has_manifest: bool,
    now: Timestamp,
    due: Timestamp,
    report: &mut RecoverReport,
) {
    manifest.garbage.retain(|GarbageEntry { object_path, .. }| {
        found.objects.contains_key(object_path) || found.indexes.contains_key(object_path)
    });
    let known: HashSet<String> =
        manifest.garbage.iter().map(|entry| entry.object_path.clone()).collect();
    let live: HashSet<&str> = manifest
        .streams
        .iter()
        .flat_map(|stream| stream.partitions.iter().flat_map(|entry| &entry.chunks))
        .flat_map(|chunk| std::iter::once(&chunk.object_path).chain(&chunk.index_path))
        .map(String::as_str)
        .collect();
    let deleted: HashSet<StreamId> = manifest.tombstones.iter().map(|stone| stone.id).collect();
    let tiered: HashMap<Partition, Offset> = manifest
        .streams
        .iter()
        .flat_map(|stream| {
            let at = |entry: &PartitionEntry| Partition::new(stream.id, entry.partition);
            stream.partitions.iter().map(move |entry| (at(entry), entry.tiered))
        })
        .collect();
    let mut garbage = Vec::new();
    let chunks = found.objects.iter().map(|(path, (name, _))| (path, name));
    let indexes = found.indexes.iter().map(|(path, name)| (path, &name.chunk));
    for (path, name) in chunks.chain(indexes) {
        if live.contains(path.as_str()) || known.contains(path) {
            continue;
        }
        let at = Partition::new(name.stream_id, name.partition);
        let is_covered = tiered.get(&at).is_some_and(|tiered| name.base < *tiered);
        if deleted.contains(&name.stream_id) || (has_manifest && is_covered) {
            garbage.push(GarbageEntry { object_path: path.clone(), since: now, due });
        } else {
            report.left_alone += 1;
        }
    }
    report.left_alone += found.strange;
    manifest.garbage.append(&mut garbage);
}

//! Snapshots of the hot state, so that old journal files can go.
//!
//! A snapshot is cut at the boundary of a group and names it. It is written to
//! a temporary file, synced, renamed and the directory synced; two are kept. A
//! crash leaves the older one, and perhaps a temporary file that the next start
//! removes. A damaged newest snapshot is passed over for the older one, whose
//! journal is still there.
//!
//! File `<ledger>/<group sequence, 20 digits>.snapshot`, little endian:
//!
//! | at | field | bytes |
//! |---|---|---|
//! | 0 | magic `AQSN` | 4 |
//! | 4 | version, 3 | 1 |
//! | 5 | zeros | 3 |
//! | 8 | group sequence: everything through it is included | 8 |
//! | 16 | length of the body | 8 |
//! | 24 | CRC-32C of the body | 4 |
//! | 28 | CRC-32C of bytes 0–27 | 4 |
//! | 32 | body: JSON of `Body`, compressed with zstd | |
//!
//! Version 3 has transactions, version 2 attempts, leases and where new
//! partitions begin; versions 1 and 2, which lack them, are read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aquifer_env::Disk;
use aquifer_types::{
    ChunkId, CommitId, Epoch, GroupName, GroupSequence, LeaseName, LeaseToken, Offset, Partition,
    ProducerId, StreamClass, StreamConfig, StreamId, StreamPath, TenantName, Timestamp,
};
use serde::{Deserialize, Serialize};

use super::attempts::Attempt;
use super::document::{Document, DocumentKey, is_zero};
use super::event::KeptAnswer;
use super::hot_state::{HotChunk, HotPartition, HotState, HotStream, Intent};
use super::leases::HeldLease;
use super::producer::Producer;
use super::transactions::{PartitionTransactions, Transactional, TransactionalKey};
use crate::Error;
use crate::api::GroupPosition;

const MAGIC: [u8; 4] = *b"AQSN";
const VERSION: u8 = 3;
/// Read, and not written any more.
const VERSION_OLDEST: u8 = 1;
const HEADER_BYTES: usize = 32;
const BODY_BYTES_MAX: u64 = 4 << 30;
const SUFFIX: &str = "snapshot";
const TEMPORARY: &str = "snapshot.temporary";
/// How many snapshots are kept.
pub(crate) const SNAPSHOTS_KEPT: usize = 2;

#[derive(Debug, Serialize, Deserialize)]
struct Body {
    epoch: Epoch,
    streams: Vec<StreamBody>,
    groups: Vec<GroupBody>,
    answers: Vec<(TenantName, String, KeptAnswer)>,
    intents: Vec<(ChunkId, Intent)>,
    #[serde(default)]
    attempts: Vec<(CommitId, Attempt)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    documents: Vec<(DocumentKey, Arc<Document>)>,
    #[serde(default, skip_serializing_if = "is_zero")]
    documents_version: u64,
    #[serde(default)]
    leases: Vec<(LeaseName, HeldLease)>,
    #[serde(default)]
    last_lease_token: LeaseToken,
    #[serde(default)]
    next_producer: ProducerId,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    transactional: Vec<(TransactionalKey, Transactional)>,
}

type GroupBody = (TenantName, GroupName, Vec<(Partition, GroupPosition)>);

#[derive(Debug, Serialize, Deserialize)]
struct StreamBody {
    id: StreamId,
    path: StreamPath,
    class: StreamClass,
    config: StreamConfig,
    created: Timestamp,
    partitions: Vec<PartitionBody>,
    #[serde(default)]
    partitions_from: Offset,
}

#[derive(Debug, Serialize, Deserialize)]
struct PartitionBody {
    start: Offset,
    tiered: Offset,
    end: Offset,
    reserved: Offset,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ceiling: Option<Offset>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chunks: Vec<(Offset, Offset, ChunkId)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    producers: Vec<(ProducerId, Producer)>,
    #[serde(default, skip_serializing_if = "PartitionTransactions::is_empty")]
    transactions: PartitionTransactions,
}

impl From<&HotState> for Body {
    fn from(hot: &HotState) -> Self {
        let mut streams: Vec<_> = hot
            .streams
            .iter()
            .map(|(id, stream)| StreamBody {
                id: *id,
                path: stream.path.clone(),
                class: stream.class,
                config: stream.config.clone(),
                created: stream.created,
                partitions: stream.partitions.iter().map(PartitionBody::from).collect(),
                partitions_from: stream.partitions_from,
            })
            .collect();
        // The same state gives the same bytes.
        streams.sort_by(|a, b| a.path.cmp(&b.path));
        Self {
            epoch: hot.epoch,
            streams,
            groups: hot
                .groups
                .iter()
                .map(|((tenant, group), positions)| {
                    let positions = positions.iter().map(|(at, p)| (*at, p.clone())).collect();
                    (tenant.clone(), group.clone(), positions)
                })
                .collect(),
            answers: hot
                .answers
                .iter()
                .map(|(tenant, key, answer)| (tenant.clone(), key.to_owned(), answer.clone()))
                .collect(),
            intents: hot.intents.iter().map(|(id, intent)| (*id, intent.clone())).collect(),
            attempts: hot.attempts.iter().map(|(id, attempt)| (id, attempt.clone())).collect(),
            documents: hot
                .documents
                .iter()
                .map(|(key, document)| (key.clone(), document.clone()))
                .collect(),
            documents_version: hot.documents.version(),
            leases: hot.leases.held.iter().map(|(name, held)| (name.clone(), *held)).collect(),
            last_lease_token: hot.leases.last_token,
            next_producer: hot.transactions.next_producer,
            transactional: hot
                .transactions
                .iter()
                .map(|(key, entry)| (key.clone(), entry.clone()))
                .collect(),
        }
    }
}

impl From<&HotPartition> for PartitionBody {
    fn from(partition: &HotPartition) -> Self {
        let mut producers: Vec<_> =
            partition.producers.iter().map(|(id, producer)| (id, producer.clone())).collect();
        producers.sort_by_key(|(id, _)| *id);
        Self {
            start: partition.start,
            tiered: partition.tiered,
            end: partition.end,
            reserved: partition.reserved,
            ceiling: partition.ceiling,
            chunks: partition.chunks.iter().map(|(base, c)| (*base, c.next, c.id)).collect(),
            producers,
            transactions: partition.transactions.clone(),
        }
    }
}

impl From<Body> for HotState {
    fn from(body: Body) -> Self {
        let mut hot = Self { epoch: body.epoch, ..Self::default() };
        for stream in body.streams {
            hot.names.insert(stream.path.clone(), stream.id);
            hot.partitions += stream.partitions.len() as u64;
            hot.streams.insert(
                stream.id,
                HotStream {
                    path: stream.path,
                    class: stream.class,
                    config: stream.config,
                    created: stream.created,
                    epoch: body.epoch,
                    partitions: stream.partitions.into_iter().map(HotPartition::from).collect(),
                    partitions_from: stream.partitions_from,
                },
            );
        }
        for (tenant, group, positions) in body.groups {
            hot.groups.insert((tenant, group), positions.into_iter().collect());
        }
        for (tenant, key, answer) in body.answers {
            let _ = hot.answers.keep(&tenant, &key, answer);
        }
        for (id, attempt) in body.attempts {
            let _ = hot.attempts.keep(id, attempt);
        }
        for (key, document) in body.documents {
            let _ = hot.documents.put(&key, document);
        }
        hot.documents.raise_version(body.documents_version);
        hot.leases.held = body.leases.into_iter().collect();
        hot.leases.last_token = body.last_lease_token;
        hot.intents = body.intents.into_iter().collect();
        hot.count_positions();
        hot.transactions.next_producer = body.next_producer;
        for (key, entry) in body.transactional {
            let _ = hot.transactions.put(&key, Some(entry));
        }
        hot
    }
}

impl From<PartitionBody> for HotPartition {
    fn from(body: PartitionBody) -> Self {
        let mut partition = Self {
            start: body.start,
            tiered: body.tiered,
            end: body.end,
            reserved: body.reserved,
            ceiling: body.ceiling,
            transactions: body.transactions,
            ..Self::default()
        };
        for (base, next, id) in body.chunks {
            partition.chunks.insert(base, HotChunk { id, next });
        }
        for (id, producer) in body.producers {
            partition.producers.restore(id, producer);
        }
        partition
    }
}

/// The bytes of a snapshot that includes everything through `sequence`.
pub(crate) fn encode(hot: &HotState, sequence: GroupSequence) -> Result<Vec<u8>, Error> {
    let internal = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
    let json = serde_json::to_vec(&Body::from(hot)).map_err(|error| internal(&error))?;
    let body = zstd::encode_all(&json[..], 1).map_err(|error| internal(&error))?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[VERSION, 0, 0, 0]);
    bytes.extend_from_slice(&sequence.get().to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The state in a snapshot's bytes, and the group through which it reaches.
pub(crate) fn decode(bytes: &[u8], at: &str) -> Result<(HotState, GroupSequence), Error> {
    let damaged = |why: String| Error::Damaged { at: at.to_owned(), why };
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(damaged("the snapshot is shorter than its header".into()));
    };
    let long = |from: usize| {
        let mut field = [0; 8];
        field.copy_from_slice(&header[from..from + 8]);
        u64::from_le_bytes(field)
    };
    let crc = |from: usize| {
        let mut field = [0; 4];
        field.copy_from_slice(&header[from..from + 4]);
        u32::from_le_bytes(field)
    };
    if header[..4] != MAGIC || crc32c::crc32c(&header[..28]) != crc(28) {
        return Err(damaged("the snapshot's header does not match its checksum".into()));
    }
    if !(VERSION_OLDEST..=VERSION).contains(&header[4]) {
        return Err(Error::Unsupported(format!(
            "{at}: snapshot version {} is not known, this program knows {VERSION_OLDEST} to {VERSION}",
            header[4]
        )));
    }
    if long(16) != body.len() as u64 || crc32c::crc32c(body) != crc(24) {
        return Err(damaged("the snapshot's body does not match its checksum".into()));
    }
    let json = zstd::decode_all(body).map_err(|error| damaged(error.to_string()))?;
    let body: Body = serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
    Ok((body.into(), GroupSequence(long(8))))
}

fn path_of(dir: &Path, sequence: GroupSequence) -> PathBuf {
    dir.join(format!("{:020}.{SUFFIX}", sequence.get()))
}

fn sequence_of(path: &Path) -> Option<GroupSequence> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_suffix(SUFFIX)?.strip_suffix('.')?;
    digits.parse().ok().map(GroupSequence)
}

/// The snapshots in `dir`, the newest first.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> std::io::Result<Vec<(GroupSequence, PathBuf)>> {
    let mut found: Vec<_> =
        disk.list(dir)?.into_iter().filter_map(|path| Some((sequence_of(&path)?, path))).collect();
    found.sort_by_key(|(sequence, _)| std::cmp::Reverse(*sequence));
    Ok(found)
}

/// Writes a snapshot and removes those beyond the two newest. Returns the
/// sequence of the oldest that is kept.
pub(crate) fn write(
    disk: &dyn Disk,
    dir: &Path,
    hot: &HotState,
    sequence: GroupSequence,
) -> Result<GroupSequence, Error> {
    let bytes = encode(hot, sequence)?;
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull => Error::StorageFull(error.to_string()),
        _ => Error::NotWritten(format!("a snapshot in {}: {error}", dir.display())),
    };
    let temporary = dir.join(TEMPORARY);
    match disk.remove(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = disk.create(&temporary).map_err(failed)?;
    let written = file.write_at(&bytes, 0).and_then(|()| file.sync_data());
    if let Err(error) = written {
        // It must not hold the room that the disk lacks.
        let _ = disk.remove(&temporary);
        return Err(failed(error));
    }
    disk.rename(&temporary, &path_of(dir, sequence)).map_err(failed)?;
    disk.sync_dir(dir).map_err(failed)?;
    let all = list(disk, dir).map_err(failed)?;
    for (_, path) in all.iter().skip(SNAPSHOTS_KEPT) {
        disk.remove(path).map_err(failed)?;
    }
    Ok(all.get(SNAPSHOTS_KEPT - 1).map_or(GroupSequence(0), |(oldest, _)| *oldest))
}

/// What the snapshots of a directory hold.
pub(crate) struct Found {
    /// Of the newest one that is whole.
    pub(crate) hot: HotState,
    pub(crate) sequence: GroupSequence,
    /// Everything through it is in each of those that are kept; 0 where fewer
    /// are whole.
    pub(crate) oldest: GroupSequence,
    /// Those that are not whole, and what is wrong with them.
    pub(crate) damaged: Vec<(PathBuf, Error)>,
}

/// Removes what is damaged, so that it does not count among those that are
/// kept. For a start that was not refused: till then everything stays.
pub(crate) fn remove_damaged(disk: &dyn Disk, damaged: &[(PathBuf, Error)]) {
    for (path, _) in damaged {
        if let Err(error) = disk.remove(path) {
            tracing::warn!(path = %path.display(), %error, "a damaged snapshot could not be removed");
        }
    }
}

/// Reads the newest whole snapshot; an empty state where there is none.
pub(crate) fn read_newest(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Found, Error> {
    let failed = |path: &Path, error: std::io::Error| {
        Error::Start(format!("cannot read {}: {error}", path.display()))
    };
    let mut newest = None;
    let mut whole = Vec::new();
    let mut damaged = Vec::new();
    for (sequence, path) in list(&**disk, dir).map_err(|error| failed(dir, error))? {
        let at = path.display().to_string();
        let read = || -> std::io::Result<Vec<u8>> {
            let file = disk.open_read(&path)?;
            let len = file.len()?.min(BODY_BYTES_MAX);
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            file.read_at(&mut bytes, 0)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| failed(&path, error))?;
        match decode(&bytes, &at) {
            Ok((hot, named)) if named == sequence => {
                newest.get_or_insert((hot, named));
                whole.push(named);
            }
            Ok((_, named)) => {
                let why = format!("the snapshot says that it is number {named}");
                damaged.push((path, Error::Damaged { at, why }));
            }
            Err(error @ Error::Unsupported(_)) => return Err(error),
            Err(error) => damaged.push((path, error)),
        }
    }
    let Some((hot, sequence)) = newest else {
        return match damaged.pop() {
            Some((_, error)) => Err(error),
            None => {
                let (hot, none) = (HotState::default(), GroupSequence(0));
                Ok(Found { hot, sequence: none, oldest: none, damaged })
            }
        };
    };
    let is_spare_left = whole.len() >= SNAPSHOTS_KEPT;
    let oldest = whole.last().copied().filter(|_| is_spare_left).unwrap_or(GroupSequence(0));
    Ok(Found { hot, sequence, oldest, damaged })
}

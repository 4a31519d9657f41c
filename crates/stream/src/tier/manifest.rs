//! What tier 2 holds, written into tier 2: enough to go on from it alone.
//!
//! A format and its names; [`super::publish`] writes them, [`crate::recover`]
//! reads them. A manifest is whole or absent; two never have the same name.
//!
//! Object `_meta/manifest-<epoch, 10 digits>-<sequence, 20 digits>.json.zst`, one
//! zstd frame with a checksum, so that `zstd -dc` shows it. Two lines of JSON:
//!
//! | line | what |
//! |---|---|
//! | 1 | [`Header`]: `format` (`aquifer-manifest`), `version` (1), `epoch`, `sequence`, `body_bytes`, `body_crc32c` (8 hex digits, of line 2 without its newline) |
//! | 2 | [`Manifest`] |
//!
//! Fields that a reader does not know are passed over; a change that an older
//! reader must not pass over has a new version.

use std::io::{Read, Write};

use aquifer_types::{
    Epoch, GroupName, Offset, Partition, PartitionIndex, ProducerEpoch, ProducerId, StreamClass,
    StreamConfig, StreamId, StreamPath, TenantName, Timestamp, TransactionalId,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::api::GroupPosition;
use crate::chunk_meta::ChunkMeta;
use crate::index::Tombstone;
use crate::ledger::document::{Document, DocumentKey, is_zero};
use crate::ledger::event::KeptAnswer;
use crate::ledger::producer::Producer;

/// The folder of the manifests.
pub(crate) const FOLDER: &str = "_meta";
const PREFIX: &str = "_meta/manifest-";
const SUFFIX: &str = ".json.zst";
const FORMAT: &str = "aquifer-manifest";
const VERSION: u32 = 1;
const ZSTD_LEVEL: i32 = 3;
/// The most bytes of a manifest when it is decompressed.
const BYTES_MAX: u64 = 4 << 30;

/// The place of a manifest among all: a later epoch's come later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ManifestKey {
    pub(crate) epoch: Epoch,
    pub(crate) sequence: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    epoch: Epoch,
    sequence: u64,
    body_bytes: u64,
    body_crc32c: String,
}

/// All that tier 2 holds, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// When it was written.
    pub(crate) written: Timestamp,
    pub(crate) streams: Vec<StreamEntry>,
    /// Streams that were deleted; they do not come back.
    pub(crate) tombstones: Vec<Tombstone>,
    /// Objects that are still there and that nobody needs any more.
    pub(crate) garbage: Vec<GarbageEntry>,
    pub(crate) groups: Vec<GroupEntry>,
    /// Answers to requests with an idempotency key.
    #[serde(default)]
    pub(crate) answers: Vec<AnswerEntry>,
    /// Transactional ids; nothing of their transactions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) transactional: Vec<TransactionalEntry>,
    /// No producer id from here on was given when it was written.
    #[serde(default, skip_serializing_if = "is_first_producer")]
    pub(crate) next_producer: ProducerId,
    /// Users were meant to be here; they are documents.
    #[serde(default)]
    pub(crate) users: Vec<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) documents: Vec<(DocumentKey, std::sync::Arc<Document>)>,
    /// The highest version that a document was given.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) documents_version: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamEntry {
    pub(crate) id: StreamId,
    pub(crate) path: StreamPath,
    pub(crate) class: StreamClass,
    pub(crate) config: StreamConfig,
    pub(crate) created: Timestamp,
    /// In order of their numbers, none missing.
    pub(crate) partitions: Vec<PartitionEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionEntry {
    pub(crate) partition: PartitionIndex,
    pub(crate) epoch: Epoch,
    pub(crate) start: Offset,
    pub(crate) tiered: Offset,
    /// The end when it was written; records above the tiered offset are in the
    /// journal only.
    pub(crate) end: Offset,
    /// No offset from here on was given, or will be while this manifest counts.
    pub(crate) ceiling: Offset,
    #[serde(default)]
    pub(crate) chunks: Vec<ChunkMeta>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) producers: Vec<(ProducerId, Producer)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GarbageEntry {
    pub(crate) object_path: String,
    pub(crate) since: Timestamp,
    pub(crate) due: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupEntry {
    pub(crate) tenant: TenantName,
    pub(crate) group: GroupName,
    pub(crate) positions: Vec<(Partition, GroupPosition)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AnswerEntry {
    pub(crate) tenant: TenantName,
    pub(crate) key: String,
    pub(crate) answer: KeptAnswer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TransactionalEntry {
    pub(crate) tenant: TenantName,
    pub(crate) id: TransactionalId,
    pub(crate) producer: ProducerId,
    pub(crate) epoch: ProducerEpoch,
    pub(crate) timeout_ms: u32,
    pub(crate) last_used: Timestamp,
}

fn is_first_producer(next: &ProducerId) -> bool {
    *next == ProducerId(0)
}

impl ManifestKey {
    pub(crate) fn path(self) -> String {
        format!("{PREFIX}{:010}-{:020}{SUFFIX}", self.epoch.get(), self.sequence)
    }

    pub(crate) fn of_path(path: &str) -> Option<Self> {
        let middle = path.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (epoch, sequence) = middle.split_once('-')?;
        let key = Self { epoch: Epoch(epoch.parse().ok()?), sequence: sequence.parse().ok()? };
        (key.path() == path).then_some(key)
    }
}

impl Manifest {
    /// One of a store that holds nothing.
    pub(crate) const fn empty(written: Timestamp) -> Self {
        Self {
            written,
            streams: Vec::new(),
            tombstones: Vec::new(),
            garbage: Vec::new(),
            groups: Vec::new(),
            answers: Vec::new(),
            transactional: Vec::new(),
            next_producer: ProducerId(0),
            users: Vec::new(),
            documents: Vec::new(),
            documents_version: 0,
        }
    }

    /// The bytes of the object.
    pub(crate) fn encode(&self, key: ManifestKey) -> Result<Bytes, Error> {
        let internal = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
        let body = serde_json::to_vec(self).map_err(|error| internal(&error))?;
        let header = Header {
            format: FORMAT.into(),
            version: VERSION,
            epoch: key.epoch,
            sequence: key.sequence,
            body_bytes: body.len() as u64,
            body_crc32c: format!("{:08x}", crc32c::crc32c(&body)),
        };
        let mut text = serde_json::to_vec(&header).map_err(|error| internal(&error))?;
        text.push(b'\n');
        let write = || -> std::io::Result<Vec<u8>> {
            let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
            encoder.include_checksum(true)?;
            encoder.write_all(&text)?;
            encoder.write_all(&body)?;
            encoder.write_all(b"\n")?;
            encoder.finish()
        };
        write().map(Bytes::from).map_err(|error| internal(&error))
    }

    /// The manifest in an object's bytes.
    ///
    /// # Errors
    /// [`Error::Damaged`]; [`Error::Unsupported`] of a later version.
    pub(crate) fn decode(bytes: &[u8], key: ManifestKey) -> Result<Self, Error> {
        let at = key.path();
        let damaged = |why: String| Error::Damaged { at: at.clone(), why };
        let mut text = Vec::new();
        zstd::Decoder::with_buffer(bytes)
            .and_then(|decoder| decoder.take(BYTES_MAX).read_to_end(&mut text))
            .map_err(|error| damaged(error.to_string()))?;
        let no_lines = || damaged("it does not have two lines".into());
        let split = text.iter().position(|byte| *byte == b'\n').ok_or_else(no_lines)?;
        let (header, body) = text.split_at(split);
        let body = body.get(1..).and_then(|body| body.strip_suffix(b"\n")).ok_or_else(no_lines)?;
        let header: Header =
            serde_json::from_slice(header).map_err(|error| damaged(error.to_string()))?;
        if header.format != FORMAT {
            return Err(damaged("its format has another name".into()));
        }
        if header.version != VERSION {
            return Err(Error::Unsupported(format!(
                "{at}: manifest version {} is not known, this program knows {VERSION}",
                header.version
            )));
        }
        if (ManifestKey { epoch: header.epoch, sequence: header.sequence }) != key {
            return Err(damaged(format!(
                "it says that it is {} of epoch {}",
                header.sequence, header.epoch
            )));
        }
        if header.body_bytes != body.len() as u64
            || header.body_crc32c != format!("{:08x}", crc32c::crc32c(body))
        {
            return Err(damaged("its body does not match its length or CRC-32C".into()));
        }
        serde_json::from_slice(body).map_err(|error| damaged(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use aquifer_types::{BatchBuilder, ChunkId, Sequence, StreamName};

    use super::*;
    use crate::api::Appended;
    use crate::ledger::producer::Producers;

    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/manifest-1.json.zst");
    const KEY: ManifestKey = ManifestKey { epoch: Epoch(7), sequence: 42 };

    fn manifest() -> Manifest {
        let stream = StreamId::from_bytes([0xab; 16]);
        let partition = Partition::new(stream, PartitionIndex(0));
        let path = StreamPath::new(TenantName::default_tenant(), StreamName::new("audit").unwrap());
        let mut builder =
            BatchBuilder::default().producer(ProducerId(9), ProducerEpoch(1), Sequence(4));
        builder.push(Timestamp(1), None, &[], Some(b"v"));
        let mut producers = Producers::default();
        let batch = builder.finish().placed(Offset(19), Epoch(7));
        let _ = producers.record(batch.header(), Timestamp(50));
        Manifest {
            written: Timestamp(1_000),
            streams: vec![StreamEntry {
                id: stream,
                path: path.clone(),
                class: StreamClass::Durable,
                config: StreamConfig::default(),
                created: Timestamp(10),
                partitions: vec![PartitionEntry {
                    partition: PartitionIndex(0),
                    epoch: Epoch(7),
                    start: Offset(3),
                    tiered: Offset(20),
                    end: Offset(25),
                    ceiling: Offset(1 << 32),
                    chunks: vec![ChunkMeta {
                        id: ChunkId::from_bytes([0xcd; 16]),
                        partition,
                        base: Offset(0),
                        next: Offset(20),
                        object_path: "default/audit/p0/0.parquet".into(),
                        object_bytes: 4_096,
                        checksum: "crc32c:00112233".into(),
                        records: 19,
                        raw_bytes: 100,
                        min_timestamp: Some(Timestamp(1)),
                        max_timestamp: Some(Timestamp(9)),
                        max_appended: Some(Timestamp(40)),
                        epochs: vec![(Epoch(5), Offset(0)), (Epoch(7), Offset(10))],
                        generation: 1,
                        schema_version: 0,
                        unfit: None,
                        timestamp_type: aquifer_types::TimestampType::Create,
                        index_path: None,
                        index_bytes: None,
                        key_id: None,
                    }],
                    producers: producers.iter().map(|(id, p)| (id, p.clone())).collect(),
                }],
            }],
            tombstones: vec![Tombstone {
                id: StreamId::from_bytes([0xee; 16]),
                path: path.clone(),
                at: Timestamp(900),
            }],
            garbage: vec![GarbageEntry {
                object_path: "default/gone".into(),
                since: Timestamp(901),
                due: Timestamp(1_901),
            }],
            groups: vec![GroupEntry {
                tenant: TenantName::default_tenant(),
                group: GroupName::new("readers").unwrap(),
                positions: vec![(
                    partition,
                    GroupPosition {
                        offset: Offset(12),
                        metadata: "note".into(),
                        leader_epoch: None,
                        committed: Timestamp(800),
                    },
                )],
            }],
            answers: vec![AnswerEntry {
                tenant: TenantName::default_tenant(),
                key: "order-1".into(),
                answer: KeptAnswer {
                    stream,
                    appends: vec![Appended {
                        partition: PartitionIndex(0),
                        base_offset: Offset(5),
                        count: 2,
                    }],
                    at: Timestamp(700),
                    request_checksum: 77,
                },
            }],
            transactional: Vec::new(),
            next_producer: ProducerId(0),
            users: Vec::new(),
            documents: Vec::new(),
            documents_version: 0,
        }
    }

    #[test]
    fn the_first_format_is_read_and_written_as_it_was() {
        assert_eq!(Manifest::decode(GOLDEN, KEY).unwrap(), manifest());
        let text = |bytes: &[u8]| zstd::decode_all(bytes).unwrap();
        let encoded = manifest().encode(KEY).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&text(&encoded)),
            String::from_utf8_lossy(&text(GOLDEN)),
        );
    }

    #[test]
    fn transactional_ids_are_read_as_they_were_written() {
        let manifest = Manifest {
            transactional: vec![TransactionalEntry {
                tenant: TenantName::default_tenant(),
                id: TransactionalId::new("sink-0").unwrap(),
                producer: ProducerId(7),
                epoch: ProducerEpoch(3),
                timeout_ms: 60_000,
                last_used: Timestamp(5),
            }],
            next_producer: ProducerId(8),
            ..manifest()
        };
        assert_eq!(Manifest::decode(&manifest.encode(KEY).unwrap(), KEY).unwrap(), manifest);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let mut cases = 0;
        for at in 0..GOLDEN.len() {
            assert!(Manifest::decode(&GOLDEN[..at], KEY).is_err(), "cut at {at}");
            for bit in 0..8 {
                let mut bytes = GOLDEN.to_vec();
                bytes[at] ^= 1 << bit;
                // Some bits of a frame's header mean nothing.
                if let Ok(read) = Manifest::decode(&bytes, KEY) {
                    assert_eq!(read, manifest(), "bit {bit} of byte {at}");
                }
                cases += 1;
            }
        }
        assert!(cases > 1_000);
        println!("{cases} flipped bits");
        let other = ManifestKey { sequence: 43, ..KEY };
        assert!(Manifest::decode(GOLDEN, other).is_err(), "under another's name");
    }

    #[test]
    fn names_sort_as_their_keys_do() {
        let keys = [(1, 2), (1, 10), (2, 1), (10, 0)];
        let keys = keys.map(|(epoch, sequence)| ManifestKey { epoch: Epoch(epoch), sequence });
        assert!(keys.is_sorted());
        assert!(keys.map(ManifestKey::path).is_sorted());
        for key in keys {
            assert_eq!(ManifestKey::of_path(&key.path()), Some(key));
        }
        for wrong in ["_meta/manifest-1-2.json.zst", "_meta/probe-x", "a"] {
            assert_eq!(ManifestKey::of_path(wrong), None);
        }
    }

    #[test]
    fn fuzz_decode_manifest() {
        let plain = zstd::decode_all(GOLDEN).unwrap();
        aquifer_testkit::fuzz("decode_manifest", 0.2, &[plain], |bytes| {
            let packed = zstd::encode_all(bytes, 1).unwrap();
            let _ = Manifest::decode(&packed, KEY);
        });
    }
}

//! The formats of the ledger, as they were released: today's writer gives the
//! same bytes, and today's reader reads them. `UPDATE_GOLDEN=1` writes anew
//! what has changed on purpose, under a new version.
#![allow(clippy::disallowed_methods, reason = "golden files lie in the source tree")]

use std::path::{Path, PathBuf};

use aquifer_types::{
    BatchBuilder, ChunkId, CommitId, Epoch, GroupName, GroupSequence, LeaseName, LeaseToken,
    Offset, Partition, PartitionIndex, ProducerEpoch, ProducerId, Sequence, StreamClass,
    StreamConfig, StreamId, TenantName, Timestamp, TransactionalId,
};
use uuid::Uuid;

use super::script::{Producer, batch, path};
use crate::Error;
use crate::api::{Appended, GroupPosition};
use crate::chunk_meta::ChunkMeta;
use crate::ledger::event::{AppendEvent, Event, KeptAnswer, Outcome, Resolution};
use crate::ledger::hot_state::HotState;
use crate::ledger::leases::HeldLease;
use crate::ledger::snapshot;
use crate::ledger::transaction_event::TransactionEvent;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden(name: &str, today: &[u8]) -> Vec<u8> {
    let file = file(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, today).unwrap();
    }
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes == today, "{name} is not what is written today");
    bytes
}

fn stream() -> StreamId {
    StreamId(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff))
}

fn at(index: u32) -> Partition {
    Partition::new(stream(), PartitionIndex(index))
}

fn chunk(number: u128, base: i64, next: i64) -> ChunkMeta {
    ChunkMeta {
        id: ChunkId(Uuid::from_u128(number)),
        partition: at(1),
        base: Offset(base),
        next: Offset(next),
        object_path: format!("default/audit/p1/{base:020}-{number}.parquet"),
        object_bytes: 4_096,
        checksum: "crc32c:01234567".into(),
        records: 9,
        raw_bytes: 900,
        min_timestamp: Some(Timestamp(-5)),
        max_timestamp: Some(Timestamp(1_700_000_000_000)),
        max_appended: Some(Timestamp(1_700_000_000_001)),
        epochs: vec![(Epoch(2), Offset(base)), (Epoch(3), Offset(base + 1))],
        generation: 1,
        schema_version: 4,
        unfit: None,
        timestamp_type: aquifer_types::TimestampType::Create,
        index_path: Some("default/audit/p1/0.index".into()),
        index_bytes: None,
        key_id: Some("key-1".into()),
    }
}

fn group() -> (TenantName, GroupName) {
    (TenantName::default_tenant(), GroupName::new("readers").unwrap())
}

/// One of each, in an order in which they can be applied.
fn events() -> Vec<Event> {
    let (tenant, group) = group();
    let position = |offset, metadata: &str| GroupPosition {
        offset: Offset(offset),
        metadata: metadata.into(),
        leader_epoch: None,
        committed: Timestamp(7),
    };
    let bare = ChunkMeta {
        min_timestamp: None,
        index_path: None,
        index_bytes: None,
        key_id: None,
        ..chunk(2, 10, 20)
    };
    let answer = KeptAnswer {
        stream: stream(),
        appends: vec![Appended { partition: PartitionIndex(1), base_offset: Offset(40), count: 3 }],
        at: Timestamp(9),
        request_checksum: 0xdead_beef,
    };
    vec![
        Event::StreamCreated {
            id: stream(),
            path: path("audit"),
            partitions: 2,
            class: StreamClass::Relaxed,
            config: StreamConfig::default(),
            created: Timestamp(1),
            epoch: Epoch(3),
        },
        Event::StreamAltered {
            id: stream(),
            config: StreamConfig { retention_ms: None, ..StreamConfig::default() },
        },
        Event::PartitionsAdded { id: stream(), partitions: 3, from: Offset::ZERO },
        Event::OffsetsReserved { partition: at(1), through: Offset(1_000) },
        Event::OffsetsSkipped { partition: at(1), end: Offset(50) },
        Event::UploadIntended {
            chunk: ChunkId(Uuid::from_u128(1)),
            partition: at(1),
            object_path: "default/audit/p1/1.parquet".into(),
            at: Timestamp(2),
        },
        Event::ChunkAdded { chunk: chunk(1, 0, 10), at: None },
        Event::ChunkAdded { chunk: bare, at: None },
        Event::UploadAbandoned {
            chunk: ChunkId(Uuid::from_u128(9)),
            object_path: "default/audit/p1/9.parquet".into(),
            at: Timestamp(3),
        },
        Event::ChunksReplaced {
            removed: vec![ChunkId(Uuid::from_u128(1)), ChunkId(Uuid::from_u128(2))],
            added: chunk(3, 0, 20),
            at: Timestamp(4),
        },
        Event::GarbageCollected { object_paths: vec!["a".into(), "b".into()] },
        Event::Truncated {
            partition: at(1),
            start: Offset(5),
            at: Timestamp(5),
            is_expired: false,
        },
        Event::PositionsCommitted {
            tenant: tenant.clone(),
            group: group.clone(),
            positions: vec![(at(0), position(1, "")), (at(1), position(2, "a note"))],
        },
        Event::AnswerKept { tenant: tenant.clone(), key: "key".into(), answer },
        Event::UploadIntended {
            chunk: ChunkId(Uuid::from_u128(4)),
            partition: at(1),
            object_path: "default/audit/p1/4.parquet".into(),
            at: Timestamp(6),
        },
        Event::CeilingsSet { ceilings: vec![(at(1), Offset(2_000))] },
        Event::GroupDeleted { tenant, group },
        Event::StreamDeleted { id: stream(), at: Timestamp(8) },
    ]
}

fn lease(name: &str) -> LeaseName {
    LeaseName::new(name).unwrap()
}

fn held(token: u64) -> HeldLease {
    HeldLease::new(LeaseToken(token), 100, Timestamp(13))
}

/// The facts that came after the first release.
fn events_2() -> Vec<Event> {
    let appended = Appended { partition: PartitionIndex(1), base_offset: Offset(50), count: 2 };
    let outcomes = vec![
        Outcome::Appended(appended),
        Outcome::Duplicate(appended),
        Outcome::Done,
        Outcome::Leased(LeaseToken(5)),
        Outcome::Resolved(Resolution::Absent),
        Outcome::Resolved(Resolution::Committed(vec![Outcome::Done])),
    ];
    vec![
        Event::CommitKept { id: CommitId(Uuid::from_u128(21)), outcomes, at: Timestamp(11) },
        Event::CommitFenced { id: CommitId(Uuid::from_u128(22)), at: Timestamp(12) },
        Event::PartitionsAdded { id: stream(), partitions: 4, from: Offset(1 << 40) },
        Event::ChunkAdded { chunk: chunk(5, 20, 30), at: Some(Timestamp(14)) },
        Event::Truncated {
            partition: at(1),
            start: Offset(6),
            at: Timestamp(15),
            is_expired: true,
        },
        Event::LeaseHeld { name: lease("given back"), lease: held(7) },
        Event::LeaseReleased { name: lease("given back") },
        Event::LeaseHeld { name: lease("coordinator"), lease: held(6) },
    ]
}

/// The facts that came with transactions.
fn events_3() -> Vec<Event> {
    let (tenant, group) = group();
    let id = |name: &str| TransactionalId::new(name).unwrap();
    let position = GroupPosition::new(Offset(3), &"a note".to_owned().into(), Timestamp(13));
    let initialized = |name: &str, number: i64, epoch: i16| TransactionEvent::Initialized {
        tenant: tenant.clone(),
        id: id(name),
        producer: ProducerId(number),
        epoch: ProducerEpoch(epoch),
        previous: (epoch > 0).then_some((ProducerId(number), ProducerEpoch(epoch - 1))),
        timeout_ms: 60_000,
        at: Timestamp(12),
    };
    let enlisted = |name: &str, groups: Vec<GroupName>| TransactionEvent::Enlisted {
        tenant: tenant.clone(),
        id: id(name),
        partitions: vec![at(0), at(1)],
        groups,
        at: Timestamp(13),
    };
    let all = vec![
        TransactionEvent::ProducerCreated { producer: ProducerId(6) },
        initialized("sink-0", 7, 1),
        initialized("sink-1", 8, 0),
        enlisted("sink-0", Vec::new()),
        enlisted("sink-1", vec![group.clone()]),
        TransactionEvent::PositionsPended {
            tenant: tenant.clone(),
            id: id("sink-1"),
            group,
            positions: vec![(at(0), position)],
        },
        TransactionEvent::Ended {
            tenant: tenant.clone(),
            id: id("sink-0"),
            producer: ProducerId(7),
            epoch: ProducerEpoch(2),
            is_commit: false,
            markers: vec![(at(0), Offset(0)), (at(1), Offset(54))],
            at: Timestamp(14),
        },
    ];
    all.into_iter().map(Event::Transaction).collect()
}

/// The fact that came with search indexes.
fn events_4() -> Vec<Event> {
    let indexed = ChunkMeta { index_bytes: Some(77), ..chunk(6, 30, 40) };
    vec![
        Event::ChunkIndexed {
            partition: at(1),
            chunk: ChunkId(Uuid::from_u128(5)),
            index: ChunkId(Uuid::from_u128(12)),
            index_path: "default/audit/p1/5-12.index".into(),
            index_bytes: 1_234,
            at: Timestamp(16),
        },
        Event::ChunkAdded { chunk: indexed, at: Some(Timestamp(17)) },
    ]
}

/// The state of the first release, and what came with attempts.
fn state_2() -> HotState {
    let mut hot = state();
    for event in events_2() {
        let _ = hot.apply(&event);
    }
    hot
}

/// And what came with transactions: an open one and an aborted one.
fn state_3() -> HotState {
    let mut hot = state_2();
    for event in events_3() {
        if let Event::Transaction(TransactionEvent::Ended { .. }) = event {
            for (id, base) in [(7, 52), (8, 53)] {
                let mut builder = BatchBuilder::default()
                    .producer(ProducerId(id), ProducerEpoch(0), Sequence(0))
                    .transactional();
                builder.push(Timestamp(1), None, &[], Some(b"v"));
                let batch = *builder.finish().placed(Offset(base), Epoch(3)).header();
                let event = AppendEvent { partition: at(1), appended: Timestamp(13), batch };
                let _ = hot.apply_append(&event);
            }
        }
        let _ = hot.apply(&event);
    }
    hot
}

/// A state with something of everything in it.
fn state() -> HotState {
    let mut hot = HotState { epoch: Epoch(3), ..HotState::default() };
    for event in events() {
        if !matches!(event, Event::GroupDeleted { .. } | Event::StreamDeleted { .. }) {
            let _ = hot.apply(&event);
        }
    }
    let _ = hot.apply_append(&append());
    hot
}

fn append() -> AppendEvent {
    let producer = Producer { id: ProducerId(5), epoch: ProducerEpoch(1), sequence: Sequence(0) };
    let batch = batch(77, 2, 0, Some(producer)).placed(Offset(50), Epoch(3));
    AppendEvent { partition: at(1), appended: Timestamp(10), batch: *batch.header() }
}

#[test]
fn the_meta_of_an_append_is_as_it_was() {
    let event = append();
    let bytes = golden("append-1.bin", &event.encode());
    let producer = Producer { id: ProducerId(5), epoch: ProducerEpoch(1), sequence: Sequence(0) };
    let batch = batch(77, 2, 0, Some(producer)).placed(Offset(50), Epoch(3));
    let read = AppendEvent::decode(&bytes, batch.bytes()).unwrap();
    assert_eq!((read.partition, read.appended), (event.partition, event.appended));
    assert_eq!(read.batch, event.batch);
    // Bytes that lie are refused, whichever they are.
    for len in 0..bytes.len() {
        assert!(AppendEvent::decode(&bytes[..len], batch.bytes()).is_err());
    }
    for len in 0..batch.bytes().len() {
        assert!(AppendEvent::decode(&bytes, &batch.bytes()[..len]).is_err());
    }
    for place in [0, 24, 40] {
        let mut wrong = bytes.clone();
        wrong[place] ^= 1;
        let error = AppendEvent::decode(&wrong, batch.bytes()).unwrap_err();
        let is_newer = matches!(error, Error::Unsupported(_));
        assert!(is_newer == (place == 0), "{error}");
        assert!(is_newer || matches!(error, Error::Damaged { .. }), "{error}");
    }
}

#[test]
fn every_event_is_as_it_was() {
    let files = [
        ("events-1.ndjson", events()),
        ("events-2.ndjson", events_2()),
        ("events-3.ndjson", events_3()),
        ("events-4.ndjson", events_4()),
    ];
    for (name, events) in files {
        let lines: Vec<String> =
            events.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
        let bytes = golden(name, (lines.join("\n") + "\n").as_bytes());
        let read: Vec<Event> = String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(read, events);
    }
}

#[test]
fn a_snapshot_is_as_it_was() {
    let hot = state_3();
    let (_, partition) = hot.require(at(1)).unwrap();
    assert_eq!(partition.stable(), Offset(53));
    assert!(partition.transactions.is_aborted(ProducerId(7), Offset(52)));
    let today = snapshot::encode(&hot, GroupSequence(42)).unwrap();
    // The first versions are read, and not written any more.
    let read = |name: &str| std::fs::read(file(name)).unwrap();
    let versions = [
        (read("snapshot-1.bin"), state()),
        (read("snapshot-2.bin"), state_2()),
        (golden("snapshot-3.bin", &today), hot),
    ];
    for (bytes, hot) in versions {
        let (read, sequence) = snapshot::decode(&bytes, "golden").unwrap();
        assert_eq!(sequence, GroupSequence(42));
        assert!(read == hot, "{read:#?}\n{hot:#?}");
        assert_eq!(read.group_positions, 2);
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_snapshot_is_noticed() {
    let bytes = snapshot::encode(&state_3(), GroupSequence(42)).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let error = snapshot::decode(&wrong, "a snapshot").unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "bit {bit}: {error}");
    }
    for len in 0..bytes.len() {
        assert!(snapshot::decode(&bytes[..len], "a snapshot").is_err(), "{len} bytes");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(snapshot::decode(&longer, "a snapshot").is_err());
    println!("{} bits flipped", bytes.len() * 8);
}

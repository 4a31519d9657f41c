//! The store over a real directory: what is acknowledged is there again.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::path::Path;
use std::time::Duration;

use aquifer_stream::{
    AppendRequest, DocumentExpectation, DocumentKey, DocumentKind, Environment, Error, Form,
    Isolation, NewStream, Operation, Options, PartitionAppend, Position, ReadRequest, StreamStore,
    StreamUpdate, Truncation,
};
use aquifer_types::{
    BatchBuilder, ErrorKind, Offset, PartitionIndex, Record, StreamClass, StreamConfig,
    StreamConfigChange, StreamName, StreamPath, TenantName, Timestamp,
};
use prometheus_client::registry::Registry;

fn path(name: &str) -> StreamPath {
    StreamPath::new(TenantName::default_tenant(), StreamName::new(name).unwrap())
}

fn options(data: &Path) -> Options {
    Options {
        data: data.to_owned(),
        journal_file_bytes: 1 << 20,
        journal_bytes_max: 64 << 20,
        disk_reserve_bytes: 0,
        tier_interval_ms: 10,
        ..Options::default()
    }
}

async fn open(options: Options) -> StreamStore {
    StreamStore::open(options, Environment::real(), &mut Registry::default()).await.unwrap()
}

fn stream(name: &str, partitions: u32, config: StreamConfig) -> NewStream {
    NewStream { path: path(name), partitions, class: StreamClass::Durable, config }
}

fn batch(values: &[String]) -> aquifer_types::Batch {
    let mut builder = BatchBuilder::default();
    for (at, value) in values.iter().enumerate() {
        builder.push(Timestamp(1_000 + at as i64), Some(b"k"), &[], Some(value.as_bytes()));
    }
    builder.finish()
}

async fn append(store: &StreamStore, name: &str, partition: u32, values: &[String]) -> Offset {
    let request = AppendRequest {
        path: path(name),
        appends: vec![PartitionAppend {
            partition: PartitionIndex(partition),
            batch: batch(values),
            expected_offset: None,
        }],
        idempotency_key: None,
    };
    store.append(request).await.unwrap().appends[0].base_offset
}

async fn read_all(store: &StreamStore, name: &str, partition: u32, from: Position) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = from;
    loop {
        let request = ReadRequest {
            path: path(name),
            partition: PartitionIndex(partition),
            from: at,
            bytes_max: 10_000,
            wait: Duration::ZERO,
            isolation: Isolation::Committed,
            form: Form::Records,
        };
        let answer = store.read(request).await.unwrap();
        records.extend(answer.records().unwrap());
        if answer.next_offset >= answer.stable_offset {
            return records;
        }
        at = Position::Offset(answer.next_offset);
    }
}

fn values(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("value {n} {}", "x".repeat(n % 50))).collect()
}

fn texts(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap())
        .collect()
}

async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the condition did not come true within 30 s");
}

fn tiered(store: &StreamStore, name: &str) -> bool {
    let description = store.describe_stream(&path(name)).unwrap();
    description.partitions.iter().all(|p| p.tiered_offset == p.end_offset)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_survive_a_restart_and_an_abandoned_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path())).await;
    store.create_stream(stream("a", 2, StreamConfig::default())).await.unwrap();
    assert!(matches!(
        store.create_stream(stream("a", 2, StreamConfig::default())).await,
        Err(Error::StreamExists(_))
    ));
    for n in 0..50 {
        assert_eq!(append(&store, "a", 0, &values(n * 3..n * 3 + 3)).await, Offset(n as i64 * 3));
    }
    assert_eq!(texts(&read_all(&store, "a", 0, Position::Earliest).await), values(0..150));
    store.shutdown().await.unwrap();
    drop(store);
    let store = open(options(dir.path())).await;
    assert!(store.recovery().was_clean);
    assert_eq!(store.recovery().epoch.get(), 2, "every start has an epoch of its own");
    assert_eq!(texts(&read_all(&store, "a", 0, Position::Earliest).await), values(0..150));
    assert_eq!(append(&store, "a", 0, &values(150..151)).await, Offset(150));
    assert_eq!(
        texts(&read_all(&store, "a", 0, Position::Offset(Offset(149))).await),
        values(149..151)
    );
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tiered_records_are_read_as_they_were_appended() {
    let dir = tempfile::tempdir().unwrap();
    let config = StreamConfig {
        chunk_target_bytes: 64 << 10,
        chunk_max_age_ms: 100,
        ..StreamConfig::default()
    };
    let store = open(options(dir.path())).await;
    store.create_stream(stream("t", 1, config)).await.unwrap();
    for n in 0..200 {
        append(&store, "t", 0, &values(n * 20..n * 20 + 20)).await;
    }
    let seen = texts(&read_all(&store, "t", 0, Position::Earliest).await);
    assert_eq!(seen.len(), 4_000);
    assert_eq!(seen, values(0..4_000));
    until(|| tiered(&store, "t")).await;
    assert!(!store.list_chunks(&path("t")).unwrap().is_empty());
    assert_eq!(texts(&read_all(&store, "t", 0, Position::Earliest).await), values(0..4_000));
    let at = store
        .resolve_position(&path("t"), PartitionIndex(0), Position::Time(Timestamp(1_019)))
        .await
        .unwrap();
    assert_eq!(at, Offset(19));
    store.shutdown().await.unwrap();
    drop(store);
    let store = open(options(dir.path())).await;
    assert_eq!(texts(&read_all(&store, "t", 0, Position::Earliest).await), values(0..4_000));
    append(&store, "t", 0, &values(4_000..4_001)).await;
    assert_eq!(
        texts(&read_all(&store, "t", 0, Position::Offset(Offset(3_990))).await),
        values(3_990..4_001)
    );
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_is_answered_as_the_first_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path())).await;
    store.create_stream(stream("i", 1, StreamConfig::default())).await.unwrap();
    let request = |values: &[String]| AppendRequest {
        path: path("i"),
        appends: vec![PartitionAppend {
            partition: PartitionIndex(0),
            batch: batch(values),
            expected_offset: None,
        }],
        idempotency_key: Some("order-1".into()),
    };
    let first = store.append(request(&values(0..2))).await.unwrap();
    let again = store.append(request(&values(0..2))).await.unwrap();
    assert_eq!(first.appends, again.appends);
    assert!(again.is_duplicate && !first.is_duplicate);
    // Documents alone repeat no append.
    let document = Operation::PutDocument {
        key: DocumentKey::new(TenantName::default_tenant(), DocumentKind::User, "ann"),
        value: "{}".into(),
        expected: DocumentExpectation::Any,
    };
    let nothing = AppendRequest { path: path("i"), appends: Vec::new(), idempotency_key: None };
    let alone = store.append_with_documents(nothing, vec![document]).await.unwrap();
    assert!(alone.appends.is_empty() && !alone.is_duplicate);
    assert!(matches!(store.append(request(&values(0..3))).await, Err(Error::Invalid(_))));
    store.shutdown().await.unwrap();
    drop(store);
    let store = open(options(dir.path())).await;
    assert!(store.append(request(&values(0..2))).await.unwrap().is_duplicate);
    assert_eq!(read_all(&store, "i", 0, Position::Earliest).await.len(), 2);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_precondition_appends_nothing_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path())).await;
    store.create_stream(stream("e", 2, StreamConfig::default())).await.unwrap();
    let append_to = |partition, expected| PartitionAppend {
        partition: PartitionIndex(partition),
        batch: batch(&values(0..1)),
        expected_offset: expected,
    };
    let request = AppendRequest {
        path: path("e"),
        appends: vec![append_to(0, Some(Offset(0))), append_to(1, Some(Offset(7)))],
        idempotency_key: None,
    };
    let error = store.append(request).await.unwrap_err();
    assert!(matches!(error, Error::UnexpectedOffset { partition: 1, .. }), "{error}");
    for partition in 0..2 {
        assert!(read_all(&store, "e", partition, Position::Earliest).await.is_empty());
    }
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn truncation_and_deletion_hold_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path())).await;
    store.create_stream(stream("d", 1, StreamConfig::default())).await.unwrap();
    append(&store, "d", 0, &values(0..10)).await;
    let cut = Truncation::Cut([(PartitionIndex(0), Offset(4))].into());
    store.truncate_stream(&path("d"), cut.clone()).await.unwrap();
    store.shutdown().await.unwrap();
    drop(store);
    let store = open(options(dir.path())).await;
    assert_eq!(texts(&read_all(&store, "d", 0, Position::Earliest).await), values(4..10));
    let below = ReadRequest {
        path: path("d"),
        partition: PartitionIndex(0),
        from: Position::Offset(Offset(3)),
        bytes_max: 100,
        wait: Duration::ZERO,
        isolation: Isolation::Committed,
        form: Form::Records,
    };
    assert_eq!(store.read(below).await.unwrap_err().earliest(), Some(Offset(4)));
    let update = StreamUpdate { partitions: Some(3), config: None };
    assert_eq!(store.update_stream(&path("d"), update).await.unwrap().partitions.len(), 3);
    store.delete_stream(&path("d")).await.unwrap();
    assert!(matches!(store.describe_stream(&path("d")), Err(Error::StreamNotFound(_))));
    store.create_stream(stream("d", 1, StreamConfig::default())).await.unwrap();
    assert!(read_all(&store, "d", 0, Position::Earliest).await.is_empty());
    store.shutdown().await.unwrap();
    drop(store);
    let store = open(options(dir.path())).await;
    assert!(read_all(&store, "d", 0, Position::Earliest).await.is_empty());
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_reader_is_woken_by_an_append() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path())).await;
    store.create_stream(stream("w", 1, StreamConfig::default())).await.unwrap();
    let reader = store.clone();
    let waiting = tokio::spawn(async move {
        let request = ReadRequest {
            path: path("w"),
            partition: PartitionIndex(0),
            from: Position::Latest,
            bytes_max: 100,
            wait: Duration::from_secs(30),
            isolation: Isolation::Committed,
            form: Form::Records,
        };
        reader.read(request).await.unwrap().records().unwrap()
    });
    append(&store, "w", 0, &values(0..1)).await;
    let records = waiting.await.unwrap();
    // The reader may have begun before or behind the append.
    assert!(records.len() <= 1);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_at_once_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path())).await;
    store.create_stream(stream("p", 1, StreamConfig::default())).await.unwrap();
    for round in 1..50 {
        let update = |config| StreamUpdate { config: Some(config), partitions: None };
        let age = StreamConfigChange {
            chunk_max_age_ms: Some(1_000 + round),
            ..StreamConfigChange::default()
        };
        let bytes = StreamConfigChange {
            retention_bytes: Some(Some(round)),
            ..StreamConfigChange::default()
        };
        let path = path("p");
        let (one, other) = tokio::join!(
            store.update_stream(&path, update(age)),
            store.update_stream(&path, update(bytes)),
        );
        one.and(other).unwrap();
        let config = store.describe_stream(&path).unwrap().summary.config;
        assert_eq!((config.chunk_max_age_ms, config.retention_bytes), (1_000 + round, Some(round)));
    }
    let wrong = StreamConfigChange { chunk_max_age_ms: Some(1), ..StreamConfigChange::default() };
    let update = StreamUpdate { config: Some(wrong), partitions: None };
    let refused = store.update_stream(&path("p"), update).await.unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)), "{refused}");
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_a_deleted_stream_is_told_that_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path())).await;
    store.create_stream(stream("g", 1, StreamConfig::default())).await.unwrap();
    append(&store, "g", 0, &values(0..10)).await;
    let view = store.view(&[path("g")], Isolation::Committed).unwrap();
    let (partition, _) = view.cuts().next().unwrap();
    let mut cursor = view.read(partition, Offset(0)).unwrap();
    store.delete_stream(&path("g")).await.unwrap();
    let error = cursor.next(100).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    store.shutdown().await.unwrap();
}

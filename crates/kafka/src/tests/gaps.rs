//! Fetches that start in gaps or run over them: what compaction and aborts left
//! out is passed over, also where nothing is behind it.

use std::time::Duration;

use aquifer_stream::{NewStream, StreamUpdate};
use aquifer_types::batch::split_batches;
use aquifer_types::{
    Batch, BatchBuilder, CleanupPolicy, ProducerEpoch, ProducerId, Sequence, StreamClass,
    StreamConfig, StreamConfigChange, StreamName, StreamPath, TenantName, Timestamp, TimestampType,
};
use bytes::Bytes;
use uuid::Uuid;

use super::client::{Client, Server};
use super::cold::tiered;
use super::data::{append, fetch, found, produce, records};
use super::transactions::{add, end, init};
use crate::KafkaOptions;

fn path() -> StreamPath {
    StreamPath::new(TenantName::default_tenant(), StreamName::new("a").unwrap())
}

/// A topic whose records soon lie in chunks, of each key the newest.
async fn create(server: &Server, config: StreamConfig) {
    let config = StreamConfig { chunk_target_bytes: 64 << 10, chunk_max_age_ms: 100, ..config };
    let (partitions, class) = (1, StreamClass::Durable);
    let new = NewStream { path: path(), partitions, class, config };
    server.store.create_stream(new).await.unwrap();
}

fn keyed(keys: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::default();
    for key in keys {
        builder.push(Timestamp(1_000), Some(key.as_bytes()), &[], Some(b"v"));
    }
    builder.finish().bytes().clone()
}

/// What a consumer finds from an offset on: it goes on behind each batch that it
/// is given, and never stands still before the visible end.
async fn consume(client: &mut Client, from: i64, committed: bool, bytes_max: i32) -> Vec<i64> {
    let (mut at, mut found_offsets) = (from, Vec::new());
    loop {
        let mut request = fetch(12, "a", Uuid::nil(), &[(0, at)]);
        request.isolation_level = i8::from(committed);
        request.max_bytes = bytes_max;
        request.topics[0].partitions[0].partition_max_bytes = bytes_max;
        let end = {
            // The end is answered at once, with nothing.
            let mut probe = request.clone();
            probe.max_wait_ms = 0;
            let response = client.call(12, probe).await;
            let partition = found(&response)[0];
            assert_eq!(partition.error_code, 0, "at {at}");
            if committed { partition.last_stable_offset } else { partition.high_watermark }
        };
        if at >= end {
            assert_eq!(at, end, "from {from}: led beyond the end");
            return found_offsets;
        }
        let response = client.call(12, request).await;
        let partition = found(&response)[0];
        assert_eq!(partition.error_code, 0, "at {at}");
        let offsets = records(partition).into_iter().map(|record| record.offset.get());
        found_offsets.extend(offsets.filter(|offset| *offset >= at));
        let batches = split_batches(partition.records.clone().unwrap()).unwrap();
        let last = Batch::read(batches.last().unwrap().clone()).unwrap();
        let next = last.header().next_offset().get();
        assert!(next > at, "from {from}: stands still at {at}");
        at = next;
    }
}

/// Checks what is found from every offset, in both isolations.
async fn check_all(client: &mut Client, left: &[i64], end: i64, what: &str) {
    for from in 0..=end {
        let expected: Vec<i64> = left.iter().copied().filter(|offset| *offset >= from).collect();
        for (committed, bytes_max) in [(false, 1 << 20), (true, 1 << 20), (true, 1)] {
            let found = consume(client, from, committed, bytes_max).await;
            assert_eq!(found, expected, "{what}: from {from}, {committed} {bytes_max}");
        }
    }
}

/// Waits until a consumer from the start finds these; fails after a minute.
async fn compacted(client: &mut Client, left: &[i64]) {
    for _ in 0..3_000 {
        if consume(client, 0, false, 1 << 20).await == left {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{left:?} are not what is left within a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_offset_of_a_gap_leads_on() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    let kafka = [("min.cleanable.dirty.ratio".to_owned(), "0".to_owned())].into();
    let cleanup_policy = CleanupPolicy::Compact;
    create(&server, StreamConfig { cleanup_policy, kafka, ..StreamConfig::default() }).await;
    // Offsets 1 to 10, 12 to 21 and 23 go; 0, 11, 22 and 24 stay.
    append(&mut client, "a", &[(0, keyed(&["first"]))]).await;
    append(&mut client, "a", &[(0, keyed(&["x"; 10]))]).await;
    append(&mut client, "a", &[(0, keyed(&["middle", "x", "x", "x", "x", "x"]))]).await;
    append(&mut client, "a", &[(0, keyed(&["x", "x", "x", "x", "x", "newest", "x"]))]).await;
    append(&mut client, "a", &[(0, keyed(&["x"]))]).await;
    // 25 to 29 are aborted, 30 is the marker: a gap up to the visible end.
    let producer = init(&mut client, "t").await;
    assert_eq!(add(&mut client, 3, "t", producer, &[0]).await, [0]);
    let mut builder = BatchBuilder::default()
        .producer(ProducerId(producer.0), ProducerEpoch(producer.1), Sequence(0))
        .transactional();
    for _ in 0..5 {
        builder.push(Timestamp(1_000), Some(b"aborted"), &[], Some(b"v"));
    }
    let mut request = produce(9, "a", Uuid::nil(), &[(0, builder.finish().bytes().clone())]);
    request.transactional_id = Some(super::transactions::named("t"));
    let response = client.call(9, request).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    assert_eq!(end(&mut client, 3, "t", producer, false).await, 0);
    tiered(&server, "a").await;
    let mut left = vec![0, 11, 22, 24];
    compacted(&mut client, &left).await;
    check_all(&mut client, &left, 31, "chunks").await;

    // A gap between chunks and the journal.
    let change =
        StreamConfigChange { chunk_max_age_ms: Some(3_600_000), ..StreamConfigChange::default() };
    let update = StreamUpdate { config: Some(change), partitions: None };
    server.store.update_stream(&path(), update).await.unwrap();
    append(&mut client, "a", &[(0, keyed(&["tail", "tail"]))]).await;
    left.extend([31, 32]);
    check_all(&mut client, &left, 33, "chunks and journal").await;
    server.stop().await;
}

/// Whose time the first records of the partition bear, and the times.
async fn times(client: &mut Client, count: usize) -> Vec<(TimestampType, i64)> {
    let (mut at, mut times) = (0, Vec::new());
    while times.len() < count {
        let response = client.call(12, fetch(12, "a", Uuid::nil(), &[(0, at)])).await;
        for bytes in split_batches(found(&response)[0].records.clone().unwrap()).unwrap() {
            let batch = Batch::read(bytes).unwrap();
            let of = match batch.header().is_append_time {
                true => TimestampType::Append,
                false => TimestampType::Create,
            };
            at = batch.header().next_offset().get();
            let records = batch.to_records(1 << 20).unwrap();
            times.extend(records.iter().map(|record| (of, record.timestamp.get())));
        }
    }
    times
}

/// Chunks say whose time their records bear, over merges, restarts and changes
/// of the setting.
#[tokio::test(flavor = "multi_thread")]
async fn the_servers_time_is_told_as_such_from_chunks_too() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    let timestamp_type = TimestampType::Append;
    let cleanup_policy = CleanupPolicy::Compact;
    let kafka = [("min.cleanable.dirty.ratio".to_owned(), "0".to_owned())].into();
    let config = StreamConfig { timestamp_type, cleanup_policy, kafka, ..StreamConfig::default() };
    create(&server, config).await;
    append(&mut client, "a", &[(0, keyed(&["a", "b"]))]).await;
    append(&mut client, "a", &[(0, keyed(&["c"]))]).await;
    let of_server = times(&mut client, 3).await;
    assert!(of_server.iter().all(|(of, _)| *of == TimestampType::Append), "{of_server:?}");
    tiered(&server, "a").await;
    // From now on it is the producers'.
    let change = StreamConfigChange {
        timestamp_type: Some(TimestampType::Create),
        ..StreamConfigChange::default()
    };
    let update = StreamUpdate { config: Some(change), partitions: None };
    server.store.update_stream(&path(), update).await.unwrap();
    append(&mut client, "a", &[(0, keyed(&["d", "e"]))]).await;
    tiered(&server, "a").await;
    let check = async |client: &mut Client, what: &str| {
        let times = times(client, 5).await;
        assert_eq!(times[..3], of_server[..], "{what}");
        assert_eq!(times[3..], [(TimestampType::Create, 1_000); 2], "{what}");
    };
    check(&mut client, "from chunks").await;
    let server = server.restart(KafkaOptions::default()).await;
    check(&mut server.client().await, "after a restart").await;
    server.stop().await;
}

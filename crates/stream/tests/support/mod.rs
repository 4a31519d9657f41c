//! What the tests of tiering and recovery have in common.

#![allow(dead_code, clippy::unwrap_used, reason = "each test uses a part of it")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::store::TierStore;
use aquifer_env::{MockClock, RealClock, RealDisk, SeededRandom};
use aquifer_stream::{
    AppendRequest, Environment, Error, Form, Isolation, NewStream, Options, PartitionAppend,
    Position, ReadRequest, StreamStore,
};
use aquifer_types::{
    BatchBuilder, Offset, PartitionIndex, Record, StreamClass, StreamConfig, StreamName,
    StreamPath, TenantName, Timestamp,
};
use prometheus_client::registry::Registry;

pub(crate) fn path(name: &str) -> StreamPath {
    StreamPath::new(TenantName::default_tenant(), StreamName::new(name).unwrap())
}

/// Small files, quick rounds, no grace, and no search indexes.
pub(crate) fn options(data: &Path) -> Options {
    Options {
        data: data.to_owned(),
        journal_file_bytes: 1 << 20,
        journal_bytes_max: 64 << 20,
        disk_reserve_bytes: 0,
        tier_interval_ms: 10,
        compaction_interval_ms: 10,
        chunk_grace_ms: 0,
        manifest_interval_ms_min: 0,
        retention_interval_ms: 3_600_000,
        index_chunk_bytes_min: u64::MAX,
        ..Options::default()
    }
}

/// A chunk of at least 64 KiB, or after 100 ms.
pub(crate) fn config() -> StreamConfig {
    StreamConfig { chunk_target_bytes: 64 << 10, chunk_max_age_ms: 100, ..StreamConfig::default() }
}

pub(crate) fn environment(tier2: &TierStore, seed: u64) -> Environment {
    Environment {
        disk: Arc::new(RealDisk::new()),
        clock: Arc::new(RealClock::new()),
        random: Arc::new(SeededRandom::new(seed)),
        tier2: Some(tier2.clone()),
    }
}

pub(crate) fn with_clock(tier2: &TierStore, seed: u64, clock: &Arc<MockClock>) -> Environment {
    Environment { clock: clock.clone(), ..environment(tier2, seed) }
}

pub(crate) async fn open(options: Options, environment: Environment) -> StreamStore {
    StreamStore::open(options, environment, &mut Registry::default()).await.unwrap()
}

pub(crate) async fn create(store: &StreamStore, name: &str, partitions: u32, config: StreamConfig) {
    let path = path(name);
    let new = NewStream { path, partitions, class: StreamClass::Durable, config };
    store.create_stream(new).await.unwrap();
}

pub(crate) fn values(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("value {n} {}", "x".repeat(n % 50))).collect()
}

/// The same as JSON, whose fields are more the further one gets, of more than
/// one kind, and now and then no JSON.
pub(crate) fn jsons(range: std::ops::Range<usize>) -> Vec<String> {
    let json = |n: usize| match n % 13 {
        0 => format!("value {n}"),
        1 => format!("{{\"n\":\"{n}\",\"user\":{n}}}"),
        2 => format!("{{\"n\":{n},\"cut"),
        _ => format!(
            "{{\"n\":{n},\"user\":{{\"name\":\"{}\",\"f{}\":{n}.5}},\"g{}\":true}}",
            "x".repeat(n % 50),
            n / 40,
            n / 90
        ),
    };
    range.map(json).collect()
}

/// Checks that every live chunk has the columns of its version of the schema,
/// that they hold what its values have, and that the stream's schema goes on
/// where the chunk's ends. Returns how many have such columns.
pub(crate) async fn check_fields(store: &StreamStore, tier2: &TierStore, names: &[&str]) -> usize {
    let mut count = 0;
    for name in names {
        // The chunks first: a schema is never older than what was seen before.
        let chunks = store.list_chunks(&path(name)).unwrap();
        let schema = store.schema(&store.stream(&path(name)).unwrap().id());
        for chunk in chunks {
            // It may have been replaced meanwhile.
            let Ok(bytes) = tier2.get(&chunk.object_path).await else { continue };
            aquifer_chunk::verify(chunk.object_path.as_str(), &bytes).unwrap();
            let reader =
                aquifer_chunk::ChunkReader::open(Arc::new(bytes), chunk.object_path.as_str(), None);
            let reader = reader.await.unwrap();
            let Some(of_chunk) = reader.footer().schema() else { continue };
            assert!(schema.fields().starts_with(of_chunk.fields()), "{}", chunk.object_path);
            assert!(of_chunk.version() <= schema.version() && of_chunk.version() > 0);
            count += 1;
        }
    }
    count
}

pub(crate) async fn try_append(
    store: &StreamStore,
    name: &str,
    partition: u32,
    values: &[String],
) -> Result<Offset, Error> {
    let mut builder = BatchBuilder::default();
    for (at, value) in values.iter().enumerate() {
        builder.push(Timestamp(1_000 + at as i64), Some(b"k"), &[], Some(value.as_bytes()));
    }
    let request = AppendRequest {
        path: path(name),
        appends: vec![PartitionAppend {
            partition: PartitionIndex(partition),
            batch: builder.finish(),
            expected_offset: None,
        }],
        idempotency_key: None,
    };
    store.append(request).await.map(|answer| answer.appends[0].base_offset)
}

pub(crate) async fn append(
    store: &StreamStore,
    name: &str,
    partition: u32,
    values: &[String],
) -> Offset {
    try_append(store, name, partition, values).await.unwrap()
}

pub(crate) async fn try_read_all(
    store: &StreamStore,
    name: &str,
    partition: u32,
) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    let mut at = Position::Earliest;
    loop {
        let request = ReadRequest {
            path: path(name),
            partition: PartitionIndex(partition),
            from: at,
            bytes_max: 20_000,
            wait: Duration::ZERO,
            isolation: Isolation::Committed,
            form: Form::Records,
        };
        let answer = store.read(request).await?;
        records.extend(answer.records()?);
        if answer.next_offset >= answer.stable_offset {
            return Ok(records);
        }
        at = Position::Offset(answer.next_offset);
    }
}

pub(crate) async fn read_all(store: &StreamStore, name: &str, partition: u32) -> Vec<Record> {
    try_read_all(store, name, partition).await.unwrap()
}

pub(crate) fn texts(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
    records.iter().map(text).collect()
}

/// Waits for what the background does; fails after a minute.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..6_000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: it did not come true within a minute");
}

/// Whether nothing is in the journal only.
pub(crate) fn is_tiered(store: &StreamStore, name: &str) -> bool {
    let description = store.describe_stream(&path(name)).unwrap();
    let held: u64 = description.partitions.iter().map(|partition| partition.bytes).sum();
    let chunks = store.list_chunks(&path(name)).unwrap();
    held == chunks.iter().map(|chunk| chunk.object_bytes).sum::<u64>()
}

pub(crate) async fn tiered(store: &StreamStore, name: &str) {
    until("everything is tiered", async || is_tiered(store, name)).await;
}

/// The objects below `folder`, or all that are neither manifest nor owner.
pub(crate) async fn chunks_in(tier2: &TierStore) -> Vec<String> {
    let entries = tier2.list("").await.unwrap().into_iter().map(|entry| entry.path);
    entries.filter(|path| !path.starts_with('_')).collect()
}

pub(crate) async fn listed(tier2: &TierStore, folder: &str) -> Vec<String> {
    tier2.list(folder).await.unwrap().into_iter().map(|entry| entry.path).collect()
}

/// Waits until no manifest follows any more.
pub(crate) async fn manifests_rest(tier2: &TierStore) {
    let mut before = listed(tier2, "_meta").await;
    until("the manifests rest", async || {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let now = listed(tier2, "_meta").await;
        let is_same = now == before;
        before = now;
        is_same
    })
    .await;
}

/// The objects of the live chunks of these streams, sorted.
pub(crate) fn live(store: &StreamStore, names: &[&str]) -> Vec<String> {
    let chunks = names.iter().flat_map(|name| store.list_chunks(&path(name)).unwrap());
    let mut paths: Vec<String> = chunks.map(|chunk| chunk.object_path).collect();
    paths.sort();
    paths
}

/// The same, and of their search indexes.
pub(crate) fn live_objects(store: &StreamStore, names: &[&str]) -> Vec<String> {
    let chunks = names.iter().flat_map(|name| store.list_chunks(&path(name)).unwrap());
    let both = chunks.flat_map(|chunk| std::iter::once(chunk.object_path).chain(chunk.index_path));
    let mut paths: Vec<String> = both.collect();
    paths.sort();
    paths
}

/// Whether every chunk has a search index.
pub(crate) fn is_indexed(store: &StreamStore, name: &str) -> bool {
    store.list_chunks(&path(name)).unwrap().iter().all(|chunk| chunk.index_path.is_some())
}

pub(crate) fn start_of(store: &StreamStore, name: &str, partition: usize) -> i64 {
    store.describe_stream(&path(name)).unwrap().partitions[partition].start_offset.get()
}

/// Copies a data directory.
#[allow(clippy::disallowed_methods, reason = "a test's own files")]
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

//! Tables over a real store: what a reader outside is given can be read for as
//! long as it is promised, and is what the stream holds.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apache_avro::Reader;
use apache_avro::types::Value as Avro;
use aquifer_env::store::TierStore;
use aquifer_env::{
    Clock as _, FaultRates, FaultyStore, MockClock, Random as _, RealDisk, SeededRandom,
};
use aquifer_stream::{
    AppendRequest, Environment, NewStream, Options, PartitionAppend, StreamStore, Truncation,
};
use aquifer_tables::{
    Error, LoadedTable, Snapshots, TableEnvironment, TableMetrics, TableOptions, Tables,
};
use aquifer_types::{
    BatchBuilder, ErrorKind, FieldKind, NewField, Offset, PartitionIndex, StreamClass,
    StreamConfig, StreamName, StreamPath, TenantName, Timestamp,
};
use prometheus_client::registry::Registry;
use serde_json::Value;

const ROOT: &str = "file:///tier2";
const GRACE_MS: u64 = 100_000;
const INTERVAL_MS: u64 = 1_000;
const LOADS_MAX: usize = 20;

fn path(name: &str) -> StreamPath {
    StreamPath::new(TenantName::default_tenant(), StreamName::new(name).unwrap())
}

struct World {
    store: StreamStore,
    tables: Tables,
    clock: Arc<MockClock>,
    registry: Registry,
}

impl World {
    async fn open(data: &Path, tier2: &TierStore, clock: &Arc<MockClock>, seed: u64) -> Self {
        let environment = Environment {
            disk: Arc::new(RealDisk::new()),
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(seed)),
            tier2: Some(tier2.clone()),
        };
        let random = environment.random.clone();
        let options = Options {
            data: data.to_owned(),
            journal_file_bytes: 1 << 20,
            journal_bytes_max: 64 << 20,
            disk_reserve_bytes: 0,
            tier_interval_ms: 10,
            chunk_grace_ms: GRACE_MS,
            manifest_interval_ms_min: 0,
            compaction_chunks_min: 4,
            ..Options::default()
        };
        let store =
            StreamStore::open(options, environment, &mut Registry::default()).await.unwrap();
        let options = TableOptions {
            location: Some(ROOT.to_owned()),
            snapshot_interval_ms_min: INTERVAL_MS,
            snapshot_ms_max: u64::MAX,
            snapshots_max: 20,
            loads_max: LOADS_MAX,
            ..TableOptions::default()
        };
        let mut registry = Registry::default();
        let metrics = TableMetrics::register(&mut registry);
        let environment = TableEnvironment { clock: clock.clone(), random, metrics };
        let tables = Tables::new(store.clone(), options, environment);
        Self { store, tables, clock: clock.clone(), registry }
    }

    async fn create(&self, name: &str, partitions: u32) {
        let config = StreamConfig {
            chunk_target_bytes: 64 << 10,
            chunk_max_age_ms: 100,
            ..StreamConfig::default()
        };
        let new = NewStream { path: path(name), partitions, class: StreamClass::Durable, config };
        self.store.create_stream(new).await.unwrap();
    }

    async fn append(&self, name: &str, partition: u32, count: usize) {
        self.append_values(name, partition, &vec!["value"; count]).await;
    }

    async fn append_values(&self, name: &str, partition: u32, values: &[&str]) {
        let mut builder = BatchBuilder::default();
        for (at, value) in values.iter().enumerate() {
            let time = Timestamp(1_000 + at as i64);
            builder.push(time, Some(b"k"), &[], Some(value.as_bytes()));
        }
        let append = PartitionAppend {
            partition: PartitionIndex(partition),
            batch: builder.finish(),
            expected_offset: None,
        };
        let request =
            AppendRequest { path: path(name), appends: vec![append], idempotency_key: None };
        self.store.append(request).await.unwrap();
    }

    async fn tiered(&self, name: &str) {
        until("everything is tiered", async || {
            // A chunk is cut when it is old enough.
            self.clock.advance(Duration::from_millis(200));
            let description = self.store.describe_stream(&path(name)).unwrap();
            description.partitions.iter().all(|of| of.tiered_offset >= of.end_offset)
        })
        .await;
    }

    async fn load(&self, name: &str) -> Result<Loaded, Error> {
        // So that the pace keeps no snapshot back.
        self.clock.advance(Duration::from_millis(INTERVAL_MS));
        self.load_at_once(name).await
    }

    async fn load_at_once(&self, name: &str) -> Result<Loaded, Error> {
        let loaded = self.tables.load(&path(name), Snapshots::All).await?;
        Ok(Loaded::new(loaded, self.clock.monotonic_ns()))
    }

    async fn truncate(&self, name: &str, partition: u32, to: i64) {
        let cut = BTreeMap::from([(PartitionIndex(partition), Offset(to))]);
        self.store.truncate_stream(&path(name), Truncation::Cut(cut)).await.unwrap();
    }

    /// Start and tiered offset of each partition.
    fn offsets(&self, name: &str) -> Vec<(i64, i64)> {
        let description = self.store.describe_stream(&path(name)).unwrap();
        let offsets = description.partitions.iter();
        offsets.map(|of| (of.start_offset.get(), of.tiered_offset.get())).collect()
    }
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..6_000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: it did not come true within a minute");
}

/// What a reader was given, and when.
struct Loaded {
    metadata: Value,
    at_ns: u64,
    location: String,
}

/// What a snapshot shows: data files as (partition, offset, rows), and how many
/// rows of them are deleted.
#[derive(Debug, PartialEq)]
struct Shown {
    files: Vec<(i64, i64, i64)>,
    deleted: i64,
}

/// What a reader needs, until when it may need it.
struct Needed {
    objects: BTreeSet<String>,
    until_ns: u64,
}

impl Shown {
    fn rows(&self) -> i64 {
        self.files.iter().map(|(_, _, rows)| rows).sum::<i64>() - self.deleted
    }
}

fn object(url: &str) -> &str {
    url.strip_prefix(ROOT).unwrap().strip_prefix('/').unwrap()
}

fn field<'a>(record: &'a Avro, name: &str) -> &'a Avro {
    let Avro::Record(fields) = record else { panic!("{record:?} is no record") };
    let (_, value) = fields.iter().find(|(known, _)| known == name).unwrap();
    if let Avro::Union(_, inner) = value { inner } else { value }
}

fn long(record: &Avro, name: &str) -> i64 {
    match field(record, name) {
        Avro::Long(value) => *value,
        Avro::Int(value) => i64::from(*value),
        other => panic!("{name} is {other:?}"),
    }
}

fn text<'a>(record: &'a Avro, name: &str) -> &'a str {
    let Avro::String(text) = field(record, name) else { panic!("{name} is no text") };
    text
}

async fn avro(tier2: &TierStore, url: &str) -> Vec<Avro> {
    let bytes = tier2.get(object(url)).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    Reader::new(&bytes[..]).unwrap().map(Result::unwrap).collect()
}

impl Loaded {
    fn new(loaded: LoadedTable, at_ns: u64) -> Self {
        let metadata = serde_json::from_slice(&loaded.metadata).unwrap();
        Self { metadata, at_ns, location: loaded.metadata_location }
    }

    fn snapshots(&self) -> &[Value] {
        self.metadata["snapshots"].as_array().unwrap()
    }

    fn current(&self) -> Option<&Value> {
        let id = self.metadata.get("current-snapshot-id")?;
        self.snapshots().iter().find(|snapshot| snapshot["snapshot-id"] == *id)
    }

    fn operations(&self) -> Vec<&str> {
        let snapshots = self.snapshots().iter();
        snapshots.map(|snapshot| snapshot["summary"]["operation"].as_str().unwrap()).collect()
    }

    async fn show(&self, tier2: &TierStore, snapshot: &Value) -> Shown {
        self.read(tier2, snapshot, &mut BTreeSet::new()).await
    }

    /// Reads a snapshot as readers outside do; every file in it must be there.
    /// Adds these to `objects`.
    async fn read(
        &self,
        tier2: &TierStore,
        snapshot: &Value,
        objects: &mut BTreeSet<String>,
    ) -> Shown {
        let (mut files, mut deleted) = (Vec::new(), 0);
        objects.insert(object(snapshot["manifest-list"].as_str().unwrap()).to_owned());
        for manifest in avro(tier2, snapshot["manifest-list"].as_str().unwrap()).await {
            let bytes = tier2.head(object(text(&manifest, "manifest_path"))).await.unwrap();
            assert_eq!(bytes as i64, long(&manifest, "manifest_length"));
            objects.insert(object(text(&manifest, "manifest_path")).to_owned());
            let is_deletes = long(&manifest, "content") == 1;
            let mut counts = [0; 3];
            for entry in avro(tier2, text(&manifest, "manifest_path")).await {
                let status = long(&entry, "status");
                counts[status as usize] += 1;
                if status == 2 {
                    continue;
                }
                assert!(
                    long(&entry, "sequence_number")
                        <= snapshot["sequence-number"].as_i64().unwrap()
                );
                let file = field(&entry, "data_file");
                let url = text(file, "file_path");
                objects.insert(object(url).to_owned());
                let bytes = tier2.head(object(url)).await;
                let bytes = bytes.unwrap_or_else(|error| panic!("{url} is not there: {error}"));
                assert_eq!(bytes as i64, long(file, "file_size_in_bytes"));
                let rows = long(file, "record_count");
                if is_deletes {
                    deleted += rows;
                    continue;
                }
                let Avro::Array(bounds) = field(file, "lower_bounds") else { panic!("no bounds") };
                let base = bounds.iter().find(|bound| long(bound, "key") == 2).unwrap();
                let Avro::Bytes(base) = field(base, "value") else { panic!("no value") };
                let base = i64::from_le_bytes(base.as_slice().try_into().unwrap());
                files.push((long(field(file, "partition"), "_partition_id"), base, rows));
            }
            let names = ["existing_files_count", "added_files_count", "deleted_files_count"];
            assert_eq!(names.map(|name| long(&manifest, name)), counts);
        }
        files.sort_unstable();
        let shown = Shown { files, deleted };
        let summary = &snapshot["summary"];
        let total = |name: &str| summary[name].as_str().unwrap().parse::<i64>().unwrap();
        assert_eq!(total("total-data-files"), shown.files.len() as i64);
        assert_eq!(total("total-records") - total("total-position-deletes"), shown.rows());
        shown
    }
}

fn rows_held(offsets: &[(i64, i64)]) -> i64 {
    offsets.iter().map(|(start, tiered)| tiered - start).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_follow_the_stream_at_their_pace() {
    let directory = tempfile::tempdir().unwrap();
    let (tier2, clock) = (TierStore::in_memory(), Arc::new(MockClock::new(1_000_000)));
    let world = World::open(directory.path(), &tier2, &clock, 1).await;
    world.create("a", 2).await;
    let empty = world.load("a").await.unwrap();
    assert!(empty.current().is_none() && empty.snapshots().is_empty());
    world.append("a", 0, 10).await;
    world.append("a", 1, 5).await;
    world.tiered("a").await;
    let first = world.load("a").await.unwrap();
    let shown = first.show(&tier2, first.current().unwrap()).await;
    assert_eq!(shown, Shown { files: vec![(0, 0, 10), (1, 0, 5)], deleted: 0 });
    assert_eq!(first.current().unwrap()["summary"]["aquifer.next-offsets"], "0:10,1:5");
    let same = world.load("a").await.unwrap();
    assert_eq!(same.location, first.location, "nothing changed");

    world.append("a", 0, 10).await;
    // The pace is the mock clock's, so nothing here hangs on how fast it runs.
    let made_ns = clock.monotonic_ns();
    let second = {
        world.tiered("a").await;
        world.load("a").await.unwrap()
    };
    assert_ne!(second.location, first.location);
    world.append("a", 1, 10).await;
    world.tiered("a").await;
    assert!(clock.monotonic_ns() > made_ns);
    let third = world.load("a").await.unwrap();
    assert_eq!(third.operations(), ["append", "append", "append"]);
    let at_once = world.load_at_once("a").await.unwrap();
    assert_eq!(at_once.location, third.location);
    for snapshot in third.snapshots() {
        third.show(&tier2, snapshot).await;
    }
    let only = world.tables.load(&path("a"), Snapshots::Current).await.unwrap();
    assert_eq!(Loaded::new(only, 0).snapshots().len(), 1);
    let missing = world.tables.load(&path("b"), Snapshots::All).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    world.store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_has_the_fields_of_its_stream() {
    let directory = tempfile::tempdir().unwrap();
    let (tier2, clock) = (TierStore::in_memory(), Arc::new(MockClock::new(1_000_000)));
    let mut world = World::open(directory.path(), &tier2, &clock, 5).await;
    world.create("a", 1).await;
    let schemas = |loaded: &Loaded| -> Vec<i64> {
        let all = loaded.metadata["schemas"].as_array().unwrap().iter();
        all.map(|schema| schema["schema-id"].as_i64().unwrap()).collect()
    };
    let names = |loaded: &Loaded| -> Vec<String> {
        let id = &loaded.metadata["current-schema-id"];
        let mut all = loaded.metadata["schemas"].as_array().unwrap().iter();
        let current = all.find(|schema| schema["schema-id"] == *id).unwrap();
        let fields = current["fields"].as_array().unwrap().iter().skip(7);
        fields.map(|field| field["name"].as_str().unwrap().to_owned()).collect()
    };
    let declare = async |world: &World, name: &str| {
        let path_of_field = vec![name.to_owned()];
        let field = NewField { path: path_of_field, kind: FieldKind::Int64, is_declared: true };
        world.store.declare_fields(&path("a"), &[field]).await.unwrap().version()
    };
    let empty = world.load("a").await.unwrap();
    assert_eq!((schemas(&empty), names(&empty).len()), (vec![0], 0));

    // A field that was declared is there without a snapshot.
    let first = declare(&world, "one").await;
    let loaded = world.load_at_once("a").await.unwrap();
    assert_eq!((schemas(&loaded), names(&loaded).join(" ")), (vec![1], "_unfit one".to_owned()));
    assert_eq!((first, loaded.snapshots().len()), (1, 0));
    world.append_values("a", 0, &[r#"{"one":1}"#, r#"{"one":null}"#]).await;
    world.tiered("a").await;
    let loaded = world.load("a").await.unwrap();
    let snapshot = loaded.current().unwrap().clone();
    assert_eq!(snapshot["schema-id"], loaded.metadata["current-schema-id"]);
    assert_eq!(manifest_schemas(&tier2, &snapshot).await, [1]);

    // Older snapshots keep theirs, over a restart too.
    let second = declare(&world, "two").await;
    let loaded = world.load("a").await.unwrap();
    assert_eq!((second, schemas(&loaded)), (2, vec![1, 2]));
    assert_eq!(names(&loaded).join(" "), "_unfit one two");
    assert_eq!(loaded.current().unwrap()["schema-id"], 1);
    world.store.shutdown().await.unwrap();
    drop(world);
    world = World::open(directory.path(), &tier2, &clock, 6).await;
    let again = world.load("a").await.unwrap();
    assert_eq!(again.location, loaded.location, "nothing changed");
    world.append_values("a", 0, &[r#"{"two":2}"#]).await;
    world.tiered("a").await;
    let loaded = world.load("a").await.unwrap();
    assert_eq!(loaded.current().unwrap()["schema-id"], 2);
    assert_eq!(loaded.snapshots()[0]["schema-id"], 1);
    assert_eq!(manifest_schemas(&tier2, loaded.current().unwrap()).await, [1, 2]);
    world.store.shutdown().await.unwrap();
}

/// The schemas that a snapshot's manifests were written under.
async fn manifest_schemas(tier2: &TierStore, snapshot: &Value) -> Vec<i64> {
    let mut found = Vec::new();
    for manifest in avro(tier2, snapshot["manifest-list"].as_str().unwrap()).await {
        let bytes = tier2.get(object(text(&manifest, "manifest_path"))).await.unwrap();
        let reader = Reader::new(&bytes[..]).unwrap();
        let id = std::str::from_utf8(&reader.user_metadata()["schema-id"]).unwrap();
        found.push(id.parse().unwrap());
    }
    found.sort_unstable();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn small_manifests_are_merged() {
    const PARTITIONS: u32 = 20;
    let directory = tempfile::tempdir().unwrap();
    let (tier2, clock) = (TierStore::in_memory(), Arc::new(MockClock::new(1_000_000)));
    let world = World::open(directory.path(), &tier2, &clock, 3).await;
    world.create("a", PARTITIONS).await;
    let mut most = 0;
    for partition in 0..PARTITIONS {
        world.append("a", partition, 3).await;
        world.tiered("a").await;
        let loaded = world.load("a").await.unwrap();
        let current = loaded.current().unwrap();
        assert_eq!(loaded.show(&tier2, current).await.rows(), 3 * i64::from(partition + 1));
        let manifests = avro(&tier2, current["manifest-list"].as_str().unwrap()).await;
        most = most.max(manifests.len());
        let added: i64 = manifests.iter().map(|file| long(file, "added_files_count")).sum();
        // Those of manifests that go on were added by their own snapshots.
        assert!(added >= 1);
    }
    assert_eq!(most, 17, "more are merged");
    world.store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_within_a_chunk_hides_rows() {
    let directory = tempfile::tempdir().unwrap();
    let (tier2, clock) = (TierStore::in_memory(), Arc::new(MockClock::new(1_000_000)));
    let world = World::open(directory.path(), &tier2, &clock, 2).await;
    world.create("a", 1).await;
    world.append("a", 0, 100).await;
    world.tiered("a").await;
    for (to, deleted) in [(0, 0), (30, 30), (31, 31), (99, 99)] {
        world.truncate("a", 0, to).await;
        let loaded = world.load("a").await.unwrap();
        let shown = loaded.show(&tier2, loaded.current().unwrap()).await;
        assert_eq!(shown, Shown { files: vec![(0, 0, 100)], deleted });
    }
    world.truncate("a", 0, 100).await;
    let loaded = world.load("a").await.unwrap();
    let shown = loaded.show(&tier2, loaded.current().unwrap()).await;
    assert_eq!(shown, Shown { files: Vec::new(), deleted: 0 });
    assert_eq!(loaded.operations(), ["append", "delete", "delete", "delete", "delete"]);
    world.store.shutdown().await.unwrap();
}

/// Whatever happens to a stream, each table that was loaded can be read for half
/// of the grace time, and shows what the stream held.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_can_be_read_for_as_long_as_promised() {
    let seed = aquifer_testkit::seed_from_env("AQUIFER_SEED");
    let random = SeededRandom::new(seed);
    let directory = tempfile::tempdir().unwrap();
    let (tier2, clock) = (TierStore::in_memory(), Arc::new(MockClock::new(1_000_000)));
    let faulty = FaultyStore::new(&tier2, seed);
    let mut world = World::open(directory.path(), &faulty.store(), &clock, seed).await;
    world.create("a", 2).await;
    let mut given: Vec<Needed> = Vec::new();
    let (mut failures, mut restarts, mut operations) = (0, 0, BTreeMap::new());
    let rounds = if aquifer_testkit::is_full_test() { 400 } else { 50 };
    for _ in 0..rounds {
        match random.next_u64() % 12 {
            0..6 => {
                let partition = (random.next_u64() % 2) as u32;
                world.append("a", partition, 1 + (random.next_u64() % 40) as usize).await;
                world.tiered("a").await;
            }
            6 => {
                let partition = (random.next_u64() % 2) as usize;
                let (start, tiered) = world.offsets("a")[partition];
                let to = start + (random.next_u64() % (1 + (tiered - start) as u64)) as i64;
                world.truncate("a", partition as u32, to).await;
            }
            7..9 => {
                let ms = random.next_u64() % (GRACE_MS / 3);
                clock.advance(Duration::from_millis(ms));
            }
            9 => {
                let rates = FaultRates { refused: 100, timed_out: 100, ..FaultRates::default() };
                faulty.set_rates(rates);
                failures += u32::from(world.load("a").await.is_err());
                faulty.set_rates(FaultRates::default());
            }
            10 => drop(world.tables.clean().await),
            _ => {
                world.store.shutdown().await.unwrap();
                drop(world);
                restarts += 1;
                world =
                    World::open(directory.path(), &faulty.store(), &clock, seed + restarts).await;
            }
        }
        let before = world.offsets("a");
        let loaded = world.load("a").await.unwrap();
        // Nothing is tiered between the two, and truncations are this test's.
        assert_eq!(before, world.offsets("a"));
        if let Some(current) = loaded.current() {
            let shown = loaded.show(&tier2, current).await;
            assert_eq!(shown.rows(), rows_held(&before), "seed {seed}");
        } else {
            assert_eq!(rows_held(&before), 0);
        }
        for operation in loaded.operations() {
            *operations.entry(operation.to_owned()).or_insert(0) += 1;
        }
        let mut objects = BTreeSet::from([object(&loaded.location).to_owned()]);
        for snapshot in loaded.snapshots() {
            loaded.read(&tier2, snapshot, &mut objects).await;
        }
        given.push(Needed { objects, until_ns: loaded.at_ns + GRACE_MS * 1_000_000 / 2 });
        let now_ns = clock.monotonic_ns();
        given.retain(|needed| now_ns < needed.until_ns);
        let there = tier2.list("").await.unwrap().into_iter().map(|entry| entry.path);
        let there: BTreeSet<String> = there.collect();
        for needed in &given {
            let missing: Vec<_> = needed.objects.difference(&there).collect();
            assert!(missing.is_empty(), "{missing:?}: seed {seed}");
        }
    }
    println!("{failures} failures, {restarts} restarts, {operations:?}");
    for kind in ["append", "delete"] {
        assert!(operations.contains_key(kind), "no {kind}: seed {seed}");
    }

    // In the end nothing is left that nothing names.
    clock.advance(Duration::from_millis(2 * GRACE_MS));
    let loaded = world.load("a").await.unwrap();
    clock.advance(Duration::from_millis(GRACE_MS));
    until("everything superfluous is deleted", async || {
        world.tables.clean().await.unwrap();
        let left = tier2.list("_iceberg").await.unwrap().len();
        let most = 1 + loaded.snapshots().len() * 40;
        left <= most
    })
    .await;
    world.store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn history_goes_on_after_a_restart_and_begins_anew_where_it_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let (tier2, clock) = (TierStore::in_memory(), Arc::new(MockClock::new(1_000_000)));
    let world = World::open(directory.path(), &tier2, &clock, 4).await;
    world.create("a", 1).await;
    for _ in 0..2 {
        world.append("a", 0, 10).await;
        world.tiered("a").await;
        world.load("a").await.unwrap();
    }
    world.truncate("a", 0, 5).await;
    let before = world.load("a").await.unwrap();
    world.store.shutdown().await.unwrap();
    drop(world);

    let world = World::open(directory.path(), &tier2, &clock, 5).await;
    let after = world.load("a").await.unwrap();
    assert_eq!(after.location, before.location, "nothing changed meanwhile");
    assert_eq!(after.metadata, before.metadata);
    world.append("a", 0, 10).await;
    world.tiered("a").await;
    let more = world.load("a").await.unwrap();
    assert_eq!(more.operations(), ["append", "append", "delete", "append"]);
    assert_eq!(more.current().unwrap()["summary"]["added-records"], "10");
    assert_eq!(more.show(&tier2, more.current().unwrap()).await.rows(), 25);
    world.store.shutdown().await.unwrap();
    drop(world);

    for (what, bytes) in [("nonsense", &b"nonsense"[..]), ("cut", &b"{"[..]), ("empty", &b""[..])] {
        let newest = object(&more.location).to_owned();
        let folder = newest.rsplit_once('/').unwrap().0;
        let next = format!("{folder}/9999999999-{what}.metadata.json");
        tier2.put(&next, bytes.to_vec().into()).await.unwrap();
        let world = World::open(directory.path(), &tier2, &clock, 6).await;
        let anew = world.load("a").await.unwrap();
        assert_eq!(anew.operations(), ["append"], "{what}");
        assert_eq!(anew.show(&tier2, anew.current().unwrap()).await.rows(), 25);
        world.store.shutdown().await.unwrap();
        drop(world);
        for entry in tier2.list("_iceberg").await.unwrap() {
            tier2.delete(&entry.path).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_a_deleted_stream_goes_after_the_grace_time() {
    let directory = tempfile::tempdir().unwrap();
    let (tier2, clock) = (TierStore::in_memory(), Arc::new(MockClock::new(1_000_000)));
    let world = World::open(directory.path(), &tier2, &clock, 7).await;
    for name in ["a", "b"] {
        world.create(name, 1).await;
        world.append(name, 0, 10).await;
        world.tiered(name).await;
        world.load(name).await.unwrap();
    }
    world.store.delete_stream(&path("a")).await.unwrap();
    assert_eq!(world.load("a").await.err().unwrap().kind(), ErrorKind::NotFound);
    world.create("a", 1).await;
    assert!(world.load("a").await.unwrap().current().is_none(), "another stream");
    let count = async || tier2.list("_iceberg").await.unwrap().len();
    assert_eq!(count().await, 3 + 3 + 1);
    world.tables.clean().await.unwrap();
    clock.advance(Duration::from_millis(GRACE_MS - 1));
    world.tables.clean().await.unwrap();
    assert_eq!(count().await, 3 + 3 + 1);
    clock.advance(Duration::from_millis(1));
    world.tables.clean().await.unwrap();
    assert_eq!(count().await, 3 + 1);
    world.store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_do_not_pile_up_while_tier_2_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let (tier2, clock) = (TierStore::in_memory(), Arc::new(MockClock::new(1_000_000)));
    let faulty = FaultyStore::new(&tier2, 9);
    let world = World::open(directory.path(), &faulty.store(), &clock, 9).await;
    world.create("a", 1).await;
    world.append("a", 0, 10).await;
    world.tiered("a").await;
    faulty.set_rates(FaultRates { stalled: 1_000, ..FaultRates::default() });
    let path = path("a");
    let load = || Box::pin(world.tables.load(&path, Snapshots::All));
    let mut loads: Vec<_> = (0..LOADS_MAX).map(|_| load()).collect();
    for load in &mut loads {
        assert!(futures::poll!(load).is_pending());
    }
    let busy = load().await.err().unwrap();
    assert_eq!(busy.kind(), ErrorKind::Throttled, "{busy}");
    // Who gives up leaves nothing behind, but for the one that had begun.
    let first = loads.remove(0);
    drop(loads);
    faulty.set_rates(FaultRates::default());
    faulty.release_stalled();
    first.await.unwrap();
    load().await.unwrap();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &world.registry).unwrap();
    let loads = text.lines().find(|line| line.starts_with("tables_loads_total ")).unwrap();
    assert_eq!(loads, "tables_loads_total 2");
    world.store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_taken_over_writes_no_table() {
    let directory = tempfile::tempdir().unwrap();
    let (tier2, clock) = (TierStore::in_memory(), Arc::new(MockClock::new(1_000_000)));
    let world = World::open(directory.path(), &tier2, &clock, 8).await;
    world.create("a", 1).await;
    world.append("a", 0, 10).await;
    world.tiered("a").await;
    tier2.put("_owner/0000009999", b"{}".to_vec().into()).await.unwrap();
    clock.advance(Duration::from_secs(2));
    let refused = world.load("a").await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Fenced, "{refused}");
    assert!(tier2.list("_iceberg").await.unwrap().is_empty());
    world.store.shutdown().await.unwrap();
}

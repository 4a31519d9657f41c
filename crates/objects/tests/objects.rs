//! Imports, watches and exports over a real store and real files.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]
#![allow(clippy::disallowed_methods, reason = "tests use real files")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::{Clock, RealClock};
use aquifer_objects::{
    Error, ExportBound, ExportCompression, ExportFormat, ExportSpec, Format, ImportSpec, JobState,
    JobStatus, ObjectEnvironment, ObjectMetrics, ObjectOptions, Objects, OnError, Upload,
    UploadAnswer, Work,
};
use aquifer_stream::{
    DocumentKind, Environment, Form, Isolation, NewStream, Options, PartitionAppend, Position,
    ReadRequest, StreamStore,
};
use aquifer_testkit::rand::RngExt as _;
use aquifer_types::{
    BatchBuilder, Header, NewRecord, PartitionIndex, Record, StreamClass, StreamConfig, StreamName,
    StreamPath, TenantName, Timestamp,
};
use bytes::Bytes;
use futures::StreamExt as _;
use prometheus_client::registry::Registry;

const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    store: StreamStore,
    objects: Objects,
    root: PathBuf,
}

fn tenant() -> TenantName {
    TenantName::default_tenant()
}

fn path(stream: &str) -> StreamPath {
    StreamPath::new(tenant(), StreamName::new(stream).unwrap())
}

impl Server {
    async fn start(root: &Path) -> Self {
        Self::start_with(root, |_| {}).await
    }

    async fn start_with(root: &Path, change: impl FnOnce(&mut ObjectOptions)) -> Self {
        let mut registry = Registry::default();
        let options =
            Options { data: root.join("data"), journal_file_bytes: 1 << 20, ..Options::default() };
        let environment = Environment::real();
        let (clock, random) = (environment.clock.clone(), environment.random.clone());
        let store = StreamStore::open(options, environment, &mut registry).await.unwrap();
        let mut options = ObjectOptions {
            allowed: vec![format!("file://{}/", root.join("files").display())],
            part_bytes: 16 << 10,
            watch_poll_ms: 20,
            watch_settle_ms: 0,
            retry_ms_min: 1,
            retry_ms_max: 20,
            ..ObjectOptions::default()
        };
        change(&mut options);
        std::fs::create_dir_all(root.join("files")).unwrap();
        let metrics = ObjectMetrics::register(&mut registry);
        let environment = ObjectEnvironment { clock, random, metrics };
        let objects = Objects::start(store.clone(), options, environment);
        Self { store, objects, root: root.to_owned() }
    }

    async fn stop(self) {
        self.objects.stop().await;
        self.store.shutdown().await.unwrap();
    }

    async fn create(&self, name: &str, partitions: u32) {
        let (class, config) = (StreamClass::Durable, StreamConfig::default());
        let new = NewStream { path: path(name), partitions, class, config };
        self.store.create_stream(new).await.unwrap();
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.root.join("files").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn url(&self, name: &str) -> String {
        format!("file://{}/{name}", self.root.join("files").display())
    }

    fn spec(&self, stream: &str, name: &str) -> ImportSpec {
        ImportSpec::new(StreamName::new(stream).unwrap(), vec![self.url(name)])
    }

    async fn import(&self, spec: ImportSpec) -> JobStatus {
        let job = self.objects.create(&tenant(), Work::Import(spec)).await.unwrap();
        self.ended(DocumentKind::Import, &job.id).await
    }

    async fn ended(&self, kind: DocumentKind, id: &str) -> JobStatus {
        self.until(|| {
            let job = self.objects.get(&tenant(), kind, id).unwrap();
            (job.document.state != JobState::Running).then_some(job)
        })
        .await
    }

    /// Waits until something is there.
    async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let waiting = async {
            let mut changed = self.store.watch_documents();
            loop {
                if let Some(found) = look() {
                    return found;
                }
                let _ = tokio::time::timeout(Duration::from_millis(20), changed.changed()).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("it happens in time")
    }

    async fn records(&self, stream: &str) -> Vec<(u32, Record)> {
        let partitions = self.store.stream_shape(&path(stream)).unwrap().partitions;
        let mut found = Vec::new();
        for partition in 0..partitions {
            let mut from = Position::Earliest;
            loop {
                let request = ReadRequest {
                    path: path(stream),
                    partition: PartitionIndex(partition),
                    from,
                    bytes_max: 1 << 20,
                    wait: Duration::ZERO,
                    isolation: Isolation::Committed,
                    form: Form::Records,
                };
                let answer = self.store.read(request).await.unwrap();
                if answer.blocks.is_empty() {
                    break;
                }
                from = Position::Offset(answer.next_offset);
                found.extend(answer.records().unwrap().into_iter().map(|of| (partition, of)));
            }
        }
        found
    }

    async fn values(&self, stream: &str) -> Vec<String> {
        let records = self.records(stream).await;
        let text = |record: &Record| {
            String::from_utf8_lossy(record.value.as_deref().unwrap_or(b"-")).into_owned()
        };
        records.iter().map(|(_, record)| text(record)).collect()
    }

    fn end(&self, stream: &str) -> i64 {
        let description = self.store.describe_stream(&path(stream)).unwrap();
        description.partitions.iter().map(|partition| partition.end_offset.get()).sum()
    }

    async fn upload(
        &self,
        spec: ImportSpec,
        name: &str,
        version: &str,
        pieces: Vec<Result<Bytes, String>>,
    ) -> Result<UploadAnswer, Error> {
        let upload = Upload { spec, name: name.to_owned(), version: version.to_owned() };
        let body = futures::stream::iter(pieces).boxed();
        self.objects.upload(&tenant(), upload, body).await
    }
}

fn lines(range: std::ops::Range<usize>) -> String {
    range.map(|number| format!("{{\"n\":{number},\"pad\":\"{}\"}}\n", "x".repeat(60))).collect()
}

fn numbers(values: &[String]) -> Vec<u64> {
    let number = |value: &String| {
        serde_json::from_str::<serde_json::Value>(value).unwrap()["n"].as_u64().unwrap()
    };
    values.iter().map(number).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_imported_once() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    server.create("s", 3).await;
    server.write("in/a.json", lines(0..500));
    server.write("in/b/c.ndjson", lines(500..600));
    server.write("in/_SUCCESS", "");
    server.write("in/d.csv", "n,t\n600,a\n601,\n");
    let job = server.import(server.spec("s", "in/")).await;
    assert_eq!(job.document.state, JobState::Done, "{job:?}");
    assert_eq!((job.document.objects, job.document.records), (3, 602));
    let mut found = numbers(&server.values("s").await);
    found.sort_unstable();
    assert_eq!(found, (0..602).collect::<Vec<_>>());
    // Again: nothing. Also by the object's own address.
    for name in ["in/", "in", "in/a.json"] {
        let job = server.import(server.spec("s", name)).await;
        assert_eq!((job.document.state, job.document.objects), (JobState::Done, 0), "{job:?}");
    }
    assert_eq!(server.end("s"), 602);
    // Another version is another object; another stream another place.
    server.write("in/d.csv", "n\n7\n");
    let job = server.import(server.spec("s", "in/")).await;
    assert_eq!((job.document.objects, job.document.records), (1, 1));
    server.create("t", 1).await;
    let job = server.import(server.spec("t", "in/")).await;
    assert_eq!((job.document.objects, job.document.records), (3, 601));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_lose_and_repeat_nothing() {
    let mut random = aquifer_testkit::rng_from_env();
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    server.create("s", 2).await;
    server.write("in/a.json.gz", zipped(&lines(0..4000)));
    for number in 0..20 {
        server
            .write(&format!("in/b{number:02}.json"), lines(4000 + number * 10..4010 + number * 10));
    }
    let job =
        server.objects.create(&tenant(), Work::Import(server.spec("s", "in/"))).await.unwrap();
    server.stop().await;
    let mut stops = 0;
    loop {
        let server = Server::start(directory.path()).await;
        let until = server.end("s") + random.random_range(0..900);
        let state = server
            .until(|| {
                let job = server.objects.get(&tenant(), DocumentKind::Import, &job.id).unwrap();
                let is_over = job.document.state != JobState::Running;
                (is_over || server.end("s") >= until).then_some(job)
            })
            .await;
        server.stop().await;
        stops += 1;
        if state.document.state != JobState::Running {
            assert_eq!(state.document.state, JobState::Done, "{state:?}");
            assert_eq!((state.document.objects, state.document.records), (21, 4200));
            break;
        }
    }
    println!("{stops} stops");
    let server = Server::start(directory.path()).await;
    let mut found = numbers(&server.values("s").await);
    // The order of an object's lines is kept, since they have no keys.
    let of_first: Vec<u64> = found.iter().copied().filter(|number| *number < 4000).collect();
    assert!(of_first.is_sorted());
    found.sort_unstable();
    assert_eq!(found, (0..4200).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_stops_or_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    server.create("s", 1).await;
    server.write("a.json", format!("{}no json\n{}", lines(0..300), lines(300..310)));
    let job = server.import(server.spec("s", "a.json")).await;
    assert_eq!(job.document.state, JobState::Failed);
    let failure = job.document.failure.unwrap();
    assert!(failure.contains("a.json, row 301: the line is not JSON"), "{failure}");
    // What is before it is there, and is not imported again.
    assert_eq!(server.end("s"), 300);
    let spec = ImportSpec { on_error: OnError::Skip, ..server.spec("s", "a.json") };
    let job = server.import(spec).await;
    assert_eq!(job.document.state, JobState::Done, "{job:?}");
    assert_eq!(job.document.bad_rows, 1);
    assert_eq!(job.document.errors[0].row, 301);
    assert_eq!(numbers(&server.values("s").await), (0..310).collect::<Vec<_>>());
    server.stop().await;
}

fn zipped(text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_to_its_end_is_not_whole() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    server.create("s", 1).await;
    let whole = zipped(&lines(0..2000));
    server.write("in/a.json.gz", &whole[..whole.len() / 2]);
    server.write("in/b.json", lines(2000..2010));
    let skipping = || ImportSpec { on_error: OnError::Skip, ..server.spec("s", "in/") };
    let job = server.import(skipping()).await;
    assert_eq!((job.document.state, job.document.objects), (JobState::Failed, 1), "{job:?}");
    let failure = job.document.failure.unwrap();
    assert!(failure.contains("a.json.gz, row "), "{failure}");
    let before = server.end("s");
    assert!((11..2010).contains(&before), "{before}");
    // A watch names it, and goes on with what comes.
    let watch = server.objects.create(&tenant(), Work::Watch(skipping())).await.unwrap().id;
    let status = || server.objects.get(&tenant(), DocumentKind::Watch, &watch).unwrap();
    server.write("in/c.json", lines(2010..2020));
    let named =
        server.until(|| status().now.last_error.filter(|_| server.end("s") >= before + 10)).await;
    assert!(named.contains("a.json.gz, row "), "{named}");
    assert_eq!(status().document.state, JobState::Running);
    server.until(|| (status().now.behind == 1).then_some(())).await;
    assert_eq!(server.end("s"), before + 10, "rows are not imported again");
    // Whole, it is another version.
    server.write("in/a.json.gz", whole);
    server.until(|| (server.end("s") >= before + 10 + 2000).then_some(())).await;
    server.until(|| status().now.last_error.is_none().then_some(())).await;
    assert_eq!(server.end("s"), before + 10 + 2000);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_allowed_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), |options| options.jobs_max = 1).await;
    server.create("s", 1).await;
    let check = async |work: Work, part: &str| {
        let error = server.objects.create(&tenant(), work).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    let urls =
        |url: &str| Work::Import(ImportSpec { urls: vec![url.to_owned()], ..server.spec("s", "") });
    check(urls("file:///etc/passwd"), "objects.allowed").await;
    check(urls("s3://bucket/a"), "objects.allowed").await;
    check(urls(&server.url("../data/LOCK")), "objects.allowed").await;
    check(Work::Import(server.spec("absent", "a")), "absent does not exist").await;
    let export = ExportSpec {
        stream: StreamName::new("absent").unwrap(),
        url: server.url("made"),
        format: ExportFormat::Records,
        compression: ExportCompression::None,
        partitions: Vec::new(),
        from: ExportBound::default(),
        to: ExportBound::default(),
        object_bytes: None,
    };
    check(Work::Export(export.clone()), "absent does not exist").await;
    assert!(!server.root.join("files/made").exists(), "nothing is made for what is refused");
    let tier2 = format!("file://{}/tier%32", server.root.join("data").display());
    check(Work::Export(ExportSpec { url: tier2, ..export }), "lies in tier 2").await;
    check(Work::Import(ImportSpec { urls: Vec::new(), ..server.spec("s", "") }), "no address")
        .await;
    let partition = ImportSpec { partition: Some(1), ..server.spec("s", "a") };
    check(Work::Import(partition), "no partition 1").await;
    let job = server.import(server.spec("s", "absent")).await;
    assert!(job.document.failure.unwrap().contains("not found"), "the file is absent");
    // One that has ended makes room for the next.
    server.write("a.json", lines(0..1));
    let job = server.import(server.spec("s", "a.json")).await;
    assert_eq!(server.objects.list(&tenant(), DocumentKind::Import).len(), 1);
    server.objects.delete(&tenant(), DocumentKind::Import, &job.id).await.unwrap();
    let error = server.objects.get(&tenant(), DocumentKind::Import, &job.id).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_with_what_comes() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    server.create("s", 1).await;
    // What it watches may be yet to come.
    let watch = Work::Watch(server.spec("s", "in/"));
    let watch = server.objects.create(&tenant(), watch).await.unwrap().id;
    server.write("in/a.json", lines(0..10));
    server.until(|| (server.end("s") == 10).then_some(())).await;
    server.write("in/b.json", lines(10..20));
    server.until(|| (server.end("s") == 20).then_some(())).await;
    let paused = server.objects.pause_watch(&tenant(), &watch, true).await.unwrap();
    assert_eq!(paused.document.state, JobState::Paused);
    server.stop().await;
    // A pause and all that was done outlive a restart.
    let server = Server::start(directory.path()).await;
    server.write("in/c.json", format!("{}broken\n", lines(20..30)));
    let status = || server.objects.get(&tenant(), DocumentKind::Watch, &watch).unwrap();
    assert_eq!(status().document.state, JobState::Paused);
    server.objects.pause_watch(&tenant(), &watch, false).await.unwrap();
    let failed =
        server.until(|| Some(status()).filter(|job| job.document.state == JobState::Failed)).await;
    assert!(failed.document.failure.unwrap().contains("c.json, row 11"));
    assert_eq!(server.end("s"), 30);
    // Mended, it is another version: all of it is imported.
    server.write("in/c.json", lines(30..40));
    server.objects.pause_watch(&tenant(), &watch, false).await.unwrap();
    server.until(|| (server.end("s") == 40).then_some(())).await;
    server.until(|| (status().document.objects == 3).then_some(())).await;
    server.objects.delete(&tenant(), DocumentKind::Watch, &watch).await.unwrap();
    assert_eq!(numbers(&server.values("s").await), (0..40).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_where_it_broke_off() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    server.create("s", 1).await;
    let spec = || ImportSpec { urls: Vec::new(), ..server.spec("s", "") };
    let text = lines(0..2000);
    let pieces = |through: usize, end: Option<&str>| {
        let pieces = text.as_bytes()[..through].chunks(1000);
        let pieces = pieces.map(|piece| Ok(Bytes::copy_from_slice(piece)));
        pieces.chain(end.map(|why| Err(why.to_owned()))).collect::<Vec<_>>()
    };
    let half = pieces(text.len() / 2, Some("it broke off"));
    let error = server.upload(spec(), "a.json", "1", half).await.unwrap_err();
    assert!(error.to_string().contains("broke off"), "{error}");
    let before = server.end("s");
    assert!((1..1100).contains(&before), "{before}");
    // One that breaks off earlier takes nothing back.
    let less = pieces(text.len() / 10, Some("it broke off"));
    server.upload(spec(), "a.json", "1", less).await.unwrap_err();
    assert_eq!(server.end("s"), before);
    let answer = server.upload(spec(), "a.json", "1", pieces(text.len(), None)).await.unwrap();
    assert_eq!((answer.before, answer.records), (false, 2000));
    let answer = server.upload(spec(), "a.json", "1", pieces(text.len(), None)).await.unwrap();
    assert!(answer.before);
    assert_eq!(numbers(&server.values("s").await), (0..2000).collect::<Vec<_>>());
    // Bad rows are named, and Parquet is taken as a whole.
    let bad = vec![Ok(Bytes::from("{}\nx\n{}\n"))];
    let error = server.upload(spec(), "b.json", "1", bad.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Row { row: 2, .. }), "{error}");
    let skipping = ImportSpec { on_error: OnError::Skip, ..spec() };
    let answer = server.upload(skipping, "b.json", "1", bad).await.unwrap();
    assert_eq!((answer.records, answer.bad_rows, answer.errors.len()), (2, 1, 1));
    let parquet = vec![Ok(Bytes::from("no parquet at all"))];
    let error = server.upload(spec(), "c.parquet", "1", parquet).await.unwrap_err();
    assert!(error.to_string().contains("Parquet"), "{error}");
    server.stop().await;
}

async fn fill(server: &Server, stream: &str, count: i64) {
    for first in (0..count).step_by(100) {
        let mut appends = Vec::new();
        for partition in 0..2 {
            let mut builder = BatchBuilder::default();
            for number in first..(first + 100).min(count) {
                let record = NewRecord {
                    timestamp: Some(Timestamp(1000 + number)),
                    key: Some(Bytes::from(format!("k{}", number % 7))),
                    headers: match number % 5 {
                        0 => vec![Header { key: "h".into(), value: None }],
                        _ => Vec::new(),
                    },
                    value: (number % 11 > 0)
                        .then(|| Bytes::from(format!("{{\"n\":{number},\"p\":{partition}}}"))),
                };
                let time = record.timestamp.unwrap();
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                builder.push(time, key, &record.headers, value);
            }
            let batch = builder.finish();
            let partition = PartitionIndex(partition);
            appends.push(PartitionAppend { partition, batch, expected_offset: None });
        }
        let path = path(stream);
        let request = aquifer_stream::AppendRequest { path, appends, idempotency_key: None };
        server.store.append(request).await.unwrap();
    }
}

/// What of a record is its own.
type Content = (Option<Bytes>, Option<Bytes>, Vec<Header>, Timestamp);

fn contents(records: Vec<(u32, Record)>) -> Vec<Content> {
    let mut contents: Vec<Content> = records
        .into_iter()
        .map(|(_, record)| (record.key, record.value, record.headers, record.timestamp))
        .collect();
    contents.sort_by(|a, b| (&a.0, &a.1, a.3).cmp(&(&b.0, &b.1, b.3)));
    contents
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_imported_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    server.create("s", 2).await;
    fill(&server, "s", 1000).await;
    let formats = [ExportFormat::Records, ExportFormat::Parquet, ExportFormat::Avro];
    for (number, format) in formats.into_iter().enumerate() {
        let folder = format!("out{number}");
        let spec = ExportSpec {
            stream: StreamName::new("s").unwrap(),
            url: server.url(&folder),
            format,
            compression: ExportCompression::Zstd,
            partitions: Vec::new(),
            from: ExportBound::default(),
            to: ExportBound::default(),
            object_bytes: Some(8 << 10),
        };
        let job = server.objects.export(&tenant(), spec.clone()).await.unwrap();
        let job = server.ended(DocumentKind::Export, &job.id).await;
        assert_eq!(job.document.state, JobState::Done, "{job:?}");
        assert_eq!(job.document.records, 2000);
        assert!(job.document.objects > 10);
        // The same again finds what is there.
        let again = server.objects.export(&tenant(), spec).await.unwrap();
        let again = server.ended(DocumentKind::Export, &again.id).await;
        assert_eq!(again.document.state, JobState::Done, "{again:?}");
        assert_eq!(again.document.bytes, job.document.bytes);
        let copy = format!("copy{number}");
        server.create(&copy, 3).await;
        let job = server.import(server.spec(&copy, &folder)).await;
        assert_eq!(job.document.state, JobState::Done, "{job:?}");
        let (found, expected) = (server.records(&copy).await, server.records("s").await);
        assert_eq!(contents(found), contents(expected), "{format:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_its_range_and_touches_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path()).await;
    server.create("s", 2).await;
    fill(&server, "s", 200).await;
    let spec = |from: ExportBound, to: ExportBound, folder: &str| ExportSpec {
        stream: StreamName::new("s").unwrap(),
        url: server.url(folder),
        format: ExportFormat::Records,
        compression: ExportCompression::None,
        partitions: vec![1],
        from,
        to,
        object_bytes: None,
    };
    let run = async |spec: ExportSpec| {
        let job = server.objects.export(&tenant(), spec).await.unwrap();
        server.ended(DocumentKind::Export, &job.id).await
    };
    let offset = |offset| ExportBound { offset: Some(offset), time: None };
    let job = run(spec(offset(10), ExportBound { offset: None, time: Some(1050) }, "a")).await;
    assert_eq!((job.document.state, job.document.records), (JobState::Done, 40), "{job:?}");
    let name = format!("files/a/s/p1/{:020}-{:020}.records", 10, 50);
    let text = std::fs::read_to_string(directory.path().join(&name)).unwrap();
    assert!(text.starts_with("{\"partition\":1,\"offset\":10,\"timestamp\":1010"), "{text}");
    assert_eq!(text.lines().count(), 40);
    // What lies there and is another object stays.
    std::fs::write(directory.path().join(&name), "mine").unwrap();
    let job = run(spec(offset(10), offset(50), "a")).await;
    assert!(job.document.failure.unwrap().contains("something else"));
    assert_eq!(std::fs::read_to_string(directory.path().join(&name)).unwrap(), "mine");
    let nothing = run(spec(offset(50), offset(50), "b")).await;
    assert_eq!((nothing.document.state, nothing.document.objects), (JobState::Done, 0));
    let outside =
        ExportSpec { url: "file:///tmp/elsewhere".into(), ..spec(offset(0), offset(1), "") };
    let error = server.objects.export(&tenant(), outside).await.unwrap_err();
    assert!(matches!(error, Error::NotAllowed(_)), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), |options| options.remembered_max = 2).await;
    server.create("s", 1).await;
    for name in ["a", "b", "c"] {
        server.write(&format!("in/{name}.json"), lines(0..1));
    }
    let job = server.import(server.spec("s", "in/")).await;
    let failure = job.document.failure.unwrap();
    assert!(failure.contains("objects.remembered_max"), "{failure}");
    assert_eq!(server.end("s"), 2, "what cannot be remembered is not imported");
    server.store.delete_stream(&path("s")).await.unwrap();
    server.stop().await;
    let server = Server::start(directory.path()).await;
    server
        .until(|| {
            let known = server.store.all_documents(DocumentKind::ImportedObject);
            known.is_empty().then_some(())
        })
        .await;
    server.create("s", 1).await;
    let text = ImportSpec { format: Format::Text, ..server.spec("s", "in/") };
    let job = server.import(text).await;
    assert_eq!((job.document.state, job.document.records), (JobState::Done, 3));
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    assert!(job.document.ended.unwrap() <= clock.now_ms());
    server.stop().await;
}

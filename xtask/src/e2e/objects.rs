//! Scenario `objects`: objects of an S3 server and files become records exactly
//! once while the server is killed again and again; a watch goes on with what
//! comes; what is exported is read by pyarrow and DuckDB, and imported again.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rand::RngExt as _;
use serde_json::{Value, json};

use crate::e2e::client::Client;
use crate::e2e::s3::{Store, on_s3};
use crate::e2e::server::Server;
use crate::e2e::{Context, eventually};
use crate::steps::Report;
use crate::workspace::run_quietly;

/// The bucket of the S3 server.
const BUCKET: &str = "aquifer-test";
const PARTITIONS: u32 = 2;
/// Objects, and records of each, in the quick and in the full test.
const OBJECTS: (u64, u64) = (12, 60);
const RECORDS: u64 = 4_000;
/// A server lives this long before it is killed.
const LIFE_MS: std::ops::Range<u64> = 20..250;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(context: &Context) -> Result<Report> {
    let python = match context.python() {
        Ok(python) => python,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let directory = context.directory("objects")?;
    let s3 = Store::start(&python, directory.path())?;
    let bucket = Bucket { url: format!("http://{}/{BUCKET}", s3.address) };
    let files = directory.path().join("files");
    std::fs::create_dir(&files)?;
    let allowed = format!("objects.allowed=[\"s3://{BUCKET}/\", \"file://{}/\"]", files.display());
    let settings = [&*allowed, "objects.watch_poll_ms=50", "objects.part_bytes=65536"];
    let options = on_s3(context.options(directory.path()), &format!("http://{}", s3.address))
        .with_settings(&settings);
    let mut server = Server::start(&options)?;
    server.client().create_stream("events", PARTITIONS, json!({}))?;
    let mut random = context.random(41);
    let count = context.count(OBJECTS.0, OBJECTS.1);

    for number in 0..count {
        bucket.put(&format!("in/{number:04}.json"), &lines(number * RECORDS, RECORDS))?;
    }
    let spec = json!({ "stream": "events", "urls": [format!("s3://{BUCKET}/in/")] });
    let id = begin(&server.client(), "imports", &spec)?;
    // The first end comes in the middle, the others at any time.
    let is_running = eventually(PATIENCE, || {
        let job = get(&server.client(), &format!("/v1/imports/{id}"))?;
        ensure!(job["objects"] != 0, "nothing is imported yet: {job}");
        Ok(job["state"] == "running")
    })?;
    server.crash()?;
    let mut kills = u64::from(is_running);
    let job = loop {
        std::thread::sleep(Duration::from_millis(random.random_range(LIFE_MS)));
        let job = get(&server.client(), &format!("/v1/imports/{id}"))?;
        if job["state"] != "running" {
            break job;
        }
        server.crash()?;
        kills += 1;
    };
    ensure!(job["state"] == "done" && job["objects"] == count, "{job}");
    let mut expected = count * RECORDS;
    check(&server.client(), "events", expected).context("after the import")?;

    expected += again(&server.client(), &bucket, &spec, expected)?;
    expected += watch(&mut server, &bucket, expected)?;
    let (sent, file_kills) =
        command(context, &mut server, directory.path(), expected, &mut random)?;
    kills += file_kills;
    expected += sent;
    check(&server.client(), "events", expected).context("after the files")?;
    export(&server.client(), &python, &files, expected)?;
    server.stop()?;
    ensure!(kills > 0, "the server was never killed in the middle");
    Ok(Report::passed(format!("{expected} records exactly once over {kills} kills")))
}

/// The S3 server's bucket, as somebody else fills it.
struct Bucket {
    url: String,
}

impl Bucket {
    fn put(&self, name: &str, text: &str) -> Result<()> {
        // Who signs is not checked, that somebody does is.
        ureq::put(format!("{}/{name}", self.url))
            .header("Authorization", "AWS test:test")
            .send(text)
            .context("moto takes no object")?;
        Ok(())
    }
}

fn lines(first: u64, count: u64) -> String {
    let line = |number| format!("{{\"n\":{number},\"text\":\"record {number} of the objects\"}}\n");
    (first..first + count).map(line).collect()
}

fn get(client: &Client, path: &str) -> Result<Value> {
    let text = client.get_text(path)?;
    serde_json::from_str(&text).with_context(|| format!("{path} answered {text}"))
}

/// Begins a job; answers its id.
fn begin(client: &Client, kind: &str, spec: &Value) -> Result<String> {
    let mut answer = ureq::post(format!("{}/v1/{kind}", client.url()))
        .config()
        .http_status_as_error(false)
        .build()
        .send_json(spec)?;
    let job: Value = answer.body_mut().read_json()?;
    let id = job["id"].as_str().with_context(|| format!("{kind} answered {job}"))?;
    Ok(id.to_owned())
}

/// Waits for the end of a job.
fn ended(client: &Client, kind: &str, id: &str) -> Result<Value> {
    eventually(PATIENCE, || {
        let job = get(client, &format!("/v1/{kind}/{id}"))?;
        ensure!(job["state"] != "running", "{kind} {id} is still running: {job}");
        Ok(job)
    })
}

fn done(client: &Client, kind: &str, spec: &Value) -> Result<Value> {
    let id = begin(client, kind, spec)?;
    let job = ended(client, kind, &id)?;
    ensure!(job["state"] == "done", "{kind} {spec} ended as {job}");
    Ok(job)
}

/// Every number below `count` is there, once.
fn check(client: &Client, stream: &str, count: u64) -> Result<()> {
    let mut found = BTreeSet::new();
    for partition in 0..client.partitions(stream)?.len() {
        let path = format!("/v1/streams/{stream}/records?partition={partition}");
        let mut offset = 0_u64;
        loop {
            let answer = ureq::get(format!("{}{path}&offset={offset}", client.url())).call()?;
            let next = answer.headers().get("aquifer-next-offset");
            let next: u64 = next.context("no next offset")?.to_str()?.parse()?;
            let text = answer.into_body().read_to_string()?;
            for line in text.lines() {
                let record: Value = serde_json::from_str(line)?;
                let value = record["value"].as_str().context("a record without a value")?;
                let value: Value = serde_json::from_str(value)?;
                let number = value["n"].as_u64().context("a value without its number")?;
                ensure!(found.insert(number), "record {number} is there twice");
            }
            if next == offset {
                break;
            }
            offset = next;
        }
    }
    let missing: Vec<u64> = (0..count).filter(|number| !found.contains(number)).take(5).collect();
    ensure!(missing.is_empty(), "{missing:?}… are missing, {} are there", found.len());
    ensure!(found.len() as u64 == count, "{} records, not {count}", found.len());
    Ok(())
}

/// The same import does nothing; a changed object is imported anew.
fn again(client: &Client, bucket: &Bucket, spec: &Value, from: u64) -> Result<u64> {
    let job = done(client, "imports", spec)?;
    ensure!(job["objects"] == 0, "what was imported was imported again: {job}");
    check(client, "events", from)?;
    bucket.put("in/0000.json", &lines(from, 10))?;
    let job = done(client, "imports", spec)?;
    ensure!(job["objects"] == 1 && job["records"] == 10, "{job}");
    check(client, "events", from + 10).context("after a change")?;
    Ok(10)
}

/// A watch takes what comes, before and after a kill.
fn watch(server: &mut Server, bucket: &Bucket, from: u64) -> Result<u64> {
    let spec = json!({ "stream": "events", "urls": [format!("s3://{BUCKET}/live/")] });
    let id = begin(&server.client(), "watches", &spec)?;
    let wait = |client: &Client, count: u64| {
        eventually(PATIENCE, || {
            let watch = get(client, &format!("/v1/watches/{id}"))?;
            ensure!(watch["objects"] == count, "the watch stands at {watch}");
            Ok(())
        })
    };
    for number in 0..4 {
        bucket.put(&format!("live/{number}.json"), &lines(from + number * 100, 100))?;
        if number % 2 == 1 {
            server.crash()?;
        }
        wait(&server.client(), number + 1)?;
    }
    check(&server.client(), "events", from + 400).context("after the watch")?;
    let url = format!("{}/v1/watches/{id}", server.url());
    ureq::delete(url).call().context("the watch cannot be deleted")?;
    Ok(400)
}

/// A file that `aquifer import` sends, again and again until it is whole.
fn command(
    context: &Context,
    server: &mut Server,
    directory: &Path,
    from: u64,
    random: &mut impl rand::Rng,
) -> Result<(u64, u64)> {
    let count = 5 * RECORDS;
    let file = directory.join("sent.ndjson");
    std::fs::write(&file, lines(from, count))?;
    let mut kills = 0;
    let import = |server: &Server| {
        let mut command = Command::new(&context.binary);
        command.args(["import", "events"]).arg(&file);
        command.args(["--retry-seconds", "0", "--output", "json", "--url", server.url()]);
        command
    };
    for _ in 0..5 {
        let mut child = import(server)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(random.random_range(LIFE_MS)));
        server.crash()?;
        kills += u64::from(!child.wait()?.success());
    }
    let answer: Value = serde_json::from_str(&run_quietly(&mut import(server))?)?;
    let is_there = answer["objects"] == 1 || answer["before"] == 1;
    ensure!(is_there, "{answer}");
    let answer: Value = serde_json::from_str(&run_quietly(&mut import(server))?)?;
    ensure!(answer["before"] == 1 && answer["objects"] == 0, "a second import: {answer}");
    Ok((count, kills))
}

/// What is exported is what is there, for other readers and for another stream.
fn export(client: &Client, python: &Path, files: &Path, count: u64) -> Result<()> {
    let url = |name: &str| format!("file://{}/{name}", files.display());
    for (format, name) in [("parquet", "parquet"), ("csv", "csv")] {
        let spec = json!({
            "stream": "events", "url": url(name), "format": format, "object_bytes": 400_000,
        });
        let job = done(client, "exports", &spec)?;
        ensure!(job["records"] == count, "{job}");
    }
    let mut command = Command::new(python);
    command.arg("-c").arg(include_str!("objects.py"));
    command.args([files.join("parquet"), files.join("csv")]);
    let read: Value = serde_json::from_str(&run_quietly(&mut command)?)?;
    let total = count * (count - 1) / 2;
    let expected = json!({ "parquet": [count, total], "csv": [count, total] });
    ensure!(read == expected, "readers found {read}, not {expected}");

    let archive = format!("s3://{BUCKET}/archive/");
    let spec = json!({
        "stream": "events", "url": archive, "format": "records", "compression": "zstd",
    });
    done(client, "exports", &spec)?;
    client.create_stream("copy", 1, json!({}))?;
    done(client, "imports", &json!({ "stream": "copy", "urls": [archive] }))?;
    check(client, "copy", count).context("out of the export")?;
    let spec = json!({ "stream": "copy", "urls": [url("parquet")] });
    let job = done(client, "imports", &spec)?;
    if job["records"] != count {
        bail!("out of the Parquet files: {job}");
    }
    Ok(())
}

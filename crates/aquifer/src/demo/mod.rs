//! `aquifer demo`: a server of its own, fed with this machine's real events,
//! and what it does with them, step by step.
//!
//! The server is a child process, so that it can be killed in earnest. Without
//! `--data` everything lies in a temporary directory that goes with the demo.

mod child;
mod feeds;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aquifer_env::{Clock, RealClock};
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use self::child::Server;
use crate::cli::DemoArguments;
use crate::client::{Client, RequestError};
use crate::failure::Failure;
use crate::output::{self, bytes, count};

/// How long acknowledged records are written before the server is killed.
const KILL_AFTER: Duration = Duration::from_millis(1500);
const KILL_WRITERS: u64 = 8;
/// How long a step waits for what must come.
const STEP_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// How many events of the tail are shown.
const TAIL_SHOWN: usize = 3;
/// How many files are listed.
const FILES_SHOWN: usize = 8;

pub(crate) async fn run(arguments: DemoArguments) -> Result<(), Failure> {
    let temporary = match &arguments.data {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("aquifer-demo-").tempdir()?),
    };
    let data = match (&arguments.data, &temporary) {
        (Some(data), _) => std::path::absolute(data)?,
        (None, Some(directory)) => directory.path().join("data"),
        (None, None) => return Err(Failure::failed("there is no directory for the demo")),
    };
    let mut demo = Demo::start(&data, arguments.listen, arguments.kafka_listen).await?;
    let shown = tokio::select! {
        result = demo.show(arguments.exit) => result,
        result = tokio::signal::ctrl_c() => result.map_err(Failure::from),
    };
    demo.stop().await;
    if let Some(directory) = temporary {
        let path = directory.path().to_owned();
        if let Err(error) = directory.close() {
            output::line(&format!("{} could not be removed: {error}", path.display()))?;
        }
    }
    shown
}

struct Demo {
    server: Server,
    client: Client,
    clock: Arc<RealClock>,
    data: PathBuf,
    steps: u32,
    /// What goes on beside the steps; ended with the demo.
    background: Vec<JoinHandle<()>>,
}

impl Drop for Demo {
    fn drop(&mut self) {
        for task in &self.background {
            task.abort();
        }
    }
}

impl Demo {
    async fn start(data: &Path, listen: SocketAddr, kafka: SocketAddr) -> Result<Self, Failure> {
        let clock = Arc::new(RealClock::new());
        let server = Server::start(data, listen, kafka).await?;
        let client = Client::of_url(server.url(), None)?;
        Ok(Self { server, client, clock, data: data.to_owned(), steps: 0, background: Vec::new() })
    }

    async fn stop(&mut self) {
        for task in self.background.drain(..) {
            task.abort();
        }
        self.server.stop().await;
    }

    fn step(&mut self, title: &str) -> Result<(), Failure> {
        self.steps += 1;
        output::line(&format!("\n{}. {title}", self.steps))
    }

    async fn show(&mut self, exit: bool) -> Result<(), Failure> {
        output::line(&format!(
            "Aquifer runs at {}, its data lies in {}.",
            self.server.url(),
            self.data.display()
        ))?;
        self.create().await?;
        let files = self.append_logs().await?;
        self.feed(files);
        self.tail().await?;
        self.read_by_time().await?;
        self.ask_with_sql().await?;
        self.kill_and_recover().await?;
        self.show_files().await?;
        self.step("Stay up")?;
        output::line(&format!("   The status page: {}", self.server.url()))?;
        output::line(&format!("   A SQL shell:     aquifer sql --url {}", self.server.url()))?;
        output::line(&format!(
            "   A live tail:     aquifer read --follow metrics --url {}",
            self.server.url()
        ))?;
        if exit {
            return Ok(());
        }
        output::line("   Log files, metrics and access events go on coming in. Ctrl-C ends it.")?;
        self.server.ended().await
    }

    async fn create(&mut self) -> Result<(), Failure> {
        self.step("Create streams")?;
        for (name, partitions, what) in [
            ("logs", 4, "lines of this machine's log files, by file"),
            ("metrics", 1, "the server's process in /proc, once a second"),
            ("access", 1, "the server's own requests, as they happen"),
            ("counter", 4, "numbered records for the kill"),
        ] {
            // Young chunks, so that there is something to see at once.
            let config = json!({ "chunk_max_age_ms": 2000 });
            let body = json!({ "name": name, "partitions": partitions, "config": config });
            match self
                .client
                .json(self.client.request(Method::POST, "/v1/streams").json(&body))
                .await
            {
                Ok(_) => {}
                // The directory of an earlier demo.
                Err(RequestError::Refused(status, ..)) if status == 409 => {}
                Err(error) => return Err(error.into()),
            }
            output::line(&format!("   {name:<8} {partitions} partitions: {what}"))?;
        }
        Ok(())
    }

    async fn append_logs(&mut self) -> Result<Vec<feeds::Followed>, Failure> {
        self.step("Append the log files that exist")?;
        let mut files = feeds::log_files().await;
        let begun = self.clock.monotonic_ns();
        let (mut records, mut total_bytes) = (0, 0);
        for file in &mut files {
            let (lines, size) = file.append_new_lines(&self.client, "logs").await?;
            records += lines;
            total_bytes += size;
            output::line(&format!(
                "   {:>9} lines, {:>10}: {}",
                count(lines),
                bytes(size),
                file.path().display()
            ))?;
        }
        let seconds = (self.clock.monotonic_ns() - begun) as f64 / 1e9;
        output::line(&format!(
            "   {} records, {}, every one acknowledged after a sync, in {seconds:.2} s",
            count(records),
            bytes(total_bytes)
        ))?;
        Ok(files)
    }

    /// Starts what goes on coming in.
    fn feed(&mut self, files: Vec<feeds::Followed>) {
        let client = self.client.clone();
        self.background.push(tokio::spawn(feeds::follow(client, files)));
        let (client, clock) = (self.client.clone(), Arc::clone(&self.clock));
        self.background.push(tokio::spawn(feeds::metrics(client, clock, self.server.current_id())));
        if let Some(events) = self.server.take_access_events() {
            self.background.push(tokio::spawn(feeds::access(self.client.clone(), events)));
        }
    }

    async fn tail(&mut self) -> Result<(), Failure> {
        self.step("Follow a stream live (GET /v1/streams/metrics/tail)")?;
        let request = self.client.request(Method::GET, "/v1/streams/metrics/tail");
        let answer = self.client.send(request).await?;
        let mut pieces = answer.bytes_stream();
        let mut shown = 0;
        let mut text = String::new();
        let deadline = tokio::time::sleep(STEP_MAX);
        tokio::pin!(deadline);
        while shown < TAIL_SHOWN {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                () = &mut deadline => return Err(Failure::failed("no metrics arrived")),
            };
            let Some(Ok(piece)) = piece else {
                return Err(Failure::failed("the tail ended early"));
            };
            text.push_str(&String::from_utf8_lossy(&piece));
            while let Some((event, rest)) = text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                if let Some(record) = data.and_then(|d| serde_json::from_str::<Value>(d).ok()) {
                    let sent = record.get("timestamp").and_then(Value::as_i64).unwrap_or(0);
                    let behind = (self.clock.now_ms() - sent).max(0);
                    let value = record.get("value").and_then(Value::as_str).unwrap_or_default();
                    output::line(&format!("   {behind} ms after its append: {value}"))?;
                    shown += 1;
                }
                text = rest.to_owned();
            }
        }
        Ok(())
    }

    async fn read_by_time(&mut self) -> Result<(), Failure> {
        self.step("Read by time (GET /v1/streams/metrics/records?time=…)")?;
        let from = self.clock.now_ms() - 2000;
        let path = format!("/v1/streams/metrics/records?time={from}");
        let request = self.client.request(Method::GET, &path).header("accept", "application/json");
        let begun = self.clock.monotonic_ns();
        let answer = self.client.json(request).await?;
        let millis = (self.clock.monotonic_ns() - begun) as f64 / 1e6;
        let records = answer.get("records").and_then(Value::as_array).map_or(0, Vec::len);
        output::line(&format!(
            "   the last two seconds hold {records} records; found in {millis:.1} ms"
        ))
    }

    async fn ask_with_sql(&mut self) -> Result<(), Failure> {
        self.step("Ask with SQL (POST /v1/sql, or aquifer sql)")?;
        for sql in [
            "SELECT _partition, count(*) AS lines, max(_timestamp) AS newest FROM logs \
             GROUP BY 1 ORDER BY 1",
            "SELECT max((_value->>'rss_bytes')::bigint) AS rss_bytes, \
             avg((_value->>'cpu')::double) AS cpu FROM metrics",
        ] {
            output::line(&format!("   {sql}"))?;
            let request = self.client.request(Method::POST, "/v1/sql").json(&json!({ "sql": sql }));
            let begun = self.clock.monotonic_ns();
            let answer = self.client.send(request).await?;
            let rows = answer.text().await.map_err(|error| self.client.transport(&error))?;
            let millis = (self.clock.monotonic_ns() - begun) as f64 / 1e6;
            for row in rows.lines() {
                output::line(&format!("      {row}"))?;
            }
            output::line(&format!("      in {millis:.0} ms"))?;
        }
        Ok(())
    }

    async fn kill_and_recover(&mut self) -> Result<(), Failure> {
        self.step("Kill the server while it is written to, and recover")?;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let run = format!("{:x}", self.clock.now_ms());
        let mut writers = Vec::new();
        for writer in 0..KILL_WRITERS {
            let client = Client::of_url(self.server.url(), None)?;
            let (acknowledged, is_over) = (Arc::clone(&acknowledged), Arc::clone(&is_over));
            let run = run.clone();
            writers.push(tokio::spawn(async move {
                let mut seen = Vec::new();
                for number in 0_u64.. {
                    let value = format!("{run}-{writer}-{number}");
                    let request = client
                        .request(Method::POST, "/v1/streams/counter/records")
                        .header("content-type", "text/plain")
                        .body(value.clone());
                    match client.send(request).await {
                        Ok(_) => {
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                            seen.push(value);
                        }
                        Err(_) => break,
                    }
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                }
                seen
            }));
        }
        tokio::time::sleep(KILL_AFTER).await;
        self.server.kill().await?;
        is_over.store(true, Ordering::Relaxed);
        let mut expected = std::collections::BTreeSet::new();
        for writer in writers {
            expected.extend(writer.await.map_err(|error| Failure::failed(error.to_string()))?);
        }
        output::line(&format!(
            "   kill -9 of process {} after {} acknowledged records from {KILL_WRITERS} writers",
            self.server.id(),
            count(expected.len() as u64)
        ))?;
        let begun = self.clock.monotonic_ns();
        self.server.restart().await?;
        let millis = (self.clock.monotonic_ns() - begun) as f64 / 1e6;
        output::line(&format!(
            "   started again as process {} and ready after {millis:.0} ms",
            self.server.id()
        ))?;
        let acknowledged = expected.len();
        let mut found = 0_u64;
        for partition in 0..4 {
            let mut offset = 0_u64;
            loop {
                let path =
                    format!("/v1/streams/counter/records?partition={partition}&offset={offset}");
                let request =
                    self.client.request(Method::GET, &path).header("accept", "application/json");
                let page = self.client.json(request).await?;
                let records = page.get("records").and_then(Value::as_array);
                for record in records.into_iter().flatten() {
                    let value = record.get("value").and_then(Value::as_str).unwrap_or_default();
                    if value.starts_with(&run) {
                        found += 1;
                    }
                    expected.remove(value);
                }
                let next = page.get("next_offset").and_then(Value::as_u64).unwrap_or(offset);
                if next == offset {
                    break;
                }
                offset = next;
            }
        }
        output::line(&format!(
            "   read back {} records: {} of {} acknowledged ones are missing",
            count(found),
            expected.len(),
            count(acknowledged as u64)
        ))?;
        if !expected.is_empty() {
            return Err(Failure::failed("acknowledged records are missing after the recovery"));
        }
        Ok(())
    }

    async fn show_files(&mut self) -> Result<(), Failure> {
        self.step("Open the Parquet files")?;
        let deadline = tokio::time::sleep(STEP_MAX);
        tokio::pin!(deadline);
        // The counter is appended to no more, so that all of it gets there.
        let streams = ["logs", "counter", "metrics", "access"];
        let mut files = Vec::new();
        loop {
            files.clear();
            let mut is_waiting = false;
            for stream in streams {
                let answer = self.client.get(&format!("/v1/streams/{stream}/chunks")).await?;
                let chunks = answer.get("chunks").and_then(Value::as_array);
                let before = files.len();
                files.extend(chunks.into_iter().flatten().cloned());
                is_waiting |= files.len() == before && stream != "access" && stream != "logs";
            }
            if !is_waiting {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = &mut deadline => {
                    return Err(Failure::failed("nothing was tiered within a minute"));
                }
            }
        }
        let root = self.data.join("tier2");
        let field = |chunk: &Value, name| chunk.get(name).and_then(Value::as_u64).unwrap_or(0);
        files.sort_by_key(|chunk| std::cmp::Reverse(field(chunk, "bytes")));
        let (mut stored, mut raw) = (0, 0);
        for (place, chunk) in files.iter().enumerate() {
            stored += field(chunk, "bytes");
            raw += field(chunk, "raw_bytes");
            if place < FILES_SHOWN {
                let path = chunk.get("path").and_then(Value::as_str).unwrap_or_default();
                output::line(&format!(
                    "   {:>10} for {:>10} of records: {path}",
                    bytes(field(chunk, "bytes")),
                    bytes(field(chunk, "raw_bytes"))
                ))?;
            }
        }
        if files.len() > FILES_SHOWN {
            output::line(&format!("   … and {} more", files.len() - FILES_SHOWN))?;
        }
        output::line(&format!(
            "   {} files, {} for {} of records, under {}",
            files.len(),
            bytes(stored),
            bytes(raw),
            root.display()
        ))?;
        let all = root.join("default").join("**").join("*.parquet");
        output::line(&format!(
            "   DuckDB:  duckdb -c \"SELECT _timestamp, _value::VARCHAR FROM '{}' LIMIT 5\"",
            all.display()
        ))?;
        if let Some(path) = files.first().and_then(|chunk| chunk.get("path")?.as_str()) {
            output::line(&format!(
                "   pyarrow: python3 -c \"import pyarrow.parquet as p; print(p.ParquetFile('{}').read())\"",
                root.join(path).display()
            ))?;
        }
        Ok(())
    }
}

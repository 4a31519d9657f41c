//! Scenario `kafka_connect`: a Kafka Connect worker, distributed mode, copies
//! the lines of a file into a stream and out of it into another file. It and the
//! server are killed at random moments; what it knows is in compacted streams.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rand::RngExt as _;
use serde_json::{Value, json};
use ureq::Agent;

use super::program::Program;
use crate::e2e::client::Client;
use crate::e2e::java_program::JavaProgram;
use crate::e2e::server::Server;
use crate::e2e::{Context, eventually};
use crate::steps::Report;

const POM: &str = include_str!("java/connect/pom.xml");

const STREAM: &str = "lines";
const SOURCE: &str = "lines-in";
const SINK: &str = "lines-out";

/// Where the worker keeps what it knows.
const INTERNAL: &[&str] = &["connect-configs", "connect-offsets", "connect-status"];

/// Deaths of the worker in the quick and in the full test; every other time the
/// server dies under it before.
const KILLS: (u64, u64) = (3, 12);

/// How the file that is read grows: so many lines at once, and so often.
const LINES_AT_ONCE: u64 = 20;
const LINES_PAUSE: Duration = Duration::from_millis(20);

/// A worker is up, and lines are through, within this; a JVM on a busy machine
/// is slow.
const WAIT_MAX: Duration = Duration::from_secs(180);

/// A request to the worker takes less; it answers within 90 s whatever happens.
const REQUEST_MAX: Duration = Duration::from_secs(100);

/// What makes compaction run many times in a short test.
const SETTINGS: &[&str] = &["store.compaction_interval_ms=100"];

const MACHINE: &[&str] = &["-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("kafka_connect")?;
    let target = &context.workspace.target;
    let java = match JavaProgram::prepare(target, "connect", POM, directory.path(), &[])? {
        Ok(java) => java,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let mut random = context.random(1);
    let options = context.options(directory.path()).with_settings(SETTINGS);
    let options = options.with_fixed_kafka_port(&mut random)?;
    let mut server = Server::start(&options)?;
    let bootstrap = server.kafka()?;
    server.client().create_stream(STREAM, 1, json!({ "chunk_max_age_ms": 250 }))?;

    let source = directory.path().join("in.txt");
    let sink = directory.path().join("out.txt");
    let lines = Lines::start(&source)?;
    let worker = |log: &Path| Worker::start(&java, &bootstrap, directory.path(), log);
    let log = directory.path().join("worker.log");
    let kills = context.count(KILLS.0, KILLS.1);
    let mut server_kills = 0;
    for kill in 0..kills {
        let mut running = worker(&log)?;
        if kill == 0 {
            running.configure(SOURCE, &source_of(&source))?;
            running.configure(SINK, &sink_of(&sink))?;
        }
        running.progress(&server, &sink).with_context(|| format!("before kill {kill}"))?;
        if kill % 2 == 1 {
            server.crash()?;
            server_kills += 1;
            running.progress(&server, &sink).context("behind a kill of the server")?;
        }
        // The work itself: it goes on for this long, then the worker dies.
        std::thread::sleep(Duration::from_millis(random.random_range(0..=700)));
        running.kill9();
    }
    let count = lines.stop()?;
    let mut running = worker(&log)?;
    running.finish(&server, count, &source, &sink).with_context(|| server.log_tail())?;
    let removed = compacted(&server.client())?;
    running.kill9();
    server.stop()?;
    options.run(&["verify"]).context("aquifer verify")?;
    Ok(Report::passed(format!(
        "{count} lines, {kills} kills of the worker, {server_kills} of the server, {removed} \
         records compacted away"
    )))
}

fn line(number: u64) -> String {
    format!("line-{number:010}")
}

fn source_of(file: &Path) -> Value {
    json!({
        "connector.class": "FileStreamSource",
        "tasks.max": "1",
        "file": file,
        "topic": STREAM,
        // What is read at once is sent at once: the connector forgets lines that
        // are beyond it until the file grows.
        "batch.size": "1000000",
    })
}

fn sink_of(file: &Path) -> Value {
    json!({
        "connector.class": "FileStreamSink",
        "tasks.max": "1",
        "file": file,
        "topics": STREAM,
        "consumer.override.isolation.level": "read_committed",
    })
}

/// A file that grows until it is told to stop.
struct Lines {
    is_over: Arc<AtomicBool>,
    writer: JoinHandle<Result<u64>>,
}

impl Lines {
    fn start(path: &Path) -> Result<Self> {
        let mut file = File::create(path)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let writer = std::thread::spawn(move || {
            let mut count = 0;
            while !told.load(Ordering::Relaxed) {
                let next = count + LINES_AT_ONCE;
                let text: String = (count..next).map(|number| line(number) + "\n").collect();
                file.write_all(text.as_bytes())?;
                count = next;
                // The load is so much, not as much as possible.
                std::thread::sleep(LINES_PAUSE);
            }
            Ok(count)
        });
        Ok(Self { is_over, writer })
    }

    /// How many lines there are.
    fn stop(self) -> Result<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        self.writer.join().map_err(|_| anyhow!("the writer of lines panicked"))?
    }
}

/// A running worker.
struct Worker {
    program: Program,
    agent: Agent,
    url: String,
}

impl Worker {
    fn start(java: &JavaProgram, bootstrap: &str, directory: &Path, log: &Path) -> Result<Self> {
        // Free a moment ago; another process would have to be quick.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let configuration = directory.join("worker.properties");
        std::fs::write(&configuration, properties(bootstrap, port))?;
        let mut command = java.command(MACHINE, "org.apache.kafka.connect.cli.ConnectDistributed");
        let program = Program::start(command.arg(&configuration), log)?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_MAX))
            .build()
            .into();
        let mut worker = Self { program, agent, url: format!("http://127.0.0.1:{port}") };
        worker.until(|worker| worker.get("/connectors").map(drop)).context("the worker's start")?;
        Ok(worker)
    }

    fn kill9(self) {
        self.program.kill9();
    }

    /// Waits, as long as the worker runs.
    fn until<T>(&mut self, mut attempt: impl FnMut(&Remote) -> Result<T>) -> Result<T> {
        let remote = Remote { agent: self.agent.clone(), url: self.url.clone() };
        self.program.until(WAIT_MAX, || attempt(&remote))
    }

    /// Sets a connector up; refused while the worker joins its group.
    fn configure(&mut self, name: &str, config: &Value) -> Result<()> {
        self.until(|worker| worker.put(&format!("/connectors/{name}/config"), Some(config)))
    }

    /// Until more lines are in the stream and out of it.
    fn progress(&mut self, server: &Server, sink: &Path) -> Result<()> {
        let client = server.client();
        let end = || client.partitions(STREAM).map(|of| of.iter().map(|of| of.end_offset).sum());
        let written = || std::fs::metadata(sink).map_or(0, |of| of.len());
        let (end_before, written_before): (u64, _) = (end()?, written());
        self.until(|_| {
            ensure!(end()? > end_before, "nothing comes into the stream");
            ensure!(written() > written_before, "nothing comes out of the stream");
            Ok(())
        })
    }

    /// Until all `count` lines are through, once in the stream and at least once
    /// behind it; then the sink's positions are reset, and all come again.
    fn finish(&mut self, server: &Server, count: u64, source: &Path, sink: &Path) -> Result<()> {
        let client = server.client();
        self.until(|_| in_stream(&client, count))?;
        self.until(|_| Passes::read(sink)?.end_at(count))?;
        let offset = json!([{
            "partition": { "filename": source },
            "offset": { "position": std::fs::metadata(source)?.len() },
        }]);
        self.until(|worker| {
            worker.expect(&format!("/connectors/{SOURCE}/offsets"), "offsets", &offset)
        })?;
        for connector in [SOURCE, SINK] {
            self.until(|worker| worker.is_running(connector))?;
        }
        let passes = Passes::read(sink)?.whole;
        self.until(|worker| worker.put(&format!("/connectors/{SINK}/stop"), None))?;
        self.until(|worker| worker.delete(&format!("/connectors/{SINK}/offsets")))?;
        self.until(|worker| {
            worker.expect(&format!("/connectors/{SINK}/offsets"), "offsets", &json!([]))
        })?;
        self.until(|worker| worker.put(&format!("/connectors/{SINK}/resume"), None))?;
        self.until(|_| {
            let now = Passes::read(sink)?;
            ensure!(now.whole > passes, "{passes} passes before, {} now", now.whole);
            now.end_at(count)
        })
    }
}

/// The worker's settings: exactly once for sources, internal streams that are
/// compacted soon.
fn properties(bootstrap: &str, port: u16) -> String {
    let mut lines = vec![
        format!("bootstrap.servers={bootstrap}"),
        format!("listeners=http://127.0.0.1:{port}"),
        "group.id=connect".to_owned(),
        "key.converter=org.apache.kafka.connect.storage.StringConverter".to_owned(),
        "value.converter=org.apache.kafka.connect.storage.StringConverter".to_owned(),
        "exactly.once.source.support=enabled".to_owned(),
        "plugin.discovery=service_load".to_owned(),
        "offset.flush.interval.ms=500".to_owned(),
        // A worker that was killed is given up sooner.
        "session.timeout.ms=6000".to_owned(),
        "heartbeat.interval.ms=500".to_owned(),
        "scheduled.rebalance.max.delay.ms=0".to_owned(),
    ];
    for (what, topic) in ["config", "offset", "status"].iter().zip(INTERNAL) {
        lines.push(format!("{what}.storage.topic={topic}"));
        lines.push(format!("{what}.storage.replication.factor=1"));
        lines.push(format!("{what}.storage.segment.ms=250"));
        lines.push(format!("{what}.storage.min.cleanable.dirty.ratio=0.01"));
    }
    lines.join("\n") + "\n"
}

/// The worker's REST interface.
struct Remote {
    agent: Agent,
    url: String,
}

impl Remote {
    fn get(&self, path: &str) -> Result<Value> {
        answer(path, self.agent.get(self.at(path)).call()?)
    }

    /// The connector's only task runs.
    fn is_running(&self, connector: &str) -> Result<()> {
        let status = self.get(&format!("/connectors/{connector}/status"))?;
        let tasks = status["tasks"].as_array().map_or(&[][..], Vec::as_slice);
        let [task] = tasks else { bail!("{connector} has not one task: {status}") };
        ensure!(task["state"] == "RUNNING", "{status}");
        Ok(())
    }

    fn put(&self, path: &str, body: Option<&Value>) -> Result<()> {
        let request = self.agent.put(self.at(path));
        let sent = match body {
            Some(body) => request.send_json(body)?,
            None => request.send_empty()?,
        };
        answer(path, sent).map(drop)
    }

    fn delete(&self, path: &str) -> Result<()> {
        answer(path, self.agent.delete(self.at(path)).call()?).map(drop)
    }

    fn expect(&self, path: &str, member: &str, expected: &Value) -> Result<()> {
        let found = self.get(path)?;
        ensure!(found[member] == *expected, "{path} answers {found}, not {expected}");
        Ok(())
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

fn answer(path: &str, mut answer: ureq::http::Response<ureq::Body>) -> Result<Value> {
    let status = answer.status();
    let text = answer.body_mut().read_to_string()?;
    ensure!(status.is_success(), "{path} answers {status}: {text}");
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

/// All lines are in the stream, once and in order.
fn in_stream(client: &Client, count: u64) -> Result<()> {
    let (mut offset, mut next) = (0, 0);
    loop {
        let page = client.read(STREAM, 0, offset)?;
        for record in &page.records {
            ensure!(record.text() == line(next), "{record:?} is where line {next} should be");
            next += 1;
        }
        if page.next_offset <= offset {
            ensure!(next == count, "{next} of {count} lines are in the stream");
            return Ok(());
        }
        offset = page.next_offset;
    }
}

/// What the sink wrote: lines in order, where it may have gone back to a line
/// that it had written, and never ahead.
#[derive(Debug, PartialEq, Eq)]
struct Passes {
    /// The line behind the last one.
    next: u64,
    /// How often it began with the first line.
    whole: u64,
}

impl Passes {
    fn read(path: &Path) -> Result<Self> {
        Self::parse(&std::fs::read_to_string(path)?)
    }

    fn parse(text: &str) -> Result<Self> {
        let (mut next, mut whole) = (0, 0);
        // A worker that is killed may leave a line without its end.
        let parts = text.split("line-").skip(1).map(|part| part.trim_end_matches('\n'));
        for part in parts {
            let number: u64 = part.parse().with_context(|| format!("'line-{part}'"))?;
            ensure!(part.len() == 10, "'line-{part}' is not a line");
            ensure!(number <= next, "line {number} is where line {next} should be");
            whole += u64::from(number == 0);
            next = number + 1;
        }
        Ok(Self { next, whole })
    }

    fn end_at(&self, count: u64) -> Result<()> {
        ensure!(self.next == count, "{} of {count} lines are out", self.next);
        Ok(())
    }
}

/// The internal streams are compacted ones, and compaction has worked: how many
/// records it removed.
fn compacted(client: &Client) -> Result<u64> {
    for stream in INTERNAL {
        let description: Value =
            serde_json::from_str(&client.get_text(&format!("/v1/streams/{stream}"))?)?;
        let policy = &description["config"]["cleanup_policy"];
        ensure!(policy == "compact", "{stream} has the policy {policy}");
    }
    eventually(WAIT_MAX, || {
        let metrics = client.get_text("/metrics")?;
        let value = metrics.lines().find_map(|line| {
            line.strip_prefix("aquifer_compaction_removed_records_total")?.trim().parse().ok()
        });
        let removed: f64 = value.context("no metric of compaction")?;
        ensure!(removed > 0.0, "nothing was compacted");
        Ok(removed as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_sink_wrote_is_read() {
        let check = |numbers: &[u64], ends: &[&str], expected: Option<(u64, u64)>| {
            let ends = ends.iter().chain(std::iter::repeat(&"\n"));
            let text: String =
                numbers.iter().zip(ends).map(|(number, end)| line(*number) + end).collect();
            let found = Passes::parse(&text).ok().map(|of| (of.next, of.whole));
            assert_eq!(found, expected, "{text}");
        };
        check(&[], &[], Some((0, 0)));
        check(&[0, 1, 2], &[], Some((3, 1)));
        check(&[0, 1, 2, 1, 2, 3], &["\n", "\n", ""], Some((4, 1)));
        check(&[0, 1, 0, 1], &[], Some((2, 2)));
        check(&[0, 2], &[], None);
        check(&[1], &[], None);
        check(&[0, 1, 2, 0, 2], &[], None);
        assert!(Passes::parse("line-12line-0000000000\n").is_err());
    }
}

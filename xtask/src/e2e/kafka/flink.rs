//! Scenario `kafka_flink`: a Flink job counts a stream's records in windows and
//! writes the counts exactly once, while it and the server are killed at random
//! moments and it goes on from its newest checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::json;

use super::program::Program;
use crate::e2e::Context;
use crate::e2e::client::Client;
use crate::e2e::java_program::JavaProgram;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::run_within;

const POM: &str = include_str!("java/flink/pom.xml");
const SOURCES: &[(&str, &str)] = &[
    ("Counts.java", include_str!("java/flink/Counts.java")),
    ("Clients.java", include_str!("java/flink/Clients.java")),
];

/// How the sink names its transactions: anew for each checkpoint, and probes
/// for what is left over; or out of a pool, and asks the server for a list.
const NAMINGS: &[&str] = &["INCREMENTING", "POOLING"];

/// Deaths of the job for each naming, in the quick and in the full test; the
/// server dies under it as often as every third time.
const KILLS: (u64, u64) = (3, 12);

const PARTITIONS: u32 = 4;
const OUTPUT_PARTITIONS: u32 = 2;
const KEYS: u64 = 7;
/// The time of the first record; windows begin at multiples of their length.
const START_MS: u64 = 1_700_000_000_000;
const STEP_MS: u64 = 10;
const WINDOW_MS: u64 = 10_000;

/// A checkpoint is taken, and what was fed is counted, within this; a JVM on a
/// busy machine is slow.
const WAIT_MAX: Duration = Duration::from_secs(180);

/// Flink reads fields of Java's own classes, and says so here.
const MACHINE: &[&str] = &[
    "-Xmx512m",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.time=ALL-UNNAMED",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka=warn",
];

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("kafka_flink")?;
    let target = &context.workspace.target;
    let java = match JavaProgram::prepare(target, "flink", POM, directory.path(), SOURCES)? {
        Ok(java) => java,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let mut random = context.random(1);
    let options = context.options(directory.path()).with_fixed_kafka_port(&mut random)?;
    let mut server = Server::start(&options)?;
    let bootstrap = server.kafka()?;
    let mut details = Vec::new();
    for naming in NAMINGS {
        let job = Job::new(&java, &bootstrap, directory.path(), naming);
        let kills = context.count(KILLS.0, KILLS.1);
        let done = scenario(&job, &mut server, kills, &mut random);
        details.push(done.with_context(|| format!("{naming}\n{}", server.log_tail()))?);
    }
    server.stop()?;
    options.run(&["verify"]).context("aquifer verify")?;
    Ok(Report::passed(details.join(", ")))
}

/// What the job is, and where it keeps its checkpoints.
struct Job<'a> {
    java: &'a JavaProgram,
    bootstrap: &'a str,
    directory: PathBuf,
    naming: &'a str,
    input: String,
    output: String,
}

/// Kills the job `kills` times while records come in, then compares.
fn scenario(job: &Job, server: &mut Server, kills: u64, random: &mut StdRng) -> Result<String> {
    // Small and young chunks: what the job reads again is read out of tier 2.
    let config = json!({ "chunk_target_bytes": 65_536, "chunk_max_age_ms": 250 });
    server.client().create_stream(&job.input, PARTITIONS, config.clone())?;
    server.client().create_stream(&job.output, OUTPUT_PARTITIONS, config)?;
    let feeder = Feeder::start(job)?;
    let mut server_kills = 0;
    for kill in 0..kills {
        let mut running = job.start()?;
        job.wait_for_checkpoint(&mut running).with_context(|| format!("before kill {kill}"))?;
        if kill % 3 == 1 {
            server.crash()?;
            server_kills += 1;
            job.wait_for_checkpoint(&mut running).context("behind a kill of the server")?;
        }
        // The work itself: it goes on for this long, then the job dies.
        std::thread::sleep(Duration::from_millis(random.random_range(0..=700)));
        running.kill9();
    }
    let fed = feeder.stop()?;
    let expected = expected(fed);
    let mut running = job.start()?;
    let client = server.client();
    running.until(WAIT_MAX, || {
        let found = visible(&client, &job.output)?;
        ensure!(found >= expected.len(), "{found} of {} counts are there", expected.len());
        Ok(())
    })?;
    running.kill9();
    // What was committed is committed again now, and must not be there twice.
    let mut running = job.start()?;
    job.wait_for_checkpoint(&mut running).context("behind the end")?;
    running.kill9();
    let found = job.read()?;
    compare(&expected, &found)?;
    Ok(format!(
        "{}: {fed} records, {} counts, {kills} kills of the job, {server_kills} of the server",
        job.naming,
        expected.len()
    ))
}

impl<'a> Job<'a> {
    fn new(java: &'a JavaProgram, bootstrap: &'a str, directory: &Path, naming: &'a str) -> Self {
        let (input, output) = (format!("input-{naming}"), format!("counts-{naming}"));
        Self { java, bootstrap, directory: directory.join(naming), naming, input, output }
    }

    fn checkpoints(&self) -> PathBuf {
        self.directory.join("checkpoints")
    }

    /// Starts it from its newest checkpoint, if there is one.
    fn start(&self) -> Result<Program> {
        std::fs::create_dir_all(self.checkpoints())?;
        let mut command = self.java.command(MACHINE, "Counts");
        command.args([self.bootstrap, &self.input, &self.output]);
        command.arg(format!("file://{}", self.checkpoints().display()));
        command.args([self.naming, &WINDOW_MS.to_string()]);
        if let Some((_, checkpoint)) = newest(&self.checkpoints())? {
            command.arg(format!("file://{}", checkpoint.display()));
        }
        Program::start(&mut command, &self.directory.join("job.log"))
    }

    /// Until a checkpoint is complete that was not there.
    fn wait_for_checkpoint(&self, running: &mut Program) -> Result<()> {
        let number =
            || -> Result<u64> { Ok(newest(&self.checkpoints())?.map_or(0, |(number, _)| number)) };
        let before = number()?;
        running.until(WAIT_MAX, || {
            ensure!(number()? > before, "no checkpoint behind {before} is complete");
            Ok(())
        })
    }

    fn client(&self, what: &str, topic: &str) -> std::process::Command {
        let mut command = self.java.command(&["-Xmx256m"], "Clients");
        command.args([self.bootstrap, what, topic]);
        command
    }

    /// All committed lines of the output, by Kafka's consumer.
    fn read(&self) -> Result<Vec<String>> {
        let text = run_within(&mut self.client("read", &self.output), WAIT_MAX)?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// The complete checkpoint with the highest number, of whatever run.
fn newest(checkpoints: &Path) -> Result<Option<(u64, PathBuf)>> {
    let mut newest = None;
    for run in std::fs::read_dir(checkpoints)? {
        // Flink removes what it replaced while this looks.
        let Ok(entries) = std::fs::read_dir(run?.path()) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(number) = name.strip_prefix("chk-").and_then(|text| text.parse().ok()) else {
                continue;
            };
            // Written last, under another name first.
            let is_complete = path.join("_metadata").is_file();
            if is_complete && newest.as_ref().is_none_or(|(than, _)| number > *than) {
                newest = Some((number, path));
            }
        }
    }
    Ok(newest)
}

/// The program that feeds the input until it is told to stop.
struct Feeder {
    program: Program,
    input: ChildStdin,
    log: PathBuf,
}

impl Feeder {
    fn start(job: &Job) -> Result<Self> {
        std::fs::create_dir_all(&job.directory)?;
        let log = job.directory.join("feed.log");
        let mut command = job.client("feed", &job.input);
        command.args([KEYS, START_MS, STEP_MS].map(|number| number.to_string()));
        // Its log goes to standard error, which is the same file: the count is
        // its last line.
        let mut program = Program::start(&mut command, &log)?;
        let input = program.input()?;
        Ok(Self { program, input, log })
    }

    /// How many records it fed.
    fn stop(self) -> Result<u64> {
        let Self { mut program, input, log } = self;
        drop(input);
        program.wait(WAIT_MAX).context("the feeder")?;
        let text = std::fs::read_to_string(&log)?;
        let count = text.lines().rev().find_map(|line| line.parse().ok());
        count.with_context(|| format!("no count in {text}"))
    }
}

/// How many records of the stream can be seen.
fn visible(client: &Client, stream: &str) -> Result<usize> {
    let mut count = 0;
    for partition in 0..OUTPUT_PARTITIONS {
        // Nothing is too old: the start is where it was.
        let mut offset = 0;
        loop {
            let page = client.read(stream, partition, offset)?;
            count += page.records.len();
            if page.next_offset <= offset {
                break;
            }
            offset = page.next_offset;
        }
    }
    Ok(count)
}

/// The lines that the job has to write for the first `fed` records.
fn expected(fed: u64) -> Vec<String> {
    let mut counts = BTreeMap::new();
    for number in 0..fed {
        let time = START_MS + number * STEP_MS;
        *counts.entry((time - time % WINDOW_MS, number % KEYS)).or_insert(0_u64) += 1;
    }
    let mut lines: Vec<_> =
        counts.iter().map(|((window, key), count)| format!("{window} key-{key} {count}")).collect();
    lines.sort_unstable();
    lines
}

fn compare(expected: &[String], found: &[String]) -> Result<()> {
    let mut found = found.to_vec();
    found.sort_unstable();
    let twice = found.windows(2).filter(|pair| pair[0] == pair[1]).count();
    let missing = expected.iter().filter(|line| found.binary_search(line).is_err());
    let missing: Vec<_> = missing.take(5).collect();
    let other = found.iter().filter(|line| expected.binary_search(line).is_err());
    let other: Vec<_> = other.take(5).collect();
    ensure!(
        found == expected,
        "{} lines, {} were expected; {twice} twice, missing {missing:?}, unexpected {other:?}",
        found.len(),
        expected.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_compared() {
        let lines = expected(1_001);
        assert_eq!(lines.len(), 8, "{lines:?}");
        assert_eq!(lines[0], format!("{START_MS} key-0 143"));
        assert_eq!(lines[7], format!("{} key-6 1", START_MS + WINDOW_MS));
        compare(&lines, &lines.iter().rev().cloned().collect::<Vec<_>>()).unwrap();
        let check = |found: &[String], part: &str| {
            let error = compare(&lines, found).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check(&lines[1..], "key-0 143");
        check(&[lines.clone(), lines[..1].to_vec()].concat(), "1 twice");
        check(&[lines.clone(), vec!["other".to_owned()]].concat(), "other");
    }

    #[test]
    fn the_newest_complete_checkpoint_is_found() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(newest(directory.path()).unwrap(), None);
        for (name, is_complete) in [("a/chk-9", true), ("b/chk-10", true), ("b/chk-11", false)] {
            let path = directory.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            if is_complete {
                std::fs::write(path.join("_metadata"), "").unwrap();
            }
        }
        std::fs::create_dir_all(directory.path().join("b/shared")).unwrap();
        let found = newest(directory.path()).unwrap();
        assert_eq!(found, Some((10, directory.path().join("b/chk-10"))));
    }
}

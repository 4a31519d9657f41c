//! Scenario `kafka_librdkafka`: the tests of librdkafka that talk to a broker,
//! built from the sources in the crate rdkafka-sys.

use std::collections::{BTreeSet, VecDeque};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::verdict::{List, Outcome, Outcomes};
use super::{absent, output_of, prepare, source};
use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;

const NAME: &str = "librdkafka";
const CRATE: &str = "rdkafka-sys";
const VERSION: &str = "4.10.0+2.12.1";
const LIST: &str = include_str!("librdkafka.txt");
/// Called as `$KAFKA_PATH/bin/kafka-topics.sh`.
const TOPICS: &str = include_str!("librdkafka_topics.py");

/// What the tests take the broker for.
const KAFKA_VERSION: &str = "4.3.0.0";

/// Tests of a broker that creates no topics by itself.
const WITHOUT_AUTO_CREATION: &[&str] = &[
    "0045_subscribe_update_topic_remove",
    "0045_subscribe_update_non_exist_and_partchange",
    "0107_topic_recreate",
    "0111_delay_create_topics",
];

const BUILD_MAX: Duration = Duration::from_secs(20 * 60);

/// Processes that run beside each other: they wait for most of their time.
const WORKERS: usize = 4;
/// The program ends itself where a test takes longer than it should.
const TEST_MAX: Duration = Duration::from_secs(10 * 60);

pub(crate) fn run(context: &Context) -> Result<Report> {
    let list = List::parse(LIST)?;
    if let Some(program) = absent(&["cc", "c++", "make", "bash"]) {
        return Ok(Report::could_not_run(format!("there is no {program}")));
    }
    let python = match context.python() {
        Ok(python) => python,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let folder = source::folder(context, NAME)?;
    let version = format!("{CRATE} {VERSION}");
    let fetch = |to: &Path| source::of_crate(&folder, CRATE, VERSION, to);
    let source = match source::fetched(&folder, &version, fetch)? {
        Ok(source) => source.join(NAME),
        Err(report) => return Ok(report),
    };
    build(&source)?;

    let (others, with_auto_creation): (Vec<_>, Vec<_>) =
        list.names().partition(|name| WITHOUT_AUTO_CREATION.contains(name));
    let mut outcomes = Outcomes::default();
    for (scenario, names) in [("default", with_auto_creation), ("noautocreate", others)] {
        let directory = context.directory("kafka_librdkafka")?;
        let create = format!("kafka.auto_create_topics={}", scenario == "default");
        // The suite's own set-up of Kafka has four partitions for new topics.
        let settings = [create.as_str(), "kafka.partitions_default=4"];
        let server = Server::start(&context.options(directory.path()).with_settings(&settings))?;
        let suite = Suite {
            tests: source.join("tests"),
            set_up: directory.path(),
            logs: folder.join("logs"),
            bootstrap: server.kafka()?,
            scenario,
        };
        suite.set_up(&python)?;
        outcomes.extend(suite.run(&names)?);
        server.stop()?;
    }
    Ok(list.judge(&outcomes))
}

/// What it finds of OpenSSL and zlib it is built with; it downloads nothing.
fn build(source: &Path) -> Result<()> {
    if !source.join("Makefile.config").exists() {
        let mut configure = Command::new("./configure");
        configure.current_dir(source).args(["--no-download", "--disable-gssapi", "--disable-curl"]);
        prepare(&mut configure, BUILD_MAX)?;
    }
    for arguments in [&["-j2", "libs"][..], &["-C", "tests", "-j2", "test-runner"]] {
        prepare(Command::new("make").current_dir(source).args(arguments), BUILD_MAX)?;
    }
    Ok(())
}

/// The built suite and where it is pointed to.
struct Suite<'a> {
    tests: PathBuf,
    /// Has its configuration and stands for where Apache Kafka is.
    set_up: &'a Path,
    logs: PathBuf,
    bootstrap: String,
    scenario: &'a str,
}

impl Suite<'_> {
    fn set_up(&self, python: &Path) -> Result<()> {
        std::fs::create_dir_all(&self.logs)?;
        let conf = format!("bootstrap.servers={}\n", self.bootstrap);
        std::fs::write(self.set_up.join("test.conf"), conf)?;
        let programs = self.set_up.join("bin");
        std::fs::create_dir_all(&programs)?;
        std::fs::write(programs.join("topics.py"), TOPICS)?;
        let program = programs.join("kafka-topics.sh");
        let script = programs.join("topics.py");
        let text = format!("#!/bin/sh\nexec {} {} \"$@\"\n", python.display(), script.display());
        std::fs::write(&program, text)?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// Runs the tests of these names, a process for each number: one that hangs
    /// ends its process.
    fn run(&self, names: &[&str]) -> Result<Vec<(String, Outcome)>> {
        let jobs: BTreeSet<Job<'_>> = names.iter().filter_map(|name| Job::of(name)).collect();
        let jobs = Mutex::new(jobs.into_iter().collect::<VecDeque<_>>());
        let work = || -> Result<Vec<(String, Outcome)>> {
            let mut found = Vec::new();
            loop {
                // Taken before the work is done, or the others would wait for it.
                let job = jobs.lock().ok().and_then(|mut left| left.pop_front());
                let Some(job) = job else { return Ok(found) };
                let text = self.run_job(job)?;
                let outcomes = text.lines().filter_map(outcome);
                let outcomes = outcomes.map(|(name, outcome)| (job.name(&name), outcome));
                found.extend(outcomes.filter(|(name, _)| names.contains(&name.as_str())));
            }
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
            let mut all = Vec::new();
            for worker in workers {
                all.extend(worker.join().ok().context("a worker panicked")??);
            }
            Ok(all)
        })
    }

    fn run_job(&self, job: Job<'_>) -> Result<String> {
        let mut command = Command::new("./test-runner");
        command.current_dir(&self.tests).args(["-p1", "-Q", "-E", "-L", "-s", self.scenario]);
        command.env("TESTS", job.number).env("TEST_KAFKA_VERSION", KAFKA_VERSION);
        if let Some(part) = job.part {
            command.env("SUBTESTS", part);
        }
        command.env("RDKAFKA_TEST_CONF", self.set_up.join("test.conf"));
        command.env("KAFKA_PATH", self.set_up).env("BROKERS", &self.bootstrap);
        command.env("LD_LIBRARY_PATH", "../src:../src-cpp");
        let part = job.part.unwrap_or(self.scenario).trim_end_matches(':');
        let log = self.logs.join(format!("{}-{part}.log", job.number));
        output_of(&mut command, TEST_MAX, &log)
    }
}

/// What a process runs: all tests of a number, or a part of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Job<'a> {
    number: &'a str,
    part: Option<&'a str>,
}

impl<'a> Job<'a> {
    /// That of `NUMBER_NAME` or `NUMBER_NAME/PART`.
    fn of(name: &'a str) -> Option<Self> {
        let (test, part) = match name.split_once('/') {
            Some((test, part)) => (test, Some(part)),
            None => (name, None),
        };
        test.split('_').next().map(|number| Self { number, part })
    }

    /// What the list calls a test that it ran.
    fn name(&self, test: &str) -> String {
        self.part.map_or_else(|| test.to_owned(), |part| format!("{test}/{part}"))
    }
}

/// `|␛[32m NAME | PASSED | 0.123s ␛[0m|…`, a line of the summary.
fn outcome(line: &str) -> Option<(String, Outcome)> {
    let mut cells = line.split('|').skip(1);
    let name = cells.next()?.split_whitespace().last()?;
    let outcome = match cells.next()?.trim() {
        "PASSED" => Outcome::Passed,
        "SKIPPED" => Outcome::Skipped,
        "FAILED" | "RUNNING" => Outcome::Failed,
        _ => return None,
    };
    Some((name.to_owned(), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_of_names() {
        for (name, number, part) in [
            ("0045_subscribe_update", "0045", None),
            ("0081_admin/do_test_DescribeConfigs:", "0081", Some("do_test_DescribeConfigs:")),
        ] {
            assert_eq!(Job::of(name), Some(Job { number, part }), "{name}");
        }
    }

    #[test]
    fn lines_of_the_summary_are_understood() {
        let passed = ("0012_produce_consume".to_owned(), Outcome::Passed);
        let failed = ("0081_admin".to_owned(), Outcome::Failed);
        for (line, expected) in [
            ("|\u{1b}[32m 0012_produce_consume   |     PASSED |   5.1s \u{1b}[0m|", Some(passed)),
            ("|\u{1b}[31m 0081_admin |  FAILED |  0.9s \u{1b}[0m| no | pipes", Some(failed)),
            ("#==============#", None),
            ("TEST 20260101 (bare, scenario default) SUMMARY", None),
        ] {
            assert_eq!(outcome(line), expected, "{line}");
        }
    }
}

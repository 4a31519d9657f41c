//! Scenario `kafka_suite_python`: the integration tests of kafka-python.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::verdict::{List, Outcome, Outcomes};
use super::{output_of, source};
use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::run_quietly;

const NAME: &str = "kafka-python";
const LIST: &str = include_str!("kafka_python.txt");
const SERVICE: &str = include_str!("kafka_python_service.py");

/// What the suite takes the broker for, and infers from the versions of its APIs.
const KAFKA_VERSION: &str = "4.3";

const TESTS: &str = "test/integration";
const SUITE_MAX: Duration = Duration::from_secs(30 * 60);

/// A test that takes longer hangs.
const TEST_SECONDS_MAX: &str = "120";

pub(crate) fn run(context: &Context) -> Result<Report> {
    let list = List::parse(LIST)?;
    let python = match context.python() {
        Ok(python) => python,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let folder = source::folder(context, NAME)?;
    // The same release that scenario `kafka_python` uses.
    let requirements =
        std::fs::read_to_string(context.workspace.root.join("xtask/requirements.txt"))?;
    let version = requirements.lines().find(|line| line.starts_with("kafka-python=="));
    let version = version.context("requirements.txt has no kafka-python")?;
    let source = match source::fetched(&folder, version, |to| fetch(&python, version, to))? {
        Ok(source) => source,
        Err(report) => return Ok(report),
    };
    let directory = context.directory("kafka_suite_python")?;
    // Its sessions are short, and topics that it does not create have partitions
    // beside the first.
    let settings = ["kafka.group_session_ms_min=1000", "kafka.partitions_default=4"];
    let server = Server::start(&context.options(directory.path()).with_settings(&settings))?;
    let mut command = Command::new(&python);
    command.current_dir(&source).args(["-m", "pytest", TESTS, "-v", "--color=no", "--tb=short"]);
    // Its own options end the whole run where one test takes too long.
    command.args(["-o", "addopts=", "-o", "log_level=WARNING", "-p", "no:cacheprovider"]);
    command.args(["--timeout", TEST_SECONDS_MAX, "--timeout-method=signal"]);
    command.env("KAFKA_URI", format!("kafka://{}", server.kafka()?));
    command.env("KAFKA_VERSION", KAFKA_VERSION);
    // It asks whether there is a folder of Kafka's, and does not look into it.
    command.env("KAFKA_ROOT", &source);
    let text = output_of(&mut command, SUITE_MAX, &folder.join("output.log"))?;
    let mut outcomes = Outcomes::default();
    outcomes.extend(text.lines().filter_map(outcome));
    server.stop()?;
    Ok(list.judge(&outcomes))
}

/// Downloads the source distribution, and adds two files of the suite that are
/// not in it.
fn fetch(python: &Path, version: &str, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let mut download = Command::new(python);
    download.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"]);
    download.args(["--no-deps", "--no-binary", ":all:", version, "--dest"]);
    run_quietly(download.arg(to))?;
    let archives: Vec<_> = std::fs::read_dir(to)?.collect::<std::io::Result<_>>()?;
    ensure!(archives.len() == 1, "{} files were downloaded", archives.len());
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(archives[0].path()).args(["--strip-components=1", "-C"]);
    run_quietly(unpack.arg(to))?;
    // Without it Python's own package `test` would be taken.
    std::fs::write(to.join("test/__init__.py"), "")?;
    std::fs::write(to.join("test/service.py"), SERVICE)?;
    Ok(())
}

/// `test/integration/FILE.py::NAME PASSED [ 10%]`
fn outcome(line: &str) -> Option<(String, Outcome)> {
    let (file, rest) = line.strip_prefix(TESTS)?.strip_prefix('/')?.split_once(".py::")?;
    let (name, rest) = rest.split_once(' ')?;
    let outcome = match rest.split_whitespace().next()? {
        "PASSED" => Outcome::Passed,
        "SKIPPED" | "XFAIL" => Outcome::Skipped,
        "FAILED" | "ERROR" | "XPASS" => Outcome::Failed,
        _ => return None,
    };
    Some((format!("{file}::{name}"), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_output_are_understood() {
        let end = ("a::test_end[None]".to_owned(), Outcome::Passed);
        let skipped = ("a::test_old".to_owned(), Outcome::Skipped);
        let broken = ("b::Test::test_tls".to_owned(), Outcome::Failed);
        for (line, expected) in [
            ("test/integration/a.py::test_end[None] PASSED    [  1%]", Some(end)),
            ("test/integration/a.py::test_old SKIPPED (Requires…) [  2%]", Some(skipped)),
            ("test/integration/b.py::Test::test_tls ERROR [ 99%]", Some(broken)),
            ("test/integration/a.py:17: AssertionError", None),
            ("FAILED test/integration/a.py::test_end - assert", None),
        ] {
            assert_eq!(outcome(line), expected, "{line}");
        }
    }
}

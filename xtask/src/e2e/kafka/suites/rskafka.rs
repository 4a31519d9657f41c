//! Scenario `kafka_rskafka`: the integration tests of the crate rskafka.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::verdict::{List, Outcome, Outcomes};
use super::{output_of, prepare, source};
use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::cargo;

const NAME: &str = "rskafka";
const VERSION: &str = "0.6.0";
const LIST: &str = include_str!("rskafka.txt");

/// Its test programs that talk to a broker.
const PROGRAMS: &[&str] = &["client", "consumer", "produce_consume", "producer"];

/// Parts of the names of tests that say `ok` and do nothing without what is not
/// here; the list tells why.
const NOT_RUN: &[&str] = &["java", "rdkafka_consume_rdkafka", "test_sasl"];

/// Its dependencies include librdkafka, which is built too.
const BUILD_MAX: Duration = Duration::from_secs(30 * 60);
const PROGRAM_MAX: Duration = Duration::from_secs(5 * 60);

pub(crate) fn run(context: &Context) -> Result<Report> {
    let list = List::parse(LIST)?;
    let folder = source::folder(context, NAME)?;
    let version = format!("{NAME} {VERSION}");
    let source = match source::fetched(&folder, &version, |to| fetch(&folder, to))? {
        Ok(source) => source,
        Err(report) => return Ok(report),
    };
    let test = || {
        let mut command = cargo();
        command.current_dir(&source).args(["test", "--locked", "--quiet"]);
        // Nobody looks at it with a debugger, and it is large.
        command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "0");
        command.env("CARGO_TARGET_DIR", folder.join("target"));
        command
    };
    prepare(test().args(["--no-run", "--tests"]), BUILD_MAX)?;

    let directory = context.directory("kafka_rskafka")?;
    // One of them waits in vain for a topic that nobody creates.
    let settings = ["kafka.auto_create_topics=false"];
    let server = Server::start(&context.options(directory.path()).with_settings(&settings))?;
    let bootstrap = server.kafka()?;
    let mut outcomes = Outcomes::default();
    for program in PROGRAMS {
        let mut command = test();
        command.args(["--test", program, "--", "--format", "pretty"]);
        command.args(NOT_RUN.iter().flat_map(|part| ["--skip", part]));
        command.env("TEST_INTEGRATION", "1").env("TEST_BROKER_IMPL", "kafka");
        command.env("TEST_DELETE_RECORDS", "1").env("KAFKA_CONNECT", &bootstrap);
        let text = output_of(&mut command, PROGRAM_MAX, &folder.join(format!("{program}.log")))?;
        outcomes.extend(text.lines().filter_map(|line| outcome(program, line)));
    }
    server.stop()?;
    Ok(list.judge(&outcomes))
}

fn fetch(folder: &Path, to: &Path) -> Result<()> {
    source::of_crate(folder, NAME, VERSION, to)?;
    // It is no member of the workspace whose target folder it lies in, and it is
    // built by whatever toolchain builds that.
    let manifest = to.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest)?;
    std::fs::write(&manifest, format!("{text}\n[workspace]\n"))?;
    let toolchain = to.join("rust-toolchain.toml");
    if toolchain.exists() {
        std::fs::remove_file(toolchain)?;
    }
    // The release that it locked is refused by newer compilers.
    let mut update = cargo();
    prepare(update.current_dir(to).args(["update", "--package", "rsasl"]), BUILD_MAX)
}

/// `test NAME ... ok`
fn outcome(program: &str, line: &str) -> Option<(String, Outcome)> {
    let (name, word) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let outcome = match word.split([',', ' ']).next()? {
        "ok" => Outcome::Passed,
        "ignored" => Outcome::Skipped,
        _ => Outcome::Failed,
    };
    Some((format!("{program}::{name}"), outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_output_are_understood() {
        for (line, expected) in [
            ("test test_plain ... ok", Some(("client::test_plain", Outcome::Passed))),
            ("test test_tls ... ignored, no TLS", Some(("client::test_tls", Outcome::Skipped))),
            ("test test_sasl ... FAILED", Some(("client::test_sasl", Outcome::Failed))),
            ("test result: ok. 1 passed; 0 failed; 0 ignored", None),
            ("running 17 tests", None),
        ] {
            let expected = expected.map(|(name, outcome)| (name.to_owned(), outcome));
            assert_eq!(outcome("client", line), expected, "{line}");
        }
    }
}

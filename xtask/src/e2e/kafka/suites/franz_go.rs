//! Scenario `kafka_franz_go`: the tests of franz-go's package kgo that talk to a
//! broker.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::verdict::{List, Outcome, Outcomes};
use super::{output_of, prepare, source};
use crate::e2e::Context;
use crate::e2e::kafka_security::create_user;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::run_quietly;

const NAME: &str = "franz-go";
const MODULE: &str = "github.com/twmb/franz-go";
const VERSION: &str = "v1.22.2";
const LIST: &str = include_str!("franz_go.txt");

const USER: &str = "franz";
const PASSWORD: &str = "a-password";

const BUILD_MAX: Duration = Duration::from_secs(10 * 60);
const SUITE_MAX: Duration = Duration::from_secs(25 * 60);

pub(crate) fn run(context: &Context) -> Result<Report> {
    let list = List::parse(LIST)?;
    let Some(go) = go() else {
        return Ok(Report::could_not_run("there is no go"));
    };
    let folder = source::folder(context, NAME)?;
    let version = format!("{NAME} {VERSION}");
    let source = match source::fetched(&folder, &version, |to| fetch(&go, &folder, to))? {
        Ok(source) => source,
        Err(report) => return Ok(report),
    };
    let program = folder.join("kgo.test");
    let mut build = Command::new(&go);
    build.current_dir(&source).args(["test", "-c", "-o"]).arg(&program).arg("./pkg/kgo");
    prepare(&mut build, BUILD_MAX)?;

    let directory = context.directory("kafka_franz_go")?;
    let options = context.options(directory.path()).with_settings(&[
        // Its login with a wrong password comes from the address of the others.
        "kafka.login_delay_ms_max=20",
        "kafka.listeners=[{ listen = \"127.0.0.1:0\", security = \"sasl_plaintext\" }]",
    ]);
    let server = Server::start(&options)?;
    create_user(context, &server, USER, PASSWORD)?;
    let (plain, with_login) = (server.kafka()?, server.kafka()?);
    let top: BTreeSet<_> = list.names().filter_map(|name| name.split('/').next()).collect();
    let top: Vec<_> = top.into_iter().collect();
    // The tool turns the program's output into a line of JSON for each event, so
    // that a test's end is found wherever its own output broke off.
    let mut command = Command::new(&go);
    command.current_dir(source.join("pkg/kgo")).args(["tool", "test2json", "-t"]).arg(&program);
    command.args(["-test.v=test2json", "-test.timeout=20m"]);
    command.arg(format!("-test.run=^({})$", top.join("|")));
    command.env("KGO_SEEDS", plain).env("KGO_TEST_RF", "1").env("KGO_TEST_RECORDS", "10000");
    command.env("KGO_TEST_SCRAM_SEEDS", with_login);
    command.env("KGO_TEST_SCRAM", format!("{USER}:{PASSWORD}"));
    command.env("KGO_LOG_LEVEL", "none");
    let text = output_of(&mut command, SUITE_MAX, &folder.join("output.log"))?;
    let names: BTreeSet<_> = list.names().collect();
    let mut outcomes = Outcomes::default();
    let found = text.lines().filter_map(outcome);
    outcomes.extend(found.filter(|(name, _)| names.contains(name.as_str())));
    server.stop()?;
    Ok(list.judge(&outcomes))
}

/// Go's tool, on the path or where its own archive is unpacked to.
fn go() -> Option<PathBuf> {
    let places = ["go", "/usr/local/go/bin/go"].into_iter();
    let mut found = places.filter(|place| Command::new(place).arg("version").output().is_ok());
    found.next().map(PathBuf::from)
}

/// What `go mod download -json` tells, as far as it is needed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Downloaded {
    dir: PathBuf,
}

fn fetch(go: &Path, folder: &Path, to: &Path) -> Result<()> {
    // The command wants to be called from within a module.
    let project = folder.join("fetch");
    std::fs::create_dir_all(&project)?;
    std::fs::write(project.join("go.mod"), "module fetch\n")?;
    let mut download = Command::new(go);
    download.current_dir(&project).args(["mod", "download", "-json"]);
    let text = run_quietly(download.arg(format!("{MODULE}@{VERSION}")))?;
    let downloaded: Downloaded =
        serde_json::from_str(&text).context("go mod download has another answer than expected")?;
    source::copy(&downloaded.dir, to)
}

/// An event of test2json, as far as it is needed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    action: String,
    test: Option<String>,
}

fn outcome(line: &str) -> Option<(String, Outcome)> {
    let event: Event = serde_json::from_str(line).ok()?;
    let outcome = match event.action.as_str() {
        "pass" => Outcome::Passed,
        "skip" => Outcome::Skipped,
        "fail" => Outcome::Failed,
        _ => return None,
    };
    Some((event.test?, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_understood() {
        let passed = ("TestPing".to_owned(), Outcome::Passed);
        let skipped = ("TestGroupETL/range/848".to_owned(), Outcome::Skipped);
        for (line, expected) in [
            (r#"{"Action":"pass","Test":"TestPing","Elapsed":0.1}"#, Some(passed)),
            (r#"{"Action":"skip","Test":"TestGroupETL/range/848"}"#, Some(skipped)),
            (r#"{"Action":"output","Test":"TestPing","Output":"=== RUN\n"}"#, None),
            (r#"{"Action":"fail","Elapsed":3}"#, None),
            ("panic: no JSON", None),
        ] {
            assert_eq!(outcome(line), expected, "{line}");
        }
    }
}

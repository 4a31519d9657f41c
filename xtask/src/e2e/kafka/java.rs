//! Scenario `kafka_java`: Kafka's own client for Java, which Maven fetches into
//! the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::scripts::{SCRIPT_MAX, run_each};
use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::{run_quietly, run_within};

const POM: &str = include_str!("java/pom.xml");
const SOURCE: &str = include_str!("java/Scenarios.java");

/// Scenarios of Scenarios.java.
const SCENARIOS: &[&[&str]] = &[&["round_trip"], &["group"], &["transactions"], &["quotas"]];

pub(crate) fn run(context: &Context) -> Result<Report> {
    for program in ["java", "javac", "mvn"] {
        if Command::new(program).arg("-version").output().is_err() {
            return Ok(Report::could_not_run(format!("there is no {program}")));
        }
    }
    let jars = match jars(&context.workspace.target) {
        Ok(jars) => jars,
        Err(error) => {
            let error = format!("{error:#}");
            let reason = error.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
            return Ok(Report::could_not_run(format!("the client cannot be fetched ({reason})")));
        }
    };
    let directory = context.directory("kafka_java")?;
    let source = directory.path().join("Scenarios.java");
    std::fs::write(&source, SOURCE)?;
    let class_path = format!("{}:{}/*", directory.path().display(), jars.display());
    let mut compile = Command::new("javac");
    run_quietly(compile.args(["-cp", &class_path, "-d"]).arg(directory.path()).arg(&source))?;

    let server = Server::start(&context.options(directory.path()))?;
    let bootstrap = server.kafka()?;
    let report = run_each(&server, SCENARIOS, |arguments| {
        let mut command = Command::new("java");
        command.args(["-cp", &class_path, "Scenarios", &bootstrap]);
        run_within(command.args(arguments), SCRIPT_MAX)
    });
    server.stop()?;
    Ok(report)
}

/// The client's jars, resolved by Maven on first use.
fn jars(target: &Path) -> Result<PathBuf> {
    let folder = target.join("java");
    let pom = folder.join("pom.xml");
    let jars = folder.join("libs");
    // The pom is written last: its content says which jars are in place.
    if jars.is_dir() && std::fs::read_to_string(&pom).is_ok_and(|is| is == POM) {
        return Ok(jars);
    }
    println!("fetching Kafka's Java client into {}", folder.display());
    std::fs::create_dir_all(&folder)?;
    let wanted = folder.join("wanted.xml");
    std::fs::write(&wanted, POM)?;
    let mut command = Command::new("mvn");
    command.args(["-q", "-B", "-f"]).arg(&wanted).arg("dependency:copy-dependencies");
    run_quietly(command.arg(format!("-DoutputDirectory={}", jars.display())))?;
    std::fs::rename(&wanted, &pom)?;
    Ok(jars)
}

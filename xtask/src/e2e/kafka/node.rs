//! Scenario `kafka_js`: kafkajs, installed by npm into the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::scripts::{SCRIPT_MAX, run_each};
use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::{reason, run_quietly, run_within};

const PACKAGE: &str = include_str!("node/package.json");
const LOCK: &str = include_str!("node/package-lock.json");
const SCRIPT: &str = include_str!("node/kafkajs.js");

/// Scenarios of kafkajs.js.
const SCENARIOS: &[&[&str]] = &[&["round_trip"], &["group"]];

pub(crate) fn run(context: &Context) -> Result<Report> {
    for program in ["node", "npm"] {
        if Command::new(program).arg("--version").output().is_err() {
            return Ok(Report::could_not_run(format!("there is no {program}")));
        }
    }
    let modules = match install(&context.workspace.target) {
        Ok(modules) => modules,
        Err(error) => {
            let reason = reason(&error);
            return Ok(Report::could_not_run(format!("kafkajs cannot be installed ({reason})")));
        }
    };
    // Beside its modules, where node looks for them.
    let script = modules.join("kafkajs.js");
    std::fs::write(&script, SCRIPT)?;
    let directory = context.directory("kafka_js")?;
    let server = Server::start(&context.options(directory.path()))?;
    let bootstrap = server.kafka()?;
    let report = run_each(&server, SCENARIOS, |arguments| {
        let mut command = Command::new("node");
        run_within(command.arg(&script).arg(&bootstrap).args(arguments), SCRIPT_MAX)
    });
    server.stop()?;
    Ok(report)
}

/// The folder with the modules of package-lock.json, made on first use.
fn install(target: &Path) -> Result<PathBuf> {
    let folder = target.join("node");
    // Written last: its content says which modules are in place.
    let installed = folder.join("installed.json");
    if std::fs::read_to_string(&installed).is_ok_and(|is| is == LOCK) {
        return Ok(folder);
    }
    println!("installing kafkajs into {}", folder.display());
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("package.json"), PACKAGE)?;
    std::fs::write(folder.join("package-lock.json"), LOCK)?;
    let mut command = Command::new("npm");
    command.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
    run_quietly(command.current_dir(&folder))?;
    std::fs::write(&installed, LOCK)?;
    Ok(folder)
}

//! Runs the clients' scripts, each within a time limit.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::run_within;

/// A script that takes longer hangs.
pub(super) const SCRIPT_MAX: Duration = Duration::from_secs(60);

/// All of them, for they import each other.
const PYTHON: &[(&str, &str)] = &[
    ("common.py", include_str!("common.py")),
    ("confluent.py", include_str!("confluent.py")),
    ("kill9.py", include_str!("kill9.py")),
    ("kafka_python.py", include_str!("kafka_python.py")),
    ("aiokafka_client.py", include_str!("aiokafka_client.py")),
];

/// The Python scripts in a scenario's directory.
#[derive(Debug)]
pub(super) struct Scripts {
    python: PathBuf,
    directory: PathBuf,
}

impl Scripts {
    /// Writes them to `directory`; `Err` says why there is no Python.
    pub(super) fn write(context: &Context, directory: &Path) -> Result<Result<Self, String>> {
        let python = match context.python() {
            Ok(python) => python,
            Err(reason) => return Ok(Err(reason)),
        };
        for (name, text) in PYTHON {
            std::fs::write(directory.join(name), text)?;
        }
        Ok(Ok(Self { python, directory: directory.to_owned() }))
    }

    /// Where they are, and where a scenario may put more.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The command `python SCRIPT BOOTSTRAP ARGUMENTS…`.
    pub(super) fn command(&self, script: &str, bootstrap: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        // Unbuffered, so that a script that is killed has said what it did.
        command.arg("-u").arg(self.directory.join(script)).arg(bootstrap).args(arguments);
        command
    }

    /// Runs one to its end and returns what it printed.
    pub(super) fn run(&self, script: &str, bootstrap: &str, arguments: &[&str]) -> Result<String> {
        run_within(&mut self.command(script, bootstrap, arguments), SCRIPT_MAX)
    }
}

/// Runs what each of `names` stands for, goes on after a failure, and counts.
pub(super) fn run_each(
    server: &Server,
    names: &[&[&str]],
    mut run: impl FnMut(&[&str]) -> Result<String>,
) -> Report {
    let mut report = Report::default();
    let mut details = Vec::new();
    for arguments in names {
        let name = arguments.join(" ");
        let started = Instant::now();
        match run(arguments).with_context(|| format!("{name}\n{}", server.log_tail())) {
            Ok(_) => report.passed += 1,
            Err(error) => {
                println!("failed: {error:#}");
                report.failed += 1;
            }
        }
        details.push(format!("{name} {:.1} s", started.elapsed().as_secs_f64()));
    }
    report.detail = details.join(", ");
    report
}

//! Development tasks: `cargo xtask help`.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a development tool works on the real machine and reports to a terminal"
)]

mod bench;
mod debian;
mod dependencies;
mod e2e;
mod layers;
mod metadata;
mod python;
mod spdx;
mod steps;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development tasks of Aquifer.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Checks, tests and end-to-end scenarios; what every change runs.
    Test(test::Options),
    /// Measures the figures of docs/performance.md.
    Bench(bench::Options),
    /// Runs every fuzz target for a fixed time.
    Fuzz(test::FuzzOptions),
    /// Writes a data directory of the current format version, which the step
    /// `upgrade` opens from then on.
    Fixture {
        /// The version.
        version: u32,
    },
    /// Names the steps of `test`.
    Steps,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run_figures(&options),
        Task::Fuzz(options) => test::fuzz(&options),
        Task::Fixture { version } => test::fixture(version),
        Task::Steps => test::list(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! The Aquifer binary: configuration, wiring and the command line.
//!
//! `cli` has the commands' arguments; each command is a module. Commands that
//! work on a data directory (`serve`, `verify`, `recover`, `doctor`) stand on
//! the lower crates; all others are HTTP clients. Nothing here decides how data
//! is kept.

mod allocator;
mod append;
mod bench;
mod cli;
mod client;
mod config;
mod demo;
mod doctor;
mod engine;
mod exports;
mod failure;
mod files;
mod groups;
mod imports;
mod jobs;
mod offline;
mod output;
mod read;
mod search;
mod serve;
mod sql;
mod streams;
mod users;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::cli::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    // Before much is allocated: what is huge stays so.
    allocator::without_huge_pages();
    let cli = Cli::parse();
    if matches!(cli.command, Command::Engine) {
        engine::prepare();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::failed(format!("the runtime cannot be started: {error}")).report();
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(arguments) => serve::run(*arguments).await,
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::Stream(command) => streams::run(command).await,
        Command::Group(command) => groups::run(command).await,
        Command::User(arguments) => users::run(arguments).await,
        Command::Append(arguments) => append::run(arguments).await,
        Command::Import(arguments) => imports::run(*arguments).await,
        Command::Export(arguments) => exports::run(*arguments).await,
        Command::Watch(arguments) => jobs::watch(arguments).await,
        Command::Jobs(arguments) => jobs::run(arguments).await,
        Command::Read(arguments) => read::run(arguments).await,
        Command::Search(arguments) => search::run(arguments).await,
        Command::Sql(arguments) => sql::run(arguments).await,
        Command::Bench(arguments) => bench::run(arguments).await,
        Command::Verify(arguments) => offline::verify(arguments).await,
        Command::Recover(arguments) => offline::recover(arguments).await,
        Command::Doctor(arguments) => doctor::run(arguments).await,
        Command::Engine => engine::run().await,
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "aquifer", &mut text);
            output::write(&text)
        }
    }
}

//! `cargo xtask test`: its steps, in order.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::e2e;
use crate::steps::{Report, Runner};
use crate::workspace::{self, Workspace, run_with_lines};
use crate::{dependencies, layers};

/// Options of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Raise counts and times, and add the long steps.
    #[arg(long)]
    full: bool,
    /// Run only this step; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Run the end-to-end scenarios against this binary, not the one that is
    /// built.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// Options of `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub(crate) struct FuzzOptions {
    /// Time for each target.
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Run only targets whose name contains this.
    #[arg(default_value = "")]
    filter: String,
}

/// Seconds for each fuzz target in the quick and in the full test.
const FUZZ_SECONDS: (f64, f64) = (2.0, 60.0);

/// A test that prints nothing for this long hangs; building counts too.
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);

/// The quick test judges every change by the same cases; the full test, and
/// whoever sets `AQUIFER_SEED`, looks for new ones.
const QUICK_SEED: &str = "1";

/// Tells tests in the crates that the full test is running.
const FULL_VARIABLE: &str = "AQUIFER_TEST_FULL";

struct Step {
    name: &'static str,
    about: &'static str,
    full_only: bool,
    run: fn(&Workspace, &Options) -> Result<Report>,
}

const STEPS: &[Step] = &[
    Step { name: "fmt", about: "rustfmt has nothing to change", full_only: false, run: fmt },
    Step {
        name: "clippy",
        about: "no warnings, bans of clippy.toml",
        full_only: false,
        run: clippy,
    },
    Step {
        name: "layers",
        about: "dependencies point down as ARCHITECTURE.md says",
        full_only: false,
        run: |workspace, _| layers::check(&workspace.metadata).map(Report::passed),
    },
    Step {
        name: "licences",
        about: "deny.toml against cargo metadata",
        full_only: false,
        run: |workspace, _| dependencies::check(&workspace.metadata).map(Report::passed),
    },
    Step {
        name: "tests",
        about: "unit, property, crash and fuzz tests",
        full_only: false,
        run: cargo_test,
    },
    Step {
        name: "deny",
        about: "cargo-deny with advisories",
        full_only: true,
        run: |workspace, _| dependencies::check_in_full(workspace),
    },
];

/// Runs the steps; true if nothing failed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    for name in &options.only {
        let known = STEPS.iter().any(|step| step.name == name)
            || e2e::all_scenarios().any(|(scenario, _)| scenario.name == name);
        if !known {
            bail!("there is no step {name}; `cargo xtask steps` names them");
        }
    }
    let workspace = Workspace::load()?;
    let mut runner = Runner::start();
    let chosen = |name: &str, full_only: bool| match options.only.as_slice() {
        [] => options.full || !full_only,
        only => only.iter().any(|chosen| chosen == name),
    };
    for step in STEPS.iter().filter(|step| chosen(step.name, step.full_only)) {
        runner.step(step.name, || (step.run)(&workspace, options));
    }
    let scenarios = e2e::all_scenarios().filter(|(of, full_only)| chosen(of.name, *full_only));
    let scenarios: Vec<_> = scenarios.map(|(scenario, _)| scenario).collect();
    if !scenarios.is_empty() {
        let mut built = false;
        let binary = match &options.binary {
            Some(binary) => {
                built = true;
                std::path::absolute(binary)?
            }
            None => {
                // The tests have built it, for those that start it. A build of its
                // own would take other features of what DataFusion stands on, and
                // compile all of that again.
                if chosen("tests", false) && workspace.binary().is_file() {
                    built = true;
                } else {
                    runner.step("build", || {
                        let report = run_cargo(&workspace, "build -p aquifer")?;
                        built = true;
                        Ok(report)
                    });
                }
                workspace.binary()
            }
        };
        let context = e2e::Context::new(&workspace, binary, options.full);
        for scenario in scenarios {
            runner.step(scenario.name, || {
                if !built {
                    bail!("the binary was not built");
                }
                (scenario.run)(&context)
            });
        }
    }
    Ok(runner.finish())
}

/// Runs the fuzz targets of all crates; true if none failed.
pub(crate) fn fuzz(options: &FuzzOptions) -> Result<bool> {
    let workspace = Workspace::load()?;
    let mut command = workspace.cargo("test --workspace --tests --lib --bins --no-fail-fast --");
    command.arg(format!("fuzz_{}", options.filter)).arg("--nocapture");
    command.env("AQUIFER_FUZZ_SECONDS", options.seconds.to_string());
    let mut targets = 0;
    let done = run_with_lines(&mut command, SILENCE_MAX, |line| {
        targets += u64::from(line.starts_with("fuzz "))
    });
    println!("{targets} fuzz targets, {} s each", options.seconds);
    Ok(done.is_ok() && targets > 0)
}

/// Writes the data directory of a format version for the step `upgrade`.
pub(crate) fn fixture(version: u32) -> Result<bool> {
    let workspace = Workspace::load()?;
    run_cargo(&workspace, "build -p aquifer")?;
    let fixture = e2e::upgrade::write_fixture(
        &e2e::Context::new(&workspace, workspace.binary(), false),
        version,
    )?;
    println!("{}", fixture.display());
    Ok(true)
}

/// Prints the names of all steps.
pub(crate) fn list() -> Result<bool> {
    let steps = STEPS.iter().map(|step| (step.name, step.about, step.full_only));
    let scenarios = e2e::all_scenarios().map(|(of, full_only)| (of.name, of.about, full_only));
    for (name, about, full_only) in steps.chain(scenarios) {
        println!("{name:<18} {about}{}", if full_only { " (only with --full)" } else { "" });
    }
    Ok(true)
}

fn fmt(workspace: &Workspace, _: &Options) -> Result<Report> {
    run_cargo(workspace, "fmt --all --check")
}

fn clippy(workspace: &Workspace, _: &Options) -> Result<Report> {
    run_cargo(workspace, "clippy --quiet --workspace --all-targets -- -D warnings")
}

fn run_cargo(workspace: &Workspace, arguments: &str) -> Result<Report> {
    workspace::run(&mut workspace.cargo(arguments))?;
    Ok(Report::passed(""))
}

fn cargo_test(workspace: &Workspace, options: &Options) -> Result<Report> {
    let mut command = workspace.cargo("test --workspace --no-fail-fast");
    let (quick, full) = FUZZ_SECONDS;
    let seconds = if options.full { full } else { quick };
    if std::env::var_os("AQUIFER_FUZZ_SECONDS").is_none() {
        command.env("AQUIFER_FUZZ_SECONDS", seconds.to_string());
    }
    if options.full {
        command.env(FULL_VARIABLE, "1");
    } else if std::env::var_os("AQUIFER_SEED").is_none() {
        command.env("AQUIFER_SEED", QUICK_SEED);
    }
    let mut counted = Counted::default();
    let done = run_with_lines(&mut command, SILENCE_MAX, |line| counted.line(line));
    let Counted { passed, failed, failures } = counted;
    if failed == 0 {
        // Without a failed test it was the build, or a test that died.
        done?;
    }
    let detail = if failures.is_empty() {
        format!("{passed} tests")
    } else {
        format!("{passed} tests passed, these failed: {}", failures.join(", "))
    };
    Ok(Report { detail, passed, failed, gaps: Vec::new() })
}

/// Counts in what `cargo test` prints.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Counted {
    fn line(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            for part in counts.split([';', '.']).map(str::trim) {
                if let Some(count) = part.strip_suffix(" passed") {
                    self.passed += count.parse::<u64>().unwrap_or(0);
                } else if let Some(count) = part.strip_suffix(" failed") {
                    self.failed += count.parse::<u64>().unwrap_or(0);
                }
            }
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_output_is_counted() {
        let mut counted = Counted::default();
        for line in [
            "test a::b ... ok",
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            "test c::d ... FAILED",
            "test result: FAILED. 6 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            counted.line(line);
        }
        let failures = vec!["c::d".to_owned()];
        assert_eq!(counted, Counted { passed: 11, failed: 1, failures });
    }

    #[test]
    fn step_names_are_unique() {
        let mut names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        names.extend(e2e::all_scenarios().map(|(scenario, _)| scenario.name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

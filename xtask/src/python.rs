//! A virtual environment with the Python clients of the end-to-end tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workspace::{Workspace, reason, run_quietly};

/// The requirements of most scenarios, installed into `target/venv`.
const REQUIREMENTS: &str = "requirements.txt";

/// The interpreter of `target/venv` with requirements.txt installed, made on
/// first use; else one sentence why there is none.
pub(crate) fn interpreter(workspace: &Workspace) -> Result<PathBuf, String> {
    interpreter_with(workspace, REQUIREMENTS)
}

/// As [`interpreter`] with another file `requirements-NAME.txt` of xtask's,
/// installed into `target/venv-NAME`.
pub(crate) fn interpreter_with(workspace: &Workspace, file: &str) -> Result<PathBuf, String> {
    let requirements = workspace.root.join("xtask").join(file);
    let wanted = std::fs::read_to_string(&requirements)
        .map_err(|error| format!("cannot read {}: {error}", requirements.display()))?;
    let suffix = file.trim_start_matches("requirements").trim_end_matches(".txt");
    let environment = workspace.target.join(format!("venv{suffix}"));
    let interpreter = environment.join("bin").join("python");
    // Written last: its content says which requirements are in place.
    let installed = environment.join("installed.txt");
    if interpreter.exists() && std::fs::read_to_string(&installed).is_ok_and(|is| is == wanted) {
        return Ok(interpreter);
    }
    println!("installing Python clients into {}", environment.display());
    step("python3", &["-m", "venv", "--clear"], &environment)?;
    step(
        &interpreter.to_string_lossy(),
        &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"],
        &requirements,
    )?;
    std::fs::write(&installed, wanted)
        .map_err(|error| format!("cannot write {}: {error}", installed.display()))?;
    Ok(interpreter)
}

fn step(program: &str, arguments: &[&str], last: &Path) -> Result<(), String> {
    run_quietly(Command::new(program).args(arguments).arg(last))
        .map(drop)
        .map_err(|error| format!("the Python clients cannot be installed ({})", reason(&error)))
}

//! Where things are, and running cargo on them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::metadata::Metadata;

/// The repository and its target folder.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) metadata: Metadata,
}

impl Workspace {
    /// Asks cargo about the workspace that this tool was built from.
    pub(crate) fn load() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let metadata = Metadata::load(&manifest)?;
        Ok(Self {
            root: metadata.workspace_root.clone(),
            target: metadata.target_directory.clone(),
            metadata,
        })
    }

    /// The development build of the product.
    pub(crate) fn binary(&self) -> PathBuf {
        self.target.join("debug").join("aquifer")
    }

    /// `cargo` at the root, with `arguments` separated by blanks.
    pub(crate) fn cargo(&self, arguments: &str) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root).args(arguments.split_whitespace());
        command
    }
}

/// The `cargo` that runs this tool, without what it said of this tool. Build scripts
/// look at that: with it, a build from here and one by hand would each compile again
/// what stands on them, which is most of the dependencies.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs `command` with its output on the terminal; a status other than zero is
/// an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{} ended with {status}", line_of(command));
    }
    Ok(())
}

/// Like [`run`], and calls `line` with each line of standard output as it is
/// passed on to the terminal. A command that prints nothing for `silence_max`
/// hangs: it is killed with all that it started.
pub(crate) fn run_with_lines(
    command: &mut Command,
    silence_max: Duration,
    mut line: impl FnMut(&str),
) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let (lines, printed) = sync_channel(1024);
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            for text in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                if lines.send(String::from_utf8_lossy(&text).into_owned()).is_err() {
                    return;
                }
            }
        });
    }
    loop {
        match printed.recv_timeout(silence_max) {
            Ok(text) => {
                println!("{text}");
                line(&text);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                kill_process_group(Pid::from_child(&child), Signal::KILL)?;
                child.wait()?;
                bail!("{} printed nothing for {silence_max:?}, killed", line_of(command));
            }
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} ended with {status}", line_of(command));
    }
    Ok(())
}

/// The last line of what an error says, which mostly tells why.
pub(crate) fn reason(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}

/// Runs `command` quietly; an error holds what it said.
pub(crate) fn run_quietly(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}\n{text}{errors}", line_of(command), output.status);
    }
    Ok(text)
}

/// Like [`run_quietly`]; a command that is not done within `limit` is killed. All
/// that it started and left behind is killed in any case.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<String> {
    let Ended { text, errors, status } = run_to_end(command, limit)?;
    let line = line_of(command);
    match status {
        Some(status) if status.success() => Ok(text),
        Some(status) => bail!("{line} ended with {status}\n{text}{errors}"),
        None => bail!("{line} was not done within {limit:?}, killed\n{text}{errors}"),
    }
}

/// A command that ended, in whatever way.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What it wrote to its standard output.
    pub(crate) text: String,
    /// The same of its standard error.
    pub(crate) errors: String,
    /// None where its time was over.
    pub(crate) status: Option<ExitStatus>,
}

/// Runs `command` quietly for at most `limit`, and then kills it with all that it
/// started.
pub(crate) fn run_to_end(command: &mut Command, limit: Duration) -> Result<Ended> {
    let mut output = tempfile::tempfile()?;
    let mut errors = tempfile::tempfile()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(errors.try_clone()?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    let group = Pid::from_child(&child);
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if started.elapsed() > limit {
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    // Fails where nobody is left, which is the rule.
    let _ = kill_process_group(group, Signal::KILL);
    child.wait()?;
    Ok(Ended { text: written(&mut output)?, errors: written(&mut errors)?, status })
}

fn written(file: &mut File) -> Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn line_of(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_command_is_killed_with_its_children() {
        let mut seen = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; sh -c 'sleep 1000'"]);
        let done = run_with_lines(&mut command, Duration::from_millis(300), |line| {
            seen.push(line.to_owned());
        });
        let error = done.unwrap_err().to_string();
        assert!(error.contains("printed nothing"), "{error}");
        assert_eq!(seen, ["one"]);
    }

    #[test]
    fn cargo_hears_nothing_of_the_package_that_calls_it() {
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let mut shell = Command::new("sh");
        shell.args(["-c", "env"]);
        for (name, value) in cargo().get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let heard = run_quietly(&mut shell).unwrap();
        assert!(heard.contains("CARGO="), "{heard}");
        for name in ["CARGO_MANIFEST_DIR=", "CARGO_PKG_NAME="] {
            assert!(!heard.contains(name), "{heard}");
        }
    }

    #[test]
    fn a_command_has_its_time() {
        let script = |text: &str, limit| run_within(Command::new("sh").args(["-c", text]), limit);
        let long = Duration::from_secs(60);
        // What it leaves behind holds the output open, and is ended too.
        assert_eq!(script("sleep 1000 & echo done", long).unwrap(), "done\n");
        let failed = script("echo one; echo two >&2; exit 3", long).unwrap_err().to_string();
        assert!(failed.contains("one\ntwo") && failed.contains("status: 3"), "{failed}");
        let short = Duration::from_millis(300);
        let hung = script("echo said; sleep 1000", short).unwrap_err().to_string();
        assert!(hung.contains("not done within 300ms") && hung.contains("said"), "{hung}");
    }
}

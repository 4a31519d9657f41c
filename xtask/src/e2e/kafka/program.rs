//! A program of others that a scenario needs, run as a process of its own: a
//! stream processor, a connector's worker, a log shipper.
//!
//! It ends with the scenario, as a crash would end it, unless it is asked to.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::e2e::eventually;

/// Bytes at the end of the log that an error shows.
const LOG_TAIL_BYTES: i64 = 4096;

/// A running program; killed when dropped.
#[derive(Debug)]
pub(super) struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it with an open standard input; what it prints goes behind what
    /// is in `log`.
    pub(super) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its standard input, once; to drop it is to close it.
    pub(super) fn input(&mut self) -> Result<ChildStdin> {
        self.child.stdin.take().context("the standard input was taken")
    }

    /// Tries until it succeeds. An error once `limit` has passed, and at once
    /// if the program has ended.
    pub(super) fn until<T>(
        &mut self,
        limit: Duration,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let child = &mut self.child;
        let done = eventually(limit, || {
            let error = match attempt() {
                Ok(value) => return Ok(Ok(value)),
                Err(error) => error,
            };
            match child.try_wait()? {
                Some(status) => Ok(Err(error.context(format!("the program ended with {status}")))),
                None => Err(error),
            }
        });
        done.and_then(|ended| ended).map_err(|error| anyhow!("{error:#}\n{}", self.log_tail()))
    }

    /// Waits until it ends by itself; a status other than zero is an error.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<()> {
        let child = &mut self.child;
        let status = eventually(limit, || child.try_wait()?.context("it does not end"));
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => bail!("it ended with {status}\n{}", self.log_tail()),
            Err(error) => bail!("{error:#}\n{}", self.log_tail()),
        }
    }

    /// Asks it to end, and waits for that.
    pub(super) fn stop(mut self, limit: Duration) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.wait(limit)
    }

    /// Ends it as a crash would.
    pub(super) fn kill9(self) {
        drop(self);
    }

    /// The end of what it printed.
    fn log_tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let len = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::End(-LOG_TAIL_BYTES.min(i64::try_from(len).unwrap_or_default())))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        match read() {
            Ok(text) => format!("the end of {}:\n{text}", self.log.display()),
            Err(error) => format!("{} cannot be read: {error}", self.log.display()),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Already ended, or nobody is left to hear of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, log: &Path) -> Program {
        Program::start(Command::new("sh").args(["-c", script]), log).unwrap()
    }

    #[test]
    fn what_ends_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let long = Duration::from_secs(60);
        let mut ended = shell("echo said; exit 3", &log);
        let error = ended.until(long, || -> Result<()> { bail!("not there") }).unwrap_err();
        let error = error.to_string();
        for part in ["not there", "status: 3", "said"] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        let mut reader = shell("cat; echo read", &log);
        drop(reader.input().unwrap());
        reader.wait(long).unwrap();
        assert!(shell("exit 1", &log).wait(long).is_err());
    }

    #[test]
    fn it_ends_with_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let program = shell("sleep 1000", &directory.path().join("log"));
        let id = program.child.id();
        program.kill9();
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}

//! Why a command failed, and the exit status that says so to scripts.

use std::io::Write as _;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was refused or went wrong; exit status 1. What to do next, if that is
    /// known, is the second text.
    Failed(String, Option<String>),
    /// The server cannot be reached; exit status 3. (2 is a wrong command line.)
    Unreachable(String),
    /// Whoever read the output has gone: nothing to report.
    OutputClosed,
}

impl Failure {
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into(), None)
    }

    pub(crate) fn with_next(why: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Failed(why.into(), Some(next.into()))
    }

    /// Says it on standard error.
    pub(crate) fn report(self) -> ExitCode {
        // Where standard error is closed, nobody is left to tell.
        let mut out = std::io::stderr().lock();
        match self {
            Self::Failed(why, next) => {
                let _ = writeln!(out, "error: {why}");
                if let Some(next) = next {
                    let _ = writeln!(out, " next: {next}");
                }
                ExitCode::from(1)
            }
            Self::Unreachable(why) => {
                let _ = writeln!(out, "error: {why}");
                let _ = writeln!(
                    out,
                    " next: start a server with `aquifer serve`, or name one with --url or AQUIFER_URL"
                );
                ExitCode::from(3)
            }
            Self::OutputClosed => ExitCode::SUCCESS,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::failed(error.to_string()),
        }
    }
}

impl From<aquifer_stream::Error> for Failure {
    fn from(error: aquifer_stream::Error) -> Self {
        Self::failed(error.to_string())
    }
}

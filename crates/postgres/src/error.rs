//! What a client is told when something fails, and what ends a connection.

use std::io;

use aquifer_query::wire::Refusal;

/// PostgreSQL's codes for what fails here; the engine's refusals bring theirs.
pub(crate) mod sqlstate {
    pub(crate) const PROTOCOL_VIOLATION: &str = "08P01";
    pub(crate) const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub(crate) const STRING_NOT_UTF8: &str = "22021";
    pub(crate) const INVALID_PARAMETER_VALUE: &str = "22023";
    pub(crate) const INVALID_TEXT: &str = "22P02";
    pub(crate) const INVALID_BINARY: &str = "22P03";
    pub(crate) const TRANSACTION_FAILED: &str = "25P02";
    pub(crate) const NO_TRANSACTION: &str = "25P01";
    pub(crate) const NO_STATEMENT: &str = "26000";
    pub(crate) const INVALID_AUTHORIZATION: &str = "28000";
    pub(crate) const INVALID_PASSWORD: &str = "28P01";
    pub(crate) const NO_CURSOR: &str = "34000";
    pub(crate) const NO_DATABASE: &str = "3D000";
    pub(crate) const SYNTAX: &str = "42601";
    pub(crate) const UNKNOWN_SETTING: &str = "42704";
    pub(crate) const DUPLICATE_STATEMENT: &str = "42P05";
    pub(crate) const DUPLICATE_CURSOR: &str = "42P03";
    pub(crate) const TOO_MANY_CONNECTIONS: &str = "53300";
    pub(crate) const LIMIT_EXCEEDED: &str = "53400";
    pub(crate) const PROGRAM_LIMIT: &str = "54000";
    pub(crate) const NOT_IN_STATE: &str = "55000";
    pub(crate) const CANCELED: &str = "57014";
    pub(crate) const SHUTDOWN: &str = "57P01";
    pub(crate) const IDLE: &str = "57P05";
    pub(crate) const READ_ONLY_SETTING: &str = "55P02";
    pub(crate) const INTERNAL: &str = "XX000";
}

/// An ErrorResponse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The connection ends with it.
    pub(crate) is_fatal: bool,
    pub(crate) sqlstate: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// In characters from 1, in the text that the client sent.
    pub(crate) position: Option<u64>,
    /// The refusal's stable name.
    pub(crate) routine: Option<String>,
}

impl Problem {
    /// One after which the session goes on.
    pub(crate) fn new(sqlstate: &str, message: impl Into<String>) -> Self {
        Self {
            is_fatal: false,
            sqlstate: sqlstate.to_owned(),
            message: message.into(),
            hint: None,
            position: None,
            routine: None,
        }
    }

    /// One that ends the connection.
    pub(crate) fn fatal(sqlstate: &str, message: impl Into<String>) -> Self {
        Self { is_fatal: true, ..Self::new(sqlstate, message) }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The statement began `characters` behind the start of what was sent.
    pub(crate) fn moved(self, characters: u64) -> Self {
        Self { position: self.position.map(|position| position + characters), ..self }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let is_sqlstate = refusal.sqlstate.len() == 5
            && refusal.sqlstate.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let sqlstate = if is_sqlstate { refusal.sqlstate } else { sqlstate::INTERNAL.to_owned() };
        Self {
            is_fatal: false,
            sqlstate,
            message: refusal.message,
            hint: None,
            position: refusal.position,
            routine: Some(refusal.code),
        }
    }
}

/// Why something did not come to its end.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The client is told.
    Problem(Box<Problem>),
    /// There is no one to tell.
    Broken(io::Error),
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Problem::from(refusal).into()
    }
}

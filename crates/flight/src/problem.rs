//! What a client is told when something fails: a status of gRPC, the stable
//! name of what is wrong, and the mend.

use aquifer_query::wire::Refusal;
use aquifer_types::ErrorKind;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// The longest message in bytes: it travels in a header, where each byte may
/// take three, and some clients take 8 KiB of headers.
const MESSAGE_BYTES_MAX: usize = 2_000;

/// Where a client finds the stable name.
const CODE_KEY: &str = "aquifer-code";
/// Where it finds PostgreSQL's five characters.
const SQLSTATE_KEY: &str = "aquifer-sqlstate";
/// Where it finds the place in the statement, in characters from 1.
const POSITION_KEY: &str = "aquifer-position";

/// Why a call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    /// A stable name, such as `sql-syntax`.
    pub(crate) name: String,
    pub(crate) message: String,
    pub(crate) sqlstate: Option<String>,
    /// In characters from 1, in the statement.
    pub(crate) position: Option<u64>,
}

impl Problem {
    fn new(code: Code, name: &str, message: impl Into<String>) -> Self {
        let (name, message) = (name.to_owned(), message.into());
        Self { code, name, message, sqlstate: None, position: None }
    }

    /// The request is to be changed.
    pub(crate) fn invalid(name: &str, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, name, message)
    }

    /// What is named is not there, or not there any more.
    pub(crate) fn not_found(name: &str, message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, name, message)
    }

    /// This is not done here.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, "flight-unsupported", message)
    }

    /// Who asks is not known.
    pub(crate) fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(Code::Unauthenticated, "unauthenticated", message)
    }

    /// A limit, with its name in the message.
    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self::new(Code::ResourceExhausted, "limit", message)
    }

    /// A client took too long.
    pub(crate) fn too_slow(message: impl Into<String>) -> Self {
        Self::new(Code::DeadlineExceeded, "too-slow", message)
    }

    /// Somebody wanted it to end.
    pub(crate) fn cancelled() -> Self {
        let message = "the statement was cancelled on its client's request";
        Self::new(Code::Cancelled, "cancelled", message)
    }

    /// The server's own fault.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, "internal", message)
    }
}

fn code_of(refusal: &Refusal) -> Code {
    match refusal.kind {
        ErrorKind::InvalidRequest => Code::InvalidArgument,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::OutOfRange => Code::OutOfRange,
        ErrorKind::TooLarge if refusal.code == "query-time" => Code::DeadlineExceeded,
        ErrorKind::TooLarge | ErrorKind::Throttled | ErrorKind::StorageFull => {
            Code::ResourceExhausted
        }
        ErrorKind::Conflict | ErrorKind::Fenced => Code::Aborted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Indefinite => Code::Unknown,
        ErrorKind::Damaged => Code::DataLoss,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Internal => Code::Internal,
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: code_of(&refusal),
            name: refusal.code,
            message: refusal.message,
            sqlstate: Some(refusal.sqlstate),
            position: refusal.position,
        }
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let Problem { code, name, mut message, sqlstate, position } = problem;
        if let Some(position) = position {
            message.push_str(&format!(" (at character {position})"));
        }
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
            message.push('…');
        }
        let mut metadata = MetadataMap::new();
        let position = position.map(|position| position.to_string());
        let told =
            [(CODE_KEY, Some(name.clone())), (SQLSTATE_KEY, sqlstate), (POSITION_KEY, position)];
        for (key, value) in told {
            if let Some(value) = value.and_then(|value| MetadataValue::try_from(value).ok()) {
                metadata.insert(key, value);
            }
        }
        Self::with_metadata(code, format!("{name}: {message}"), metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_status_with_its_name_and_place() {
        let mut refusal =
            Refusal::new(ErrorKind::InvalidRequest, "sql-syntax", "42601", "near FROM");
        refusal.position = Some(7);
        let status = Status::from(Problem::from(refusal));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "sql-syntax: near FROM (at character 7)");
        for (key, expected) in
            [(CODE_KEY, "sql-syntax"), (SQLSTATE_KEY, "42601"), (POSITION_KEY, "7")]
        {
            assert_eq!(status.metadata().get(key).unwrap(), expected);
        }
    }

    #[test]
    fn messages_fit_a_header() {
        let status = Status::from(Problem::internal("ä".repeat(10_000)));
        assert!(status.message().len() < MESSAGE_BYTES_MAX + 20, "{}", status.message().len());
        // A name that is no header's value is left out of the headers only.
        let refusal = Refusal::new(ErrorKind::Internal, "a\nb", "XX000", "x");
        let status = Status::from(Problem::from(refusal));
        assert!(status.metadata().get(CODE_KEY).is_none());
        assert_eq!(status.message(), "a\nb: x");
    }

    #[test]
    fn what_took_too_long_is_told_from_what_is_too_large() {
        for (code, expected) in
            [("query-time", Code::DeadlineExceeded), ("rows-max", Code::ResourceExhausted)]
        {
            let refusal = Refusal::new(ErrorKind::TooLarge, code, "54000", "x");
            assert_eq!(Problem::from(refusal).code, expected);
        }
    }
}

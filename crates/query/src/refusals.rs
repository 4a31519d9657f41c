//! Why the server's side refuses or ends a question. The engine has reasons of
//! its own.

use aquifer_types::ErrorKind;

use crate::wire::Refusal;

impl Refusal {
    /// A refusal without a place in the statement.
    #[must_use]
    pub fn new(kind: ErrorKind, code: &str, sqlstate: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.to_owned(),
            sqlstate: sqlstate.to_owned(),
            message: message.into(),
            position: None,
        }
    }

    /// The same question may be answered later.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        self.kind.is_retriable()
    }

    pub(crate) fn queue_full(why: &str) -> Self {
        Self::new(
            ErrorKind::Throttled,
            "query-queue-full",
            "53300",
            format!("too many questions at a time: {why}; ask again later"),
        )
    }

    pub(crate) fn stopping() -> Self {
        let message = "the server is stopping";
        Self::new(ErrorKind::Unavailable, "stopping", "57P01", message)
    }

    pub(crate) fn out_of_time(time_ms_max: u64) -> Self {
        Self::new(
            ErrorKind::TooLarge,
            "query-time",
            "57014",
            format!(
                "the question took longer than its {time_ms_max} ms (time_ms_max); ask for less, \
                 or raise the limit"
            ),
        )
    }

    pub(crate) fn too_large(what: &str, limit: u64, limit_name: &str) -> Self {
        Self::new(
            ErrorKind::TooLarge,
            limit_name_code(limit_name),
            "54000",
            format!("{what} is larger than {limit} ({limit_name})"),
        )
    }

    /// The engine said what it must not.
    pub(crate) fn protocol(what: &str) -> Self {
        Self::new(
            ErrorKind::Internal,
            "engine-protocol",
            "XX000",
            format!("internal error, please report it: the engine {what}"),
        )
    }

    pub(crate) fn not_started(why: &str) -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "engine-unavailable",
            "57P03",
            format!("the engine cannot be reached: {why}; ask again"),
        )
    }

    /// What the store says.
    pub(crate) fn of_store(error: &aquifer_stream::Error) -> Self {
        use aquifer_stream::Error;
        let (code, sqlstate) = match error {
            Error::StreamNotFound(_) => ("unknown-table", "42P01"),
            Error::StreamExists(_) | Error::ViewExists(_) => ("already-exists", "42P07"),
            Error::Damaged { .. } => ("damaged", "XX001"),
            Error::Stopping => ("stopping", "57P01"),
            Error::TooLarge { .. } | Error::Throttled { .. } => ("limit", "54000"),
            Error::Internal(_) => ("internal", "XX000"),
            _ => ("store", "58000"),
        };
        Self::new(error.kind(), code, sqlstate, error.to_string())
    }

    /// What the cut had is not kept any more.
    pub(crate) fn overtaken(why: &str) -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "cut-overtaken",
            "40001",
            format!("{why} while the question ran; ask again"),
        )
    }
}

/// Codes are words with dashes, limits words with underscores.
fn limit_name_code(limit_name: &str) -> &str {
    match limit_name {
        "rows_max" => "rows-max",
        "bytes_max" => "bytes-max",
        _ => "too-large",
    }
}

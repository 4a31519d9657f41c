//! Why one item of an administrative request was refused: a code for programs
//! and words for people.

use aquifer_stream::Error;
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::error_code::error_code;

/// An item that was not carried out.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) code: ResponseError,
    message: String,
}

impl Refusal {
    pub(crate) fn new(code: ResponseError, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The words, as responses take them.
    pub(crate) fn text(&self) -> Option<StrBytes> {
        Some(StrBytes::from_string(self.message.clone()))
    }
}

/// A code says enough for those that have no words of their own.
impl From<ResponseError> for Refusal {
    fn from(code: ResponseError) -> Self {
        Self { code, message: code.to_string() }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let code = match &error {
            // A limit of the server, which waiting does not lift.
            Error::Throttled { .. } => ResponseError::PolicyViolation,
            Error::NotWritten(_) | Error::Backpressure { .. } => ResponseError::KafkaStorageError,
            // The client asks what there is, and repeats it where need be.
            Error::Indefinite(_) => ResponseError::RequestTimedOut,
            error => error_code(error),
        };
        Self { code, message: error.to_string() }
    }
}

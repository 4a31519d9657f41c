//! SASL mechanisms as pure state machines: messages in, messages out.
//!
//! They know neither sockets nor users. Each has a bound on its messages, and
//! no error says more to a client than that the login failed.

mod attempts;
mod attributes;
mod oauth_bearer;
mod plain;
mod scram;

pub use attempts::{AttemptLimits, Attempts};
pub use oauth_bearer::{
    OauthBearer, TokenRefused, TokenValidator, ValidatedToken, refusal as oauth_refusal,
};
pub use plain::Plain;
pub use scram::{ScramExchange, ScramFirst};

/// The largest message of a mechanism that is not a token's.
pub const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// The largest message with a token.
pub const TOKEN_BYTES_MAX: usize = 64 << 10;

/// Why a login failed, for the server's log and its tests; a client is told
/// only that it did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// A message is not what the mechanism says.
    #[error("a message is malformed: {0}")]
    Malformed(&'static str),
    /// The client asks for something that is not there.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// To act for another user is not possible.
    #[error("one user asks to act for another")]
    ForAnother,
    /// The proof does not fit the user, or there is no such user.
    #[error("the user or the password is wrong")]
    Wrong,
}

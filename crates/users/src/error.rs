//! Why a user cannot be created, changed or read.

use aquifer_types::ErrorKind;

/// An error about users.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is no user's name.
    #[error("a user name has 1 to {max} bytes and no control characters")]
    Name {
        /// The longest name in bytes.
        max: usize,
    },
    /// The password is no password.
    #[error("a password has 1 to {max} bytes of UTF-8 and no control characters")]
    Password {
        /// The longest password in bytes.
        max: usize,
    },
    /// A verifier that cannot be one.
    #[error("{0}")]
    Verifier(String),
    /// There is no user of that name.
    #[error("there is no user {0}")]
    NotFound(String),
    /// There is a user of that name.
    #[error("there is a user {0} already")]
    Exists(String),
    /// It was changed all the time while it was to be changed here.
    #[error("user {0} is being changed by somebody else")]
    Contended(String),
    /// What is stored is not a user.
    #[error("what is stored of user {name} cannot be read: {why}")]
    Damaged {
        /// Whose it is.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] aquifer_stream::Error),
}

impl Error {
    /// What the caller should do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name { .. } | Self::Password { .. } | Self::Verifier(_) => {
                ErrorKind::InvalidRequest
            }
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Exists(_) => ErrorKind::AlreadyExists,
            Self::Contended(_) => ErrorKind::Throttled,
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Store(error) => error.kind(),
        }
    }
}

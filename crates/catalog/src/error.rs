//! What can go wrong with the catalog, and what the caller can do about it.

use std::path::{Path, PathBuf};

use aquifer_types::ErrorKind;
use rusqlite::ErrorCode;
use rusqlite::ffi;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the catalog.
///
/// After a failed [`apply`](crate::Catalog::apply) either all of its changes
/// and its position are kept or none; applying them again is right in both
/// cases.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process or connection has the file locked: retry, or find it.
    #[error("catalog {path} is in use by another process")]
    Busy {
        /// The catalog's file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// No space is left for the file or its write-ahead log: make room, then
    /// apply the same changes again. Reads go on.
    #[error("no space is left for catalog {path}")]
    Full {
        /// The catalog's file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file is damaged, or is no catalog: verify, then recover.
    #[error("catalog {path} is damaged: {what}")]
    Corrupt {
        /// The catalog's file.
        path: PathBuf,
        /// The place and kind of the damage.
        what: String,
    },
    /// The file's schema is newer than this program: run a newer one.
    #[error(
        "catalog {path} has schema version {found} and this program knows versions up to {known}; \
         start the newer program that wrote it, or a later one"
    )]
    Version {
        /// The catalog's file.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The highest version that this program knows.
        known: i64,
    },
    /// There is no catalog at the path, or an empty one, and none was to be
    /// created: look for it, or recover.
    #[error("catalog {path} is missing, empty or cannot be opened")]
    Missing {
        /// Where the file was expected.
        path: PathBuf,
    },
    /// A row or position that the catalog cannot hold: a defect of the caller.
    #[error("catalog cannot hold {what}")]
    Invalid {
        /// The row and what is wrong with it.
        what: String,
    },
    /// Any other failure of SQLite or of the system below it, such as a failed
    /// sync. Applying the same changes again is safe.
    #[error("catalog {path} failed")]
    Other {
        /// The catalog's file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl Error {
    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Busy { .. } | Error::Other { .. } => ErrorKind::Unavailable,
            Error::Full { .. } => ErrorKind::StorageFull,
            Error::Corrupt { .. } => ErrorKind::Damaged,
            Error::Version { .. } => ErrorKind::Unsupported,
            Error::Missing { .. } => ErrorKind::NotFound,
            Error::Invalid { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Error::Corrupt { path: path.to_owned(), what: what.into() }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Error::Invalid { what: what.into() }
    }

    /// Sorts an error of SQLite into the kinds that a caller can act on.
    pub(crate) fn from_sqlite(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let Some(code) = source.sqlite_error() else {
            return match source {
                rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::Utf8Error(..) => {
                    Error::Corrupt { path, what: source.to_string() }
                }
                _ => Error::Other { path, source },
            };
        };
        // Growing a file fails as one of these when the disk is full.
        let grew = [ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_IOERR_TRUNCATE];
        match code.code {
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed => Error::Busy { path, source },
            ErrorCode::DiskFull => Error::Full { path, source },
            ErrorCode::SystemIoFailure if grew.contains(&code.extended_code) => {
                Error::Full { path, source }
            }
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                Error::Corrupt { path, what: source.to_string() }
            }
            ErrorCode::SystemIoFailure if code.extended_code == ffi::SQLITE_IOERR_SHORT_READ => {
                Error::Corrupt { path, what: source.to_string() }
            }
            // A table or column that every statement needs is not there.
            ErrorCode::Unknown if code.extended_code == ffi::SQLITE_ERROR => {
                Error::Corrupt { path, what: source.to_string() }
            }
            ErrorCode::ConstraintViolation | ErrorCode::TooBig => {
                Error::Invalid { what: format!("a row that its table refuses: {source}") }
            }
            _ => Error::Other { path, source },
        }
    }
}

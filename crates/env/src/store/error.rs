//! What went wrong with an object, and what the caller can do.

use std::error::Error;
use std::fmt;
use std::io;

/// What to do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// There is no such object.
    NotFound,
    /// There is such an object already.
    AlreadyExists,
    /// The store does not hold what a condition, or the product, asks for.
    Precondition,
    /// The store is away, slow or refusing: try again later. It may have done
    /// what it was asked for.
    Unavailable,
    /// The credentials or permissions do not suffice; a person must act.
    Denied,
    /// There is no room left.
    Full,
    /// Anything else; trying again is of no use.
    Other,
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StoreErrorKind::NotFound => "not found",
            StoreErrorKind::AlreadyExists => "already exists",
            StoreErrorKind::Precondition => "precondition failed",
            StoreErrorKind::Unavailable => "store unavailable",
            StoreErrorKind::Denied => "access denied",
            StoreErrorKind::Full => "store full",
            StoreErrorKind::Other => "store failed",
        })
    }
}

/// A failed call on a store.
#[derive(Debug)]
pub struct StoreError {
    /// What to do about it.
    pub kind: StoreErrorKind,
    /// The object's path, or the store's address.
    pub path: String,
    /// What the store said.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl StoreError {
    pub(crate) fn new(
        kind: StoreErrorKind,
        path: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> StoreError {
        StoreError { kind, path: path.into(), source: Some(source.into()) }
    }

    pub(crate) fn other(path: impl Into<String>, reason: impl Into<String>) -> StoreError {
        StoreError::new(StoreErrorKind::Other, path, reason.into())
    }

    /// What somebody sends for an object has broken off; it may come again.
    pub fn broken_off(path: impl Into<String>, reason: impl Into<String>) -> StoreError {
        StoreError::unavailable(path, reason)
    }

    /// What is asked for cannot be had, however often it is tried.
    pub(crate) fn refused(path: impl Into<String>, reason: impl Into<String>) -> StoreError {
        StoreError::other(path, reason)
    }

    pub(crate) fn unavailable(path: impl Into<String>, reason: impl Into<String>) -> StoreError {
        StoreError::new(StoreErrorKind::Unavailable, path, reason.into())
    }

    /// Whether it is sure that the call changed nothing. After any other error
    /// the change may have happened, and may still be about to.
    pub fn is_definite(&self) -> bool {
        match self.kind {
            StoreErrorKind::NotFound
            | StoreErrorKind::Precondition
            | StoreErrorKind::Denied
            | StoreErrorKind::Full => true,
            StoreErrorKind::AlreadyExists | StoreErrorKind::Unavailable | StoreErrorKind::Other => {
                false
            }
        }
    }

    pub(crate) fn from_io(path: &str, error: io::Error) -> StoreError {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => StoreErrorKind::NotFound,
            io::ErrorKind::AlreadyExists => StoreErrorKind::AlreadyExists,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreErrorKind::Denied
            }
            io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::CrossesDevices
            | io::ErrorKind::Unsupported
            | io::ErrorKind::FileTooLarge => StoreErrorKind::Other,
            // A network file system that is away answers in many ways.
            _ => StoreErrorKind::Unavailable,
        };
        StoreError::new(kind, path, error)
    }

    pub(crate) fn from_remote(path: &str, error: object_store::Error) -> StoreError {
        use object_store::Error as Remote;
        let kind = match &error {
            Remote::NotFound { source, .. } if says(source.as_ref(), BUCKET_MISSING) => {
                StoreErrorKind::Unavailable
            }
            Remote::AlreadyExists { source, .. } if says(source.as_ref(), RACE) => {
                StoreErrorKind::Unavailable
            }
            Remote::Generic { source, .. } if says(source.as_ref(), FULL) => StoreErrorKind::Full,
            Remote::Generic { source, .. } if says(source.as_ref(), DENIED) => {
                StoreErrorKind::Denied
            }
            Remote::NotFound { .. } => StoreErrorKind::NotFound,
            Remote::AlreadyExists { .. } => StoreErrorKind::AlreadyExists,
            Remote::Precondition { .. } | Remote::NotModified { .. } => {
                StoreErrorKind::Precondition
            }
            Remote::PermissionDenied { .. } | Remote::Unauthenticated { .. } => {
                StoreErrorKind::Denied
            }
            Remote::Generic { .. } | Remote::JoinError { .. } => StoreErrorKind::Unavailable,
            _ => StoreErrorKind::Other,
        };
        StoreError::new(kind, path, error)
    }
}

/// A bucket that is gone must not look like objects that are.
const BUCKET_MISSING: &[&str] =
    &["NoSuchBucket", "ContainerNotFound", "specified bucket does not exist"];
/// Two creates at once: neither has won yet.
const RACE: &[&str] = &["ConditionalRequestConflict", "OperationAborted"];
/// S3-compatible servers tell of a full disk in words of their own.
const FULL: &[&str] = &["507 Insufficient", "StorageFull", "QuotaExceeded"];
/// Lists do not tell a denial from other errors.
const DENIED: &[&str] = &["status code: 401", "status code: 403"];

fn says(error: &(dyn Error + 'static), signs: &[&str]) -> bool {
    let text = error.to_string();
    signs.iter().any(|sign| text.contains(sign))
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.kind)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // Its text is in this error's own already.
        self.source.as_ref().and_then(|source| source.source())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: StoreError, kind: StoreErrorKind, definite: bool) {
        assert_eq!((error.kind, error.is_definite()), (kind, definite), "{error}");
    }

    #[test]
    fn the_systems_errors_have_their_kinds() {
        let of = |code| StoreError::from_io("a", io::Error::from_raw_os_error(code));
        check(of(2), StoreErrorKind::NotFound, true);
        check(of(5), StoreErrorKind::Unavailable, false);
        check(of(13), StoreErrorKind::Denied, true);
        check(of(17), StoreErrorKind::AlreadyExists, false);
        check(of(28), StoreErrorKind::Full, true);
        check(of(30), StoreErrorKind::Denied, true);
        check(of(116), StoreErrorKind::Unavailable, false);
        check(of(122), StoreErrorKind::Full, true);
    }

    #[test]
    fn a_missing_bucket_is_no_missing_object() {
        let not_found = |text: &str| {
            let error = object_store::Error::NotFound { path: "a".into(), source: text.into() };
            StoreError::from_remote("a", error)
        };
        check(not_found("<Code>NoSuchKey</Code>"), StoreErrorKind::NotFound, true);
        check(not_found("<Code>NoSuchBucket</Code>"), StoreErrorKind::Unavailable, false);
    }

    #[test]
    fn an_error_names_its_object_once() {
        let error = StoreError::unavailable("a/b", "no answer");
        assert_eq!(error.to_string(), "a/b: store unavailable: no answer");
        assert!(Error::source(&error).is_none());
    }
}

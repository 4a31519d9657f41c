//! The one error type of the journal.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aquifer_types::{Epoch, ErrorKind, GroupSequence};

use crate::FileId;

/// What went wrong, where, and whether it may have happened nevertheless.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// There is no room for another journal file. Definite.
    #[error("no room for a journal file of {bytes} bytes at {path}")]
    Full {
        /// The file that was to be made.
        path: PathBuf,
        /// How large it was to be.
        bytes: u64,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// A call to the disk failed that carries no group. Definite.
    #[error("could not {doing} {path}")]
    Disk {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// Writing a group failed after bytes may have reached the file: it and
    /// everything after `synced_through` is indefinite, the file is poisoned.
    #[error("writing group {sequence} to {path} at {position} failed")]
    Write {
        /// The file that is poisoned by it.
        path: PathBuf,
        /// Where the write began.
        position: u64,
        /// The group that was to be written.
        sequence: GroupSequence,
        /// The last group that is certainly durable.
        synced_through: GroupSequence,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// A sync failed: everything after `synced_through` is indefinite, the
    /// file is poisoned.
    #[error("syncing {path} failed, durable only through group {synced_through}")]
    Sync {
        /// The file that is poisoned by it.
        path: PathBuf,
        /// The last group that is certainly durable.
        synced_through: GroupSequence,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// The group is larger than the named limit. Definite.
    #[error("group of {bytes} bytes is larger than group_bytes_max {bytes_max}")]
    GroupTooLarge {
        /// The group's length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// Bytes that were once synced are not what was written. Nothing was
    /// changed.
    #[error("journal file {path} is damaged at {position}, where {expected}: {why}")]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// The first bad byte range begins here.
        position: u64,
        /// What ought to be there.
        expected: Expected,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file of the chain is missing although an older one is there.
    #[error("journal file {path} is missing, {needed_by} goes on from it")]
    MissingFile {
        /// The missing file.
        path: PathBuf,
        /// The file that names it as its predecessor.
        needed_by: FileId,
    },
    /// The caller asks for groups that the journal does not hold.
    #[error("journal holds groups {first} to {last}, but group {wanted} is needed")]
    MissingGroups {
        /// The first group that the caller wants.
        wanted: GroupSequence,
        /// The first group that exists.
        first: GroupSequence,
        /// The last group that exists; less than `first` in an empty journal.
        last: GroupSequence,
    },
    /// The file was written by a later version of this program.
    #[error("journal file {path} has format version {version}, this program knows up to {known}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u8,
        /// The latest version that this program reads.
        known: u8,
    },
    /// The journal was already opened under a higher epoch.
    #[error("journal was written under epoch {found}, which is above {given}")]
    Fenced {
        /// The epoch in the newest file.
        found: Epoch,
        /// The epoch that the caller gave.
        given: Epoch,
    },
    /// The group was assembled before the last failure was acknowledged by a
    /// reset; it was not written. Definite.
    #[error("group was not written, the journal failed before it (failure {failure})")]
    Behind {
        /// The number of the failure.
        failure: u64,
    },
    /// The journal stopped; the group was not written. Definite.
    #[error("journal is closed")]
    Closed,
    /// A read beyond the end of a journal file.
    #[error("read of {len} bytes at {position} goes beyond journal file {file}")]
    OutOfRange {
        /// The file.
        file: FileId,
        /// Where the read begins.
        position: u64,
        /// How much was asked for.
        len: u64,
    },
    /// An option cannot be worked with. Definite.
    #[error("journal option {name} is {value}, {why}")]
    Option {
        /// The option's name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// What a damaged place ought to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The file's header.
    Header,
    /// The group with this sequence.
    Group(GroupSequence),
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Expected::Header => f.write_str("the file's header should be"),
            Expected::Group(sequence) => write!(f, "group {sequence} should be"),
        }
    }
}

impl Error {
    /// Whether what was to be written is certainly not in the journal, now and
    /// after any crash. If not, it becomes certain as soon as a later group is
    /// durable (then it is absent), or when the journal is opened again.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        !matches!(self, Error::Write { .. } | Error::Sync { .. })
    }

    /// What a caller should do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Full { .. } => ErrorKind::StorageFull,
            Error::Disk { .. } | Error::Behind { .. } | Error::Closed => ErrorKind::Unavailable,
            Error::Write { .. } | Error::Sync { .. } => ErrorKind::Indefinite,
            Error::GroupTooLarge { .. } => ErrorKind::TooLarge,
            Error::Damaged { .. } | Error::MissingFile { .. } | Error::MissingGroups { .. } => {
                ErrorKind::Damaged
            }
            Error::Version { .. } => ErrorKind::Unsupported,
            Error::Fenced { .. } => ErrorKind::Fenced,
            Error::OutOfRange { .. } => ErrorKind::Internal,
            Error::Option { .. } => ErrorKind::InvalidRequest,
        }
    }

    pub(crate) fn disk<'a>(
        doing: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Error + use<'a> {
        move |source| Error::Disk { doing, path: path.to_owned(), source: Arc::new(source) }
    }
}

/// Whether the disk refused because it has no room left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

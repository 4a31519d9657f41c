//! The seam to tier 2: a store of immutable objects under one root.
//!
//! A handful of calls on paths relative to that root, over a directory
//! (`file://`), S3-compatible stores (`s3://`), Google Cloud Storage (`gs://`),
//! Azure Blob Storage (`az://`) or memory (`memory://`, for tests). What a put
//! has acknowledged is durable and seen by every later read. A put is whole or
//! absent, also after a crash; a directory may keep a temporary file, which no
//! list shows and the next opening removes.
//!
//! Each call is bounded in time on remote stores and tried again for a few
//! seconds at most; anything beyond is for the caller, who knows what it is
//! worth. This module never decides what a lost answer means:
//! [`StoreError::is_definite`] says when there is something to find out.

mod error;
#[cfg(feature = "faulty")]
mod faulty;
mod file;
mod open;
mod probe;
mod remote;

use std::fmt::{self, Debug, Display};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;

use crate::disk::Disk;
use crate::random::Random;
pub use error::{StoreError, StoreErrorKind};
#[cfg(feature = "faulty")]
pub use faulty::{Fault, FaultRates, FaultyStore};
pub(crate) use open::remote_store;
pub use open::{
    file_path, file_url, open_shared_store, open_store, open_store_to_read, reader_settings,
};

/// Objects larger than this are not read whole by [`TierStore::get`]: 1 GiB.
pub const OBJECT_READ_BYTES_MAX: u64 = 1 << 30;

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreEntry {
    /// Its path, relative to the store's root.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What a kind of store must do; [`TierStore`] has the contract.
#[async_trait]
trait Backend: Debug + Display + Send + Sync + 'static {
    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<(), StoreError>;
    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StoreError>;
    async fn get(&self, path: &str) -> Result<Bytes, StoreError>;
    async fn get_ranges(&self, path: &str, ranges: &[Range<u64>])
    -> Result<Vec<Bytes>, StoreError>;
    async fn head(&self, path: &str) -> Result<u64, StoreError>;
    async fn delete(&self, path: &str) -> Result<(), StoreError>;
    fn list(&self, folder: &str) -> BoxStream<'static, Result<StoreEntry, StoreError>>;
}

/// A store, and the root in it under which everything happens. Clones are
/// handles to the same store.
///
/// Paths are relative to the root, of segments joined by `/`: none empty, `.`
/// or `..`, without control characters, and the first not starting with
/// `.aquifer`. Others are refused. An object's path may not be the folder of
/// another's.
#[derive(Clone)]
pub struct TierStore {
    backend: Arc<dyn Backend>,
    is_read_only: bool,
}

impl TierStore {
    fn of(backend: impl Backend) -> TierStore {
        TierStore { backend: Arc::new(backend), is_read_only: false }
    }

    /// A store in the directory `root` of `disk`, which is made if absent.
    /// Removes what a crash has left half written. Blocks.
    pub fn in_directory(
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        root: &Path,
    ) -> Result<TierStore, StoreError> {
        Ok(TierStore::of(file::FileBackend::open(disk, random, root)?))
    }

    /// As [`TierStore::in_directory`], where others may be writing: nothing is
    /// removed. Blocks.
    pub fn in_shared_directory(
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        root: &Path,
    ) -> Result<TierStore, StoreError> {
        Ok(TierStore::of(file::FileBackend::open_shared(disk, random, root)?))
    }

    /// The store that another process keeps in the directory `root` of `disk`.
    /// Nothing is made or removed there, so it may be opened while that process
    /// is writing; every change through this handle is refused.
    pub fn in_directory_to_read(
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        root: &Path,
    ) -> TierStore {
        TierStore::of(file::FileBackend::open_to_read(disk, random, root)).read_only()
    }

    /// A handle to the same store through which every change is refused.
    #[must_use]
    pub fn read_only(&self) -> TierStore {
        TierStore { backend: self.backend.clone(), is_read_only: true }
    }

    fn check_writable(&self, path: &str) -> Result<(), StoreError> {
        match self.is_read_only {
            false => check_path(path),
            true => Err(StoreError::other(path, "the store was opened for reading only")),
        }
    }

    /// An empty store in memory.
    pub fn in_memory() -> TierStore {
        TierStore::of(remote::RemoteBackend::memory())
    }

    /// Stores an object under a path that must not exist.
    ///
    /// `AlreadyExists` may also mean that an earlier try, whose answer was
    /// lost, has stored this very object: compare before giving up. What made
    /// it so is durable then.
    pub async fn put_new(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.check_writable(path)?;
        self.backend.put_new(path, bytes).await
    }

    /// Stores an object, replacing what is there; readers see the one or the
    /// other, whole.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.check_writable(path)?;
        self.backend.put(path, bytes).await
    }

    /// A whole object of at most [`OBJECT_READ_BYTES_MAX`].
    pub async fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        check_path(path)?;
        self.backend.get(path).await
    }

    /// The bytes `range` of an object: all of them, or an error.
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let mut found = self.get_ranges(path, &[range]).await?;
        found.pop().ok_or_else(|| StoreError::other(path, "the store answered nothing"))
    }

    /// Several ranges of an object, in the order asked for, in fewer requests
    /// where they are close to each other.
    pub async fn get_ranges(
        &self,
        path: &str,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, StoreError> {
        check_path(path)?;
        for range in ranges {
            let bytes = range.end.checked_sub(range.start);
            if bytes.is_none_or(|bytes| bytes > OBJECT_READ_BYTES_MAX) {
                let reason = format!("range {range:?} is inverted or too long");
                return Err(StoreError::other(path, reason));
            }
        }
        // Not every store takes an empty range for an answer.
        let wanted: Vec<Range<u64>> = ranges.iter().filter(|r| !r.is_empty()).cloned().collect();
        let found = match wanted.is_empty() {
            true => Vec::new(),
            false => self.backend.get_ranges(path, &wanted).await?,
        };
        if found.len() != wanted.len() {
            return Err(StoreError::other(path, "the store answered other ranges"));
        }
        for (range, bytes) in wanted.iter().zip(&found) {
            if bytes.len() as u64 != range.end - range.start {
                let reason = format!("range {range:?} gave {} bytes only", bytes.len());
                return Err(StoreError::other(path, reason));
            }
        }
        let mut found = found.into_iter();
        let filled = ranges.iter().map(|range| match range.is_empty() {
            true => Bytes::new(),
            false => found.next().unwrap_or_default(),
        });
        Ok(filled.collect())
    }

    /// An object's length in bytes. What it has found is durable.
    pub async fn head(&self, path: &str) -> Result<u64, StoreError> {
        check_path(path)?;
        self.backend.head(path).await
    }

    /// Deletes an object; that it is absent is fine.
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.check_writable(path)?;
        self.backend.delete(path).await
    }

    /// Every object below `folder` at any depth, in the order of their paths.
    /// The empty folder is the root. An absent folder is empty.
    pub async fn list(&self, folder: &str) -> Result<Vec<StoreEntry>, StoreError> {
        let mut entries: Vec<StoreEntry> = self.list_stream(folder).try_collect().await?;
        entries.sort();
        Ok(entries)
    }

    /// As [`TierStore::list`], in no order and without holding all of them.
    pub fn list_stream(&self, folder: &str) -> BoxStream<'static, Result<StoreEntry, StoreError>> {
        let checked = match folder {
            "" => Ok(()),
            folder => check_path(folder),
        };
        match checked {
            Ok(()) => self.backend.list(folder),
            Err(error) => Box::pin(futures::stream::once(async { Err(error) })),
        }
    }

    /// Checks that the store keeps what the rest relies on: a second create is
    /// refused, and what was put is read, listed and deleted. Works under
    /// `_meta/probe-<uuid>` and cleans up after itself. The error names what is
    /// missing.
    pub async fn probe(&self, random: &dyn Random) -> Result<(), StoreError> {
        probe::probe(self, random).await
    }
}

impl Debug for TierStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TierStore({})", self.backend)
    }
}

/// The store's address, without credentials.
impl Display for TierStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.backend, f)
    }
}

fn check_path(path: &str) -> Result<(), StoreError> {
    let reserved = path.starts_with(file::RESERVED_PREFIX);
    let unfit =
        |segment: &str| matches!(segment, "" | "." | "..") || segment.chars().any(char::is_control);
    match reserved || path.split('/').any(unfit) {
        false => Ok(()),
        true => Err(StoreError::other(path, "not a valid path")),
    }
}

//! Tier 2 in a directory, local or mounted.
//!
//! An object is written to `.aquifer-tmp/<uuid>` in the root, synced, renamed
//! to its name and the name's directory synced, and only then counts. A crash
//! leaves at most the temporary file, which the next opening removes where the
//! store is the opener's alone, or an object that is whole but whose name is not
//! yet durable: so everything that tells of an object's existence syncs its
//! directory first.
//!
//! The temporary directory is also the sign that the store is there at all: a
//! root without it is a mount that went away, and not a store without objects.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::{Backend, OBJECT_READ_BYTES_MAX, StoreEntry, StoreError, StoreErrorKind};
use crate::disk::{Disk, DiskFile};
use crate::random::{Random, uuid_v4};
use crate::tasks;

/// Paths that start so are the store's own.
pub(super) const RESERVED_PREFIX: &str = ".aquifer";
const TEMPORARY_DIR: &str = ".aquifer-tmp";
/// So much of an object is written before it is synced.
const SYNC_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct FileBackend {
    directory: Arc<Directory>,
}

#[derive(Debug)]
struct Directory {
    disk: Arc<dyn Disk>,
    random: Arc<dyn Random>,
    root: PathBuf,
    temporary: PathBuf,
}

impl FileBackend {
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        root: &Path,
    ) -> Result<FileBackend, StoreError> {
        let backend = FileBackend::open_shared(disk, random, root)?;
        let cleaned = backend.directory.clean();
        cleaned.map_err(|error| StoreError::from_io(&backend.to_string(), error))?;
        Ok(backend)
    }

    /// Makes the store where it is absent. What is half written there may be
    /// somebody else's, who is about to rename it.
    pub(super) fn open_shared(
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        root: &Path,
    ) -> Result<FileBackend, StoreError> {
        let backend = FileBackend::open_to_read(disk, random, root);
        let made = backend.directory.disk.create_dir_all(&backend.directory.temporary);
        made.map_err(|error| StoreError::from_io(&backend.to_string(), error))?;
        Ok(backend)
    }

    /// Leaves everything as it is: what is half written there is being written
    /// by another process.
    pub(super) fn open_to_read(
        disk: Arc<dyn Disk>,
        random: Arc<dyn Random>,
        root: &Path,
    ) -> FileBackend {
        let directory =
            Directory { disk, random, root: root.to_owned(), temporary: root.join(TEMPORARY_DIR) };
        FileBackend { directory: Arc::new(directory) }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        path: &str,
        work: impl FnOnce(&Directory, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        blocking(self.directory.clone(), path.to_owned(), work).await
    }
}

async fn blocking<T: Send + 'static>(
    directory: Arc<Directory>,
    path: String,
    work: impl FnOnce(&Directory, &str) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let running = path.clone();
    match tasks::spawn_blocking(move || work(&directory, &running)).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::unavailable(path, "shutting down")),
        },
    }
}

impl fmt::Display for FileBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.directory.fmt(f)
    }
}

#[async_trait]
impl Backend for FileBackend {
    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.blocking(path, move |directory, path| directory.put_new(path, &bytes)).await
    }

    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.blocking(path, move |directory, path| directory.put(path, &bytes)).await
    }

    async fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        self.blocking(path, |directory, path| directory.get(path)).await
    }

    async fn get_ranges(
        &self,
        path: &str,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, StoreError> {
        let ranges = ranges.to_vec();
        self.blocking(path, move |directory, path| directory.get_ranges(path, &ranges)).await
    }

    async fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.blocking(path, |directory, path| directory.head(path)).await
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.blocking(path, |directory, path| directory.delete(path)).await
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<StoreEntry, StoreError>> {
        let directory = self.directory.clone();
        // One directory at a time, so that a large store is not held whole.
        let waiting = vec![folder.to_owned()];
        let listed = stream::try_unfold(waiting, move |mut waiting| {
            let directory = directory.clone();
            async move {
                let Some(folder) = waiting.pop() else {
                    return Ok(None);
                };
                let (entries, below) =
                    blocking(directory, folder, |directory, folder| directory.list(folder)).await?;
                waiting.extend(below);
                let entries = stream::iter(entries.into_iter().map(Ok));
                Ok::<_, StoreError>(Some((entries, waiting)))
            }
        });
        listed.try_flatten().boxed()
    }
}

/// Writes all of a new file and syncs it. In steps, or the syncs of a journal on
/// the same disk would wait behind a whole chunk.
fn write_in_steps(file: &dyn DiskFile, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return file.sync_data();
    }
    let mut position = 0;
    for step in bytes.chunks(SYNC_BYTES) {
        file.write_at(step, position)?;
        file.sync_data()?;
        position += step.len() as u64;
    }
    Ok(())
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file://{}", self.root.display())
    }
}

impl Directory {
    /// Removes what a crash has left half written.
    fn clean(&self) -> io::Result<()> {
        for left_over in self.disk.list(&self.temporary)? {
            match self.disk.remove(&left_over) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let target = self.root.join(path);
        // Before the bytes are written in vain; the rename decides.
        if self.disk.open_read(&target).is_ok() {
            return Err(self.exists(path));
        }
        let temporary = self.write_temporary(path, bytes)?;
        let parent = self.make_parent(path, &target, &temporary)?;
        if let Err(error) = self.disk.rename_new(&temporary, &target) {
            self.discard(&temporary);
            return Err(match error.kind() {
                io::ErrorKind::AlreadyExists => self.exists(path),
                _ => StoreError::from_io(path, error),
            });
        }
        if let Err(error) = self.disk.sync_dir(parent) {
            // A later sync would succeed and prove nothing.
            self.discard(&target);
            return Err(indefinite(path, error));
        }
        Ok(())
    }

    fn put(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let target = self.root.join(path);
        let temporary = self.write_temporary(path, bytes)?;
        let parent = self.make_parent(path, &target, &temporary)?;
        if let Err(error) = self.disk.rename(&temporary, &target) {
            self.discard(&temporary);
            return Err(StoreError::from_io(path, error));
        }
        let synced = self.disk.sync_dir(parent);
        synced.map_err(|error| indefinite(path, error))
    }

    fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        let file = self.open(path)?;
        let len = file.len().map_err(|error| StoreError::from_io(path, error))?;
        if len > OBJECT_READ_BYTES_MAX {
            let reason = format!("object of {len} bytes is too long to be read whole");
            return Err(StoreError::other(path, reason));
        }
        read(file.as_ref(), path, &(0..len))
    }

    fn get_ranges(&self, path: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let file = self.open(path)?;
        let len = file.len().map_err(|error| StoreError::from_io(path, error))?;
        let each = ranges.iter().map(|range| match range.end <= len {
            true => read(file.as_ref(), path, range),
            false => {
                let reason = format!("range {range:?} of an object of {len} bytes");
                Err(StoreError::other(path, reason))
            }
        });
        each.collect()
    }

    fn head(&self, path: &str) -> Result<u64, StoreError> {
        let len = self.open(path)?.len().map_err(|error| StoreError::from_io(path, error))?;
        self.settle(path)?;
        Ok(len)
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        let target = self.root.join(path);
        match self.disk.remove(&target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.check_mounted(path);
            }
            Err(error) => return Err(StoreError::from_io(path, error)),
        }
        let parent = target.parent().unwrap_or(&self.root);
        let synced = self.disk.sync_dir(parent);
        synced.map_err(|error| indefinite(path, error))
    }

    /// The objects directly in a folder, and the folders.
    fn list(&self, folder: &str) -> Result<(Vec<StoreEntry>, Vec<String>), StoreError> {
        let dir = self.root.join(folder);
        let shown = match folder {
            "" => self.to_string(),
            folder => folder.to_owned(),
        };
        let failed = |error| StoreError::from_io(&shown, error);
        let (files, dirs) = match (self.disk.list(&dir), self.disk.list_dirs(&dir)) {
            (Ok(files), Ok(dirs)) => (files, dirs),
            (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                self.check_mounted(&shown)?;
                return Ok((Vec::new(), Vec::new()));
            }
            (Err(error), _) | (_, Err(error)) => return Err(failed(error)),
        };
        if folder.is_empty() {
            self.check_mounted(&shown)?;
        }
        let below = |path: &Path| {
            let name = path.file_name()?.to_str()?;
            let path = match folder.is_empty() {
                true => name.to_owned(),
                false => format!("{folder}/{name}"),
            };
            (!path.starts_with(RESERVED_PREFIX)).then_some(path)
        };
        let mut entries = Vec::with_capacity(files.len());
        for file in files {
            let Some(path) = below(&file) else {
                continue;
            };
            match self.disk.open_read(&file).and_then(|file| file.len()) {
                Ok(bytes) => entries.push(StoreEntry { path, bytes }),
                // It was deleted while the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok((entries, dirs.iter().filter_map(|dir| below(dir)).collect()))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn DiskFile>, StoreError> {
        match self.disk.open_read(&self.root.join(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.check_mounted(path)?;
                Err(StoreError::from_io(path, error))
            }
            opened => opened.map_err(|error| StoreError::from_io(path, error)),
        }
    }

    /// The error of a name that is taken, once that is durable.
    fn exists(&self, path: &str) -> StoreError {
        match self.settle(path) {
            Ok(()) => StoreError {
                kind: StoreErrorKind::AlreadyExists,
                path: path.to_owned(),
                source: None,
            },
            Err(error) => error,
        }
    }

    /// Makes the name of an object durable, whoever has put it there.
    fn settle(&self, path: &str) -> Result<(), StoreError> {
        let target = self.root.join(path);
        let parent = target.parent().unwrap_or(&self.root);
        let synced = self.disk.create_dir_all(parent);
        let synced = synced.and_then(|()| self.disk.sync_dir(parent));
        synced.map_err(|error| indefinite(path, error))
    }

    fn check_mounted(&self, path: &str) -> Result<(), StoreError> {
        match self.disk.list(&self.temporary) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.unmounted(path)),
            Err(error) => Err(StoreError::from_io(path, error)),
        }
    }

    fn unmounted(&self, path: &str) -> StoreError {
        let sign = self.temporary.display();
        StoreError::unavailable(path, format!("{sign} is gone: is the store mounted?"))
    }

    /// Writes and syncs the bytes under a name of their own.
    fn write_temporary(&self, path: &str, bytes: &[u8]) -> Result<PathBuf, StoreError> {
        let name = uuid_v4(self.random.as_ref()).simple().to_string();
        let temporary = self.temporary.join(name);
        let file = match self.disk.create(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.unmounted(path));
            }
            created => created.map_err(|error| StoreError::from_io(path, error))?,
        };
        let written = write_in_steps(&*file, bytes);
        match written {
            Ok(()) => Ok(temporary),
            Err(error) => {
                self.discard(&temporary);
                Err(StoreError::from_io(path, error))
            }
        }
    }

    fn make_parent<'a>(
        &self,
        path: &str,
        target: &'a Path,
        temporary: &Path,
    ) -> Result<&'a Path, StoreError> {
        let parent = target.parent().unwrap_or(target);
        self.disk.create_dir_all(parent).map_err(|error| {
            self.discard(temporary);
            StoreError::from_io(path, error)
        })?;
        Ok(parent)
    }

    /// Removes what is of no use; what cannot be removed is left for the next
    /// opening.
    fn discard(&self, file: &Path) {
        let _ = self.disk.remove(file);
    }
}

/// The name is there, but nobody knows for how long.
fn indefinite(path: &str, error: io::Error) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, path, error)
}

fn read(file: &dyn DiskFile, path: &str, range: &Range<u64>) -> Result<Bytes, StoreError> {
    let read = file.read_vec((range.end - range.start) as usize, range.start);
    read.map(Bytes::from).map_err(|error| StoreError::from_io(path, error))
}

//! The seam to the disk: the few blocking calls that durability is built from.
//!
//! Everything that must survive a crash goes through [`Disk`], so that a test
//! can stop the machine between any two of them. Paths are absolute. All calls
//! block; callers on an async runtime go through [`crate::tasks`].

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory tree on which files are created, written, synced and renamed.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Creates a file that must not exist yet, open for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file, replacing `to`. Durable only after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Renames a file to a name that must not exist, or fails with
    /// `AlreadyExists`. Durable only after [`Disk::sync_dir`] of the new name's
    /// directory.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _ = (from, to);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Removes a file. Durable only after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals directly in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Creates a directory and its parents, each synced into its parent.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// The files (not directories) directly in `dir`, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// The directories directly in `dir`, in no order.
    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let _ = dir;
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Free bytes that an unprivileged writer may still use in `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file. Positions and lengths are in bytes.
#[expect(
    clippy::len_without_is_empty,
    reason = "the length is a question to the system, and nobody asks it for emptiness"
)]
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// Fills `buffer` from `position`; an early end of file is an error of kind
    /// `UnexpectedEof`.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()>;
    /// The `len` bytes from `position` on; an early end of file as in
    /// [`DiskFile::read_at`]. The memory is not cleared before it is filled.
    fn read_vec(&self, len: usize, position: u64) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; len];
        self.read_at(&mut buffer, position)?;
        Ok(buffer)
    }
    /// Writes all of `bytes` at `position`. Durable only after a sync.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Makes the content durable (`fdatasync`). After an error nothing is known
    /// about what was written since the last success, and the file must not be
    /// synced again.
    fn sync_data(&self) -> io::Result<()>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Sets the file's length; new bytes read as zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

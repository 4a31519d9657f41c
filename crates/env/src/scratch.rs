//! Files that a process needs for a while, written past the system's page cache.
//!
//! What is written into the page cache stays there until the system gets to it.
//! Whoever writes gigabytes would fill it up to the system's limit, and from then
//! on everybody who writes waits, the journal's appends too. Written directly,
//! only the writer waits for the disk. Where a file system has no such writes,
//! data is synced every few megabytes instead.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Disk as _, DiskFile, RealDisk};

/// Direct writes begin, end and come from memory at multiples of this.
const BLOCK: usize = 4096;
/// Written at once: what each [`ScratchWriter`] holds in memory.
const BUFFER: usize = 256 << 10;
/// At most so many bytes of a file are in the page cache alone, where it cannot
/// be written directly.
const UNSYNCED_MAX: usize = 4 << 20;

/// A directory of such files, which nobody else writes to.
#[derive(Debug)]
pub struct ScratchDirectory {
    path: PathBuf,
    is_direct: bool,
    next: AtomicU64,
}

impl ScratchDirectory {
    /// Files in `path`, which is there and empty.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        let is_direct = can_write_directly(&path)?;
        Ok(Self { path, is_direct, next: AtomicU64::new(0) })
    }

    /// Whether files are written past the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// A new file.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn create(&self) -> io::Result<ScratchFile> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{number:016x}"));
        let file = create(&path, self.is_direct)?;
        let (is_direct, readable) = (self.is_direct, AtomicU64::new(0));
        Ok(ScratchFile(Arc::new(Inner { path, file, is_direct, readable })))
    }
}

/// Whether a block can be written directly into a file of `directory`.
fn can_write_directly(directory: &Path) -> io::Result<bool> {
    let path = directory.join("probe");
    let buffer = Buffer::new();
    let written = create(&path, true).and_then(|file| file.write_all_at(&buffer.all()[..BLOCK], 0));
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match written.map_err(|error| error.kind()) {
        // A full disk takes direct writes again once there is room.
        Ok(()) | Err(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Ok(true),
        Err(io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(false),
        Err(kind) => Err(kind.into()),
    }
}

#[cfg(target_os = "linux")]
fn create(path: &Path, is_direct: bool) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = if is_direct { rustix::fs::OFlags::DIRECT.bits() } else { 0 };
    OpenOptions::new().write(true).create_new(true).custom_flags(flags.cast_signed()).open(path)
}

#[cfg(not(target_os = "linux"))]
fn create(path: &Path, is_direct: bool) -> io::Result<File> {
    if is_direct {
        return Err(io::ErrorKind::Unsupported.into());
    }
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// A file that goes when it, its writer and its readers are dropped.
#[derive(Debug, Clone)]
pub struct ScratchFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    is_direct: bool,
    /// Bytes from its start that can be read. The last block on disk may be longer.
    readable: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Who empties the directory before its next use removes what stays here.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl ScratchFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// What writes it from its start; there is one of a file.
    #[must_use]
    pub fn writer(&self) -> ScratchWriter {
        let inner = Arc::clone(&self.0);
        ScratchWriter { inner, buffer: Buffer::new(), at: 0, filled: 0, unsynced: 0 }
    }

    /// What reads it from its start.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn reader(&self) -> io::Result<ScratchReader> {
        let file = RealDisk::new().open_read(&self.0.path)?;
        Ok(ScratchReader { inner: Arc::clone(&self.0), file, at: 0 })
    }
}

/// Writes a file. What was flushed can be read.
#[derive(Debug)]
pub struct ScratchWriter {
    inner: Arc<Inner>,
    buffer: Buffer,
    /// Where the buffer is in the file: a multiple of [`BLOCK`].
    at: u64,
    filled: usize,
    unsynced: usize,
}

impl io::Write for ScratchWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.filled == BUFFER {
            self.flush()?;
        }
        let room = &mut self.buffer.all_mut()[self.filled..];
        let count = bytes.len().min(room.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.filled += count;
        Ok(count)
    }

    /// A block that is not full yet is written as it is, and again once there is
    /// more of it.
    fn flush(&mut self) -> io::Result<()> {
        let end = self.at + self.filled as u64;
        if end == self.inner.readable.load(Ordering::Relaxed) {
            return Ok(());
        }
        let padded = self.filled.next_multiple_of(BLOCK);
        let all = self.buffer.all_mut();
        all[self.filled..padded].fill(0);
        self.inner.file.write_all_at(&all[..padded], self.at)?;
        self.inner.readable.store(end, Ordering::Release);
        let whole = self.filled / BLOCK * BLOCK;
        all.copy_within(whole..self.filled, 0);
        self.at += whole as u64;
        self.filled -= whole;
        self.unsynced += padded;
        if !self.inner.is_direct && self.unsynced >= UNSYNCED_MAX {
            self.inner.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

/// Reads a file. What is flushed later can be read then.
#[derive(Debug)]
pub struct ScratchReader {
    inner: Arc<Inner>,
    file: Arc<dyn DiskFile>,
    at: u64,
}

impl ScratchReader {
    /// The next bytes, at most `count_max`; none where nothing more was flushed.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn read(&mut self, count_max: usize) -> io::Result<Vec<u8>> {
        let left = self.inner.readable.load(Ordering::Acquire) - self.at;
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(count_max);
        let bytes = self.file.read_vec(count, self.at)?;
        self.at += count as u64;
        Ok(bytes)
    }
}

/// [`BUFFER`] bytes of memory that direct writes can come from.
#[derive(Debug)]
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
}

impl Buffer {
    fn new() -> Self {
        let bytes = vec![0; BUFFER + BLOCK].into_boxed_slice();
        let start = bytes.as_ptr().align_offset(BLOCK);
        Self { bytes, start }
    }

    fn all(&self) -> &[u8] {
        &self.bytes[self.start..self.start + BUFFER]
    }

    fn all_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + BUFFER]
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::{Random as _, SeededRandom};

    fn read_all(file: &ScratchFile) -> Vec<u8> {
        let mut reader = file.reader().unwrap();
        let mut all = Vec::new();
        loop {
            match reader.read(100_000).unwrap() {
                bytes if bytes.is_empty() => return all,
                bytes => all.extend_from_slice(&bytes),
            }
        }
    }

    #[test]
    fn what_is_flushed_is_read_while_more_is_written() {
        let random = SeededRandom::new(1);
        let below = |end: usize| (random.next_u64() % end as u64) as usize;
        for is_direct in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let mut directory = ScratchDirectory::new(folder.path().to_owned()).unwrap();
            directory.is_direct &= is_direct;
            let file = directory.create().unwrap();
            let (mut writer, mut follower) = (file.writer(), file.reader().unwrap());
            let (mut written, mut followed, mut flushed) = (Vec::new(), Vec::new(), 0);
            for _ in 0..300 {
                let mut bytes = vec![0; below(2 * BUFFER) >> below(16)];
                random.fill(&mut bytes);
                writer.write_all(&bytes).unwrap();
                written.extend_from_slice(&bytes);
                if below(8) == 0 {
                    writer.flush().unwrap();
                    flushed = written.len();
                }
                followed.extend(follower.read(below(3 * BUFFER)).unwrap());
                assert!(written.starts_with(&followed));
                if below(8) == 0 {
                    let read = read_all(&file);
                    assert!(read.len() >= flushed && written.starts_with(&read));
                }
            }
            writer.flush().unwrap();
            assert!(read_all(&file) == written);
            drop((file, writer));
            // A reader keeps it.
            followed.extend(follower.read(usize::MAX).unwrap());
            assert!(followed == written);
            drop(follower);
            assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        }
    }
}

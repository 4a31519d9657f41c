//! The machine's own file system behind [`Disk`].
//!
//! It adds nothing to what the kernel promises: content is durable after
//! `fdatasync`, a name after an `fsync` of its directory. It retries nothing
//! (a failed sync must reach the caller) and caches nothing. A crash leaves
//! behind what was synced and any part of what was not.

use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::disk::{Disk, DiskFile};

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl RealDisk {
    /// The file system of this machine.
    pub fn new() -> RealDisk {
        RealDisk
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = File::open(path)?;
        Ok(Arc::new(RealFile { file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Network file systems know hard links only.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_new(from, to),
            renamed => Ok(renamed?),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let opened = File::open(dir)?;
        if !opened.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        opened.sync_all()
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut existing = dir;
        while !existing.try_exists()? {
            missing.push(existing);
            match existing.parent() {
                Some(parent) => existing = parent,
                None => break,
            }
        }
        if !existing.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        // A process that was killed between making the deepest existing
        // directory and syncing it left a name that only the page cache knows.
        // Where the parent may not be read, it was not this program's to make.
        if let Some(parent) = existing.parent() {
            match self.sync_dir(parent) {
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
                _ => {}
            }
        }
        for made in missing.into_iter().rev() {
            match fs::create_dir(made) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            if let Some(parent) = made.parent() {
                self.sync_dir(parent)?;
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        list_where(dir, |kind| kind.is_file())
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        list_where(dir, |kind| kind.is_dir())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(dir)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

fn list_where(dir: &Path, wanted: fn(&FileType) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) if wanted(&kind) => found.push(entry.path()),
            // It went away while the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Ok(found)
}

/// Gives the file its new name and takes the old one. A crash between the two
/// leaves both.
fn link_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        // A network file system that lost its answer tries again and then finds
        // the link that it made itself.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let (from, to) = (fs::metadata(from)?, fs::metadata(to)?);
            if (from.dev(), from.ino()) != (to.dev(), to.ino()) {
                return Err(error);
            }
        }
        linked => linked?,
    }
    fs::remove_file(from)
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, position)
    }

    fn read_vec(&self, len: usize, position: u64) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(len);
        while buffer.len() < len {
            let at = position + buffer.len() as u64;
            match rustix::io::pread(&self.file, rustix::buffer::spare_capacity(&mut buffer), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The allocator may have given more room than was asked for.
        buffer.truncate(len);
        Ok(buffer)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_gives_a_new_name_and_takes_the_old_one() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
        fs::write(&from, b"new").expect("a file");
        link_new(&from, &to).expect("a new name");
        assert!(!from.exists());
        assert_eq!(fs::read(&to).expect("the file"), b"new");

        fs::write(&from, b"other").expect("a file");
        let error = link_new(&from, &to).expect_err("a name that exists");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).expect("the file"), b"new");
    }

    #[test]
    fn a_link_that_was_made_already_counts() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
        fs::write(&from, b"new").expect("a file");
        fs::hard_link(&from, &to).expect("the link whose answer was lost");
        link_new(&from, &to).expect("the same again");
        assert!(!from.exists());
        assert_eq!(fs::read(&to).expect("the file"), b"new");
    }
}

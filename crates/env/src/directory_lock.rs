//! One process per data directory: an exclusive `flock` on `<dir>/LOCK`.
//!
//! The kernel drops the lock with the process, so a crash leaves a file behind
//! but no lock; the file is never removed. Its content, the holder's process
//! id, is for people only and decides nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

const LOCK_FILE: &str = "LOCK";

/// The right to use a data directory, held until dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
}

/// Why a data directory could not be locked.
#[derive(Debug, Error)]
pub enum DirectoryLockError {
    /// Another process uses the directory.
    #[error("directory {} is in use by {}", directory.display(), holder(*.pid))]
    Held {
        /// The directory asked for.
        directory: PathBuf,
        /// The holder's process id, as it wrote it.
        pid: Option<u32>,
    },
    /// The lock file could not be made, opened or locked.
    #[error("directory {} cannot be locked: {source}", directory.display())]
    Io {
        /// The directory asked for.
        directory: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

impl DirectoryLock {
    /// Locks `directory`, which must exist. Never waits.
    pub fn acquire(directory: &Path) -> Result<DirectoryLock, DirectoryLockError> {
        let failed =
            |source: io::Error| DirectoryLockError::Io { directory: directory.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join(LOCK_FILE))
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(DirectoryLockError::Held {
                    directory: directory.to_owned(),
                    pid: read_pid(&file),
                });
            }
            Err(error) => return Err(failed(error.into())),
        }
        file.set_len(0).map_err(failed)?;
        file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0).map_err(failed)?;
        Ok(DirectoryLock { file })
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Emptied first, so that nobody is shown a process that has let go.
        // Closing the file would unlock too; either failing changes nothing.
        let _ = self.file.set_len(0);
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn read_pid(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_directory_is_refused_with_its_name_and_holder() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let lock = DirectoryLock::acquire(directory.path()).expect("the first lock");
        let error = DirectoryLock::acquire(directory.path()).expect_err("a second lock");
        let text = error.to_string();
        assert!(text.contains(&directory.path().display().to_string()), "{text}");
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        drop(lock);
        DirectoryLock::acquire(directory.path()).expect("the lock after its release");
    }

    #[test]
    fn a_left_over_file_is_no_lock() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join(LOCK_FILE), "4294967295 and more\n")
            .expect("a left-over file");
        let _lock = DirectoryLock::acquire(directory.path()).expect("a lock");
        let content =
            std::fs::read_to_string(directory.path().join(LOCK_FILE)).expect("the lock file");
        assert_eq!(content, format!("{}\n", std::process::id()));
    }

    #[test]
    fn an_absent_directory_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let absent = directory.path().join("absent");
        let error = DirectoryLock::acquire(&absent).expect_err("no directory, no lock");
        assert!(matches!(error, DirectoryLockError::Io { .. }), "{error}");
        assert!(error.to_string().contains("absent"), "{error}");
    }
}

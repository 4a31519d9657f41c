//! A directory that only its owner can enter, and sockets in it.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::{Random, uuid_v4};

/// The longest path of a local socket in bytes, with the NUL behind it left out
/// (`sockaddr_un`).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Makes `path`, and what lies above it, so that only its owner can enter it.
/// One that is there is kept as it is, and closed to others.
///
/// # Errors
/// What the system refuses.
pub fn create_private_directory(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::set_permissions(path, Permissions::from_mode(0o700))
        }
        made => made,
    }
}

/// Makes `path` as [`create_private_directory`] does, with nothing in it.
///
/// # Errors
/// What the system refuses.
pub fn empty_private_directory(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => create_private_directory(path),
    }
}

/// A local socket that listens, and that nobody but its owner can connect to.
/// Its path goes when it is dropped, the listener stays with who took it.
#[derive(Debug)]
pub struct PrivateSocket {
    path: PathBuf,
    /// A directory that was made for it alone.
    directory: Option<PathBuf>,
}

impl PrivateSocket {
    /// Listens at `directory/name`. Where that path is too long for a socket, or
    /// the file system has none, it is in a new directory under `elsewhere`.
    ///
    /// # Errors
    /// What the system refuses in both places.
    pub fn listen(
        directory: &Path,
        name: &str,
        elsewhere: &Path,
        random: &dyn Random,
    ) -> io::Result<(Self, UnixListener)> {
        let path = directory.join(name);
        let first = match path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            true => create_private_directory(directory).and_then(|()| bind(&path)),
            false => Err(io::Error::new(
                io::ErrorKind::InvalidFilename,
                format!("{} is too long for a socket", path.display()),
            )),
        };
        match first {
            Ok(listener) => Ok((Self { path, directory: None }, listener)),
            Err(first) => {
                let own = elsewhere.join(format!("aquifer-{}", uuid_v4(random).simple()));
                let made = DirBuilder::new().mode(0o700).create(&own);
                let path = own.join(name);
                match made.and_then(|()| bind(&path)) {
                    Ok(listener) => Ok((Self { path, directory: Some(own) }, listener)),
                    Err(error) => {
                        let _ = std::fs::remove_dir(&own);
                        let message = format!("{first}; {}: {error}", path.display());
                        Err(io::Error::new(error.kind(), message))
                    }
                }
            }
        }
    }

    /// Where it can be connected to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateSocket {
    fn drop(&mut self) {
        // Whoever cannot remove it leaves a path that nobody listens at.
        let _ = std::fs::remove_file(&self.path);
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    // What an earlier process left, which listens no more.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::SeededRandom;

    #[test]
    fn a_socket_is_its_owners_alone_and_goes_with_its_handle() {
        let home = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let random = SeededRandom::new(1);
        let long = home.path().join("x".repeat(120));
        for (directory, is_elsewhere) in [(home.path().join("engine"), false), (long, true)] {
            for _ in 0..2 {
                let (socket, _listener) =
                    PrivateSocket::listen(&directory, "s", elsewhere.path(), &random).unwrap();
                assert_eq!(socket.path().starts_with(elsewhere.path()), is_elsewhere);
                let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
                assert_eq!(mode(socket.path()) & 0o777, 0o600);
                assert_eq!(mode(socket.path().parent().unwrap()) & 0o777, 0o700);
                UnixStream::connect(socket.path()).unwrap();
                let path = socket.path().to_owned();
                drop(socket);
                assert!(!path.exists());
            }
        }
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_left_behind_is_taken_over() {
        let home = tempfile::tempdir().unwrap();
        let random = SeededRandom::new(1);
        std::fs::write(home.path().join("s"), "left").unwrap();
        let (socket, _listener) =
            PrivateSocket::listen(home.path(), "s", home.path(), &random).unwrap();
        UnixStream::connect(socket.path()).unwrap();
    }
}

//! Programs of Debian's packages for the tests: those of the machine, else
//! unpacked below `target/tools/debian`. Nothing is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workspace::{reason, run_quietly};

/// Packages and what they need beyond the machine's own, unpacked.
#[derive(Debug)]
pub(crate) struct Unpacked {
    root: PathBuf,
}

impl Unpacked {
    /// `package` and `others` with what they depend on, fetched on first use;
    /// else one sentence why they are not there.
    pub(crate) fn packages(target: &Path, package: &str, others: &[&str]) -> Result<Self, String> {
        let place = target.join("tools/debian");
        let root = place.join(package);
        if !root.exists() {
            fetch(&place, package, others, &root).map_err(|error| {
                format!("Debian's package {package} cannot be had ({})", reason(&error))
            })?;
        }
        Ok(Self { root })
    }

    /// The first file of this name.
    pub(crate) fn find(&self, name: &str) -> Option<PathBuf> {
        find(&self.root, name)
    }

    /// The first file of this name in a folder of theirs.
    pub(crate) fn find_below(&self, folder: &str, name: &str) -> Option<PathBuf> {
        find(&self.root.join(folder), name)
    }

    /// The folders with their shared libraries, for `LD_LIBRARY_PATH`.
    pub(crate) fn libraries(&self) -> String {
        let libraries = self.root.join("usr/lib");
        let entries = std::fs::read_dir(&libraries).into_iter().flatten().flatten();
        let folders = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
        let all: Vec<_> = folders.chain([libraries.clone()]).collect();
        all.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join(":")
    }
}

/// How to run `program`: the machine's own, else that of `package`.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    path: PathBuf,
    libraries: Option<String>,
}

impl Tool {
    pub(crate) fn find(target: &Path, program: &str, package: &str) -> Result<Self, String> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        // Not every user's path has the programs of the system.
        let folders = std::env::split_paths(&folders).chain([PathBuf::from("/usr/sbin")]);
        if let Some(path) = folders.map(|folder| folder.join(program)).find(|path| path.is_file()) {
            return Ok(Self { path, libraries: None });
        }
        let unpacked = Unpacked::packages(target, package, &[])?;
        let path = unpacked.find(program);
        let path = path.ok_or_else(|| format!("Debian's package {package} has no {program}"))?;
        Ok(Self { path, libraries: Some(unpacked.libraries()) })
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }
}

fn fetch(place: &Path, package: &str, others: &[&str], root: &Path) -> anyhow::Result<()> {
    println!("fetching Debian's package {package} into {}", root.display());
    let lists = place.join("lists");
    let cache = place.join("cache").join(package);
    std::fs::create_dir_all(lists.join("partial"))?;
    std::fs::create_dir_all(cache.join("archives/partial"))?;
    let apt = || {
        let mut command = Command::new("apt-get");
        command.args(["--quiet", "--yes", "--no-install-recommends", "--option"]);
        command.arg(format!("Dir::State::Lists={}", lists.display())).arg("--option");
        command.arg(format!("Dir::Cache={}", cache.display()));
        // The lists and the cache are ours; the machine's lock guards others.
        command.args(["--option", "Debug::NoLocking=1"]);
        command
    };
    run_quietly(apt().arg("update"))?;
    run_quietly(apt().args(["--download-only", "--reinstall", "install", package]).args(others))?;
    let partial = root.with_extension("partial");
    for entry in std::fs::read_dir(cache.join("archives"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run_quietly(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(&partial))?;
        }
    }
    // Last, so that a folder of this name is whole.
    std::fs::rename(&partial, root)?;
    Ok(())
}

/// The first file of this name in a folder or those in it.
pub(crate) fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<_> =
        std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    let is_it = |path: &&PathBuf| path.is_file() && path.file_name().is_some_and(|is| is == name);
    entries.iter().find(is_it).cloned().or_else(|| {
        // A link to a folder may lead back.
        let folders = entries.iter().filter(|path| path.is_dir() && !path.is_symlink());
        folders.into_iter().find_map(|path| find(path, name))
    })
}

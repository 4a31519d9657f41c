//! File systems of the scenarios' own: small ones that fill up, and ones whose
//! power can be cut. Both need root.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::workspace::run_quietly;

/// Forgets what was not synced, as a power cut does: `EXT4_IOC_SHUTDOWN` with
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`. Rust has no safe ioctl for it.
const CUT_POWER: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    kind: Kind,
    at: PathBuf,
    mounted: bool,
}

#[derive(Debug)]
enum Kind {
    Memory { bytes: u64 },
    Ext4 { image: PathBuf },
}

/// One sentence why nothing can be mounted, where that is so.
pub(crate) fn impossible() -> Option<String> {
    (!rustix::process::geteuid().is_root()).then(|| "mounting needs root".to_owned())
}

impl Mount {
    /// A file system of `bytes` in memory at `directory/mount`.
    pub(crate) fn memory(directory: &Path, bytes: u64) -> Result<Self> {
        Self::new(directory, Kind::Memory { bytes })
    }

    /// A new ext4 of `bytes` on a loop device at `directory/mount`.
    pub(crate) fn ext4(directory: &Path, bytes: u64) -> Result<Self> {
        let image = directory.join("image");
        File::create(&image)?.set_len(bytes)?;
        run_quietly(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        Self::new(directory, Kind::Ext4 { image })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Cuts the power of an ext4: from now on every call on it fails, and what
    /// was not synced is gone after [`Mount::remount`].
    pub(crate) fn cut_power(&self) -> Result<()> {
        let mut command = Command::new("python3");
        run_quietly(command.args(["-c", CUT_POWER]).arg(&self.at)).map(drop)
    }

    /// Unmounts and mounts again, which replays the file system's own log. No
    /// process may have a file open on it.
    pub(crate) fn remount(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    fn new(directory: &Path, kind: Kind) -> Result<Self> {
        let at = directory.join("mount");
        std::fs::create_dir_all(&at)?;
        let mut mount = Self { kind, at, mounted: false };
        mount.mount()?;
        Ok(mount)
    }

    fn mount(&mut self) -> Result<()> {
        let mut command = Command::new("mount");
        match &self.kind {
            Kind::Memory { bytes } => {
                command.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "aquifer-test"]);
            }
            Kind::Ext4 { image } => {
                command.args(["-t", "ext4", "-o", "loop"]).arg(image);
            }
        }
        run_quietly(command.arg(&self.at)).context("cannot mount")?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        run_quietly(Command::new("umount").arg(&self.at)).context("cannot unmount")?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            // Something still has it open; detach it, so that it goes with that.
            let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
        }
    }
}

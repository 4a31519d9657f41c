//! Other programs that a figure needs: started, and ended by their process id.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A server that is not up by then is broken; a JVM on a busy machine is slow.
const START_MAX: Duration = Duration::from_secs(120);

/// A running program, killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output in `log`.
    pub(super) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot open {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until the program listens.
    pub(super) fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let asked = Instant::now();
        loop {
            if TcpStream::connect(address).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("ended with {status}, its output: {}", self.output());
            }
            if asked.elapsed() > START_MAX {
                bail!("does not listen after {START_MAX:?}, its output: {}", self.output());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The end of what it printed.
    pub(super) fn output(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended, or nobody is left to hear of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of loopback that was free a moment ago.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Where `program` is, in `$PATH` or in `folder`.
pub(super) fn find(program: &str, folder: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    folders.extend(std::env::split_paths(&path));
    folders.into_iter().map(|folder| folder.join(program)).find(|file| file.is_file())
}

//! The demo's server: this very binary as a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::mpsc;

use crate::config::PREFIX;
use crate::failure::Failure;

/// A start takes no longer, recovery included.
const START_MAX: Duration = Duration::from_secs(60);
/// A graceful stop takes no longer.
const STOP_MAX: Duration = Duration::from_secs(20);
const LISTENING: &str = "http listening on ";
/// The target of the access log.
const ACCESS: &str = "aquifer::access";
/// Access events that wait for the feed; more are dropped, it is a demo.
const EVENTS_MAX: usize = 4096;

/// A server process; killed when dropped.
pub(super) struct Server {
    data: PathBuf,
    kafka: SocketAddr,
    child: Child,
    id: Arc<AtomicU32>,
    url: String,
    events: mpsc::Sender<String>,
    received: Option<mpsc::Receiver<String>>,
}

impl Server {
    /// Starts it and waits until it listens.
    pub(super) async fn start(
        data: &Path,
        listen: SocketAddr,
        kafka: SocketAddr,
    ) -> Result<Self, Failure> {
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let (child, url) = spawn(data, &listen.to_string(), kafka, events.clone()).await?;
        let id = Arc::new(AtomicU32::new(child.id().unwrap_or(0)));
        let (data, received) = (data.to_owned(), Some(received));
        Ok(Self { data, kafka, child, id, url, events, received })
    }

    /// Where HTTP listens; the same after a restart.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The process id; of the last one after it was killed.
    pub(super) fn id(&self) -> u32 {
        self.id.load(Ordering::Relaxed)
    }

    /// The process id as it is at any time.
    pub(super) fn current_id(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.id)
    }

    /// The lines of the access log, over all restarts; once.
    pub(super) const fn take_access_events(&mut self) -> Option<mpsc::Receiver<String>> {
        self.received.take()
    }

    /// Ends it as a crash would.
    pub(super) async fn kill(&mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    /// Starts it again on the same data and address.
    pub(super) async fn restart(&mut self) -> Result<(), Failure> {
        let listen = self.url.strip_prefix("http://").unwrap_or(&self.url).to_owned();
        (self.child, self.url) =
            spawn(&self.data, &listen, self.kafka, self.events.clone()).await?;
        self.id.store(self.child.id().unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    /// Waits for as long as it runs; that it ends by itself is a failure.
    pub(super) async fn ended(&mut self) -> Result<(), Failure> {
        let status = self.child.wait().await?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::failed(format!("the server ended with {status}")))
    }

    /// Asks it to stop, and kills it if it does not.
    pub(super) async fn stop(&mut self) {
        let running = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let Some(pid) = running else { return };
        // It may have ended by itself, at the same Ctrl-C.
        let _ = kill_process(pid, Signal::TERM);
        if tokio::time::timeout(STOP_MAX, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// The names of all variables that a server reads.
fn variables() -> Vec<std::ffi::OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes())).collect()
}

async fn spawn(
    data: &Path,
    listen: &str,
    kafka: SocketAddr,
    events: mpsc::Sender<String>,
) -> Result<(Child, String), Failure> {
    let binary = std::env::current_exe()?;
    let mut command = Command::new(binary);
    // What is set for a real server is not meant for the demo's, its tier 2 least
    // of all: whoever starts last owns it.
    for name in variables() {
        command.env_remove(name);
    }
    let mut child = command
        .arg("serve")
        .arg("--data")
        .arg(data)
        .args(["--listen", listen, "--access-log", "--log-format", "json"])
        .args(["--log-filter", "info", "--kafka-listen", &kafka.to_string()])
        .args(["--postgres-listen", "127.0.0.1:0", "--flight-listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Failure::failed("the server's output cannot be read"));
    };
    let log = tokio::spawn(read_log(BufReader::new(stderr).lines(), events));
    let mut lines = BufReader::new(stdout).lines();
    match tokio::time::timeout(START_MAX, find_url(&mut lines)).await {
        Ok(Some(url)) => {
            // Its output must be read on, or it would block one day.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            Ok((child, url))
        }
        Ok(None) => {
            let status = child.wait().await?;
            let last = log.await.unwrap_or_default();
            Err(Failure::failed(format!("the server ended with {status}: {last}")))
        }
        Err(_) => Err(Failure::failed("the server did not start within a minute")),
    }
}

async fn find_url(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<String> {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(url) = line.strip_prefix(LISTENING) {
            return Some(url.to_owned());
        }
    }
    None
}

/// Sorts the log: access events go to the feed, warnings to standard error.
/// Returns the last other line.
async fn read_log(
    mut lines: Lines<BufReader<ChildStderr>>,
    events: mpsc::Sender<String>,
) -> String {
    let mut last = String::new();
    while let Ok(Some(line)) = lines.next_line().await {
        let event = serde_json::from_str::<Value>(&line).unwrap_or_default();
        let field = |name| event.get(name).and_then(Value::as_str).unwrap_or_default();
        if field("target") == ACCESS {
            // Dropped where the feed is behind.
            let _ = events.try_send(line);
        } else if field("level") != "INFO" {
            warn(&line);
            last = line;
        }
    }
    last
}

#[expect(clippy::print_stderr, reason = "what the server warns of is for the person")]
fn warn(line: &str) {
    eprintln!("   server: {line}");
}

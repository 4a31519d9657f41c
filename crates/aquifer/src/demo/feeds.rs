//! What the demo's server is fed with: log files, `/proc`, its own access log.

#![expect(
    clippy::disallowed_methods,
    reason = "this machine's own files are the input, and nothing is kept by reading them"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aquifer_env::{Clock as _, RealClock, tasks};
use reqwest::Method;
use serde_json::json;
use tokio::sync::mpsc;

use crate::client::{Client, RequestError, segment};

const LOG_DIRECTORY: &str = "/var/log";
/// Of a large file its last bytes are taken.
const FILE_BYTES_MAX: u64 = 8 << 20;
const FILES_MAX: usize = 12;
const DEPTH_MAX: usize = 3;
/// Lines are sent in requests of about this size.
const REQUEST_BYTES: usize = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);
/// Access events are collected this long.
const ACCESS_LINGER: Duration = Duration::from_millis(200);
/// The requests that append access events would otherwise make more of them.
const ACCESS_PATH: &str = "/v1/streams/access/records";
/// Clock ticks a second, as `/proc` counts them on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A log file and how far it has been read.
#[derive(Debug)]
pub(super) struct Followed {
    path: PathBuf,
    position: u64,
}

impl Followed {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the whole lines that are new; how many, and their bytes.
    pub(super) async fn append_new_lines(
        &mut self,
        client: &Client,
        stream: &str,
    ) -> Result<(u64, u64), RequestError> {
        let (mut records, mut bytes) = (0, 0);
        loop {
            let (path, position) = (self.path.clone(), self.position);
            let read = tasks::run_blocking(move || read_lines(&path, position)).await;
            // A file that is gone or turned over gives nothing, or begins anew.
            let Ok((from, lines)) = read else { return Ok((records, bytes)) };
            self.position = from + lines.len() as u64;
            if lines.is_empty() {
                return Ok((records, bytes));
            }
            bytes += lines.len() as u64;
            let key = segment(&self.path.display().to_string());
            let answer = client
                .json(
                    client
                        .request(Method::POST, &format!("/v1/streams/{stream}/records?key={key}"))
                        .header("content-type", "text/plain")
                        .body(lines),
                )
                .await;
            records += match answer {
                Ok(answer) => count_of(&answer),
                // Lines that are all empty are no records.
                Err(RequestError::Refused(status, ..)) if status == 400 => 0,
                Err(error) => return Err(error),
            };
        }
    }
}

fn count_of(answer: &serde_json::Value) -> u64 {
    let appends = answer.get("appends").and_then(serde_json::Value::as_array);
    let counts = appends.into_iter().flatten().filter_map(|append| append.get("count")?.as_u64());
    counts.sum()
}

/// Whole lines from `position` on, and where they begin.
fn read_lines(path: &Path, position: u64) -> std::io::Result<(u64, Vec<u8>)> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    // Shorter than before: it was turned over.
    let from = if length < position { 0 } else { position };
    file.seek(SeekFrom::Start(from))?;
    let mut lines = Vec::new();
    file.take(REQUEST_BYTES as u64).read_to_end(&mut lines)?;
    match lines.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => lines.truncate(end + 1),
        // A line without an end is waited for, unless it fills a request.
        None if lines.len() < REQUEST_BYTES => lines.clear(),
        None => {}
    }
    Ok((from, lines))
}

/// The readable text files below `/var/log`, the largest ones.
pub(super) async fn log_files() -> Vec<Followed> {
    tasks::run_blocking(|| {
        let mut found = Vec::new();
        visit(Path::new(LOG_DIRECTORY), 0, &mut found);
        found.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        found.truncate(FILES_MAX);
        let followed = found
            .into_iter()
            .map(|(size, path)| Followed { path, position: size.saturating_sub(FILE_BYTES_MAX) });
        followed.collect()
    })
    .await
}

fn visit(directory: &Path, depth: usize, found: &mut Vec<(u64, PathBuf)>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < DEPTH_MAX {
            visit(&path, depth + 1, found);
        } else if kind.is_file()
            && let Ok(metadata) = entry.metadata()
            && metadata.len() > 0
            && is_text(&path)
        {
            found.push((metadata.len(), path));
        }
    }
}

/// Journald's files, `wtmp` and what is compressed have zeros early on.
fn is_text(path: &Path) -> bool {
    let mut start = [0; 512];
    let Ok(length) = File::open(path).and_then(|mut file| file.read(&mut start)) else {
        return false;
    };
    start.get(..length).is_some_and(|start| !start.contains(&0) && !start.starts_with(b"\x1f\x8b"))
}

/// Appends what the log files grow by, once a second.
pub(super) async fn follow(client: Client, mut files: Vec<Followed>) {
    loop {
        tokio::time::sleep(SECOND).await;
        for file in &mut files {
            // The server may be away for a moment; the lines are still there.
            let before = file.position;
            if file.append_new_lines(&client, "logs").await.is_err() {
                file.position = before;
            }
        }
    }
}

/// Appends the numbers of the server's process, once a second.
pub(super) async fn metrics(client: Client, clock: Arc<RealClock>, current_id: Arc<AtomicU32>) {
    let mut id = 0;
    let mut ticks_before = None;
    let mut interval = tokio::time::interval(SECOND);
    loop {
        interval.tick().await;
        let now = current_id.load(Ordering::Relaxed);
        if now != id {
            // Killed and started again.
            id = now;
            ticks_before = None;
        }
        let Some(sample) = sample(id) else { continue };
        let ticks = sample.cpu_ticks as f64;
        let cpu = ticks_before.map_or(0.0, |before| (ticks - before) / TICKS_PER_SECOND);
        ticks_before = Some(ticks);
        let body = json!({
            "time": clock.now_ms(), "pid": id, "cpu": (cpu * 100.0).round() / 100.0,
            "rss_bytes": sample.rss_bytes, "threads": sample.threads,
            "written_bytes": sample.written_bytes, "load": sample.load,
        });
        let request = client
            .request(Method::POST, "/v1/streams/metrics/records")
            .header("content-type", "application/x-ndjson")
            .body(body.to_string());
        // A second without numbers is no harm.
        let _ = client.send(request).await;
    }
}

struct Sample {
    cpu_ticks: u64,
    rss_bytes: u64,
    threads: u64,
    written_bytes: u64,
    load: f64,
}

fn sample(id: u32) -> Option<Sample> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything (proc(5)).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<u64>().ok();
    let pairs = |file: &str| -> BTreeMap<String, u64> {
        let text = fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default();
        let pairs = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.split_whitespace().next()?.parse().ok()?))
        });
        pairs.collect()
    };
    let (status, io) = (pairs("status"), pairs("io"));
    let number = |pairs: &BTreeMap<String, u64>, name| pairs.get(name).copied().unwrap_or(0);
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    Some(Sample {
        cpu_ticks: ticks(11)? + ticks(12)?,
        rss_bytes: number(&status, "VmRSS") * 1024,
        threads: number(&status, "Threads"),
        written_bytes: number(&io, "write_bytes"),
        load: load.split_whitespace().next()?.parse().ok()?,
    })
}

/// Appends the server's own access log.
pub(super) async fn access(client: Client, mut events: mpsc::Receiver<String>) {
    while let Some(first) = events.recv().await {
        let mut lines = String::new();
        let mut add = |line: &str| {
            if !line.contains(ACCESS_PATH) {
                lines.push_str(line);
                lines.push('\n');
            }
        };
        add(&first);
        tokio::time::sleep(ACCESS_LINGER).await;
        while let Ok(line) = events.try_recv() {
            add(&line);
        }
        if lines.is_empty() {
            continue;
        }
        let request = client
            .request(Method::POST, ACCESS_PATH)
            .header("content-type", "application/x-ndjson")
            .body(lines);
        // While the server is away there is nothing to tell it.
        let _ = client.send(request).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whole_and_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, "one\ntwo\nthr").unwrap();
        let (from, lines) = read_lines(&path, 0).unwrap();
        assert_eq!((from, lines.as_slice()), (0, &b"one\ntwo\n"[..]));
        assert_eq!(read_lines(&path, 8).unwrap(), (8, Vec::new()));
        fs::write(&path, "new\n").unwrap();
        assert_eq!(read_lines(&path, 8).unwrap(), (0, b"new\n".to_vec()));
    }

    #[test]
    fn only_text_is_fed() {
        let directory = tempfile::tempdir().unwrap();
        for (name, content, text) in
            [("a", &b"plain\n"[..], true), ("b", b"\x1f\x8bzip", false), ("c", b"LPKS\0", false)]
        {
            let path = directory.path().join(name);
            fs::write(&path, content).unwrap();
            assert_eq!(is_text(&path), text, "{name}");
        }
    }

    #[test]
    fn this_process_can_be_sampled() {
        let sample = sample(std::process::id()).unwrap();
        assert!(sample.rss_bytes > 0 && sample.threads > 0);
    }
}

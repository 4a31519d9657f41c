//! A volume of records into streams over HTTP, made while it is sent, so that
//! none of it lies on the disk a second time; and waiting until it is in chunks
//! and indexed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use super::http::{address, exchange, request};
use super::load::Socket;
use super::tiering::metric;
use crate::e2e::client::Client;

/// Lines of about so many bytes are one request.
const REQUEST_BYTES: usize = 256 << 10;
/// A server that is behind says so, and is asked again then.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// A request that is refused for so long never goes through.
const REFUSED_MAX: Duration = Duration::from_secs(300);
/// Everything is in chunks, merged and indexed within this.
const SETTLED_MAX: Duration = Duration::from_secs(1200);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// So often in a row nothing may have changed.
const QUIET_LOOKS: u32 = 8;

/// Whoever looks at each record as it is sent.
type Seen<'a> = Box<dyn FnMut(&[u8]) -> Result<()> + Send + 'a>;

/// Records of one connection into one partition.
pub(super) struct Lane<'a> {
    pub(super) stream: &'a str,
    pub(super) partition: u32,
    /// The media type: lines of what.
    pub(super) kind: &'static str,
    pub(super) records: Box<dyn Iterator<Item = Vec<u8>> + Send + 'a>,
    /// It ends with the record that reaches so many bytes, or with the last one.
    pub(super) bytes_max: u64,
    pub(super) seen: Option<Seen<'a>>,
}

/// What was sent.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Fed {
    pub(super) records: u64,
    /// Of their values.
    pub(super) bytes: u64,
}

/// Sends all lanes beside each other, each as fast as it is acknowledged.
pub(super) fn feed(url: &str, lanes: Vec<Lane<'_>>) -> Result<Fed> {
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> =
            lanes.into_iter().map(|lane| scope.spawn(move || send(url, lane))).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut fed = Fed::default();
    for result in results {
        let lane = result.map_err(|_| anyhow!("a lane's thread panicked"))??;
        fed.records += lane.records;
        fed.bytes += lane.bytes;
    }
    Ok(fed)
}

fn send(url: &str, mut lane: Lane<'_>) -> Result<Fed> {
    let mut socket = Socket::connect(address(url)?)?;
    let (mut fed, mut body) = (Fed::default(), Vec::with_capacity(2 * REQUEST_BYTES));
    while fed.bytes < lane.bytes_max {
        let Some(record) = lane.records.next() else { break };
        if let Some(seen) = &mut lane.seen {
            seen(&record)?;
        }
        fed.records += 1;
        fed.bytes += record.len() as u64;
        body.extend_from_slice(&record);
        body.push(b'\n');
        if body.len() >= REQUEST_BYTES {
            append(&mut socket, &request(lane.stream, lane.partition, lane.kind, &body))?;
            body.clear();
        }
    }
    if !body.is_empty() {
        append(&mut socket, &request(lane.stream, lane.partition, lane.kind, &body))?;
    }
    Ok(fed)
}

fn append(socket: &mut Socket, request: &[u8]) -> Result<()> {
    let started = Instant::now();
    loop {
        match exchange(socket, request)? {
            (200..300, _) => return Ok(()),
            (429 | 503, _) if started.elapsed() < REFUSED_MAX => std::thread::sleep(RETRY_AFTER),
            (status, body) => bail!("{status}: {body}"),
        }
    }
}

/// How old a record may be before it is cut into a chunk, from now on.
pub(super) fn set_age(client: &Client, stream: &str, ms: u64) -> Result<()> {
    let body = json!({ "config": { "chunk_max_age_ms": ms } });
    client.patch(&format!("/v1/streams/{stream}"), &body)
}

/// Waits until all records of the streams are in chunks, every chunk has its
/// index, and nothing is merged any more.
pub(super) fn settle(client: &Client, streams: &[&str]) -> Result<()> {
    for stream in streams {
        set_age(client, stream, 200)?;
    }
    let started = Instant::now();
    let (mut before, mut quiet) = (Vec::new(), 0);
    while quiet < QUIET_LOOKS {
        ensure!(started.elapsed() < SETTLED_MAX, "not all in chunks after {SETTLED_MAX:?}");
        std::thread::sleep(LOOK_EVERY);
        let backlog = metric(&client.get_text("/metrics")?, "aquifer_unindexed_chunks")?;
        let (mut is_tiered, mut now) = (true, Vec::new());
        for stream in streams {
            let partitions = client.partitions(stream)?;
            is_tiered &= partitions.iter().all(|of| of.tiered_offset == of.end_offset);
            now.push(partitions.iter().map(|of| of.chunks).sum::<u64>());
        }
        quiet = if is_tiered && backlog == 0.0 && now == before { quiet + 1 } else { 0 };
        before = now;
    }
    Ok(())
}

/// The live chunks of a stream.
#[derive(Debug, Clone)]
pub(super) struct Chunks {
    pub(super) files: Vec<PathBuf>,
    /// Of the files.
    pub(super) bytes: u64,
    /// Of the records in them.
    pub(super) raw_bytes: u64,
    /// The first and the last time of a record, in ms.
    pub(super) times: (i64, i64),
}

impl Chunks {
    /// Asks for those of `stream`, whose server has its data in `data`.
    pub(super) fn of(client: &Client, data: &Path, stream: &str) -> Result<Self> {
        let text = client.get_text(&format!("/v1/streams/{stream}/chunks"))?;
        let answer: Value = serde_json::from_str(&text)?;
        let listed = answer["chunks"].as_array().context("a list of chunks")?;
        ensure!(!listed.is_empty(), "{stream} has no chunks");
        ensure!(answer["next"].is_null(), "{stream} has more chunks than one page");
        let sum = |name: &str| listed.iter().filter_map(|chunk| chunk[name].as_u64()).sum();
        let of = |name: &'static str| listed.iter().filter_map(move |chunk| chunk[name].as_i64());
        let path = |chunk: &Value| Some(data.join("tier2").join(chunk["path"].as_str()?));
        Ok(Self {
            files: listed.iter().filter_map(path).collect(),
            bytes: sum("bytes"),
            raw_bytes: sum("raw_bytes"),
            times: (
                of("min_timestamp").min().context("no first time")?,
                of("max_timestamp").max().context("no last time")?,
            ),
        })
    }

    /// The same files under another folder, so that whoever reads all of that
    /// reads the live ones, whatever becomes of them later. No byte is copied.
    pub(super) fn link_into(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        for (number, file) in self.files.iter().enumerate() {
            std::fs::hard_link(file, folder.join(format!("{number:06}.parquet")))
                .with_context(|| format!("cannot link {}", file.display()))?;
        }
        Ok(())
    }
}

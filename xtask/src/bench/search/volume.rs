//! The logs that are searched: a stream with most of them in chunks, the rest in
//! its tail, and the same lines in compressed files.

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use aquifer_testkit::{Multiplied, load_records};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use super::STREAM;
use crate::bench::Context;
use crate::bench::feed::{Chunks, Fed, Lane, feed, set_age, settle};
use crate::bench::http::TEXT;
use crate::debian::Tool;
use crate::e2e::server::{Options, Server};

/// One kind of data a partition.
pub(super) const LANES: [&str; 4] =
    ["apache_access.log", "apache_access.log", "auth.log", "k8s_audit"];
/// Words that are remembered of a lane, spread over all of it.
const REMEMBERED: u64 = 600;
/// Of records that are larger none is remembered: an answer says at its head what
/// was read for it, unless it is long.
const REMEMBERED_BYTES_MAX: usize = 16 << 10;
/// Stands in some lines of a fiftieth of one lane, and nowhere else.
pub(super) const RARE_TERM: &str = "incident7f3a";
const RARE_TERM_EVERY: u64 = 20;
/// A file of the compressed data has so many bytes before that.
const ARCHIVE_BYTES: u64 = 64 << 20;
/// Longer than the figure takes: the tail stays in the journal.
const TAIL_AGE_MS: u64 = 24 * 3_600_000;

/// What is looked for, and where.
pub(super) struct Volume {
    pub(super) fed: Fed,
    pub(super) tail: Fed,
    pub(super) chunks: Chunks,
    /// Of all indexes.
    pub(super) index_bytes: u64,
    pub(super) words: Vec<String>,
    pub(super) rare_records: u64,
    pub(super) archives: PathBuf,
}

/// Fills the stream: chunks with indexes, and a hundredth more as its tail.
pub(super) fn fill(
    context: &Context,
    server: &Server,
    options: &Options,
    directory: &Path,
    bytes: u64,
    zstd: &Tool,
) -> Result<Volume> {
    let client = server.client();
    // A small volume has as many chunks as a large one.
    let target = (bytes / 150).clamp(1 << 20, 64 << 20);
    client.create_stream(STREAM, LANES.len() as u32, json!({ "chunk_target_bytes": target }))?;
    let archives = directory.join("archives");
    std::fs::create_dir_all(&archives)?;
    let samples: Vec<Vec<Vec<u8>>> = LANES
        .iter()
        .map(|name| Ok(load_records(&context.sample(name)?)?))
        .collect::<Result<_>>()?;
    let words = Mutex::new(Vec::new());
    let rare_records = AtomicU64::new(0);
    let lanes = |part: usize, bytes: u64| -> Vec<Lane<'_>> {
        let bytes = bytes / LANES.len() as u64;
        let lane = |partition: usize| {
            let mut archive = Archive::new(zstd, &archives, part * LANES.len() + partition);
            let (mut seen, mut next) = (0, bytes / 20);
            let words = &words;
            Lane {
                stream: STREAM,
                partition: partition as u32,
                kind: TEXT,
                records: lines(partition, part, &samples[partition], bytes, &rare_records),
                bytes_max: bytes,
                seen: Some(Box::new(move |record: &[u8]| {
                    seen += record.len() as u64;
                    if seen >= next
                        && record.len() <= REMEMBERED_BYTES_MAX
                        && let Some(word) = rare_word(record)
                    {
                        next = seen + bytes / REMEMBERED;
                        words.lock().unwrap_or_else(PoisonError::into_inner).push(word);
                    }
                    archive.write(record)
                })),
            }
        };
        (0..LANES.len()).map(lane).collect()
    };
    let fed = feed(client.url(), lanes(0, bytes))?;
    settle(&client, &[STREAM])?;
    let chunks = Chunks::of(&client, options.data(), STREAM)?;
    set_age(&client, STREAM, TAIL_AGE_MS)?;
    let tail = feed(client.url(), lanes(1, bytes / 100))?;
    let mut words = words.into_inner().unwrap_or_else(PoisonError::into_inner);
    words.shuffle(&mut StdRng::seed_from_u64(5));
    let index_bytes = index_bytes(&options.data().join("tier2"))?;
    let rare_records = rare_records.into_inner();
    Ok(Volume { fed, tail, chunks, index_bytes, words, rare_records, archives })
}

/// The records of one lane.
fn lines<'a>(
    partition: usize,
    part: usize,
    sample: &'a [Vec<u8>],
    bytes: u64,
    rare_records: &'a AtomicU64,
) -> Box<dyn Iterator<Item = Vec<u8>> + Send + 'a> {
    let seed = (part * LANES.len() + partition) as u64;
    let multiplied = Multiplied::new(sample, seed);
    if !LANES[partition].ends_with("access.log") {
        return Box::new(multiplied);
    }
    let mut random = StdRng::seed_from_u64(seed);
    let (mut made, mut number) = (0_u64, 0_u64);
    let rare = bytes / 5 * 2..bytes / 50 * 21;
    let has_term = part == 0 && partition == 0;
    Box::new(multiplied.map(move |mut line| {
        line.extend(format!(" {:032x}", random.random::<u128>()).into_bytes());
        number += 1;
        if has_term && rare.contains(&made) && number.is_multiple_of(RARE_TERM_EVERY) {
            line.extend(format!(" {RARE_TERM}").into_bytes());
            rare_records.fetch_add(1, Ordering::Relaxed);
        }
        made += line.len() as u64;
        line
    }))
}

/// A word of a record that hardly another one has: many hexadecimal digits.
fn rare_word(record: &[u8]) -> Option<String> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii();
    let mut words = record.split(|byte| !is_word(byte));
    let word = words.find(|word| {
        let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        (12..=64).contains(&word.len())
            && word.iter().all(is_hex)
            && word.iter().any(u8::is_ascii_digit)
            && word.iter().any(u8::is_ascii_lowercase)
    })?;
    String::from_utf8(word.to_vec()).ok()
}

/// Bytes of all files of indexes.
fn index_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            bytes += index_bytes(&path)?;
        } else if path.extension().is_some_and(|of| of == "index") {
            bytes += std::fs::metadata(&path)?.len();
        }
    }
    Ok(bytes)
}

/// The same lines in compressed files, as a log shipper would leave them.
struct Archive<'a> {
    zstd: &'a Tool,
    folder: PathBuf,
    lane: usize,
    files: usize,
    bytes: u64,
    /// The file that is being written.
    open: Option<(Child, BufWriter<ChildStdin>)>,
}

impl<'a> Archive<'a> {
    fn new(zstd: &'a Tool, folder: &Path, lane: usize) -> Self {
        Self { zstd, folder: folder.to_owned(), lane, files: 0, bytes: 0, open: None }
    }

    fn write(&mut self, record: &[u8]) -> Result<()> {
        if self.bytes >= ARCHIVE_BYTES {
            self.end()?;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        let (_, input) = self.open.insert(open);
        input.write_all(record)?;
        input.write_all(b"\n")?;
        self.bytes += record.len() as u64 + 1;
        Ok(())
    }

    fn begin(&mut self) -> Result<(Child, BufWriter<ChildStdin>)> {
        let file = self.folder.join(format!("{}-{:05}.zst", self.lane, self.files));
        self.files += 1;
        let mut command = self.zstd.command();
        command.args(["-q", "-3", "-T1", "-o"]).arg(file).stdin(Stdio::piped());
        let mut child = command.spawn().context("cannot start zstd")?;
        let input = child.stdin.take().context("zstd has no input")?;
        Ok((child, BufWriter::new(input)))
    }

    fn end(&mut self) -> Result<()> {
        self.bytes = 0;
        let Some((mut child, mut input)) = self.open.take() else { return Ok(()) };
        input.flush()?;
        drop(input);
        let status = child.wait()?;
        ensure!(status.success(), "zstd ended with {status}");
        Ok(())
    }
}

impl Drop for Archive<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            println!("a compressed file is not whole: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_words_are_whole_words() {
        for (record, expected) in [
            (
                "GET /a 200 0123456789abcdef0123456789abcdef",
                Some("0123456789abcdef0123456789abcdef"),
            ),
            (r#"{"id":"f81d4fae-7dec-11d0-a765-00a0c91e6bf6"}"#, Some("00a0c91e6bf6")),
            ("x0123456789abcdef", None),
            ("123456789012 abcdefabcdef", None),
            ("", None),
        ] {
            assert_eq!(rare_word(record.as_bytes()).as_deref(), expected, "{record}");
        }
    }

    #[test]
    fn the_term_is_in_a_small_part_of_one_lane() {
        let sample = vec![vec![b'x'; 67]; 10];
        let count = AtomicU64::new(0);
        let with_term = |partition, part| {
            let lines = lines(partition, part, &sample, 100_000, &count).take(1000);
            let term = RARE_TERM.as_bytes();
            lines.filter(|line| line.windows(term.len()).any(|of| of == term)).count()
        };
        assert_eq!(with_term(0, 0), 1);
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert_eq!([with_term(0, 1), with_term(1, 0), with_term(2, 0)], [0; 3]);
    }
}

//! Figure `search`: words in many chunks and a tail, beside a scan of the same
//! data and beside what a user would run over compressed files.

mod volume;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use ureq::Agent;
use volume::{LANES, RARE_TERM, Volume, fill};

use super::Context;
use super::measure::{Latencies, Table, figure, median};
use super::process::find;
use super::tiering::metric;
use crate::debian::Tool;
use crate::e2e::client::segment;
use crate::e2e::server::{Options, Server};
use crate::python;
use crate::workspace::run_quietly;

const STREAM: &str = "logs";
/// Words that are looked for in a row.
const WORDS: usize = 100;
/// Of those, how many with nothing in memory, which takes longer.
const COLD_WORDS: usize = 30;
const RESTARTS: usize = 5;
/// In no word; the index cannot help to find that out.
const INFIX: &str = "*q0zj9w*";
/// In most records of a lane.
const COMMON: [&str; 3] = ["GET", "sshd", "kubernetes"];
const ANSWER_MAX: Duration = Duration::from_secs(900);
const HITS_MAX: usize = 100;
/// Asks a server's search.
struct Asker {
    agent: Agent,
    url: String,
}

/// What an answer says.
struct Found {
    took: Duration,
    body: Value,
    /// Of chunks and indexes.
    bytes_read: f64,
}

impl Asker {
    fn new(url: &str) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_MAX))
            .build()
            .into();
        Self { agent, url: url.to_owned() }
    }

    fn get(&self, path: &str) -> Result<Found> {
        let read_before = self.bytes_read()?;
        let started = Instant::now();
        let mut answer = self.agent.get(format!("{}{path}", self.url)).call()?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(1 << 30).read_to_string()?;
        let took = started.elapsed();
        ensure!(status == 200, "{path}: {status}: {text}");
        let bytes_read = self.bytes_read()? - read_before;
        Ok(Found { took, body: serde_json::from_str(&text)?, bytes_read })
    }

    /// Of all questions so far. An answer says its own in front only where it is
    /// short and quick.
    fn bytes_read(&self) -> Result<f64> {
        let mut answer = self.agent.get(format!("{}/metrics", self.url)).call()?;
        let metrics = answer.body_mut().read_to_string()?;
        metric(&metrics, "aquifer_query_chunk_reads_bytes_total")
    }

    /// The newest records with this.
    fn newest(&self, query: &str) -> Result<Found> {
        let query = segment(query);
        self.get(&format!("/v1/streams/{STREAM}/search?q={query}&limit={HITS_MAX}"))
    }

    fn sql(&self, sql: &str) -> Result<Duration> {
        let started = Instant::now();
        let mut answer =
            self.agent.post(format!("{}/v1/sql", self.url)).send_json(json!({ "sql": sql }))?;
        let text = answer.body_mut().read_to_string()?;
        ensure!(answer.status().as_u16() == 200, "{sql}: {text}");
        Ok(started.elapsed())
    }
}

pub(super) fn run(context: &Context) -> Result<String> {
    let bytes = context.bytes(150_000_000, 10_000_000_000, 10_000_000_000);
    let directory = context.temporary("search")?;
    let options = context.server(directory.path())?;
    let server = Server::start(&options)?;
    let zstd = Tool::find(&context.workspace.target, "zstd", "zstd");
    let zstd = zstd.map_err(|reason| anyhow::anyhow!(reason))?;
    let volume = fill(context, &server, &options, directory.path(), bytes, &zstd)?;
    let mut words = volume.words.iter().map(String::as_str);
    let asker = Asker::new(server.url());
    let rounds = context.pairs();
    let warm = warm(&asker, &mut words, rounds)?;
    let common = common(&asker, rounds)?;
    let (rare, bars) = histogram(&asker, &volume, rounds)?;
    let dropped = dropped(&asker, &mut words, options.data())?;
    let whole = words.next().context("no words are left")?.to_owned();
    let scans = scans(&asker, &whole)?;
    server.stop()?;
    let restarted = restarted(&options, &mut words)?;
    let others = others(context, &volume, &whole)?;
    let mut table = Table::new(&["", "p50 ms", "p95 ms", "read % of chunks"]);
    let chunk_bytes = volume.chunks.bytes as f64;
    for (name, mut of) in [
        (format!("{WORDS} rare words"), warm),
        (format!("{COLD_WORDS} rare words, files not in memory"), dropped),
        (
            format!("{RESTARTS} rare words, each the first after a start, files not in memory"),
            restarted,
        ),
        (format!("newest {HITS_MAX} of a common word"), common),
        (format!("histogram of a term, {bars} bars"), rare),
        ("a part of a word: all is read".to_owned(), scans.0),
        ("SQL `LIKE`: all is read".to_owned(), scans.1),
    ] {
        let share = of.share(chunk_bytes);
        table.row(&[&name, &figure(of.at(0.5)), &figure(of.at(0.95)), &share]);
    }
    for (name, seconds) in &others {
        let ms = median(seconds.iter().map(|seconds| seconds * 1e3));
        table.row(&[name.as_str(), &figure(ms), "", ""]);
    }
    Ok(format!("{}\n{}", table.into_text(), about(&volume, rounds)))
}

fn about(volume: &Volume, rounds: usize) -> String {
    let Volume { fed, tail, chunks, index_bytes, rare_records, .. } = volume;
    format!(
        "{} GB of logs ({}; each line of Apache's with a request id of its own) in {} chunks of {} \
         GB, indexes of {} % of the records' bytes, and {} MB that are only in the journal. Rare \
         words are those of 100 records drawn at random from all of it, others in each of {rounds} \
         rounds, after 100 more that are not counted; the medians of the rounds. What is read are \
         bytes of chunks and indexes from tier 2, in the mean of a question. The term is in {} \
         records of {} million, all within a two-hundredth of the data. Files that are not in \
         memory: `posix_fadvise` gave them up before each question. The commands search the same \
         lines in files of 64 MiB, compressed by `zstd -3`, for one of the rare words: all of their \
         time, files in the page cache.\n\n\
         Goals: p95 of rare words below 200 ms, reading less than 1 %; the newest {HITS_MAX} of a \
         common word below 100 ms; the histogram below 1 s; indexes of at most 6 %.\n",
        figure(fed.bytes as f64 / 1e9),
        LANES.join(", "),
        chunks.files.len(),
        figure(chunks.bytes as f64 / 1e9),
        figure(100.0 * *index_bytes as f64 / chunks.raw_bytes as f64),
        figure(tail.bytes as f64 / 1e6),
        rare_records,
        figure((fed.records + tail.records) as f64 / 1e6),
    )
}

/// Times and bytes of one kind of question, by rounds.
#[derive(Default)]
struct Asked {
    rounds: Vec<Latencies>,
    bytes_read: Vec<f64>,
}

impl Asked {
    /// The median of the rounds' quantiles.
    fn at(&mut self, quantile: f64) -> f64 {
        median(self.rounds.iter_mut().map(|round| round.quantile_ms(quantile)))
    }

    /// What a question read in the mean, in percent of `bytes`.
    fn share(&self, bytes: f64) -> String {
        if self.bytes_read.is_empty() {
            return String::new();
        }
        let mean = self.bytes_read.iter().sum::<f64>() / self.bytes_read.len() as f64;
        format!("{:.3}", 100.0 * mean / bytes)
    }

    fn add(&mut self, found: &Found) {
        if let Some(round) = self.rounds.last_mut() {
            round.push(found.took);
        }
        self.bytes_read.push(found.bytes_read);
    }

    fn begin(&mut self) {
        self.rounds.push(Latencies::default());
    }
}

fn word_of<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<&'a str> {
    words.next().context("the data had too few rare words; give it more --bytes")
}

/// A word that is in the data is found.
fn find_word(asker: &Asker, word: &str) -> Result<Found> {
    let found = asker.newest(word)?;
    let hits = found.body["hits"].as_array().map_or(0, Vec::len);
    ensure!(hits > 0, "{word} was sent and is not found");
    Ok(found)
}

fn warm<'a>(
    asker: &Asker,
    words: &mut impl Iterator<Item = &'a str>,
    rounds: usize,
) -> Result<Asked> {
    for _ in 0..WORDS {
        find_word(asker, word_of(words)?)?;
    }
    let mut asked = Asked::default();
    for _ in 0..rounds {
        asked.begin();
        for _ in 0..WORDS {
            asked.add(&find_word(asker, word_of(words)?)?);
        }
    }
    Ok(asked)
}

fn common(asker: &Asker, rounds: usize) -> Result<Asked> {
    const TIMES: usize = 10;
    let mut asked = Asked::default();
    for _ in 0..rounds {
        asked.begin();
        for word in COMMON.iter().cycle().take(TIMES * COMMON.len()) {
            let found = asker.newest(word)?;
            let hits = found.body["hits"].as_array().map_or(0, Vec::len);
            ensure!(hits == HITS_MAX, "{hits} hits of the common word {word}");
            asked.add(&found);
        }
    }
    Ok(asked)
}

/// Also how many bars there are.
fn histogram(asker: &Asker, volume: &Volume, rounds: usize) -> Result<(Asked, usize)> {
    const TIMES: usize = 5;
    let (mut asked, mut bars) = (Asked::default(), 0);
    for _ in 0..rounds {
        asked.begin();
        for _ in 0..TIMES {
            let found = asker.get(&format!("/v1/streams/{STREAM}/histogram?q={RARE_TERM}"))?;
            let total = found.body["total"].as_u64();
            ensure!(total == Some(volume.rare_records), "{} of {RARE_TERM}", found.body["total"]);
            bars = found.body["buckets"].as_array().map_or(0, Vec::len);
            asked.add(&found);
        }
    }
    Ok((asked, bars))
}

/// With nothing of tier 2 in the page cache.
fn dropped<'a>(
    asker: &Asker,
    words: &mut impl Iterator<Item = &'a str>,
    data: &Path,
) -> Result<Asked> {
    let mut asked = Asked::default();
    asked.begin();
    for _ in 0..COLD_WORDS {
        give_up_cached(&data.join("tier2"))?;
        asked.add(&find_word(asker, word_of(words)?)?);
    }
    Ok(asked)
}

/// The same with a server and an engine that were just started.
fn restarted<'a>(options: &Options, words: &mut impl Iterator<Item = &'a str>) -> Result<Asked> {
    let mut asked = Asked::default();
    asked.begin();
    for _ in 0..RESTARTS {
        let server = Server::start(options)?;
        give_up_cached(&options.data().join("tier2"))?;
        asked.add(&find_word(&Asker::new(server.url()), word_of(words)?)?);
        server.stop()?;
    }
    Ok(asked)
}

/// Questions that read everything: by search and by SQL.
fn scans(asker: &Asker, word: &str) -> Result<(Asked, Asked)> {
    const TIMES: usize = 3;
    let (mut search, mut sql) = (Asked::default(), Asked::default());
    search.begin();
    sql.begin();
    for _ in 0..TIMES {
        let found = asker.newest(INFIX)?;
        ensure!(found.body["hits"].as_array().is_some_and(Vec::is_empty), "{INFIX} is found");
        search.add(&found);
        let took =
            asker.sql(&format!("SELECT count(*) FROM {STREAM} WHERE _value LIKE '%{word}%'"))?;
        if let Some(round) = sql.rounds.last_mut() {
            round.push(took);
        }
    }
    Ok((search, sql))
}

/// Seconds of the commands that a user has for compressed files.
fn others(context: &Context, volume: &Volume, word: &str) -> Result<BTreeMap<String, Vec<f64>>> {
    const TIMES: usize = 3;
    let mut others = BTreeMap::new();
    let ripgrep = python::interpreter_with(&context.workspace, "requirements-bench.txt")
        .map(|python| python.with_file_name("rg"));
    match ripgrep {
        Ok(ripgrep) => {
            let command = || {
                let mut command = Command::new(&ripgrep);
                command.args(["--search-zip", "--fixed-strings", word]).arg(&volume.archives);
                command
            };
            others.insert("`rg -z`".to_owned(), timed(command, TIMES)?);
        }
        Err(reason) => println!("rg -z is left out: {reason}"),
    }
    match find("zstdgrep", Path::new("/usr/bin")) {
        Some(program) => {
            let mut files: Vec<PathBuf> = std::fs::read_dir(&volume.archives)?
                .map(|entry| Ok(entry?.path()))
                .collect::<std::io::Result<_>>()?;
            files.sort();
            let command = || {
                let mut command = Command::new(&program);
                command.args(["-F", word]).args(&files);
                command
            };
            others.insert("`zstdgrep`".to_owned(), timed(command, TIMES)?);
        }
        None => println!("zstdgrep is left out: there is none on this machine"),
    }
    Ok(others)
}

fn timed(command: impl Fn() -> Command, times: usize) -> Result<Vec<f64>> {
    let mut seconds = Vec::new();
    for _ in 0..times {
        let started = Instant::now();
        let output = command().stdin(Stdio::null()).output()?;
        seconds.push(started.elapsed().as_secs_f64());
        ensure!(!output.stdout.is_empty(), "{:?} found nothing", command());
    }
    Ok(seconds)
}

/// What was written lies on the disk, and nothing of it in memory.
fn give_up_cached(folder: &Path) -> Result<()> {
    run_quietly(&mut Command::new("sync"))?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            give_up_cached_below(&path)?;
        }
    }
    Ok(())
}

fn give_up_cached_below(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            give_up_cached_below(&path)?;
        } else {
            let file = File::open(&path)?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

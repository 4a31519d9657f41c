//! `aquifer append`: the lines of files or of standard input, in batches.
//!
//! Each request carries an idempotency key of its own, so that one whose answer
//! was lost is sent again without appending twice.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aquifer_env::{RealRandom, tasks, uuid_v4};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cli::{AppendArguments, Lines, Output};
use crate::client::{Client, RequestError, segment};
use crate::failure::Failure;
use crate::output;

/// What is read ahead of the request under way.
const PIECES_AHEAD_MAX: usize = 4;
/// Input is handed on in pieces of whole lines of about this size.
const PIECE_BYTES: usize = 256 << 10;
/// The longest line.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// The first pause before a request is sent again; it doubles up to 5 s.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Whole lines, each with its end.
type Piece = Result<Vec<u8>, String>;

pub(crate) async fn run(arguments: AppendArguments) -> Result<(), Failure> {
    let client = Client::new(&arguments.server)?;
    let (pieces, mut input) = mpsc::channel(PIECES_AHEAD_MAX);
    let files = arguments.files.clone();
    let total_bytes = total_bytes(&files);
    // Ends when the input does, or when nobody takes its pieces any more.
    let _reader = tasks::spawn_thread("append-input", move || read_all(&files, &pieces))?;
    let progress = progress(&arguments, total_bytes);
    let mut sender = Sender::new(&arguments, client);
    let batch_bytes = usize::try_from(arguments.batch_bytes).unwrap_or(usize::MAX).max(1);
    let linger = Duration::from_millis(arguments.linger_ms);
    let mut batch = Vec::new();
    let mut is_open = true;
    while is_open {
        let deadline = tokio::time::sleep(linger);
        tokio::pin!(deadline);
        while batch.len() < batch_bytes {
            let piece = tokio::select! {
                piece = input.recv() => piece,
                () = &mut deadline, if !batch.is_empty() => break,
            };
            match piece {
                Some(Ok(lines)) => {
                    if batch.is_empty() {
                        deadline.as_mut().reset(Instant::now_plus(linger));
                    }
                    progress.inc(lines.len() as u64);
                    batch.extend_from_slice(&lines);
                }
                Some(Err(why)) => return Err(Failure::failed(why)),
                None => {
                    is_open = false;
                    break;
                }
            }
        }
        for request in split(std::mem::take(&mut batch), batch_bytes) {
            sender.send(request).await?;
        }
    }
    progress.finish_and_clear();
    sender.report(arguments.server.output, &arguments.stream)
}

/// Tokio's clock, asked where its sleep is set.
trait NowPlus {
    fn now_plus(duration: Duration) -> Self;
}

impl NowPlus for Instant {
    fn now_plus(duration: Duration) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a sleep of the client is set anew")]
        let now = Instant::now();
        now + duration
    }
}

/// Cuts whole lines into requests of at most `bytes_max`, unless one line is
/// larger.
fn split(mut lines: Vec<u8>, bytes_max: usize) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    while lines.len() > bytes_max {
        let head = lines.get(..bytes_max).unwrap_or_default();
        let cut = match head.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None => match lines.iter().position(|byte| *byte == b'\n') {
                Some(end) => end + 1,
                None => break,
            },
        };
        let rest = lines.split_off(cut);
        requests.push(std::mem::replace(&mut lines, rest));
    }
    if !lines.is_empty() {
        requests.push(lines);
    }
    requests
}

/// The bytes of all files, if all are plain ones.
fn total_bytes(files: &[PathBuf]) -> Option<u64> {
    if files.is_empty() {
        return None;
    }
    let mut total = 0;
    for file in files {
        #[expect(clippy::disallowed_methods, reason = "a person's own file, for a progress bar")]
        let metadata = std::fs::metadata(file).ok()?;
        total += metadata.is_file().then_some(metadata.len())?;
    }
    Some(total)
}

fn progress(arguments: &AppendArguments, total_bytes: Option<u64>) -> ProgressBar {
    let is_wanted = arguments.server.output == Output::Table
        && std::io::stderr().is_terminal()
        // Lines that are typed are their own progress.
        && !(total_bytes.is_none() && std::io::stdin().is_terminal());
    let bar = match total_bytes {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    if !is_wanted {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = match total_bytes {
        Some(_) => "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        None => "{spinner} {bytes}, {bytes_per_sec}",
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Reads all input and hands on whole lines.
fn read_all(files: &[PathBuf], pieces: &mpsc::Sender<Piece>) {
    let stdin = [PathBuf::from("-")];
    let files = if files.is_empty() { &stdin[..] } else { files };
    for file in files {
        let result = if file == Path::new("-") {
            read_lines(std::io::stdin().lock(), pieces)
        } else {
            #[expect(clippy::disallowed_methods, reason = "a person's own file, read once")]
            let opened = std::fs::File::open(file);
            opened.and_then(|file| read_lines(file, pieces))
        };
        if let Err(error) = result {
            // Where nobody listens any more, the command has failed already.
            let _ = pieces.blocking_send(Err(format!("{}: {error}", file.display())));
            return;
        }
    }
}

fn read_lines(input: impl Read, pieces: &mpsc::Sender<Piece>) -> std::io::Result<()> {
    let mut input = BufReader::with_capacity(PIECE_BYTES, input);
    let mut piece = Vec::new();
    loop {
        let read = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut piece)?;
        let is_end = read == 0;
        if !is_end && !piece.ends_with(b"\n") {
            if read as u64 == LINE_BYTES_MAX {
                return Err(std::io::Error::other("a line is longer than 64 MiB"));
            }
            piece.push(b'\n');
        }
        // A line that waits for more input would never be seen by a follower.
        let is_due = piece.len() >= PIECE_BYTES || !input.buffer().contains(&b'\n');
        if (is_end || is_due)
            && !piece.is_empty()
            && pieces.blocking_send(Ok(std::mem::take(&mut piece))).is_err()
        {
            return Ok(());
        }
        if is_end {
            return Ok(());
        }
    }
}

struct Sender {
    client: Client,
    path: String,
    content_type: &'static str,
    retry: Duration,
    key: String,
    requests: u64,
    records: u64,
    bytes: u64,
    partitions: std::collections::BTreeMap<u64, (u64, u64)>,
}

impl Sender {
    fn new(arguments: &AppendArguments, client: Client) -> Self {
        let mut parameters = Vec::new();
        if let Some(key) = &arguments.key {
            parameters.push(format!("key={}", segment(key)));
        }
        if let Some(path) = &arguments.key_field {
            parameters.push(format!("key_field={}", segment(path)));
        }
        if let Some(partition) = arguments.partition {
            parameters.push(format!("partition={partition}"));
        }
        let query = if parameters.is_empty() {
            String::new()
        } else {
            format!("?{}", parameters.join("&"))
        };
        Self {
            client,
            path: format!("/v1/streams/{}/records{query}", segment(&arguments.stream)),
            content_type: match arguments.format {
                Lines::Lines => "text/plain",
                Lines::Ndjson => "application/x-ndjson",
            },
            retry: Duration::from_secs(arguments.retry_seconds),
            key: uuid_v4(&RealRandom).to_string(),
            requests: 0,
            records: 0,
            bytes: 0,
            partitions: std::collections::BTreeMap::new(),
        }
    }

    async fn send(&mut self, lines: Vec<u8>) -> Result<(), Failure> {
        if lines.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let bytes = lines.len() as u64;
        let body = bytes::Bytes::from(lines);
        let key = format!("{}-{}", self.key, self.requests);
        self.requests += 1;
        let mut waited = Duration::ZERO;
        let mut pause = RETRY_PAUSE;
        let answer = loop {
            let request = self
                .client
                .request(Method::POST, &self.path)
                .header("content-type", self.content_type)
                .header("idempotency-key", &key)
                .body(body.clone());
            let error = match self.client.json(request).await {
                Ok(answer) => break answer,
                Err(error) => error,
            };
            if !error.is_retriable() || waited >= self.retry {
                return Err(self.give_up(error));
            }
            let asked = match &error {
                RequestError::Refused(_, _, Some(after)) => *after,
                _ => pause,
            };
            tokio::time::sleep(asked).await;
            waited += asked;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        };
        self.note(&answer, bytes);
        Ok(())
    }

    /// The failure, with what was appended before it.
    fn give_up(&self, error: RequestError) -> Failure {
        let before = format!("; {} records were appended before", output::count(self.records));
        match error.into() {
            Failure::Failed(why, next) => Failure::Failed(why + &before, next),
            Failure::Unreachable(why) => Failure::Unreachable(why + &before),
            other => other,
        }
    }

    fn note(&mut self, answer: &Value, bytes: u64) {
        self.bytes += bytes;
        let appends = answer.get("appends").and_then(Value::as_array);
        for append in appends.into_iter().flatten() {
            let field = |name| append.get(name).and_then(Value::as_u64).unwrap_or(0);
            let (partition, base, count) =
                (field("partition"), field("base_offset"), field("count"));
            self.records += count;
            let range = self.partitions.entry(partition).or_insert((base, base));
            *range = (range.0.min(base), range.1.max(base + count));
        }
    }

    fn report(&self, form: Output, stream: &str) -> Result<(), Failure> {
        if form == Output::Json {
            let partitions = self.partitions.iter().map(|(partition, (from, to))| {
                json!({ "partition": partition, "first_offset": from, "next_offset": to })
            });
            return output::json(&json!({
                "records": self.records, "bytes": self.bytes, "requests": self.requests,
                "partitions": partitions.collect::<Vec<_>>(),
            }));
        }
        output::line(&format!(
            "appended {} records ({}) to {stream}",
            output::count(self.records),
            output::bytes(self.bytes)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_hold_whole_lines() {
        let check = |lines: &str, bytes_max, expected: &[&str]| {
            let found = split(lines.as_bytes().to_vec(), bytes_max);
            let found: Vec<_> = found.iter().map(|r| std::str::from_utf8(r).unwrap()).collect();
            assert_eq!(found, expected);
        };
        check("a\nb\nc\n", 4, &["a\nb\n", "c\n"]);
        check("a\nb\nc\n", 100, &["a\nb\nc\n"]);
        check("longer\nb\n", 3, &["longer\n", "b\n"]);
        check("longer\n", 3, &["longer\n"]);
        check("", 3, &[]);
    }

    #[test]
    fn input_becomes_whole_lines() {
        let (pieces, mut input) = mpsc::channel(100);
        read_lines(&b"a\n\nb\nlast"[..], &pieces).unwrap();
        drop(pieces);
        let mut all = Vec::new();
        while let Ok(piece) = input.try_recv() {
            let piece = piece.unwrap();
            assert!(piece.ends_with(b"\n"));
            all.extend(piece);
        }
        assert_eq!(all, b"a\n\nb\nlast\n");
    }
}

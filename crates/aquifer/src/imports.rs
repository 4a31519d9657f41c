//! `aquifer import`: objects that the server opens, and files that are sent to
//! it.
//!
//! A file is known by its absolute path, or by the name that it is given, and by
//! its length and time of change: the same file again is not imported twice, and
//! after a failure only what is missing of it. Standard input is known by a name
//! alone; without one each run is another object.

use std::io::{IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use aquifer_env::{RealRandom, tasks, uuid_v4};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::{Body, Method};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::cli::{ImportArguments, Output};
use crate::client::{Client, RequestError, segment};
use crate::failure::Failure;
use crate::jobs::{follow, note_bad_rows, reading_body};
use crate::output;

/// A file is sent in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that are read ahead.
const PIECES_AHEAD_MAX: usize = 4;
/// The most files below the folders that are named.
const FILES_MAX: usize = 100_000;
/// The first pause before a file is sent again; it doubles up to 5 s.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

pub(crate) async fn run(arguments: ImportArguments) -> Result<(), Failure> {
    let (urls, files): (Vec<String>, Vec<String>) =
        arguments.sources.iter().cloned().partition(|source| source.contains("://"));
    if !urls.is_empty() && !files.is_empty() {
        return Err(Failure::with_next(
            "files and addresses are imported in different ways",
            "import them with two commands",
        ));
    }
    if !urls.is_empty() {
        let mut body = reading_body(&arguments.reading);
        body.insert("stream".into(), arguments.stream.clone().into());
        body.insert("urls".into(), urls.into());
        return follow(&arguments.server, "imports", &body, arguments.detach).await;
    }
    let files = local(&files, arguments.name.as_deref())?;
    let client = Client::new(&arguments.server)?;
    let mut totals = Totals::default();
    let bar = progress(&arguments, &files);
    for file in &files {
        let answer = match send(&client, &arguments, file, &bar).await {
            Ok(answer) => answer,
            Err(failure) => return Err(totals.beside(failure)),
        };
        totals.add(&answer, file);
    }
    bar.finish_and_clear();
    totals.report(&arguments)
}

/// Something of this machine that is sent.
#[derive(Debug)]
struct File {
    /// Absent: standard input.
    path: Option<PathBuf>,
    name: String,
    version: String,
    /// Absent: what has no length, such as a pipe.
    bytes: Option<u64>,
}

impl File {
    /// What a pipe has handed on is gone: a second try would miss it.
    const fn can_be_read_again(&self) -> bool {
        self.bytes.is_some()
    }
}

/// The files that are meant, in their order; those of a folder by name.
fn local(sources: &[String], name: Option<&str>) -> Result<Vec<File>, Failure> {
    let mut files = Vec::new();
    for source in sources {
        if source == "-" {
            let name = name.map_or_else(|| uuid_v4(&RealRandom).to_string(), str::to_owned);
            let version = "1".to_owned();
            files.push(File { path: None, name, version, bytes: None });
            continue;
        }
        let path = std::path::absolute(source)?;
        let before = files.len();
        collect(&path, true, &mut files)?;
        if files.len() == before {
            return Err(Failure::failed(format!("{source} holds no file to import")));
        }
    }
    if let Some(name) = name {
        let [file] = &mut files[..] else {
            return Err(Failure::failed("--name names one file, not several"));
        };
        name.clone_into(&mut file.name);
    }
    Ok(files)
}

fn collect(path: &Path, is_named: bool, files: &mut Vec<File>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    #[expect(clippy::disallowed_methods, reason = "a person's own files, looked at once")]
    let metadata = if is_named { std::fs::metadata(path) } else { path.symlink_metadata() };
    let metadata = metadata.map_err(failed)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // In a folder, what begins so is somebody's marker or half written.
    if !is_named && (name.starts_with('.') || name.starts_with('_')) {
        return Ok(());
    }
    if metadata.is_dir() {
        #[expect(clippy::disallowed_methods, reason = "a person's own folder, listed once")]
        let entries = std::fs::read_dir(path).map_err(failed)?;
        let entries: Result<Vec<PathBuf>, _> =
            entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut entries = entries.map_err(failed)?;
        entries.sort();
        return entries.iter().try_for_each(|entry| collect(entry, false, files));
    }
    // A pipe that is named is read as standard input is.
    if !metadata.is_file() && !is_named {
        return Ok(());
    }
    if files.len() >= FILES_MAX {
        return Err(Failure::failed(format!("there are more than {FILES_MAX} files")));
    }
    let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let modified = modified.map_or(0, |since| since.as_nanos());
    files.push(File {
        path: Some(path.to_owned()),
        name: path.to_string_lossy().into_owned(),
        version: format!("{}@{modified}", metadata.len()),
        bytes: metadata.is_file().then_some(metadata.len()),
    });
    Ok(())
}

fn progress(arguments: &ImportArguments, files: &[File]) -> ProgressBar {
    let total: Option<u64> = files.iter().map(|file| file.bytes).sum();
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}, {bytes_per_sec}"),
    };
    if arguments.server.output == Output::Json || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn path_of(arguments: &ImportArguments, file: &File) -> String {
    let mut query = format!("name={}&version={}", segment(&file.name), segment(&file.version));
    for (name, value) in reading_body(&arguments.reading) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        query.push_str(&format!("&{name}={}", segment(&value)));
    }
    format!("/v1/streams/{}/import?{query}", segment(&arguments.stream))
}

/// Sends a file, as often as it takes: what was imported is not imported again.
async fn send(
    client: &Client,
    arguments: &ImportArguments,
    file: &File,
    bar: &ProgressBar,
) -> Result<Value, Failure> {
    let path = path_of(arguments, file);
    let retry = Duration::from_secs(arguments.retry_seconds);
    let (mut waited, mut pause) = (Duration::ZERO, RETRY_PAUSE);
    let from = bar.position();
    loop {
        bar.set_position(from);
        let body = body_of(file, bar)?;
        let request = client
            .request(Method::POST, &path)
            .header("content-type", "application/octet-stream")
            .body(body);
        let error = match client.json(request).await {
            Ok(answer) => {
                bar.set_position(from + file.bytes.unwrap_or_default().max(bar.position() - from));
                return Ok(answer);
            }
            Err(error) => error,
        };
        // The server may not have seen yet that the last try broke off.
        let is_busy = matches!(&error, RequestError::Refused(status, ..) if status.as_u16() == 409);
        let can_retry = (error.is_retriable() || is_busy) && file.can_be_read_again();
        if !can_retry || waited >= retry {
            return Err(error.into());
        }
        let asked = match &error {
            RequestError::Refused(_, _, Some(after)) => *after,
            _ => pause,
        };
        tokio::time::sleep(asked).await;
        waited += asked;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

/// The bytes of a file, read by a thread that ends when nobody wants more.
fn body_of(file: &File, bar: &ProgressBar) -> Result<Body, Failure> {
    let (pieces, received) = mpsc::channel::<std::io::Result<Bytes>>(PIECES_AHEAD_MAX);
    let (path, bar) = (file.path.clone(), bar.clone());
    let _reader = tasks::spawn_thread("import-input", move || {
        let result = match &path {
            Some(path) => {
                #[expect(clippy::disallowed_methods, reason = "a person's own file, read once")]
                let opened = std::fs::File::open(path);
                opened.and_then(|file| read_pieces(file, &pieces, &bar))
            }
            None => read_pieces(std::io::stdin().lock(), &pieces, &bar),
        };
        if let Err(error) = result {
            // Where nobody listens any more, the request has failed already.
            let _ = pieces.blocking_send(Err(error));
        }
    })?;
    let stream = futures::stream::unfold(received, |mut received| async move {
        received.recv().await.map(|piece| (piece, received))
    });
    Ok(Body::wrap_stream(stream))
}

fn read_pieces(
    mut input: impl Read,
    pieces: &mpsc::Sender<std::io::Result<Bytes>>,
    bar: &ProgressBar,
) -> std::io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let bytes = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let piece = Bytes::copy_from_slice(buffer.get(..bytes).unwrap_or_default());
        bar.inc(bytes as u64);
        if pieces.blocking_send(Ok(piece)).is_err() {
            return Ok(());
        }
    }
}

/// What all files came to.
#[derive(Debug, Default)]
struct Totals {
    objects: u64,
    before: u64,
    records: u64,
    bad_rows: u64,
    errors: Vec<Value>,
}

impl Totals {
    fn add(&mut self, answer: &Value, file: &File) {
        let count = |field| answer.get(field).and_then(Value::as_u64).unwrap_or(0);
        if answer.get("before").and_then(Value::as_bool) == Some(true) {
            self.before += 1;
            return;
        }
        self.objects += 1;
        self.records += count("records");
        self.bad_rows += count("bad_rows");
        let errors = answer.get("errors").and_then(Value::as_array);
        for error in errors.into_iter().flatten() {
            let mut error: Map<String, Value> = error.as_object().cloned().unwrap_or_default();
            error.insert("object".into(), file.name.clone().into());
            self.errors.push(error.into());
        }
    }

    /// A failure, with what was imported before.
    fn beside(&self, failure: Failure) -> Failure {
        if self.objects + self.before == 0 {
            return failure;
        }
        let before = format!("; {} files were imported before", self.objects + self.before);
        match failure {
            Failure::Failed(why, next) => Failure::Failed(why + &before, next),
            Failure::Unreachable(why) => Failure::Unreachable(why + &before),
            other => other,
        }
    }

    fn report(self, arguments: &ImportArguments) -> Result<(), Failure> {
        let Self { objects, before, records, bad_rows, errors } = self;
        let answer = json!({
            "objects": objects, "before": before, "records": records,
            "bad_rows": bad_rows, "errors": errors,
        });
        if arguments.server.output == Output::Json {
            return output::json(&answer);
        }
        let mut line = format!(
            "imported {} records of {} files into {}",
            output::count(records),
            output::count(objects),
            arguments.stream
        );
        if before > 0 {
            line.push_str(&format!("; {} had been imported before", output::count(before)));
        }
        output::line(&line)?;
        note_bad_rows(bad_rows, &answer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "tests use real files")]

    use super::*;

    #[test]
    fn files_are_known_by_path_and_version() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["b.json", "a.csv", "_SUCCESS", ".hidden"] {
            std::fs::write(parent.path().join(name), "1").unwrap();
        }
        std::fs::create_dir(parent.path().join("c")).unwrap();
        std::fs::write(parent.path().join("c/d.json"), "22").unwrap();
        let source = parent.path().to_str().unwrap().to_owned();
        let files = local(std::slice::from_ref(&source), None).unwrap();
        let names: Vec<_> =
            files.iter().map(|file| file.name.trim_start_matches(&source)).collect();
        assert_eq!(names, ["/a.csv", "/b.json", "/c/d.json"]);
        assert!(files[2].version.starts_with("2@"));
        assert!(local(std::slice::from_ref(&source), Some("x")).is_err());
        let one = local(&[format!("{source}/_SUCCESS")], Some("x")).unwrap();
        assert_eq!(one[0].name, "x");
        assert!(local(&["/no/such/file".to_owned()], None).is_err());
        let stdin = local(&["-".to_owned()], Some("x")).unwrap();
        assert_eq!((stdin[0].name.as_str(), stdin[0].path.is_some()), ("x", false));
        // What is named, and is no regular file, is read once.
        let device = local(&["/dev/null".to_owned()], None).unwrap();
        let again = [&one[0], &stdin[0], &device[0]].map(File::can_be_read_again);
        assert_eq!((device[0].path.is_some(), again), (true, [true, false, false]));
    }
}

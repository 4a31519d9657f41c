//! A job from its beginning, or from where it stood, to its end.
//!
//! What fails for a while is tried again with growing pauses; what cannot
//! succeed ends an import or an export, and lets a watch rest until somebody
//! resumes it; but for objects that cannot be read to their end, which are
//! named, and left until they change.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::source::{SourceObject, SourceStore};
use aquifer_stream::Operation;

use crate::address::{identity, open_source};
use crate::import::{Content, Input, Target, Watcher, import};
use crate::imported::Progress;
use crate::job::{BadRows, BrokenObject, Job, JobDocument, JobState, Work};
use crate::objects::Shared;
use crate::rows::BadRow;
use crate::spec::{ImportSpec, OnError, is_wanted};
use crate::{Error, export};

/// After so many objects of a list others get their turn.
const LISTED_AT_ONCE: usize = 1024;

/// Runs a job until it ends or is stopped.
pub(crate) async fn run(shared: Arc<Shared>, job: Arc<Job>) {
    let mut stopping = job.stopping.subscribe();
    let running = shared.metrics.running.clone();
    running.inc();
    let stopped = async {
        let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
    };
    tokio::select! {
        () = attempts(&shared, &job) => {}
        () = stopped => {}
    }
    running.dec();
    settle_gauge(&shared, &job, 0);
}

async fn attempts(shared: &Arc<Shared>, job: &Job) {
    let mut attempt = 0;
    let mut before = 0;
    loop {
        let Ok(document) = job.document() else { return };
        if document.work.is_watch() && document.state != JobState::Running {
            job.resumed.notified().await;
            continue;
        }
        let outcome = once(shared, job, &document).await;
        // Whatever came further is not the same failure again.
        let done = progress_of(job);
        if done != before {
            (attempt, before) = (0, done);
        }
        let error = match outcome {
            Ok(()) if document.work.is_watch() => {
                attempt = 0;
                let pause = Duration::from_millis(shared.options.watch_poll_ms);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = job.resumed.notified() => {}
                }
                continue;
            }
            Ok(()) => return end(shared, job, JobState::Done, None).await,
            Err(Error::Stopped) => return,
            Err(error) => error,
        };
        shared.metrics.failures.inc();
        tracing::warn!(id = job.key.name, %error, "an import or export failed");
        job.live.lock().last_error = Some(error.to_string());
        let is_last = attempt >= shared.options.retries_max && !document.work.is_watch();
        if !error.is_retriable() || is_last {
            end(shared, job, JobState::Failed, Some(error.to_string())).await;
            if document.work.is_watch() {
                continue;
            }
            return;
        }
        let pause = shared.options.retry_ms_min.saturating_mul(1 << attempt.min(20));
        let pause = Duration::from_millis(pause.min(shared.options.retry_ms_max));
        attempt += 1;
        tokio::time::sleep(error.retry_after().unwrap_or(pause).max(pause)).await;
    }
}

fn progress_of(job: &Job) -> u64 {
    let rows = job.live.lock().rows;
    let done = job.document().map_or(0, |document| document.records + document.objects);
    done.wrapping_add(rows)
}

/// Notes how a job ended. Where that cannot be stored it is tried again: a
/// restart would else begin anew.
async fn end(shared: &Arc<Shared>, job: &Job, state: JobState, failure: Option<String>) {
    let now = shared.clock.now_ms();
    loop {
        let changed = |document: &mut JobDocument| {
            document.state = state;
            document.failure.clone_from(&failure);
            document.ended = (!document.work.is_watch()).then_some(now);
        };
        match job.change(changed).await {
            Ok(()) | Err(Error::Stopped) => break,
            Err(error) => {
                tracing::warn!(id = job.key.name, %error, "the end of a job cannot be stored yet");
                tokio::time::sleep(Duration::from_millis(shared.options.retry_ms_max)).await;
            }
        }
    }
    let mut live = job.live.lock();
    (live.object, live.waiting) = (None, None);
}

async fn once(shared: &Arc<Shared>, job: &Job, document: &JobDocument) -> Result<(), Error> {
    match &document.work {
        Work::Import(spec) | Work::Watch(spec) => look(shared, job, spec).await,
        Work::Export(spec) => export::run(shared, job, spec).await,
    }
}

/// What a look found.
#[derive(Default)]
struct Found {
    /// All of it.
    count: u64,
    /// What is to be imported.
    inputs: Vec<(SourceStore, SourceObject)>,
    /// What is known not to be readable to its end.
    broken: BTreeMap<String, BrokenObject>,
}

/// Imports what is there and not imported yet. An object that cannot be read to
/// its end is no reason to leave others: a watch, and an import that leaves out
/// bad rows, go on with the next, and name it at their end.
async fn look(shared: &Arc<Shared>, job: &Job, spec: &ImportSpec) -> Result<(), Error> {
    let is_watch = job.document()?.work.is_watch();
    let target = Target::new(shared, &job.key.tenant, Arc::new(spec.clone()))?;
    let Found { count, inputs, broken } = find(shared, job, spec, &target, is_watch).await?;
    {
        let mut live = job.live.lock();
        (live.found, live.looked) = (count, Some(shared.clock.now_ms()));
    }
    let mut behind = (inputs.len() + broken.len()) as u64;
    settle_gauge(shared, job, behind);
    *job.broken.lock() = broken;
    let goes_on = is_watch || spec.on_error == OnError::Skip;
    let mut stopping = job.stopping.subscribe();
    for (store, object) in inputs {
        if job.document()?.state != JobState::Running {
            return Ok(());
        }
        // The semaphore is never closed.
        let _permit = shared.running.acquire().await;
        let input = Input {
            url: object.url.clone(),
            name: object.name.clone(),
            version: object.version.clone(),
            content: Content::Source(store, object),
        };
        let (url, version) = (input.url.clone(), input.version.clone());
        {
            let mut live = job.live.lock();
            (live.object, live.rows) = (Some(url.clone()), 0);
        }
        let watcher = Watching { job, bad: BadRows::new(&shared.options) };
        let imported = import(shared, &target, input, &watcher, &mut stopping).await;
        job.live.lock().object = None;
        match imported {
            Ok(_) => behind -= 1,
            Err(error @ Error::Broken { .. }) if goes_on => {
                tracing::warn!(id = job.key.name, %error, "an object cannot be imported whole");
                // What fails as a whole is counted where that is found.
                shared.metrics.failures.inc_by(u64::from(is_watch));
                job.broken.lock().insert(url, BrokenObject { version, error });
            }
            Err(error) => return Err(error),
        }
        settle_gauge(shared, job, behind);
    }
    let first = job.broken.lock().values().next().map(|broken| broken.error.clone());
    if is_watch {
        job.live.lock().last_error = first.map(|error| error.to_string());
        return Ok(());
    }
    first.map_or(Ok(()), Err)
}

/// Lists what the addresses name.
async fn find(
    shared: &Shared,
    job: &Job,
    spec: &ImportSpec,
    target: &Target,
    is_watch: bool,
) -> Result<Found, Error> {
    let limit = shared.options.listed_max;
    let mut found = Found::default();
    let mut seen = HashSet::new();
    for url in spec.urls.iter().filter(|url| seen.insert(url.as_str())) {
        let store = open_source(url, &shared.options)?;
        let objects = match store.list(limit).await.map_err(Error::from) {
            Ok(objects) => objects,
            // What a watch waits for may be yet to come.
            Err(error) if is_watch && error.kind() == aquifer_types::ErrorKind::NotFound => {
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        // What stands behind `?` of a web server's address is no name.
        let is_folder = !url.starts_with("http")
            && (objects.len() > 1
                || objects.iter().any(|object| !url.ends_with(last_part(&object.url))));
        let settled = shared.clock.now_ms() - shared.options.watch_settle_ms as i64;
        for (place, mut object) in objects.into_iter().enumerate() {
            if place % LISTED_AT_ONCE == LISTED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let is_young = is_watch && url.starts_with("file:") && object.modified_ms > settled;
            if (is_folder && !is_wanted(&object.name)) || is_young {
                continue;
            }
            found.count += 1;
            object.url = identity(store.url(), &object.url);
            if target.key(&object.url).is_done(&shared.store, &object.version) {
                continue;
            }
            if found.inputs.len() + found.broken.len() >= limit {
                return Err(Error::Limit {
                    what: "the objects of one import",
                    limit: limit as u64,
                    limit_name: "objects.listed_max",
                });
            }
            let known = job.broken.lock().get(&object.url).cloned();
            match known.filter(|broken| broken.version == object.version) {
                Some(broken) => {
                    found.broken.insert(object.url, broken);
                }
                None => found.inputs.push((store.clone(), object)),
            }
        }
    }
    Ok(found)
}

fn last_part(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// Counts what a job is behind, in it and over all of them.
fn settle_gauge(shared: &Shared, job: &Job, behind: u64) {
    let mut live = job.live.lock();
    let before = std::mem::replace(&mut live.behind, behind);
    let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    shared.metrics.behind.inc_by(gauge(behind) - gauge(before));
}

/// Keeps a job's status, and counts each object in it as a part of its end.
struct Watching<'a> {
    job: &'a Job,
    bad: BadRows,
}

impl Watcher for Watching<'_> {
    fn at(&self, progress: &Progress, waiting: Option<&str>) {
        let mut live = self.job.live.lock();
        live.rows = progress.rows;
        live.waiting = waiting.map(str::to_owned);
    }

    fn bad(&self, url: &str, rows: &[BadRow]) {
        self.bad.note(url, rows);
    }

    fn finishing(&self, progress: &Progress) -> Result<Vec<Operation>, Error> {
        let change = |document: &mut JobDocument| {
            document.objects += 1;
            document.records += progress.records;
            document.bytes += progress.bytes;
            document.bad_rows += progress.bad;
            self.bad.name(&mut document.errors);
        };
        Ok(vec![self.job.changing(change)?])
    }
}

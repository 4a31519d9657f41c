//! Scenario `query_isolation`: whatever is asked, appends are taken.
//!
//! Records are appended at a steady rate while questions run that want all there
//! is of processor, memory, disk and time, in a control group that has little
//! memory, where the machine allows one. No append fails, each question is
//! answered or refused, the server stays, and the next question works. Then the
//! engine is killed in the middle of a question, and at last the server: it
//! leaves no engine behind.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::e2e::client::{Client, Outcome};
use crate::e2e::questions::{self, Answered};
use crate::e2e::server::Server;
use crate::e2e::{Context, eventually};
use crate::steps::Report;

/// Records that the questions are about.
const RECORDS: usize = 200_000;
const RECORDS_PER_APPEND: usize = 5_000;
/// The pace of the appends.
const APPEND_EVERY: Duration = Duration::from_millis(10);
/// How long the appends are watched with nothing else to do.
const QUIET: Duration = Duration::from_secs(3);
/// What server and engine may take together. The server holds its caches, and
/// the engine is to run into the wall.
const MEMORY_BYTES: u64 = 700 << 20;
/// A question is over within its time limit and this.
const OVERDUE_MAX: Duration = Duration::from_secs(30);
/// The limit on a question's time.
const TIME_MS_MAX: u64 = 8_000;
/// An append that takes longer is not one that goes on.
const APPEND_MAX: Duration = Duration::from_secs(5);
const KILLED_MAX: Duration = Duration::from_secs(60);

/// Clients that ask beside each other.
const ASKERS: usize = 3;

fn hostile() -> Vec<String> {
    let ors = (0..10_000).map(|at| format!("_offset = {at}")).collect::<Vec<_>>().join(" OR ");
    let deep = format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000));
    let minus = format!("SELECT {}1", "- ".repeat(20_000));
    let long = format!("SELECT '{}'", "x".repeat(900_000));
    let fixed = [
        "SELECT count(*) FROM s a CROSS JOIN s b CROSS JOIN s c WHERE a._offset + b._offset + c._offset < 0",
        "SELECT count(*) FROM s a JOIN s b ON a._value <> b._value",
        "SELECT a._value, b._value FROM s a, s b ORDER BY 1 DESC, 2",
        "SELECT * FROM s ORDER BY _value DESC, _offset",
        "SELECT _value, count(*) FROM s GROUP BY _value ORDER BY 2 DESC, 1 LIMIT 5",
        "SELECT a._value, b._offset, count(*) FROM s a CROSS JOIN s b GROUP BY 1, 2 LIMIT 5",
        "SELECT count(*) FROM s WHERE regexp_like(_value, '(x+x+)+y|(a|aa)+$|(.*)*z')",
        "SELECT count(*) FROM s WHERE regexp_like(_value, '(((x{1,200}){1,200}){1,200})')",
        "SELECT sum(value) FROM generate_series(1, 1000000000)",
        "SELECT * FROM generate_series(1, 1000000000)",
        "SELECT count(*) FROM generate_series(1, 10000000) a CROSS JOIN generate_series(1, 10000000) b",
        "SELECT length(repeat('x', 1000000000))",
        "SELECT repeat(_value, 1000000) FROM s",
        "SELECT array_agg(a._value) FROM s a CROSS JOIN (SELECT * FROM s LIMIT 1000) b",
        "SELECT string_agg(a._value, ',') FROM s a CROSS JOIN (SELECT * FROM s LIMIT 1000) b",
        "SELECT array_agg(DISTINCT _value || CAST(v.value AS VARCHAR)) FROM s CROSS JOIN generate_series(1, 1000) v",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        "SELECT row_number() OVER (PARTITION BY a._value ORDER BY b._value) FROM s a CROSS JOIN s b",
    ];
    let mut all: Vec<String> = fixed.map(str::to_owned).into();
    all.extend([format!("SELECT count(*) FROM s WHERE {ors}"), deep, minus, long]);
    all
}

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("query_isolation")?;
    let time = format!("query.time_ms_max={TIME_MS_MAX}");
    let mut options = context.options(directory.path()).with_settings(&[
        &time,
        "query.memory_bytes_max=134217728",
        "query.question_memory_bytes_max=134217728",
        "query.spill_bytes_max=268435456",
        "query.questions_max=3",
        "query.rows_max=2000000",
        "query.answer_bytes_max=67108864",
        "store.tail_cache_bytes_max=16777216",
        "store.chunk_cache_bytes_max=16777216",
        "store.chunk_grace_ms=60000",
    ]);
    let group = MemoryGroup::new(MEMORY_BYTES);
    if let Ok(group) = &group {
        let enter = group.enter();
        options = options.with_wrapper(&["sh", "-c", &enter]);
    }
    let mut server = Server::start(&options)?;
    let client = server.client();
    fill(&client)?;
    let quiet = Appends::during(&client, || {
        std::thread::sleep(QUIET);
        Ok(())
    })?;
    let (url, engine_gone) = (server.url().to_owned(), AtomicBool::new(false));
    let mut counts = Counts::default();
    let loaded = Appends::during(&client, || {
        counts = ask_all(&url, context.count(1, 4))?;
        kill_in_the_middle(&url, server.id())?;
        engine_gone.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    ensure!(engine_gone.load(Ordering::Relaxed) && !server.has_ended()?, "{}", server.log_tail());
    let rows = questions::rows(server.url(), "SELECT count(*) AS n FROM steady")?;
    let found = rows.first().map(|row| questions::number(row, "n")).transpose()?;
    let expected = (quiet.latencies.len() + loaded.latencies.len()) as i64;
    ensure!(found == Some(expected), "{expected} appends of one record, found {found:?}");
    let leftover = end_with_the_server(server)?;
    let report = Report::passed(format!(
        "{} of {} hostile questions answered, the rest refused; {} appends, p99 {:.1} ms alone, \
         {:.1} ms beside them; engine {leftover} ended with its server",
        counts.answered,
        counts.asked,
        loaded.latencies.len(),
        quiet.percentile(99),
        loaded.percentile(99),
    ));
    Ok(match group {
        Ok(_) => report,
        Err(why) => report.with_gap(format!("no control group with little memory: {why:#}")),
    })
}

fn fill(client: &Client) -> Result<()> {
    client.create_stream("steady", 1, json!({}))?;
    client.create_stream("s", 2, json!({ "chunk_max_age_ms": 1_000 }))?;
    for from in (0..RECORDS).step_by(RECORDS_PER_APPEND) {
        let lines: Vec<String> = (from..from + RECORDS_PER_APPEND)
            .map(|at| {
                let text = "x".repeat(at % 97);
                json!({ "id": at, "user": format!("user{}", at % 1_013), "text": text }).to_string()
            })
            .collect();
        let partition = (from / RECORDS_PER_APPEND % 2) as u32;
        match client.append("s", partition, &lines) {
            Outcome::Acked { .. } => {}
            other => bail!("{other:?}"),
        }
    }
    Ok(())
}

/// Appends one record after the other at a fixed pace while something else
/// happens.
struct Appends {
    latencies: Vec<Duration>,
}

impl Appends {
    fn during(client: &Client, during: impl FnOnce() -> Result<()>) -> Result<Self> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let appending = scope.spawn(|| append_steadily(client, &stop));
            let result = during();
            stop.store(true, Ordering::Relaxed);
            let latencies = appending.join().map_err(|_| anyhow::anyhow!("it panicked"))?;
            result?;
            Ok(Self { latencies: latencies? })
        })
    }

    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// On a clock of its own: an append that is late does not put the next one off.
fn append_steadily(client: &Client, stop: &AtomicBool) -> Result<Vec<Duration>> {
    let started = Instant::now();
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let due = APPEND_EVERY * latencies.len() as u32;
        std::thread::sleep(due.saturating_sub(started.elapsed()));
        let asked = started.elapsed().max(due);
        let line = format!("{{\"at\":{}}}", latencies.len());
        match client.append("steady", 0, &[line]) {
            Outcome::Acked { .. } => {}
            other => bail!("an append failed while questions ran: {other:?}"),
        }
        let took = started.elapsed() - asked;
        ensure!(took < APPEND_MAX, "an append took {took:?} while questions ran");
        latencies.push(took);
    }
    Ok(latencies)
}

#[derive(Default)]
struct Counts {
    asked: usize,
    answered: usize,
}

/// Several clients ask all of it, each beginning elsewhere.
fn ask_all(url: &str, rounds: u64) -> Result<Counts> {
    let questions = hostile();
    let ask = |asker: usize| -> Result<Counts> {
        let mut counts = Counts::default();
        for round in 0..rounds as usize {
            for at in 0..questions.len() {
                let at = (at + asker * 7 + round * 3) % questions.len();
                counts.asked += 1;
                counts.answered += usize::from(is_answered(url, &questions[at])?);
            }
        }
        Ok(counts)
    };
    let all = std::thread::scope(|scope| {
        let ask = &ask;
        let askers: Vec<_> = (0..ASKERS).map(|asker| scope.spawn(move || ask(asker))).collect();
        let join = |asker: std::thread::ScopedJoinHandle<'_, Result<Counts>>| {
            asker.join().map_err(|_| anyhow::anyhow!("a client panicked"))?
        };
        askers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    // Whatever that did to the engine: it is there again.
    eventually(KILLED_MAX, || works(url))?;
    let sum = |of: fn(&Counts) -> usize| all.iter().map(of).sum();
    Ok(Counts { asked: sum(|counts| counts.asked), answered: sum(|counts| counts.answered) })
}

/// Whether it was answered; it may be refused or broken off, but it has to end.
fn is_answered(url: &str, question: &str) -> Result<bool> {
    let asked = Instant::now();
    let shown: String = question.chars().take(100).collect();
    let answer = questions::ask(url, question).with_context(|| shown.clone())?;
    let took = asked.elapsed();
    // It may have waited for its turn as long as that one ran.
    let limit = Duration::from_millis(3 * TIME_MS_MAX) + OVERDUE_MAX;
    ensure!(took < limit, "{shown} took {took:?}");
    match answer {
        Answered::Rows(_) => Ok(true),
        // As a client notices it: by an error of its own.
        Answered::BrokenOff(why) => {
            ensure!(!why.is_empty(), "{shown} broke off without an error");
            Ok(false)
        }
        Answered::Refused { status, problem } => {
            ensure!(status != 500, "{shown} is answered with a bug: {problem}");
            Ok(false)
        }
    }
}

fn works(url: &str) -> Result<()> {
    let rows = questions::rows(url, "SELECT count(*) AS n FROM s")?;
    let found = rows.first().map(|row| questions::number(row, "n")).transpose()?;
    ensure!(found == Some(RECORDS as i64), "{found:?} of {RECORDS}");
    Ok(())
}

/// What is only counted is known from statistics.
const LONG: &str =
    "SELECT sum(a._offset + b._offset + c._offset) FROM s a CROSS JOIN s b CROSS JOIN s c";

/// The question under way is asked again of another engine, where its time runs
/// out, or says what happened; the next one is answered.
fn kill_in_the_middle(url: &str, server: u32) -> Result<()> {
    let engine = questions::engine_of(server)?.context("no engine runs")?;
    let answer = std::thread::scope(|scope| {
        let asking = scope.spawn(|| questions::ask(url, LONG));
        let killed = until_it_works(engine).and_then(|()| kill(engine));
        let answer = asking.join().map_err(|_| anyhow::anyhow!("it panicked"))?;
        killed.and(answer)
    })?;
    let is_told = matches!(answer.code(), Some("engine-killed" | "query-time"));
    ensure!(is_told || matches!(answer, Answered::BrokenOff(_)), "{answer:?}");
    works(url)?;
    let next = questions::engine_of(server)?.context("no engine was started")?;
    ensure!(next != engine, "the engine {engine} answers after its death");
    Ok(())
}

/// Waits until a process has used half a second of processor more.
fn until_it_works(process: u32) -> Result<()> {
    const TICKS: u64 = 50;
    let before = questions::ticks_of(process)?;
    eventually(KILLED_MAX, || {
        ensure!(questions::ticks_of(process)? >= before + TICKS, "it does nothing");
        Ok(())
    })
}

fn kill(process: u32) -> Result<()> {
    let id = i32::try_from(process).ok().and_then(Pid::from_raw).context("a process id")?;
    kill_process(id, Signal::KILL).with_context(|| format!("cannot kill {process}"))
}

/// Kills the server while a question runs; the engine, which is gone soon.
fn end_with_the_server(server: Server) -> Result<u32> {
    works(server.url())?;
    let engine = questions::engine_of(server.id())?.context("no engine runs")?;
    let url = server.url().to_owned();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| questions::ask(&url, LONG));
        until_it_works(engine)?;
        server.kill9()?;
        eventually(KILLED_MAX, || {
            let is_there = Path::new(&format!("/proc/{engine}/statm")).exists()
                && !std::fs::read_to_string(format!("/proc/{engine}/statm"))?.starts_with("0 ");
            ensure!(!is_there, "the engine {engine} outlives its server");
            Ok(())
        })?;
        // Whatever the client saw, it was no answer.
        let answer = asking.join().map_err(|_| anyhow::anyhow!("it panicked"))?;
        ensure!(!matches!(answer, Ok(Answered::Rows(_))), "{answer:?}");
        Ok(engine)
    })
}

/// A control group of processes that may take so much memory together; gone
/// when it is dropped.
struct MemoryGroup {
    directory: PathBuf,
}

impl MemoryGroup {
    fn new(bytes: u64) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "making one needs root");
        let name = format!("aquifer-{}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/memory");
        let (parent, limit) = match first.join("memory.limit_in_bytes").exists() {
            true => (first, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let directory = parent.join(name);
        std::fs::create_dir(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let group = Self { directory };
        let limit = group.directory.join(limit);
        std::fs::write(&limit, bytes.to_string())
            .with_context(|| format!("cannot write {}", limit.display()))?;
        Ok(group)
    }

    /// A shell's command that enters it and becomes its first argument.
    fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.directory.display())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It can be removed when the last process is.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.directory).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

//! Scenario `sql_cut`: a statement reads one cut, whatever happens meanwhile.
//!
//! Records are appended, tiered and compacted all the time. Whatever was
//! acknowledged before a question is in its answer; no partition has a gap or a
//! record twice; of an append over several partitions there is all or nothing;
//! and, where Python is, of a transaction over two streams too.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::e2e::Context;
use crate::e2e::client::{Client, Outcome};
use crate::e2e::questions;
use crate::e2e::server::Server;
use crate::steps::Report;

/// How long it goes on, in seconds.
const SECONDS: (u64, u64) = (10, 60);
const PARTITIONS: u32 = 3;
/// Records in one append: 1 to this many.
const BATCH_RECORDS_MAX: u64 = 40;

/// Writers rest this long between appends: the engine has the lowest claim on the
/// processor, and gets little where others never rest.
const REST: Duration = Duration::from_millis(5);

/// What each writer was told last: so many records are there at least.
type Acked = [AtomicU64; PARTITIONS as usize];

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("sql_cut")?;
    let options = context.options(directory.path());
    let server = Server::start(&options)?;
    let client = server.client();
    let config = json!({ "chunk_max_age_ms": 100, "chunk_target_bytes": 65_536 });
    client.create_stream("plain", PARTITIONS, config.clone())?;
    client.create_stream("wide", PARTITIONS, config.clone())?;
    client.create_stream("left", 1, config.clone())?;
    client.create_stream("right", 1, config)?;
    let (stop, acked) = (AtomicBool::new(false), Acked::default());
    let kafka = server.kafka()?;
    let python = context.python();
    let transactions = python.as_ref().map(|python| Transactions::start(python, &kafka));
    let transactions = transactions.ok().transpose()?;
    let limit = Duration::from_secs(context.count(SECONDS.0, SECONDS.1));
    let asked = std::thread::scope(|scope| {
        let mut writers: Vec<_> = (0..PARTITIONS)
            .map(|partition| {
                let (client, stop, acked) = (client.clone(), &stop, &acked);
                scope.spawn(move || write(&client, partition, acked, stop))
            })
            .collect();
        writers.push(scope.spawn(|| write_wide(&client, &stop)));
        let asked = ask(server.url(), &acked, limit, transactions.is_some());
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        asked
    })?;
    let mut pairs = 0;
    if let Some(transactions) = transactions {
        transactions.stop()?;
        pairs = check_pairs(server.url())?;
        ensure!(pairs > 0, "no transaction was committed");
    }
    let chunks = client.partitions("plain")?.iter().map(|of| of.chunks).sum::<u64>();
    ensure!(chunks > 0, "nothing was tiered meanwhile");
    server.stop()?;
    let report = Report::passed(format!(
        "{asked} rounds of questions beside appends, tiering and compaction; {pairs} transactions \
         over two streams"
    ));
    Ok(match python {
        Ok(_) => report,
        Err(why) => report.with_gap(format!("no transactions over two streams: {why}")),
    })
}

fn write(client: &Client, partition: u32, acked: &Acked, stop: &AtomicBool) -> Result<()> {
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        let count = 1 + (next * 7 + u64::from(partition)) % BATCH_RECORDS_MAX;
        let lines: Vec<String> = (next..next + count)
            .map(|n| json!({ "n": n, "pad": "y".repeat(60) }).to_string())
            .collect();
        match client.append("plain", partition, &lines) {
            Outcome::Acked { base_offset, count } => next = base_offset + count,
            other => bail!("{other:?}"),
        }
        acked[partition as usize].store(next, Ordering::SeqCst);
        std::thread::sleep(REST);
    }
    Ok(())
}

/// One record into each partition, in one commit.
fn write_wide(client: &Client, stop: &AtomicBool) -> Result<()> {
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let records: Vec<Value> = (0..PARTITIONS)
            .map(|partition| json!({ "partition": partition, "value": number.to_string() }))
            .collect();
        client.append_json("wide", &json!({ "records": records }))?;
        number += 1;
        std::thread::sleep(REST);
    }
    Ok(())
}

fn ask(url: &str, acked: &Acked, limit: Duration, has_pairs: bool) -> Result<u64> {
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < limit {
        let before: Vec<u64> = acked.iter().map(|of| of.load(Ordering::SeqCst)).collect();
        check_plain(url, &before)?;
        check_wide(url)?;
        if has_pairs {
            check_pairs(url)?;
        }
        rounds += 1;
    }
    Ok(rounds)
}

/// No gap, nothing twice, and everything that was acknowledged.
fn check_plain(url: &str, acked: &[u64]) -> Result<()> {
    let rows = questions::rows(
        url,
        "SELECT _partition AS p, count(*) AS n, count(DISTINCT _offset) AS d, \
         min(_offset) AS low, max(_offset) AS high FROM plain GROUP BY _partition",
    )?;
    let mut found = vec![0; acked.len()];
    for row in &rows {
        let of = |column| questions::number(row, column);
        let (n, low, high) = (of("n")?, of("low")?, of("high")?);
        ensure!(low == 0 && n == high - low + 1 && of("d")? == n, "a gap or a duplicate: {row}");
        let slot = found.get_mut(usize::try_from(of("p")?)?);
        *slot.with_context(|| format!("another partition: {row}"))? = n as u64;
    }
    for (partition, (found, acked)) in found.iter().zip(acked).enumerate() {
        ensure!(found >= acked, "partition {partition}: {acked} acknowledged, {found} found");
    }
    // The records themselves, over the seam between chunks and tail.
    let rows = questions::rows(
        url,
        "SELECT count(*) AS n FROM plain WHERE CAST(_value->>'n' AS BIGINT) <> _offset",
    )?;
    ensure!(
        rows.first().map(|row| questions::number(row, "n")).transpose()? == Some(0),
        "{rows:?}"
    );
    Ok(())
}

/// The same number of records in each partition.
fn check_wide(url: &str) -> Result<()> {
    let rows =
        questions::rows(url, "SELECT _partition, count(*) AS n FROM wide GROUP BY _partition")?;
    let counts: Vec<i64> =
        rows.iter().map(|row| questions::number(row, "n")).collect::<Result<_>>()?;
    let is_whole = rows.is_empty()
        || counts.len() == PARTITIONS as usize && counts.windows(2).all(|two| two[0] == two[1]);
    ensure!(is_whole, "part of a commit: {rows:?}");
    Ok(())
}

/// As many records in one stream as in the other.
fn check_pairs(url: &str) -> Result<i64> {
    let rows = questions::rows(
        url,
        "SELECT l.n AS l, r.n AS r FROM (SELECT count(*) AS n FROM \"left\") l \
         CROSS JOIN (SELECT count(*) AS n FROM \"right\") r",
    )?;
    let row = rows.first().context("a row")?;
    let (left, right) = (questions::number(row, "l")?, questions::number(row, "r")?);
    ensure!(left == right, "part of a transaction: {row}");
    Ok(left)
}

/// A producer that writes pairs, and aborts some of them.
struct Transactions {
    child: std::process::Child,
}

impl Transactions {
    fn start(python: &std::path::Path, kafka: &str) -> Result<Self> {
        let mut child = Command::new(python)
            .args(["-", kafka])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start Python")?;
        // It reads its program, and then that its input has ended.
        if let Some(mut input) = child.stdin.take() {
            input.write_all(include_bytes!("sql_cut.py"))?;
        }
        Ok(Self { child })
    }

    fn stop(mut self) -> Result<()> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the producer ended with {status}");
        Ok(())
    }
}

impl Drop for Transactions {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Writers and readers that keep a server busy and note what they are told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::e2e::client::{Client, Outcome};
use crate::e2e::history::{Attempt, History, Id, Seen};

/// Records in one append are 1 to this many.
const BATCH_RECORDS_MAX: u64 = 8;

/// After a refusal a writer waits this long, so that a full disk is not met
/// with a storm.
const REFUSED_PAUSE: Duration = Duration::from_millis(2);

/// What the writers go on from, over restarts.
#[derive(Debug)]
pub(crate) struct Writers {
    stream: String,
    partitions: u32,
    /// The next sequence of each writer.
    next: Vec<u64>,
}

impl Writers {
    pub(crate) fn new(stream: &str, partitions: u32, writers: u32) -> Self {
        Self { stream: stream.to_owned(), partitions, next: vec![0; writers as usize] }
    }

    /// Lets all writers and one reader work in closed loops while `during`
    /// runs; they end when it returns, or where no answer comes.
    /// Whatever they were told goes into `history`.
    pub(crate) fn run<T>(
        &mut self,
        client: &Client,
        random: &mut StdRng,
        history: &mut History,
        during: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let stop = AtomicBool::new(false);
        let (stream, partitions) = (self.stream.as_str(), self.partitions);
        let starts: Vec<u64> = (0..partitions).map(|number| history.checked_to(number)).collect();
        let (result, attempts, seen) = std::thread::scope(|scope| {
            let mut writers = Vec::new();
            for (writer, next) in (0u32..).zip(&mut self.next) {
                let (client, mut random) = (client.clone(), child_of(random));
                let stop = &stop;
                writers.push(scope.spawn(move || {
                    write(&client, stream, partitions, writer, next, &mut random, stop)
                }));
            }
            let reader = {
                let (client, mut random, stop) = (client.clone(), child_of(random), &stop);
                scope.spawn(move || follow(&client, stream, starts, &mut random, stop))
            };
            let result = during();
            stop.store(true, Ordering::Relaxed);
            let attempts: Vec<Attempt> =
                writers.into_iter().flat_map(|writer| writer.join().unwrap_or_default()).collect();
            (result, attempts, reader.join().unwrap_or_default())
        });
        history.record(attempts, seen);
        result
    }
}

fn child_of(random: &mut StdRng) -> StdRng {
    use rand::SeedableRng;
    StdRng::seed_from_u64(random.random())
}

fn write(
    client: &Client,
    stream: &str,
    partitions: u32,
    writer: u32,
    next: &mut u64,
    random: &mut StdRng,
    stop: &AtomicBool,
) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let first = Id { writer, sequence: *next };
        let count = random.random_range(1..=BATCH_RECORDS_MAX);
        let partition = random.random_range(0..partitions);
        *next += count;
        let lines: Vec<String> =
            (first.sequence..*next).map(|sequence| Id { writer, sequence }.line()).collect();
        let outcome = client.append(stream, partition, &lines);
        let (lost, refused) = match outcome {
            Outcome::Acked { .. } => (false, false),
            Outcome::Definite { status, .. } | Outcome::Indefinite { status, .. } => {
                (status == 0, status != 0)
            }
        };
        attempts.push(Attempt { partition, first, count, outcome, known: Instant::now() });
        if lost {
            break;
        }
        if refused {
            std::thread::sleep(REFUSED_PAUSE);
        }
    }
    attempts
}

/// Reads partitions onwards in random turns until a read fails.
fn follow(
    client: &Client,
    stream: &str,
    mut positions: Vec<u64>,
    random: &mut StdRng,
    stop: &AtomicBool,
) -> Vec<Seen> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) && !positions.is_empty() {
        let number = random.random_range(0..positions.len());
        let position = &mut positions[number];
        let partition = number as u32;
        let Ok(page) = client.read(stream, partition, *position) else { break };
        for record in page.records {
            // A damaged value is found again, and reported, by the check.
            if let Some(id) = Id::of_line(record.text()) {
                seen.push(Seen { partition, offset: record.offset, id });
            }
        }
        *position = page.next_offset;
    }
    seen
}

/// Reads every partition from where the last check ended, or from the start
/// if `all`, and judges what writers were told. The error lists violations.
pub(crate) fn check(client: &Client, stream: &str, history: &mut History, all: bool) -> Result<()> {
    for partition in client.partitions(stream)? {
        let number = partition.partition;
        let from = if all { 0 } else { history.checked_to(number).min(partition.end_offset) };
        let records = client.read_to(stream, number, from, partition.end_offset)?;
        history.read(number, from, records.iter().map(|record| (record.offset, record.text())));
    }
    history.settle().map_err(|violations| anyhow::anyhow!("history violated:\n{violations}"))
}

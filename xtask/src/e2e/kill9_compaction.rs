//! Scenario `kill9_compaction`: the process dies while it compacts by key, over
//! and over on the same data. Of each key the newest record is there, once, and
//! nobody ever sees an older one than before.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::json;

use crate::e2e::client::{Client, Outcome};
use crate::e2e::server::{Server, Starting};
use crate::e2e::{Context, eventually, tiered};
use crate::steps::Report;

const PARTITIONS: u32 = 2;
const KEYS: u64 = 200;
const STREAM: &str = "compacted";

/// Deaths in the quick and in the full test.
const KILLS: (u64, u64) = (8, 150);

/// Records in one append are 1 to this many.
const BATCH_RECORDS_MAX: u64 = 20;

/// What is waited for happens within this.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What makes compaction run all the time.
const BUSY: &[&str] =
    &["store.compaction_interval_ms=20", "store.tier_interval_ms=20", "store.chunk_grace_ms=200"];

/// Records that compaction has to remove before the process dies in the midst
/// of the next ones.
const REMOVED_MIN: u64 = 100;

/// One partition: its only writer's numbers, from 0, which grow with the offsets.
#[derive(Debug, Default)]
struct Model {
    sent: u64,
    /// The newest number of each key that a reader is owed: acknowledged, or
    /// seen by an earlier one.
    owed: BTreeMap<String, u64>,
    /// The offsets of numbers that were acknowledged.
    offsets: BTreeMap<u64, u64>,
}

/// The key of a number.
fn key(number: u64) -> String {
    // Some keys come often, some seldom.
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    format!("key-{}", (mixed % KEYS) * (mixed % 7) / 6)
}

/// The value of a number, which names it.
fn value(number: u64) -> String {
    format!("{number} {}", "x".repeat(number as usize % 400))
}

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("kill9_compaction")?;
    let options = context.options(directory.path()).with_settings(BUSY);
    let mut random = context.random(1);
    let mut models: Vec<Model> = (0..PARTITIONS).map(|_| Model::default()).collect();
    let mut server = Server::start(&options)?;
    let config = json!({
        "cleanup_policy": "compact",
        "chunk_target_bytes": 65_536,
        "chunk_max_age_ms": 100,
        "kafka": { "min.cleanable.dirty.ratio": "0" },
    });
    server.client().create_stream(STREAM, PARTITIONS, config)?;
    let kills = context.count(KILLS.0, KILLS.1);
    let mut removed_in_all = 0;
    for kill in 1..=kills {
        let client = server.client();
        let moment = Duration::from_millis(random.random_range(0..=60));
        let at_work = server;
        removed_in_all += load(&client, &mut models, &mut random, || {
            let removed = eventually(WAIT_MAX, || {
                let removed = removed(&client)?;
                ensure!(removed >= REMOVED_MIN, "compaction removed {removed} records");
                Ok(removed)
            })?;
            // It goes on compacting: the process dies in the midst of that.
            std::thread::sleep(moment);
            at_work.kill9()?;
            Ok(removed)
        })?;
        if random.random_range(0..4) == 0 {
            let starting = Starting::spawn(&options)?;
            std::thread::sleep(Duration::from_millis(random.random_range(0..60)));
            starting.kill9();
        }
        server = Server::start(&options).with_context(|| format!("restart {kill}"))?;
        check_all(&server.client(), &mut models)
            .with_context(|| format!("kill {kill} of {kills}, seed {}", context.seed))?;
    }

    let client = server.client();
    tiered(&client, STREAM)?;
    let left = eventually(WAIT_MAX, || {
        let left = check_all(&client, &mut models)?;
        let keys: usize = models.iter().map(|model| model.owed.len()).sum();
        ensure!(left == keys, "{left} records of {keys} keys are left");
        Ok(left)
    })
    .context("of each key one record is left")?;
    server.stop()?;
    options.run(&["verify"]).context("aquifer verify")?;
    let sent: u64 = models.iter().map(|model| model.sent).sum();
    Ok(Report::passed(format!(
        "{kills} kills, {sent} records sent, {removed_in_all} removed before the kills, {left} left"
    )))
}

/// Lets one writer a partition work while `during` runs.
fn load<T>(
    client: &Client,
    models: &mut [Model],
    random: &mut StdRng,
    during: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (partition, model) in (0..).zip(models) {
            let (stop, counts) = (&stop, random.random::<u64>());
            scope.spawn(move || model.write(client, partition, counts, stop));
        }
        let result = during();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// Records that this process removed by compaction.
fn removed(client: &Client) -> Result<u64> {
    let metrics = client.get_text("/metrics")?;
    let name = "aquifer_compaction_removed_records_total ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.with_context(|| format!("no metric {name}"))?.parse().context("a count")
}

/// Reads all partitions and judges them; how many records there are.
fn check_all(client: &Client, models: &mut [Model]) -> Result<usize> {
    let mut records = 0;
    for (partition, model) in (0..).zip(models) {
        let found = model.check(client, partition);
        records += found.with_context(|| format!("partition {partition}"))?;
    }
    Ok(records)
}

impl Model {
    /// Appends until told to stop or until no answer comes.
    fn write(&mut self, client: &Client, partition: u32, counts: u64, stop: &AtomicBool) {
        let mut state = counts;
        while !stop.load(Ordering::Relaxed) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let first = self.sent;
            self.sent += 1 + (state >> 33) % BATCH_RECORDS_MAX;
            let numbers = first..self.sent;
            let records: Vec<_> =
                numbers.clone().map(|number| (key(number), value(number))).collect();
            match client.append_keyed(STREAM, partition, &records) {
                Outcome::Acked { base_offset, .. } => {
                    for (number, offset) in numbers.zip(base_offset..) {
                        self.owed.insert(key(number), number);
                        self.offsets.insert(number, offset);
                    }
                }
                // It may be there or not; the next check finds out.
                Outcome::Indefinite { .. } => return,
                Outcome::Definite { status: 0, .. } => return,
                Outcome::Definite { .. } => {}
            }
        }
    }

    /// Reads the partition and judges what is left; how many records that is.
    fn check(&mut self, client: &Client, partition: u32) -> Result<usize> {
        let partitions = client.partitions(STREAM)?;
        let of = partitions.iter().find(|of| of.partition == partition).context("a partition")?;
        let records = client.read_to(STREAM, partition, of.start_offset, of.end_offset)?;
        let (mut last, mut newest) = (None, BTreeMap::new());
        for record in &records {
            let number = record.text().split(' ').next().and_then(|text| text.parse().ok());
            let number: u64 = number.with_context(|| format!("the value of {record:?}"))?;
            let is_whole = number < self.sent
                && record.text() == value(number)
                && record.key.as_str() == Some(&key(number));
            ensure!(is_whole, "offset {} is not as it was written: {record:?}", record.offset);
            // Both grow: nothing is there twice, or in another order.
            ensure!(last < Some((record.offset, number)), "{record:?} comes behind {last:?}");
            ensure!(
                last.is_none_or(|(_, before)| before < number),
                "number {number} comes behind {last:?}"
            );
            let told = self.offsets.get(&number);
            ensure!(
                told.is_none_or(|told| *told == record.offset),
                "{number} was acknowledged at {told:?} and is at {}",
                record.offset
            );
            last = Some((record.offset, number));
            newest.insert(key(number), number);
        }
        for (key, owed) in &self.owed {
            match newest.get(key) {
                Some(found) if found >= owed => {}
                found => bail!("the newest of {key} is {found:?}, it was {owed} before"),
            }
        }
        self.owed.extend(newest);
        Ok(records.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_repeat_and_are_many() {
        let mut counts = BTreeMap::<String, u64>::new();
        (0..10_000).for_each(|number| *counts.entry(key(number)).or_default() += 1);
        assert!(counts.len() > 50 && counts.values().any(|count| *count > 500), "{counts:?}");
    }
}

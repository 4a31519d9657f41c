//! Figures `kafka-produce` and `kafka-compressed`: the most that producers get
//! acknowledged.

use anyhow::Result;

use super::{ABOUT_LOAD, Bench, SIDES, Shape, Side, duration, rounds, verdict};
use crate::bench::Context;
use crate::bench::measure::{Table, figure, median};

const PRODUCERS: [usize; 2] = [1, 8];
const PARTITIONS: [u32; 3] = [1, 16, 256];
/// The goal is for these; more are reported.
const GOAL_PARTITIONS_MAX: u32 = 16;
const GOAL: f64 = 2.0;

pub(in crate::bench) fn plain(context: &Context) -> Result<String> {
    run(context, "kafka-produce", &["none"], &PRODUCERS, &PARTITIONS)
}

pub(in crate::bench) fn compressed(context: &Context) -> Result<String> {
    let compressions = ["lz4", "zstd"];
    if context.is_quick() {
        return run(context, "kafka-compressed", &compressions, &[8], &[16]);
    }
    run(context, "kafka-compressed", &compressions, &PRODUCERS, &PARTITIONS)
}

fn run(
    context: &Context,
    name: &str,
    compressions: &[&'static str],
    producers: &[usize],
    partitions: &[u32],
) -> Result<String> {
    let bench = Bench::start(context, name, &[])?;
    let mut table = Table::new(&[
        "producers, partitions, compression",
        "Aquifer MB/s",
        "p99 ms",
        "Kafka, synced MB/s",
        "p99 ms",
        "Kafka, default MB/s",
        "p99 ms",
        "by synced",
        "by default",
    ]);
    let mut worst = f64::INFINITY;
    for compression in compressions {
        for producers in producers {
            for partitions in partitions {
                let (producers, partitions) = (*producers, *partitions);
                let shape = Shape { producers, partitions, compression, rate: None };
                let by_synced = measure(context, &bench, shape, &mut table)?;
                if partitions <= GOAL_PARTITIONS_MAX {
                    worst = worst.min(by_synced);
                }
            }
        }
    }
    Ok(format!(
        "{}\nGoal: at least {GOAL} times Kafka with `flush.messages=1` at 1 and 16 partitions; the \
         least is **{}**, {}. Beside Kafka's default, which does not sync, 1 is the aim. {} rounds \
         of about {} s, another side first in each; medians, and of the ratios within a round. The \
         latencies are those of producers whose buffers are always full. {ABOUT_LOAD}\n",
        table.into_text(),
        figure(worst),
        verdict(worst >= GOAL),
        rounds(context).count(),
        duration(context),
    ))
}

/// Adds a row, and gives the ratio to Kafka with sync.
fn measure(context: &Context, bench: &Bench, shape: Shape, table: &mut Table) -> Result<f64> {
    let mut runs = Vec::new();
    for round in rounds(context) {
        let mut of_round = Vec::new();
        for side in round {
            of_round.push((side, bench.produce(context, side, shape)?));
        }
        runs.push(of_round);
    }
    let of = |side: Side| {
        let runs = runs.iter().flatten();
        runs.filter(move |(of, _)| *of == side).map(|(_, produced)| *produced)
    };
    let by = |other: Side| {
        let ratio =
            |(ours, theirs): (super::Produced, super::Produced)| ours.rate() / theirs.rate();
        median(of(Side::Aquifer).zip(of(other)).map(ratio))
    };
    let Shape { producers, partitions, compression, .. } = shape;
    let mut cells = vec![format!("{producers}, {partitions}, {compression}")];
    for side in SIDES {
        cells.push(figure(median(of(side).map(|run| run.rate()))));
        cells.push(figure(median(of(side).map(|run| run.p99_ms))));
    }
    let by_synced = by(Side::Synced);
    cells.extend([figure(by_synced), figure(by(Side::Default))]);
    table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    Ok(by_synced)
}

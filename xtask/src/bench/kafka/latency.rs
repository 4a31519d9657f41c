//! Figure `kafka-latency`: how long a record takes at half of the rate that
//! Kafka with sync has at most.

use anyhow::Result;

use super::{ABOUT_LOAD, Bench, SIDES, Shape, Side, duration, rounds, verdict};
use crate::bench::Context;
use crate::bench::measure::{Table, figure, median};

/// Producers and partitions.
const SHAPES: [(usize, u32); 3] = [(1, 1), (1, 16), (8, 16)];

pub(in crate::bench) fn run(context: &Context) -> Result<String> {
    let bench = Bench::start(context, "kafka-latency", &[])?;
    let mut table = Table::new(&[
        "producers, partitions",
        "offered MB/s",
        "Aquifer p50 ms",
        "p99 ms",
        "Kafka, synced p50 ms",
        "p99 ms",
        "Kafka, default p50 ms",
        "p99 ms",
        "p99 by synced",
    ]);
    let mut worst = 0.0_f64;
    for (producers, partitions) in SHAPES {
        let shape = Shape { producers, partitions, compression: "none", rate: None };
        let highest = bench.produce(context, Side::Synced, shape)?;
        let rate = highest.records_per_second / 2.0;
        let shape = Shape { rate: Some(rate), ..shape };
        let mut runs = Vec::new();
        for side in rounds(context).flatten() {
            runs.push((side, bench.produce(context, side, shape)?));
        }
        let of = |side: Side| runs.iter().filter(move |(of, _)| *of == side).map(|(_, run)| *run);
        // A client counts whole milliseconds.
        let p99s = |side| of(side).map(|run| run.p99_ms.max(1.0));
        let ratios = p99s(Side::Aquifer).zip(p99s(Side::Synced)).map(|(ours, its)| ours / its);
        let ratio = median(ratios);
        worst = worst.max(ratio);
        let offered = highest.rate() / 2.0;
        let mut cells = vec![format!("{producers}, {partitions}"), figure(offered)];
        for side in SIDES {
            cells.push(figure(median(of(side).map(|run| run.p50_ms))));
            cells.push(figure(median(of(side).map(|run| run.p99_ms))));
        }
        cells.push(figure(ratio));
        table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    Ok(format!(
        "{}\nGoal: a p99 below that of Kafka with `flush.messages=1`; the largest ratio is **{}**, \
         {}. Offered is half of what Kafka with sync took at most, right before. {} rounds of {} \
         s, another side first in each; the median of a round's worst producer. {ABOUT_LOAD}\n",
        table.into_text(),
        figure(worst),
        verdict(worst < 1.0),
        rounds(context).count(),
        duration(context),
    ))
}

//! Figure `kafka-reads`: a consumer that begins at the start of what was
//! written before: from our journal, from our chunks, and from Kafka's log.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Bench, Shape, Side, verdict};
use crate::bench::Context;
use crate::bench::measure::{Table, figure, median};
use crate::bench::tiering::metric;

const PARTITIONS: [u32; 2] = [1, 16];
/// Room for a stream that is never tiered.
const SETTINGS: [&str; 2] =
    ["store.journal_bytes_max=8589934592", "store.journal_partition_bytes_max=4294967296"];
/// What is written is in chunks by then.
const TIERED_MAX: Duration = Duration::from_secs(300);
const ASK_EVERY: Duration = Duration::from_millis(200);
const GOALS: [f64; 2] = [1.0, 0.5];

pub(in crate::bench) fn run(context: &Context) -> Result<String> {
    let bench = Bench::start(context, "kafka-reads", &SETTINGS)?;
    let records = context.pick(200_000, 1_000_000, 4_000_000);
    let mut table = Table::new(&[
        "partitions",
        "journal MB/s",
        "chunks MB/s",
        "Kafka MB/s",
        "journal by Kafka",
        "chunks by Kafka",
    ]);
    let mut worst = [f64::INFINITY; 2];
    for partitions in PARTITIONS {
        let hot = json!({ "chunk_target_bytes": 1 << 30, "chunk_max_age_ms": 3_600_000 });
        let cold = json!({ "chunk_max_age_ms": 1_000 });
        let topics = [
            (Side::Aquifer, bench.create(Side::Aquifer, partitions, hot)?),
            (Side::Aquifer, bench.create(Side::Aquifer, partitions, cold)?),
            (Side::Default, bench.create(Side::Default, partitions, json!({}))?),
        ];
        for (side, topic) in &topics {
            fill(context, &bench, *side, topic, partitions, records)?;
        }
        wait_until_tiered(&bench, &topics[1].1)?;
        let mut runs = Vec::new();
        for round in 0..context.pairs() {
            let mut rates = [0.0; 3];
            for turn in 0..topics.len() {
                let at = (round + turn) % topics.len();
                let (side, topic) = &topics[at];
                rates[at] = bench.tools.consume(bench.bootstrap(*side), topic, records)?;
            }
            println!("{partitions} partitions: journal, chunks, Kafka: {rates:.0?} MB/s");
            runs.push(rates);
        }
        let mut cells = vec![partitions.to_string()];
        cells.extend((0..3).map(|at| figure(median(runs.iter().map(|rates| rates[at])))));
        for at in 0..2 {
            let ratio = median(runs.iter().map(|rates| rates[at] / rates[2]));
            worst[at] = worst[at].min(ratio);
            cells.push(figure(ratio));
        }
        table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
        for (side, topic) in &topics {
            bench.delete(*side, topic)?;
        }
    }
    Ok(format!(
        "{}\nGoals: at least {} from the journal (the least is **{}**, {}) and at least {} from \
         chunks (**{}**, {}). `ConsumerPerformance` of Kafka 4.3.0 with its defaults, a process a \
         run, reads {records} records of 1024 B that were written uncompressed; the time in which \
         its group comes together is not counted. The stream of the journal is never tiered, that \
         of the chunks wholly. All of it is in the system's page cache. {} rounds.\n",
        table.into_text(),
        GOALS[0],
        figure(worst[0]),
        verdict(worst[0] >= GOALS[0]),
        GOALS[1],
        figure(worst[1]),
        verdict(worst[1] >= GOALS[1]),
        context.pairs(),
    ))
}

/// Writes at least so many records.
pub(super) fn fill(
    context: &Context,
    bench: &Bench,
    side: Side,
    topic: &str,
    partitions: u32,
    records: u64,
) -> Result<()> {
    let shape = Shape { producers: 1, partitions, compression: "none", rate: None };
    let mut written = 0;
    while written < records {
        written += bench.produce_into(context, side, shape, topic)?.records;
    }
    Ok(())
}

fn wait_until_tiered(bench: &Bench, topic: &str) -> Result<()> {
    let client = bench.aquifer.client();
    let asked = Instant::now();
    loop {
        let partitions = client.partitions(topic)?;
        if partitions.iter().all(|of| of.tiered_offset == of.end_offset) {
            return Ok(());
        }
        let left = metric(&client.get_text("/metrics")?, "aquifer_untiered_bytes")?;
        ensure!(asked.elapsed() < TIERED_MAX, "{left} bytes are not in chunks");
        std::thread::sleep(ASK_EVERY);
    }
}

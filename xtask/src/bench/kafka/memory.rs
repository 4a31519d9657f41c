//! Figure `kafka-memory`: what both servers have resident after the same load.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::reads::fill;
use super::{ABOUT_LOAD, Bench, Side, verdict};
use crate::bench::Context;
use crate::bench::footprint::{peak_bytes, resident_bytes};
use crate::bench::measure::{Table, figure};
use crate::bench::peers::kafka::heap_log;
use crate::bench::tiering::metric;

const PARTITIONS: u32 = 16;
/// What is freed is given back by then.
const SETTLED: Duration = Duration::from_secs(10);
const GOAL: f64 = 0.2;

pub(in crate::bench) fn run(context: &Context) -> Result<String> {
    let bench = Bench::start(context, "kafka-memory", &[])?;
    // The second is so much that the broker's heap is in use.
    let loads = [150_000, context.pick(1_000_000, 4_000_000, 8_000_000)];
    let mut table = Table::new(&[
        "records written, then read",
        "Aquifer at once MB",
        "10 s later MB",
        "peak MB",
        "Kafka MB",
        "10 s later MB",
        "peak MB",
        "heap used MB",
        "ratio later",
    ]);
    let mut ratio = f64::NAN;
    let processes = [bench.aquifer.id(), bench.kafka.id()];
    let mut written = 0;
    for records in loads {
        let mut at_once = [0.0; 2];
        for (at, side) in [Side::Aquifer, Side::Default].into_iter().enumerate() {
            let topic = bench.create(side, PARTITIONS, json!({}))?;
            fill(context, &bench, side, &topic, PARTITIONS, records)?;
            bench.tools.consume(bench.bootstrap(side), &topic, records)?;
            at_once[at] = resident_bytes(processes[at])?;
        }
        written += records;
        std::thread::sleep(SETTLED);
        let later = [resident_bytes(processes[0])?, resident_bytes(processes[1])?];
        let heap = heap_used(bench.directory.path())?;
        ratio = later[0] / later[1];
        let mut cells = vec![written.to_string()];
        for at in 0..2 {
            let values = [at_once[at], later[at], peak_bytes(processes[at])?];
            cells.extend(values.map(|bytes| figure(bytes / 1e6)));
        }
        cells.extend([figure(heap / 1e6), figure(ratio)]);
        table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let metrics = bench.aquifer.client().get_text("/metrics")?;
    let cache = |name: &str| Ok::<_, anyhow::Error>(figure(metric(&metrics, name)? / 1e6));
    Ok(format!(
        "{}\nGoal: at most a fifth of Kafka's, with its heap stated; after the larger load **{}**, \
         {}. Kafka has its default heap of 1 GiB; used is the most before a collection. Our caches \
         hold {} MB of the journal's end (`tail_cache_bytes_max`, 67 MB) and {} MB of chunks \
         (`chunk_cache_bytes_max`) at the end. One producer and one consumer, {PARTITIONS} \
         partitions. {ABOUT_LOAD}\n",
        table.into_text(),
        figure(ratio),
        verdict(ratio <= GOAL),
        cache("aquifer_tail_cache_bytes")?,
        cache("aquifer_chunk_cache_bytes")?,
    ))
}

/// The most that was in use before a collection, in bytes.
fn heap_used(directory: &Path) -> Result<f64> {
    let text = std::fs::read_to_string(heap_log(directory)).context("no log of the heap")?;
    Ok(text.lines().filter_map(heap_before).fold(0.0, f64::max) * f64::from(1 << 20))
}

/// `… 612M->123M(1024M) …`
fn heap_before(line: &str) -> Option<f64> {
    let (before, _) = line.split_once("M->")?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_is_read_from_the_collector_log() {
        let check = |line: &str, wanted: Option<f64>| assert_eq!(heap_before(line), wanted);
        check("[9.1s][info][gc] GC(3) Pause Young (Normal) 612M->93M(1024M) 4.2ms", Some(612.0));
        check("[0.0s][info][gc] Using G1", None);
    }
}

//! Figure `index-rate`: the highest rate of appends at which chunks, with what
//! is in them, and their search indexes are made as fast as records come.

use anyhow::Result;

use super::Context;
use super::measure::{Table, figure};
use super::tiering::{Paced, Volume, paced, step, targets, volume};

/// The rate that is tried first, bytes a second.
const FIRST: f64 = 60e6;
const FACTOR: f64 = 1.25;
/// Chunk targets of a partition that may wait for their indexes at the end.
const UNINDEXED_MAX: f64 = 2.0;

pub(super) fn run(context: &Context) -> Result<String> {
    let volume = volume(context)?;
    let mut table = Table::new(&[
        "offered MB/s",
        "acknowledged MB/s",
        "not in chunks",
        "without index",
        "cores",
        "MB/s a core",
    ]);
    let mut best = try_rate(context, &volume, FIRST, &mut table)?;
    let is_first_good = best.is_some();
    let factor = if is_first_good { FACTOR } else { 1.0 / FACTOR };
    let mut rate = FIRST;
    for _ in 0..context.pick(3, 10, 10) {
        rate *= factor;
        let run = try_rate(context, &volume, rate, &mut table)?;
        let is_good = run.is_some();
        best = run.or(best);
        // Upwards until one is too much, downwards until one is not.
        if is_good != is_first_good {
            break;
        }
    }
    let highest = best.map_or_else(
        || "none of the rates that were tried".to_owned(),
        |run| {
            let a_core = run.rate * run.wall_seconds / run.processor_seconds;
            format!("{} MB/s, {} MB/s a core", figure(run.rate / 1e6), figure(a_core / 1e6))
        },
    );
    Ok(format!(
        "{}\nHighest rate that was kept up with: **{highest}**. {} s each, into a new server; the \
         load is that of `tiering`. A rate is kept up with where 0.97 of it is acknowledged and at \
         the end less than two chunk targets of 64 MiB a partition are not in chunks, and less than \
         {UNINDEXED_MAX} are in chunks without an index; both columns are in chunk targets a \
         partition. Cores are what the server took of the processors for everything that it did, \
         taking requests and syncing included; the load comes from another process on the same \
         cores. Streams have their default configuration.\n",
        table.into_text(),
        step(context).as_secs(),
    ))
}

/// The run if it kept up; a row of the table in any case.
fn try_rate(
    context: &Context,
    volume: &Volume,
    rate: f64,
    table: &mut Table,
) -> Result<Option<Paced>> {
    let run = paced(context, volume, true, rate, step(context))?;
    let unindexed = targets(run.unindexed_end);
    table.row(&[
        &figure(rate / 1e6),
        &figure(run.rate / 1e6),
        &figure(targets(run.untiered_end)),
        &figure(unindexed),
        &figure(run.processor_seconds / run.wall_seconds),
        &figure(run.rate / 1e6 * run.wall_seconds / run.processor_seconds),
    ]);
    println!("{:.0} MB/s offered: {unindexed:.2} chunk targets without index", rate / 1e6);
    Ok((run.is_sustained(rate) && unindexed < UNINDEXED_MAX).then_some(run))
}

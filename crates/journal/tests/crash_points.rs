//! The machine stops between any two operations of a script, and any part of
//! what was not synced is lost; disks fail at every place where they can.
//!
//! What must hold is in [`common::History::check`]: every acknowledged group
//! is there, in order and unchanged, those written and not synced form a
//! beginning of what was written, and nothing that was once cut comes back.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod common;

use aquifer_env::{CrashChoice, FaultyDisk};
use common::{Driver, Op};

use Op::*;

/// Groups, syncs, several files, recycling, marks, a reopening.
const PLAIN: &[Op] = &[
    Write(100),
    Sync,
    Prepare,
    Write(5000),
    Sync,
    Write(9000),
    Sync,
    Mark,
    Write(3000),
    Sync,
    Write(12_000),
    Sync,
    Prepare,
    ReleaseOld,
    Write(200),
    Sync,
    Reopen,
    Write(300),
    Sync,
    ReleaseOld,
    Write(13_000),
    Sync,
    CleanMark,
    Reopen,
    Prepare,
    Write(10),
    Sync,
];

/// Several groups between syncs, beyond the end of a file as well.
const RELAXED: &[Op] = &[
    WriteRelaxed(100),
    WriteRelaxed(200),
    Write(300),
    Sync,
    WriteRelaxed(3000),
    WriteRelaxed(3000),
    WriteRelaxed(9000),
    WriteRelaxed(6000),
    WriteRelaxed(6000),
    Reopen,
    WriteRelaxed(50),
    WriteRelaxed(60),
    Prepare,
    ReleaseOld,
    WriteRelaxed(70),
    Mark,
    WriteRelaxed(80),
    Reopen,
    WriteRelaxed(90),
    Write(100),
    Sync,
];

/// Groups that are longer than a file.
const LARGE: &[Op] = &[
    Write(100),
    Sync,
    Prepare,
    Write(30_000),
    Sync,
    Write(50_000),
    Sync,
    Write(20),
    Sync,
    Reopen,
    WriteRelaxed(40_000),
    WriteRelaxed(20),
    Reopen,
    ReleaseOld,
    Write(10),
    Sync,
    CleanMark,
];

const FOLLOW_UP: &[Op] =
    &[Write(40), Sync, Write(5000), WriteRelaxed(50), Reopen, Prepare, ReleaseOld, Write(60), Sync];

#[derive(Debug, Default)]
struct Count {
    crash_points: u64,
    cuts: u64,
    second_cuts: u64,
    torn: u64,
    lost: u64,
}

impl Count {
    fn report(&self, name: &str) {
        println!(
            "{name}: {} crash points, {} power cuts, {} of a second recovery; writes torn {}, lost {}",
            self.crash_points, self.cuts, self.second_cuts, self.torn, self.lost
        );
        // A run that tore and lost nothing would prove nothing.
        assert!(self.torn > 0 && self.lost > 0, "{self:?}");
    }
}

/// Cuts the power of `stopped` in different ways and goes on after each.
fn cut(stopped: &Driver, subsets_max: u32, samples: u64, count: &mut Count, what: &str) {
    let pending = stopped.disk.pending() as u32;
    let mut choices = vec![CrashChoice::LoseAll, CrashChoice::KeepAll];
    if pending <= subsets_max {
        choices.extend((0..1u64 << pending).map(CrashChoice::Subset));
    } else {
        choices.extend((0..samples).map(CrashChoice::Random));
    }
    for choice in choices {
        let mut found = stopped.after_crash(choice);
        let what = format!("{what}, {choice:?} of {pending}");
        found.open(&what).unwrap_or_else(|error| panic!("{what}: {error}"));
        count.cuts += 1;
        // Going on is the same work each time, so it is done for some.
        if count.cuts.is_multiple_of(7) {
            found.run(FOLLOW_UP);
            assert_eq!(found.failures, 0, "{what}");
            found.open(&what).unwrap_or_else(|error| panic!("{what}, going on: {error}"));
        }
        if count.cuts.is_multiple_of(5) {
            // The recovery itself, and what follows, is cut as well.
            let mut again = stopped.after_crash(choice);
            again.disk.crash_at(1 + count.cuts / 5 % 24);
            again.run(FOLLOW_UP);
            for choice in
                [CrashChoice::LoseAll, CrashChoice::KeepAll, CrashChoice::Random(count.cuts)]
            {
                let mut found = again.after_crash(choice);
                let what = format!("{what}, then {choice:?}");
                found.open(&what).unwrap_or_else(|error| panic!("{what}: {error}"));
                count.second_cuts += 1;
            }
        }
        count.torn = count.torn.max(found.disk.torn_writes());
        count.lost = count.lost.max(found.disk.lost_writes());
    }
}

fn enumerate(name: &str, script: &[Op], sector: usize, subsets_max: u32, samples: u64) {
    let mut rehearsal = Driver::new(FaultyDisk::with_sector_bytes(1, sector));
    rehearsal.run(script);
    assert_eq!(rehearsal.failures, 0);
    let operations = rehearsal.disk.operations();
    let mut count = Count::default();
    for nth in 1..=operations {
        let mut driver = Driver::new(FaultyDisk::with_sector_bytes(1, sector));
        driver.disk.crash_at(nth);
        driver.run(script);
        assert!(driver.disk.is_crashed());
        count.crash_points += 1;
        cut(&driver, subsets_max, samples, &mut count, &format!("crash at {nth}"));
    }
    count.report(name);
}

#[test]
fn every_crash_point_of_a_plain_script() {
    enumerate("plain, 4 KiB sectors", PLAIN, 4096, 7, 60);
}

#[test]
fn every_crash_point_with_small_sectors() {
    enumerate("plain, 512 B sectors", PLAIN, 512, 6, 60);
}

#[test]
fn every_crash_point_with_relaxed_groups() {
    enumerate("relaxed, 4 KiB sectors", RELAXED, 4096, 9, 200);
}

#[test]
fn every_crash_point_with_large_groups() {
    enumerate("large, 4 KiB sectors", LARGE, 4096, 6, 40);
}

#[test]
fn every_subset_of_twelve_pending_sectors() {
    let mut count = Count::default();
    // Relaxed groups behind a synced one, whole blocks.
    let mut driver = Driver::new(FaultyDisk::with_sector_bytes(1, 4096));
    driver.run(&[Write(100), Sync, WriteRelaxed(1), WriteRelaxed(4100), WriteRelaxed(3)]);
    assert_eq!(driver.disk.pending(), 4);
    cut(&driver, 12, 0, &mut count, "within a file");
    // A new file's header and its first groups, in halves of blocks.
    let mut driver = Driver::new(FaultyDisk::with_sector_bytes(1, 2048));
    driver.run(&[Write(9000), Sync, WriteRelaxed(12_000), WriteRelaxed(5000)]);
    assert_eq!(driver.disk.pending(), 12);
    cut(&driver, 12, 0, &mut count, "over the end of a file");
    // One group behind a failed one, in a new file.
    let mut driver = Driver::new(FaultyDisk::with_sector_bytes(1, 1024));
    driver.run(&[Write(9000), Sync]);
    driver.disk.fail_sync_partly(driver.disk.syncs() + 1);
    driver.run(&[Write(100), Sync, Prepare, Write(200)]);
    assert_eq!((driver.failures, driver.disk.pending()), (1, 8));
    cut(&driver, 12, 0, &mut count, "after a failed sync");
    count.report("every subset");
}

/// Runs a script with one fault in it, checks, and then cuts the power at a
/// number of later points as well.
fn with_fault(
    name: &str,
    script: &[Op],
    last: impl Fn(&FaultyDisk) -> u64,
    fault: impl Fn(&FaultyDisk, u64),
    unnoticed_max: u64,
) {
    let mut rehearsal = Driver::new(FaultyDisk::new(1));
    rehearsal.run(script);
    let mut count = Count::default();
    let (mut failures, mut unnoticed) = (0, 0);
    for nth in 1..=last(&rehearsal.disk) {
        let mut driver = Driver::new(FaultyDisk::new(nth));
        fault(&driver.disk, nth);
        driver.run(script);
        unnoticed += u64::from(driver.failures == 0);
        assert!(unnoticed <= unnoticed_max, "{name}: fault {nth} was not noticed");
        failures += driver.failures;
        let operations = driver.disk.operations();
        // All at once: the process alone dies; later faults must not matter.
        let what = format!("{name} {nth}");
        cut(&driver, 6, 12, &mut count, &what);
        for stop in (1..operations).step_by(3) {
            let mut driver = Driver::new(FaultyDisk::new(nth));
            fault(&driver.disk, nth);
            driver.disk.crash_at(stop);
            driver.run(script);
            count.crash_points += 1;
            cut(&driver, 3, 3, &mut count, &format!("{what}, crash at {stop}"));
        }
    }
    println!("{name}: {failures} failures noticed");
    count.report(name);
}

#[test]
fn every_sync_fails_once() {
    with_fault("sync loses all", PLAIN, FaultyDisk::syncs, |disk, nth| disk.fail_sync(nth), 0);
}

#[test]
fn every_sync_fails_once_and_keeps_a_part() {
    let fault = |disk: &FaultyDisk, nth| disk.fail_sync_partly(nth);
    with_fault("sync loses some, relaxed", RELAXED, FaultyDisk::syncs, fault, 0);
}

#[test]
fn every_write_fails_once() {
    let fault = |disk: &FaultyDisk, nth| disk.fail_write(nth, std::io::ErrorKind::Other);
    with_fault("write fails", PLAIN, FaultyDisk::writes, fault, 0);
    let fault = |disk: &FaultyDisk, nth| disk.fail_write(nth, std::io::ErrorKind::StorageFull);
    with_fault("write finds no room, relaxed", RELAXED, FaultyDisk::writes, fault, 0);
}

#[test]
fn two_syncs_fail_in_a_row() {
    let fault = |disk: &FaultyDisk, nth| {
        disk.fail_sync(nth);
        disk.fail_sync_partly(nth + 1);
    };
    with_fault("two syncs fail", PLAIN, |disk| disk.syncs() - 1, fault, 0);
}

#[test]
fn every_operation_fails_once() {
    // A file that cannot be recycled, in two ways, is removed instead.
    let fault = |disk: &FaultyDisk, nth| disk.fail_operation(nth, std::io::ErrorKind::Other);
    with_fault("operation fails", PLAIN, FaultyDisk::operations, fault, 2);
}

#[test]
fn the_disk_is_full_at_every_size() {
    let mut rehearsal = Driver::new(FaultyDisk::new(1));
    rehearsal.run(PLAIN);
    let (mut refused, mut cases) = (0, 0);
    for kib in 0..160u64 {
        let mut driver = Driver::new(FaultyDisk::new(kib));
        driver.disk.set_capacity(kib << 10);
        driver.run(PLAIN);
        refused += driver.failures;
        cases += 1;
        driver.disk.set_capacity(u64::MAX);
        let failures = driver.failures;
        driver.run(FOLLOW_UP);
        assert_eq!(driver.failures, failures, "{kib} KiB: it did not go on with room");
        driver.open("after the disk was full").unwrap();
    }
    println!("full disk: {cases} sizes, {refused} refusals");
    assert!(refused > 100);
}

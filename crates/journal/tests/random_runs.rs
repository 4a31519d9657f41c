//! Random scripts under random faults and power cuts, one after the other on
//! the same disk, against the same history as the enumerated ones.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use aquifer_env::{Clock, CrashChoice, FaultyDisk, RealClock};
use aquifer_testkit::rand::rngs::StdRng;
use aquifer_testkit::rand::{RngExt, SeedableRng};
use aquifer_testkit::seed_from_env;
use common::{Driver, Op};

const SECONDS: u64 = 4;

fn script(random: &mut StdRng) -> Vec<Op> {
    let relaxed = random.random_range(0..100);
    let op = |random: &mut StdRng| match random.random_range(0..100) {
        0..50 => {
            let bytes = match random.random_range(0..10) {
                0..6 => random.random_range(0..400),
                6..9 => random.random_range(0..14_000),
                _ => random.random_range(14_000..60_000),
            };
            match random.random_range(0..100) < relaxed {
                true => Op::WriteRelaxed(bytes),
                false => Op::Write(bytes),
            }
        }
        50..74 => Op::Sync,
        74..80 => Op::Mark,
        80..83 => Op::CleanMark,
        83..86 => Op::Settle,
        86..92 => Op::Prepare,
        92..96 => Op::ReleaseOld,
        _ => Op::Reopen,
    };
    (0..random.random_range(1..50)).map(|_| op(random)).collect()
}

fn add_faults(random: &mut StdRng, disk: &FaultyDisk) {
    for _ in 0..random.random_range(0..4) {
        let ahead = random.random_range(1..40);
        match random.random_range(0..6) {
            0 => disk.fail_sync(disk.syncs() + ahead),
            1 => disk.fail_sync_partly(disk.syncs() + ahead),
            2 => disk.fail_write(disk.writes() + ahead, std::io::ErrorKind::Other),
            3 => disk.fail_operation(disk.operations() + ahead, std::io::ErrorKind::Other),
            4 => disk.fail_read(disk.reads() + ahead, std::io::ErrorKind::Other),
            _ => disk.set_capacity(random.random_range(20..200) << 10),
        }
    }
}

#[derive(Debug, Default)]
struct Count {
    runs: u64,
    cuts: u64,
    failures: u64,
    torn: u64,
}

fn run(seed: u64, count: &mut Count) {
    let random = &mut StdRng::seed_from_u64(seed);
    let sector = [512, 1024, 4096][random.random_range(0..3)];
    let mut driver = Driver::new(FaultyDisk::with_sector_bytes(seed, sector));
    for round in 0..random.random_range(1..6) {
        add_faults(random, &driver.disk);
        if random.random_range(0..3) > 0 {
            driver.disk.crash_at(random.random_range(1..120));
        }
        driver.run(&script(random));
        count.failures += driver.failures;
        let choice = match random.random_range(0..8) {
            0 => CrashChoice::LoseAll,
            1 => CrashChoice::KeepAll,
            _ => CrashChoice::Random(random.random()),
        };
        driver = driver.after_crash(choice);
        let what = format!("seed {seed}, round {round}");
        driver.open(&what).unwrap_or_else(|error| panic!("{what}: {error}"));
        count.cuts += 1;
    }
    count.torn += driver.disk.torn_writes();
    count.runs += 1;
}

#[test]
fn random_scripts_faults_and_cuts() {
    let first = seed_from_env("AQUIFER_SEED");
    let clock = RealClock::new();
    let mut count = Count::default();
    let mut seed = first;
    while clock.monotonic_ns() < SECONDS * 1_000_000_000 {
        let result = catch_unwind(AssertUnwindSafe(|| run(seed, &mut count)));
        if let Err(panic) = result {
            println!("AQUIFER_SEED={seed} repeats it at once");
            resume_unwind(panic);
        }
        seed = seed.wrapping_add(1);
    }
    println!("random runs: {count:?}");
    assert!(count.runs > 50 && count.torn > 0 && count.failures > count.runs);
}

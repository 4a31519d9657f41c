//! The machine stops between any two operations on the disk, twice; disks
//! fail at every place where they can.

use aquifer_env::{CrashChoice, FaultyDisk, Random, SeededRandom};

use super::driver::Driver;
use super::script::{Step, script};

#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) scripts: u64,
    crash_points: u64,
    pub(super) cuts: u64,
    second_cuts: u64,
    acknowledged: u64,
    refused: u64,
    pub(super) failed: u64,
    torn: u64,
    lost: u64,
    ends_of_transactions: u64,
}

impl Count {
    pub(super) fn note(&mut self, driver: &Driver) {
        self.acknowledged += driver.model.acknowledged;
        self.refused += driver.model.refused;
        self.failed += driver.model.failed;
        self.ends_of_transactions += driver.model.ends_of_transactions;
        self.torn = self.torn.max(driver.disk.torn_writes());
        self.lost = self.lost.max(driver.disk.lost_writes());
    }
}

/// `AQUIFER_CASES` multiplies how many scripts a test runs.
pub(super) fn cases(usual: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test's own knob")]
    let factor = std::env::var("AQUIFER_CASES").ok().and_then(|text| text.parse().ok());
    usual * factor.unwrap_or(1u64)
}

/// Cuts the power in several ways, checks what is found, goes on and cuts it
/// again.
pub(super) fn cut(stopped: &Driver, seed: u64, samples: u64, count: &mut Count, what: &str) {
    let choices = [CrashChoice::LoseAll, CrashChoice::KeepAll];
    let random = (0..samples).map(|sample| CrashChoice::Random(seed.wrapping_mul(31) + sample));
    for choice in choices.into_iter().chain(random) {
        let what = format!("{what}, {choice:?}");
        let mut found = stopped.after_crash(choice);
        count.cuts += 1;
        if !count.cuts.is_multiple_of(3) {
            found.start(&what).unwrap_or_else(|error| panic!("{what}: {error}"));
            continue;
        }
        // The recovery itself, and what follows, is cut as well.
        let random = SeededRandom::new(seed ^ count.cuts);
        found.disk.crash_at(1 + random.next_u64() % 60);
        found.run(&script(random.next_u64(), 20));
        count.note(&found);
        for choice in [CrashChoice::LoseAll, CrashChoice::Random(count.cuts)] {
            let what = format!("{what}, then {choice:?}");
            let mut found = found.after_crash(choice);
            found.start(&what).unwrap_or_else(|error| panic!("{what}: {error}"));
            count.second_cuts += 1;
        }
    }
}

pub(super) fn rehearse(seed: u64, steps: &[Step]) -> Driver {
    let mut driver = Driver::new(FaultyDisk::with_sector_bytes(seed, 4096));
    driver.run(steps);
    assert_eq!(driver.model.failed, 0, "seed {seed}");
    driver
}

#[test]
fn scripts_run_without_faults() {
    for seed in 0..cases(60) {
        println!("seed {seed}");
        rehearse(seed, &script(seed, 60));
    }
}

fn every_crash_point(seeds: std::ops::Range<u64>, len: usize) {
    let mut count = Count::default();
    for seed in seeds {
        let steps = script(seed, len);
        let rehearsal = rehearse(seed, &steps);
        count.scripts += 1;
        for nth in 1..=rehearsal.disk.operations() {
            let mut driver = Driver::new(FaultyDisk::with_sector_bytes(seed, 4096));
            driver.disk.crash_at(nth);
            driver.run(&steps);
            count.crash_points += 1;
            count.note(&driver);
            let what = format!("seed {seed}, crash at {nth}");
            cut(&driver, seed * 10_000 + nth, 2, &mut count, &what);
        }
    }
    println!("{count:?}");
    assert!(count.torn > 0 && count.lost > 0, "{count:?}");
    assert!(count.ends_of_transactions > 0, "{count:?}");
}

#[test]
fn every_crash_point_of_scripts() {
    every_crash_point(0..cases(4), 40);
}

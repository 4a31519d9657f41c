//! One thing fails, at every place where it can; the ledger goes on.

use std::io::ErrorKind;

use aquifer_env::{CrashChoice, FaultyDisk};

use super::crash_points::{Count, cases, cut, rehearse};
use super::driver::Driver;
use super::script::{Kind, Step, script};

/// Appends and writes, without anything that the state may refuse.
fn follow_up(seed: u64) -> Vec<Step> {
    let kinds = [Kind::Idle, Kind::Keep, Kind::Create, Kind::Append, Kind::Write];
    let more = [Kind::Append, Kind::Append, Kind::Flush, Kind::Release, Kind::Append, Kind::Flush];
    let steps = kinds.into_iter().chain(more).enumerate();
    steps.map(|(at, kind)| Step { kind, seed: seed ^ (at as u64) << 32 }).collect()
}

/// Runs scripts with a fault at every `nth` of `last`, lets them go on, and
/// cuts the power at the end and in the middle.
fn every_fault(
    name: &str,
    seeds: std::ops::Range<u64>,
    last: impl Fn(&FaultyDisk) -> u64,
    fault: impl Fn(&FaultyDisk, u64),
) {
    let mut count = Count::default();
    for seed in seeds {
        let steps = script(seed, 40);
        let rehearsal = rehearse(seed, &steps);
        let operations = rehearsal.disk.operations();
        count.scripts += 1;
        for nth in 1..=last(&rehearsal.disk) {
            let what = format!("{name}: seed {seed}, fault {nth}");
            let start = || {
                let mut driver = Driver::new(FaultyDisk::with_sector_bytes(seed + nth, 4096));
                driver.is_faulty = true;
                fault(&driver.disk, nth);
                driver
            };
            let mut driver = start();
            driver.run(&steps);
            count.note(&driver);
            cut(&driver, nth, 1, &mut count, &what);
            // In the middle.
            let mut driver = start();
            driver.disk.crash_at(1 + nth * 7 % operations);
            driver.run(&steps);
            cut(&driver, nth, 1, &mut count, &what);
            // It goes on by itself, too.
            let mut driver = start();
            driver.run(&steps);
            driver.is_faulty = false;
            let failed = driver.model.failed;
            driver.run(&follow_up(seed + nth));
            assert_eq!(driver.model.failed, failed, "{what}: it did not go on");
            cut(&driver, nth, 0, &mut count, &what);
        }
    }
    println!("{name}: {count:?}");
    assert!(count.failed > 0, "{name}: no fault was noticed");
}

#[test]
fn every_sync_fails_once() {
    every_fault("sync loses all", 20..20 + cases(1), FaultyDisk::syncs, |disk, nth| {
        disk.fail_sync(nth);
    });
    every_fault("sync loses some", 30..30 + cases(1), FaultyDisk::syncs, |disk, nth| {
        disk.fail_sync_partly(nth);
    });
    every_fault(
        "two syncs fail",
        40..40 + cases(1),
        |disk| disk.syncs() - 1,
        |disk, nth| {
            disk.fail_sync(nth);
            disk.fail_sync_partly(nth + 1);
        },
    );
}

#[test]
fn every_write_fails_once() {
    every_fault("write fails", 50..50 + cases(1), FaultyDisk::writes, |disk, nth| {
        disk.fail_write(nth, ErrorKind::Other);
    });
    every_fault("write finds no room", 60..60 + cases(1), FaultyDisk::writes, |disk, nth| {
        disk.fail_write(nth, ErrorKind::StorageFull);
    });
}

#[test]
fn the_disk_is_full_at_every_size() {
    let mut count = Count::default();
    for seed in 70..70 + cases(2) {
        let steps = script(seed, 60);
        for kib in (8..200).step_by(8) {
            let mut driver = Driver::new(FaultyDisk::new(seed));
            driver.is_faulty = true;
            driver.disk.set_capacity(kib << 10);
            driver.run(&steps);
            count.note(&driver);
            let what = format!("seed {seed}, {kib} KiB");
            driver.disk.set_capacity(u64::MAX);
            driver.is_faulty = false;
            let failed = driver.model.failed;
            driver.run(&follow_up(seed));
            assert_eq!(driver.model.failed, failed, "{what}: it did not go on with room");
            if let Some(parts) = &driver.parts {
                let is_full = &parts.shared.is_disk_full;
                assert!(!is_full.load(std::sync::atomic::Ordering::Relaxed), "{what}: still full");
                assert!(parts.shared.failure.lock().is_none(), "{what}: still failing");
            }
            let mut found = driver.after_crash(CrashChoice::Random(kib));
            found.start(&what).unwrap_or_else(|error| panic!("{what}: {error}"));
            count.cuts += 1;
        }
    }
    println!("full disk: {count:?}");
    assert!(count.failed > 50);
}

/// A ledger with several snapshots and journal files, stopped at a flush.
fn grown() -> Driver {
    let mut driver = Driver::new(FaultyDisk::with_sector_bytes(5, 4096));
    for seed in 80..84 {
        driver.run(&script(seed, 40));
        for kind in [Kind::Snapshot, Kind::Create, Kind::Append, Kind::Flush, Kind::Keep] {
            driver.run(&[Step { kind, seed }]);
        }
    }
    driver
}

#[test]
fn a_read_that_fails_stops_the_start_and_no_more() {
    let driver = grown();
    let mut rehearsal = driver.after_crash(CrashChoice::KeepAll);
    rehearsal.start("whole").unwrap();
    let reads = rehearsal.disk.reads();
    let mut refused = 0;
    for nth in 1..=reads {
        let mut found = driver.after_crash(CrashChoice::KeepAll);
        found.is_faulty = true;
        found.disk.fail_read(nth, ErrorKind::Other);
        // Reads of the checks behind the start are counted as well.
        let is_refused = found.start_unchecked(&format!("read {nth}")).is_err();
        refused += u64::from(is_refused);
        if is_refused {
            found.start(&format!("after read {nth} failed")).unwrap();
        }
    }
    println!("{reads} reads, {refused} starts refused");
    assert!(refused > 3);
}

#[test]
fn a_damaged_snapshot_is_passed_over_for_the_one_before() {
    let driver = grown();
    let rehearsal = driver.after_crash(CrashChoice::KeepAll);
    let snapshots = |disk: &FaultyDisk| -> Vec<std::path::PathBuf> {
        let is_snapshot =
            |file: &std::path::PathBuf| file.extension().is_some_and(|e| e == "snapshot");
        disk.files().into_iter().filter(is_snapshot).collect()
    };
    let all = snapshots(&rehearsal.disk);
    let [older, newer] = &all[..] else { panic!("{all:?}") };
    let len = rehearsal.disk.read_file(newer).unwrap().len() as u64;
    for byte in (0..len).step_by(7).chain([len - 1]) {
        let mut found = driver.after_crash(CrashChoice::KeepAll);
        found.disk.corrupt(newer, byte, (byte % 8) as u8).unwrap();
        found.start(&format!("byte {byte} of the newest snapshot")).unwrap();
        // With both of them damaged nothing is guessed.
        let mut found = driver.after_crash(CrashChoice::KeepAll);
        found.is_faulty = true;
        found.disk.corrupt(newer, byte, 0).unwrap();
        found.disk.corrupt(older, byte % 32, 0).unwrap();
        let error = found.start_unchecked("both").unwrap_err();
        assert!(error.to_string().contains("snapshot"), "{error}");
    }
}

#[test]
fn a_start_is_refused_where_journal_files_or_snapshots_are_missing() {
    let driver = grown();
    let rehearsal = driver.after_crash(CrashChoice::KeepAll);
    let mut refused = 0;
    for file in rehearsal.disk.files() {
        let mut found = driver.after_crash(CrashChoice::KeepAll);
        found.disk.remove_file(&file).unwrap();
        found.is_faulty = true;
        match found.start_raw() {
            // A prepared file, the reserve, or one that nothing hangs on.
            Ok(hot) => assert!(found.model.may_be(&hot), "{} is missing", file.display()),
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().contains("INV-"), "{error}");
            }
        }
    }
    println!("{refused} starts refused");
    assert!(refused > 0);
}

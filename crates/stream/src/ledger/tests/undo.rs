//! What was decided can be taken back, and what was refused was never there.

use aquifer_env::FaultyDisk;

use super::crash_points::cases;
use super::driver::Driver;
use super::script::{Kind, script};

/// Decides everything that a script holds into one group, without writing it.
fn decide_all(seed: u64) -> (u64, u64) {
    let mut driver = Driver::new(FaultyDisk::new(seed));
    // A state with something in it, written as usual.
    driver.run(&script(seed, 30));
    if driver.parts.is_none() {
        driver.start("the script ended in a stop").expect("a start");
    }
    let before = driver.hot();
    let (mut done, mut refused) = (0, 0);
    for step in script(seed ^ 0xabcd, 60) {
        if matches!(step.kind, Kind::Write | Kind::WriteBehind | Kind::Flush | Kind::Idle)
            || matches!(step.kind, Kind::Stop | Kind::Kill | Kind::Jump)
        {
            continue;
        }
        let look = |driver: &Driver| {
            let core = driver.parts.as_ref().expect("a ledger").shared.core.lock();
            let assembly = &core.assembly;
            let sizes = (
                assembly.group.len_bytes(),
                assembly.group.frames(),
                assembly.facts.len(),
                assembly.undos.len(),
                assembly.must_sync,
            );
            (sizes, core.sequencer.hot.clone(), assembly.replies.len())
        };
        let (sizes, hot, replies) = look(&driver);
        driver.do_one(step);
        let (sizes_after, hot_after, replies_after) = look(&driver);
        let parts = driver.parts.as_ref().expect("a ledger");
        let core = parts.shared.core.lock();
        let decided: Vec<_> = core.assembly.replies[replies..replies_after]
            .iter()
            .map(|(_, decided)| decided.is_ok())
            .collect();
        done += decided.iter().filter(|is_done| **is_done).count() as u64;
        if !decided.is_empty() && decided.iter().all(|is_done| !is_done) {
            refused += 1;
            assert_eq!(sizes, sizes_after, "seed {seed}: {step:?}");
            assert!(hot == hot_after, "seed {seed}: {step:?}");
        }
    }
    let parts = driver.parts.as_ref().expect("a ledger");
    let mut core = parts.shared.core.lock();
    let undos = std::mem::take(&mut core.assembly.undos);
    core.sequencer.hot.undo(undos.into_iter());
    assert!(core.sequencer.hot == before, "seed {seed}: the state was not restored");
    (done, refused)
}

#[test]
fn undoing_restores_and_refusing_changes_nothing() {
    let (mut done, mut refused) = (0, 0);
    for seed in 0..cases(120) {
        let (more_done, more_refused) = decide_all(seed);
        done += more_done;
        refused += more_refused;
    }
    println!("{done} commits decided and taken back, {refused} refused");
    assert!(done > 500 && refused > 50);
}

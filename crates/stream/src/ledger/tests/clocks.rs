//! Wall clocks that jump: nothing is forgotten before its time.

use std::time::Duration;

use aquifer_env::FaultyDisk;
use aquifer_types::{
    CommitId, Partition, PartitionIndex, ProducerEpoch, ProducerId, Sequence, StreamClass,
    StreamConfig, StreamId, TenantName,
};
use uuid::Uuid;

use super::driver::Driver;
use super::script::{Producer, batch, one, path};
use crate::api::NewStream;
use crate::ledger::event::Operation;
use crate::ledger::sequencer::{Commit, Idempotency};

const NOW_MS: i64 = 1_700_000_000_000;
const HOUR_MS: i64 = 3_600_000;
const TEN_YEARS: i64 = 87_600;

fn at() -> Partition {
    Partition::new(StreamId(Uuid::from_u128(1)), PartitionIndex(0))
}

fn id(number: u64) -> CommitId {
    CommitId(Uuid::from_u128(number.into()))
}

/// An append that is remembered by its id, by its key and by its producer.
fn remembered(number: u64) -> Commit {
    let producer =
        Producer { id: ProducerId(number as i64), epoch: ProducerEpoch(0), sequence: Sequence(0) };
    let append = Operation::Append {
        partition: at(),
        batch: batch(number, 1, 10, Some(producer)),
        expected_offset: None,
    };
    let idempotency = Idempotency {
        tenant: TenantName::default_tenant(),
        key: number.to_string(),
        stream: at().stream,
        request_checksum: 0,
    };
    Commit { id: Some(id(number)), idempotency: Some(idempotency), ..one(append) }
}

/// What is remembered of it: by its id, by its key and by its producer.
fn memory(driver: &Driver, number: u64) -> [bool; 3] {
    let hot = driver.hot();
    let producers = &hot.require(at()).unwrap().1.producers;
    [
        hot.attempts.get(id(number)).is_some(),
        hot.answers.get(&TenantName::default_tenant(), &number.to_string()).is_some(),
        producers.contains(ProducerId(number as i64)),
    ]
}

/// Does something while the wall clock is `done` hours ahead of the time, then
/// something else while it is `other` hours ahead, and looks for what has aged
/// half a minute later, while it is `looked` hours ahead.
fn check(done: i64, other: i64, looked: i64, is_restarted: bool) -> [bool; 3] {
    let mut driver = Driver::new(FaultyDisk::new(1));
    let jump = |driver: &Driver, hours: i64| driver.clock.set_now_ms(NOW_MS + hours * HOUR_MS);
    driver.start("empty").unwrap();
    let new = NewStream {
        path: path("audit"),
        partitions: 1,
        class: StreamClass::Durable,
        config: StreamConfig::default(),
    };
    driver.add(one(Operation::CreateStream { id: at().stream, new }));
    for (number, hours) in [(1, done), (2, other)] {
        jump(&driver, hours);
        driver.add(remembered(number));
        driver.flush();
    }
    jump(&driver, looked);
    if is_restarted {
        driver.stop();
        driver.start("again").unwrap();
    }
    driver.clock.advance(Duration::from_secs(31));
    let parts = driver.parts.as_ref().unwrap();
    parts.shared.core.lock().sequencer.forget_aged();
    memory(&driver, 1)
}

#[test]
fn nothing_is_forgotten_early_when_the_wall_clock_jumps() {
    for is_restarted in [false, true] {
        for (done, other, looked) in [
            (0, 0, 0),
            (0, 0, TEN_YEARS),
            (0, 0, -TEN_YEARS),
            (0, TEN_YEARS, 0),
            (0, TEN_YEARS, -TEN_YEARS),
            (TEN_YEARS, 0, 0),
            (-30, -30, -30),
            (-TEN_YEARS, -TEN_YEARS, -TEN_YEARS),
        ] {
            let found = check(done, other, looked, is_restarted);
            assert_eq!(found, [true; 3], "{done} {other} {looked} {is_restarted}");
        }
        // A producer is known by the stamp of its batch.
        for (done, other, looked) in [(-2, -2, 0), (-30, 0, 0), (-TEN_YEARS, 0, 0)] {
            let [by_id, by_key, _] = check(done, other, looked, is_restarted);
            assert!(by_id && by_key, "{done} {other} {looked} {is_restarted}");
        }
    }
}

#[test]
fn all_of_it_is_forgotten_in_its_time() {
    let mut driver = Driver::new(FaultyDisk::new(1));
    driver.start("empty").unwrap();
    let new = NewStream {
        path: path("audit"),
        partitions: 1,
        class: StreamClass::Durable,
        config: StreamConfig::default(),
    };
    driver.add(one(Operation::CreateStream { id: at().stream, new }));
    driver.add(remembered(1));
    driver.flush();
    let forget = |driver: &Driver, hours: u64| {
        driver.clock.advance(Duration::from_secs(3_600 * hours));
        let parts = driver.parts.as_ref().unwrap();
        parts.shared.core.lock().sequencer.forget_aged();
        memory(driver, 1)
    };
    assert_eq!(forget(&driver, 1), [true; 3]);
    assert_eq!(forget(&driver, 1), [false, true, true]);
    assert_eq!(forget(&driver, 23), [false; 3]);
}

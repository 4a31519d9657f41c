//! Replay from any earlier position ends in the same rows.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::Snapshot;

/// Any change over a few keys, so that they meet often. The sequences are
/// freer than the ledger's: names move, streams come back.
fn any_change() -> impl Strategy<Value = Change> {
    let id = 0..4_u128;
    let value = 0..1_000_i64;
    prop_oneof![
        (id.clone(), 0..3_u8, value.clone()).prop_map(|(id, name, epoch)| {
            let mut row = stream(id, &format!("stream-{name}"));
            row.epoch = epoch;
            Change::PutStream(row)
        }),
        id.clone().prop_map(|id| Change::RemoveStream(stream_id(id))),
        (id.clone(), 0..3_i32, value.clone())
            .prop_map(|(id, number, at)| Change::PutPartition(partition(id, number, at))),
        (id.clone(), id.clone(), 0..3_i32, value.clone())
            .prop_map(|(id, stream, number, at)| Change::PutChunk(chunk(id, stream, number, at))),
        id.clone().prop_map(|id| Change::RemoveChunk(chunk_id(id))),
        (id.clone(), value.clone())
            .prop_map(|(id, due)| Change::AddGarbage(garbage(&format!("object-{id}"), due))),
        id.clone().prop_map(|id| Change::RemoveGarbage(format!("object-{id}"))),
        (id.clone(), id.clone(), 0..3_i32)
            .prop_map(|(id, stream, number)| Change::PutIntent(intent(id, stream, number))),
        id.clone().prop_map(|id| Change::RemoveIntent(chunk_id(id))),
        (id.clone(), value.clone())
            .prop_map(|(id, name)| Change::PutTombstone(tombstone(id, &name.to_string()))),
        id.clone().prop_map(|id| Change::RemoveTombstone(stream_id(id))),
        (id.clone(), value.clone())
            .prop_map(|(id, value)| Change::PutMeta(meta(&id.to_string(), &value.to_string()))),
        (id, 0..3_i32, value).prop_map(|(id, number, path)| Change::PutField(field(
            id,
            number,
            &path.to_string()
        ))),
    ]
}

fn load(catalog: &Catalog) -> Snapshot {
    let mut snapshot = catalog.load().unwrap();
    snapshot.position = None;
    snapshot
}

#[test]
fn a_replay_from_anywhere_converges() {
    let replays_that_met_later_rows = Cell::new(0);
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let sequences = (proptest::collection::vec(any_change(), 1..60), 0..60_usize);
    let result = runner.run(&sequences, |(changes, from)| {
        let from = from % changes.len();
        let mut once = Catalog::open_in_memory().unwrap();
        once.apply(1, &changes[..from]).unwrap();
        let middle = load(&once);
        once.apply(2, &changes[from..]).unwrap();
        let wanted = load(&once);

        // Each change in a transaction of its own, then all of them from
        // `from` on again as if the position had been lost.
        let mut again = Catalog::open_in_memory().unwrap();
        let replayed = changes.iter().chain(&changes[from..]);
        for (position, change) in replayed.enumerate() {
            again.apply(position as u64, std::slice::from_ref(change)).unwrap();
        }
        prop_assert_eq!(&load(&again), &wanted);
        let met = usize::from(middle != wanted);
        replays_that_met_later_rows.set(replays_that_met_later_rows.get() + met);
        Ok(())
    });
    result.unwrap();
    // A run whose replays had nothing to overwrite would prove nothing.
    assert!(replays_that_met_later_rows.get() > 200);
}

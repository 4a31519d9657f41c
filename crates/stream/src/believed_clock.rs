//! The time that ages are counted to: a clock that no jump hastens.
//!
//! It is the lower of the wall clock and of the newest append that the start
//! has found, plus what a clock that never jumps has counted since. It decides
//! nothing; [`crate::retention`] says what follows from it.

use std::sync::Arc;

use aquifer_env::Clock;
use aquifer_types::Timestamp;

use crate::index::{Index, PartitionState};
use crate::steady::SteadyClock;

/// A clock that a jump of the wall clock cannot hasten.
#[derive(Debug)]
pub(crate) struct BelievedClock(SteadyClock);

impl BelievedClock {
    /// To be made before anything is appended: what is there says how far time
    /// had come.
    pub(crate) fn of_index(clock: Arc<dyn Clock>, index: &Index) -> Self {
        let newest = index
            .all_streams()
            .iter()
            .flat_map(|stream| stream.partitions().to_vec())
            .filter_map(|log| log.with(newest_append))
            .max();
        Self::new(clock, newest)
    }

    pub(crate) fn new(clock: Arc<dyn Clock>, newest_append: Option<Timestamp>) -> Self {
        Self(SteadyClock::new(clock, newest_append))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.believed()
    }
}

fn newest_append(state: &PartitionState) -> Option<Timestamp> {
    let in_chunks = state.chunks.iter().filter_map(|chunk| chunk.max_appended).max();
    let in_tail = state.tail.iter().map(|entry| entry.appended).max();
    in_chunks.max(in_tail)
}

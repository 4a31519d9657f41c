//! What can be read without waiting: the part of the tail that is in memory.

use std::sync::Arc;

use aquifer_types::{Batch, Offset};

use super::Reader;
use super::reader::checked;
use crate::Error;
use crate::api::{AbortedTransaction, Isolation};
use crate::index::PartitionLog;

/// A read that did not wait for anything.
#[derive(Debug, Clone)]
pub enum HotRead {
    /// Batches, in order, and where to go on behind them: behind a gap that
    /// follows them too. None of both where nothing is there yet, or no batch
    /// fits.
    Batches {
        /// As their producers sent them.
        batches: Vec<Batch>,
        /// The position behind them.
        next_offset: Offset,
        /// For [`Isolation::Committed`]: the aborted transactions that they
        /// overlap with, by their first offsets.
        aborted: Vec<AbortedTransaction>,
    },
    /// Disk or tier 2 has to be asked.
    Cold,
}

impl Reader {
    pub(crate) fn read_hot(
        &self,
        log: &Arc<PartitionLog>,
        from: Offset,
        bytes_max: usize,
        needs_one: bool,
        isolation: Isolation,
    ) -> Result<HotRead, Error> {
        let mut next_offset = from;
        let mut aborted = Vec::new();
        let entries = log.with(|state| {
            if from < state.start || from > state.end {
                return Err(Error::out_of_range(log.partition, from, state.start, state.end));
            }
            let visible = match isolation {
                Isolation::Committed => state.stable(),
                Isolation::Uncommitted => state.end,
            };
            if from >= visible {
                return Ok(Some(Vec::new()));
            }
            if from < state.tiered {
                return Ok(None);
            }
            // Under one lock with the batches: tiering drops both together.
            if isolation == Isolation::Committed {
                aborted = state.transactions.aborted_from(from);
            }
            let mut bytes = 0;
            let mut entries = Vec::new();
            for entry in state.tail.range(state.tail_at(from)..) {
                let is_over = bytes + entry.len as usize > bytes_max;
                if entry.base >= visible || (is_over && !(needs_one && entries.is_empty())) {
                    // Behind a gap, or nothing fits: nothing is passed over.
                    let end = entry.base.min(visible);
                    next_offset = next_offset.max(end);
                    return Ok(Some(entries));
                }
                bytes += entry.len as usize;
                next_offset = entry.next;
                entries.push(*entry);
            }
            next_offset = next_offset.max(visible);
            Ok(Some(entries))
        })?;
        let Some(entries) = entries else { return Ok(HotRead::Cold) };
        let mut batches: Vec<Batch> = Vec::with_capacity(entries.len());
        let of_batches = |batches: &[Batch]| {
            let first = batches.first().map(|first| first.header().base_offset);
            let last = batches.last().map(|last| last.header().last_offset());
            let overlaps = |of: &AbortedTransaction| {
                first.is_some_and(|first| of.last_offset >= first)
                    && last.is_some_and(|last| of.first_offset <= last)
            };
            aborted.iter().copied().filter(overlaps).collect()
        };
        for entry in &entries {
            let cached = self.index.tail_cache.get(entry.file, entry.position, entry.len as usize);
            let Some(bytes) = cached else {
                // What is in memory is answered; the rest is asked for next.
                return Ok(match batches.last().map(|last| last.header().next_offset()) {
                    Some(next_offset) => {
                        let aborted = of_batches(&batches);
                        HotRead::Batches { batches, next_offset, aborted }
                    }
                    None => HotRead::Cold,
                });
            };
            batches.push(checked(entry, bytes)?);
        }
        let aborted = of_batches(&batches);
        Ok(HotRead::Batches { batches, next_offset, aborted })
    }
}

//! Nobody blocks everybody: batches that cannot be tiered, because an open
//! transaction hides them, do not keep the journal's oldest files.
//!
//! They are written anew at the head of the journal, with their offsets; that
//! changes nothing but their place. A crash leaves a batch at one place or at
//! both, and the next start takes the later one.

use std::sync::Arc;

use aquifer_journal::FileId;
use aquifer_types::Partition;

use super::Tier;
use crate::Error;
use crate::index::{PartitionLog, TailEntry};
use crate::ledger::{Commit, Operation};

/// Bytes that are written anew in one commit.
const COMMIT_BYTES: usize = 1 << 20;
/// Journal files that are emptied in one round.
const FILES_MAX: usize = 4;
/// Files that wait for other things than their records to be released: with
/// more than one in this many of the journal, emptying another does not help.
const UNRELEASED_PART: u64 = 4;

/// What cannot be tiered, as far as it lies in one file.
struct Stuck {
    log: Arc<PartitionLog>,
    entries: Vec<TailEntry>,
}

impl Tier {
    /// Empties the journal's oldest files of what cannot be tiered, while the
    /// journal is nearly full.
    pub(super) async fn relocate_stuck(&self) -> Result<(), Error> {
        let mut emptied = None;
        for _ in 0..FILES_MAX {
            let unreleased = self.ledger.files_before_live() as u64;
            let unreleased_bytes = unreleased * self.options.journal_file_bytes;
            let is_held_otherwise =
                unreleased_bytes > self.options.journal_bytes_max / UNRELEASED_PART;
            if !self.is_journal_pressed() || is_held_otherwise {
                return Ok(());
            }
            let Some(oldest) = self.ledger.oldest_live_file() else { return Ok(()) };
            let (stuck, bytes) = self.find_stuck(oldest);
            // Written again and again, more than half of the journal would leave
            // too little room between.
            let is_too_much = bytes > self.ledger.journal_bytes() / 2;
            if stuck.is_empty() || is_too_much || emptied == Some(oldest) {
                return Ok(());
            }
            for stuck in &stuck {
                self.relocate(stuck).await?;
            }
            emptied = Some(oldest);
            self.ledger.wake_keeper();
        }
        Ok(())
    }

    /// What cannot be tiered of a file, and the bytes of all that cannot.
    fn find_stuck(&self, file: FileId) -> (Vec<Stuck>, u64) {
        let mut stuck = Vec::new();
        let mut bytes = 0;
        for stream in self.reader.index.all_streams() {
            for log in stream.partitions().iter() {
                let entries: Vec<TailEntry> = log.with(|state| {
                    let stable = state.stable();
                    if state.tail.front().is_none_or(|first| first.next <= stable) {
                        return Vec::new();
                    }
                    bytes += state.tail_bytes;
                    state.tail.iter().filter(|entry| entry.file == file).copied().collect()
                });
                if !entries.is_empty() {
                    stuck.push(Stuck { log: log.clone(), entries });
                }
            }
        }
        (stuck, bytes)
    }

    async fn relocate(&self, stuck: &Stuck) -> Result<(), Error> {
        let partition: Partition = stuck.log.partition;
        let mut rest = stuck.entries.as_slice();
        while !rest.is_empty() {
            let (piece, behind) = TailEntry::split(rest, COMMIT_BYTES);
            rest = behind;
            // Truncated or deleted meanwhile.
            let Some(batches) = self.reader.read_tail(piece).await? else { return Ok(()) };
            let relocate = |(entry, batch): (&TailEntry, _)| Operation::Relocate {
                partition,
                batch,
                appended: entry.appended,
            };
            let operations = piece.iter().zip(batches).map(relocate).collect();
            self.ledger.commit(Commit::of(operations)).await?;
            let bytes = piece.iter().map(|entry| u64::from(entry.len)).sum();
            self.metrics.journal_bytes_relocated.inc_by(bytes);
        }
        Ok(())
    }
}

//! Deleting objects of tier 2 that nobody needs any more.
//!
//! An object goes when its grace time is over, no reader holds a lease from
//! before its removal, and the last manifest says that it is garbage: whoever
//! recovers from tier 2 misses nothing. Then the ledger forgets it. A crash
//! between the two deletes it again, which does no harm.

use super::{Tier, from_store};
use crate::Error;
use crate::ledger::Operation;

/// Objects deleted in one round.
const DELETED_MAX: usize = 200;

impl Tier {
    pub(super) async fn collect_garbage(&self) -> Result<(), Error> {
        let now = self.now();
        let oldest_lease = self.reader.leases.oldest(now);
        let deletable = self.deletable.lock().clone();
        let due: Vec<String> = {
            let garbage = self.reader.index.garbage.lock();
            garbage
                .iter()
                .filter(|(path, garbage)| {
                    deletable.contains(*path)
                        && garbage.due <= now
                        && oldest_lease.is_none_or(|taken| taken > garbage.since)
                })
                .map(|(path, _)| path.clone())
                .take(DELETED_MAX)
                .collect()
        };
        if due.is_empty() {
            return Ok(());
        }
        self.owner.check().await?;
        for path in &due {
            self.store.delete(path).await.map_err(from_store)?;
        }
        self.metrics.garbage_deleted.inc_by(due.len() as u64);
        self.commit(Operation::CollectGarbage { object_paths: due }).await.map(|_| ())
    }
}

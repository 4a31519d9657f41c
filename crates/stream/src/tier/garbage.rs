//! Deleting objects of tier 2 that nobody needs any more.
//!
//! An object goes when its grace time is over, no reader holds a lease from
//! before its removal, and the last manifest says that it is garbage: whoever
//! recovers from tier 2 misses nothing. Then the ledger forgets it. A crash
//! between the two deletes it again, which does no harm.
//!
//! Both times are counted on the monotonic clock, from when this run saw the
//! garbage first: a wall clock that jumps takes nothing from under a reader, and
//! a start lets all of it wait once more.

use aquifer_env::store::StoreErrorKind;

use super::{Tier, from_store};
use crate::Error;
use crate::ledger::Operation;

/// Objects deleted in one round.
const DELETED_MAX: usize = 200;

impl Tier {
    pub(super) async fn collect_garbage(&self) -> Result<(), Error> {
        let now_ns = self.environment.clock.monotonic_ns();
        let grace_ns = self.options.chunk_grace_ms.saturating_mul(1_000_000);
        let oldest_lease_ns = self.reader.leases.oldest(now_ns);
        let deletable = self.deletable.lock().clone();
        let mut due = Vec::new();
        for (path, garbage) in self.reader.index.garbage.lock().iter_mut() {
            let since_ns = *garbage.counted_ns.get_or_insert(now_ns);
            let is_due = deletable.contains(path)
                && now_ns.saturating_sub(since_ns) >= grace_ns
                && oldest_lease_ns.is_none_or(|taken_ns| taken_ns > since_ns);
            if is_due && due.len() < DELETED_MAX {
                due.push(path.clone());
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        self.owner.check().await?;
        let (mut deleted, mut failure) = (Vec::with_capacity(due.len()), None);
        for path in due {
            match self.store.delete(&path).await {
                Ok(()) => deleted.push(path),
                Err(error) => {
                    // One that may not be deleted keeps no other.
                    let is_away = error.kind == StoreErrorKind::Unavailable;
                    failure = Some(from_store(error));
                    if is_away {
                        break;
                    }
                }
            }
        }
        if !deleted.is_empty() {
            self.metrics.garbage_deleted.inc_by(deleted.len() as u64);
            self.commit(Operation::CollectGarbage { object_paths: deleted }).await?;
        }
        failure.map_or(Ok(()), Err)
    }
}

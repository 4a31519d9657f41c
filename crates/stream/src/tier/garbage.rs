//! Deleting objects of tier 2 that nobody needs any more.
//!
//! An object goes when its grace time is over, no reader holds a lease from
//! before its removal, and the last manifest says that it is garbage: whoever
//! recovers from tier 2 misses nothing. Then the ledger forgets it. A crash
//! between the two deletes it again, which does no harm.

use aquifer_env::store::StoreErrorKind;

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

//! When which group has something due: one queue and one task for all groups.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::GroupKey;
use super::classic::Ms;

/// The queue; a group is in it at most once.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: Mutex<BTreeSet<(Ms, GroupKey)>>,
    earlier: Notify,
}

impl Timers {
    /// Moves a group's entry; `armed` is where it is.
    pub(super) fn arm(&self, key: &GroupKey, armed: &mut Option<Ms>, wake: Option<Ms>) {
        // What is due later is looked at when its entry comes up.
        if wake.is_none() || armed.is_some_and(|armed| wake.is_some_and(|wake| armed <= wake)) {
            return;
        }
        let mut queue = self.queue.lock();
        if let Some(old) = armed.take() {
            queue.remove(&(old, key.clone()));
        }
        let Some(wake) = wake else { return };
        queue.insert((wake, key.clone()));
        *armed = Some(wake);
        let is_first = queue.first().is_some_and(|(at, of)| *at == wake && of == key);
        drop(queue);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Takes a group out.
    pub(super) fn disarm(&self, key: &GroupKey, armed: &mut Option<Ms>) {
        if let Some(old) = armed.take() {
            self.queue.lock().remove(&(old, key.clone()));
        }
    }

    /// Takes out what is due.
    pub(super) fn due(&self, now: Ms) -> Vec<GroupKey> {
        let mut queue = self.queue.lock();
        let mut due = Vec::new();
        while queue.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(queue.pop_first().map(|(_, key)| key));
        }
        due
    }

    /// When the next entry is due.
    pub(super) fn next(&self) -> Option<Ms> {
        self.queue.lock().first().map(|(at, _)| *at)
    }

    /// Waits until an entry is put first.
    pub(super) async fn earlier(&self) {
        self.earlier.notified().await;
    }
}

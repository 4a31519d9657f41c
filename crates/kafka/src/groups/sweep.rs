//! Positions that nobody has committed for long, and groups without any.

use std::sync::Arc;
use std::time::Duration;

use aquifer_stream::DocumentExpectation;
use aquifer_types::{Partition, Timestamp};
use tokio::sync::watch;

use super::{Group, GroupKey, Inner, document};

/// How often all groups are looked at.
const INTERVAL: Duration = Duration::from_secs(600);

pub(super) async fn run(groups: Arc<Inner>, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return,
        }
        groups.sweep().await;
    }
}

impl Inner {
    /// Forgets positions of groups that were empty for `offsets_retention_ms`,
    /// and empty groups that have no positions left.
    pub(super) async fn sweep(self: &Arc<Self>) {
        let retention = i64::try_from(self.offsets_retention_ms).unwrap_or(i64::MAX);
        let expired = Timestamp(self.clock.now_ms().saturating_sub(retention));
        for (tenant, group) in self.store.all_groups() {
            let key = GroupKey { tenant, group };
            if let Err(error) = self.sweep_positions(&key, expired).await {
                let group = key.group.as_str();
                tracing::warn!(%error, group, "expired positions were not forgotten");
            }
        }
        for group in self.all() {
            if let Err(error) = self.sweep_group(&group, expired).await {
                let group = group.key.group.as_str();
                tracing::warn!(%error, group, "an empty group was not forgotten");
            }
        }
    }

    async fn sweep_positions(
        self: &Arc<Self>,
        key: &GroupKey,
        expired: Timestamp,
    ) -> Result<(), aquifer_stream::Error> {
        let group = self.get(key);
        let _together = match &group {
            Some(group) => Some(group.commits.read().await),
            None => None,
        };
        if group.as_ref().is_some_and(|group| !group.is_empty_since(expired)) {
            return Ok(());
        }
        let positions = self.store.positions(&key.tenant, &key.group);
        let due = positions.iter().filter(|(_, position)| position.committed < expired);
        let due: Vec<Partition> = due.map(|(at, _)| *at).collect();
        if due.is_empty() {
            return Ok(());
        }
        tracing::info!(group = key.group.as_str(), positions = due.len(), "positions expired");
        self.store.forget_positions(&key.tenant, &key.group, due, Some(expired)).await
    }

    async fn sweep_group(
        self: &Arc<Self>,
        group: &Arc<Group>,
        expired: Timestamp,
    ) -> Result<(), aquifer_stream::Error> {
        let key = &group.key;
        let _alone = group.commits.write().await;
        if !self.store.positions(&key.tenant, &key.group).is_empty() {
            return Ok(());
        }
        {
            let mut shell = group.shell.lock();
            let is_due = shell.empty_since_ms.is_some_and(|at| Timestamp(at) < expired);
            if shell.is_gone || shell.is_saving || !shell.machine.is_vacant() || !is_due {
                return Ok(());
            }
            self.forget(group, &mut shell);
        }
        self.store.delete_document(document::key(key), DocumentExpectation::Any).await
    }
}

impl Group {
    fn is_empty_since(&self, time: Timestamp) -> bool {
        let shell = self.shell.lock();
        shell.machine.is_vacant() && shell.empty_since_ms.is_none_or(|at| Timestamp(at) < time)
    }
}

//! Groups' positions by partition, as doors with many of them use them.

use std::collections::BTreeMap;

use aquifer_types::{GroupName, Partition, TenantName, Timestamp};

use super::StreamStore;
use crate::Error;
use crate::api::GroupPosition;
use crate::ledger::Operation;

impl StreamStore {
    /// All positions of a group; empty where there is no such group.
    #[must_use]
    pub fn positions(
        &self,
        tenant: &TenantName,
        group: &GroupName,
    ) -> BTreeMap<Partition, GroupPosition> {
        self.inner.index.groups.read().get(tenant, group).cloned().unwrap_or_default()
    }

    /// Some positions of a group, in the order in which they were asked for.
    #[must_use]
    pub fn positions_of(
        &self,
        tenant: &TenantName,
        group: &GroupName,
        partitions: &[Partition],
    ) -> Vec<Option<GroupPosition>> {
        let groups = self.inner.index.groups.read();
        let kept = groups.get(tenant, group);
        partitions.iter().map(|at| kept.and_then(|kept| kept.get(at)).cloned()).collect()
    }

    /// The groups of all tenants.
    #[must_use]
    pub fn all_groups(&self) -> Vec<(TenantName, GroupName)> {
        self.inner.index.groups.read().0.keys().cloned().collect()
    }

    /// Forgets some of a group's positions, or of them those that were
    /// committed before a time. A group without positions is gone.
    ///
    /// # Errors
    /// As the ledger's.
    pub async fn forget_positions(
        &self,
        tenant: &TenantName,
        group: &GroupName,
        partitions: Vec<Partition>,
        committed_before: Option<Timestamp>,
    ) -> Result<(), Error> {
        let operation = Operation::ForgetPositions {
            tenant: tenant.clone(),
            group: group.clone(),
            partitions,
            committed_before,
        };
        self.commit(vec![operation]).await.map(|_| ())
    }
}

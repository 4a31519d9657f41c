//! The positions of consumer groups, as they were committed.

use std::collections::BTreeMap;

use aquifer_types::{GroupName, Partition, StreamId, TenantName};

use crate::api::GroupPosition;

/// Positions by group and partition.
#[derive(Debug, Default, Clone)]
pub(crate) struct Groups(
    pub(crate) BTreeMap<(TenantName, GroupName), BTreeMap<Partition, GroupPosition>>,
);

impl Groups {
    pub(crate) fn get(
        &self,
        tenant: &TenantName,
        group: &GroupName,
    ) -> Option<&BTreeMap<Partition, GroupPosition>> {
        self.0.get(&(tenant.clone(), group.clone()))
    }

    pub(crate) fn of_tenant<'a>(
        &'a self,
        tenant: &'a TenantName,
    ) -> impl Iterator<Item = &'a GroupName> {
        self.0.keys().filter(move |(of, _)| of == tenant).map(|(_, group)| group)
    }

    pub(crate) fn commit(
        &mut self,
        tenant: &TenantName,
        group: &GroupName,
        positions: &[(Partition, GroupPosition)],
    ) {
        let kept = self.0.entry((tenant.clone(), group.clone())).or_default();
        kept.extend(positions.iter().map(|(at, position)| (*at, position.clone())));
    }

    pub(crate) fn forget(
        &mut self,
        tenant: &TenantName,
        group: &GroupName,
        partitions: &[Partition],
    ) {
        let key = (tenant.clone(), group.clone());
        let Some(kept) = self.0.get_mut(&key) else { return };
        kept.retain(|at, _| !partitions.contains(at));
        if kept.is_empty() {
            self.0.remove(&key);
        }
    }

    pub(crate) fn delete(&mut self, tenant: &TenantName, group: &GroupName) {
        self.0.remove(&(tenant.clone(), group.clone()));
    }

    pub(crate) fn forget_stream(&mut self, stream: StreamId) {
        for positions in self.0.values_mut() {
            positions.retain(|partition, _| partition.stream != stream);
        }
        self.0.retain(|_, positions| !positions.is_empty());
    }
}

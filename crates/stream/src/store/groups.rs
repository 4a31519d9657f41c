//! Groups and their positions.

use std::collections::BTreeMap;

use aquifer_types::{
    GroupName, Offset, Partition, PartitionIndex, StreamName, StreamPath, TenantName, Timestamp,
};

use super::StreamStore;
use crate::Error;
use crate::api::{GroupDescription, GroupPosition, PositionNote};
use crate::ledger::{
    Commit, DocumentExpectation, DocumentKey, DocumentKind, Operation, Precondition,
};

/// The longest note that a group may leave beside a position, in bytes.
pub const POSITION_METADATA_BYTES_MAX: usize = 4096;

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

    /// Commits positions of a consumer group.
    ///
    /// # Errors
    /// Where the stream or a partition does not exist, or a note is too long.
    pub async fn commit_positions(
        &self,
        tenant: &TenantName,
        group: &GroupName,
        stream: &StreamName,
        positions: BTreeMap<PartitionIndex, (Offset, String)>,
    ) -> Result<(), Error> {
        let path = StreamPath::new(tenant.clone(), stream.clone());
        let stream = self.inner.index.stream(&path)?;
        let mut kept = Vec::with_capacity(positions.len());
        for (index, (offset, metadata)) in positions {
            stream.partition(index)?;
            kept.push((Partition::new(stream.id, index), offset, metadata));
        }
        self.commit_positions_while(tenant, group, kept, DocumentExpectation::Any).await
    }

    /// [`StreamStore::commit_positions`] of any streams, as long as the group's
    /// document is as expected.
    ///
    /// # Errors
    /// As there; [`Error::DocumentChanged`].
    pub async fn commit_positions_while(
        &self,
        tenant: &TenantName,
        group: &GroupName,
        positions: Vec<(Partition, Offset, String)>,
        expected: DocumentExpectation,
    ) -> Result<(), Error> {
        for (_, offset, metadata) in &positions {
            check_position(*offset, metadata)?;
        }
        let positions = noted(positions);
        let (tenant, group) = (tenant.clone(), group.clone());
        let key = DocumentKey::new(tenant.clone(), DocumentKind::Group, group.as_str());
        let operation = Operation::CommitPositions { tenant, group, positions };
        let require = vec![Precondition::Document { key, expected }];
        let commit = Commit { require, ..Commit::of(vec![operation]) };
        self.inner.ledger.commit(commit).await.map(|_| ())
    }

    /// The groups of a tenant.
    #[must_use]
    pub fn list_groups(&self, tenant: &TenantName) -> Vec<GroupName> {
        self.inner.index.groups.read().of_tenant(tenant).cloned().collect()
    }

    /// A group's positions, but for negative offsets, which mean none to the
    /// clients that commit them.
    ///
    /// # Errors
    /// [`Error::GroupNotFound`].
    pub fn describe_group(
        &self,
        tenant: &TenantName,
        group: &GroupName,
    ) -> Result<GroupDescription, Error> {
        let groups = self.inner.index.groups.read();
        let positions =
            groups.get(tenant, group).ok_or_else(|| Error::GroupNotFound(group.to_string()))?;
        let mut by_stream: BTreeMap<StreamPath, BTreeMap<_, _>> = BTreeMap::new();
        for (partition, position) in positions.iter().filter(|(_, of)| of.offset >= Offset::ZERO) {
            let Some(stream) = self.inner.index.stream_by_id(partition.stream) else { continue };
            let of_stream = by_stream.entry(stream.path.clone()).or_default();
            of_stream.insert(partition.index, position.clone());
        }
        Ok(GroupDescription { group: group.clone(), positions: by_stream })
    }

    /// Forgets a group's positions.
    ///
    /// # Errors
    /// [`Error::GroupNotFound`].
    pub async fn delete_group(&self, tenant: &TenantName, group: &GroupName) -> Result<(), Error> {
        let operation = Operation::DeleteGroup { tenant: tenant.clone(), group: group.clone() };
        self.commit(vec![operation]).await.map(|_| ())
    }

    /// Forgets a group with its document, as long as that is as expected.
    ///
    /// # Errors
    /// [`Error::GroupNotFound`] where there is neither; [`Error::DocumentChanged`].
    pub async fn delete_group_while(
        &self,
        tenant: &TenantName,
        group: &GroupName,
        expected: DocumentExpectation,
    ) -> Result<(), Error> {
        let key = DocumentKey::new(tenant.clone(), DocumentKind::Group, group.as_str());
        let has_positions = self.inner.index.groups.read().get(tenant, group).is_some();
        if !has_positions && self.document(&key).is_none() {
            return Err(Error::GroupNotFound(group.to_string()));
        }
        let mut operations = vec![Operation::DeleteDocument { key, expected }];
        if has_positions {
            let (tenant, group) = (tenant.clone(), group.clone());
            operations.push(Operation::DeleteGroup { tenant, group });
        }
        self.commit(operations).await.map(|_| ())
    }
}

/// Positions of consumers that say nothing of leader epochs.
pub(super) fn noted(
    positions: Vec<(Partition, Offset, String)>,
) -> Vec<(Partition, Offset, PositionNote)> {
    positions.into_iter().map(|(at, offset, metadata)| (at, offset, metadata.into())).collect()
}

/// Whether a position may be committed.
pub(super) fn check_position(offset: Offset, metadata: &str) -> Result<(), Error> {
    if metadata.len() > POSITION_METADATA_BYTES_MAX {
        return Err(Error::TooLarge {
            what: "a position's metadata".into(),
            size: metadata.len() as u64,
            limit: POSITION_METADATA_BYTES_MAX as u64,
            limit_name: "4 KiB",
        });
    }
    if offset < Offset::ZERO {
        return Err(Error::Invalid(format!("offset {offset} is negative")));
    }
    Ok(())
}

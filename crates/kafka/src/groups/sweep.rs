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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aquifer_env::{Clock as _, MockClock};
    use aquifer_stream::{DocumentKind, Environment, NewStream, Options, StreamStore};
    use aquifer_types::{
        GroupName, Offset, PartitionIndex, StreamClass, StreamConfig, StreamName, StreamPath,
        TenantName,
    };
    use prometheus_client::registry::Registry;

    use super::super::Groups;
    use super::super::classic::{Asker, Join, Protocol};
    use super::*;
    use crate::KafkaOptions;

    fn key(group: &str) -> GroupKey {
        let group = GroupName::new(group).unwrap();
        GroupKey { tenant: TenantName::default_tenant(), group }
    }

    async fn commit(store: &StreamStore, group: &GroupKey) {
        let stream = StreamName::new("s").unwrap();
        let positions = BTreeMap::from([(PartitionIndex(0), (Offset(0), String::new()))]);
        store.commit_positions(&group.tenant, &group.group, &stream, positions).await.unwrap();
    }

    fn join() -> Join {
        Join {
            member: Asker::default(),
            fresh_id: "m".into(),
            client_id: String::new(),
            client_host: String::new(),
            session_ms: 10_000,
            rebalance_ms: 10_000,
            protocol_type: "consumer".into(),
            protocols: vec![Protocol { name: "range".into(), metadata: bytes::Bytes::new() }],
            takes_id_first: false,
            skips_assignment: false,
        }
    }

    #[tokio::test]
    async fn positions_expire_when_their_group_was_empty_for_long() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(MockClock::new(1_000_000));
        let environment = Environment { clock: clock.clone(), ..Environment::real() };
        let random = environment.random.clone();
        let options = Options { data: directory.path().join("data"), ..Options::default() };
        let store =
            StreamStore::open(options, environment, &mut Registry::default()).await.unwrap();
        let path = StreamPath::new(TenantName::default_tenant(), StreamName::new("s").unwrap());
        let (class, config) = (StreamClass::Durable, StreamConfig::default());
        store.create_stream(NewStream { path, partitions: 1, class, config }).await.unwrap();
        let kafka = KafkaOptions {
            offsets_retention_ms: 60_000,
            group_initial_delay_ms: 0,
            ..KafkaOptions::default()
        };
        let (_stop, stopping) = watch::channel(false);
        let groups = Groups::start(store.clone(), &kafka, clock.clone(), random, stopping);
        let (simple, joined) = (key("simple"), key("joined"));
        commit(&store, &simple).await;
        commit(&store, &joined).await;
        assert_eq!(groups.join(&joined, join()).await.generation, 1);
        let has = |group: &GroupKey| store.describe_group(&group.tenant, &group.group).is_ok();
        let pass = |ms| clock.set_now_ms(clock.now_ms() + ms);
        pass(60_001);
        groups.inner.sweep().await;
        assert_eq!((has(&simple), has(&joined)), (false, true), "a member keeps its group's");
        let member = Asker { member: "m".into(), instance: None };
        groups.leave(&joined, &member).unwrap();
        // The empty group is stored before anything else is done to it.
        let mut stored = store.watch_documents();
        while store.documents(&joined.tenant, DocumentKind::Group).is_empty() {
            stored.changed().await.unwrap();
        }
        pass(60_000);
        groups.inner.sweep().await;
        assert!(has(&joined), "it was left just now");
        pass(2);
        groups.inner.sweep().await;
        assert!(!has(&joined));
        assert!(groups.list(&joined.tenant).is_empty());
        assert!(store.documents(&joined.tenant, DocumentKind::Group).is_empty());
        store.shutdown().await.unwrap();
    }
}

//! The rules of consumer groups, one by one, and all of them under churn.

mod assigned;
mod churn;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use aquifer_types::{Partition, PartitionIndex, StreamId};
use uuid::Uuid;

use super::{Beat, JOINS, Limits, Ms, Topic, Topics};

const SESSION_MS: Ms = 100;
const REBALANCE_MS: Ms = 300;
const LIMITS: Limits = Limits { session_ms: SESSION_MS, members_max: 8 };

/// Topics that can be changed.
#[derive(Debug, Clone, Default)]
struct Stage {
    version: u64,
    topics: BTreeMap<String, Topic>,
    ids: u128,
}

impl Stage {
    fn with(topics: &[(&str, u32)]) -> Self {
        let mut stage = Self::default();
        for (name, partitions) in topics {
            stage.create(name, *partitions);
        }
        stage
    }

    fn create(&mut self, name: &str, partitions: u32) {
        self.ids += 1;
        let id = StreamId(Uuid::from_u128(self.ids));
        self.topics.insert(name.to_owned(), Topic { id, partitions });
        self.version += 1;
    }

    fn grow(&mut self, name: &str, partitions: u32) {
        self.topics.get_mut(name).unwrap().partitions = partitions;
        self.version += 1;
    }

    fn delete(&mut self, name: &str) {
        self.topics.remove(name);
        self.version += 1;
    }

    /// Every partition of these topics.
    fn partitions(&self, names: &[&str]) -> BTreeSet<Partition> {
        let topics = names.iter().filter_map(|name| self.topics.get(*name));
        let of = |topic: &Topic| {
            let id = topic.id;
            (0..topic.partitions).map(move |index| Partition::new(id, PartitionIndex(index)))
        };
        topics.flat_map(of).collect()
    }
}

impl Topics for Stage {
    fn version(&self) -> u64 {
        self.version
    }

    fn find(&self, name: &str) -> Option<Topic> {
        self.topics.get(name).copied()
    }

    fn names(&self) -> Vec<String> {
        self.topics.keys().cloned().collect()
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// A member's first heartbeat.
fn join(member: &str, topics: &[&str]) -> Beat {
    Beat {
        member: member.into(),
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        epoch: JOINS,
        rebalance_ms: Some(REBALANCE_MS),
        names: Some(names(topics)),
        owned: Some(BTreeSet::new()),
        ..Beat::default()
    }
}

/// A heartbeat that says nothing new.
fn beat(member: &str, epoch: i32) -> Beat {
    Beat { rebalance_ms: None, names: None, owned: None, epoch, ..join(member, &[]) }
}

//! A consumer group as it is stored: epochs, and of each member what it says of
//! itself, what it has and what it shall have.
//!
//! Partitions are written as runs of a stream, which is named by its place in a
//! list, so that the document of a large group stays small.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_types::{Partition, PartitionIndex, StreamId};
use serde::{Deserialize, Serialize};

use super::classic::Ms;
use super::consumer::{Assignor, ConsumerGroup, Limits, Member};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ConsumerDocument {
    epoch: i32,
    target_epoch: i32,
    assignor: Assignor,
    /// Of the topics that the target was computed for.
    topics_hash: u64,
    /// The streams that the members' partitions are of.
    streams: Vec<StreamId>,
    members: Vec<MemberDocument>,
}

/// Partitions of the stream at a place in the list.
type Indexes = (usize, Vec<u32>);
/// The same, given in one epoch.
type Given = (i32, usize, Vec<u32>);

#[derive(Debug, Serialize, Deserialize)]
struct MemberDocument {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rack: Option<String>,
    client_id: String,
    client_host: String,
    rebalance_ms: Ms,
    names: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    regex: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    assignor: Option<Assignor>,
    epoch: i32,
    previous_epoch: i32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    owned: Vec<Given>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    revoking: Vec<Given>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    target: Vec<Indexes>,
    #[serde(default, skip_serializing_if = "is_false")]
    waits: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The streams of a document and their places.
struct Places(BTreeMap<StreamId, usize>);

impl Places {
    fn of(group: &ConsumerGroup) -> Self {
        let all = group.members.values().flat_map(|member| {
            member.owned.keys().chain(member.revoking.keys()).chain(&member.target)
        });
        let streams: BTreeSet<StreamId> = all.map(|partition| partition.stream).collect();
        Self(streams.into_iter().enumerate().map(|(place, stream)| (stream, place)).collect())
    }

    /// `partitions` in runs, each with the stream's place.
    fn runs<'a, T: Ord + Copy>(
        &self,
        partitions: impl Iterator<Item = (&'a Partition, T)>,
    ) -> BTreeMap<(T, usize), Vec<u32>> {
        let mut runs: BTreeMap<(T, usize), Vec<u32>> = BTreeMap::new();
        for (partition, given) in partitions {
            if let Some(place) = self.0.get(&partition.stream) {
                runs.entry((given, *place)).or_default().push(partition.index.get());
            }
        }
        runs
    }

    fn given(&self, partitions: &BTreeMap<Partition, i32>) -> Vec<Given> {
        let runs = self.runs(partitions.iter().map(|(partition, epoch)| (partition, *epoch)));
        runs.into_iter().map(|((epoch, place), indexes)| (epoch, place, indexes)).collect()
    }

    fn member(&self, member: &Member) -> MemberDocument {
        let target = self.runs(member.target.iter().map(|partition| (partition, ())));
        MemberDocument {
            id: member.id.clone(),
            instance: member.instance.clone(),
            rack: member.rack.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_ms: member.rebalance_ms,
            names: member.names.clone(),
            regex: member.regex.clone(),
            assignor: member.assignor,
            epoch: member.epoch,
            previous_epoch: member.previous_epoch,
            owned: self.given(&member.owned),
            revoking: self.given(&member.revoking),
            target: target.into_iter().map(|(((), place), indexes)| (place, indexes)).collect(),
            waits: member.waits,
        }
    }
}

/// The partitions of runs; those of a place that is not in the list are none.
fn partitions<'a, T: Copy + 'a>(
    streams: &'a [StreamId],
    runs: impl Iterator<Item = (T, usize, Vec<u32>)> + 'a,
) -> impl Iterator<Item = (Partition, T)> + 'a {
    runs.flat_map(move |(given, place, indexes)| {
        let stream = streams.get(place).copied();
        let of = move |index| Some((Partition::new(stream?, PartitionIndex(index)), given));
        indexes.into_iter().filter_map(of)
    })
}

impl ConsumerDocument {
    pub(super) fn of(group: &ConsumerGroup) -> Self {
        let places = Places::of(group);
        Self {
            epoch: group.epoch,
            target_epoch: group.target_epoch,
            assignor: group.assignor,
            topics_hash: group.topics_hash(),
            members: group.members.values().map(|member| places.member(member)).collect(),
            streams: places.0.into_keys().collect(),
        }
    }

    pub(super) fn restore(self, limits: Limits, now: Ms) -> ConsumerGroup {
        let streams = self.streams;
        let members = self.members.into_iter().map(|of| {
            let target = of.target.into_iter().map(|(place, indexes)| ((), place, indexes));
            Member {
                id: of.id,
                instance: of.instance,
                rack: of.rack,
                client_id: of.client_id,
                client_host: of.client_host,
                rebalance_ms: of.rebalance_ms,
                names: of.names,
                regex: of.regex,
                assignor: of.assignor,
                epoch: of.epoch,
                previous_epoch: of.previous_epoch,
                owned: partitions(&streams, of.owned.into_iter()).collect(),
                revoking: partitions(&streams, of.revoking.into_iter()).collect(),
                target: partitions(&streams, target).map(|(partition, ())| partition).collect(),
                waits: of.waits,
                ..Member::default()
            }
        });
        let members = members.collect();
        let epochs = (self.epoch, self.target_epoch);
        ConsumerGroup::restored(limits, epochs, self.assignor, self.topics_hash, members, now)
    }
}

//! Who shall read what.
//!
//! Both assignors are functions of the subscriptions and, for
//! [`Assignor::Uniform`], of the assignment before: the same in gives the same
//! out.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_types::{Partition, PartitionIndex, StreamId};
use serde::{Deserialize, Serialize};

/// How often unequal subscriptions are balanced at most; each time leaves
/// everybody nearer to each other.
const PASSES_MAX: usize = 32;

/// How partitions are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Assignor {
    /// Everybody has as many as the others, one more or less, and keeps what it
    /// has where it can.
    Uniform,
    /// Of each topic everybody has a run of partitions, the same of topics that
    /// have the same number.
    Range,
}

impl Assignor {
    /// All of them; the first one is taken where nobody asks for one.
    pub(crate) const ALL: [Self; 2] = [Self::Uniform, Self::Range];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|of| of.name() == name)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }
}

/// A member, as assignors see it.
#[derive(Debug)]
pub(super) struct Subscriber<'a> {
    pub(super) id: &'a str,
    pub(super) instance: Option<&'a str>,
    /// Its topics that exist, and their numbers of partitions.
    pub(super) topics: BTreeMap<StreamId, u32>,
    /// What it was to have before.
    pub(super) has: &'a BTreeSet<Partition>,
}

impl Subscriber<'_> {
    fn wants(&self, partition: Partition) -> bool {
        self.topics.get(&partition.stream).is_some_and(|count| partition.index.get() < *count)
    }
}

type Assignment = Vec<BTreeSet<Partition>>;

/// What each subscriber shall have, in their order.
pub(super) fn assign(assignor: Assignor, subscribers: &[Subscriber<'_>]) -> Assignment {
    let first = subscribers.first().map(|of| &of.topics);
    match assignor {
        Assignor::Range => range(subscribers),
        Assignor::Uniform if subscribers.iter().all(|of| Some(&of.topics) == first) => {
            uniform(subscribers)
        }
        Assignor::Uniform => uniform_mixed(subscribers),
    }
}

fn partitions(topic: StreamId, count: u32) -> impl Iterator<Item = Partition> {
    (0..count).map(move |index| Partition::new(topic, PartitionIndex(index)))
}

/// By topic, its partitions and who subscribes to it.
fn by_topic(subscribers: &[Subscriber<'_>]) -> BTreeMap<StreamId, (u32, Vec<usize>)> {
    let mut topics: BTreeMap<StreamId, (u32, Vec<usize>)> = BTreeMap::new();
    for (number, subscriber) in subscribers.iter().enumerate() {
        for (topic, count) in &subscriber.topics {
            topics.entry(*topic).or_insert((*count, Vec::new())).1.push(number);
        }
    }
    topics
}

fn range(subscribers: &[Subscriber<'_>]) -> Assignment {
    let mut assigned = vec![BTreeSet::new(); subscribers.len()];
    for (topic, (count, mut members)) in by_topic(subscribers) {
        // Static members keep their place when they come back under another id.
        members.sort_by_key(|number| {
            let of = &subscribers[*number];
            (of.instance.is_none(), of.instance.unwrap_or(of.id))
        });
        let count = count as usize;
        let (share, extra) = (count / members.len(), count % members.len());
        let mut rest = partitions(topic, count as u32);
        for (place, number) in members.into_iter().enumerate() {
            assigned[number].extend(rest.by_ref().take(share + usize::from(place < extra)));
        }
    }
    assigned
}

/// Where all subscribe to the same.
fn uniform(subscribers: &[Subscriber<'_>]) -> Assignment {
    let Some(first) = subscribers.first() else { return Vec::new() };
    let mut rest: BTreeSet<Partition> =
        first.topics.iter().flat_map(|(topic, count)| partitions(*topic, *count)).collect();
    let (share, extra) = (rest.len() / subscribers.len(), rest.len() % subscribers.len());
    let mut assigned: Assignment = subscribers.iter().map(|of| kept(of, &mut rest)).collect();
    // Who has most keeps one more.
    let mut order: Vec<usize> = (0..subscribers.len()).collect();
    order.sort_by_key(|number| std::cmp::Reverse(assigned[*number].len()));
    let quota = |place: usize| share + usize::from(place < extra);
    for (place, number) in order.iter().enumerate() {
        while assigned[*number].len() > quota(place) {
            rest.extend(assigned[*number].pop_last());
        }
    }
    for (place, number) in order.iter().enumerate() {
        while assigned[*number].len() < quota(place) {
            let Some(partition) = rest.pop_first() else { break };
            assigned[*number].insert(partition);
        }
    }
    assigned
}

/// What a subscriber keeps of what it had; taken out of `rest`.
fn kept(subscriber: &Subscriber<'_>, rest: &mut BTreeSet<Partition>) -> BTreeSet<Partition> {
    let had = subscriber.has.iter().copied();
    had.filter(|partition| subscriber.wants(*partition) && rest.remove(partition)).collect()
}

/// Where not all subscribe to the same.
fn uniform_mixed(subscribers: &[Subscriber<'_>]) -> Assignment {
    let topics = by_topic(subscribers);
    let mut rest: BTreeSet<Partition> =
        topics.iter().flat_map(|(topic, (count, _))| partitions(*topic, *count)).collect();
    let mut assigned: Assignment = subscribers.iter().map(|of| kept(of, &mut rest)).collect();
    // First what few can take.
    let mut order: Vec<(&StreamId, &Vec<usize>)> =
        topics.iter().map(|(topic, (_, members))| (topic, members)).collect();
    order.sort_by_key(|(_, members)| members.len());
    for (topic, members) in &order {
        let of_topic: Vec<Partition> =
            rest.iter().filter(|partition| partition.stream == **topic).copied().collect();
        for partition in of_topic {
            let least = members.iter().min_by_key(|number| assigned[**number].len());
            if let Some(least) = least {
                assigned[*least].insert(partition);
            }
        }
    }
    for _ in 0..PASSES_MAX {
        let moved = order.iter().map(|(topic, members)| level(**topic, members, &mut assigned));
        if moved.sum::<usize>() == 0 {
            break;
        }
    }
    assigned
}

/// Moves partitions of a topic from who has most to who has least; how many.
fn level(topic: StreamId, members: &[usize], assigned: &mut Assignment) -> usize {
    let whole =
        Partition::new(topic, PartitionIndex(0))..=Partition::new(topic, PartitionIndex(u32::MAX));
    let mut moved = 0;
    loop {
        let count = |number: &&usize| assigned[**number].len();
        let least = members.iter().min_by_key(count).copied();
        let owners = members
            .iter()
            .filter(|number| assigned[**number].range(whole.clone()).next().is_some());
        let most = owners.max_by_key(count).copied();
        let (Some(least), Some(most)) = (least, most) else { return moved };
        if assigned[most].len() < assigned[least].len() + 2 {
            return moved;
        }
        let Some(partition) = assigned[most].range(whole.clone()).next_back().copied() else {
            return moved;
        };
        assigned[most].remove(&partition);
        assigned[least].insert(partition);
        moved += 1;
    }
}

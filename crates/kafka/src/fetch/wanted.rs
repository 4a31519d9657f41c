//! What a client wants to fetch: partitions, in the order in which they are
//! served.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aquifer_stream::{PartitionHandle, StreamHandle};
use aquifer_types::PartitionIndex;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use uuid::Uuid;

use crate::call::Call;
use crate::topic::stream;

/// How a client names a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TopicKey {
    Name(Arc<str>),
    Id(Uuid),
}

impl TopicKey {
    pub(crate) fn new(name: &str, id: Uuid) -> Self {
        if name.is_empty() { Self::Id(id) } else { Self::Name(name.into()) }
    }
}

/// One partition that is fetched.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) topic: TopicKey,
    pub(crate) index: i32,
    pub(crate) offset: i64,
    pub(crate) bytes_max: usize,
    /// −1 where the client does not know it.
    pub(crate) leader_epoch: i32,
    found: Option<(StreamHandle, PartitionHandle)>,
    /// What the client was told last, in a session.
    pub(crate) told: Option<Told>,
}

/// What a client knows of a partition; it is told again when that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
}

impl Wanted {
    fn new(topic: TopicKey, asked: &FetchPartition) -> Self {
        let mut wanted = Self {
            topic,
            index: asked.partition,
            offset: 0,
            bytes_max: 0,
            leader_epoch: -1,
            found: None,
            told: None,
        };
        wanted.update(asked);
        wanted
    }

    fn update(&mut self, asked: &FetchPartition) {
        self.offset = asked.fetch_offset;
        self.bytes_max = usize::try_from(asked.partition_max_bytes).unwrap_or(0);
        self.leader_epoch = asked.current_leader_epoch;
    }

    /// The partition, looked up again only where its stream was deleted.
    pub(crate) fn find(
        &mut self,
        call: &Call,
    ) -> Result<(StreamHandle, PartitionHandle), ResponseError> {
        if let Some((stream, partition)) = &self.found
            && !partition.offsets().is_deleted
        {
            return Ok((stream.clone(), partition.clone()));
        }
        let (name, id) = match &self.topic {
            TopicKey::Name(name) => (&**name, Uuid::nil()),
            TopicKey::Id(id) => ("", *id),
        };
        if name.is_empty() && id.is_nil() {
            return Err(ResponseError::UnknownTopicId);
        }
        let stream = stream(call, name, id)?;
        let unknown = ResponseError::UnknownTopicOrPartition;
        let index = u32::try_from(self.index).map_err(|_| unknown)?;
        let partition = stream.partition(PartitionIndex(index)).map_err(|_| unknown)?;
        self.found = Some((stream.clone(), partition.clone()));
        Ok((stream, partition))
    }

    /// The partition, if it was found.
    pub(crate) fn partition(&self) -> Option<&PartitionHandle> {
        self.found.as_ref().map(|(_, partition)| partition)
    }
}

/// Partitions by name and in order.
#[derive(Debug, Default)]
pub(crate) struct WantedList {
    by_key: HashMap<(TopicKey, i32), u64>,
    in_order: BTreeMap<u64, Wanted>,
    next: u64,
}

impl WantedList {
    pub(crate) fn len(&self) -> usize {
        self.in_order.len()
    }

    pub(crate) fn put(&mut self, topic: &TopicKey, asked: &FetchPartition) {
        let key = (topic.clone(), asked.partition);
        if let Some(known) = self.by_key.get(&key).and_then(|at| self.in_order.get_mut(at)) {
            known.update(asked);
            return;
        }
        self.by_key.insert(key, self.next);
        self.in_order.insert(self.next, Wanted::new(topic.clone(), asked));
        self.next += 1;
    }

    pub(crate) fn forget(&mut self, topic: &TopicKey, index: i32) {
        if let Some(at) = self.by_key.remove(&(topic.clone(), index)) {
            self.in_order.remove(&at);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Wanted> {
        self.in_order.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Wanted> {
        self.in_order.values_mut()
    }

    /// Lets those that were served stand behind the others.
    pub(crate) fn served(&mut self, served: impl IntoIterator<Item = (TopicKey, i32)>) {
        for key in served {
            if let Some(at) = self.by_key.get_mut(&key)
                && let Some(wanted) = self.in_order.remove(at)
            {
                *at = self.next;
                self.in_order.insert(self.next, wanted);
                self.next += 1;
            }
        }
    }
}

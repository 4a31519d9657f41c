//! Fetch sessions (KIP-227): what a client wants is remembered, and only what
//! changed goes over the wire.
//!
//! A session belongs to the principal that began it. Losing one costs its
//! client a full request and nothing else, so there are at most so many; the
//! one that was idle for longest makes room once it was idle for long enough.

use std::collections::HashMap;
use std::sync::Arc;

use aquifer_env::{Clock, Random};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest;
use parking_lot::Mutex;

use super::wanted::{TopicKey, WantedList};
use crate::authorizer::Principal;

/// Ends a session; the request itself belongs to none.
const EPOCH_FINAL: i32 = -1;
/// Begins a session.
const EPOCH_INITIAL: i32 = 0;

/// All sessions.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    sessions_max: usize,
    partitions_max: usize,
    idle_ns_min: u64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<i32, FetchSession>,
    /// Of all sessions together.
    partitions: usize,
}

#[derive(Debug)]
struct FetchSession {
    owner: Arc<Principal>,
    /// That of the next request.
    epoch: i32,
    names_by_id: bool,
    last_used_ns: u64,
    partitions: usize,
    /// Absent while a request uses it.
    wanted: Option<WantedList>,
}

/// What one request is to be answered from.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) wanted: WantedList,
    /// 0 for none.
    pub(crate) session_id: i32,
    /// Only what the client does not know yet is answered.
    pub(crate) is_incremental: bool,
    sessions: Arc<FetchSessions>,
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.session_id != 0 {
            self.sessions.give_back(self.session_id, std::mem::take(&mut self.wanted));
        }
    }
}

impl FetchSessions {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        options: &crate::KafkaOptions,
    ) -> Arc<Self> {
        Arc::new(Self {
            clock,
            random,
            sessions_max: options.fetch_sessions_max,
            partitions_max: options.fetch_session_partitions_max,
            idle_ns_min: options.fetch_session_idle_ms_min.saturating_mul(1_000_000),
            known: Mutex::default(),
        })
    }

    /// What a request is about, by its session or by itself.
    pub(crate) fn begin(
        self: &Arc<Self>,
        owner: &Arc<Principal>,
        request: &FetchRequest,
        version: i16,
    ) -> Result<Context, ResponseError> {
        let (id, epoch) = if version < 7 {
            (0, EPOCH_FINAL)
        } else {
            (request.session_id, request.session_epoch)
        };
        if epoch == EPOCH_INITIAL || epoch == EPOCH_FINAL {
            if id != 0 {
                self.end(owner, id);
            }
            let mut wanted = WantedList::default();
            take_in(&mut wanted, request);
            let session_id = if epoch == EPOCH_INITIAL {
                self.create(owner, wanted.len(), version >= 13)
            } else {
                0
            };
            return Ok(Context {
                wanted,
                session_id,
                is_incremental: false,
                sessions: self.clone(),
            });
        }
        let mut wanted = self.take(owner, id, epoch, version >= 13)?;
        for forgotten in &request.forgotten_topics_data {
            let topic = TopicKey::new(&forgotten.topic, forgotten.topic_id);
            for index in &forgotten.partitions {
                wanted.forget(&topic, *index);
            }
        }
        take_in(&mut wanted, request);
        let count = wanted.len();
        let sessions = self.clone();
        let context = Context { wanted, session_id: id, is_incremental: true, sessions };
        self.resize(id, count)?;
        Ok(context)
    }

    fn create(&self, owner: &Arc<Principal>, partitions: usize, names_by_id: bool) -> i32 {
        let now = self.clock.monotonic_ns();
        let mut known = self.known.lock();
        while known.by_id.len() >= self.sessions_max
            || known.partitions + partitions > self.partitions_max
        {
            let is_idle = |session: &FetchSession| {
                session.wanted.is_some()
                    && now.saturating_sub(session.last_used_ns) >= self.idle_ns_min
            };
            let idle = known.by_id.iter().filter(|(_, session)| is_idle(session));
            let oldest = idle.min_by_key(|(_, session)| session.last_used_ns).map(|(id, _)| *id);
            // No room: the client goes on without a session.
            let Some(oldest) = oldest else { return 0 };
            known.remove(oldest);
        }
        let mut id = 0;
        while id == 0 || known.by_id.contains_key(&id) {
            id = (self.random.next_u64() & 0x7fff_ffff) as i32;
        }
        known.partitions += partitions;
        let session = FetchSession {
            owner: owner.clone(),
            epoch: 1,
            names_by_id,
            last_used_ns: now,
            partitions,
            wanted: None,
        };
        known.by_id.insert(id, session);
        id
    }

    fn take(
        &self,
        owner: &Arc<Principal>,
        id: i32,
        epoch: i32,
        names_by_id: bool,
    ) -> Result<WantedList, ResponseError> {
        let mut known = self.known.lock();
        let session = known.by_id.get_mut(&id).filter(|session| *session.owner == **owner);
        let session = session.ok_or(ResponseError::FetchSessionIdNotFound)?;
        if session.names_by_id != names_by_id {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        if session.epoch != epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        // Another request of the session is under way.
        let wanted = session.wanted.take().ok_or(ResponseError::InvalidFetchSessionEpoch)?;
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.last_used_ns = self.clock.monotonic_ns();
        Ok(wanted)
    }

    fn resize(&self, id: i32, partitions: usize) -> Result<(), ResponseError> {
        let mut known = self.known.lock();
        let others = known.partitions - known.by_id.get(&id).map_or(0, |of| of.partitions);
        if others + partitions > self.partitions_max {
            known.remove(id);
            return Err(ResponseError::FetchSessionIdNotFound);
        }
        if let Some(session) = known.by_id.get_mut(&id) {
            session.partitions = partitions;
            known.partitions = others + partitions;
        }
        Ok(())
    }

    fn give_back(&self, id: i32, wanted: WantedList) {
        let mut known = self.known.lock();
        if let Some(session) = known.by_id.get_mut(&id) {
            session.wanted = Some(wanted);
            session.last_used_ns = self.clock.monotonic_ns();
        }
    }

    fn end(&self, owner: &Arc<Principal>, id: i32) {
        let mut known = self.known.lock();
        if known.by_id.get(&id).is_some_and(|session| *session.owner == **owner) {
            known.remove(id);
        }
    }
}

impl Known {
    fn remove(&mut self, id: i32) {
        if let Some(session) = self.by_id.remove(&id) {
            self.partitions -= session.partitions;
        }
    }
}

fn take_in(wanted: &mut WantedList, request: &FetchRequest) {
    for topic in &request.topics {
        let key = TopicKey::new(&topic.topic, topic.topic_id);
        for partition in &topic.partitions {
            wanted.put(&key, partition);
        }
    }
}

//! Publishing and answering, in the order of the groups.
//!
//! The writer publishes a group itself where nothing waits behind it, which
//! saves a lone caller a change of thread; otherwise the publisher's thread
//! does, so that the disk is not idle meanwhile.

use std::collections::VecDeque;

use aquifer_journal::Written;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::local::Shared;
use super::sequencer::{Committed, Fact, Reply};
use crate::Error;

/// Groups that may wait to be published; beyond it the writer waits.
const QUEUE_MAX: usize = 8;

/// From so many callers on, a task of the runtime answers them.
const ANSWERED_HERE_BELOW: usize = 2;

/// The callers of a group and what they are told.
type Replies = Vec<(Reply, Result<Committed, Error>)>;

/// A group that was written, with everybody who waits for it.
pub(crate) struct Publication {
    pub(crate) written: Option<Written>,
    /// Whether a sync covers it.
    pub(crate) is_synced: bool,
    pub(crate) group: Held,
    pub(crate) facts: Vec<Fact>,
    pub(crate) replies: Replies,
}

/// A written group for the tail cache.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    /// What it keeps from being used for something else.
    pub(crate) memory: usize,
}

#[derive(Default)]
pub(crate) struct PublishQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<Publication>,
    is_busy: bool,
    is_closed: bool,
}

impl PublishQueue {
    /// Lets the publisher stop when it has done what is waiting.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }
}

impl Shared {
    /// Publishes now, or lets the publisher do it; always in order.
    pub(crate) fn hand_on(&self, publication: Publication, is_more_waiting: bool) {
        let queue = &self.publishing;
        let mut state = queue.state.lock();
        if !is_more_waiting && state.waiting.is_empty() && !state.is_busy {
            state.is_busy = true;
            drop(state);
            self.publish(publication);
            queue.state.lock().is_busy = false;
        } else {
            while state.waiting.len() >= QUEUE_MAX {
                queue.changed.wait(&mut state);
            }
            state.waiting.push_back(publication);
        }
        queue.changed.notify_all();
    }

    pub(crate) fn run_publisher(&self) {
        let queue = &self.publishing;
        loop {
            self.publish_waiting();
            let mut state = queue.state.lock();
            if state.is_busy || state.waiting.is_empty() {
                if state.is_closed && state.waiting.is_empty() && !state.is_busy {
                    break;
                }
                queue.changed.wait(&mut state);
            }
        }
        self.catalog.close();
    }

    /// Publishes what waits, as long as nobody else publishes.
    pub(super) fn publish_waiting(&self) {
        let queue = &self.publishing;
        let mut state = queue.state.lock();
        while !state.is_busy
            && let Some(publication) = state.waiting.pop_front()
        {
            state.is_busy = true;
            drop(state);
            queue.changed.notify_all();
            self.publish(publication);
            state = queue.state.lock();
            state.is_busy = false;
        }
    }

    fn publish(&self, publication: Publication) {
        let Publication { written, is_synced, group, facts, replies } = publication;
        if let Some(written) = written {
            // Readers may look for a batch as soon as it is in the index.
            let Held { bytes, memory } = group;
            self.index.tail_cache.add(written.file, written.position, bytes, memory);
            let changes =
                self.index.publish_group(written.sequence, written.file, written.position, &facts);
            self.catalog.push(written.sequence, changes, is_synced);
        }
        let is_many = replies.len() >= ANSWERED_HERE_BELOW;
        match &self.runtime {
            // A thread beside the runtime would wake one of its threads for each
            // caller, and make way for it on its processor.
            Some(runtime) if is_many => drop(runtime.spawn(async move { answer(replies) })),
            _ => answer(replies),
        }
    }
}

fn answer(replies: Replies) {
    for (reply, result) in replies {
        reply(result);
    }
}

//! What is around a group's state machine: who waits for which answer, and what
//! has to be stored before it is sent.

use std::collections::{HashMap, VecDeque};

use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

use super::classic::{Action, Joined, Ms, Synced, Ticket};
use super::consumer::{Beat, Beaten, JOINS, Topics};
use super::document::GroupDocument;
use super::machine::{Limits, Machine};

/// The answer to a heartbeat of a consumer group.
pub(super) type BeatAnswer = Result<Beaten, ResponseError>;

/// A group's state, under its lock.
#[derive(Debug)]
pub(super) struct Shell {
    pub(super) machine: Machine,
    /// It was taken out of the map.
    pub(super) is_gone: bool,
    pub(super) empty_since_ms: Option<i64>,
    pub(super) armed: Option<Ms>,
    pub(super) tickets: Ticket,
    pub(super) joins: HashMap<Ticket, oneshot::Sender<Joined>>,
    pub(super) syncs: HashMap<Ticket, oneshot::Sender<Synced>>,
    beats: HashMap<Ticket, oneshot::Sender<BeatAnswer>>,
    /// Answers to heartbeats that are not in the outbox yet.
    told: Vec<(Ticket, BeatAnswer)>,
    pub(super) outbox: VecDeque<Out>,
    pub(super) is_saving: bool,
    /// Counts up with every [`Out::SaveLatest`].
    asked: u64,
    /// The last of them that a save takes in.
    taken: u64,
}

/// What is to be done, in order.
#[derive(Debug)]
pub(super) enum Out {
    Save(String),
    /// Store the group as it is when that comes up: what happened meanwhile is
    /// stored with it, and not once more.
    SaveLatest(u64),
    Join(Ticket, Joined),
    Sync(Ticket, Synced),
    Beat(Ticket, BeatAnswer),
}

impl Shell {
    pub(super) fn new(machine: Machine) -> Self {
        Self {
            machine,
            is_gone: false,
            empty_since_ms: None,
            armed: None,
            tickets: 0,
            joins: HashMap::new(),
            syncs: HashMap::new(),
            beats: HashMap::new(),
            told: Vec::new(),
            outbox: VecDeque::new(),
            is_saving: false,
            asked: 0,
            taken: 0,
        }
    }

    /// A heartbeat of a consumer group; its answer goes to `sender`.
    pub(super) fn beat(
        &mut self,
        now: Ms,
        limits: Limits,
        beat: &Beat,
        topics: &dyn Topics,
        sender: oneshot::Sender<BeatAnswer>,
    ) {
        let answer = match &mut self.machine {
            Machine::Consumer(group) => group.beat(now, beat, topics),
            machine => match machine.to_consumer(limits) {
                Some(_) if beat.epoch != JOINS => Err(ResponseError::UnknownMemberId),
                Some(mut group) => {
                    let answer = group.beat(now, beat, topics);
                    // Who is not let in leaves the group what it was.
                    if answer.is_ok() {
                        *machine = Machine::Consumer(group);
                    }
                    answer
                }
                // Members of another protocol are in it.
                None => Err(ResponseError::GroupIdNotFound),
            },
        };
        self.tickets += 1;
        self.beats.insert(self.tickets, sender);
        self.told.push((self.tickets, answer));
    }

    /// Puts what an event asked for into the outbox, saves before answers.
    pub(super) fn queue(&mut self, actions: Vec<Action>) {
        for action in actions {
            let out = match action {
                Action::Join(ticket, joined) => Out::Join(ticket, joined),
                Action::Sync(ticket, synced) => Out::Sync(ticket, synced),
                Action::Save => match self.text() {
                    Some(text) => Out::Save(text),
                    None => continue,
                },
            };
            self.outbox.push_back(out);
        }
        if self.machine.take_dirty() {
            self.asked += 1;
            self.outbox.push_back(Out::SaveLatest(self.asked));
        }
        let told = self.told.drain(..).map(|(ticket, answer)| Out::Beat(ticket, answer));
        self.outbox.extend(told);
    }

    /// What is to be stored for [`Out::SaveLatest`], unless it was already.
    pub(super) fn latest(&mut self, number: u64) -> Option<String> {
        if number <= self.taken {
            return None;
        }
        self.taken = self.asked;
        self.text()
    }

    fn text(&self) -> Option<String> {
        let document = GroupDocument::of(&self.machine, self.empty_since_ms);
        match document.to_json() {
            Ok(text) => Some(text),
            Err(error) => {
                tracing::error!(%error, "a group cannot be stored");
                None
            }
        }
    }

    pub(super) fn answer(&mut self, out: Out) {
        // Whoever does not wait any more is not missed: a session decides.
        match out {
            Out::Join(ticket, joined) => {
                if let Some(waiting) = self.joins.remove(&ticket) {
                    let _ = waiting.send(joined);
                }
            }
            Out::Sync(ticket, synced) => {
                if let Some(waiting) = self.syncs.remove(&ticket) {
                    let _ = waiting.send(synced);
                }
            }
            Out::Beat(ticket, answer) => {
                if let Some(waiting) = self.beats.remove(&ticket) {
                    let _ = waiting.send(answer);
                }
            }
            Out::Save(_) | Out::SaveLatest(_) => {}
        }
    }
}

impl Out {
    /// What is answered where the save before it failed.
    pub(super) fn failed(self) -> Self {
        let error = ResponseError::CoordinatorNotAvailable;
        match self {
            Self::Join(ticket, joined) if joined.error.is_none() => {
                Self::Join(ticket, Joined::refused(error, &joined.member))
            }
            Self::Sync(ticket, synced) if synced.error.is_none() => {
                Self::Sync(ticket, Synced::refused(error))
            }
            Self::Beat(ticket, Ok(_)) => Self::Beat(ticket, Err(error)),
            out => out,
        }
    }
}

//! Consumer groups: who is in them, who reads what, how far they are.
//!
//! The rules are in pure state machines ([`classic`]); this is what surrounds
//! them: one lock a group, the clock, the waiting requests, and the store.
//! Positions and documents are the ledger's; nothing is decided here that a
//! crash could take back: an answer that depends on something stored is sent
//! when it is durable.

pub(crate) mod classic;
mod document;
mod sweep;
mod timers;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::{Clock, Random, uuid_v4};
use aquifer_stream::{DocumentExpectation, DocumentKind, StreamStore};
use aquifer_types::{GroupName, TenantName};
use kafka_protocol::ResponseError;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use classic::{Action, Asker, ClassicGroup, Join, Joined, Limits, Ms, Sync, Synced, Ticket};
use document::{ClassicDocument, GroupDocument, Kind};
use timers::Timers;

use crate::options::KafkaOptions;

/// The protocol type of consumers.
const CONSUMER: &str = "consumer";

/// Whose group it is, and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupKey {
    pub(crate) tenant: TenantName,
    pub(crate) group: GroupName,
}

/// All groups; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: StreamStore,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    limits: Limits,
    groups_max: usize,
    offsets_retention_ms: u64,
    map: RwLock<HashMap<GroupKey, Arc<Group>>>,
    timers: Timers,
}

/// One group.
#[derive(Debug)]
struct Group {
    key: GroupKey,
    shell: Mutex<Shell>,
    /// Commits hold it together, a save holds it alone: those of one generation
    /// are done before the next one is told to anybody.
    commits: tokio::sync::RwLock<()>,
}

#[derive(Debug)]
struct Shell {
    machine: ClassicGroup,
    /// It was taken out of the map.
    is_gone: bool,
    empty_since_ms: Option<i64>,
    armed: Option<Ms>,
    tickets: Ticket,
    joins: HashMap<Ticket, oneshot::Sender<Joined>>,
    syncs: HashMap<Ticket, oneshot::Sender<Synced>>,
    outbox: VecDeque<Out>,
    is_saving: bool,
}

/// What is to be done, in order.
#[derive(Debug)]
enum Out {
    Save(String),
    Join(Ticket, Joined),
    Sync(Ticket, Synced),
}

/// A group as lists show it.
#[derive(Debug, Clone)]
pub(crate) struct ListedGroup {
    pub(crate) group: GroupName,
    pub(crate) protocol_type: String,
    pub(crate) state: &'static str,
    pub(crate) kind: &'static str,
}

impl Groups {
    /// All groups as they are stored. Sessions run until the server stops.
    pub(crate) fn start(
        store: StreamStore,
        options: &KafkaOptions,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let limits = Limits {
            session_ms_min: options.group_session_ms_min,
            session_ms_max: options.group_session_ms_max,
            members_max: options.group_members_max,
            initial_delay_ms: options.group_initial_delay_ms,
        };
        let inner = Arc::new(Inner {
            store,
            clock,
            random,
            limits,
            groups_max: options.groups_max,
            offsets_retention_ms: options.offsets_retention_ms,
            map: RwLock::default(),
            timers: Timers::default(),
        });
        inner.load();
        tokio::spawn(run_timers(inner.clone(), stopping.clone()));
        tokio::spawn(sweep::run(inner.clone(), stopping));
        Self { inner }
    }

    /// A name that no member had before.
    pub(crate) fn fresh_id(&self, prefix: &str) -> String {
        format!("{prefix}-{}", uuid_v4(&*self.inner.random))
    }

    /// A member joins; answered when the rebalance is through.
    pub(crate) async fn join(&self, key: &GroupKey, join: Join) -> Joined {
        let member = join.member.member.clone();
        let refused = |error| Joined::refused(error, &member);
        let (sender, receiver) = oneshot::channel();
        let mut ask = Some((join, sender));
        // A group that was forgotten in between is asked for again.
        while ask.is_some() {
            let group = match self.inner.get(key) {
                Some(group) => group,
                None if !member.is_empty() => return refused(ResponseError::UnknownMemberId),
                None => match self.inner.get_or_create(key) {
                    Ok(group) => group,
                    Err(error) => return refused(error),
                },
            };
            self.inner.with(&group, |shell, now, actions| {
                let Some((join, sender)) = ask.take() else { return };
                shell.tickets += 1;
                shell.joins.insert(shell.tickets, sender);
                shell.machine.join(now, join, shell.tickets, actions);
            });
        }
        receiver.await.unwrap_or_else(|_| refused(ResponseError::CoordinatorNotAvailable))
    }

    /// A member asks for its assignment; answered when the leader has brought it.
    pub(crate) async fn sync(&self, key: &GroupKey, sync: Sync) -> Synced {
        let unknown = || Synced::refused(ResponseError::UnknownMemberId);
        let Some(group) = self.inner.get(key) else { return unknown() };
        let (sender, receiver) = oneshot::channel();
        let done = self.inner.with(&group, |shell, now, actions| {
            shell.tickets += 1;
            shell.syncs.insert(shell.tickets, sender);
            shell.machine.sync(now, sync, shell.tickets, actions);
        });
        if done.is_none() {
            return unknown();
        }
        let lost = |_| Synced::refused(ResponseError::CoordinatorNotAvailable);
        receiver.await.unwrap_or_else(lost)
    }

    pub(crate) fn heartbeat(
        &self,
        key: &GroupKey,
        member: &Asker,
        generation: i32,
    ) -> Result<(), ResponseError> {
        let group = self.inner.get(key).ok_or(ResponseError::UnknownMemberId)?;
        let beat = self
            .inner
            .with(&group, |shell, now, _| shell.machine.heartbeat(now, member, generation));
        beat.unwrap_or(Err(ResponseError::UnknownMemberId))
    }

    pub(crate) fn leave(&self, key: &GroupKey, member: &Asker) -> Result<(), ResponseError> {
        let group = self.inner.get(key).ok_or(ResponseError::UnknownMemberId)?;
        let left = self
            .inner
            .with(&group, |shell, now, actions| shell.machine.leave(now, member, actions));
        left.unwrap_or(Err(ResponseError::UnknownMemberId))
    }

    /// Commits by `commit` what the member may commit. No generation that
    /// begins meanwhile is told to anybody before that is done.
    pub(crate) async fn commit<R>(
        &self,
        key: &GroupKey,
        member: &Asker,
        generation: i32,
        in_transaction: bool,
        commit: impl Future<Output = R>,
    ) -> Result<R, ResponseError> {
        let Some(group) = self.inner.get(key) else {
            // Nobody is in it: any consumer without a generation may.
            if generation < 0 {
                return Ok(commit.await);
            }
            return Err(ResponseError::IllegalGeneration);
        };
        let _together = group.commits.read().await;
        let may = self.inner.with(&group, |shell, now, _| {
            shell.machine.commit(now, member, generation, in_transaction)
        });
        match may {
            Some(may) => may?,
            None if generation < 0 => {}
            None => return Err(ResponseError::UnknownMemberId),
        }
        Ok(commit.await)
    }

    /// The tenant's groups, those that only have positions among them.
    pub(crate) fn list(&self, tenant: &TenantName) -> Vec<ListedGroup> {
        let mut listed: Vec<ListedGroup> = self
            .inner
            .all()
            .iter()
            .filter(|group| group.key.tenant == *tenant)
            .map(|group| group.listed())
            .collect();
        let simple = self.inner.store.list_groups(tenant).into_iter();
        let known: std::collections::HashSet<GroupName> =
            listed.iter().map(|of| of.group.clone()).collect();
        listed.extend(simple.filter(|group| !known.contains(group)).map(|group| ListedGroup {
            group,
            protocol_type: String::new(),
            state: classic::State::Empty.name(),
            kind: "classic",
        }));
        listed
    }

    /// A copy of a group's state; a group that only has positions is empty.
    pub(crate) fn describe(&self, key: &GroupKey) -> Option<ClassicGroup> {
        if let Some(group) = self.inner.get(key) {
            return Some(group.shell.lock().machine.clone());
        }
        let has_positions = self.inner.store.describe_group(&key.tenant, &key.group).is_ok();
        has_positions.then(|| ClassicGroup::new(self.inner.limits))
    }

    /// The streams that members of a group subscribe to, where that is known
    /// of all of them.
    pub(crate) fn subscribed(&self, key: &GroupKey) -> Result<BTreeSet<String>, ResponseError> {
        let group = self.describe(key).ok_or(ResponseError::GroupIdNotFound)?;
        if group.is_vacant() {
            return Ok(BTreeSet::new());
        }
        if group.protocol_type.as_deref() != Some(CONSUMER) {
            return Err(ResponseError::NonEmptyGroup);
        }
        let mut subscribed = BTreeSet::new();
        for metadata in group.members.values().flat_map(|member| &member.protocols) {
            let topics = crate::subscription::topics(&metadata.metadata);
            subscribed.extend(topics.ok_or(ResponseError::NonEmptyGroup)?);
        }
        Ok(subscribed)
    }

    /// Forgets a group that nobody is in.
    pub(crate) async fn delete(&self, key: &GroupKey) -> Result<(), ResponseError> {
        self.inner.delete(key).await
    }
}

impl Inner {
    fn now(&self) -> Ms {
        self.clock.monotonic_ns() / 1_000_000
    }

    fn load(self: &Arc<Self>) {
        let now = self.now();
        for (key, document) in self.store.all_documents(DocumentKind::Group) {
            let parsed = GroupDocument::parse(&document);
            let (Ok(name), Ok(document)) = (GroupName::new(&key.name), &parsed) else {
                let error = parsed.err().map(|error| error.to_string());
                tracing::error!(group = key.name, error, "a stored group cannot be read");
                continue;
            };
            let key = GroupKey { tenant: key.tenant, group: name };
            let empty_since_ms = document.empty_since_ms;
            let Ok(GroupDocument { kind: Kind::Classic(classic), .. }) = parsed else { continue };
            let group = self.insert(&key, classic.restore(self.limits, now));
            let mut shell = group.shell.lock();
            shell.empty_since_ms = empty_since_ms;
            let wake = shell.machine.wake();
            self.timers.arm(&key, &mut shell.armed, wake);
        }
    }

    /// No group's lock is taken under that of the map.
    fn all(&self) -> Vec<Arc<Group>> {
        let mut all: Vec<_> = self.map.read().values().cloned().collect();
        all.retain(|group| !self.was_deleted(group));
        all
    }

    fn get(&self, key: &GroupKey) -> Option<Arc<Group>> {
        let group = self.map.read().get(key).cloned()?;
        (!self.was_deleted(&group)).then_some(group)
    }

    /// Whether another door has deleted the group since nobody was in it: its
    /// document is gone. Such a group is forgotten here as well.
    fn was_deleted(&self, group: &Arc<Group>) -> bool {
        let mut shell = group.shell.lock();
        let is_at_rest = shell.machine.is_vacant() && !shell.is_saving && shell.outbox.is_empty();
        // One that never had a generation was never stored.
        if shell.is_gone || !is_at_rest || shell.machine.generation == 0 {
            return shell.is_gone;
        }
        let is_deleted = self.store.document(&document::key(&group.key)).is_none();
        if is_deleted {
            self.forget(group, &mut shell);
        }
        is_deleted
    }

    fn get_or_create(&self, key: &GroupKey) -> Result<Arc<Group>, ResponseError> {
        if self.map.read().len() >= self.groups_max {
            tracing::warn!(
                group = key.group.as_str(),
                groups_max = self.groups_max,
                "no more groups are taken"
            );
            return Err(ResponseError::GroupMaxSizeReached);
        }
        Ok(self.insert(key, ClassicGroup::new(self.limits)))
    }

    /// The group, or `machine` as a new one.
    fn insert(&self, key: &GroupKey, machine: ClassicGroup) -> Arc<Group> {
        let mut map = self.map.write();
        let group = map.entry(key.clone()).or_insert_with(|| {
            Arc::new(Group {
                key: key.clone(),
                shell: Mutex::new(Shell {
                    machine,
                    is_gone: false,
                    empty_since_ms: None,
                    armed: None,
                    tickets: 0,
                    joins: HashMap::new(),
                    syncs: HashMap::new(),
                    outbox: VecDeque::new(),
                    is_saving: false,
                }),
                commits: tokio::sync::RwLock::default(),
            })
        });
        group.clone()
    }

    /// Lets something happen in a group; none where it is gone.
    fn with<R>(
        self: &Arc<Self>,
        group: &Arc<Group>,
        event: impl FnOnce(&mut Shell, Ms, &mut Vec<Action>) -> R,
    ) -> Option<R> {
        let mut shell = group.shell.lock();
        if shell.is_gone {
            return None;
        }
        let mut actions = Vec::new();
        let result = event(&mut shell, self.now(), &mut actions);
        self.settle(group, &mut shell, actions);
        if shell.machine.is_forgettable() && shell.joins.is_empty() && shell.outbox.is_empty() {
            self.forget(group, &mut shell);
        }
        Some(result)
    }

    fn forget(&self, group: &Arc<Group>, shell: &mut Shell) {
        shell.is_gone = true;
        self.timers.disarm(&group.key, &mut shell.armed);
        self.map.write().remove(&group.key);
    }

    /// Does what an event asked for.
    fn settle(self: &Arc<Self>, group: &Arc<Group>, shell: &mut Shell, actions: Vec<Action>) {
        if !shell.machine.is_vacant() {
            shell.empty_since_ms = None;
        } else if shell.empty_since_ms.is_none() {
            shell.empty_since_ms = Some(self.clock.now_ms());
        }
        for action in actions {
            let out = match action {
                Action::Join(ticket, joined) => Out::Join(ticket, joined),
                Action::Sync(ticket, synced) => Out::Sync(ticket, synced),
                Action::Save => match shell.document().to_json() {
                    Ok(text) => Out::Save(text),
                    Err(error) => {
                        tracing::error!(%error, "a group cannot be stored");
                        continue;
                    }
                },
            };
            shell.outbox.push_back(out);
        }
        self.send(group, shell);
        let wake = shell.machine.wake();
        self.timers.arm(&group.key, &mut shell.armed, wake);
    }

    /// Sends what does not have to wait for a save.
    fn send(self: &Arc<Self>, group: &Arc<Group>, shell: &mut Shell) {
        while !shell.is_saving {
            match shell.outbox.pop_front() {
                None => return,
                Some(Out::Save(text)) => {
                    shell.is_saving = true;
                    tokio::spawn(save(self.clone(), group.clone(), text));
                }
                Some(out) => shell.answer(out),
            }
        }
    }

    fn saved(self: &Arc<Self>, group: &Arc<Group>, result: Result<u64, aquifer_stream::Error>) {
        let mut shell = group.shell.lock();
        shell.is_saving = false;
        let mut actions = Vec::new();
        if let Err(error) = result {
            tracing::warn!(%error, group = group.key.group.as_str(), "a group was not stored");
            while let Some(out) = shell.outbox.pop_front() {
                shell.answer(out.failed());
            }
            shell.machine.save_failed(self.now(), &mut actions);
        }
        self.settle(group, &mut shell, actions);
    }

    async fn delete(self: &Arc<Self>, key: &GroupKey) -> Result<(), ResponseError> {
        let group = self.get(key);
        let _alone = match &group {
            Some(group) => Some(group.commits.write().await),
            None => None,
        };
        let has_positions = self.store.describe_group(&key.tenant, &key.group).is_ok();
        if let Some(group) = &group {
            let mut shell = group.shell.lock();
            if !shell.machine.is_vacant() || shell.is_saving {
                return Err(ResponseError::NonEmptyGroup);
            }
            self.forget(group, &mut shell);
        } else if !has_positions {
            return Err(ResponseError::GroupIdNotFound);
        }
        let document = document::key(key);
        let mut operations = vec![aquifer_stream::Operation::DeleteDocument {
            key: document,
            expected: DocumentExpectation::Any,
        }];
        if has_positions {
            operations.push(aquifer_stream::Operation::DeleteGroup {
                tenant: key.tenant.clone(),
                group: key.group.clone(),
            });
        }
        let done = self.store.commit(operations).await;
        done.map(|_| ()).map_err(|error| crate::error_code::error_code(&error))
    }
}

impl Group {
    fn listed(&self) -> ListedGroup {
        let shell = self.shell.lock();
        ListedGroup {
            group: self.key.group.clone(),
            protocol_type: shell.machine.protocol_type.clone().unwrap_or_default(),
            state: shell.machine.state.name(),
            kind: "classic",
        }
    }
}

impl Shell {
    fn document(&self) -> GroupDocument {
        GroupDocument {
            empty_since_ms: self.empty_since_ms,
            kind: Kind::Classic(ClassicDocument::of(&self.machine)),
        }
    }

    fn answer(&mut self, out: Out) {
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
            Out::Save(_) => {}
        }
    }
}

impl Out {
    /// What is answered where the save before it failed.
    fn failed(self) -> Self {
        let error = ResponseError::CoordinatorNotAvailable;
        match self {
            Self::Join(ticket, joined) if joined.error.is_none() => {
                Self::Join(ticket, Joined::refused(error, &joined.member))
            }
            Self::Sync(ticket, synced) if synced.error.is_none() => {
                Self::Sync(ticket, Synced::refused(error))
            }
            out => out,
        }
    }
}

async fn save(inner: Arc<Inner>, group: Arc<Group>, text: String) {
    let alone = group.commits.write().await;
    let key = document::key(&group.key);
    let result = inner.store.put_document(key, text, DocumentExpectation::Any).await;
    drop(alone);
    inner.saved(&group, result);
}

/// Ends sessions and rebalances when they are due.
async fn run_timers(groups: Arc<Inner>, mut stopping: watch::Receiver<bool>) {
    loop {
        let now = groups.now();
        for key in groups.timers.due(now) {
            let Some(group) = groups.get(&key) else { continue };
            groups.with(&group, |shell, now, actions| {
                shell.armed = None;
                shell.machine.tick(now, actions);
            });
        }
        let wait = groups.timers.next().map(|at| at.saturating_sub(groups.now()));
        // Without an entry there is nothing to wait for but a first one.
        let wait = Duration::from_millis(wait.unwrap_or(60_000).max(1));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = groups.timers.earlier() => {}
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return,
        }
    }
}

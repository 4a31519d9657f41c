//! Consumer groups: who is in them, who reads what, how far they are.
//!
//! The rules are in pure state machines ([`classic`], [`consumer`]); this is
//! what surrounds them: one lock a group, the clock, the waiting requests, and
//! the store.
//! Positions and documents are the ledger's; nothing is decided here that a
//! crash could take back: an answer that depends on something stored is sent
//! when it is durable.

pub(crate) mod classic;
pub(crate) mod consumer;
mod consumer_document;
mod document;
mod machine;
mod shell;
mod sweep;
mod timers;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::{Clock, Random, uuid_v4};
use aquifer_stream::{DocumentExpectation, DocumentKind, StreamStore};
use aquifer_types::{GroupName, TenantName};
use kafka_protocol::ResponseError;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use classic::{Action, Asker, Join, Joined, Ms, Sync, Synced};
use consumer::{Beat, Beaten, JOINS, Topics};
use document::GroupDocument;
use machine::Limits;
pub(crate) use machine::{CommitBy, Machine};
use shell::{Out, Shell};
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
            classic: classic::Limits {
                session_ms_min: options.group_session_ms_min,
                session_ms_max: options.group_session_ms_max,
                members_max: options.group_members_max,
                initial_delay_ms: options.group_initial_delay_ms,
            },
            consumer: consumer::Limits {
                session_ms: options.consumer_group_session_ms,
                members_max: options.consumer_group_members_max,
            },
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
        format!("{prefix}-{}", self.fresh_uuid())
    }

    /// The same, for members that bring no id to a consumer group.
    pub(crate) fn fresh_uuid(&self) -> String {
        uuid_v4(&*self.inner.random).to_string()
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
                let ticket = shell.tickets;
                shell.joins.insert(ticket, sender);
                match shell.machine.classic(self.inner.limits, now) {
                    Some(machine) => machine.join(now, join, ticket, actions),
                    None => {
                        let answer = refused(ResponseError::InconsistentGroupProtocol);
                        actions.push(Action::Join(ticket, answer));
                    }
                }
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
            let ticket = shell.tickets;
            shell.syncs.insert(ticket, sender);
            match &mut shell.machine {
                Machine::Classic(machine) => machine.sync(now, sync, ticket, actions),
                Machine::Consumer(_) => actions.push(Action::Sync(ticket, unknown())),
            }
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
        let beat = self.inner.with(&group, |shell, now, _| match &mut shell.machine {
            Machine::Classic(machine) => machine.heartbeat(now, member, generation),
            Machine::Consumer(_) => Err(ResponseError::UnknownMemberId),
        });
        beat.unwrap_or(Err(ResponseError::UnknownMemberId))
    }

    /// A member of a consumer group joins, stays or leaves; answered when what
    /// it is told is stored.
    pub(crate) async fn beat(
        &self,
        key: &GroupKey,
        beat: Beat,
        topics: &(dyn Topics + Send + std::marker::Sync),
    ) -> Result<Beaten, ResponseError> {
        let (sender, receiver) = oneshot::channel();
        let mut ask = Some(sender);
        // A group that was forgotten in between is asked for again.
        while ask.is_some() {
            let group = match self.inner.get(key) {
                Some(group) => group,
                None if beat.epoch != JOINS => return Err(ResponseError::UnknownMemberId),
                None => self.inner.get_or_create(key)?,
            };
            self.inner.with(&group, |shell, now, _| {
                let Some(sender) = ask.take() else { return };
                shell.beat(now, self.inner.limits, &beat, topics, sender);
            });
        }
        receiver.await.unwrap_or(Err(ResponseError::CoordinatorNotAvailable))
    }

    pub(crate) fn leave(&self, key: &GroupKey, member: &Asker) -> Result<(), ResponseError> {
        let group = self.inner.get(key).ok_or(ResponseError::UnknownMemberId)?;
        let left = self.inner.with(&group, |shell, now, actions| {
            match (&mut shell.machine, &member.instance) {
                (Machine::Classic(machine), _) => machine.leave(now, member, actions),
                // By whoever manages the group: members leave by heartbeats.
                (Machine::Consumer(machine), Some(instance)) if member.member.is_empty() => {
                    machine.expel(instance)
                }
                (Machine::Consumer(_), _) => Err(ResponseError::UnknownMemberId),
            }
        });
        left.unwrap_or(Err(ResponseError::UnknownMemberId))
    }

    /// Commits by `commit` what the member may commit. No generation that
    /// begins meanwhile is told to anybody before that is done.
    pub(crate) async fn commit<R>(
        &self,
        key: &GroupKey,
        by: CommitBy<'_>,
        commit: impl Future<Output = R>,
    ) -> Result<R, ResponseError> {
        let Some(group) = self.inner.get(key) else {
            // Nobody is in it: any consumer without a generation may.
            if by.generation < 0 {
                return Ok(commit.await);
            }
            return Err(by.without_group());
        };
        let _together = group.commits.read().await;
        let may = self.inner.with(&group, |shell, now, _| shell.machine.commit(now, &by));
        match may {
            Some(may) => may?,
            None if by.generation < 0 => {}
            None => return Err(ResponseError::UnknownMemberId),
        }
        Ok(commit.await)
    }

    /// Whether a member of a consumer group may be told positions.
    pub(crate) fn check_fetch(
        &self,
        key: &GroupKey,
        member: Option<&str>,
        epoch: i32,
    ) -> Result<(), ResponseError> {
        let Some(group) = self.inner.get(key) else { return Ok(()) };
        let shell = group.shell.lock();
        match &shell.machine {
            Machine::Classic(_) => Ok(()),
            Machine::Consumer(machine) => machine.check_fetch(member, epoch),
        }
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
    pub(crate) fn describe(&self, key: &GroupKey) -> Option<Machine> {
        if let Some(group) = self.inner.get(key) {
            return Some(group.shell.lock().machine.clone());
        }
        let has_positions = self.inner.store.describe_group(&key.tenant, &key.group).is_ok();
        has_positions.then(|| Machine::new(self.inner.limits))
    }

    /// The streams that members of a group subscribe to, where that is known
    /// of all of them.
    pub(crate) fn subscribed(
        &self,
        key: &GroupKey,
        topics: &dyn Topics,
    ) -> Result<BTreeSet<String>, ResponseError> {
        self.describe(key).ok_or(ResponseError::GroupIdNotFound)?.subscribed(topics)
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
            let (name, document) =
                match (GroupName::new(&key.name), GroupDocument::parse(&document)) {
                    (Ok(name), Ok(document)) => (name, document),
                    (_, parsed) => {
                        let error = parsed.err().map(|error| error.to_string());
                        tracing::error!(group = key.name, error, "a stored group cannot be read");
                        continue;
                    }
                };
            let key = GroupKey { tenant: key.tenant, group: name };
            let empty_since_ms = document.empty_since_ms;
            let group = self.insert(&key, document.restore(self.limits, now));
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
        if shell.is_gone || !is_at_rest || shell.machine.generation() == 0 {
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
        Ok(self.insert(key, Machine::new(self.limits)))
    }

    /// The group, or `machine` as a new one.
    fn insert(&self, key: &GroupKey, machine: Machine) -> Arc<Group> {
        let mut map = self.map.write();
        let group = map.entry(key.clone()).or_insert_with(|| {
            Arc::new(Group {
                key: key.clone(),
                shell: Mutex::new(Shell::new(machine)),
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
        self.forget_if_nothing(group, &mut shell);
        Some(result)
    }

    fn forget_if_nothing(&self, group: &Arc<Group>, shell: &mut Shell) {
        if shell.machine.is_forgettable() && shell.joins.is_empty() && shell.outbox.is_empty() {
            self.forget(group, shell);
        }
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
        shell.queue(actions);
        self.send(group, shell);
        let wake = shell.machine.wake();
        self.timers.arm(&group.key, &mut shell.armed, wake);
    }

    /// Sends what does not have to wait for a save.
    fn send(self: &Arc<Self>, group: &Arc<Group>, shell: &mut Shell) {
        while !shell.is_saving {
            match shell.outbox.pop_front() {
                None => return,
                Some(Out::Save(text)) => self.spawn_save(group, shell, text),
                Some(Out::SaveLatest(number)) => {
                    if let Some(text) = shell.latest(number) {
                        self.spawn_save(group, shell, text);
                    }
                }
                Some(out) => shell.answer(out),
            }
        }
    }

    fn spawn_save(self: &Arc<Self>, group: &Arc<Group>, shell: &mut Shell, text: String) {
        shell.is_saving = true;
        tokio::spawn(save(self.clone(), group.clone(), text));
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
            let now = self.now();
            match &mut shell.machine {
                Machine::Classic(machine) => machine.save_failed(now, &mut actions),
                Machine::Consumer(_) => self.take_back(group, &mut shell, now),
            }
        }
        self.settle(group, &mut shell, actions);
        self.forget_if_nothing(group, &mut shell);
    }

    /// What could not be stored was not told to anybody, and did not happen.
    fn take_back(&self, group: &Arc<Group>, shell: &mut Shell, now: Ms) {
        let stored = self.store.document(&document::key(&group.key));
        let stored = stored.map(|document| GroupDocument::parse(&document)).transpose();
        shell.machine = match stored {
            Ok(Some(document)) => document.restore(self.limits, now),
            Ok(None) => Machine::new(self.limits),
            Err(error) => {
                let group = group.key.group.as_str();
                tracing::error!(group, %error, "a stored group cannot be read");
                Machine::new(self.limits)
            }
        };
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
            protocol_type: shell.machine.protocol_type().to_owned(),
            state: shell.machine.state(),
            kind: shell.machine.kind(),
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

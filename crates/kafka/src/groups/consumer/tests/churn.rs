//! Many seeds of clients that come, go, vanish, come back and lose answers, over
//! a coordinator that is killed now and then, while topics change.

use aquifer_env::{Random as _, SeededRandom};
use kafka_protocol::ResponseError;

use super::super::super::document::GroupDocument;
use super::super::super::machine::{self, Machine};
use super::super::{Assignor, Beaten, ConsumerGroup, LEAVES, LEAVES_FOR_NOW};
use super::*;

const CLIENTS: usize = 5;
/// Clients that vanished are members until their sessions end.
const LIMITS: Limits = Limits { session_ms: SESSION_MS, members_max: 16 * CLIENTS };
const STEP_MS: Ms = 10;
const CHURN_STEPS: usize = 400;
/// Long enough for every session and rebalance to end.
const CALM_STEPS: usize = 200;

#[derive(Debug, Clone)]
struct Client {
    instance: Option<String>,
    id: String,
    epoch: i32,
    /// What it reads.
    owned: BTreeSet<Partition>,
    /// What it shall read; more than it reads until it has given up the rest.
    told: BTreeSet<Partition>,
    assignor: Option<Assignor>,
    regex: Option<String>,
    is_away: bool,
    /// An answer was lost: it says everything again.
    says_all: bool,
}

struct World {
    random: SeededRandom,
    now: Ms,
    stage: Stage,
    group: ConsumerGroup,
    /// The group's document, and whether it had any epoch.
    stored: Option<String>,
    ids: u64,
    clients: Vec<Client>,
    /// The highest epoch that each id was told.
    epochs: BTreeMap<String, i32>,
}

impl World {
    fn new(seed: u64) -> Self {
        let random = SeededRandom::new(seed);
        let clients = (0..CLIENTS).map(|number| Client {
            instance: (number % 2 == 0).then(|| format!("i{number}")),
            id: String::new(),
            epoch: JOINS,
            owned: BTreeSet::new(),
            told: BTreeSet::new(),
            assignor: (seed.is_multiple_of(3)).then_some(Assignor::Range),
            regex: (number == 1).then(|| "[st]".to_owned()),
            is_away: true,
            says_all: true,
        });
        Self {
            random,
            now: 0,
            stage: Stage::with(&[("s", 7), ("t", 4)]),
            group: ConsumerGroup::new(LIMITS, 0),
            stored: None,
            ids: 0,
            clients: clients.collect(),
            epochs: BTreeMap::new(),
        }
    }

    fn chance(&self, one_in: u64) -> bool {
        self.random.next_u64().is_multiple_of(one_in)
    }

    fn step(&mut self, is_churning: bool) {
        self.now += STEP_MS;
        self.group.tick(self.now);
        self.store();
        if is_churning && self.chance(60) {
            self.restart();
        }
        if is_churning && self.chance(80) {
            self.change_topics();
        }
        for number in 0..self.clients.len() {
            if is_churning && self.chance(25) {
                self.disturb(number);
            } else if is_churning && self.chance(3) {
                // It is slow.
            } else {
                self.turn(number, is_churning);
            }
            self.check_owners();
        }
    }

    fn store(&mut self) {
        if self.group.take_dirty() {
            let machine = Machine::Consumer(self.group.clone());
            self.stored = Some(GroupDocument::of(&machine, None).to_json().unwrap());
        }
    }

    /// The coordinator is killed: what was not stored is gone.
    fn restart(&mut self) {
        let Some(stored) = &self.stored else {
            self.group = ConsumerGroup::new(LIMITS, 0);
            return;
        };
        let document: GroupDocument = serde_json::from_str(stored).unwrap();
        let classic = super::super::super::classic::Limits {
            session_ms_min: 0,
            session_ms_max: 0,
            members_max: 0,
            initial_delay_ms: 0,
        };
        let limits = machine::Limits { classic, consumer: LIMITS };
        let Machine::Consumer(group) = document.restore(limits, self.now) else {
            panic!("it was a consumer group");
        };
        self.group = group;
    }

    fn change_topics(&mut self) {
        let partitions = 1 + (self.random.next_u64() % 9) as u32;
        match self.stage.topics.get("t").copied() {
            None => self.stage.create("t", partitions),
            Some(topic) if topic.partitions < partitions => self.stage.grow("t", partitions),
            Some(_) => self.stage.delete("t"),
        }
    }

    fn disturb(&mut self, number: usize) {
        if self.chance(2) {
            // It vanishes, and knows nothing when it is back.
            let client = &mut self.clients[number];
            client.forget();
            client.is_away = true;
            // Others take a static member's place once its session has ended.
            return;
        }
        let client = &mut self.clients[number];
        let epoch = if client.instance.is_some() { LEAVES_FOR_NOW } else { LEAVES };
        let leave = Beat { epoch, ..client.beat() };
        client.forget();
        client.is_away = true;
        let _ = self.group.beat(self.now, &leave, &self.stage);
        self.store();
    }

    fn turn(&mut self, number: usize, is_churning: bool) {
        let client = &mut self.clients[number];
        if client.is_away {
            self.ids += 1;
            client.id = format!("m{}", self.ids);
            client.is_away = false;
        }
        // It gives up what it does not have to read any more, sooner or later.
        let gives_up = !is_churning || self.random.next_u64().is_multiple_of(2);
        if gives_up {
            client.owned = client.told.clone();
        }
        let beat = client.beat();
        let answer = self.group.beat(self.now, &beat, &self.stage);
        let is_lost = is_churning && self.chance(20);
        if is_lost && self.chance(2) {
            // The coordinator is killed before what it did is stored.
            self.restart();
        }
        self.store();
        if is_lost {
            self.clients[number].says_all = true;
            return;
        }
        match answer {
            Ok(beaten) => self.told(number, beaten),
            Err(error) => self.clients[number].fail(error),
        }
    }

    fn told(&mut self, number: usize, beaten: Beaten) {
        let client = &mut self.clients[number];
        let last = self.epochs.entry(client.id.clone()).or_insert(beaten.epoch);
        assert!(*last <= beaten.epoch, "{} went back to {}", client.id, beaten.epoch);
        *last = beaten.epoch;
        client.epoch = beaten.epoch;
        client.says_all = false;
        if let Some(assignment) = beaten.assignment {
            client.told = assignment.into_iter().collect();
        }
    }

    /// Nobody reads what another one reads, but for those that the group has
    /// lost, and for what somebody was given and, with a lost answer, is not to
    /// begin any more: in both cases commits are fenced, as in Kafka.
    fn check_owners(&self) {
        let mut owners: BTreeMap<Partition, &str> = BTreeMap::new();
        for client in self.clients.iter().filter(|client| !client.is_away) {
            let Some(member) = self.group.members.get(&client.id) else { continue };
            if client.check(member.epoch).is_err() {
                continue;
            }
            for partition in client.owned.union(&client.told) {
                if client.epoch < member.epoch && !member.held_since(client.epoch, &[*partition]) {
                    continue;
                }
                // What it was told and does not own any more may be another's.
                let is_its =
                    member.owned.contains_key(partition) || member.revoking.contains_key(partition);
                assert!(is_its, "{} reads {partition:?}, which is not its own", client.id);
                if let Some(other) = owners.insert(*partition, &client.id) {
                    panic!("{other} and {} read {partition:?}", client.id);
                }
            }
        }
    }

    /// Everybody is there, and together they have everything, once.
    fn check_settled(&self, seed: u64) {
        let mut all = BTreeSet::new();
        for client in &self.clients {
            assert!(self.group.members.contains_key(&client.id), "seed {seed}: {client:?}");
            assert_eq!(client.epoch, self.group.epoch, "seed {seed}");
            for partition in &client.owned {
                assert!(all.insert(*partition), "seed {seed}: {partition:?} twice");
            }
        }
        assert_eq!(all, self.stage.partitions(&["s", "t"]), "seed {seed}");
        assert_eq!(self.group.members.len(), CLIENTS, "seed {seed}");
        let counts: Vec<usize> = self.clients.iter().map(|client| client.owned.len()).collect();
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        let is_uniform = self.group.assignor == Assignor::Uniform;
        assert!(!is_uniform || most - least <= 1, "seed {seed}: {counts:?}");
        assert_eq!(self.group.state(), super::super::State::Stable, "seed {seed}");
    }
}

impl Client {
    fn beat(&self) -> Beat {
        let topics: &[&str] = if self.regex.is_some() { &[] } else { &["s", "t"] };
        let full = Beat {
            instance: self.instance.clone(),
            regex: self.regex.clone(),
            assignor: self.assignor,
            epoch: self.epoch,
            owned: Some(self.owned.clone()),
            ..join(&self.id, topics)
        };
        if self.says_all {
            return full;
        }
        Beat { names: None, regex: None, rebalance_ms: None, ..full }
    }

    fn forget(&mut self) {
        self.epoch = JOINS;
        self.owned.clear();
        self.told.clear();
        self.says_all = true;
    }

    fn fail(&mut self, error: ResponseError) {
        match error {
            ResponseError::FencedMemberEpoch
            | ResponseError::UnknownMemberId
            | ResponseError::UnreleasedInstanceId => self.forget(),
            error => panic!("{} is told {error}", self.id),
        }
    }

    /// Whether its next heartbeat would be let in.
    fn check(&self, epoch: i32) -> Result<(), ()> {
        if self.epoch == epoch || self.epoch + 1 == epoch { Ok(()) } else { Err(()) }
    }
}

#[test]
fn nobody_shares_a_partition_and_everybody_comes_to_rest() {
    for seed in 0..if aquifer_testkit::is_full_test() { 300 } else { 40 } {
        let mut world = World::new(seed);
        for _ in 0..CHURN_STEPS {
            world.step(true);
        }
        if !world.stage.topics.contains_key("t") {
            world.stage.create("t", 3);
        }
        for _ in 0..CALM_STEPS {
            world.step(false);
        }
        world.check_settled(seed);
    }
}

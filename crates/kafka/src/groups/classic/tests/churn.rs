//! Many seeds of clients that come, go, vanish and come back, over a
//! coordinator that is killed now and then.

use std::collections::BTreeMap;

use aquifer_env::{Random as _, SeededRandom};
use kafka_protocol::ResponseError;

use super::super::{Action, ClassicGroup, Join, Joined, Sync, Synced};
use super::*;

const PARTITIONS: u8 = 7;
const CLIENTS: usize = 5;
const STEP_MS: Ms = 10;
const CHURN_STEPS: usize = 400;
/// Long enough for every session and rebalance to end.
const CALM_STEPS: usize = 400;

/// What a client does next.
#[derive(Debug, Clone, PartialEq)]
enum Doing {
    Away,
    Joins,
    WaitsJoin(u64),
    WaitsSync(u64),
    Owns(Vec<u8>),
}

#[derive(Debug)]
struct Client {
    instance: Option<String>,
    id: String,
    generation: i32,
    doing: Doing,
}

struct World {
    random: SeededRandom,
    now: Ms,
    group: ClassicGroup,
    stored: ClassicGroup,
    tickets: u64,
    ids: u64,
    clients: Vec<Client>,
    /// Who owned a partition in a generation.
    owners: BTreeMap<(i32, u8), String>,
    /// The generation of a partition's last commit.
    committed: BTreeMap<u8, i32>,
}

impl World {
    fn new(seed: u64) -> Self {
        let limits = Limits { initial_delay_ms: 20, ..LIMITS };
        let clients = (0..CLIENTS).map(|number| Client {
            instance: (number % 2 == 0).then(|| format!("i{number}")),
            id: String::new(),
            generation: -1,
            doing: Doing::Away,
        });
        Self {
            random: SeededRandom::new(seed),
            now: 0,
            group: ClassicGroup::new(limits),
            stored: ClassicGroup::new(limits),
            tickets: 0,
            ids: 0,
            clients: clients.collect(),
            owners: BTreeMap::new(),
            committed: BTreeMap::new(),
        }
    }

    fn chance(&self, one_in: u64) -> bool {
        self.random.next_u64().is_multiple_of(one_in)
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Save => self.stored = self.group.clone(),
                Action::Join(ticket, joined) => self.joined(ticket, joined),
                Action::Sync(ticket, synced) => self.synced(ticket, synced),
            }
        }
    }

    fn waiting(&mut self, doing: &Doing) -> Option<usize> {
        self.clients.iter().position(|client| client.doing == *doing)
    }

    fn joined(&mut self, ticket: u64, joined: Joined) {
        let Some(number) = self.waiting(&Doing::WaitsJoin(ticket)) else { return };
        let client = &mut self.clients[number];
        match joined.error {
            Some(ResponseError::MemberIdRequired) => {
                client.id = joined.member;
                client.doing = Doing::Joins;
                return;
            }
            Some(error) => return client.fail(error),
            None => {}
        }
        client.id.clone_from(&joined.member);
        client.generation = joined.generation;
        let mut assignments: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        if joined.leader == joined.member && !joined.skip_assignment {
            let ids: Vec<_> = joined.members.iter().map(|of| of.member.clone()).collect();
            for partition in 0..PARTITIONS {
                let id = &ids[usize::from(partition) % ids.len()];
                assignments.entry(id.clone()).or_default().push(partition);
            }
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let client = &mut self.clients[number];
        client.doing = Doing::WaitsSync(ticket);
        let sync = Sync {
            member: client.asker(),
            generation: client.generation,
            protocol_type: None,
            protocol: None,
            assignments: assignments.into_iter().map(|(id, of)| (id, of.into())).collect(),
        };
        let mut actions = Vec::new();
        self.group.sync(self.now, sync, ticket, &mut actions);
        self.act(actions);
    }

    fn synced(&mut self, ticket: u64, synced: Synced) {
        let Some(number) = self.waiting(&Doing::WaitsSync(ticket)) else { return };
        let client = &mut self.clients[number];
        if let Some(error) = synced.error {
            return client.fail(error);
        }
        let owned = synced.assignment.to_vec();
        client.doing = Doing::Owns(owned.clone());
        // A static member's next incarnation takes over from the one before.
        let name = client.instance.clone().unwrap_or_else(|| client.id.clone());
        let generation = client.generation;
        for partition in owned {
            let owner = self.owners.entry((generation, partition)).or_insert_with(|| name.clone());
            assert_eq!(*owner, name, "partition {partition} in generation {generation}");
        }
    }

    fn step(&mut self, is_churning: bool) {
        self.now += STEP_MS;
        let mut actions = Vec::new();
        self.group.tick(self.now, &mut actions);
        self.act(actions);
        if is_churning && self.chance(60) {
            self.restart();
        }
        for number in 0..self.clients.len() {
            if is_churning && self.chance(25) {
                self.disturb(number);
            } else if is_churning && self.chance(3) {
                // It is slow.
            } else {
                self.turn(number);
            }
        }
    }

    /// The coordinator is killed: what was not stored is gone, and so is every
    /// connection.
    fn restart(&mut self) {
        let stored = &self.stored;
        let names = (stored.protocol_type.clone(), stored.protocol.clone(), stored.leader.clone());
        let mut members: Vec<_> = stored.members.values().cloned().collect();
        for member in &mut members {
            (member.joining, member.syncing) = (None, None);
        }
        self.group =
            ClassicGroup::restored(stored.limits, stored.generation, names, members, self.now);
        for client in &mut self.clients {
            match client.doing {
                Doing::WaitsJoin(_) | Doing::WaitsSync(_) => client.doing = Doing::Joins,
                _ => {}
            }
        }
    }

    fn disturb(&mut self, number: usize) {
        if self.chance(2) {
            // It vanishes, and knows nothing when it is back.
            let client = &mut self.clients[number];
            client.doing = Doing::Away;
            client.id.clear();
            return;
        }
        let asker = self.clients[number].asker();
        let mut actions = Vec::new();
        let _ = self.group.leave(self.now, &asker, &mut actions);
        self.act(actions);
        let client = &mut self.clients[number];
        client.doing = Doing::Away;
        client.id.clear();
    }

    fn turn(&mut self, number: usize) {
        match self.clients[number].doing.clone() {
            Doing::Away => self.clients[number].doing = Doing::Joins,
            Doing::Joins => self.join(number),
            Doing::Owns(owned) => self.work(number, &owned),
            Doing::WaitsJoin(_) | Doing::WaitsSync(_) => {}
        }
    }

    fn join(&mut self, number: usize) {
        self.tickets += 1;
        self.ids += 1;
        let client = &mut self.clients[number];
        client.doing = Doing::WaitsJoin(self.tickets);
        let join = Join {
            member: client.asker(),
            fresh_id: format!("m{}", self.ids),
            takes_id_first: true,
            skips_assignment: number.is_multiple_of(4),
            ..super::join("", 100, &["range"])
        };
        let mut actions = Vec::new();
        self.group.join(self.now, join, self.tickets, &mut actions);
        self.act(actions);
    }

    fn work(&mut self, number: usize, owned: &[u8]) {
        let (asker, generation) = (self.clients[number].asker(), self.clients[number].generation);
        if self.group.commit(self.now, &asker, generation, false).is_ok() {
            for partition in owned {
                let last = self.committed.insert(*partition, generation);
                assert!(last <= Some(generation), "{generation} commits after {last:?}");
            }
        }
        if let Err(error) = self.group.heartbeat(self.now, &asker, generation) {
            self.clients[number].fail(error);
        }
    }

    /// Everybody owns something, together everything, once.
    fn check_settled(&self) {
        let mut all = Vec::new();
        for client in &self.clients {
            let Doing::Owns(owned) = &client.doing else { panic!("{client:?} owns nothing") };
            assert_eq!(client.generation, self.group.generation);
            all.extend_from_slice(owned);
        }
        all.sort_unstable();
        assert_eq!(all, (0..PARTITIONS).collect::<Vec<_>>());
    }
}

impl Client {
    fn asker(&self) -> Asker {
        Asker { member: self.id.clone(), instance: self.instance.clone() }
    }

    fn fail(&mut self, error: ResponseError) {
        let keeps_id =
            matches!(error, ResponseError::RebalanceInProgress | ResponseError::IllegalGeneration);
        if !keeps_id {
            self.id.clear();
        }
        self.doing = Doing::Joins;
    }
}

#[test]
fn nobody_shares_a_partition_and_everybody_comes_to_rest() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..CHURN_STEPS {
            world.step(true);
        }
        for _ in 0..CALM_STEPS {
            world.step(false);
        }
        println!("seed {seed}: generation {}", world.group.generation);
        world.check_settled();
    }
}

//! One rule a test.

use kafka_protocol::ResponseError;

use super::super::{Action, ClassicGroup, Join, Joined, Sync, Synced};
use super::*;

/// A group, the time, and who is answered what.
struct Group {
    machine: ClassicGroup,
    now: Ms,
    tickets: u64,
    saves: usize,
    joined: Vec<(u64, Joined)>,
    synced: Vec<(u64, Synced)>,
}

impl Group {
    fn new(limits: Limits) -> Self {
        let machine = ClassicGroup::new(limits);
        Self { machine, now: 0, tickets: 0, saves: 0, joined: vec![], synced: vec![] }
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Save => self.saves += 1,
                Action::Join(ticket, joined) => self.joined.push((ticket, joined)),
                Action::Sync(ticket, synced) => self.synced.push((ticket, synced)),
            }
        }
    }

    fn join(&mut self, join: Join) -> u64 {
        self.tickets += 1;
        let mut actions = Vec::new();
        self.machine.join(self.now, join, self.tickets, &mut actions);
        self.take(actions);
        self.tickets
    }

    /// Joins a new member under this id.
    fn member(&mut self, id: &str) -> u64 {
        self.join(Join { fresh_id: id.into(), ..join("", 100, &["range"]) })
    }

    fn static_member(&mut self, instance: &str, id: &str) -> u64 {
        let member = Asker { member: String::new(), instance: Some(instance.into()) };
        self.join(Join { member, fresh_id: id.into(), ..join("", 100, &["range"]) })
    }

    fn sync(&mut self, id: &str, generation: i32, to: &[&str]) -> u64 {
        self.tickets += 1;
        let mut actions = Vec::new();
        let assignment = |id: &&str| ((*id).to_owned(), Bytes::from((*id).to_owned()));
        let assignments = to.iter().map(assignment).collect();
        let member = asker(id);
        let sync = Sync { member, generation, protocol_type: None, protocol: None, assignments };
        self.machine.sync(self.now, sync, self.tickets, &mut actions);
        self.take(actions);
        self.tickets
    }

    fn leave(&mut self, member: &Asker) -> Result<(), ResponseError> {
        let mut actions = Vec::new();
        let left = self.machine.leave(self.now, member, &mut actions);
        self.take(actions);
        left
    }

    fn pass(&mut self, ms: Ms) {
        self.now += ms;
        let mut actions = Vec::new();
        self.machine.tick(self.now, &mut actions);
        self.take(actions);
    }

    fn beat(&mut self, id: &str) -> Result<(), ResponseError> {
        let generation = self.machine.generation;
        self.machine.heartbeat(self.now, &asker(id), generation)
    }

    fn answer(&self, ticket: u64) -> Option<&Joined> {
        self.joined.iter().find(|(of, _)| *of == ticket).map(|(_, joined)| joined)
    }

    fn error(&self, ticket: u64) -> Option<ResponseError> {
        self.answer(ticket).expect("it is answered").error
    }

    fn assignment(&self, ticket: u64) -> Result<Bytes, ResponseError> {
        let (_, synced) = self.synced.iter().find(|(of, _)| *of == ticket).expect("an answer");
        synced.error.map_or(Ok(synced.assignment.clone()), Err)
    }

    /// Two members, `a` leading, in generation 2.
    fn stable() -> Self {
        let mut group = Self::new(LIMITS);
        group.member("a");
        group.member("b");
        group.join(join("a", 100, &["range"]));
        let (a, b) = (group.sync("a", 2, &["a", "b"]), group.sync("b", 2, &[]));
        assert_eq!(group.assignment(a), Ok(Bytes::from_static(b"a")));
        assert_eq!(group.assignment(b), Ok(Bytes::from_static(b"b")));
        group
    }
}

#[test]
fn members_come_together_and_get_what_their_leader_assigns() {
    let mut group = Group::new(LIMITS);
    let a = group.member("a");
    assert_eq!(group.answer(a).map(|of| (of.generation, of.members.len())), Some((1, 1)));
    let b = group.member("b");
    assert_eq!(group.answer(b), None, "the first has to come back");
    assert_eq!(group.beat("a"), Err(ResponseError::RebalanceInProgress));
    let a = group.join(join("a", 100, &["range"]));
    let [a, b] = [a, b].map(|of| group.answer(of).cloned().unwrap());
    assert_eq!((a.generation, b.generation), (2, 2));
    assert_eq!((a.leader.as_str(), b.leader.as_str()), ("a", "a"));
    assert_eq!((a.members.len(), b.members.len()), (2, 0));
    assert_eq!(a.protocol.as_deref(), Some("range"));
    let follower = group.sync("b", 2, &[]);
    assert!(group.synced.is_empty(), "the leader has not assigned yet");
    let saves = group.saves;
    group.sync("a", 2, &["a", "b"]);
    assert_eq!(group.saves, saves + 1);
    assert_eq!(group.assignment(follower), Ok(Bytes::from_static(b"b")));
    assert_eq!((group.beat("a"), group.beat("b")), (Ok(()), Ok(())));
}

#[test]
fn the_first_rebalance_waits_for_more() {
    let mut group = Group::new(Limits { initial_delay_ms: 50, ..LIMITS });
    let a = group.member("a");
    group.pass(40);
    let b = group.member("b");
    group.pass(10);
    assert_eq!(group.answer(a), None, "a new member put it off");
    group.pass(50);
    assert_eq!(group.answer(a).map(|of| of.generation), Some(1));
    assert_eq!(group.answer(b).map(|of| of.generation), Some(1));
}

#[test]
fn new_members_take_an_id_first() {
    let mut group = Group::new(LIMITS);
    let first = group.join(Join { takes_id_first: true, ..join("", 100, &["range"]) });
    assert_eq!(group.error(first), Some(ResponseError::MemberIdRequired));
    assert_eq!(group.answer(first).unwrap().member, "fresh");
    assert!(group.machine.members.is_empty());
    let second = group.join(join("fresh", 100, &["range"]));
    assert_eq!(group.error(second), None);
    // One that never comes back holds nothing up for longer than a session.
    group.sync("fresh", 1, &["fresh"]);
    let gone = Join { takes_id_first: true, fresh_id: "gone".into(), ..join("", 60, &["range"]) };
    group.join(gone);
    group.join(join("fresh", 100, &["roundrobin", "range"]));
    assert_eq!(group.machine.generation, 1);
    group.pass(60);
    assert_eq!(group.machine.generation, 2);
    let late = group.join(join("gone", 100, &["range"]));
    assert_eq!(group.error(late), Some(ResponseError::UnknownMemberId));
}

#[test]
fn what_does_not_fit_is_refused() {
    let check = |group: &mut Group, join: Join, error| {
        let ticket = group.join(join);
        assert_eq!(group.error(ticket), Some(error));
    };
    let mut group = Group::stable();
    check(&mut group, join("", 9, &["range"]), ResponseError::InvalidSessionTimeout);
    check(&mut group, join("", 1_001, &["range"]), ResponseError::InvalidSessionTimeout);
    check(&mut group, join("x", 100, &["range"]), ResponseError::UnknownMemberId);
    check(&mut group, join("", 100, &["other"]), ResponseError::InconsistentGroupProtocol);
    check(&mut group, join("", 100, &[]), ResponseError::InconsistentGroupProtocol);
    let connect = Join { protocol_type: "connect".into(), ..join("", 100, &["range"]) };
    check(&mut group, connect, ResponseError::InconsistentGroupProtocol);
    for number in 2..8 {
        group.member(&number.to_string());
    }
    group.join(join("a", 100, &["range"]));
    group.join(join("b", 100, &["range"]));
    assert_eq!(group.machine.members.len(), 8);
    check(&mut group, join("", 100, &["range"]), ResponseError::GroupMaxSizeReached);
}

#[test]
fn generations_and_members_are_checked() {
    let mut group = Group::stable();
    let stranger = group.sync("x", 2, &[]);
    assert_eq!(group.assignment(stranger), Err(ResponseError::UnknownMemberId));
    let old = group.sync("b", 1, &[]);
    assert_eq!(group.assignment(old), Err(ResponseError::IllegalGeneration));
    let beat = group.machine.heartbeat(0, &asker("b"), 1);
    assert_eq!(beat, Err(ResponseError::IllegalGeneration));
    let mut check = |member: &str, generation, in_transaction, expected| {
        let result = group.machine.commit(0, &asker(member), generation, in_transaction);
        assert_eq!(result, expected, "{member} {generation}");
    };
    check("a", 2, false, Ok(()));
    check("a", 1, false, Err(ResponseError::IllegalGeneration));
    check("x", 2, false, Err(ResponseError::UnknownMemberId));
    check("", -1, false, Err(ResponseError::UnknownMemberId));
    check("", -1, true, Ok(()));
    let mut empty = ClassicGroup::new(LIMITS);
    assert_eq!(empty.commit(0, &asker(""), -1, false), Ok(()));
    assert_eq!(empty.commit(0, &asker("a"), 1, false), Err(ResponseError::UnknownMemberId));
}

#[test]
fn the_lost_are_missed_and_the_leaving_are_not() {
    let mut group = Group::stable();
    group.pass(60);
    assert_eq!(group.beat("a"), Ok(()));
    group.pass(60);
    assert_eq!(group.beat("a"), Err(ResponseError::RebalanceInProgress));
    let a = group.join(join("a", 100, &["range"]));
    assert_eq!(group.answer(a).map(|of| (of.generation, of.members.len())), Some((3, 1)));
    group.sync("a", 3, &["a"]);
    assert_eq!(group.leave(&asker("x")), Err(ResponseError::UnknownMemberId));
    assert_eq!(group.leave(&asker("a")), Ok(()));
    assert!(group.machine.is_vacant());
    assert_eq!(group.machine.generation, 4, "the empty group is stored under a new one");
    // Who was in it has to begin anew.
    let again = group.join(join("a", 100, &["range"]));
    assert_eq!(group.error(again), Some(ResponseError::UnknownMemberId));
}

#[test]
fn whoever_does_not_come_back_in_time_is_left_out() {
    let mut group = Group::stable();
    let a = group.join(join("a", 1_000, &["roundrobin", "range"]));
    group.pass(90);
    group.beat("b").unwrap_err();
    for _ in 0..5 {
        group.pass(60);
        let _ = group.beat("b");
    }
    assert_eq!(group.answer(a).map(|of| of.members.len()), Some(1));
    assert_eq!(group.beat("b"), Err(ResponseError::UnknownMemberId));
}

#[test]
fn whoever_never_asks_for_its_assignment_is_left_out() {
    let mut group = Group::new(LIMITS);
    group.member("a");
    group.member("b");
    group.join(join("a", 100, &["range"]));
    group.sync("a", 2, &["a", "b"]);
    for _ in 0..6 {
        group.pass(50);
        let _ = (group.beat("a"), group.beat("b"));
    }
    assert_eq!(group.beat("b"), Err(ResponseError::UnknownMemberId));
    assert_eq!(group.beat("a"), Err(ResponseError::RebalanceInProgress));
}

#[test]
fn an_answer_that_was_lost_is_given_again() {
    let mut group = Group::new(LIMITS);
    group.member("a");
    let again = group.join(join("a", 100, &["range"]));
    assert_eq!(group.answer(again).map(|of| of.generation), Some(1));
    // A follower that asks again bothers nobody, the leader calls everybody.
    let mut group = Group::stable();
    let b = group.join(join("b", 100, &["range"]));
    assert_eq!(group.answer(b).map(|of| of.generation), Some(2));
    let a = group.join(join("a", 100, &["range"]));
    assert_eq!(group.answer(a), None);
    group.join(join("b", 100, &["range"]));
    assert_eq!(group.answer(a).map(|of| of.generation), Some(3));
}

#[test]
fn static_members_come_back_unnoticed() {
    let mut group = Group::new(LIMITS);
    group.static_member("i", "i-1");
    group.sync("i-1", 1, &["i-1"]);
    let saves = group.saves;
    let back = group.static_member("i", "i-2");
    let answer = group.answer(back).cloned().unwrap();
    assert_eq!((answer.generation, answer.member.as_str()), (1, "i-2"));
    assert_ne!(answer.leader, "i-2", "it must not assign");
    assert_eq!(group.saves, saves + 1, "the new id is stored");
    let assignment = group.sync("i-2", 1, &[]);
    assert_eq!(group.assignment(assignment), Ok(Bytes::from_static(b"i-1")));
    // The one before is fenced.
    let old = Asker { member: "i-1".into(), instance: Some("i".into()) };
    let fenced = Err(ResponseError::FencedInstanceId);
    assert_eq!(group.machine.heartbeat(0, &old, 1), fenced);
    assert_eq!(group.machine.commit(0, &old, 1, false), fenced);
    assert_eq!(group.leave(&old), fenced);
    // It leaves by its instance.
    let by_instance = Asker { member: String::new(), instance: Some("i".into()) };
    assert_eq!(group.leave(&by_instance), Ok(()));
    assert!(group.machine.is_vacant());
}

#[test]
fn a_newer_leader_is_told_to_leave_the_assignment() {
    let mut group = Group::new(LIMITS);
    group.static_member("i", "i-1");
    group.sync("i-1", 1, &["i-1"]);
    let member = Asker { member: String::new(), instance: Some("i".into()) };
    let back = group.join(Join { member, skips_assignment: true, ..join("", 100, &["range"]) });
    let answer = group.answer(back).unwrap();
    assert_eq!((answer.leader.as_str(), answer.skip_assignment), ("fresh", true));
    assert_eq!(answer.members.len(), 1);
}

#[test]
fn what_could_not_be_stored_is_begun_again() {
    let mut group = Group::stable();
    let mut actions = Vec::new();
    group.machine.save_failed(0, &mut actions);
    assert_eq!(group.beat("a"), Err(ResponseError::RebalanceInProgress));
}

#[test]
fn a_generation_that_was_not_stored_is_not_given_again() {
    let names = (Some("consumer".into()), Some("range".into()), Some("a".into()));
    let members = Group::stable().machine.members.into_values().collect();
    let machine = ClassicGroup::restored(LIMITS, 2, names, members, 0);
    let mut group = Group { machine, ..Group::new(LIMITS) };
    assert_eq!((group.beat("a"), group.beat("b")), (Ok(()), Ok(())));
    group.join(join("a", 100, &["range", "other"]));
    let b = group.join(join("b", 100, &["range"]));
    assert!(group.answer(b).is_some_and(|of| of.generation > 3));
}

#[test]
fn the_most_liked_protocol_is_taken() {
    let mut group = Group::new(Limits { initial_delay_ms: 10, ..LIMITS });
    for (id, protocols) in [
        ("a", &["x", "range"][..]),
        ("b", &["roundrobin", "range"]),
        ("c", &["range", "roundrobin"]),
    ] {
        group.join(Join { fresh_id: id.into(), ..join("", 100, protocols) });
    }
    for _ in 0..5 {
        group.pass(10);
    }
    assert_eq!(group.machine.protocol.as_deref(), Some("range"));
}

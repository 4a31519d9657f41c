//! One rule a test.

use kafka_protocol::ResponseError;

use super::super::super::classic::Asker;
use super::super::super::machine::CommitBy;
use super::super::{Assignor, Beaten, ConsumerGroup, LEAVES, LEAVES_FOR_NOW, Member, State};
use super::*;

/// A group, the time and its topics.
struct Group {
    machine: ConsumerGroup,
    now: Ms,
    stage: Stage,
}

impl Group {
    /// A topic `s` of six partitions.
    fn new() -> Self {
        let stage = Stage::with(&[("s", 6)]);
        Self { machine: ConsumerGroup::new(LIMITS, 0), now: 0, stage }
    }

    fn beat(&mut self, beat: &Beat) -> Result<Beaten, ResponseError> {
        self.machine.beat(self.now, beat, &self.stage)
    }

    fn join(&mut self, member: &str) -> Beaten {
        self.beat(&join(member, &["s"])).unwrap()
    }

    /// A heartbeat in the member's epoch that tells what it owns.
    fn owns(&mut self, member: &str, owned: &[u32]) -> Beaten {
        let owned = owned.iter().map(|index| self.at(*index)).collect();
        let epoch = self.machine.members[member].epoch;
        self.beat(&Beat { owned: Some(owned), ..beat(member, epoch) }).unwrap()
    }

    fn at(&self, index: u32) -> Partition {
        Partition::new(self.stage.topics["s"].id, PartitionIndex(index))
    }

    fn pass(&mut self, ms: Ms) {
        self.now += ms;
        self.machine.tick(self.now);
    }

    fn member(&self, member: &str) -> &Member {
        &self.machine.members[member]
    }

    fn commits(&self, member: &str, epoch: i32, partitions: &[u32]) -> Result<(), ResponseError> {
        let partitions: Vec<_> = partitions.iter().map(|index| self.at(*index)).collect();
        let asker = Asker { member: member.into(), instance: None };
        self.machine.commit(&CommitBy {
            asker: &asker,
            generation: epoch,
            in_transaction: false,
            version: 9,
            partitions: &partitions,
        })
    }

    /// `a` has the first three, `b` the others.
    fn shared() -> Self {
        let mut group = Self::new();
        group.join("a");
        group.join("b");
        assert_eq!(indexes(&group.owns("a", &[0, 1, 2, 3, 4, 5])), Some(vec![0, 1, 2]));
        assert_eq!(indexes(&group.owns("a", &[0, 1, 2])), None);
        assert_eq!(indexes(&group.owns("b", &[])), Some(vec![3, 4, 5]));
        assert_eq!(group.machine.state(), State::Stable);
        group
    }
}

fn indexes(beaten: &Beaten) -> Option<Vec<u32>> {
    let assignment = beaten.assignment.as_ref()?;
    Some(assignment.iter().map(|partition| partition.index.get()).collect())
}

#[test]
fn a_partition_is_given_up_before_it_is_given() {
    let mut group = Group::new();
    assert_eq!(group.machine.state(), State::Empty);
    let a = group.join("a");
    assert_eq!((a.epoch, indexes(&a)), (1, Some(vec![0, 1, 2, 3, 4, 5])));
    let b = group.join("b");
    assert_eq!((b.epoch, indexes(&b)), (2, Some(vec![])), "all of it is a's");
    assert_eq!(group.machine.state(), State::Reconciling);
    // Told what to give up, it stays in its epoch until it has.
    let a = group.beat(&beat("a", 1)).unwrap();
    assert_eq!((a.epoch, indexes(&a)), (1, Some(vec![0, 1, 2])));
    let a = group.owns("a", &[0, 1, 2, 3]);
    assert_eq!((a.epoch, indexes(&a)), (1, None));
    assert_eq!(indexes(&group.beat(&beat("b", 2)).unwrap()), None);
    assert_eq!(group.owns("a", &[0, 1, 2]).epoch, 2);
    let b = group.beat(&beat("b", 2)).unwrap();
    assert_eq!((b.epoch, indexes(&b)), (2, Some(vec![3, 4, 5])));
    assert_eq!(group.machine.state(), State::Stable);
    group.machine.take_dirty();
    assert_eq!(indexes(&group.beat(&beat("b", 2)).unwrap()), None);
    assert!(!group.machine.take_dirty(), "nothing has changed");
}

#[test]
fn who_leaves_or_is_lost_makes_room() {
    for is_lost in [false, true] {
        let mut group = Group::shared();
        if is_lost {
            group.pass(SESSION_MS / 2);
            group.beat(&beat("a", 2)).unwrap();
            assert_eq!(group.machine.wake(), Some(SESSION_MS), "that of b");
            group.pass(SESSION_MS / 2);
        } else {
            let left = group.beat(&beat("b", LEAVES)).unwrap();
            assert_eq!((left.epoch, left.assignment), (LEAVES, None));
        }
        assert_eq!(group.machine.state(), State::Assigning);
        assert!(group.machine.take_dirty());
        assert_eq!(group.beat(&beat("b", 2)), Err(ResponseError::UnknownMemberId));
        assert_eq!(group.beat(&beat("b", LEAVES)), Err(ResponseError::UnknownMemberId));
        let a = group.beat(&beat("a", 2)).unwrap();
        assert_eq!(indexes(&a), Some(vec![0, 1, 2, 3, 4, 5]));
        group.beat(&beat("a", LEAVES)).unwrap();
        assert_eq!((group.machine.state(), group.machine.wake()), (State::Empty, None));
        assert!(!group.machine.is_forgettable(), "its epoch is not to go back");
    }
}

#[test]
fn who_does_not_give_up_in_time_is_fenced() {
    let mut group = Group::new();
    group.join("a");
    group.join("b");
    group.beat(&beat("a", 1)).unwrap();
    let mut passed = 0;
    while group.machine.members.contains_key("a") {
        assert!(passed < REBALANCE_MS);
        group.pass(SESSION_MS / 2);
        passed += SESSION_MS / 2;
        let _ = group.beat(&beat("a", 1));
        group.beat(&beat("b", group.member("b").epoch)).unwrap();
    }
    assert_eq!(passed, REBALANCE_MS);
    assert_eq!(group.member("b").owned.len(), 6);
}

#[test]
fn epochs_fence() {
    let mut group = Group::shared();
    let fenced = Err(ResponseError::FencedMemberEpoch);
    assert_eq!(group.beat(&beat("a", 3)), fenced, "from the future");
    assert_eq!(group.beat(&beat("a", 1)), fenced, "it does not say what it owns");
    let behind = |owned: &[u32]| {
        let owned = owned.iter().map(|index| group.at(*index)).collect();
        Beat { owned: Some(owned), ..beat("a", 1) }
    };
    let (sound, unsound) = (behind(&[0, 1]), behind(&[0, 5]));
    assert_eq!(group.beat(&unsound), fenced);
    assert_eq!(group.beat(&sound).unwrap().epoch, 2, "the answer before was lost");
    // It begins anew, under the same id: what it had is still its own.
    let again = group.join("a");
    assert_eq!((again.epoch, indexes(&again)), (2, Some(vec![0, 1, 2])));
    assert_eq!(group.machine.epoch, 2);
    assert_eq!(group.beat(&beat("c", 1)), Err(ResponseError::UnknownMemberId));
}

#[test]
fn commits_are_of_members_in_their_epochs() {
    let mut group = Group::new();
    assert_eq!(group.commits("", -1, &[0]), Ok(()), "nobody is in it");
    group.join("a");
    group.join("b");
    group.beat(&beat("a", 1)).unwrap();
    let stale = Err(ResponseError::StaleMemberEpoch);
    assert_eq!(group.commits("a", 1, &[0, 5]), Ok(()), "it may commit what it gives up");
    assert_eq!(group.commits("a", 2, &[0]), stale);
    assert_eq!(group.commits("", -1, &[0]), Err(ResponseError::UnknownMemberId));
    assert_eq!(group.commits("c", 1, &[0]), Err(ResponseError::UnknownMemberId));
    group.owns("a", &[0, 1, 2]);
    group.beat(&beat("b", 2)).unwrap();
    assert_eq!(group.member("a").epoch, 2);
    assert_eq!(group.commits("a", 1, &[0, 1]), Ok(()), "it had them all along");
    assert_eq!(group.commits("a", 1, &[0, 5]), stale, "it gave one up since");
    assert_eq!(group.commits("b", 1, &[5]), stale, "it had nothing then");
    assert_eq!(group.commits("a", -1, &[0]), stale);
    let asker = Asker { member: "a".into(), instance: None };
    let by = CommitBy {
        asker: &asker,
        generation: 2,
        in_transaction: false,
        version: 8,
        partitions: &[],
    };
    let check = |by: CommitBy<'_>, expected| assert_eq!(group.machine.commit(&by), expected);
    check(by, Err(ResponseError::UnsupportedVersion));
    check(CommitBy { in_transaction: true, ..by }, Ok(()));
    let late = CommitBy { in_transaction: true, generation: 1, partitions: &[group.at(5)], ..by };
    check(late, Err(ResponseError::IllegalGeneration));
    let nobody = Asker::default();
    check(CommitBy { asker: &nobody, generation: -1, in_transaction: true, ..by }, Ok(()));
    let fetches = |member, epoch| group.machine.check_fetch(member, epoch);
    assert_eq!(fetches(None, -1), Ok(()));
    assert_eq!(fetches(Some("a"), 2), Ok(()));
    assert_eq!(fetches(Some("a"), 1), stale);
    assert_eq!(fetches(Some("c"), 1), Err(ResponseError::UnknownMemberId));
}

#[test]
fn static_members_come_back_to_what_they_had() {
    let of = |member: &str, epoch| Beat { instance: Some("i".into()), ..beat(member, epoch) };
    let joins = |member: &str| Beat { instance: Some("i".into()), ..join(member, &["s"]) };
    let mut group = Group::new();
    let a = group.beat(&joins("a")).unwrap();
    assert_eq!(group.beat(&joins("b")), Err(ResponseError::UnreleasedInstanceId));
    assert_eq!(group.beat(&of("b", 1)), Err(ResponseError::FencedInstanceId));
    assert_eq!(group.beat(&of("b", LEAVES)), Err(ResponseError::FencedInstanceId));
    let other = Beat { instance: Some("j".into()), ..beat("a", 1) };
    assert_eq!(group.beat(&other), Err(ResponseError::UnknownMemberId));
    let left = group.beat(&of("a", LEAVES_FOR_NOW)).unwrap();
    assert_eq!((left.epoch, left.assignment), (LEAVES_FOR_NOW, None));
    assert_eq!(group.beat(&of("a", 1)), Err(ResponseError::FencedMemberEpoch));
    let b = group.beat(&joins("b")).unwrap();
    assert_eq!((b.epoch, b.assignment), (a.epoch, a.assignment), "nobody else notices");
    assert_eq!(group.machine.members.len(), 1);
    assert_eq!(group.beat(&of("a", 1)), Err(ResponseError::FencedInstanceId));
    // It does not come back.
    group.beat(&of("b", LEAVES_FOR_NOW)).unwrap();
    group.pass(SESSION_MS);
    assert_eq!(group.machine.state(), State::Empty);
    assert_eq!(group.beat(&joins("c")).unwrap().epoch, 3);
    assert_eq!(group.machine.expel("j"), Err(ResponseError::UnknownMemberId));
    assert_eq!(group.machine.expel("i"), Ok(()));
    assert_eq!(group.machine.state(), State::Empty);
}

#[test]
fn topics_that_change_are_followed() {
    let mut group = Group::new();
    let mut regex = join("a", &[]);
    regex.regex = Some("[st]".into());
    let count = |beaten: Beaten| beaten.assignment.map(|of| of.len());
    assert_eq!(count(group.beat(&regex).unwrap()), Some(6));
    group.stage.create("t", 2);
    group.stage.create("tt", 9);
    let beaten = group.beat(&beat("a", 1)).unwrap();
    assert_eq!((beaten.epoch, count(beaten)), (2, Some(8)));
    group.stage.grow("t", 4);
    assert_eq!(count(group.beat(&beat("a", 2)).unwrap()), Some(10));
    group.stage.delete("s");
    let beaten = group.beat(&beat("a", 3)).unwrap();
    assert_eq!((beaten.epoch, count(beaten)), (3, Some(4)), "it has to give the others up");
    let owned = group.stage.partitions(&["t"]);
    let beaten = group.beat(&Beat { owned: Some(owned), ..beat("a", 3) }).unwrap();
    assert_eq!((beaten.epoch, count(beaten)), (4, None));
    group.stage.create("s", 1);
    assert_eq!(count(group.beat(&beat("a", 4)).unwrap()), Some(5));
    // What nobody subscribes to is nobody's business.
    group.machine.take_dirty();
    group.stage.create("u", 1);
    assert_eq!(group.beat(&beat("a", 5)).unwrap().epoch, 5);
    assert!(!group.machine.take_dirty());
    assert_eq!(group.machine.subscribed(&group.stage), names(&["s", "t"]));
    let named = Beat { regex: Some(String::new()), names: Some(names(&["u"])), ..beat("a", 5) };
    assert_eq!(count(group.beat(&named).unwrap()), Some(0));
    let owned = Some(BTreeSet::new());
    assert_eq!(count(group.beat(&Beat { owned, ..beat("a", 5) }).unwrap()), Some(1));
}

#[test]
fn most_choose_the_assignor_and_there_is_an_end_to_room() {
    let mut group = Group::new();
    for (member, assignor, expected) in [
        ("a", None, Assignor::Uniform),
        ("b", Some(Assignor::Range), Assignor::Range),
        ("c", Some(Assignor::Uniform), Assignor::Uniform),
        ("d", Some(Assignor::Range), Assignor::Range),
    ] {
        group.beat(&Beat { assignor, ..join(member, &["s"]) }).unwrap();
        assert_eq!(group.machine.assignor, expected, "{member}");
    }
    for member in ["e", "f", "g", "h"] {
        group.join(member);
    }
    let full = group.beat(&join("i", &["s"]));
    assert_eq!(full, Err(ResponseError::GroupMaxSizeReached));
    assert!(group.beat(&beat("a", 1)).is_ok(), "those who are in stay");
}

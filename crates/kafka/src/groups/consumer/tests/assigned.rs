//! What assignors give, and what they leave where it is.

use aquifer_env::{Random as _, SeededRandom};

use super::super::assignor::{Assignor, Subscriber, assign};
use super::*;

type Given = Vec<BTreeSet<Partition>>;

/// Members `0..` with these topics, and what they had.
fn given(
    assignor: Assignor,
    stage: &Stage,
    subscriptions: &[Vec<&str>],
    had: &[BTreeSet<Partition>],
) -> Given {
    let none = BTreeSet::new();
    let ids: Vec<String> = (0..subscriptions.len()).map(|number| format!("m{number}")).collect();
    let subscribers = subscriptions.iter().enumerate().map(|(number, topics)| {
        let topics = topics.iter().filter_map(|name| stage.topics.get(*name));
        Subscriber {
            id: &ids[number],
            instance: None,
            topics: topics.map(|topic| (topic.id, topic.partitions)).collect(),
            has: had.get(number).unwrap_or(&none),
        }
    });
    let given = assign(assignor, &subscribers.collect::<Vec<_>>());
    check_given(stage, subscriptions, &given);
    given
}

/// Everything that is subscribed to is given once, to who subscribes to it.
fn check_given(stage: &Stage, subscriptions: &[Vec<&str>], given: &Given) {
    assert_eq!(given.len(), subscriptions.len());
    let mut all = BTreeSet::new();
    for (topics, given) in subscriptions.iter().zip(given) {
        assert!(given.is_subset(&stage.partitions(topics)));
        for partition in given {
            assert!(all.insert(*partition), "{partition:?} is given twice");
        }
    }
    let wanted: Vec<&str> = subscriptions.concat();
    assert_eq!(all, stage.partitions(&wanted));
}

fn counts(given: &Given) -> Vec<usize> {
    given.iter().map(BTreeSet::len).collect()
}

fn indexes(given: &Given) -> Vec<Vec<u32>> {
    let of = |set: &BTreeSet<Partition>| set.iter().map(|at| at.index.get()).collect();
    given.iter().map(of).collect()
}

#[test]
fn ranges_are_runs_and_alike_over_topics() {
    let stage = Stage::with(&[("s", 7), ("t", 7), ("u", 2)]);
    let both = given(Assignor::Range, &stage, &vec![vec!["s", "t"]; 3], &[]);
    let run = |range: std::ops::Range<u32>| range.clone().chain(range).collect::<Vec<_>>();
    assert_eq!(indexes(&both), [run(0..3), run(3..5), run(5..7)]);
    let few = given(Assignor::Range, &stage, &vec![vec!["u"]; 3], &[]);
    assert_eq!(counts(&few), [1, 1, 0]);
    let mixed = [vec!["s"], vec!["s", "u"], vec![]];
    assert_eq!(counts(&given(Assignor::Range, &stage, &mixed, &[])), [4, 5, 0]);
}

#[test]
fn uniform_moves_no_more_than_it_must() {
    let stage = Stage::with(&[("s", 10)]);
    let check = |members: usize, had: &Given, expected: &[usize], moved: usize| {
        let now = given(Assignor::Uniform, &stage, &vec![vec!["s"]; members], had);
        let mut sorted = counts(&now);
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
        let kept: usize = had.iter().zip(&now).map(|(a, b)| a.intersection(b).count()).sum();
        assert_eq!(had.iter().map(BTreeSet::len).sum::<usize>() - kept, moved);
        now
    };
    let one = check(1, &vec![], &[10], 0);
    let two = check(2, &one, &[5, 5], 5);
    let three = check(3, &two, &[3, 3, 4], 3);
    let again = check(3, &three, &[3, 3, 4], 0);
    assert_eq!(again, three);
    // The last one goes: nobody loses anything but it.
    check(2, &three[..2].to_vec(), &[5, 5], 0);
    check(4, &vec![], &[2, 2, 3, 3], 0);
}

#[test]
fn unequal_subscriptions_are_balanced_too() {
    let stage = Stage::with(&[("s", 6), ("t", 6)]);
    let check = |subscriptions: &[Vec<&str>], expected: &[usize]| {
        let first = given(Assignor::Uniform, &stage, subscriptions, &[]);
        assert_eq!(counts(&first), expected, "{subscriptions:?}");
        let again = given(Assignor::Uniform, &stage, subscriptions, &first);
        assert_eq!(again, first, "{subscriptions:?}");
    };
    check(&[vec!["s"], vec!["s", "t"]], &[6, 6]);
    // Nobody could take one over from whoever has two more.
    check(&[vec!["s"], vec!["t"], vec!["s", "t"]], &[3, 5, 4]);
    check(&[vec!["s", "t"], vec!["none"]], &[12, 0]);
    check(&[vec![], vec![]], &[0, 0]);
}

/// Any subscriptions, any assignment before: all is given, once, and equal
/// subscriptions get as much, give or take one.
#[test]
fn whatever_was_before_all_is_given() {
    let stage = Stage::with(&[("a", 1), ("b", 4), ("c", 9), ("d", 16)]);
    let known = ["a", "b", "c", "d", "none"];
    for seed in 0..500 {
        let random = SeededRandom::new(seed);
        let below = |max: u64| random.next_u64() % max;
        let members = 1 + below(6) as usize;
        let is_alike = below(2) == 0;
        let choose = || known.into_iter().filter(|_| below(2) == 0).collect::<Vec<_>>();
        let first = choose();
        let subscriptions: Vec<Vec<&str>> =
            (0..members).map(|_| if is_alike { first.clone() } else { choose() }).collect();
        // A partition was one member's at most.
        let mut had = vec![BTreeSet::new(); members];
        for partition in stage.partitions(&known) {
            if let Some(had) = had.get_mut(below(members as u64 + 2) as usize) {
                had.insert(partition);
            }
        }
        given(Assignor::Range, &stage, &subscriptions, &had);
        let uniform = counts(&given(Assignor::Uniform, &stage, &subscriptions, &had));
        if is_alike {
            let (least, most) = (uniform.iter().min().unwrap(), uniform.iter().max().unwrap());
            assert!(most - least <= 1, "seed {seed}: {uniform:?}");
        }
    }
}

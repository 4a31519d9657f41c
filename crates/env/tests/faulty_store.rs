//! The faulty store does what its faults say, and the same again for a seed.

use aquifer_env::{
    Fault, FaultRates, FaultyStore, SeededRandom, StoreError, StoreErrorKind, TierStore,
};
use bytes::Bytes;

fn bytes() -> Bytes {
    Bytes::from_static(b"content")
}

fn faulty(seed: u64) -> (TierStore, FaultyStore) {
    let inner = TierStore::in_memory();
    let faulty = FaultyStore::new(&inner, seed);
    (inner, faulty)
}

fn assert_unavailable(result: Result<(), StoreError>) {
    let error = result.expect_err("a fault");
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    assert!(!error.is_definite());
}

#[tokio::test]
async fn a_refused_call_is_not_done() {
    let (inner, faulty) = faulty(1);
    faulty.plan(1, Fault::Refused);
    assert_unavailable(faulty.store().put_new("a", bytes()).await);
    assert!(inner.list("").await.expect("a list").is_empty());
    faulty.store().put_new("a", bytes()).await.expect("the next call");
    assert_eq!((faulty.calls(), faulty.injected(Fault::Refused)), (2, 1));
}

#[tokio::test]
async fn a_lost_answer_was_done() {
    let (inner, faulty) = faulty(1);
    faulty.plan(1, Fault::AnswerLost);
    assert_unavailable(faulty.store().put_new("a", bytes()).await);
    assert_eq!(inner.get("a").await.expect("the object"), bytes());
    let again = faulty.store().put_new("a", bytes()).await.expect_err("it is there");
    assert_eq!(again.kind, StoreErrorKind::AlreadyExists);
}

#[tokio::test]
async fn a_timeout_may_be_either() {
    let (mut done, mut not_done) = (0, 0);
    for seed in 0..40 {
        let (inner, faulty) = faulty(seed);
        faulty.plan(1, Fault::TimedOut);
        assert_unavailable(faulty.store().put_new("a", bytes()).await);
        match inner.get("a").await {
            Ok(_) => done += 1,
            Err(_) => not_done += 1,
        }
    }
    assert!(done > 5 && not_done > 5, "{done} done, {not_done} not");
}

#[tokio::test]
async fn a_stalled_call_is_done_when_released() {
    let (inner, faulty) = faulty(1);
    faulty.plan(1, Fault::Stalled);
    let store = faulty.store();
    let put = tokio::spawn(async move { store.put_new("a", bytes()).await });
    faulty.wait_for_stalled(1).await;
    inner.head("a").await.expect_err("not yet");
    faulty.release_stalled();
    put.await.expect("the task").expect("the put");
    assert_eq!(faulty.stalled(), 0);
    inner.head("a").await.expect("now");
}

#[tokio::test]
async fn a_stalled_call_that_is_given_up_is_not_done() {
    let (inner, faulty) = faulty(1);
    faulty.plan(1, Fault::Stalled);
    let store = faulty.store();
    let put = tokio::spawn(async move { store.put_new("a", bytes()).await });
    faulty.wait_for_stalled(1).await;
    put.abort();
    put.await.expect_err("an aborted task");
    assert_eq!(faulty.stalled(), 0);
    faulty.release_stalled();
    inner.head("a").await.expect_err("never");
}

#[tokio::test]
async fn a_slow_call_lets_others_go_first() {
    let (_, faulty) = faulty(1);
    faulty.plan(1, Fault::Slow);
    let (slow, quick) = (faulty.store(), faulty.store());
    let (order, seen) = std::sync::mpsc::sync_channel(2);
    let first = order.clone();
    let both = futures::future::join(
        async move {
            slow.put_new("slow", bytes()).await.expect("a put");
            first.send("slow").expect("the order");
        },
        async move {
            quick.put_new("quick", bytes()).await.expect("a put");
            order.send("quick").expect("the order");
        },
    );
    both.await;
    assert_eq!(seen.iter().collect::<Vec<_>>(), ["quick", "slow"]);
}

#[tokio::test]
async fn a_store_that_is_down_refuses_everything() {
    let (_, faulty) = faulty(1);
    let store = faulty.store();
    store.put("a", bytes()).await.expect("a put");
    faulty.set_down(true);
    assert_unavailable(store.put("a", bytes()).await);
    assert_unavailable(store.put_new("b", bytes()).await);
    assert_unavailable(store.get("a").await.map(drop));
    assert_unavailable(store.get_range("a", 0..1).await.map(drop));
    assert_unavailable(store.head("a").await.map(drop));
    assert_unavailable(store.delete("a").await);
    assert_unavailable(store.list("").await.map(drop));
    assert_unavailable(store.probe(&SeededRandom::new(1)).await);
    faulty.set_down(false);
    store.get("a").await.expect("the object");
    store.probe(&SeededRandom::new(1)).await.expect("a probe");
}

#[tokio::test]
async fn the_rates_hold_and_a_seed_repeats_the_run() {
    let rates =
        FaultRates { refused: 100, timed_out: 100, answer_lost: 100, slow: 100, stalled: 0 };
    let run = async |seed| {
        let (_, faulty) = faulty(seed);
        faulty.set_rates(rates);
        let store = faulty.store();
        let mut outcomes = Vec::new();
        for nth in 0..1_000 {
            outcomes.push(store.put_new(&nth.to_string(), bytes()).await.is_ok());
        }
        for fault in [Fault::Refused, Fault::TimedOut, Fault::AnswerLost, Fault::Slow] {
            let injected = faulty.injected(fault);
            assert!((60..=140).contains(&injected), "{fault:?}: {injected}");
        }
        assert_eq!(faulty.injected(Fault::Stalled), 0);
        outcomes
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}

#[tokio::test]
async fn a_probe_sees_what_is_missing() {
    // Whatever the fault and wherever it strikes, the probe does not pass.
    for nth in 1..=7 {
        for fault in [Fault::Refused, Fault::AnswerLost, Fault::TimedOut] {
            let (_, faulty) = faulty(1);
            faulty.plan(nth, fault);
            let probed = faulty.store().probe(&SeededRandom::new(1)).await;
            probed.expect_err("a probe that met a fault");
            assert_eq!(faulty.injected(fault), 1);
        }
    }
}

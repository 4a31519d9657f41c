//! Groups: their lag, and what is done only while nobody is in them.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod support;

use std::collections::BTreeMap;

use aquifer_env::store::TierStore;
use aquifer_stream::{DocumentExpectation, DocumentKey, DocumentKind, Error, Options, StreamStore};
use aquifer_types::{GroupName, Offset, PartitionIndex, StreamConfig, StreamName, TenantName};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use support::*;

fn group(name: &str) -> (TenantName, GroupName) {
    (TenantName::default_tenant(), GroupName::new(name).unwrap())
}

fn at(partition: u32, offset: i64) -> BTreeMap<PartitionIndex, (Offset, String)> {
    BTreeMap::from([(PartitionIndex(partition), (Offset(offset), String::new()))])
}

/// The lines of the lag in what is scraped.
fn lags(registry: &Registry) -> Vec<String> {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("aquifer_group_lag"));
    lines.map(str::to_owned).collect()
}

fn line(group: &str, partition: u32, lag: u64) -> String {
    format!(
        "aquifer_group_lag{{tenant=\"default\",group=\"{group}\",stream=\"s\",\
         partition=\"{partition}\"}} {lag}"
    )
}

#[tokio::test]
async fn lag_is_among_the_metrics_up_to_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let mut registry = Registry::with_prefix("aquifer");
    let options = Options { group_lag_series_max: 2, ..options(dir.path()) };
    let store = StreamStore::open(options, environment(&tier2, 7), &mut registry).await.unwrap();
    assert_eq!(lags(&registry), ["aquifer_group_lag_left_out 0"]);
    create(&store, "s", 2, StreamConfig::default()).await;
    append(&store, "s", 0, &values(0..10)).await;
    let stream = StreamName::new("s").unwrap();
    let commit = async |name: &str, positions| {
        let (tenant, group) = group(name);
        store.commit_positions(&tenant, &group, &stream, positions).await.unwrap();
    };
    commit("a", at(0, 4)).await;
    // Beyond the end.
    commit("b", at(1, 5)).await;
    let none = "aquifer_group_lag_left_out 0".to_owned();
    assert_eq!(lags(&registry), [line("a", 0, 6), line("b", 1, 0), none]);
    append(&store, "s", 0, &values(0..3)).await;
    commit("c\"d\\e", at(0, 0)).await;
    let one = "aquifer_group_lag_left_out 1".to_owned();
    assert_eq!(lags(&registry), [line("a", 0, 9), line("b", 1, 0), one.clone()]);
    let (tenant, first) = group("a");
    store.delete_group(&tenant, &first).await.unwrap();
    let none = "aquifer_group_lag_left_out 0".to_owned();
    assert_eq!(lags(&registry), [line("b", 1, 0), line("c\\\"d\\\\e", 0, 13), none]);
    store.delete_stream(&path("s")).await.unwrap();
    assert_eq!(lags(&registry), ["aquifer_group_lag_left_out 0"]);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_commit_of_no_positions_makes_no_group() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path()), environment(&TierStore::in_memory(), 7)).await;
    create(&store, "s", 1, StreamConfig::default()).await;
    let stream = StreamName::new("s").unwrap();
    for name in ["a", "b", "c"] {
        let (tenant, group) = group(name);
        store.commit_positions(&tenant, &group, &stream, BTreeMap::new()).await.unwrap();
    }
    assert!(store.list_groups(&TenantName::default_tenant()).is_empty());
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_group_whose_document_changed_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 7)).await;
    create(&store, "s", 1, StreamConfig::default()).await;
    let partition = store.stream(&path("s")).unwrap().partition(PartitionIndex(0)).unwrap();
    let (tenant, group) = group("g");
    let key = DocumentKey::new(tenant.clone(), DocumentKind::Group, "g");
    let commit = async |offset, expected| {
        let positions = vec![(partition.partition(), Offset(offset), String::new())];
        store.commit_positions_while(&tenant, &group, positions, expected).await
    };
    let (absent, any) = (DocumentExpectation::Absent, DocumentExpectation::Any);
    let changed = |result| match result {
        Err(Error::DocumentChanged { name, .. }) => assert_eq!(name, "g"),
        other => panic!("{other:?}"),
    };
    let nothing = store.delete_group_while(&tenant, &group, any).await;
    assert!(matches!(nothing, Err(Error::GroupNotFound(_))), "{nothing:?}");
    commit(1, absent).await.unwrap();
    let first = store.put_document(key.clone(), "1".into(), any).await.unwrap();
    changed(commit(2, absent).await);
    let first = DocumentExpectation::Version(first);
    commit(3, first).await.unwrap();
    let second = store.put_document(key.clone(), "2".into(), any).await.unwrap();
    changed(commit(4, first).await);
    changed(store.delete_group_while(&tenant, &group, first).await);
    let kept = store.positions(&tenant, &group);
    assert_eq!(kept.values().map(|of| of.offset).collect::<Vec<_>>(), [Offset(3)]);
    let second = DocumentExpectation::Version(second);
    store.delete_group_while(&tenant, &group, second).await.unwrap();
    assert!(store.positions(&tenant, &group).is_empty());
    assert!(store.document(&key).is_none());
    // A group that only has a document is one as well.
    store.put_document(key.clone(), "3".into(), any).await.unwrap();
    store.delete_group_while(&tenant, &group, any).await.unwrap();
    assert!(store.document(&key).is_none());
    store.shutdown().await.unwrap();
}

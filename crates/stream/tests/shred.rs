//! Schemas of streams: found at tiering, kept with the stream, never older than
//! a chunk that follows them.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod support;

use std::path::Path;

use aquifer_env::store::TierStore;
use aquifer_stream::{
    DocumentExpectation, DocumentKey, DocumentKind, Error, Options, RecoverReport, StreamStore,
    recover_from,
};
use aquifer_types::{ChunkShred, FieldKind, StreamConfig, StreamSchema};
use support::*;

fn schema(store: &StreamStore, name: &str) -> StreamSchema {
    store.schema(&store.stream(&path(name)).unwrap().id())
}

/// `path kind` of each field.
fn shown(schema: &StreamSchema) -> Vec<String> {
    let shown = |id: i32, kind: FieldKind| format!("{} {kind:?}", schema.path(id).join("."));
    schema.fields().iter().map(|field| shown(field.id, field.kind)).collect()
}

async fn recover(data: &Path, tier2: &TierStore) -> RecoverReport {
    let environment = environment(tier2, 77);
    recover_from("memory://", options(data), environment, |_, _| ()).await.unwrap()
}

fn texts_of(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_become_columns_once_they_are_in_a_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 1)).await;
    create(&store, "a", 1, config()).await;
    create(&store, "text", 1, config()).await;
    let none = StreamConfig { shred: ChunkShred::None, ..config() };
    create(&store, "none", 1, none).await;
    assert_eq!(schema(&store, "a").version(), 0);
    let first = texts_of(&[r#"{"b":1,"u":{"n":"x"}}"#, r#"{"b":2}"#, "no JSON"]);
    for name in ["a", "none"] {
        append(&store, name, 0, &first).await;
    }
    append(&store, "text", 0, &values(0..10)).await;
    for name in ["a", "none", "text"] {
        tiered(&store, name).await;
    }
    let of_a = schema(&store, "a");
    assert_eq!((of_a.version(), shown(&of_a)), (1, texts_of(&["b Int64", "u Object", "u.n Text"])));
    assert_eq!((schema(&store, "text").version(), schema(&store, "text").fields().len()), (1, 0));
    assert_eq!(schema(&store, "none").version(), 0);
    append(&store, "a", 0, &texts_of(&[r#"{"b":"no","a":true}"#])).await;
    tiered(&store, "a").await;
    let of_a = schema(&store, "a");
    assert_eq!((of_a.version(), shown(&of_a)[3].as_str()), (2, "a Boolean"));
    // Nothing new is no new version.
    append(&store, "a", 0, &texts_of(&[r#"{"b":7}"#, "[]"])).await;
    tiered(&store, "a").await;
    assert_eq!(schema(&store, "a"), of_a);
    assert_eq!(check_fields(&store, &tier2, &["a", "text", "none"]).await, 4);
    let expected = [first, texts_of(&[r#"{"b":"no","a":true}"#, r#"{"b":7}"#, "[]"])].concat();
    assert_eq!(texts(&read_all(&store, "a", 0).await), expected);
    store.shutdown().await.unwrap();
    drop(store);
    let store = open(options(dir.path()), environment(&tier2, 2)).await;
    assert_eq!(schema(&store, "a"), of_a);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_goes_with_its_stream() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 1)).await;
    create(&store, "a", 2, config()).await;
    append(&store, "a", 0, &jsons(0..10)).await;
    tiered(&store, "a").await;
    assert_eq!(store.all_documents(DocumentKind::Schema).len(), 1);
    let id = store.stream(&path("a")).unwrap().id();
    store.delete_stream(&path("a")).await.unwrap();
    assert!(store.all_documents(DocumentKind::Schema).is_empty());
    assert_eq!(store.schema(&id), StreamSchema::default());
    // Whoever was on the way with one comes too late.
    let key = DocumentKey::of_schema(&path("a").tenant, id);
    let late = store.put_document(key.clone(), "{}".into(), DocumentExpectation::Absent).await;
    assert!(matches!(late, Err(Error::Overtaken(_))), "{late:?}");
    let strange = DocumentKey { name: "strange".into(), ..key };
    let strange = store.put_document(strange, "{}".into(), DocumentExpectation::Any).await;
    assert!(matches!(strange, Err(Error::Invalid(_))), "{strange:?}");
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_extend_one_schema_and_merging_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let merging = Options { compaction_chunks_min: 3, ..options(dir.path()) };
    let store = open(merging, environment(&tier2, 1)).await;
    create(&store, "a", 4, config()).await;
    for round in 0..6 {
        for partition in 0..4 {
            let value = |n: usize| format!("{{\"p{partition}\":{n},\"r{round}\":\"{n}\"}}");
            append(&store, "a", partition, &(0..5).map(value).collect::<Vec<_>>()).await;
        }
        tiered(&store, "a").await;
    }
    until("chunks are merged", async || {
        store.list_chunks(&path("a")).unwrap().iter().any(|chunk| chunk.generation > 0)
    })
    .await;
    let mut fields = shown(&schema(&store, "a"));
    fields.sort();
    let expected = [
        (0..4).map(|n| format!("p{n} Int64")).collect::<Vec<_>>(),
        (0..6).map(|n| format!("r{n} Text")).collect(),
    ];
    assert_eq!(fields, expected.concat());
    assert!(check_fields(&store, &tier2, &["a"]).await > 0);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_nobody_looked_at_are_looked_at_when_they_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 1)).await;
    create(&store, "a", 1, StreamConfig { shred: ChunkShred::None, ..config() }).await;
    for round in 0..4 {
        append(&store, "a", 0, &jsons(round * 20..round * 20 + 20)).await;
        tiered(&store, "a").await;
    }
    assert_eq!(check_fields(&store, &tier2, &["a"]).await, 0);
    let update = aquifer_stream::StreamUpdate { config: Some(config().into()), partitions: None };
    store.update_stream(&path("a"), update).await.unwrap();
    store.shutdown().await.unwrap();
    drop(store);
    let merging = Options { compaction_chunks_min: 3, ..options(dir.path()) };
    let store = open(merging, environment(&tier2, 2)).await;
    until("chunks are merged", async || store.list_chunks(&path("a")).unwrap().len() == 1).await;
    assert_eq!(check_fields(&store, &tier2, &["a"]).await, 1);
    assert!(schema(&store, "a").fields().len() > 3);
    assert_eq!(texts(&read_all(&store, "a", 0).await), jsons(0..80));
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tiering_goes_on_where_a_schema_has_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let narrow = Options { document_bytes_max: 64, ..options(dir.path()) };
    let store = open(narrow, environment(&tier2, 1)).await;
    create(&store, "a", 1, config()).await;
    append(&store, "a", 0, &jsons(0..20)).await;
    tiered(&store, "a").await;
    assert_eq!(schema(&store, "a").version(), 0);
    assert_eq!(check_fields(&store, &tier2, &["a"]).await, 0);
    assert_eq!(texts(&read_all(&store, "a", 0).await), jsons(0..20));
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_come_back_from_manifests_and_from_footers() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 1)).await;
    create(&store, "a", 2, config()).await;
    for round in 0..3 {
        append(&store, "a", round % 2, &jsons(round as usize * 60..round as usize * 60 + 60)).await;
        tiered(&store, "a").await;
    }
    manifests_rest(&tier2).await;
    let mut expected = schema(&store, "a");
    assert!(expected.version() > 1);
    store.shutdown().await.unwrap();
    for with_manifest in [true, false] {
        if !with_manifest {
            for object in listed(&tier2, "_meta").await {
                tier2.delete(&object).await.unwrap();
            }
        }
        let fresh = tempfile::tempdir().unwrap();
        let report = recover(fresh.path(), &tier2).await;
        assert_eq!(report.manifest.is_some(), with_manifest);
        assert!(!report.warnings.iter().any(|warning| warning.contains("schema")));
        let store = open(options(fresh.path()), environment(&tier2, 3)).await;
        assert_eq!(schema(&store, "a"), expected, "with manifest: {with_manifest}");
        append(&store, "a", 0, &[format!("{{\"with_{with_manifest}\":1}}")]).await;
        tiered(&store, "a").await;
        let next = schema(&store, "a");
        assert_eq!(next.version(), expected.version() + 1);
        assert!(next.fields().starts_with(expected.fields()));
        assert!(check_fields(&store, &tier2, &["a"]).await > 2);
        store.shutdown().await.unwrap();
        expected = next;
    }
}

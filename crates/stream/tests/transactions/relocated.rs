//! Open transactions and the space of the journal.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_does_not_keep_the_journal_for_itself() {
    const JOURNAL_BYTES: u64 = 12 << 20;
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let options = |data: &Path| Options { journal_bytes_max: JOURNAL_BYTES, ..options(data) };
    let store = open(options(dir.path()), environment(&tier2, 300)).await;
    create(&store, "audit", 1, config()).await;
    create(&store, "bills", 1, config()).await;
    let one = init(&store, "one").await;
    enlist(&store, "one", one, "audit").await;
    let value = |number: usize| format!("{number} {}", "x".repeat(20_000));
    let is_in = |result: Result<Offset, Error>| match result {
        Ok(_) => true,
        Err(Error::Backpressure { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    let mut values = Vec::new();
    // Several times the journal flows by; the open transaction grows with it.
    let mut appended = 0;
    let mut written = 0;
    while written < 4 * JOURNAL_BYTES {
        if appended % 10 == 0 {
            let number = values.len();
            let batch = batch(one, number as i32, &[&value(number)]);
            let write = async || is_in(try_write(&store, "audit", batch.clone()).await);
            until("there is room in the journal again", write).await;
            values.push(value(number));
        }
        let others = vec!["y".repeat(200_000)];
        let write = async || is_in(try_append(&store, "bills", 0, &others).await);
        until("there is room in the journal again", write).await;
        written += 200_000;
        appended += 1;
    }
    assert!(store.health().journal_bytes.0 <= JOURNAL_BYTES + (2 << 20));
    assert_eq!(partition(&store).stable_offset, Offset(0), "it is still open");
    store.shutdown().await.unwrap();
    drop(store);

    let report = verify(options(dir.path()), environment(&tier2, 301), Arc::new(|_| ())).await;
    assert!(report.as_ref().unwrap().is_sound(), "{report:#?}");
    let store = open(options(dir.path()), environment(&tier2, 302)).await;
    end(&store, "one", one, true).await;
    assert!(committed(&store).await == values);
    tiered(&store).await;
    assert!(committed(&store).await == values);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_relocated_is_tiered_early_when_its_transaction_has_ended() {
    const JOURNAL_BYTES: u64 = 12 << 20;
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let options = Options { journal_bytes_max: JOURNAL_BYTES, ..options(dir.path()) };
    let store = open(options, environment(&tier2, 310)).await;
    // By its own configuration it would wait for longer than the test.
    let slow = StreamConfig { chunk_target_bytes: 1 << 30, ..resting() };
    create(&store, "audit", 1, slow).await;
    create(&store, "bills", 1, config()).await;
    let one = init(&store, "one").await;
    enlist(&store, "one", one, "audit").await;
    let is_in = |result: Result<Offset, Error>| match result {
        Ok(_) => true,
        Err(Error::Backpressure { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    let line = vec!["y".repeat(200_000)];
    let flow = async |bytes: u64| {
        for _ in 0..bytes / 200_000 {
            let write = async || is_in(try_append(&store, "bills", 0, &line).await);
            until("there is room in the journal again", write).await;
        }
    };
    // Records in each part of the journal, until the first ones are relocated.
    let mut number = 0;
    let first_file = || listed_first(dir.path());
    let first = first_file();
    while first_file() == first {
        let value = format!("{number}");
        let batch = batch(one, number, &[&value]);
        let write = async || is_in(try_write(&store, "audit", batch.clone()).await);
        until("there is room in the journal again", write).await;
        number += 1;
        flow(600_000).await;
        assert!(number < 1_000, "the journal's first file stays");
    }
    end(&store, "one", one, true).await;
    flow(3 * JOURNAL_BYTES).await;
    let expected: Vec<String> = (0..number).map(|number| number.to_string()).collect();
    assert_eq!(committed(&store).await, expected);
    store.shutdown().await.unwrap();
}

/// The first of the journal's files.
#[allow(clippy::disallowed_methods, reason = "a test's own files")]
fn listed_first(data: &Path) -> Option<std::ffi::OsString> {
    let entries = std::fs::read_dir(data.join("journal")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".journal")).min()
}

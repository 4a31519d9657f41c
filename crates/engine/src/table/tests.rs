//! A table answers as plain rows would, whatever is asked, and reads no more
//! than it must.

use std::sync::atomic::Ordering;

use aquifer_env::TierStore;
use aquifer_testkit::rand::rngs::StdRng;
use aquifer_testkit::rand::{RngExt, SeedableRng};
use aquifer_testkit::{is_full_test, rng_from_env};
use arrow_array::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;
use crate::Resources;
use crate::test_stream::{Cut, Shape, TestStream};

/// A session as the engine's, with the stream as `s` and plain rows as `plain`.
fn session(stream: &TestStream, cut: &Cut, reads: &Reads) -> SessionContext {
    let directory = tempfile::tempdir().unwrap();
    let resources = Resources::new(1 << 30, directory.path().to_owned(), 1 << 30).unwrap();
    let config = SessionConfig::new().with_target_partitions(2).with_batch_size(64);
    let context = SessionContext::new_with_config_rt(config, resources.question(1 << 30).unwrap());
    context.register_table("s", stream.table(cut, reads.clone())).unwrap();
    let rows = stream.rows(cut);
    let plain = MemTable::try_new(stream.columns(), vec![rows]).unwrap();
    context.register_table("plain", Arc::new(plain)).unwrap();
    context
}

async fn answer(context: &SessionContext, sql: &str) -> Vec<RecordBatch> {
    let frame = context.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    frame.collect().await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn text(context: &SessionContext, sql: &str) -> String {
    pretty_format_batches(&answer(context, sql).await).unwrap().to_string()
}

/// The table's answer is that of plain rows.
async fn check_same(context: &SessionContext, sql: &str) {
    let plain = text(context, &sql.replace("FROM s", "FROM plain")).await;
    let found = text(context, sql).await;
    if found != plain {
        let plan = text(context, &format!("EXPLAIN {sql}")).await;
        panic!("{sql}\n{plan}\nfound:\n{found}\nplain:\n{plain}");
    }
}

/// A predicate over what prunes and what does not.
fn predicate(random: &mut StdRng, depth: u32) -> String {
    let operator = ["=", "<>", "<", "<=", ">", ">="][random.random_range(0..6)];
    let time = |random: &mut StdRng| {
        let ms = 1_700_000_000_000_i64 + random.random_range(-5_000..120_000);
        format!("to_timestamp_micros({})", ms * 1000)
    };
    match random.random_range(0..if depth == 0 { 8 } else { 11 }) {
        0 => format!("_offset {operator} {}", random.random_range(-5..300)),
        1 => format!("_partition {operator} {}", random.random_range(-1..4)),
        2 => format!("_timestamp {operator} {}", time(random)),
        3 => format!("_appended {operator} {}", time(random)),
        4 => format!("_key {operator} 'key-{}'", random.random_range(0..9)),
        5 => format!("_key IS {}NULL", if random.random() { "NOT " } else { "" }),
        6 => format!("_value IS {}NULL", if random.random() { "NOT " } else { "" }),
        7 => {
            let from = random.random_range(0..200);
            format!("_offset IN ({from}, {}, {})", from + 3, from + 50)
        }
        8 => format!("NOT ({})", predicate(random, depth - 1)),
        9 => format!("({} AND {})", predicate(random, depth - 1), predicate(random, depth - 1)),
        _ => format!("({} OR {})", predicate(random, depth - 1), predicate(random, depth - 1)),
    }
}

#[tokio::test]
async fn any_question_is_answered_as_plain_rows_would_be() {
    let mut random = rng_from_env();
    for round in 0..if is_full_test() { 60 } else { 8 } {
        let shape = Shape {
            partitions: random.random_range(1..=4),
            batches: random.random_range(1..40),
            chunks: random.random_range(0..5),
            chunk_batches: random.random_range(1..10),
            gap_every: random.random_range(0..5),
            ..Shape::default()
        };
        let stream = TestStream::new(TierStore::in_memory(), &shape, &mut random).await;
        let cut = if round == 0 { stream.whole() } else { stream.random_cut(&mut random) };
        let reads = stream.reads(&cut);
        let context = session(&stream, &cut, &reads);
        check_same(&context, "SELECT * FROM s ORDER BY _partition, _offset").await;
        check_same(
            &context,
            "SELECT count(*) AS n, min(_offset) AS low, max(_timestamp) AS newest FROM s",
        )
        .await;
        for _ in 0..5 {
            let predicate = predicate(&mut random, 2);
            let limit = random.random_range(1..40);
            let direction = if random.random() { "DESC" } else { "ASC" };
            for sql in [
                format!("SELECT count(*) AS n FROM s WHERE {predicate}"),
                format!("SELECT * FROM s WHERE {predicate} ORDER BY _partition, _offset"),
                format!(
                    "SELECT _value, _offset FROM s WHERE {predicate} \
                     ORDER BY _timestamp {direction}, _partition, _offset LIMIT {limit}"
                ),
                format!(
                    "SELECT _offset, _partition FROM s WHERE {predicate} \
                     ORDER BY _offset {direction}, _partition LIMIT {limit}"
                ),
                format!("SELECT _offset FROM s WHERE {predicate} ORDER BY _offset {direction}"),
                format!(
                    "SELECT _key, count(*) AS n, sum(octet_length(CAST(_value AS VARCHAR))) AS bytes FROM s WHERE {predicate} GROUP BY 1 ORDER BY 1"
                ),
            ] {
                check_same(&context, &sql).await;
            }
        }
    }
}

#[tokio::test]
async fn of_nothing_within_a_chunk_there_are_no_rows() {
    let mut random = rng_from_env();
    let shape =
        Shape { partitions: 2, batches: 20, chunks: 2, chunk_batches: 8, ..Shape::default() };
    let stream = TestStream::new(TierStore::in_memory(), &shape, &mut random).await;
    let whole = stream.whole();
    let cut = vec![(Offset(3), Offset(3)), whole[1]];
    let reads = stream.reads(&cut);
    let context = session(&stream, &cut, &reads);
    check_same(&context, "SELECT * FROM s ORDER BY _partition, _offset").await;
    check_same(&context, "SELECT count(*) AS n FROM s WHERE _offset >= 1").await;
    check_same(&context, "SELECT _offset FROM s WHERE _partition = 0 ORDER BY _offset").await;
}

#[tokio::test]
async fn a_limit_gives_as_many_rows_as_there_are() {
    let mut random = StdRng::seed_from_u64(7);
    let stream = TestStream::new(TierStore::in_memory(), &Shape::default(), &mut random).await;
    let cut = stream.whole();
    let context = session(&stream, &cut, &stream.reads(&cut));
    let all: usize = stream.rows(&cut).iter().map(RecordBatch::num_rows).sum();
    for limit in [0, 1, 10, all - 1, all, all + 1] {
        let rows = answer(&context, &format!("SELECT _offset FROM s LIMIT {limit}")).await;
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), limit.min(all));
    }
}

/// What one question takes, of chunks only.
async fn spent(stream: &TestStream, sql: &str) -> aquifer_query::wire::Spent {
    let cut = stream.tiered();
    let reads = stream.reads(&cut);
    answer(&session(stream, &cut, &reads), sql).await;
    reads.usage.spent()
}

/// Chunks that are much larger than what is read at once.
async fn large(chunks: usize) -> TestStream {
    let shape = Shape {
        partitions: 2,
        batches: 8 * chunks + 4,
        batch_rows_max: 100,
        value_bytes_max: 8000,
        gap_every: 0,
        chunk_batches: 8,
        chunks,
        encode: aquifer_chunk::EncodeOptions {
            row_group_bytes_max: 1 << 20,
            ..aquifer_chunk::EncodeOptions::default()
        },
        ..Shape::default()
    };
    TestStream::new(TierStore::in_memory(), &shape, &mut StdRng::seed_from_u64(11)).await
}

#[tokio::test]
async fn nothing_is_read_of_chunks_that_cannot_matter() {
    let stream = large(4).await;
    let check = async |sql: &str, pruned: u64| {
        let spent = spent(&stream, sql).await;
        assert_eq!((spent.chunks, spent.chunks_pruned), (8, pruned), "{sql}");
        assert_eq!(spent.bytes_read == 0, pruned == 8, "{sql}: {spent:?}");
    };
    check("SELECT count(*) FROM s", 8).await;
    check("SELECT max(_timestamp), min(_timestamp) FROM s", 8).await;
    check("SELECT * FROM s WHERE _offset < 0", 8).await;
    check("SELECT * FROM s WHERE _partition = 7", 8).await;
    check("SELECT _value FROM s WHERE _partition = 1", 4).await;
    check("SELECT _value FROM s WHERE _partition = 1 AND _offset = 0", 7).await;
    check("SELECT _value FROM s WHERE _timestamp < '2023-11-14T22:13:19Z'", 6).await;
    check("SELECT _value FROM s WHERE _timestamp > '2100-01-01'", 8).await;
}

#[tokio::test]
async fn only_columns_that_are_wanted_are_read() {
    let stream = large(2).await;
    let all =
        spent(&stream, "SELECT sum(octet_length(CAST(_value AS VARCHAR))) FROM s").await.bytes_read;
    let offsets = spent(&stream, "SELECT sum(_offset) FROM s").await.bytes_read;
    assert!(offsets * 2 < all, "{offsets} of {all} bytes");
    let few = "SELECT sum(octet_length(CAST(_value AS VARCHAR))) FROM s WHERE _offset IN (3, 5)";
    let few = spent(&stream, few).await.bytes_read;
    assert!(few * 2 < all, "{few} of {all} bytes");
    let context_free = spent(&stream, "SELECT count(*) FROM s WHERE _offset >= 0").await;
    assert!(context_free.bytes_read * 2 < all, "{context_free:?}");
}

#[tokio::test]
async fn the_newest_are_found_without_reading_the_oldest() {
    let stream = large(6).await;
    let newest = "SELECT * FROM s ORDER BY _timestamp DESC LIMIT 3";
    let spent_newest = spent(&stream, newest).await;
    assert!(spent_newest.chunks_pruned >= 6, "{spent_newest:?}");
    let oldest = "SELECT _value FROM s ORDER BY _offset LIMIT 3";
    let spent_oldest = spent(&stream, oldest).await;
    assert!(spent_oldest.chunks_pruned >= 6, "{spent_oldest:?}");
    // With a tail beside the chunks as well.
    let cut = stream.whole();
    let reads = stream.reads(&cut);
    let context = session(&stream, &cut, &reads);
    check_same(&context, newest).await;
    assert!(reads.usage.spent().chunks_pruned >= 6, "{:?}", reads.usage.spent());
}

#[tokio::test]
async fn a_tail_is_asked_for_once() {
    let mut random = StdRng::seed_from_u64(3);
    let stream = TestStream::new(TierStore::in_memory(), &Shape::default(), &mut random).await;
    let cut = stream.whole();
    let reads = stream.reads(&cut);
    let count = async |reads: &Reads| {
        let before = stream.tail_reads.load(Ordering::Relaxed);
        let context = session(&stream, &cut, reads);
        check_same(&context, "SELECT * FROM s ORDER BY _partition, _offset").await;
        stream.tail_reads.load(Ordering::Relaxed) - before
    };
    assert!(count(&reads).await > 3);
    let again = Reads { usage: stream.usage(), ..reads.clone() };
    assert_eq!(count(&again).await, 0);
    assert_eq!(again.usage.spent().tail_bytes_read, 0);
    // Another process, or one that had to forget.
    assert!(count(&stream.reads(&cut)).await > 3);
}

#[tokio::test]
async fn what_was_left_out_and_read_is_shown() {
    let stream = large(2).await;
    let cut = stream.whole();
    let context = session(&stream, &cut, &stream.reads(&cut));
    let sql = "EXPLAIN ANALYZE SELECT sum(octet_length(CAST(_value AS VARCHAR))) FROM s WHERE _partition = 1";
    let shown = text(&context, sql).await;
    for part in ["chunks=4", "chunks_pruned=2", "chunk_bytes_read=", "tail_bytes_read="] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[tokio::test]
async fn damaged_bytes_are_an_error_that_names_them() {
    let shape = Shape { partitions: 1, ..Shape::default() };
    let mut random = StdRng::seed_from_u64(5);
    let store = TierStore::in_memory();
    let stream = TestStream::new(store.clone(), &shape, &mut random).await;
    let cut = stream.tiered();
    let table = stream.describe(&cut);
    let object = table.partitions[0].chunks[1].object_path.clone();
    let whole = store.get(&object).await.unwrap();
    for at in [20, whole.len() - 20] {
        let mut damaged = whole.to_vec();
        damaged[at] ^= 4;
        store.put(&object, damaged.into()).await.unwrap();
        let context = session(&stream, &cut, &stream.reads(&cut));
        let frame = context.sql("SELECT * FROM s").await.unwrap();
        let error = frame.collect().await.unwrap_err();
        let found = crate::Error::beneath(&error).unwrap_or_else(|| panic!("{error:?}"));
        assert_eq!(found.kind(), aquifer_types::ErrorKind::Damaged, "{found}");
        assert!(found.to_string().contains(&object), "{found}");
    }
    store.delete(&object).await.unwrap();
    let context = session(&stream, &cut, &stream.reads(&cut));
    let error = context.sql("SELECT * FROM s").await.unwrap().collect().await.unwrap_err();
    let found = crate::Error::beneath(&error).map(crate::Error::kind);
    assert_eq!(found, Some(aquifer_types::ErrorKind::NotFound));
}

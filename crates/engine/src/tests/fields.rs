//! Fields of values as columns: the same answers as from the values themselves,
//! for less reading.

use std::sync::Arc;

use aquifer_env::TierStore;
use aquifer_query::wire::{Refusal, Spent};
use aquifer_testkit::rand::rngs::StdRng;
use aquifer_testkit::rand::{RngExt, SeedableRng};
use aquifer_testkit::{is_full_test, rng_from_env};
use aquifer_types::StreamName;
use datafusion::catalog::MemTable;

use super::Fixture;
use crate::test_stream::{Cut, Shape, TestStream, Values};
use crate::{Reads, TailCache};

/// The stream as `s`, and its records in memory, of which nothing is derived, as
/// `plain`.
fn fixture(stream: &TestStream, cut: &Cut, reads: &Reads) -> Fixture {
    let mut fixture = Fixture::new();
    let plain = MemTable::try_new(stream.columns(), vec![stream.rows(cut)]).expect("a table");
    let tables = &mut fixture.server.streams;
    tables.insert(StreamName::new("s").expect("a name"), stream.table(cut, reads.clone()));
    tables.insert(StreamName::new("plain").expect("a name"), Arc::new(plain));
    fixture
}

async fn check_same(fixture: &Fixture, sql: &str) {
    let shown = |answer: Result<super::Collected, Refusal>| match answer {
        Ok(answer) => answer.text(),
        Err(refusal) => refusal.code,
    };
    let found = shown(fixture.ask(sql).await);
    let plain = shown(fixture.ask(&sql.replace("FROM s", "FROM plain")).await);
    if found != plain {
        let plan = shown(fixture.ask(&format!("EXPLAIN {sql}")).await);
        panic!("{sql}\n{plan}\nfound:\n{found}\nplain:\n{plain}");
    }
}

/// Reads of JSON, most of which a field answers.
const READS: &[&str] = &[
    "_value->>'n'",
    "_value->>'f'",
    "_value->>'name'",
    "_value->>'ok'",
    "_value->>'late'",
    "_value->>'never'",
    "_value->>'user'",
    "_value->'user'->>'login'",
    "_value->'user'->>'id'",
    "_value#>>array['user','deep','x']",
    "_value->'user'->'deep'->>'y'",
    "_value->'name'",
    "json_get_int(_value, 'n')",
    "json_get_int(_value, 'f')",
    "json_get_int(_value, 'user', 'id')",
    "json_get_float(_value, 'f')",
    "json_get_float(_value, 'n')",
    "json_get_str(_value, 'name')",
    "json_get_str(_value, 'n')",
    "json_get_bool(_value, 'ok')",
    "(_value->'n')::bigint",
    "(_value->'user'->'id')::double",
    "TRY_CAST(_value->>'n' AS bigint)",
    "TRY_CAST(_value->>'n' AS smallint)",
    "TRY_CAST(_value->>'n' AS double)",
    "TRY_CAST(_value->>'f' AS double)",
    "TRY_CAST(_value->>'f' AS decimal(20, 3))",
    "TRY_CAST(_value->>'user' AS bigint)",
];

/// Fields as columns.
const FIELDS: &[&str] =
    &["n", "f", "name", "ok", "user.login", "user.id", "user.deep.x", "_unfit", "user", "late"];

fn filter(random: &mut StdRng, fields: &[&str]) -> String {
    let number = |random: &mut StdRng| ["1", "2.5", "-1", "7", "42"][random.random_range(0..5)];
    match random.random_range(0..9) {
        0 => format!("_value->>'n' > {}", number(random)),
        1 => format!("_value->>'f' <= {}", number(random)),
        2 => "_value->>'name' = 'ann'".to_owned(),
        3 => format!("_value->'user'->>'id' = '{}'", random.random_range(0..9)),
        4 => format!("json_get_int(_value, 'user', 'id') < {}", random.random_range(0..9)),
        5 => "_value->>'ok' IS NULL".to_owned(),
        6 => format!("_offset > {}", random.random_range(0..200)),
        7 if fields.contains(&"user.login") => {
            format!("user.login = 'user-{}'", random.random_range(0..9))
        }
        8 if fields.contains(&"n") => format!("n < {}", random.random_range(-3..50)),
        _ => "_value->>'name' LIKE '%a%'".to_owned(),
    }
}

#[tokio::test]
async fn every_read_is_answered_as_the_value_would_answer_it() {
    let mut random = rng_from_env();
    for round in 0..if is_full_test() { 40 } else { 4 } {
        let shape = Shape {
            partitions: random.random_range(1..=3),
            batches: random.random_range(10..40),
            chunks: random.random_range(0..5),
            chunk_batches: random.random_range(1..10),
            values: Values::Any,
            ..Shape::default()
        };
        let stream = TestStream::new(TierStore::in_memory(), &shape, &mut random).await;
        let cut = if round == 0 { stream.whole() } else { stream.random_cut(&mut random) };
        let fixture = fixture(&stream, &cut, &stream.reads(&cut));
        let fields: Vec<&str> =
            FIELDS
                .iter()
                .copied()
                .filter(|name| match *name {
                    "_unfit" => stream.columns().fields().len() > 7,
                    name => stream.schema.find(&name.split('.').collect::<Vec<_>>()).is_some_and(
                        |field| field.kind.is_scalar() || stream.columns().index_of(name).is_ok(),
                    ),
                })
                .collect();
        check_same(&fixture, "SELECT * FROM s ORDER BY _partition, _offset").await;
        let of_dots = "SELECT _value->>'user.login' AS x, _value->'user'->>'login' AS y FROM s \
                       ORDER BY _partition, _offset";
        check_same(&fixture, of_dots).await;
        for read in READS {
            for sql in [
                format!("SELECT {read} AS x FROM s ORDER BY _partition, _offset"),
                format!("SELECT {read} AS x, count(*) AS c FROM s GROUP BY 1 ORDER BY 1, 2"),
            ] {
                check_same(&fixture, &sql).await;
            }
        }
        for _ in 0..20 {
            let read = READS[random.random_range(0..READS.len())];
            let (one, other) = (filter(&mut random, &fields), filter(&mut random, &fields));
            let field = match fields.as_slice() {
                [] => "_offset",
                fields => fields[random.random_range(0..fields.len())],
            };
            for sql in [
                format!(
                    "SELECT {read} AS x, {field} AS y FROM s WHERE {one} AND {other} \
                     ORDER BY _partition, _offset"
                ),
                format!(
                    "SELECT count({read}) AS c, count({field}) AS d FROM s WHERE {one} OR {other}"
                ),
                format!(
                    "SELECT _value FROM s WHERE {one} ORDER BY {read} DESC, _partition, _offset \
                     LIMIT 7"
                ),
                format!(
                    "WITH e AS (SELECT * FROM s WHERE {one}) SELECT a._offset AS o, \
                     e._value->>'n' AS n, a._value->>'name' AS name FROM e JOIN e AS a \
                     ON e._value->>'n' = a._value->>'n' AND a._partition = 0 \
                     LEFT JOIN e AS l ON l._offset = a._offset + 1 AND l._value->>'ok' = 'true' \
                     WHERE l._value->'user'->>'id' IS NULL ORDER BY 1, 2, 3"
                ),
                format!(
                    "SELECT x, row_number() OVER (ORDER BY x, o, p) AS r FROM (SELECT {read} AS x, \
                     _offset AS o, _partition AS p FROM s WHERE {other}) t ORDER BY r LIMIT 20"
                ),
                "SELECT count(*) AS c FROM s AS a WHERE EXISTS (SELECT 1 FROM s AS b \
                     WHERE b._value->>'n' = a._value->>'n' AND b._offset > a._offset \
                     AND b._value->>'ok' = 'true')"
                    .to_owned(),
                format!(
                    "SELECT DISTINCT {read} AS x FROM s WHERE _offset IN (SELECT _offset FROM s \
                     WHERE {one}) UNION SELECT {read} FROM s WHERE {other} ORDER BY 1"
                ),
            ] {
                check_same(&fixture, &sql).await;
            }
        }
    }
}

/// Chunks of which every one has columns and nothing is unfit.
async fn regular() -> TestStream {
    regular_of(40).await
}

/// The first forty batches in chunks, the rest in the tail.
async fn regular_of(batches: usize) -> TestStream {
    let shape = Shape {
        partitions: 1,
        batches,
        batch_rows_max: 200,
        value_bytes_max: 4000,
        gap_every: 0,
        chunk_batches: 10,
        chunks: 4,
        encode: aquifer_chunk::EncodeOptions {
            row_group_bytes_max: 4 << 20,
            page_rows_max: 64,
            ..aquifer_chunk::EncodeOptions::default()
        },
        values: Values::Regular,
    };
    TestStream::new(TierStore::in_memory(), &shape, &mut StdRng::seed_from_u64(23)).await
}

/// The answer of a question of chunks only, and what it took.
async fn spent(stream: &TestStream, sql: &str) -> (String, Spent) {
    let cut = stream.tiered();
    let reads = stream.reads(&cut);
    let fixture = fixture(stream, &cut, &reads);
    let answer = fixture.ask(sql).await.unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"));
    (answer.text(), reads.usage.spent())
}

#[tokio::test]
async fn what_a_field_answers_does_not_read_the_value() {
    let stream = regular().await;
    let (_, whole) = spent(&stream, "SELECT max(_value) AS m FROM s").await;
    let check = async |field: &str, read: &str| {
        let (by_field, of_field) = spent(&stream, field).await;
        let (by_read, of_read) = spent(&stream, read).await;
        assert_eq!(by_field, by_read, "{read}");
        assert!(of_read.bytes_read * 4 < whole.bytes_read, "{read}: {of_read:?} of {whole:?}");
        assert!(of_field.bytes_read * 4 < whole.bytes_read, "{field}: {of_field:?} of {whole:?}");
    };
    check(
        "SELECT verb AS v, count(*) AS c FROM s GROUP BY 1 ORDER BY 1",
        "SELECT _value->>'verb' AS v, count(*) AS c FROM s GROUP BY 1 ORDER BY 1",
    )
    .await;
    check(
        "SELECT count(*) AS c FROM s WHERE actor.login = 'user-7'",
        "SELECT count(*) AS c FROM s WHERE _value->'actor'->>'login' = 'user-7'",
    )
    .await;
    check(
        "SELECT sum(size) AS x FROM s WHERE actor.at > 1000",
        "SELECT sum((_value->'size')::bigint) AS x FROM s WHERE _value->'actor'->>'at' > 1000",
    )
    .await;
    check(
        "SELECT actor.login AS l FROM s ORDER BY actor.at DESC LIMIT 3",
        "SELECT _value->'actor'->>'login' AS l FROM s ORDER BY json_get_int(_value, 'actor', 'at') DESC LIMIT 3",
    )
    .await;
}

#[tokio::test]
async fn a_leaf_is_read_without_the_others() {
    let stream = regular().await;
    let (_, whole) = spent(
        &stream,
        "SELECT max(actor.about) AS m, count(actor.login) AS l, count(actor.at) AS a FROM s",
    )
    .await;
    let (_, leaf) = spent(&stream, "SELECT max(actor.login) AS m FROM s").await;
    assert!(leaf.bytes_read * 4 < whole.bytes_read, "{leaf:?} of {whole:?}");
}

#[tokio::test]
async fn statistics_of_fields_leave_out_what_cannot_match() {
    let stream = regular().await;
    let check = async |filter: &str, shown: &[&str]| {
        let sql = format!("SELECT max(_value) AS m FROM s WHERE {filter}");
        let (_, few) = spent(&stream, &sql).await;
        let (_, all) = spent(&stream, "SELECT max(_value) AS m FROM s").await;
        assert!(few.bytes_read * 2 < all.bytes_read, "{filter}: {few:?} of {all:?}");
        let (plan, _) = spent(&stream, &format!("EXPLAIN ANALYZE {sql}")).await;
        for part in shown {
            assert!(plan.contains(part), "{part}: {plan}");
        }
        assert!(!plan.contains("leaf_row_groups_pruned=0") || !filter.contains("actor"), "{plan}");
    };
    check("size < 20000", &["row_groups_pruned_statistics"]).await;
    check("_value->>'size' < 20000", &[]).await;
    check("actor.at < 20000", &["leaf_row_groups_pruned="]).await;
    check("json_get_int(_value, 'actor', 'at') < 20000", &["leaf_row_groups_pruned="]).await;
    let (none, spent_none) =
        spent(&stream, "SELECT max(_value) AS m FROM s WHERE actor.at < 0").await;
    assert_eq!(none, "{\"m\":null}\n");
    let (_, spent_all) = spent(&stream, "SELECT max(_value) AS m FROM s").await;
    assert!(spent_none.bytes_read * 4 < spent_all.bytes_read, "{spent_none:?}");
}

#[tokio::test]
async fn a_tail_keeps_the_fields_that_were_asked_for() {
    let shape = Shape { chunks: 0, values: Values::Any, ..Shape::default() };
    let mut random = StdRng::seed_from_u64(31);
    let mut stream = TestStream::new(TierStore::in_memory(), &shape, &mut random).await;
    // Chunks have found the fields elsewhere.
    let other = Shape { values: Values::Any, ..Shape::default() };
    stream.schema = TestStream::new(TierStore::in_memory(), &other, &mut random).await.schema;
    let cut = stream.whole();
    let reads = stream.reads(&cut);
    let fixture = fixture(&stream, &cut, &reads);
    check_same(&fixture, "SELECT _offset FROM s ORDER BY _partition, _offset").await;
    let before = reads.tail_cache.bytes();
    let sql = "SELECT n, user.id, _value->>'name' AS name FROM s ORDER BY _partition, _offset";
    check_same(&fixture, sql).await;
    let grown = reads.tail_cache.bytes();
    assert!(grown > before, "{grown} after {before}");
    check_same(&fixture, sql).await;
    assert_eq!(reads.tail_cache.bytes(), grown);
    check_same(&fixture, "SELECT * FROM s ORDER BY _partition, _offset").await;
    assert!(reads.tail_cache.bytes() > grown);
}

#[tokio::test]
async fn broken_values_are_read_from_chunks_without_columns_too() {
    let mut random = StdRng::seed_from_u64(5);
    let shape = Shape { values: Values::Broken, ..Shape::default() };
    let mut stream = TestStream::new(TierStore::in_memory(), &shape, &mut random).await;
    // Fields are found later.
    let other = Shape { values: Values::Any, ..Shape::default() };
    stream.schema = TestStream::new(TierStore::in_memory(), &other, &mut random).await.schema;
    let cut = stream.whole();
    let fixture = fixture(&stream, &cut, &stream.reads(&cut));
    let found = "SELECT count(*) > 0 AS x FROM s WHERE _value->>'n' = 1";
    assert_eq!(fixture.ask(found).await.expect("an answer").text(), "{\"x\":true}\n");
    for read in READS.iter().chain(&["n", "_unfit"]) {
        let sql = format!("SELECT {read} AS x FROM s ORDER BY _partition, _offset");
        check_same(&fixture, &sql).await;
    }
}

#[tokio::test]
async fn blocks_of_the_tail_are_passed_over_by_what_is_known_of_their_fields() {
    let stream = regular_of(80).await;
    let cut = stream.whole();
    // With other blocks, so that it is no field of these that a question had.
    let elsewhere = fixture(&stream, &cut, &stream.reads(&cut));
    let most = elsewhere.ask("SELECT max(size) AS m FROM s").await.expect("an answer").text();
    let most = most.trim().trim_start_matches("{\"m\":").trim_end_matches('}').to_owned();
    // All of its tail has room.
    let reads = Reads { tail_cache: TailCache::new(64 << 20), ..stream.reads(&cut) };
    let fixture = fixture(&stream, &cut, &reads);
    for (filter, is_known) in [
        (format!("size >= {most}"), false),
        (format!("actor.at >= {most}"), false),
        (format!("json_get_int(_value, 'actor', 'at') = {most}"), true),
        ("actor.login = 'nobody'".to_owned(), true),
        ("_value->'actor'->>'login' > 'z'".to_owned(), true),
        ("verb > 'put'".to_owned(), true),
    ] {
        let sql = format!("SELECT _offset, size, verb FROM s WHERE {filter} ORDER BY _offset");
        let pruned = async || {
            let plan = fixture.ask(&format!("EXPLAIN ANALYZE {sql}")).await.expect("a plan").text();
            let count = plan.split("tail_blocks_pruned=").nth(1).unwrap_or_default();
            (count.chars().take_while(char::is_ascii_digit).collect::<String>(), plan.clone())
        };
        // Fields that no question had are read first.
        let (first, plan) = pruned().await;
        assert_eq!(first != "0", is_known, "{filter}: {plan}");
        let (second, plan) = pruned().await;
        assert_ne!(second, "0", "{filter}: {plan}");
        check_same(&fixture, &sql).await;
    }
}

#[tokio::test]
async fn what_chunks_say_of_fields_in_joins_is_not_taken_for_what_the_tail_has() {
    let stream = regular_of(60).await;
    let (most, _) = spent(&stream, "SELECT max(size) AS m FROM s").await;
    let most = most.trim().trim_start_matches("{\"m\":").trim_end_matches('}');
    let cut = stream.whole();
    let fixture = fixture(&stream, &cut, &stream.reads(&cut));
    let pairs = "FROM (SELECT size, _offset FROM s) AS a JOIN (SELECT _offset AS o FROM s) AS b ON a._offset = b.o";
    let of_tail = format!("SELECT count(DISTINCT a.size) > 1 AS x {pairs} WHERE a.size >= {most}");
    assert_eq!(fixture.ask(&of_tail).await.expect("an answer").text(), "{\"x\":true}\n");
    for filter in
        [format!("a.size >= {most}"), format!("a.size > {most}"), format!("a.size = {most}")]
    {
        let sql = format!("SELECT a.size, a._offset {pairs} WHERE {filter} ORDER BY a.size, 2");
        check_same(&fixture, &sql).await;
    }
}

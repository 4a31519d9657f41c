//! As-of joins against a look at all pairs.

use std::sync::Arc;

use aquifer_query::EngineOptions;
use aquifer_testkit::rand::rngs::StdRng;
use aquifer_testkit::rand::{RngExt, SeedableRng};
use aquifer_types::StreamName;
use datafusion::arrow::array::{
    ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use datafusion::catalog::{MemTable, TableProvider};

use super::{FakeServer, Fixture, question};

/// Key, second key, time; and its number.
type Row = (Option<i64>, Option<String>, Option<i64>, i64);

fn rows(random: &mut StdRng, count: usize, spread: i64) -> Vec<Row> {
    let mut null = |chance: u32| random.random_ratio(chance, 20);
    let nulls: Vec<[bool; 3]> = (0..count).map(|_| [null(1), null(1), null(1)]).collect();
    let row = |(number, [k, j, t]): (usize, [bool; 3])| {
        let key = (!k).then(|| random.random_range(0..4));
        let second = (!j)
            .then(|| ["a", "a long second key, more than a view holds"][random.random_range(0..2)]);
        let time = (!t).then(|| random.random_range(0..spread));
        (key, second.map(str::to_owned), time, number as i64)
    };
    nulls.into_iter().enumerate().map(row).collect()
}

fn table(random: &mut StdRng, rows: &[Row]) -> Arc<dyn TableProvider> {
    let batch = |rows: &[Row]| {
        let times = rows.iter().map(|row| row.2).collect::<TimestampMicrosecondArray>();
        let columns: [(&str, ArrayRef, bool); 4] = [
            ("k", Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()), true),
            (
                "j",
                Arc::new(rows.iter().map(|row| row.1.clone()).collect::<StringViewArray>()),
                true,
            ),
            ("t", Arc::new(times), true),
            ("id", Arc::new(rows.iter().map(|row| Some(row.3)).collect::<Int64Array>()), true),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).expect("rows")
    };
    let mut parts = vec![Vec::new(), Vec::new()];
    let mut rest = rows;
    while !rest.is_empty() {
        let (here, behind) = rest.split_at(random.random_range(1..=rest.len().min(40)));
        parts[random.random_range(0..2)].push(batch(here));
        rest = behind;
    }
    Arc::new(MemTable::try_new(batch(&[]).schema(), parts).expect("a table"))
}

fn fixture(left: Arc<dyn TableProvider>, right: Arc<dyn TableProvider>) -> Fixture {
    let options =
        EngineOptions { target_partitions: 3, batch_rows: 16, ..EngineOptions::default() };
    let name = |name| StreamName::new(name).expect("a name");
    let streams = [(name("l"), left), (name("r"), right)];
    Fixture::with(options, FakeServer { streams: streams.into(), ..FakeServer::default() })
}

/// The time of the nearest partner of each row on the left, by number.
fn brute(left: &[Row], right: &[Row], keys: &str, op: &str, is_outer: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (k, j, t, id) in left {
        let is_partner = |row: &&Row| {
            let has_keys = keys.chars().all(|key| match key {
                'k' => k.is_some() && row.0 == *k,
                _ => j.is_some() && row.1 == *j,
            });
            let (Some(of_left), Some(of_right)) = (t, &row.2) else { return false };
            has_keys
                && match op {
                    ">=" => of_left >= of_right,
                    ">" => of_left > of_right,
                    "<=" => of_left <= of_right,
                    _ => of_left < of_right,
                }
        };
        let partners = right.iter().filter(is_partner).filter_map(|row| row.2);
        let nearest = if op.starts_with('>') { partners.max() } else { partners.min() };
        match nearest {
            Some(time) => lines.push(format!("{{\"id\":{id},\"t\":{time}}}")),
            None if is_outer => lines.push(format!("{{\"id\":{id},\"t\":null}}")),
            None => {}
        }
    }
    lines
}

#[tokio::test]
async fn each_row_has_the_nearest_as_a_look_at_all_pairs_finds_it() {
    let seed = aquifer_testkit::seed_from_env("AQUIFER_SEED");
    let mut random = StdRng::seed_from_u64(seed);
    for (left_count, right_count) in [(0, 10), (10, 0), (60, 60), (300, 40), (40, 300), (300, 300)]
    {
        let spread = [5, 100, 10_000][random.random_range(0..3)];
        let left = rows(&mut random, left_count, spread);
        let right = rows(&mut random, right_count, spread);
        let (of_left, of_right) = (table(&mut random, &left), table(&mut random, &right));
        let fixture = fixture(of_left, of_right);
        for (keys, on) in [
            ("k", "l.k = r.k AND"),
            ("kj", "r.j = l.j AND l.k = r.k AND"),
            ("", ""),
            ("k", "l.k + 1 = 1 + r.k AND"),
        ] {
            for (op, turned) in [(">=", "<="), (">", "<"), ("<=", ">="), ("<", ">")] {
                for is_outer in [false, true] {
                    let expected = brute(&left, &right, keys, op, is_outer);
                    let kind = if is_outer { "LEFT JOIN" } else { "JOIN" };
                    let select = "SELECT l.id, CAST(r.t AS bigint) AS t FROM l ASOF";
                    let mut forms = vec![
                        format!("{select} {kind} r ON {on} l.t {op} r.t ORDER BY 1"),
                        format!("{select} {kind} r ON {on} r.t {turned} l.t ORDER BY 1"),
                    ];
                    if is_outer {
                        let keys = on.trim_end_matches("AND");
                        let keys =
                            if keys.is_empty() { String::new() } else { format!("ON {keys}") };
                        forms.push(format!(
                            "{select} JOIN r MATCH_CONDITION (l.t {op} r.t) {keys} ORDER BY 1"
                        ));
                    }
                    for sql in forms {
                        let found = fixture.ask(&sql).await.expect(&sql).text();
                        let found: Vec<&str> = found.lines().collect();
                        assert_eq!(found, expected, "AQUIFER_SEED={seed}: {sql}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_join_is_a_part_of_statements_like_any_other() {
    let mut random = StdRng::seed_from_u64(7);
    let (left, right) = (rows(&mut random, 200, 50), rows(&mut random, 200, 50));
    let fixture = fixture(table(&mut random, &left), table(&mut random, &right));
    let expected = brute(&left, &right, "k", ">=", false);
    let join = "l ASOF JOIN r ON l.k = r.k AND l.t >= r.t";
    let check = async |sql: String, expected: String| {
        let found = fixture.ask(&sql).await.unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"));
        assert_eq!(found.text().trim_end(), expected, "{sql}");
    };
    check(format!("SELECT count(*) AS c FROM {join}"), format!("{{\"c\":{}}}", expected.len()))
        .await;
    let few = brute(&left[..50], &right, "k", ">=", false).len();
    check(
        format!("SELECT count(*) AS c FROM {join} WHERE l.id < 50 AND r.t >= to_timestamp(0)"),
        format!("{{\"c\":{few}}}"),
    )
    .await;
    // The key that was joined by is the same on both sides, in the right row.
    check(
        format!("SELECT count(*) AS c FROM {join} WHERE l.k <> r.k OR r.t > l.t"),
        "{\"c\":0}".to_owned(),
    )
    .await;
    fixture.ask(&format!("CREATE VIEW v AS SELECT l.id, r.t FROM {join}")).await.expect("a view");
    let stored = fixture.server.views.lock()[0].1.clone();
    assert!(stored.contains("l ASOF JOIN r ON"), "{stored}");
    check("SELECT count(*) AS c FROM v".to_owned(), format!("{{\"c\":{}}}", expected.len())).await;
    check(
        format!("SELECT count(*) AS c FROM (SELECT 1) AS s WHERE EXISTS (SELECT 1 FROM {join})"),
        "{\"c\":1}".to_owned(),
    )
    .await;
    check(
        format!("SELECT count(*) AS c FROM {join} ASOF LEFT JOIN r AS x ON r.t > x.t"),
        format!("{{\"c\":{}}}", expected.len()),
    )
    .await;
    // What looks at the left side alone is filtered before it is sorted.
    let plan = fixture.ask(&format!("EXPLAIN SELECT l.id FROM {join} WHERE l.id < 50")).await;
    let plan = plan.expect("a plan").text();
    let (join, filter) = (plan.find("AsOfJoin"), plan.find("Filter:"));
    assert!(join.is_some() && join < filter, "{plan}");
}

#[tokio::test]
async fn what_is_no_as_of_join_is_refused() {
    let mut random = StdRng::seed_from_u64(7);
    let few = rows(&mut random, 5, 5);
    let fixture = fixture(table(&mut random, &few), table(&mut random, &few));
    for (join, code, part) in [
        ("l ASOF JOIN r ON l.k = r.k", "asof-join", "none of"),
        ("l ASOF JOIN r ON l.t >= r.t AND l.id > r.id", "asof-join", "more than one"),
        ("l ASOF JOIN r ON l.t >= r.t AND l.k = 1", "asof-join", "each part"),
        ("l ASOF JOIN r ON l.t >= r.t AND l.k <> r.k", "asof-join", "each part"),
        ("l ASOF JOIN r ON l.t >= r.t OR l.k = r.k", "asof-join", "each part"),
        ("l ASOF JOIN r ON l.t >= (SELECT max(t) FROM r)", "asof-join", "each part"),
        ("l ASOF JOIN r USING (t)", "asof-join", "it takes ON"),
        ("l GLOBAL JOIN r ON l.t >= r.t", "sql-syntax", "global"),
    ] {
        let sql = format!("SELECT count(*) FROM {join}");
        let refusal = fixture.ask(&sql).await.expect_err(&sql);
        assert_eq!(refusal.code, code, "{sql}: {refusal:?}");
        assert!(refusal.message.contains(part), "{sql}: {refusal:?}");
    }
    assert!(fixture.ask("SELECT asof_condition(true)").await.is_err());
}

#[tokio::test]
async fn large_sides_are_sorted_on_disk() {
    let fixture = Fixture::with(EngineOptions::default(), FakeServer::default());
    let texts = "(SELECT value, rpad(CAST((value * 7919) % 100003 AS text), 500, 'x') AS k \
                 FROM generate_series(1, 100000))";
    let (mut question, mut sql) = question(&format!(
        "SELECT count(*) AS c, sum(a.value - b.value) AS s \
         FROM {texts} AS a ASOF JOIN {texts} AS b ON a.k = b.k AND a.value >= b.value"
    ));
    question.limits.memory_bytes_max = 64 << 20;
    let (found, spent) = fixture.ask_as(&question, &sql).await.expect("an answer");
    assert_eq!(found.text(), "{\"c\":100000,\"s\":0}\n");
    assert!(spent.spilled_bytes > 1 << 20, "{spent:?}");
    // Without keys the sides are one part each, and so are their sorts.
    sql.sql = "SELECT count(*) AS c FROM generate_series(1, 100000) AS a \
               ASOF JOIN generate_series(1, 100000) AS b ON a.value > b.value"
        .to_owned();
    let (found, _) = fixture.ask_as(&question, &sql).await.expect("an answer");
    assert_eq!(found.text(), "{\"c\":99999}\n");
}

//! Statements that are meant to do harm: each is answered or refused in a
//! bounded time, and none takes the process down.

use super::Fixture;

/// A thread as questions have them.
const STACK_BYTES: usize = 32 << 20;

fn corpus() -> Vec<String> {
    let nested = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("SELECT {}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    vec![
        String::new(),
        "\0".to_owned(),
        "'".to_owned(),
        "/*".repeat(10_000),
        "$$".to_owned(),
        "SELECT $0".to_owned(),
        "SELECT $x".to_owned(),
        "SELECT ?".to_owned(),
        nested("(", "1", ")", 120),
        nested("(", "1", ")", 10_000),
        nested("abs(", "1", ")", 100),
        nested("(SELECT ", "1", ")", 60),
        nested("abs(", "1", ")", 16),
        nested("(SELECT ", "1", ")", 16),
        format!("SELECT {}{}", "(".repeat(50), "1".to_owned() + &format!("{})", "+1".repeat(950)).repeat(50)),
        nested("[", "1", "]", 60),
        nested("CASE WHEN true THEN ", "1", " END", 90),
        nested("NOT ", "true", "", 900),
        format!("SELECT 1 WHERE {}", vec!["1 = 1"; 900].join(" OR ")),
        format!("SELECT 1 WHERE {}", vec!["1 = 1"; 10_000].join(" OR ")),
        format!("SELECT {}", vec!["1"; 900].join(" + ")),
        format!("SELECT n FROM many WHERE n IN ({})", vec!["1"; 20_000].join(",")),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(300)),
        format!("SELECT {}", (0..2000).map(|at| format!("{at} AS c{at}")).collect::<Vec<_>>().join(",")),
        format!("SELECT '{}'", "x".repeat(20 << 20)),
        format!("SELECT * FROM {}", vec!["many"; 20].join(", ")) + " LIMIT 1",
        format!("WITH {} SELECT 1", (0..300).map(|at| format!("c{at} AS (SELECT 1)")).collect::<Vec<_>>().join(",")),
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 100) SELECT count(*) FROM r".to_owned(),
        "SELECT repeat('x', 1000000000)".to_owned(),
        "SELECT repeat(repeat('x', 1000000), 1000000)".to_owned(),
        "SELECT lpad('x', 2000000000)".to_owned(),
        "SELECT range(1, 1000000000)".to_owned(),
        "SELECT generate_series(1, 1000000000)".to_owned(),
        "SELECT array_repeat(1, 1000000000)".to_owned(),
        "SELECT array_resize([1], 1000000000, 1)".to_owned(),
        "SELECT replace(repeat('x', 1000000), 'x', repeat('y', 1000000))".to_owned(),
        "SELECT regexp_replace(repeat('x', 1000000), '', repeat('y', 1000000), 'g')".to_owned(),
        "SELECT regexp_replace(CAST(n AS text), '.*', repeat('\\0', 1000000)) FROM many".to_owned(),
        "SELECT concat(repeat('x', 1000000), n) FROM many".to_owned(),
        "SELECT concat_ws(repeat('x', 1000000), n, n) FROM many".to_owned(),
        "SELECT repeat('x', 1000000) || n FROM many".to_owned(),
        "SELECT overlay(CAST(n AS text), repeat('x', 1000000), 1) FROM many".to_owned(),
        "SELECT overlay(CAST(n AS text) PLACING repeat('x', 1000000) FROM 1) FROM many".to_owned(),
        "SELECT array_repeat(repeat('x', 1000000), 1000000)".to_owned(),
        "SELECT array_resize([1], 100000, repeat('x', 1000000))".to_owned(),
        "SELECT to_char(now(), repeat('%c', 1000000)) FROM many".to_owned(),
        "SELECT count(*) FROM many WHERE CAST(n AS text) ~ '(a{1000}){1000}'".to_owned(),
        "SELECT count(*) FROM many WHERE CAST(n AS text) ~ '(x+x+)+y'".to_owned(),
        "SELECT regexp_replace(CAST(n AS text), '(.*)*', 'x') FROM many LIMIT 1".to_owned(),
        "SELECT power(10, 400), exp(1e308), factorial(1000)".to_owned(),
        "SELECT -9223372036854775808 / -1".to_owned(),
        "SELECT CAST(1e400 AS bigint)".to_owned(),
        "SELECT interval '1000000000 years' + now()".to_owned(),
        "SELECT date '0001-01-01' - interval '999999 years'".to_owned(),
        "SELECT to_timestamp(9223372036854775807)".to_owned(),
        "SELECT substr('ä', -9223372036854775808, 9223372036854775807)".to_owned(),
        "SELECT 'x' LIKE repeat('%_', 10000)".to_owned(),
        "SELECT json_get('[' || repeat('[', 100000), 0)".to_owned(),
        "SELECT (repeat('{\"a\":', 100000))::text->'a'".to_owned(),
        "SELECT encode(decode('zz', 'hex'), 'base64')".to_owned(),
        "SELECT chr(-1), chr(0), chr(1114112)".to_owned(),
        "SELECT * FROM \"\"".to_owned(),
        "SELECT * FROM a.b.c.d.e.f".to_owned(),
        "SELECT a.b.c.d.e.f.g FROM many".to_owned(),
        "SHOW TABLES LIKE ''''".to_owned(),
        "DESCRIBE \"x'; SELECT 1 --\"".to_owned(),
        "EXPLAIN EXPLAIN SELECT 1".to_owned(),
        "SELECT arrow_cast(1, 'Nonsense')".to_owned(),
        "SELECT get_field(named_struct('a', 1), 'b')".to_owned(),
        "SELECT map(['a'], [1, 2])".to_owned(),
        "SELECT unnest(unnest([[1]]))".to_owned(),
        "SELECT max_by(1, [1])".to_owned(),
        "SELECT max_by(n) FROM many".to_owned(),
        "SELECT max_by(n, n) OVER (ORDER BY n ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM many LIMIT 1".to_owned(),
        "SELECT text()".to_owned(),
        "SELECT text(1)".to_owned(),
        "SELECT text(NULL)".to_owned(),
        "SELECT * FROM generate_series(1, 1000000000000) LIMIT 1".to_owned(),
        "SELECT * FROM generate_series(1, 10, 0)".to_owned(),
        "CREATE VIEW x AS (SELECT 1".to_owned(),
        "DROP VIEW x, y".to_owned(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_finds_nothing_ends_when_nobody_waits_for_it() {
    let fixture = Fixture::new();
    let sql = "SELECT count(*) FROM many AS a JOIN many AS b ON a.n * b.n = -1";
    let (question, sql) = super::question(sql);
    let (sink, usage) = (super::Collector::default(), crate::Usage::default());
    usage.given_up().set();
    // It tries two and a half thousand millions of pairs else.
    let asked = fixture.engine.sql_with(&question, &sql, &fixture.server, &sink, &usage);
    let asked = tokio::time::timeout(std::time::Duration::from_secs(60), asked).await;
    assert_eq!(asked.expect("in time").expect_err("no answer").code, "query-cancelled");
}

#[test]
fn nothing_that_can_be_asked_takes_the_engine_down() {
    let work = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let fixture = std::sync::Arc::new(Fixture::new());
            for sql in corpus() {
                let head: String = sql.chars().take(80).collect();
                let asked = std::sync::Arc::clone(&fixture);
                let task =
                    tokio::spawn(async move { asked.ask(&sql).await.map(|found| found.rows) });
                let answer = tokio::time::timeout(std::time::Duration::from_secs(60), task).await;
                let answer = answer.unwrap_or_else(|_| panic!("no answer in time: {head}"));
                match answer.unwrap_or_else(|error| panic!("a panic: {head}: {error}")) {
                    Ok(_) => {}
                    Err(refusal) => {
                        assert_ne!(refusal.code, "internal", "{head}: {refusal:?}");
                        assert!(refusal.message.len() < 3000, "{head}: {}", refusal.message);
                    }
                }
            }
        });
    };
    std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(work)
        .expect("a thread")
        .join()
        .expect("no panic");
}

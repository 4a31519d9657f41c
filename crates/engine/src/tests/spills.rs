//! What is larger than a question's memory goes through files, and gives the
//! same answer.

use aquifer_query::EngineOptions;
use aquifer_query::wire::Spent;

use super::{Collected, FakeServer, Fixture, question};

/// Fifty megabytes, of as many groups as rows.
const TEXTS: &str = "(SELECT value, rpad(CAST((value * 7919) % 100003 AS text), 500, 'x') AS k \
                     FROM generate_series(1, 100000))";

async fn ask(sql: &str, memory_bytes_max: u64) -> (Collected, Spent) {
    let fixture = Fixture::with(EngineOptions::default(), FakeServer::default());
    let (mut question, sql) = question(sql);
    question.limits.memory_bytes_max = memory_bytes_max;
    let answered = fixture.ask_as(&question, &sql).await;
    let answered = answered.unwrap_or_else(|refusal| panic!("{}: {refusal:?}", sql.sql));
    let left = fixture.engine.resources().memory_bytes();
    assert_eq!((left, fixture.engine.resources().spilled_bytes()), (0, 0), "{}", sql.sql);
    answered
}

#[tokio::test]
async fn what_does_not_fit_into_memory_is_spilled_and_answers_the_same() {
    let check = async |sql: &str| {
        let (in_memory, spent) = ask(sql, 1 << 30).await;
        assert_eq!(spent.spilled_bytes, 0, "{sql}");
        let (on_disk, spent) = ask(sql, 32 << 20).await;
        // Compressed, of fifty megabytes that are much alike.
        assert!(spent.spilled_bytes > 64 << 10, "{sql}: {spent:?}");
        assert_eq!(on_disk.text(), in_memory.text(), "{sql}");
    };
    check(&format!(
        "SELECT sum(n * value) AS s FROM \
         (SELECT value, row_number() OVER (ORDER BY k) AS n FROM {TEXTS} AS t) AS numbered"
    ))
    .await;
    check(&format!(
        "SELECT count(*) AS c, max(n) AS m FROM (SELECT k, count(*) AS n FROM {TEXTS} AS t GROUP BY k) AS g"
    ))
    .await;
}

#[tokio::test]
async fn a_statement_that_spills_more_than_there_is_space_for_says_so() {
    let limits = EngineOptions { spill_bytes_max: 64 << 10, ..EngineOptions::default() };
    let fixture = Fixture::with(limits, FakeServer::default());
    let sql = format!("SELECT count(*) AS c FROM (SELECT DISTINCT k FROM {TEXTS} AS t) AS g");
    let (mut question, sql) = question(&sql);
    question.limits.memory_bytes_max = 32 << 20;
    let refusal = fixture.ask_as(&question, &sql).await.unwrap_err();
    assert_eq!((&*refusal.code, &*refusal.sqlstate), ("query-spill", "53100"), "{refusal:?}");
    assert!(refusal.message.contains("query.spill_bytes_max"), "{refusal:?}");
    // Its tasks are given up, and drop what they have.
    while fixture.engine.resources().spilled_bytes() > 0 {
        tokio::task::yield_now().await;
    }
}

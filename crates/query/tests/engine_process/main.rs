//! Questions over a real child process that misbehaves as it is told.
//!
//! This program is both sides: started with the argument `engine` it is the
//! engine (`fake`), else it runs the tests.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a step that fails is the test's failure, and it reports as a test does"
)]

mod fake;
mod server;

use std::time::Duration;

use aquifer_query::wire::Refusal;
use aquifer_query::{Limits, Part, QueryOptions};
use aquifer_types::ErrorKind;

use server::Server;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if arguments.first().is_some_and(|first| first == "engine") {
        return runtime().block_on(fake::run());
    }
    // As the usual harness does: names to run, and options, which there are none of.
    let names: Vec<&String> = arguments.iter().filter(|name| !name.starts_with('-')).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return;
    }
    macro_rules! tests {
        ($($test:ident),* $(,)?) => {
            $(
                let name = stringify!($test);
                if names.is_empty() || names.iter().any(|wanted| name.contains(wanted.as_str())) {
                    println!("test {name} ...");
                    runtime().block_on(async {
                        tokio::time::timeout(Duration::from_secs(120), $test()).await.unwrap();
                    });
                }
            )*
        };
    }
    tests![
        an_answer_is_handed_on_in_order,
        a_peer_that_misbehaves_fails_its_question_alone,
        an_engine_that_dies_is_said_so_and_started_again,
        what_was_not_answered_yet_is_asked_of_the_next_engine,
        one_that_cannot_be_started_is_not_tried_all_the_time,
        too_much_memory_ends_questions_and_then_the_engine,
        time_is_kept_here_too,
        a_dropped_answer_ends_its_question_and_frees_its_turn,
        a_door_that_takes_nothing_holds_the_engine_back,
        an_unused_engine_is_ended_and_comes_back,
        a_stop_ends_everything,
        the_tail_is_whole_at_its_cut,
        views_are_kept,
        views_fit_into_one_message_together,
        limits_are_lowered_to_the_servers,
    ];
    println!("test result: ok");
}

async fn an_answer_is_handed_on_in_order() {
    let server = Server::start(QueryOptions::default()).await;
    let mut answer = server.ask("answer 5").await.unwrap();
    assert_eq!(answer.command, "SELECT");
    assert_eq!(answer.columns[0].name, "n");
    assert_eq!(answer.schema, "schema");
    for number in 0..5 {
        match answer.next().await.unwrap().unwrap() {
            Part::Data { rows: 1, bytes } => assert_eq!(bytes, number.to_string()),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(answer.next().await, Ok(Some(Part::Done(spent))) if spent.rows == 5));
    assert!(answer.next().await.unwrap().is_none());
    let second = server.ask("answer 0").await.unwrap();
    assert_eq!(server::drain(second).await.unwrap(), 0);
    assert_eq!(server.metric("query_engine_starts_total"), 1.0);
    assert_eq!(server.metric("query_questions_total{outcome=\"ok\"}"), 2.0);
    assert_eq!(server.metric("query_running"), 0.0);
    server.stop().await;
}

async fn a_peer_that_misbehaves_fails_its_question_alone() {
    let server = Server::start(QueryOptions::default()).await;
    for (statement, part) in [
        ("garbage", "no frame"),
        ("huge", "no frame"),
        ("close", "without an answer"),
        ("data first", "before it began"),
        ("begin twice", "twice"),
        ("done first", "before it began"),
        ("two cuts", "two cuts"),
        ("tail first", "not taken"),
        ("refused", "as it was told"),
    ] {
        let refusal = server.outcome(statement).await.unwrap_err();
        assert!(refusal.message.contains(part), "{statement}: {refusal:?}");
        // The next question is answered by the same engine.
        assert_eq!(server.outcome("answer 2").await.unwrap(), 2);
    }
    assert_eq!(server.metric("query_engine_starts_total"), 1.0);
    server.stop().await;
}

async fn an_engine_that_dies_is_said_so_and_started_again() {
    let options = QueryOptions { question_retries_max: 0, ..QueryOptions::default() };
    let server = Server::start(options).await;
    let check = async |statement: &str, code: &str| {
        let mut answer = server.ask("begin and hang").await.unwrap();
        let refusal = server.outcome(statement).await.unwrap_err();
        assert_eq!(refusal.code, code, "{statement}: {refusal:?}");
        assert!(refusal.is_retriable(), "{refusal:?}");
        // So does who was in the middle of an answer.
        let other = answer.next().await.unwrap_err();
        assert_eq!(other.code, code, "{statement}: {other:?}");
        assert!(answer.next().await.unwrap().is_none());
        assert_eq!(server.outcome("answer 1").await.unwrap(), 1, "{statement}");
    };
    check("abort", "engine-crashed").await;
    check("exit", "engine-crashed").await;
    check("kill", "engine-killed").await;
    check("allocate", "engine-memory").await;
    assert_eq!(server.metric("query_engine_starts_total"), 5.0);
    assert_eq!(server.metric("query_engine_ends_total{reason=\"crash\"}"), 2.0);
    server.stop().await;
}

async fn what_was_not_answered_yet_is_asked_of_the_next_engine() {
    let server = Server::start(QueryOptions::default()).await;
    let place = |name: &str| server.directory().join(name).display().to_string();
    let mut begun = server.ask(&format!("once {} begin", place("begun"))).await.unwrap();
    let mut told = server.ask(&format!("once {} data", place("told"))).await.unwrap();
    assert!(matches!(told.next().await, Ok(Some(Part::Data { rows: 1, .. }))));
    let silent = format!("once {} hang", place("silent"));
    let waiting = async { server.outcome(&silent).await };
    let killing = async {
        server.eventually("it is asked", || std::fs::exists(place("silent")).unwrap()).await;
        server.outcome(&format!("once {} abort", place("killer"))).await
    };
    let (waited, killed) = tokio::join!(waiting, killing);
    // The one that ended it too: the next one does not let it.
    assert_eq!((waited.unwrap(), killed.unwrap()), (3, 3));
    let mut rows = 0;
    while let Some(part) = begun.next().await.unwrap() {
        rows += match part {
            Part::Data { rows, .. } => rows,
            _ => 0,
        };
    }
    assert_eq!(rows, 3);
    // Of whose answer something has left cannot begin anew.
    assert_eq!(told.next().await.unwrap_err().code, "engine-crashed");
    // Nor is it tried again and again.
    assert_eq!(server.outcome("abort").await.unwrap_err().code, "engine-crashed");
    assert_eq!(server.metric("query_engine_starts_total"), 3.0);
    server.stop().await;
}

async fn one_that_cannot_be_started_is_not_tried_all_the_time() {
    let options = QueryOptions { restart_pause_ms_max: 100_000, ..QueryOptions::default() };
    let server = Server::start_with(options, "/bin/false", &[]).await;
    let mut said = Vec::new();
    while !said.iter().any(|refusal: &Refusal| refusal.message.contains("times in a row")) {
        let refusal = server.outcome("answer 1").await.unwrap_err();
        assert_eq!(
            (refusal.kind, refusal.code.as_str()),
            (ErrorKind::Unavailable, "engine-unavailable")
        );
        said.push(refusal);
    }
    // The first pause is waited for, a longer one is told.
    assert!(said[0].message.contains("at its start"), "{said:?}");
    let tried = server.metric("query_engine_ends_total{reason=\"start\"}");
    assert!(tried < 5.0, "{tried}");
    server.stop().await;
}

async fn too_much_memory_ends_questions_and_then_the_engine() {
    let options = QueryOptions {
        engine_memory_bytes_max: 128 << 20,
        memory_check_ms: 10,
        ..QueryOptions::default()
    };
    let server = Server::start(options).await;
    // A little too much: the newest question goes.
    let old = server.ask("begin and hang").await.unwrap();
    let refusal = server.outcome("hold 140").await.unwrap_err();
    assert_eq!(refusal.code, "engine-memory", "{refusal:?}");
    assert_eq!(server.metric("query_memory_cancels_total"), 1.0);
    drop(old);
    // Far too much: the engine goes.
    let refusal = server.outcome("hold 400").await.unwrap_err();
    assert_eq!(refusal.code, "engine-memory", "{refusal:?}");
    assert_eq!(server.metric("query_engine_ends_total{reason=\"memory\"}"), 1.0);
    assert_eq!(server.outcome("answer 1").await.unwrap(), 1);
    server.stop().await;
}

async fn time_is_kept_here_too() {
    let server = Server::start(QueryOptions::default()).await;
    let limits = Limits { time_ms_max: 50, ..Limits::NONE };
    let refusal = server.ask_within("hang", limits).await.unwrap_err();
    assert_eq!((refusal.code.as_str(), refusal.sqlstate.as_str()), ("query-time", "57014"));
    let mut answer = server.ask_within("begin and hang", limits).await.unwrap();
    assert_eq!(answer.next().await.unwrap_err().code, "query-time");
    server.stop().await;
}

async fn a_dropped_answer_ends_its_question_and_frees_its_turn() {
    let options = QueryOptions { questions_max: 1, ..QueryOptions::default() };
    let server = Server::start(options).await;
    for _ in 0..3 {
        let answer = server.ask("begin and hang").await.unwrap();
        drop(answer);
        assert_eq!(server.outcome("answer 1").await.unwrap(), 1);
    }
    {
        let hanging = server.ask("hang");
        tokio::pin!(hanging);
        assert!(futures::poll!(&mut hanging).is_pending());
    }
    assert_eq!(server.outcome("answer 1").await.unwrap(), 1);
    server
        .eventually("four were cancelled", || {
            server.metric("query_questions_total{outcome=\"cancelled\"}") == 4.0
        })
        .await;
    // The engine sees its connections close, sooner or later.
    while server.outcome("connections").await.unwrap() != 1 {}
    server.stop().await;
}

async fn a_door_that_takes_nothing_holds_the_engine_back() {
    let server = Server::start(QueryOptions::default()).await;
    let mut answer = server.ask("endless").await.unwrap();
    // What is read ahead is bounded: a part being handed on, those that wait,
    // and what the sockets hold.
    let mut before = server.metric("query_answers_bytes_total");
    let mut rests = 0;
    while rests < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = server.metric("query_answers_bytes_total");
        rests = if now == before { rests + 1 } else { 0 };
        before = now;
    }
    assert!((1.0..=8e6).contains(&before), "{before} bytes");
    for _ in 0..100 {
        assert!(matches!(answer.next().await, Ok(Some(Part::Data { .. }))));
    }
    server.stop().await;
}

async fn an_unused_engine_is_ended_and_comes_back() {
    let options = QueryOptions { idle_ms_max: 20, memory_check_ms: 10, ..QueryOptions::default() };
    let server = Server::start(options).await;
    for round in 1..=3 {
        assert_eq!(server.outcome("answer 1").await.unwrap(), 1);
        let ended = f64::from(round);
        server
            .eventually("it is ended", || {
                server.metric("query_engine_ends_total{reason=\"idle\"}") == ended
            })
            .await;
        assert_eq!(server.metric("query_engine_memory_bytes"), 0.0);
    }
    // One that is asked stays, however long that takes.
    let answer = server.ask("begin and hang").await.unwrap();
    for _ in 0..20 {
        assert_eq!(server.outcome("answer 1").await.unwrap(), 1);
    }
    drop(answer);
    server.stop().await;
}

async fn a_stop_ends_everything() {
    let server = Server::start(QueryOptions::default()).await;
    let mut answer = server.ask("begin and hang").await.unwrap();
    let process = server.engine_process().await;
    server.queries.stop().await;
    let code = answer.next().await.unwrap_err().code;
    assert_eq!(code, "stopping");
    assert_eq!(server.outcome("answer 1").await.unwrap_err().code, "stopping");
    assert!(!std::path::Path::new(&format!("/proc/{process}")).exists());
    assert!(!server.directory().join("data/engine/socket").exists());
    server.stop().await;
}

async fn the_tail_is_whole_at_its_cut() {
    // Pieces so small that a question takes many, and tiering so fast that it
    // overtakes them.
    let options = QueryOptions { tail_piece_bytes_max: 64 << 10, ..QueryOptions::default() };
    let server = Server::start(options).await;
    server.create("s", 3).await;
    let mut expected = 0;
    for round in 0..12 {
        for _ in 0..4 {
            expected += server.append("s", 250).await;
        }
        let rows = server.outcome("tail s").await.unwrap();
        assert_eq!(rows, expected, "round {round}");
    }
    assert_eq!(server.outcome("tail unknown").await.unwrap_err().code, "unknown-table");
    assert!(server.metric("query_tail_reads_bytes_total") > 0.0);
    server.stop().await;
}

async fn views_are_kept() {
    let server = Server::start(QueryOptions { views_max: 2, ..QueryOptions::default() }).await;
    server.create("s", 1).await;
    let code = async |server: &Server, statement: &str| {
        server.outcome(statement).await.err().map_or_else(String::new, |refusal| refusal.code)
    };
    assert_eq!(code(&server, "put a SELECT 1").await, "");
    assert_eq!(code(&server, "put a SELECT 2").await, "already-exists");
    assert_eq!(code(&server, "replace a SELECT 2").await, "");
    assert_eq!(code(&server, "put s SELECT 2").await, "already-exists");
    assert_eq!(code(&server, "put b SELECT b").await, "");
    assert_eq!(code(&server, "put c SELECT c").await, "limit");
    let long = format!("put c {}", "x".repeat(100_000));
    assert_eq!(code(&server, &long).await, "too-large");
    let server = server.restart().await;
    // Two views and a stream.
    assert_eq!(server.outcome("list").await.unwrap(), 3);
    assert!(server.try_create("a").await.unwrap_err().to_string().contains("view"));
    assert_eq!(code(&server, "drop a").await, "");
    assert_eq!(code(&server, "drop a").await, "unknown-view");
    assert_eq!(code(&server, "drop if a").await, "");
    server.try_create("a").await.unwrap();
    assert_eq!(code(&server, "put a SELECT 1").await, "already-exists");
    server.stop().await;
}

async fn views_fit_into_one_message_together() {
    let options = QueryOptions { views_bytes_max: 1024, ..QueryOptions::default() };
    let server = Server::start(options).await;
    let sql = "x".repeat(600);
    let put = async |words: &str| {
        let put = server.outcome(&format!("{words} {sql}")).await;
        put.err().map_or_else(String::new, |refusal| refusal.code)
    };
    assert_eq!(put("put a").await, "");
    assert_eq!(put("put b").await, "too-large");
    // What it replaces is not counted.
    assert_eq!(put("replace a").await, "");
    assert_eq!(server.outcome("list").await.unwrap(), 1);
    server.stop().await;
}

async fn limits_are_lowered_to_the_servers() {
    let options =
        QueryOptions { rows_max: 3, statement_bytes_max: 2048, ..QueryOptions::default() };
    let server = Server::start(options).await;
    assert_eq!(server.outcome("answer 3").await.unwrap(), 3);
    assert_eq!(server.outcome("answer 4").await.unwrap_err().code, "rows-max");
    let long = format!("answer 1{}", " ".repeat(3000));
    assert_eq!(server.outcome(&long).await.unwrap_err().code, "too-large");
    server.stop().await;
}

//! The connection of a question, from frame to frame, over a pair of sockets.

use std::sync::Arc;
use std::time::Duration;

use aquifer_query::wire::{FromEngine, Refusal, ToEngine};
use aquifer_query::{FrameReader, FrameWriter, Question};
use aquifer_types::{ErrorKind, StreamName};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

use super::{Fixture, question};
use crate::connection::serve;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Peer {
    pub(super) reader: FrameReader<BufReader<OwnedReadHalf>>,
    pub(super) writer: FrameWriter<OwnedWriteHalf>,
    served: JoinHandle<()>,
}

impl Peer {
    pub(super) fn connect(fixture: &Fixture) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let (reader, writer) = theirs.into_split();
        let engine = Arc::clone(&fixture.engine);
        let served = tokio::spawn(async move {
            serve(engine, &tokio::runtime::Handle::current(), reader, writer).await;
        });
        let (reader, writer) = ours.into_split();
        Self {
            reader: FrameReader::new(BufReader::new(reader)),
            writer: FrameWriter::new(writer),
            served,
        }
    }

    pub(super) async fn ask(&mut self, question: Question) {
        self.writer.message(&ToEngine::Ask(question)).await.expect("it is sent");
    }

    pub(super) async fn next(&mut self) -> FromEngine {
        let message = tokio::time::timeout(PATIENCE, self.reader.message()).await;
        message.expect("in time").expect("a frame").expect("a message")
    }

    /// Reads to the end of the answer: its bytes, and the refusal if there is one.
    async fn answer(&mut self) -> (Vec<u8>, Option<Refusal>) {
        let mut bytes = Vec::new();
        loop {
            match self.next().await {
                FromEngine::Begin { .. } => drop(self.reader.bytes().await.expect("a schema")),
                FromEngine::Data { .. } => {
                    bytes.extend_from_slice(&self.reader.bytes().await.expect("rows"));
                }
                FromEngine::Progress(_) => {}
                FromEngine::Done(_) => return (bytes, None),
                FromEngine::Failed(refusal) => return (bytes, Some(refusal)),
                other => panic!("not due: {other:?}"),
            }
        }
    }

    pub(super) async fn ended(self) {
        let Self { reader, writer, served } = self;
        // The server closes at the last word.
        drop((reader, writer));
        tokio::time::timeout(PATIENCE, served).await.expect("in time").expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_answered() {
    let fixture = Fixture::new();
    let mut peer = Peer::connect(&fixture);
    peer.ask(question("SELECT 1 AS one").0).await;
    assert_eq!(peer.answer().await, (b"{\"one\":1}\n".to_vec(), None));
    peer.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_asked_for_and_all_streams_at_once() {
    let fixture = Fixture::new();
    let mut peer = Peer::connect(&fixture);
    peer.ask(question("SELECT a._offset FROM AUDIT a JOIN v ON a._offset = v.o").0).await;
    assert!(matches!(peer.next().await, FromEngine::List));
    let stream = |name| StreamName::new(name).expect("a name");
    let listed = ToEngine::Listed {
        streams: vec![stream("audit"), stream("other"), stream("third")],
        views: vec![("v".to_owned(), "SELECT _offset AS o FROM other".to_owned())],
    };
    peer.writer.message(&listed).await.expect("it is sent");
    match peer.next().await {
        FromEngine::Resolve { streams } => assert_eq!(streams, [stream("audit"), stream("other")]),
        other => panic!("not due: {other:?}"),
    }
    let refused = Refusal {
        kind: ErrorKind::Forbidden,
        code: "not-allowed".to_owned(),
        sqlstate: "42501".to_owned(),
        message: "no".to_owned(),
        position: None,
    };
    peer.writer.message(&ToEngine::Refused(refused.clone())).await.expect("it is sent");
    assert_eq!(peer.answer().await, (Vec::new(), Some(refused)));
    peer.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_are_stored_by_the_server() {
    let fixture = Fixture::new();
    let mut peer = Peer::connect(&fixture);
    peer.ask(question("CREATE VIEW v AS SELECT 1 AS x").0).await;
    assert!(matches!(peer.next().await, FromEngine::List));
    let listed = ToEngine::Listed { streams: Vec::new(), views: Vec::new() };
    peer.writer.message(&listed).await.expect("it is sent");
    match peer.next().await {
        FromEngine::PutView { name, sql, replace } => {
            assert_eq!((name.as_str(), sql.as_str(), replace), ("v", "SELECT 1 AS x", false));
        }
        other => panic!("not due: {other:?}"),
    }
    peer.writer.message(&ToEngine::Stored).await.expect("it is sent");
    assert_eq!(peer.answer().await, (Vec::new(), None));
    peer.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_the_connection_ends_the_question_wherever_it_is() {
    let fixture = Fixture::new();
    // An endless answer; one that never yields a row; one that waits for a reply.
    for sql in [
        "SELECT * FROM generate_series(1, 1000000000000)",
        "SELECT count(*) FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b",
        "SELECT * FROM waiting",
    ] {
        let mut peer = Peer::connect(&fixture);
        let (mut question, _) = question(sql);
        question.limits.rows_max = u64::MAX;
        question.limits.bytes_max = u64::MAX;
        peer.ask(question).await;
        // It is under way when it has begun, or asks.
        let _ = peer.next().await;
        let Peer { reader, writer, served } = peer;
        drop((reader, writer));
        tokio::time::timeout(PATIENCE, served).await.expect(sql).expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_is_limited() {
    let fixture = Fixture::new();
    let mut peer = Peer::connect(&fixture);
    let (mut question, _) = question(
        "SELECT count(*) FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b",
    );
    question.limits.time_ms_max = 100;
    peer.ask(question).await;
    let (_, refusal) = peer.answer().await;
    let refusal = refusal.expect("it takes too long");
    assert_eq!((refusal.code.as_str(), refusal.sqlstate.as_str()), ("query-time", "57014"));
    peer.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_told_while_it_runs() {
    let fixture = Fixture::new();
    let mut peer = Peer::connect(&fixture);
    let (mut question, _) = question(
        "SELECT count(*) FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b",
    );
    question.wants_progress = true;
    peer.ask(question).await;
    let mut told = 0;
    while told < 2 {
        match peer.next().await {
            FromEngine::Progress(_) => told += 1,
            FromEngine::Begin { .. } => drop(peer.reader.bytes().await.expect("a schema")),
            FromEngine::Data { .. } => drop(peer.reader.bytes().await.expect("rows")),
            other => panic!("not due: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_speaks_out_of_turn_is_left() {
    let fixture = Fixture::new();
    // Something else than a question, first.
    let mut peer = Peer::connect(&fixture);
    peer.writer.message(&ToEngine::Stored).await.expect("it is sent");
    assert!(matches!(peer.next().await, FromEngine::Failed(_)));
    peer.ended().await;
    // A wrong reply.
    let mut peer = Peer::connect(&fixture);
    peer.ask(question("SELECT * FROM t").0).await;
    assert!(matches!(peer.next().await, FromEngine::List));
    peer.writer.message(&ToEngine::Stored).await.expect("it is sent");
    assert!(matches!(peer.next().await, FromEngine::Failed(refusal) if refusal.code == "internal"));
    // Replies that nobody asked for.
    let mut peer = Peer::connect(&fixture);
    let (mut endless, _) = question("SELECT * FROM generate_series(1, 1000000000000)");
    endless.limits.rows_max = u64::MAX;
    peer.ask(endless).await;
    for _ in 0..3 {
        let _ = peer.writer.message(&ToEngine::Stored).await;
    }
    let Peer { reader, served, writer } = peer;
    tokio::time::timeout(PATIENCE, served).await.expect("in time").expect("no panic");
    drop((reader, writer));
}

#[test]
fn fuzz_question_connection() {
    let frame = |message: &ToEngine| {
        let mut bytes = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(FrameWriter::new(&mut bytes).message(message)).expect("a frame");
        bytes
    };
    let ask = |sql: &str| frame(&ToEngine::Ask(question(sql).0));
    let listed = frame(&ToEngine::Listed {
        streams: vec![StreamName::new("t").expect("a name")],
        views: vec![("v".to_owned(), "SELECT * FROM t".to_owned())],
    });
    let mut views = ask("CREATE OR REPLACE VIEW w AS SELECT 1");
    views.extend_from_slice(&listed);
    views.extend_from_slice(&frame(&ToEngine::Stored));
    let mut reads = ask("SELECT count(*) FROM v JOIN t ON v._offset = t._offset");
    reads.extend_from_slice(&listed);
    reads.extend_from_slice(&frame(&ToEngine::Tables(Vec::new())));
    let corpus = [ask("SELECT 1"), ask("VALUES (1, 'x')"), views, reads];
    let fixture = Fixture::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_stack_size(32 << 20)
        .enable_all()
        .build()
        .expect("a runtime");
    aquifer_testkit::fuzz("question_connection", 0.5, &corpus, |bytes| {
        let engine = Arc::clone(&fixture.engine);
        let bytes = bytes.to_vec();
        let served = runtime.block_on(runtime.spawn(async move {
            let reader = std::io::Cursor::new(bytes);
            // What is read to its end is a closed connection.
            let threads = tokio::runtime::Handle::current();
            tokio::time::timeout(PATIENCE, serve(engine, &threads, reader, tokio::io::sink())).await
        }));
        served.expect("no panic").expect("in time");
    });
}

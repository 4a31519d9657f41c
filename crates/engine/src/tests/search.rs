//! Searches over a connection: what they ask of the server, and their answers.

use aquifer_query::wire::{
    FromEngine, Refusal, Table, TablePartition, TailForm, TailPart, ToEngine,
};
use aquifer_query::{
    AnswerForm, Ask, HistogramQuestion, Limits, Question, SearchOrder, SearchQuestion, TimeRange,
};
use aquifer_types::{
    BatchBuilder, Epoch, Offset, Partition, PartitionIndex, StreamConfig, StreamId, StreamName,
    StreamSchema, TenantName, Timestamp,
};
use serde_json::{Value, json};

use super::Fixture;
use super::wire::Peer;

const VALUES: [&str; 4] = ["an error", r#"{"verb":"get"}"#, "another Error", "nothing"];

fn stream() -> StreamName {
    StreamName::new("logs").expect("a name")
}

fn question(ask: Ask) -> Question {
    Question {
        tenant: TenantName::default_tenant(),
        ask,
        form: AnswerForm::Json,
        limits: Limits { time_ms_max: 60_000, ..Limits::NONE },
        wants_progress: false,
    }
}

fn search(query: &str, hits_max: u64, after: Option<&str>) -> Question {
    question(Ask::Search(SearchQuestion {
        stream: stream(),
        query: query.to_owned(),
        range: TimeRange::default(),
        order: SearchOrder::NewestFirst,
        hits_max,
        after: after.map(ToOwned::to_owned),
        wants_total: false,
        wants_highlights: true,
    }))
}

/// Asks of a stream whose records are all in the journal.
async fn ask(fixture: &Fixture, question: Question) -> Result<Value, Refusal> {
    let partition = Partition::new(StreamId::from_bytes([9; 16]), PartitionIndex(0));
    let mut builder = BatchBuilder::new(Offset(0), Epoch(1));
    for (delta, value) in (0..).zip(VALUES) {
        let time = Timestamp(1000 * i64::from(delta));
        builder.push_at(delta, time, None, &[], Some(value.as_bytes()));
    }
    let batch = builder.finish();
    let end = Offset(VALUES.len() as i64);
    let table = Table {
        name: stream(),
        id: partition.stream,
        config: StreamConfig::default(),
        schema: StreamSchema::default(),
        partitions: vec![TablePartition {
            partition,
            start: Offset(0),
            tiered: Offset(0),
            end,
            tail_bytes: 100,
            chunks: Vec::new(),
        }],
    };
    let mut peer = Peer::connect(fixture);
    peer.ask(question).await;
    let mut bytes = Vec::new();
    loop {
        match peer.next().await {
            FromEngine::Resolve { streams } => {
                assert_eq!(streams, [stream()]);
                let tables = ToEngine::Tables(vec![table.clone()]);
                peer.writer.message(&tables).await.expect("it is sent");
            }
            FromEngine::ReadTail { from, .. } => {
                assert!(from < end);
                let appended = vec![Timestamp(0)];
                let part = TailPart { form: TailForm::Batches, appended, next: end };
                peer.writer.message(&ToEngine::Tail(part)).await.expect("it is sent");
                peer.writer.bytes(batch.bytes()).await.expect("it is sent");
            }
            FromEngine::Begin { .. } => drop(peer.reader.bytes().await.expect("a schema")),
            FromEngine::Data { .. } => {
                bytes.extend_from_slice(&peer.reader.bytes().await.expect("an answer"));
            }
            FromEngine::Done(_) => {
                peer.ended().await;
                return Ok(serde_json::from_slice(&bytes).expect("JSON"));
            }
            FromEngine::Failed(refusal) => return Err(refusal),
            other => panic!("not due: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_is_searched_newest_first() {
    let fixture = Fixture::new();
    let page = ask(&fixture, search("error", 1, None)).await.expect("an answer");
    assert_eq!(
        page["hits"],
        json!([{"partition": 0, "offset": 2, "timestamp": 2000, "key": null, "headers": [],
                "value": "another Error",
                "highlights": [{"part": "value", "ranges": [[8, 13]]}]}])
    );
    let next = page["next"].as_str().expect("one more page");
    let page = ask(&fixture, search("error", 1, Some(next))).await.expect("an answer");
    assert_eq!(page["hits"][0]["offset"], 0);
    assert_eq!(page["next"], Value::Null);
    let page = ask(&fixture, search("verb:get", 10, None)).await.expect("an answer");
    assert_eq!(page["hits"][0]["offset"], 1);
    assert_eq!(page["total"], json!({"value": 1, "relation": "eq"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_is_counted_over_time() {
    let fixture = Fixture::new();
    let histogram = |query: &str, buckets_max| {
        question(Ask::Histogram(HistogramQuestion {
            stream: stream(),
            query: query.to_owned(),
            range: TimeRange { from: Some(Timestamp(0)), to: Some(Timestamp(3000)) },
            buckets_max,
            top_of: vec!["verb".to_owned()],
            top_max: 5,
        }))
    };
    let answer = ask(&fixture, histogram("", 3)).await.expect("an answer");
    assert_eq!(answer["total"], 3);
    assert_eq!(answer["complete"], true);
    assert_eq!(answer["buckets"].as_array().map(Vec::len), Some(3));
    assert_eq!(answer["top"]["verb"]["values"], json!([{"value": "get", "count": 1}]));
    let refused = ask(&fixture, histogram("", 1_000_000)).await.expect_err("too many");
    assert_eq!(refused.code, "search-too-large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_searches_are_refused() {
    let fixture = Fixture::new();
    let check = async |question, code: &str, position| {
        let refusal = ask(&fixture, question).await.expect_err(code);
        assert_eq!((refusal.code.as_str(), refusal.position), (code, position), "{refusal:?}");
    };
    check(search("a (b", 10, None), "search-syntax", Some(3)).await;
    check(search("a", 10, Some("nonsense")), "search-cursor", None).await;
    check(search("a", 1_000_000, None), "search-too-large", None).await;
}

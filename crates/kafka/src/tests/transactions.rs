//! Transactions over a socket, in every version of their requests.

use aquifer_types::{BatchBuilder, ProducerEpoch, ProducerId, Sequence, Timestamp};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest,
    GroupId, InitProducerIdRequest, ListTransactionsRequest, OffsetFetchRequest, TransactionalId,
    TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::client::{Client, Server};
use super::data::{fetch, found, produce, records};
use super::metadata::create;
use crate::KafkaOptions;
use crate::topic::topic_name;

const NONE: i16 = 0;
const UNKNOWN_TOPIC: i16 = ResponseError::UnknownTopicOrPartition.code();
const FENCED: i16 = ResponseError::ProducerFenced.code();
const OLD_EPOCH: i16 = ResponseError::InvalidProducerEpoch.code();
const BAD_MAPPING: i16 = ResponseError::InvalidProducerIdMapping.code();
const BAD_STATE: i16 = ResponseError::InvalidTxnState.code();
const ABORTABLE: i16 = ResponseError::TransactionAbortable.code();
const UNSTABLE: i16 = ResponseError::UnstableOffsetCommit.code();

type Producer = (i64, i16);

pub(super) fn named(id: &'static str) -> TransactionalId {
    TransactionalId(StrBytes::from_static_str(id))
}

fn group() -> GroupId {
    GroupId(StrBytes::from_static_str("g"))
}

pub(super) async fn init(client: &mut Client, id: &'static str) -> Producer {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(named(id)))
        .with_transaction_timeout_ms(60_000);
    let response = client.call(4, request).await;
    assert_eq!(response.error_code, NONE);
    (response.producer_id.0, response.producer_epoch)
}

/// Adds partitions of topic `a`, or asks whether they are there; their codes.
async fn enlist(
    client: &mut Client,
    version: i16,
    id: &'static str,
    producer: Producer,
    partitions: &[i32],
    verify_only: bool,
) -> Vec<i16> {
    let topic = AddPartitionsToTxnTopic::default()
        .with_name(topic_name("a"))
        .with_partitions(partitions.to_vec());
    let request = AddPartitionsToTxnRequest::default();
    let request = if version < 4 {
        request
            .with_v3_and_below_transactional_id(named(id))
            .with_v3_and_below_producer_id(producer.0.into())
            .with_v3_and_below_producer_epoch(producer.1)
            .with_v3_and_below_topics(vec![topic])
    } else {
        let one = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(named(id))
            .with_producer_id(producer.0.into())
            .with_producer_epoch(producer.1)
            .with_verify_only(verify_only)
            .with_topics(vec![topic]);
        request.with_transactions(vec![one])
    };
    let response = client.call(version, request).await;
    assert_eq!(response.error_code, NONE);
    let topics = match version {
        0..4 => response.results_by_topic_v3_and_below,
        _ => response.results_by_transaction[0].topic_results.clone(),
    };
    let codes = topics[0].results_by_partition.iter();
    codes.map(|of| of.partition_error_code).collect()
}

pub(super) async fn add(
    client: &mut Client,
    version: i16,
    id: &'static str,
    producer: Producer,
    partitions: &[i32],
) -> Vec<i16> {
    enlist(client, version, id, producer, partitions, false).await
}

async fn add_group(client: &mut Client, version: i16, id: &'static str, producer: Producer) -> i16 {
    let request = AddOffsetsToTxnRequest::default()
        .with_transactional_id(named(id))
        .with_producer_id(producer.0.into())
        .with_producer_epoch(producer.1)
        .with_group_id(group());
    client.call(version, request).await.error_code
}

pub(super) async fn end(
    client: &mut Client,
    version: i16,
    id: &'static str,
    producer: Producer,
    is_commit: bool,
) -> i16 {
    let request = EndTxnRequest::default()
        .with_transactional_id(named(id))
        .with_producer_id(producer.0.into())
        .with_producer_epoch(producer.1)
        .with_committed(is_commit);
    client.call(version, request).await.error_code
}

/// Positions of partitions 0 and 9 of topic `a`, of which the second is not
/// there; by a consumer that is no member.
async fn commit_positions(
    client: &mut Client,
    version: i16,
    producer: Producer,
    offset: i64,
    generation: i32,
) -> Vec<i16> {
    let at = |index, offset| {
        TxnOffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(StrBytes::from_static_str("a note")))
    };
    let of = TxnOffsetCommitRequestTopic::default()
        .with_name(topic_name("a"))
        .with_partitions(vec![at(0, offset), at(9, offset)]);
    let request = TxnOffsetCommitRequest::default()
        .with_transactional_id(named("t"))
        .with_group_id(group())
        .with_producer_id(producer.0.into())
        .with_producer_epoch(producer.1)
        .with_topics(vec![of]);
    let request = if version < 3 { request } else { request.with_generation_id(generation) };
    let response = client.call(version, request).await;
    response.topics[0].partitions.iter().map(|of| of.error_code).collect()
}

/// The code and the position of the group in partition 0 of topic `a`.
async fn position(client: &mut Client, require_stable: bool, asks_all: bool) -> (i16, i64) {
    let of = OffsetFetchRequestTopics::default()
        .with_name(topic_name("a"))
        .with_partition_indexes(vec![0]);
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(group())
        .with_topics((!asks_all).then(|| vec![of]));
    let request =
        OffsetFetchRequest::default().with_groups(vec![asked]).with_require_stable(require_stable);
    let response = client.call(8, request).await;
    let position = &response.groups[0].topics[0].partitions[0];
    (position.error_code, position.committed_offset)
}

fn batch(producer: Producer, sequence: i32, value: &str) -> Bytes {
    let (id, epoch) = (ProducerId(producer.0), ProducerEpoch(producer.1));
    let builder = BatchBuilder::default().producer(id, epoch, Sequence(sequence));
    let mut builder = builder.transactional();
    builder.push(Timestamp(1), None, &[], Some(value.as_bytes()));
    builder.finish().bytes().clone()
}

/// The code of a batch in partition 0 of topic `a`.
async fn write(client: &mut Client, version: i16, id: Option<&'static str>, data: Bytes) -> i16 {
    let request = produce(version, "a", Uuid::nil(), &[(0, data)]);
    let response = client.call(version, request.with_transactional_id(id.map(named))).await;
    response.responses[0].partition_responses[0].error_code
}

/// What readers see of partition 0 of topic `a`, and how many transactions they
/// are told to leave out.
async fn read(client: &mut Client, isolation: i8) -> (Vec<String>, usize) {
    let request = fetch(12, "a", Uuid::nil(), &[(0, 0)]).with_isolation_level(isolation);
    let response = client.call(12, request.with_max_wait_ms(0)).await;
    let partition = found(&response)[0];
    let values = records(partition).into_iter().filter_map(|record| record.value);
    let values = values.map(|value| String::from_utf8_lossy(&value).into_owned());
    let aborted = partition.aborted_transactions.as_ref().map_or(0, Vec::len);
    (values.filter(|value| value.starts_with('v')).collect(), aborted)
}

#[tokio::test]
async fn transactions_commit_and_abort_in_every_version() {
    let server = Server::start(KafkaOptions::default()).await;
    create(&server, "a", 2).await;
    let mut client = server.client().await;
    let producer = init(&mut client, "t").await;
    let mut expected = Vec::new();
    let mut aborted = 0;
    for version in 0..=5 {
        let end_version = version.min(4);
        for is_commit in [true, false] {
            let sequence = i32::try_from(expected.len() + aborted).unwrap();
            let value = format!("v{version} {is_commit}");
            // All or none.
            let codes = add(&mut client, version, "t", producer, &[0, 7]).await;
            assert_eq!(codes, [ResponseError::OperationNotAttempted.code(), UNKNOWN_TOPIC]);
            let data = batch(producer, sequence, &value);
            assert_eq!(write(&mut client, 9, Some("t"), data.clone()).await, BAD_STATE);
            assert_eq!(write(&mut client, 11, Some("t"), data.clone()).await, ABORTABLE);
            for partitions in [&[0][..], &[0, 1, 1]] {
                let codes = add(&mut client, version, "t", producer, partitions).await;
                assert_eq!(codes, vec![NONE; partitions.len()], "version {version}");
            }
            assert_eq!(write(&mut client, 9, Some("t"), data).await, NONE);
            let (before, told) = read(&mut client, 1).await;
            assert_eq!((before.len(), told), (expected.len() + aborted, aborted));
            assert_eq!(end(&mut client, end_version, "t", producer, is_commit).await, NONE);
            // Whoever lost the answer asks again.
            assert_eq!(end(&mut client, end_version, "t", producer, is_commit).await, NONE);
            let other = end(&mut client, end_version, "t", producer, !is_commit).await;
            assert_eq!(other, BAD_STATE);
            if is_commit {
                expected.push(value);
            } else {
                aborted += 1;
            }
        }
    }
    // A committed reader leaves out itself what it is told was aborted.
    let (all, told) = read(&mut client, 1).await;
    assert_eq!((all.len(), told), (12, 6));
    assert_eq!(read(&mut client, 0).await, (all.clone(), 0));
    let committed: Vec<_> = all.into_iter().filter(|value| value.ends_with("true")).collect();
    assert_eq!(committed, expected);
    server.stop().await;
}

#[tokio::test]
async fn a_commit_is_repeated_after_a_restart() {
    let server = Server::start(KafkaOptions::default()).await;
    create(&server, "a", 1).await;
    let mut client = server.client().await;
    let producer = init(&mut client, "t").await;
    assert_eq!(add(&mut client, 0, "t", producer, &[0]).await, [NONE]);
    assert_eq!(write(&mut client, 9, Some("t"), batch(producer, 0, "v")).await, NONE);
    // What was written before a restart is committed behind it, and once more
    // behind the next.
    let server = server.restart(KafkaOptions::default()).await;
    let mut client = server.client().await;
    assert_eq!(read(&mut client, 1).await, (vec![], 0));
    assert_eq!(end(&mut client, 1, "t", producer, true).await, NONE);
    let server = server.restart(KafkaOptions::default()).await;
    let mut client = server.client().await;
    assert_eq!(end(&mut client, 1, "t", producer, true).await, NONE);
    assert_eq!(end(&mut client, 1, "t", producer, false).await, BAD_STATE);
    // It may have to be read from a chunk, which takes its time.
    let mut found = read(&mut client, 1).await;
    while found.0.is_empty() {
        found = read(&mut client, 1).await;
    }
    assert_eq!(found, (vec!["v".to_owned()], 0));
    server.stop().await;
}

#[tokio::test]
async fn whoever_was_fenced_is_told_as_its_version_knows_it() {
    let server = Server::start(KafkaOptions::default()).await;
    create(&server, "a", 1).await;
    let mut client = server.client().await;
    let old = init(&mut client, "t").await;
    assert_eq!(add(&mut client, 3, "t", old, &[0]).await, [NONE]);
    assert_eq!(write(&mut client, 9, Some("t"), batch(old, 0, "v")).await, NONE);
    let new = init(&mut client, "t").await;
    assert_eq!(new, (old.0, old.1 + 1));
    // The open transaction was aborted.
    assert_eq!(read(&mut client, 1).await.1, 1);
    let stranger = (old.0 + 100, 0);
    for version in 0..=5 {
        let fenced = if version < 2 { OLD_EPOCH } else { FENCED };
        assert_eq!(add(&mut client, version, "t", old, &[0]).await, [fenced]);
        assert_eq!(add(&mut client, version, "t", stranger, &[0]).await, [BAD_MAPPING]);
        assert_eq!(add(&mut client, version, "none", old, &[0]).await, [BAD_MAPPING]);
        assert_eq!(
            add(&mut client, version, "", old, &[0]).await,
            [ResponseError::InvalidRequest.code()]
        );
        let codes = commit_positions(&mut client, version, old, 5, -1).await;
        assert_eq!(codes, [OLD_EPOCH, UNKNOWN_TOPIC], "version {version}");
        let codes = commit_positions(&mut client, version, stranger, 5, -1).await;
        assert_eq!(codes, [BAD_MAPPING, UNKNOWN_TOPIC]);
        if version > 4 {
            continue;
        }
        assert_eq!(add_group(&mut client, version, "t", old).await, fenced);
        assert_eq!(add_group(&mut client, version, "t", stranger).await, BAD_MAPPING);
        assert_eq!(end(&mut client, version, "t", old, true).await, fenced);
        assert_eq!(end(&mut client, version, "t", stranger, true).await, BAD_MAPPING);
        assert_eq!(end(&mut client, version, "none", old, true).await, BAD_MAPPING);
        assert_eq!(end(&mut client, version, "t", new, true).await, BAD_STATE);
    }
    assert_eq!(write(&mut client, 9, Some("t"), batch(old, 1, "v")).await, OLD_EPOCH);
    // A transactional batch names the id that the right to it hangs on.
    let unnamed = ResponseError::TransactionalIdAuthorizationFailed.code();
    assert_eq!(write(&mut client, 9, None, batch(new, 0, "v")).await, unnamed);
    assert_eq!(write(&mut client, 9, Some("other"), batch(new, 0, "v")).await, BAD_MAPPING);
    server.stop().await;
}

#[tokio::test]
async fn a_transactions_positions_count_when_it_is_committed() {
    let server = Server::start(KafkaOptions::default()).await;
    create(&server, "a", 1).await;
    let mut client = server.client().await;
    let producer = init(&mut client, "t").await;
    let mut kept = -1;
    for version in 0..=5 {
        for is_commit in [false, true] {
            let offset = i64::from(version) + 10;
            if version < 5 {
                let refused = if version < 4 { BAD_STATE } else { ABORTABLE };
                let codes = commit_positions(&mut client, version, producer, offset, -1).await;
                assert_eq!(codes, [refused, UNKNOWN_TOPIC], "version {version}");
                let add_version = version.min(4);
                assert_eq!(add_group(&mut client, add_version, "t", producer).await, NONE);
            }
            let codes = commit_positions(&mut client, version, producer, offset, -1).await;
            assert_eq!(codes, [NONE, UNKNOWN_TOPIC], "version {version}");
            assert_eq!(position(&mut client, true, false).await, (UNSTABLE, -1));
            assert_eq!(position(&mut client, false, false).await, (NONE, kept));
            if kept >= 0 {
                assert_eq!(position(&mut client, true, true).await, (UNSTABLE, -1));
            }
            assert_eq!(end(&mut client, 1, "t", producer, is_commit).await, NONE);
            kept = if is_commit { offset } else { kept };
            assert_eq!(position(&mut client, true, false).await, (NONE, kept));
        }
        // A generation that the group does not have.
        if version >= 3 {
            let codes = commit_positions(&mut client, version, producer, 1, 7).await;
            let code = ResponseError::IllegalGeneration.code();
            assert_eq!(codes, [code, UNKNOWN_TOPIC]);
        }
    }
    assert_eq!(position(&mut client, true, true).await, (NONE, kept));
    server.stop().await;
}

#[tokio::test]
async fn transactions_are_verified_described_and_listed() {
    let server = Server::start(KafkaOptions::default()).await;
    create(&server, "a", 2).await;
    let mut client = server.client().await;
    let producer = init(&mut client, "t").await;
    let idle = init(&mut client, "idle").await;
    assert_eq!(add(&mut client, 3, "t", producer, &[1]).await, [NONE]);
    for (version, missing) in [(4, BAD_STATE), (5, ABORTABLE)] {
        let codes = enlist(&mut client, version, "t", producer, &[0, 1, -1], true).await;
        assert_eq!(codes, [missing, NONE, missing]);
        let old = (producer.0, producer.1 - 1);
        assert_eq!(enlist(&mut client, version, "t", old, &[1], true).await, [FENCED]);
        assert_eq!(enlist(&mut client, version, "t", idle, &[1], true).await, [BAD_MAPPING]);
        assert_eq!(enlist(&mut client, version, "none", idle, &[1], true).await, [BAD_MAPPING]);
    }
    let ids = vec![named("t"), named("idle"), named("none")];
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    let described = client.call(0, request.clone()).await.transaction_states;
    let states: Vec<_> = described.iter().map(|of| of.transaction_state.as_str()).collect();
    assert_eq!(states, ["Ongoing", "Empty", ""]);
    let codes: Vec<_> = described.iter().map(|of| of.error_code).collect();
    assert_eq!(codes, [NONE, NONE, ResponseError::TransactionalIdNotFound.code()]);
    let open = &described[0];
    assert_eq!((open.producer_id.0, open.producer_epoch), producer);
    assert_eq!(open.transaction_timeout_ms, 60_000);
    assert!(open.transaction_start_time_ms > 0);
    assert_eq!((open.topics[0].topic.as_str(), &open.topics[0].partitions), ("a", &vec![1]));
    assert_eq!((described[1].transaction_start_time_ms, described[1].topics.len()), (-1, 0));

    let all = ListTransactionsRequest::default().with_duration_filter(-1);
    let state = |name| vec![StrBytes::from_static_str(name)];
    let of = |id: i64| vec![id.into()];
    let matching = |pattern| {
        all.clone().with_transactional_id_pattern(Some(StrBytes::from_static_str(pattern)))
    };
    let response = client.call(2, matching("(")).await;
    let invalid = ResponseError::InvalidRegularExpression.code();
    assert_eq!((response.error_code, response.transaction_states.len()), (invalid, 0));
    let checks = [
        (0, all.clone(), vec!["idle", "t"]),
        (1, all.clone(), vec!["idle", "t"]),
        (0, all.clone().with_state_filters(state("Ongoing")), vec!["t"]),
        (0, all.clone().with_state_filters(state("Dead")), vec![]),
        (0, all.clone().with_producer_id_filters(of(idle.0)), vec!["idle"]),
        (1, all.clone().with_duration_filter(3_600_000), vec![]),
        (2, all.clone(), vec!["idle", "t"]),
        (2, matching("i.*|x"), vec!["idle"]),
        (2, matching("dl"), vec![]),
        (2, matching(""), vec!["idle", "t"]),
        (2, matching(".*").with_state_filters(state("Ongoing")), vec!["t"]),
    ];
    for (version, request, expected) in checks {
        let response = client.call(version, request).await;
        assert!(response.unknown_state_filters.is_empty());
        let states = response.transaction_states.iter();
        let mut found: Vec<_> = states.map(|of| of.transactional_id.to_string()).collect();
        found.sort();
        assert_eq!(found, expected);
    }
    let response = client.call(1, all.with_state_filters(state("Odd"))).await;
    assert_eq!(response.unknown_state_filters, state("Odd"));
    assert_eq!(response.transaction_states, []);

    for (is_commit, name) in [(true, "CompleteCommit"), (false, "CompleteAbort")] {
        assert_eq!(add(&mut client, 3, "t", producer, &[1]).await, [NONE]);
        assert_eq!(end(&mut client, 3, "t", producer, is_commit).await, NONE);
        let described = client.call(0, request.clone()).await.transaction_states;
        assert_eq!(described[0].transaction_state.as_str(), name);
    }
    server.stop().await;
}

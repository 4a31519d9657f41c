//! Leader epochs: a client that knows an older one learns that it is over.

use aquifer_types::Batch;
use aquifer_types::batch::split_batches;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{DeleteTopicsRequest, MetadataRequest, OffsetForLeaderEpochRequest};
use uuid::Uuid;

use super::client::{Client, Server};
use super::data::{append, batch, fetch, found};
use super::metadata::create;
use crate::KafkaOptions;
use crate::topic::topic_name;

const FENCED: i16 = 74;
const UNKNOWN: i16 = 75;

async fn epoch(client: &mut Client, name: &str) -> i32 {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    client.call(9, request).await.topics[0].partitions[0].leader_epoch
}

/// The answer to a fetch by a client that knows this epoch: error, and the
/// epoch of the first batch.
async fn fetched(client: &mut Client, name: &str, epoch: i32) -> (i16, Option<i32>) {
    let mut request = fetch(12, name, Uuid::nil(), &[(0, 0)]);
    request.topics[0].partitions[0].current_leader_epoch = epoch;
    let response = client.call(12, request).await;
    let partition = found(&response)[0];
    let records = partition.records.clone().unwrap_or_default();
    let first = split_batches(records).unwrap().into_iter().next();
    let epoch =
        first.map(|bytes| i32::try_from(Batch::read(bytes).unwrap().header().epoch.get()).unwrap());
    (partition.error_code, epoch)
}

/// Where an epoch ends: error, epoch, offset.
async fn end_of(client: &mut Client, name: &str, known: i32, asked: i32) -> (i16, i32, i64) {
    let partition = OffsetForLeaderPartition::default()
        .with_current_leader_epoch(known)
        .with_leader_epoch(asked);
    let topic = OffsetForLeaderTopic::default()
        .with_topic(topic_name(name))
        .with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
    let response = client.call(4, request).await;
    let answer = &response.topics[0].partitions[0];
    (answer.error_code, answer.leader_epoch, answer.end_offset)
}

async fn delete(client: &mut Client, name: &str) {
    let topic = DeleteTopicState::default().with_name(Some(topic_name(name)));
    let request = DeleteTopicsRequest::default().with_topics(vec![topic]);
    assert_eq!(client.call(6, request).await.responses[0].error_code, 0);
}

#[tokio::test]
async fn a_topic_that_takes_a_name_is_in_a_later_epoch() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "kept", 1).await;
    create(&server, "a", 1).await;
    let first = epoch(&mut client, "a").await;
    assert_eq!(epoch(&mut client, "kept").await, first);
    let mut known = first;
    for _ in 0..3 {
        append(&mut client, "a", &[(0, batch(&["old", "old"]))]).await;
        assert_eq!(fetched(&mut client, "a", known).await, (0, Some(known)));
        delete(&mut client, "a").await;
        create(&server, "a", 1).await;
        let now = epoch(&mut client, "a").await;
        assert!(now > known, "{now} after {known}");
        append(&mut client, "a", &[(0, batch(&["new"]))]).await;
        // Whoever cached the one before is told so by everything that asks.
        assert_eq!(fetched(&mut client, "a", known).await, (FENCED, None));
        assert_eq!(end_of(&mut client, "a", known, known).await, (FENCED, -1, -1));
        assert_eq!(fetched(&mut client, "a", now + 1).await, (UNKNOWN, None));
        assert_eq!(fetched(&mut client, "a", now).await, (0, Some(now)));
        // Nothing that was read in the old one is here.
        assert_eq!(end_of(&mut client, "a", now, known).await, (0, known, 0));
        assert_eq!(end_of(&mut client, "a", now, now).await, (0, now, 1));
        known = now;
    }
    append(&mut client, "kept", &[(0, batch(&["x"]))]).await;
    assert_eq!(
        fetched(&mut client, "kept", first).await,
        (0, Some(first)),
        "others stay in theirs"
    );

    let server = server.restart(KafkaOptions::default()).await;
    let mut client = server.client().await;
    let now = epoch(&mut client, "a").await;
    assert!(now > known, "{now} after {known}");
    assert_eq!(epoch(&mut client, "kept").await, now);
    assert_eq!(fetched(&mut client, "a", known).await, (FENCED, None));
    assert_eq!(end_of(&mut client, "a", now, known).await, (0, known, 1));
    assert_eq!(fetched(&mut client, "kept", now).await, (0, Some(first)));
    server.stop().await;
}

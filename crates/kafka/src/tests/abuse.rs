//! Clients that are slow, wrong, too many or gone.

use std::time::Duration;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    ApiVersionsRequest, DescribeConfigsRequest, DescribeGroupsRequest, DescribeProducersRequest,
    DescribeTransactionsRequest, GroupId, MetadataRequest, OffsetFetchRequest, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use uuid::Uuid;

use super::client::{Client, Server, frame};
use super::data::{append, batch, fetch, found, records};
use super::metadata::create;
use super::sasl;
use crate::KafkaOptions;
use crate::topic::topic_name;

/// Whatever is waited for is there long before.
const PATIENCE: Duration = Duration::from_secs(20);

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

async fn is_closed(client: &mut Client) -> bool {
    tokio::time::timeout(PATIENCE, client.is_closed()).await.is_ok_and(|is_closed| is_closed)
}

async fn is_answered(client: &mut Client) -> bool {
    let answer = client.call(0, ApiVersionsRequest::default());
    tokio::time::timeout(PATIENCE, answer).await.is_ok_and(|answer| answer.error_code == 0)
}

#[tokio::test]
async fn garbage_closes_its_connection_and_no_other() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut good = server.client().await;
    let metadata = frame(0, 1, &MetadataRequest::default());
    // Four bytes that ask for all memory.
    let mut lie = metadata.to_vec();
    let count = lie.len() - 4;
    lie[count..].copy_from_slice(&i32::MAX.to_be_bytes());
    let mut unknown = metadata.to_vec();
    unknown[4..6].copy_from_slice(&999_i16.to_be_bytes());
    let mut future = metadata.to_vec();
    future[6..8].copy_from_slice(&99_i16.to_be_bytes());
    let garbage: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        &[0xff; 64],
        &[0; 64],
        &lie,
        &unknown,
        &future,
    ];
    for (number, bytes) in garbage.into_iter().enumerate() {
        let mut client = server.client().await;
        client.stream.write_all(bytes).await.unwrap();
        assert!(is_closed(&mut client).await, "{bytes:02x?}");
        assert_eq!(server.metrics.malformed.get(), number as u64 + 1, "{bytes:02x?}");
        assert!(is_answered(&mut good).await);
    }
    server.stop().await;
}

#[tokio::test]
async fn who_announces_much_and_sends_little_holds_nobody_up() {
    let options = KafkaOptions {
        request_bytes_max: 64 << 10,
        requests_bytes_max: 64 << 10,
        request_ms_max: 300,
        ..KafkaOptions::default()
    };
    let server = Server::start(options).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut client = server.client().await;
        client.stream.write_all(&(64_i32 << 10).to_be_bytes()).await.unwrap();
        client.stream.write_all(&[0, 3, 0, 1]).await.unwrap();
        slow.push(client);
    }
    let mut good = server.client().await;
    assert!(is_answered(&mut good).await);
    for client in &mut slow {
        assert!(is_closed(client).await);
    }
    // A client that is only idle is not slow.
    assert!(is_answered(&mut good).await);
    server.stop().await;
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let options = KafkaOptions { connections_per_address_max: 2, ..KafkaOptions::default() };
    let server = Server::start(options).await;
    let mut first = server.client().await;
    let mut second = server.client().await;
    assert!(is_answered(&mut first).await && is_answered(&mut second).await);
    let mut third = server.client().await;
    assert!(is_closed(&mut third).await);
    assert_eq!(server.metrics.connections.refused.get(), 1);
    drop(first);
    eventually("it is gone", || server.metrics.connections.open.get() == 1).await;
    let mut fourth = server.client().await;
    assert!(is_answered(&mut fourth).await && is_answered(&mut second).await);
    server.stop().await;
}

#[tokio::test]
async fn a_flood_is_answered_in_order() {
    const COUNT: i32 = 5_000;
    let server = Server::start(KafkaOptions::default()).await;
    let client = server.client().await;
    let (mut from, mut to) = client.stream.into_split();
    let writing = tokio::spawn(async move {
        for correlation in 0..COUNT {
            let bytes = frame(0, correlation, &ApiVersionsRequest::default());
            to.write_all(&bytes).await.unwrap();
        }
        to
    });
    for correlation in 0..COUNT {
        let length = usize::try_from(from.read_i32().await.unwrap()).unwrap();
        let mut answer = vec![0; length];
        from.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..4], correlation.to_be_bytes());
        // One under way and one read ahead at most.
        assert!(server.metrics.request_bytes.get() <= 64);
    }
    writing.await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn who_takes_no_answers_is_given_up() {
    let options = KafkaOptions { peer_ms_max: 1_000, ..KafkaOptions::default() };
    let server = Server::start(options).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stream = socket.connect(server.address()).await.unwrap();
    // Answers that no socket's buffers have room for.
    let request = frame(0, 1, &ApiVersionsRequest::default());
    let flood = async { while stream.write_all(&request).await.is_ok() {} };
    assert!(tokio::time::timeout(PATIENCE, flood).await.is_ok());
    eventually("it is given up", || server.metrics.connections.open.get() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn who_has_sent_all_gets_all_answers() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    for _ in 0..3 {
        client.send(0, &ApiVersionsRequest::default()).await;
    }
    client.stream.shutdown().await.unwrap();
    for expected in 1..=3 {
        let (correlation, _) = client.receive::<ApiVersionsRequest>(0).await.unwrap();
        assert_eq!(correlation, expected);
    }
    assert!(is_closed(&mut client).await);
    // One that goes within a request gets none.
    let mut client = server.client().await;
    client.stream.write_all(&[0, 0, 0, 20, 0, 3]).await.unwrap();
    client.stream.shutdown().await.unwrap();
    assert!(is_closed(&mut client).await);
    server.stop().await;
}

#[tokio::test]
async fn who_asks_for_nothing_is_closed() {
    let server =
        Server::start(KafkaOptions { idle_ms_max: 1_000, ..KafkaOptions::default() }).await;
    let mut client = server.client().await;
    assert!(is_answered(&mut client).await);
    assert!(is_closed(&mut client).await);
    server.stop().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_clients_that_ask_for_nothing() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut clients = Vec::new();
    for number in 0..10 {
        let mut client = server.client().await;
        assert!(is_answered(&mut client).await);
        if number % 2 == 0 {
            // The beginning of a request.
            client.stream.write_all(&[0, 0, 0, 20, 0, 3]).await.unwrap();
        }
        clients.push(client);
    }
    // Cutting off takes drain_ms_max, 5 s.
    let stopped = tokio::time::timeout(Duration::from_secs(4), server.stop()).await;
    assert!(stopped.is_ok());
    for client in &mut clients {
        assert!(is_closed(client).await);
    }
}

#[tokio::test]
async fn what_is_named_often_is_answered_once() {
    const TIMES: usize = 100;
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    let name = StrBytes::from_static_str("a");
    let groups = vec![GroupId(name.clone()); TIMES];
    let request = DescribeGroupsRequest::default().with_groups(groups);
    assert_eq!(client.call(5, request).await.groups.len(), 1);
    // All of the group's positions.
    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(name.clone()));
    let request = OffsetFetchRequest::default().with_groups(vec![group.with_topics(None); TIMES]);
    assert_eq!(client.call(8, request).await.groups.len(), 1);
    let resource = DescribeConfigsResource::default().with_resource_type(2);
    let resource = resource.with_resource_name(name.clone()).with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource; TIMES]);
    assert_eq!(client.call(4, request).await.results.len(), 1);
    let topic = TopicRequest::default().with_name(topic_name("a"));
    let topic = topic.with_partition_indexes(vec![0; TIMES]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic; 2]);
    let topics = client.call(0, request).await.topics;
    let partitions: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
    assert_eq!((topics.len(), partitions), (2, 1));
    let ids = vec![TransactionalId(name); TIMES];
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    assert_eq!(client.call(0, request).await.transaction_states.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn who_is_not_let_in_holds_up_nobody_who_is() {
    let options = KafkaOptions {
        request_bytes_max: 64 << 10,
        requests_bytes_max: 64 << 10,
        request_bytes_max_before_login: 64 << 10,
        requests_bytes_max_before_login: 64 << 10,
        ..sasl::options()
    };
    let server = Server::start(options).await;
    sasl::create(&server, "alice", "pencil").await;
    let mut strangers = Vec::new();
    for _ in 0..20 {
        let mut stranger = server.client().await;
        stranger.stream.write_all(&60_000_i32.to_be_bytes()).await.unwrap();
        stranger.stream.write_all(&[0; 59_000]).await.unwrap();
        strangers.push(stranger);
    }
    let let_in = async {
        let mut client = server.client().await;
        let done = sasl::log_in(&mut client, 1, "SCRAM-SHA-256", "alice", "pencil").await;
        assert_eq!(done.error_code, 0);
        // More than a login, so that it needs room.
        let names = (0..1_000).map(|_| topic_name(&"x".repeat(20)));
        let topics = names.map(|name| {
            kafka_protocol::messages::metadata_request::MetadataRequestTopic::default()
                .with_name(Some(name))
        });
        let request = MetadataRequest::default().with_topics(Some(topics.collect()));
        client.call(4, request.with_allow_auto_topic_creation(false)).await
    };
    let answer = tokio::time::timeout(PATIENCE, let_in).await;
    assert_eq!(answer.unwrap().topics.len(), 1);
    drop(strangers);
    server.stop().await;
}

#[tokio::test]
async fn who_takes_a_fetch_slowly_leaves_room_for_others_and_is_given_up() {
    let options = KafkaOptions {
        fetch_bytes_max: 8 << 20,
        fetches_bytes_max: 8 << 20,
        answer_ms_max: 2_000,
        ..KafkaOptions::default()
    };
    let server = Server::start(options).await;
    let mut good = server.client().await;
    create(&server, "a", 1).await;
    let value = "x".repeat(200_000);
    for _ in 0..60 {
        append(&mut good, "a", &[(0, batch(&[&value]))]).await;
    }
    let mut request = fetch(12, "a", Uuid::nil(), &[(0, 0)]);
    request.topics[0].partitions[0].partition_max_bytes = i32::MAX;
    // Answers of fetches, one behind the other, that no socket has room for.
    let mut slow = Vec::new();
    for _ in 0..3 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let mut client = Client::over(socket.connect(server.address()).await.unwrap());
        for _ in 0..20 {
            client.send(12, &request).await;
        }
        slow.push(client);
    }
    let sent = server.metrics.bytes_out.get();
    eventually("they are answered", || server.metrics.bytes_out.get() > sent + (4 << 20)).await;
    let answer = tokio::time::timeout(PATIENCE, good.call(12, request)).await.unwrap();
    assert!(!records(found(&answer)[0]).is_empty());
    // A little at a time is not enough.
    let given_up = async {
        let mut bytes = [0; 64];
        while server.metrics.connections.open.get() > 1 {
            for client in &mut slow {
                let _ = client.stream.read(&mut bytes).await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, given_up).await.is_ok());
    server.stop().await;
}

//! Client quotas over a socket: set, told, enforced.

use std::time::Duration;

use aquifer_env::{Clock as _, RealClock};
use kafka_protocol::messages::alter_client_quotas_request::{self, EntryData, OpData};
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::{AlterClientQuotasRequest, DescribeClientQuotasRequest};
use kafka_protocol::protocol::StrBytes;
use tokio::io::AsyncReadExt as _;
use uuid::Uuid;

use super::client::{Client, Server};
use super::data::{batch, fetch, found, produce};
use super::metadata::create;
use crate::KafkaOptions;

type Entity<'a> = &'a [(&'a str, Option<&'a str>)];

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Sets quotas of one entity, or takes them away; the answer's code and words.
async fn alter(
    client: &mut Client,
    version: i16,
    entity: Entity<'_>,
    changes: &[(&str, Option<f64>)],
    validate_only: bool,
) -> (i16, String) {
    let parts = entity.iter().map(|(kind, name)| {
        alter_client_quotas_request::EntityData::default()
            .with_entity_type(text(kind))
            .with_entity_name(name.map(text))
    });
    let operations = changes.iter().map(|(key, limit)| {
        let limit = limit.map_or((0.0, true), |limit| (limit, false));
        OpData::default().with_key(text(key)).with_value(limit.0).with_remove(limit.1)
    });
    let entry = EntryData::default().with_entity(parts.collect()).with_ops(operations.collect());
    let request = AlterClientQuotasRequest::default()
        .with_entries(vec![entry])
        .with_validate_only(validate_only);
    let entries = client.call(version, request).await.entries;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].entity.len(), entity.len());
    let message = entries[0].error_message.as_deref().unwrap_or_default();
    (entries[0].error_code, message.to_owned())
}

/// What is told of quotas: each as `part=name … key=limit …`.
async fn describe(
    client: &mut Client,
    version: i16,
    components: &[(&str, i8, Option<&str>)],
    is_strict: bool,
) -> Result<Vec<String>, i16> {
    let components = components.iter().map(|(kind, match_type, name)| {
        ComponentData::default()
            .with_entity_type(text(kind))
            .with_match_type(*match_type)
            .with_match(name.map(text))
    });
    let request = DescribeClientQuotasRequest::default()
        .with_components(components.collect())
        .with_strict(is_strict);
    let response = client.call(version, request).await;
    if response.error_code != 0 {
        assert!(response.entries.is_none() && response.error_message.is_some());
        return Err(response.error_code);
    }
    let line = |of: &kafka_protocol::messages::describe_client_quotas_response::EntryData| {
        let parts = of.entity.iter().map(|part| {
            format!("{}={}", &*part.entity_type, part.entity_name.as_deref().unwrap_or("*"))
        });
        let values = of.values.iter().map(|value| format!("{}={}", &*value.key, value.value));
        parts.chain(values).collect::<Vec<_>>().join(" ")
    };
    Ok(response.entries.unwrap().iter().map(line).collect())
}

#[tokio::test]
async fn quotas_are_set_and_told() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    for version in 0..=1 {
        assert_eq!(describe(&mut client, version, &[], false).await, Ok(vec![]));
        let rates = [("producer_byte_rate", Some(1_024.0)), ("request_percentage", Some(12.5))];
        let ann: Entity = &[("user", Some("ann"))];
        assert_eq!(alter(&mut client, version, ann, &rates, true).await.0, 0);
        assert_eq!(describe(&mut client, version, &[], false).await, Ok(vec![]), "validated");
        assert_eq!(alter(&mut client, version, ann, &rates, false).await, (0, String::new()));
        let rate = [("consumer_byte_rate", Some(5.0))];
        for entity in [
            &[("client-id", Some("c")), ("user", Some("ann"))][..],
            &[("client-id", None), ("user", Some("ann"))],
            &[("client-id", Some("c"))],
            &[("user", None)],
        ] {
            assert_eq!(alter(&mut client, version, entity, &rate, false).await.0, 0);
        }
        let rate = [("connection_creation_rate", Some(7.0))];
        assert_eq!(alter(&mut client, version, &[("ip", Some("::1"))], &rate, false).await.0, 0);

        let (exact, others, any) = (0, 1, 2);
        let own = "user=ann producer_byte_rate=1024 request_percentage=12.5";
        let both = "client-id=c user=ann consumer_byte_rate=5";
        let all = "client-id=* user=ann consumer_byte_rate=5";
        let client_own = "client-id=c consumer_byte_rate=5";
        let every_user = "user=* consumer_byte_rate=5";
        let address = "ip=::1 connection_creation_rate=7";
        let everything = [all, both, client_own, address, every_user, own];
        let mut check = async |components: &[_], is_strict, expected: Result<&[&str], i16>| {
            let found = describe(&mut client, version, components, is_strict).await;
            let mut found = found.map(|mut lines| {
                lines.sort();
                lines
            });
            let mut expected =
                expected.map(|lines| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>());
            if let Ok(lines) = &mut expected {
                lines.sort();
            }
            assert_eq!(found.as_mut(), expected.as_mut(), "{components:?} {is_strict}");
        };
        check(&[], false, Ok(&everything)).await;
        check(&[], true, Ok(&[])).await;
        check(&[("user", exact, Some("ann"))], false, Ok(&[all, both, own])).await;
        check(&[("user", exact, Some("ann"))], true, Ok(&[own])).await;
        check(&[("user", others, None)], true, Ok(&[every_user])).await;
        check(&[("user", any, None)], true, Ok(&[every_user, own])).await;
        let pair = [("user", exact, Some("ann")), ("client-id", any, None)];
        check(&pair, true, Ok(&[all, both])).await;
        check(&[("user", exact, Some("ann")), ("client-id", others, None)], true, Ok(&[all])).await;
        check(&[("ip", any, None)], false, Ok(&[address])).await;
        check(&[("client-id", exact, Some("d"))], false, Ok(&[])).await;
        check(&[("", any, None)], false, Err(42)).await;
        check(&[("group", any, None)], false, Err(35)).await;
        check(&[("user", 9, None)], false, Err(42)).await;
        check(&[("user", exact, None)], false, Err(42)).await;
        check(&[("user", any, Some("ann"))], false, Err(42)).await;
        check(&[("user", any, None), ("user", any, None)], false, Err(42)).await;
        check(&[("user", any, None), ("ip", any, None)], false, Err(42)).await;

        // One key goes, then all of them, and with them the entity.
        let gone = [("producer_byte_rate", None), ("consumer_byte_rate", None)];
        assert_eq!(alter(&mut client, version, ann, &gone, false).await.0, 0);
        let own = describe(&mut client, version, &[("user", exact, Some("ann"))], true).await;
        assert_eq!(own, Ok(vec!["user=ann request_percentage=12.5".to_owned()]));
        let keys = ["request_percentage", "consumer_byte_rate", "connection_creation_rate"];
        let all = keys.map(|key| (key, None));
        for entity in [
            ann,
            &[("client-id", Some("c")), ("user", Some("ann"))],
            &[("client-id", None), ("user", Some("ann"))],
            &[("client-id", Some("c"))],
            &[("user", None)],
            &[("ip", Some("::1"))],
        ] {
            assert_eq!(alter(&mut client, version, entity, &all, false).await.0, 0);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn what_kafka_refuses_is_refused() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    let rate = [("producer_byte_rate", Some(1.0))];
    let mut check = async |entity: Entity<'_>, changes: &[(&str, Option<f64>)], part: &str| {
        let (code, why) = alter(&mut client, 1, entity, changes, false).await;
        assert_eq!(code, 42, "{entity:?} {changes:?}");
        assert!(why.contains(part), "{why}");
    };
    check(&[], &rate, "empty client quota entity").await;
    check(&[("topic", Some("a"))], &rate, "entity type: topic").await;
    check(&[("user", Some(""))], &rate, "Empty user").await;
    check(&[("ip", None), ("user", None)], &rate, "neither").await;
    check(&[("ip", Some("10.0.0.1"))], &rate, "Invalid configuration key").await;
    check(&[("user", None)], &[("connection_creation_rate", Some(1.0))], "Invalid config").await;
    check(&[("user", None)], &[("retention.ms", Some(1.0))], "key retention.ms").await;
    check(&[("user", None)], &[("producer_byte_rate", Some(1.5))], "Long value").await;
    check(&[("user", None)], &[rate[0], rate[0]], "Duplicate quota key").await;
    let long = "é".repeat(100);
    check(&[("user", Some(&long)), ("client-id", Some("a"))], &rate, "512 bytes").await;
    let found = describe(&mut client, 1, &[], false).await;
    assert_eq!(found, Ok(vec![]), "nothing of it was stored");
    server.stop().await;
}

#[tokio::test]
async fn quotas_outlive_the_server() {
    let options = KafkaOptions { quota_window_ms: 1, quota_windows: 1, ..KafkaOptions::default() };
    let server = Server::start(options.clone()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    let rate = [("producer_byte_rate", Some(100_000.0))];
    assert_eq!(alter(&mut client, 1, &[("user", None)], &rate, false).await.0, 0);
    let server = server.restart(options).await;
    let mut client = server.client().await;
    let found = describe(&mut client, 1, &[], false).await;
    assert_eq!(found, Ok(vec!["user=* producer_byte_rate=100000".to_owned()]));
    let request = produce(9, "a", Uuid::nil(), &[(0, batch(&["x"; 10]))]);
    assert!(client.call(9, request).await.throttle_time_ms > 0);
    server.stop().await;
}

/// The windows hold a tenth of a second.
fn impatient() -> KafkaOptions {
    KafkaOptions { quota_window_ms: 50, quota_windows: 2, ..KafkaOptions::default() }
}

fn elapsed(clock: &RealClock) -> Duration {
    Duration::from_nanos(clock.monotonic_ns())
}

/// How long `bytes` take at least at `rate`, with what the windows let through.
fn at_least(bytes: usize, rate: f64) -> Duration {
    Duration::from_secs_f64((bytes as f64 / rate - 0.1).max(0.0))
}

#[tokio::test]
async fn producers_pause_and_the_rate_holds() {
    let server = Server::start(impatient()).await;
    let (mut admin, mut client) = (server.client().await, server.client().await);
    create(&server, "a", 1).await;
    let value = "x".repeat(20_000);
    let request = || produce(9, "a", Uuid::nil(), &[(0, batch(&[&value]))]);
    for _ in 0..10 {
        assert_eq!(client.call(9, request()).await.throttle_time_ms, 0, "without a quota");
    }
    let rate = 100_000.0;
    // The raw client calls itself so; the other one is let through.
    let entity: Entity = &[("client-id", Some("test"))];
    let done = alter(&mut admin, 1, entity, &[("producer_byte_rate", Some(rate))], false).await;
    assert_eq!(done.0, 0);
    let (clock, mut throttled) = (RealClock::new(), 0);
    const REQUESTS: usize = 8;
    // Sent without waiting: whoever does not listen is held back all the same.
    for _ in 0..REQUESTS {
        client.send(9, &request()).await;
    }
    for _ in 0..REQUESTS {
        let (_, answer) =
            client.receive::<kafka_protocol::messages::ProduceRequest>(9).await.unwrap();
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        throttled = throttled.max(answer.throttle_time_ms);
    }
    // What is owed for the last ones is paid before anything else is read.
    assert!(throttled > 0);
    client.call(9, request()).await;
    let elapsed = elapsed(&clock);
    assert!(elapsed >= at_least(REQUESTS * value.len(), rate), "{elapsed:?}");

    // Where the quota goes, so do the pauses, and what is owed.
    assert_eq!(alter(&mut admin, 1, entity, &[("producer_byte_rate", None)], false).await.0, 0);
    assert_eq!(client.call(9, request()).await.throttle_time_ms, 0);
    let labels = crate::metrics::QuotaLabels { quota: "producer_byte_rate" };
    assert!(server.metrics.throttles.get_or_create(&labels).get() > 0);
    assert!(server.metrics.throttled.get_or_create(&labels).get() > 0.0);
    server.stop().await;
}

/// A producer that asks for no answer is held back too.
#[tokio::test]
async fn who_asks_for_no_answer_is_held_back_too() {
    let server = Server::start(impatient()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    let rate = 100_000.0;
    let entity: Entity = &[("client-id", None)];
    let done = alter(&mut client, 1, entity, &[("producer_byte_rate", Some(rate))], false).await;
    assert_eq!(done.0, 0);
    let value = "x".repeat(50_000);
    let clock = RealClock::new();
    let mut request = produce(9, "a", Uuid::nil(), &[(0, batch(&[&value]))]);
    request.acks = 0;
    client.send(9, &request).await;
    // The next one may have begun beside it; the one behind that waits until
    // both are paid.
    request.acks = 1;
    for _ in 0..2 {
        assert!(client.call(9, request.clone()).await.throttle_time_ms > 0);
    }
    let elapsed = elapsed(&clock);
    assert!(elapsed >= at_least(2 * value.len(), rate), "{elapsed:?}");
    server.stop().await;
}

#[tokio::test]
async fn consumers_pause_and_the_rate_holds() {
    let server = Server::start(impatient()).await;
    let (mut admin, mut client) = (server.client().await, server.client().await);
    create(&server, "a", 1).await;
    let value = "x".repeat(30_000);
    for _ in 0..6 {
        client.call(9, produce(9, "a", Uuid::nil(), &[(0, batch(&[&value]))])).await;
    }
    let rate = 150_000.0;
    let entity: Entity = &[("user", Some("ANONYMOUS")), ("client-id", None)];
    let done = alter(&mut admin, 1, entity, &[("consumer_byte_rate", Some(rate))], false).await;
    assert_eq!(done.0, 0);
    let (clock, mut bytes, mut at, mut pauses) = (RealClock::new(), 0, 0, 0);
    while at < 6 {
        let mut request = fetch(12, "a", Uuid::nil(), &[(0, at)]);
        request.max_bytes = 40_000;
        let response = client.call(12, request).await;
        pauses += i32::from(response.throttle_time_ms > 0);
        bytes += found(&response)[0].records.as_ref().unwrap().len();
        at += 1;
    }
    // Appends are not held back by it.
    let appended = admin.call(9, produce(9, "a", Uuid::nil(), &[(0, batch(&["x"]))])).await;
    assert_eq!(appended.throttle_time_ms, 0);
    client.call(12, fetch(12, "a", Uuid::nil(), &[(0, 6)])).await;
    assert!(pauses > 0);
    let elapsed = elapsed(&clock);
    assert!(elapsed >= at_least(bytes, rate), "{elapsed:?}");
    server.stop().await;
}

/// A client that has to pause for long does not keep the server from stopping,
/// and gives the answers that are under way.
#[tokio::test]
async fn a_pause_has_an_end_and_a_stop_does_not_wait_for_it() {
    let options = KafkaOptions { quota_throttle_ms_max: 300_000, ..impatient() };
    let server = Server::start(options).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    let entity: Entity = &[("user", None)];
    let done = alter(&mut client, 1, entity, &[("producer_byte_rate", Some(1.0))], false).await;
    assert_eq!(done.0, 0);
    let request = produce(9, "a", Uuid::nil(), &[(0, batch(&["x"; 10]))]);
    let answer = client.call(9, request.clone()).await;
    assert_eq!(answer.throttle_time_ms, 30_000, "as long as it may be");
    client.send(9, &request).await;
    let clock = RealClock::new();
    server.stop().await;
    let elapsed = elapsed(&clock);
    assert!(elapsed < Duration::from_secs(20), "{elapsed:?}");
    assert!(client.stream.read_u8().await.is_err());
}

//! `DescribeConfigs`, `AlterConfigs` and `IncrementalAlterConfigs` over a socket.

use std::collections::BTreeMap;

use aquifer_stream::StreamUpdate;
use aquifer_types::{
    CleanupPolicy, StreamConfig, StreamConfigChange, StreamName, StreamPath, TenantName,
};
use kafka_protocol::messages::alter_configs_request::{
    AlterConfigsResource, AlterableConfig as Replacing,
};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource as IncrementalResource, AlterableConfig,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::client::{Client, Server};
use super::metadata::create;
use crate::KafkaOptions;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

async fn describe(
    client: &mut Client,
    version: i16,
    (kind, name): (i8, &str),
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(version >= 3);
    let mut results = client.call(version, request).await.results;
    assert_eq!(results.len(), 1);
    results.remove(0)
}

fn by_name(result: &DescribeConfigsResult) -> BTreeMap<&str, &DescribeConfigsResourceResult> {
    result.configs.iter().map(|config| (&*config.name, config)).collect()
}

fn stream_config(server: &Server, name: &str) -> StreamConfig {
    let path = StreamPath::new(TenantName::default_tenant(), StreamName::new(name).unwrap());
    (*server.store.stream_shape(&path).unwrap().config).clone()
}

#[tokio::test]
async fn every_version_describes_topics_and_the_broker() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    for version in 1..=4 {
        let found = describe(&mut client, version, (TOPIC, "a"), None).await;
        assert_eq!((found.error_code, &*found.resource_name), (0, "a"), "{version}");
        let configs = by_name(&found);
        let retention = configs["retention.ms"];
        assert_eq!(retention.value.as_deref(), Some("604800000"));
        assert_eq!((retention.config_source, retention.is_sensitive), (5, false));
        assert_eq!(&*retention.synonyms[0].name, "log.retention.ms");
        assert!(configs["min.insync.replicas"].read_only);
        if version >= 3 {
            assert_eq!(retention.config_type, 5);
            assert!(retention.documentation.as_ref().unwrap().contains("deleted"));
        }
        let keys = ["cleanup.policy", "no.such.setting"];
        let found = describe(&mut client, version, (TOPIC, "a"), Some(&keys)).await;
        assert_eq!(by_name(&found).keys().collect::<Vec<_>>(), [&"cleanup.policy"]);
        let found = describe(&mut client, version, (TOPIC, "a"), Some(&[])).await;
        assert_eq!(found.configs.len(), configs.len(), "no keys are all of them");

        let found = describe(&mut client, version, (BROKER, "1"), None).await;
        let configs = by_name(&found);
        let value = |name: &str| configs[name].value.as_deref().unwrap().to_owned();
        assert_eq!(value("auto.create.topics.enable"), "true");
        assert_eq!(value("num.partitions"), "1");
        assert_eq!(value("log.retention.ms"), "604800000");
        assert_eq!(value("message.max.bytes"), "1048576");
        assert_eq!(value("default.replication.factor"), "1");
        assert_eq!(value("advertised.listeners"), format!("PLAINTEXT://{}", server.address()));
        assert_eq!(configs.len(), found.configs.len(), "no name is there twice");
        assert!(found.configs.iter().all(|config| config.read_only));

        let check = async |client: &mut Client, resource, code| {
            let found = describe(client, version, resource, None).await;
            assert_eq!((found.error_code, found.configs.len()), (code, 0), "{resource:?}");
        };
        check(&mut client, (TOPIC, "absent"), 3).await;
        check(&mut client, (TOPIC, "a b"), 17).await;
        check(&mut client, (BROKER, ""), 0).await;
        check(&mut client, (BROKER, "2"), 42).await;
        check(&mut client, (99, "a"), 42).await;
    }
    server.stop().await;
}

/// Operations in Kafka's numbers: 0 set, 1 delete, 2 append, 3 subtract.
async fn incremental(
    client: &mut Client,
    version: i16,
    resource: (i8, &str),
    changes: &[(&str, i8, Option<&str>)],
    validate_only: bool,
) -> (i16, String) {
    let configs = changes.iter().map(|(name, operation, value)| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    });
    let resource = IncrementalResource::default()
        .with_resource_type(resource.0)
        .with_resource_name(text(resource.1))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(vec![resource])
        .with_validate_only(validate_only);
    let responses = client.call(version, request).await.responses;
    assert_eq!(responses.len(), 1);
    let message = responses[0].error_message.as_deref().unwrap_or_default();
    (responses[0].error_code, message.to_owned())
}

#[tokio::test]
async fn settings_are_changed_one_by_one() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    for version in 0..=1 {
        let name = format!("t{version}");
        create(&server, &name, 1).await;
        let resource = (TOPIC, name.as_str());
        let set = [
            ("retention.ms", 0, Some("-1")),
            ("cleanup.policy", 2, Some("compact")),
            ("min.cleanable.dirty.ratio", 0, Some("0.1")),
            ("flush.ms", 0, Some("1000")),
        ];
        let done = incremental(&mut client, version, resource, &set, true).await;
        assert_eq!(done, (0, String::new()));
        assert_eq!(stream_config(&server, &name), StreamConfig::default(), "only validated");
        let done = incremental(&mut client, version, resource, &set, false).await;
        assert_eq!(done, (0, String::new()));
        let config = stream_config(&server, &name);
        assert_eq!(config.retention_ms, None);
        assert_eq!(config.cleanup_policy, CleanupPolicy::CompactDelete);
        assert_eq!(config.kafka["flush.ms"], "1000");

        let change = [("cleanup.policy", 3, Some("delete")), ("flush.ms", 1, None)];
        let done = incremental(&mut client, version, resource, &change, false).await;
        assert_eq!(done.0, 0);
        let found = describe(&mut client, 4, resource, None).await;
        let configs = by_name(&found);
        let told = |name: &str| {
            (configs[name].value.as_deref().unwrap().to_owned(), configs[name].config_source)
        };
        assert_eq!(told("cleanup.policy"), ("compact".to_owned(), 1));
        assert_eq!(told("retention.ms"), ("-1".to_owned(), 1));
        assert_eq!(told("min.cleanable.dirty.ratio"), ("0.1".to_owned(), 1));
        assert_eq!(told("flush.ms").1, 5);
        let synonyms = &configs["cleanup.policy"].synonyms;
        let synonyms: Vec<_> =
            synonyms.iter().map(|s| (&*s.name, s.value.as_deref(), s.source)).collect();
        assert_eq!(
            synonyms,
            [("cleanup.policy", Some("compact"), 1), ("log.cleanup.policy", Some("delete"), 5)]
        );

        let before = stream_config(&server, &name);
        for (resource, changes, code, part) in [
            (resource, [("no.such.setting", 0, Some("1"))], 40, "no.such.setting"),
            (resource, [("retention.ms", 0, Some("x"))], 40, "retention.ms"),
            (resource, [("retention.ms", 0, None)], 42, "retention.ms"),
            (resource, [("retention.ms", 2, Some("1"))], 40, "not a list"),
            (resource, [("cleanup.policy", 3, Some("compact"))], 40, "cleanup.policy"),
            (resource, [("retention.ms", 9, Some("1"))], 42, "operation 9"),
            ((TOPIC, "absent"), [("retention.ms", 0, Some("1"))], 3, ""),
            ((BROKER, "1"), [("num.partitions", 0, Some("3"))], 40, "server's configuration"),
            ((99, "1"), [("num.partitions", 0, Some("3"))], 42, "99"),
        ] {
            // What goes before a mistake does not stay.
            let changes = [("retention.bytes", 0, Some("77")), changes[0]];
            let done = incremental(&mut client, version, resource, &changes, false).await;
            assert_eq!(done.0, code, "{changes:?}: {}", done.1);
            assert!(done.1.contains(part), "{changes:?}: {}", done.1);
        }
        let twice = [("retention.bytes", 0, Some("77")), ("retention.bytes", 1, None)];
        assert_eq!(incremental(&mut client, version, resource, &twice, false).await.0, 42);
        assert_eq!(stream_config(&server, &name), before);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_through_two_doors_are_both_kept() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    let path = StreamPath::new(TenantName::default_tenant(), StreamName::new("a").unwrap());
    for round in 1_000..1_050_u64 {
        // As HTTP changes it: by fields.
        let kafka = [("flush.ms".to_owned(), round.to_string())].into();
        let change = StreamConfigChange {
            retention_bytes: Some(Some(round)),
            kafka: Some(kafka),
            ..StreamConfigChange::default()
        };
        let update = StreamUpdate { config: Some(change), partitions: None };
        let value = round.to_string();
        let changes = [("retention.ms", 0, Some(&*value)), ("cleanup.policy", 2, Some("compact"))];
        let (kafka, other) = tokio::join!(
            incremental(&mut client, 1, (TOPIC, "a"), &changes, false),
            server.store.update_stream(&path, update),
        );
        assert_eq!(kafka, (0, String::new()));
        other.unwrap();
        let expected = StreamConfig {
            retention_ms: Some(round),
            retention_bytes: Some(round),
            cleanup_policy: CleanupPolicy::CompactDelete,
            kafka: [("flush.ms".to_owned(), value)].into(),
            ..StreamConfig::default()
        };
        assert_eq!(stream_config(&server, "a"), expected);
    }
    server.stop().await;
}

#[tokio::test]
async fn settings_are_replaced_together() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    for version in 0..=2 {
        let name = format!("t{version}");
        create(&server, &name, 1).await;
        let alter = async |client: &mut Client, configs: &[(&str, Option<&str>)]| {
            let configs = configs.iter().map(|(name, value)| {
                Replacing::default().with_name(text(name)).with_value(value.map(text))
            });
            let resource = AlterConfigsResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(text(&name))
                .with_configs(configs.collect());
            let request = AlterConfigsRequest::default().with_resources(vec![resource]);
            let responses = client.call(version, request).await.responses;
            responses[0].error_code
        };
        let first = [("retention.ms", Some("5000")), ("compression.type", Some("gzip"))];
        assert_eq!(alter(&mut client, &first).await, 0);
        let expected = StreamConfig {
            retention_ms: Some(5_000),
            kafka: [("compression.type".to_owned(), "gzip".to_owned())].into(),
            ..StreamConfig::default()
        };
        assert_eq!(stream_config(&server, &name), expected);
        assert_eq!(alter(&mut client, &[("retention.ms", None)]).await, 42);
        assert_eq!(alter(&mut client, &[("retention.mss", Some("1"))]).await, 40);
        assert_eq!(stream_config(&server, &name), expected);
        assert_eq!(alter(&mut client, &[("segment.ms", Some("700"))]).await, 0);
        let expected = StreamConfig { chunk_max_age_ms: 700, ..StreamConfig::default() };
        assert_eq!(stream_config(&server, &name), expected);
    }
    // It is there after a restart.
    let server = server.restart(KafkaOptions::default()).await;
    assert_eq!(stream_config(&server, "t2").chunk_max_age_ms, 700);
    server.stop().await;
}

//! The settings of the broker that clients and tools look at. They are read
//! here and changed in the server's own configuration.

use aquifer_types::StreamConfig;

use super::{Form, Source, TopicSetting};
use crate::broker::{Broker, NODE_ID};

/// A setting's value on this server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BrokerSetting {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    pub(crate) value: String,
    pub(crate) source: Source,
    pub(crate) documentation: &'static str,
}

const OF_OPTIONS: &str = "Of the server's own configuration.";
const ALWAYS: &str = "It is always so here.";
const OF_TOPICS: &str = "What topics have that set nothing.";

/// Settings with one true value.
const ALWAYS_SO: &[(&str, Form, &str)] = &[
    ("authorizer.class.name", Form::String, ""),
    ("broker.rack", Form::String, ""),
    ("default.replication.factor", Form::Int, "1"),
    ("delete.topic.enable", Form::Boolean, "true"),
    ("group.consumer.assignors", Form::List, "uniform,range"),
    ("group.consumer.migration.policy", Form::String, "disabled"),
    ("group.coordinator.rebalance.protocols", Form::List, "classic,consumer"),
    ("log.cleaner.enable", Form::Boolean, "true"),
    ("offsets.topic.replication.factor", Form::Int, "1"),
    ("process.roles", Form::List, "broker,controller"),
    ("transaction.state.log.min.isr", Form::Int, "1"),
    ("transaction.state.log.replication.factor", Form::Int, "1"),
];

/// Every setting of the broker, by name; `listener` is the one through which it
/// was asked for.
pub(crate) fn broker_settings(broker: &Broker, listener: usize) -> Vec<BrokerSetting> {
    let options = &broker.options;
    let (host, port) = broker.advertised(listener);
    let protocol = broker.options.all_listeners().get(listener).map(|of| of.security);
    let protocol = protocol.unwrap_or_default().kafka_name();
    let listener = format!("{protocol}://{host}:{port}");
    let store = broker.store.options();
    let of_options = [
        ("advertised.listeners", Form::String, listener.clone()),
        ("auto.create.topics.enable", Form::Boolean, options.auto_create_topics.to_string()),
        ("broker.id", Form::Int, NODE_ID.to_string()),
        ("connections.max.idle.ms", Form::Long, options.idle_ms_max.to_string()),
        (
            "group.consumer.heartbeat.interval.ms",
            Form::Int,
            options.consumer_group_heartbeat_ms.to_string(),
        ),
        ("group.consumer.max.size", Form::Int, options.consumer_group_members_max.to_string()),
        (
            "group.consumer.session.timeout.ms",
            Form::Int,
            options.consumer_group_session_ms.to_string(),
        ),
        ("group.initial.rebalance.delay.ms", Form::Int, options.group_initial_delay_ms.to_string()),
        ("group.max.session.timeout.ms", Form::Int, options.group_session_ms_max.to_string()),
        ("group.max.size", Form::Int, options.group_members_max.to_string()),
        ("group.min.session.timeout.ms", Form::Int, options.group_session_ms_min.to_string()),
        ("listeners", Form::List, listener),
        ("log.dirs", Form::List, store.data.display().to_string()),
        ("max.connections", Form::Int, options.connections_max.to_string()),
        ("node.id", Form::Int, NODE_ID.to_string()),
        ("num.partitions", Form::Int, options.partitions_default.to_string()),
        ("quota.window.num", Form::Int, options.quota_windows.to_string()),
        (
            "quota.window.size.seconds",
            Form::Int,
            options.quota_window_ms.div_ceil(1_000).to_string(),
        ),
        ("socket.request.max.bytes", Form::Int, options.request_bytes_max.to_string()),
    ];
    let of_options = of_options.into_iter().map(|(name, form, value)| BrokerSetting {
        name,
        form,
        value,
        source: Source::Server,
        documentation: OF_OPTIONS,
    });
    let always = ALWAYS_SO.iter().map(|(name, form, value)| BrokerSetting {
        name,
        form: *form,
        value: (*value).to_owned(),
        source: Source::Default,
        documentation: ALWAYS,
    });
    let of_topics = super::TOPIC_SETTINGS.iter().filter_map(of_topic);
    let mut settings: Vec<BrokerSetting> = of_options.chain(always).chain(of_topics).collect();
    settings.sort_by_key(|setting| setting.name);
    settings
}

fn of_topic(setting: &TopicSetting) -> Option<BrokerSetting> {
    Some(BrokerSetting {
        name: setting.of_broker?,
        form: setting.form,
        value: setting.value(&StreamConfig::default()),
        source: Source::Default,
        documentation: OF_TOPICS,
    })
}

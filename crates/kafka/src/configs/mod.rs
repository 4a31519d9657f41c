//! Settings: what Kafka's tools see and change of streams and of the server.

mod alter;
mod broker_setting;
mod describe;
mod resources;
mod topic_setting;

pub(crate) use alter::{alter, configured, incremental_alter};
pub(crate) use describe::describe;
pub(crate) use resources::list;
pub(crate) use topic_setting::{TOPIC_SETTINGS, TopicSetting};

/// Where a setting's value comes from, in Kafka's numbers
/// (`DescribeConfigsResponse.ConfigSource`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Source {
    /// It was set for the topic.
    Topic = 1,
    /// It comes from the server's own configuration.
    Server = 4,
    /// It is what everybody has who sets nothing.
    Default = 5,
}

/// The form of a setting's value, in Kafka's numbers
/// (`DescribeConfigsResponse.ConfigType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Form {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// Kinds of resources that have settings, in Kafka's numbers
/// (`ConfigResource.Type`).
pub(crate) const RESOURCE_TOPIC: i8 = 2;
pub(crate) const RESOURCE_BROKER: i8 = 4;

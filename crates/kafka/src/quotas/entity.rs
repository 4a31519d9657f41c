//! Whom a quota is for, what it limits, and the document that keeps both.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What a part of an entity names, in Kafka's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EntityKind {
    ClientId,
    Ip,
    User,
}

/// What is limited, in Kafka's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Quota {
    /// Bytes of produce requests in a second.
    ProducerByteRate,
    /// Bytes of fetched records in a second.
    ConsumerByteRate,
    /// Of the time of the server's threads.
    RequestPercentage,
    /// Partitions created and deleted in a second.
    ControllerMutationRate,
    /// Connections that an address opens in a second.
    ConnectionCreationRate,
}

/// Whom quotas are for. A part without a name means everybody of that kind who
/// has no quota of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Entity(BTreeMap<EntityKind, Option<String>>);

/// The limits of one entity.
pub(crate) type Quotas = BTreeMap<Quota, f64>;

/// An entity's quotas as its document has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientQuota {
    pub(crate) entity: Entity,
    pub(crate) quotas: Quotas,
}

impl EntityKind {
    const ALL: [Self; 3] = [Self::ClientId, Self::Ip, Self::User];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ClientId => "client-id",
            Self::Ip => "ip",
            Self::User => "user",
        }
    }

    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl Quota {
    const ALL: [Self; 5] = [
        Self::ProducerByteRate,
        Self::ConsumerByteRate,
        Self::RequestPercentage,
        Self::ControllerMutationRate,
        Self::ConnectionCreationRate,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ProducerByteRate => "producer_byte_rate",
            Self::ConsumerByteRate => "consumer_byte_rate",
            Self::RequestPercentage => "request_percentage",
            Self::ControllerMutationRate => "controller_mutation_rate",
            Self::ConnectionCreationRate => "connection_creation_rate",
        }
    }

    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|quota| quota.as_str() == name)
    }

    /// Whether a limit is a whole number.
    const fn is_whole(self) -> bool {
        !matches!(self, Self::RequestPercentage | Self::ControllerMutationRate)
    }

    /// Checks a limit as Kafka does.
    pub(crate) fn check(self, limit: f64) -> Result<(), String> {
        if !limit.is_finite() {
            return Err(format!("Configuration {} must be a number", self.as_str()));
        }
        if self.is_whole() && (limit - limit.round()).abs() > 1e-6 {
            return Err(format!("Configuration {} must be a Long value", self.as_str()));
        }
        Ok(())
    }
}

impl Entity {
    /// The entity of these parts, each a kind and a name or none.
    pub(crate) fn of<'a>(
        parts: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Self, String> {
        let mut entity = Self::default();
        for (kind, name) in parts {
            let known = EntityKind::find(kind)
                .ok_or_else(|| format!("Unhandled client quota entity type: {}", brief(kind)))?;
            if name.is_some_and(str::is_empty) {
                return Err(format!("Empty {kind} not supported"));
            }
            if entity.0.insert(known, name.map(str::to_owned)).is_some() {
                return Err(format!("the entity has more than one {kind}"));
            }
        }
        if entity.0.is_empty() {
            return Err("Invalid empty client quota entity".to_owned());
        }
        if let Some(address) = entity.0.get(&EntityKind::Ip) {
            if entity.0.len() > 1 {
                return Err("an entity with an ip has neither user nor client-id".to_owned());
            }
            let is_address = |text: &String| text.parse::<IpAddr>().is_ok();
            if let Some(other) = address.as_ref().filter(|text| !is_address(text)) {
                return Err(format!("{} is not an IP address", brief(other)));
            }
        }
        Ok(entity)
    }

    /// Whether a quota means something for it.
    pub(crate) fn takes(&self, quota: Quota) -> bool {
        self.0.contains_key(&EntityKind::Ip) == (quota == Quota::ConnectionCreationRate)
    }

    /// The name of a part, which may be that of everybody else; none where the
    /// entity has no such part.
    pub(crate) fn part(&self, kind: EntityKind) -> Option<Option<&str>> {
        self.0.get(&kind).map(Option::as_deref)
    }

    pub(crate) fn parts(&self) -> impl ExactSizeIterator<Item = (EntityKind, Option<&str>)> {
        self.0.iter().map(|(kind, name)| (*kind, name.as_deref()))
    }

    /// The name of its document: no other entity's, and without characters that
    /// a document's name may not have.
    pub(crate) fn document_name(&self) -> String {
        let part = |(kind, name): (EntityKind, Option<&str>)| match name {
            Some(name) => format!("{}={}", kind.as_str(), escaped(name)),
            None => format!("{}=<default>", kind.as_str()),
        };
        self.parts().map(part).collect::<Vec<_>>().join("/")
    }
}

/// Everything but letters, digits and a few others as `%` and two digits.
fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~@:".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// As much of what a client sent as goes into a message.
fn brief(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(parts: &[(&str, Option<&str>)]) -> Result<Entity, String> {
        Entity::of(parts.iter().copied())
    }

    #[test]
    fn only_what_kafka_combines_is_an_entity() {
        let check = |parts: &[(&str, Option<&str>)], part: &str| match entity(parts) {
            Ok(_) => assert_eq!(part, "", "{parts:?}"),
            Err(why) => assert!(!part.is_empty() && why.contains(part), "{parts:?}: {why}"),
        };
        check(&[("user", Some("a"))], "");
        check(&[("client-id", None)], "");
        check(&[("user", None), ("client-id", Some("b"))], "");
        check(&[("ip", Some("10.0.0.1"))], "");
        check(&[("ip", Some("::1"))], "");
        check(&[("ip", None)], "");
        check(&[], "empty client quota entity");
        check(&[("group", Some("a"))], "Unhandled client quota entity type: group");
        check(&[("user", Some(""))], "Empty user");
        check(&[("user", None), ("user", Some("a"))], "more than one user");
        check(&[("ip", None), ("user", None)], "neither user nor client-id");
        check(&[("ip", Some("a host"))], "not an IP address");
    }

    #[test]
    fn no_two_entities_share_a_document() {
        let names = ["a", "b", "<default>", "%3C", "a/user=b", "ä", "a\u{7f}", "="];
        let mut seen = std::collections::BTreeSet::new();
        let all = names.map(Some).into_iter().chain([None]);
        for first in all.clone() {
            for second in all.clone() {
                let entity = entity(&[("user", first), ("client-id", second)]).unwrap();
                let name = entity.document_name();
                assert!(name.is_ascii() && !name.chars().any(char::is_control), "{name}");
                assert!(seen.insert(name));
            }
            assert!(seen.insert(entity(&[("user", first)]).unwrap().document_name()));
            assert!(seen.insert(entity(&[("client-id", first)]).unwrap().document_name()));
        }
    }

    #[test]
    fn limits_are_what_kafka_takes() {
        let check = |quota: Quota, limit: f64, is_taken| {
            assert_eq!(quota.check(limit).is_ok(), is_taken, "{quota:?} {limit}");
        };
        check(Quota::ProducerByteRate, 1_024.0, true);
        check(Quota::ProducerByteRate, 1_024.5, false);
        check(Quota::ConsumerByteRate, 0.0, true);
        check(Quota::ConsumerByteRate, f64::NAN, false);
        check(Quota::ConnectionCreationRate, 0.1, false);
        check(Quota::RequestPercentage, 12.5, true);
        check(Quota::RequestPercentage, f64::INFINITY, false);
        check(Quota::ControllerMutationRate, 0.5, true);
        for quota in Quota::ALL {
            assert_eq!(Quota::find(quota.as_str()), Some(quota));
        }
    }

    /// What is stored has to be read by later versions.
    #[test]
    fn a_document_is_written_as_it_always_was() {
        let text = r#"{"entity":{"client-id":null,"user":"ann"},"quotas":{"producer_byte_rate":1000.0,"request_percentage":12.5}}"#;
        let quota: ClientQuota = serde_json::from_str(text).unwrap();
        assert_eq!(quota.entity.document_name(), "client-id=<default>/user=ann");
        assert_eq!(serde_json::to_string(&quota).unwrap(), text);
    }
}

//! Names of tenants, streams, consumer groups, leases and transactional
//! producers, validated once.
//!
//! A stream's name follows Kafka's rule for topics, so that every stream can
//! be reached by every protocol and every name is a safe path segment.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty or too long.
    #[error("a {what} name has 1 to {max} characters, this one has {len}")]
    Length {
        /// What was named.
        what: &'static str,
        /// The longest allowed length in bytes.
        max: usize,
        /// The length given.
        len: usize,
    },
    /// A character is not allowed.
    #[error(
        "a {what} name may contain only {allowed}; '{name}' has {character:?} at position {position}"
    )]
    Character {
        /// What was named.
        what: &'static str,
        /// The characters that are allowed.
        allowed: &'static str,
        /// The offending name, shortened.
        name: String,
        /// The first offending character.
        character: char,
        /// Its position in characters, from 0.
        position: usize,
    },
    /// The name means something else.
    #[error("'{name}' cannot be a {what} name")]
    Reserved {
        /// What was named.
        what: &'static str,
        /// The offending name.
        name: String,
    },
}

fn check(
    what: &'static str,
    name: &str,
    max: usize,
    allowed: &'static str,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    if name.is_empty() || name.len() > max {
        return Err(NameError::Length { what, max, len: name.len() });
    }
    if let Some((position, character)) = name.chars().enumerate().find(|(_, c)| !is_allowed(*c)) {
        return Err(NameError::Character {
            what,
            allowed,
            name: name.chars().take(80).collect(),
            character,
            position,
        });
    }
    if name == "." || name == ".." {
        return Err(NameError::Reserved { what, name: name.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Validates a name.
            ///
            /// # Errors
            /// [`NameError`] says which rule the name breaks.
            pub fn new(name: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), NameError> = $check;
                check(name)?;
                Ok(Self(name.into()))
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// A tenant: 1 to 63 of `a`–`z`, `0`–`9` and `-`, beginning and ending with
    /// a letter or digit (a DNS label, so that it can be a host name, a
    /// database name and a Kubernetes namespace).
    TenantName,
    |name| {
        check("tenant", name, 63, "a-z, 0-9 and -", |c| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
        })?;
        if name.starts_with('-') || name.ends_with('-') {
            return Err(NameError::Reserved { what: "tenant", name: name.to_owned() });
        }
        Ok(())
    }
}

name! {
    /// A stream: 1 to 249 of `a`–`z`, `A`–`Z`, `0`–`9`, `.`, `_` and `-`, but not
    /// `.` or `..`: Kafka's rule for topics.
    StreamName,
    |name| check("stream", name, 249, "a-z, A-Z, 0-9, '.', '_' and '-'", |c| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
    })
}

name! {
    /// A consumer group: 1 to 249 characters that are not control characters,
    /// but not `.` or `..`: no URL can carry those as a segment of its path.
    GroupName,
    |name| check("group", name, 249, "printable characters", |c| !c.is_control())
}

name! {
    /// A lease: 1 to 249 characters that are not control characters.
    LeaseName,
    |name| check("lease", name, 249, "printable characters", |c| !c.is_control())
}

name! {
    /// The name under which a producer writes transactions: 1 to 249 characters
    /// that are not control characters.
    TransactionalId,
    |name| check("transactional", name, 249, "characters that are not control characters", |c| {
        !c.is_control()
    })
}

impl TenantName {
    /// The tenant of everything until access control names others.
    #[must_use]
    pub fn default_tenant() -> Self {
        Self("default".into())
    }
}

/// A stream's full name: its tenant and its name in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamPath {
    /// The tenant that owns the stream.
    pub tenant: TenantName,
    /// The stream's name within the tenant.
    pub name: StreamName,
}

impl StreamPath {
    /// The stream `name` of `tenant`.
    #[must_use]
    pub const fn new(tenant: TenantName, name: StreamName) -> Self {
        Self { tenant, name }
    }
}

impl fmt::Display for StreamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rules() {
        let long = "a".repeat(249);
        for good in ["a", "audit.k8s-1_x", "__consumer_offsets", "...", long.as_str()] {
            assert_eq!(StreamName::new(good).map(String::from).as_deref(), Ok(good));
        }
        let too_long = "a".repeat(250);
        for bad in ["", ".", "..", "a b", "ä", "a/b", "a\0", too_long.as_str()] {
            assert!(StreamName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["default", "a", "team-1"] {
            assert!(TenantName::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "..", "a/b"] {
            assert!(TenantName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["my group (1)", "a/b", "/", "../a"] {
            assert!(GroupName::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "a\tb", too_long.as_str()] {
            assert!(GroupName::new(bad).is_err(), "{bad:?}");
        }
        assert!(TransactionalId::new("sink/0-1 ü").is_ok());
        for bad in ["", "a\nb", too_long.as_str()] {
            assert!(TransactionalId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn errors_name_the_place() {
        let error = StreamName::new("orders!").map_err(|e| e.to_string());
        assert_eq!(
            error,
            Err("a stream name may contain only a-z, A-Z, 0-9, '.', '_' and '-'; 'orders!' has '!' at position 6".into())
        );
    }

    #[test]
    fn deserialising_validates() {
        assert!(serde_json::from_str::<StreamName>("\"a b\"").is_err());
        assert!(serde_json::from_str::<StreamName>("\"ab\"").is_ok());
    }
}

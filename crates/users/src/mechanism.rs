//! The ways in which a user can be proved.

use std::fmt;
use std::str::FromStr;

use ring::{digest, hmac, pbkdf2};
use serde::{Deserialize, Serialize};

/// A SASL mechanism (RFC 4422), under its registered name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Mechanism {
    /// Name and password as they are (RFC 4616).
    Plain,
    /// A challenge that shows nobody the password (RFC 5802, RFC 7677).
    Scram(ScramHash),
    /// A token that somebody else issued (RFC 7628).
    OauthBearer,
}

/// The hash that a SCRAM mechanism stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ScramHash {
    /// SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    Sha256,
    /// SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    Sha512,
}

impl Mechanism {
    /// All of them, the ones to be preferred first.
    pub const ALL: [Self; 4] = [
        Self::Scram(ScramHash::Sha512),
        Self::Scram(ScramHash::Sha256),
        Self::Plain,
        Self::OauthBearer,
    ];

    /// Its registered name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(hash) => hash.as_str(),
            Self::OauthBearer => "OAUTHBEARER",
        }
    }

    /// Whether whoever listens on the wire learns what proves the user.
    #[must_use]
    pub const fn shows_the_secret(self) -> bool {
        matches!(self, Self::Plain | Self::OauthBearer)
    }
}

impl ScramHash {
    /// Both, the stronger first.
    pub const ALL: [Self; 2] = [Self::Sha512, Self::Sha256];

    /// The registered name of its mechanism.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// Bytes of a hash.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    pub(crate) fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    pub(crate) fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    pub(crate) fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mechanism {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|of| of.as_str() == text);
        known.copied().ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|of| of.as_str()).collect();
            format!("{text} is not one of {}", names.join(", "))
        })
    }
}

impl TryFrom<String> for Mechanism {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mechanism> for String {
    fn from(mechanism: Mechanism) -> Self {
        mechanism.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_registered_ones() {
        for mechanism in Mechanism::ALL {
            assert_eq!(mechanism.as_str().parse(), Ok(mechanism));
        }
        assert!("scram-sha-256".parse::<Mechanism>().is_err());
        assert!("SCRAM-SHA-1".parse::<Mechanism>().is_err());
    }
}

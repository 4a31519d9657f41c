//! A user as it is kept.
//!
//! | field | meaning |
//! |---|---|
//! | `version` | 1 |
//! | `created` | when it was created, ms since 1970 |
//! | `scram` | by mechanism: `salt`, `stored_key`, `server_key` in base64, `iterations` |

use std::collections::BTreeMap;
use std::fmt;

use aquifer_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::mechanism::ScramHash;
use crate::{Error, Verifier};

const FORMAT_VERSION: u32 = 1;
const NAME_BYTES_MAX: usize = 256;

/// A user's name: 1 to 256 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(Box<str>);

impl UserName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::Name`] where it is not one.
    pub fn new(name: &str) -> Result<Self, Error> {
        let is_sound =
            (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
        if is_sound { Ok(Self(name.into())) } else { Err(Error::Name { max: NAME_BYTES_MAX }) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for UserName {
    type Error = Error;
    fn try_from(name: String) -> Result<Self, Error> {
        Self::new(&name)
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> Self {
        name.0.into()
    }
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: UserName,
    /// When it was created.
    pub created: Timestamp,
    /// What its logins are checked against.
    pub verifiers: BTreeMap<ScramHash, Verifier>,
}

/// The document of a user.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    created: i64,
    scram: BTreeMap<ScramHash, Verifier>,
}

impl User {
    pub(crate) fn to_document(&self) -> Result<String, Error> {
        let stored = Stored {
            version: FORMAT_VERSION,
            created: self.created.get(),
            scram: self.verifiers.clone(),
        };
        serde_json::to_string(&stored).map_err(|error| self.damaged(error.to_string()))
    }

    pub(crate) fn of_document(name: UserName, text: &str) -> Result<Self, Error> {
        // serde's own message could show a piece of the text.
        let damaged = |why: &str| Error::Damaged { name: name.to_string(), why: why.to_owned() };
        let stored: Stored = serde_json::from_str(text).map_err(|error| {
            damaged(&format!("line {}, column {}", error.line(), error.column()))
        })?;
        if stored.version != FORMAT_VERSION {
            return Err(damaged(&format!("version {} is not known", stored.version)));
        }
        for (hash, verifier) in &stored.scram {
            verifier.check(*hash).map_err(|error| damaged(&error.to_string()))?;
        }
        Ok(Self { name, created: Timestamp(stored.created), verifiers: stored.scram })
    }

    fn damaged(&self, why: String) -> Error {
        Error::Damaged { name: self.name.to_string(), why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Password;

    /// What version 1 wrote, and what has to be read for ever.
    const GOLDEN: &str = include_str!("../golden/user_v1.json");

    #[test]
    fn the_format_stays() {
        let password = Password::new("pencil").unwrap();
        let verifiers = ScramHash::ALL.map(|hash| {
            let salt = b"0123456789abcdef".to_vec();
            (hash, Verifier::derive(hash, &password, salt, 4096).unwrap())
        });
        let user = User {
            name: UserName::new("alice").unwrap(),
            created: Timestamp(1_700_000_000_000),
            verifiers: verifiers.into(),
        };
        let text = user.to_document().unwrap();
        assert_eq!(text, GOLDEN.trim_end());
        assert_eq!(User::of_document(user.name.clone(), &text).unwrap(), user);
    }

    #[test]
    fn damage_is_named_and_shows_nothing() {
        let name = UserName::new("alice").unwrap();
        let check = |text: &str, part: &str| {
            let why = User::of_document(name.clone(), text).unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
            assert!(!why.contains("MDEy"), "{why}");
        };
        check("", "column");
        check(&GOLDEN.replace("\"version\":1", "\"version\":2"), "version 2");
        check(&GOLDEN.replace("4096", "1"), "iterations");
        check(&GOLDEN.replace("MDEyMzQ1Njc4OWFiY2RlZg==", "MDEy%"), "column");
        check(&GOLDEN.replace("MDEyMzQ1Njc4OWFiY2RlZg==", ""), "size");
    }

    #[test]
    fn names_are_checked() {
        for good in ["alice", "a=b,c", "päul", "a b", &"x".repeat(256)] {
            assert_eq!(UserName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a\n", "a\0", &"x".repeat(257)] {
            assert!(UserName::new(bad).is_err(), "{bad:?}");
        }
    }
}

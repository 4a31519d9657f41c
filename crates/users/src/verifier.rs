//! What is kept of a password: enough to check a login, not to make one
//! (RFC 5802, section 3).
//!
//! ```text
//! SaltedPassword = PBKDF2(password, salt, iterations)
//! StoredKey      = H(HMAC(SaltedPassword, "Client Key"))
//! ServerKey      = HMAC(SaltedPassword, "Server Key")
//! ```

use std::fmt;
use std::num::NonZeroU32;

use ring::{digest, hmac, pbkdf2};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::mechanism::ScramHash;
use crate::{Error, Password};

/// The fewest iterations (RFC 7677).
pub const ITERATIONS_MIN: u32 = 4096;
/// The most: a login must not take seconds.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// Those of a user for whom none are named.
pub const ITERATIONS_DEFAULT: u32 = 8192;

/// The salt's size where it is made here, and the largest that is taken.
pub(crate) const SALT_BYTES: usize = 16;
const SALT_BYTES_MAX: usize = 256;

/// The verifier of one password for one hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verifier {
    #[serde(with = "in_base64")]
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: u32,
    #[serde(with = "in_base64")]
    pub(crate) stored_key: Vec<u8>,
    #[serde(with = "in_base64")]
    pub(crate) server_key: Vec<u8>,
}

impl Verifier {
    /// Derives a password's verifier; takes time in proportion to `iterations`.
    ///
    /// # Errors
    /// [`Error::Verifier`] where the salt or the iterations are out of bounds.
    pub fn derive(
        hash: ScramHash,
        password: &Password,
        salt: Vec<u8>,
        iterations: u32,
    ) -> Result<Self, Error> {
        let rounds = check_iterations(iterations)?;
        let salted = salted_password(hash, password, &salt, rounds);
        Self::of_salted_password(hash, &salted, salt, iterations)
    }

    /// The verifier of a password that a client has salted itself.
    ///
    /// # Errors
    /// [`Error::Verifier`] where a size or the iterations are out of bounds.
    pub fn of_salted_password(
        hash: ScramHash,
        salted: &[u8],
        salt: Vec<u8>,
        iterations: u32,
    ) -> Result<Self, Error> {
        check_iterations(iterations)?;
        if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
            return Err(Error::Verifier(format!("a salt has 1 to {SALT_BYTES_MAX} bytes")));
        }
        if salted.len() != hash.bytes() {
            return Err(Error::Verifier(format!(
                "a salted password of {} has {} bytes, not {}",
                hash.as_str(),
                hash.bytes(),
                salted.len()
            )));
        }
        let key = hmac::Key::new(hash.hmac(), salted);
        let client_key = hmac::sign(&key, b"Client Key");
        let server_key = hmac::sign(&key, b"Server Key");
        let stored_key = digest::digest(hash.digest(), client_key.as_ref());
        Ok(Self {
            salt,
            iterations,
            stored_key: stored_key.as_ref().to_vec(),
            server_key: server_key.as_ref().to_vec(),
        })
    }

    /// How often the password is hashed.
    #[must_use]
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Whether this is the password; takes as long as deriving it, whatever it
    /// is.
    #[must_use]
    pub fn matches(&self, hash: ScramHash, password: &Password) -> bool {
        match Self::derive(hash, password, self.salt.clone(), self.iterations) {
            Ok(derived) => bool::from(derived.stored_key.ct_eq(&self.stored_key)),
            Err(_) => false,
        }
    }

    /// What was read back is as it can have been written.
    pub(crate) fn check(&self, hash: ScramHash) -> Result<(), Error> {
        check_iterations(self.iterations)?;
        let is_sound = (1..=SALT_BYTES_MAX).contains(&self.salt.len())
            && self.stored_key.len() == hash.bytes()
            && self.server_key.len() == hash.bytes();
        if is_sound {
            return Ok(());
        }
        Err(Error::Verifier(format!("a key or salt of {} has a wrong size", hash.as_str())))
    }
}

// A stolen verifier can be attacked offline: it stays out of logs.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({} iterations)", self.iterations)
    }
}

fn check_iterations(iterations: u32) -> Result<NonZeroU32, Error> {
    match NonZeroU32::new(iterations) {
        Some(rounds) if (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) => Ok(rounds),
        _ => Err(Error::Verifier(format!(
            "{iterations} iterations are not between {ITERATIONS_MIN} and {ITERATIONS_MAX}"
        ))),
    }
}

fn salted_password(
    hash: ScramHash,
    password: &Password,
    salt: &[u8],
    iterations: NonZeroU32,
) -> Zeroizing<Vec<u8>> {
    let mut salted = Zeroizing::new(vec![0; hash.bytes()]);
    pbkdf2::derive(hash.pbkdf2(), iterations, salt, password.as_bytes(), &mut salted);
    salted
}

/// Bytes in JSON.
mod in_base64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(|_| D::Error::custom("it is not base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_its_own_verifier_only() {
        for hash in ScramHash::ALL {
            let password = Password::new("pencil").unwrap();
            let verifier = Verifier::derive(hash, &password, b"salt".to_vec(), 4096).unwrap();
            verifier.check(hash).unwrap();
            assert!(verifier.matches(hash, &password));
            assert!(!verifier.matches(hash, &Password::new("pencil ").unwrap()));
            let shown = format!("{verifier:?}");
            assert_eq!(shown, "Verifier(4096 iterations)");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let password = Password::new("pencil").unwrap();
        let check = |salt: usize, iterations, part: &str| {
            let why = Verifier::derive(ScramHash::Sha256, &password, vec![1; salt], iterations)
                .unwrap_err()
                .to_string();
            assert!(why.contains(part), "{why}");
        };
        check(16, 4095, "iterations");
        check(16, 0, "iterations");
        check(16, 1_000_001, "iterations");
        check(0, 4096, "salt");
        check(257, 4096, "salt");
        let short = Verifier::of_salted_password(ScramHash::Sha512, &[0; 32], vec![1], 4096);
        assert!(short.unwrap_err().to_string().contains("64 bytes"));
    }
}

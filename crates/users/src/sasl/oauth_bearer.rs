//! OAUTHBEARER (RFC 7628): a header, then `name=value` pairs between 0x01.
//!
//! Whether a token holds is a [`TokenValidator`]'s to say; without one the
//! mechanism is not offered.

use std::fmt;

use futures::future::BoxFuture;
use zeroize::Zeroizing;

use super::attributes::gs2_header;
use super::{SaslError, TOKEN_BYTES_MAX};
use crate::UserName;

const SEPARATOR: char = '\x01';

/// A login by token; its first message.
pub struct OauthBearer {
    /// The token.
    pub token: Zeroizing<String>,
    /// Whom it asks to act for.
    pub authorization_id: Option<String>,
}

/// Whom a token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedToken {
    /// The user.
    pub user: UserName,
    /// When the token expires, ms since 1970; the login ends then.
    pub expires_ms: Option<i64>,
}

/// The token proves nobody; why, for the server's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the token is refused: {0}")]
pub struct TokenRefused(pub String);

/// Decides about tokens.
pub trait TokenValidator: fmt::Debug + Send + Sync + 'static {
    /// Whom `token` proves. Asked once a login.
    fn validate<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<ValidatedToken, TokenRefused>>;
}

impl fmt::Debug for OauthBearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OauthBearer(…)")
    }
}

impl OauthBearer {
    /// Reads the client's first message.
    ///
    /// # Errors
    /// [`SaslError`] where it is malformed or asks for channel binding.
    pub fn parse(message: &[u8]) -> Result<Self, SaslError> {
        if message.len() > TOKEN_BYTES_MAX {
            return Err(SaslError::Malformed("it is too long"));
        }
        let text = std::str::from_utf8(message).map_err(|_| SaslError::Malformed("not UTF-8"))?;
        let header = gs2_header(text)?;
        let pairs = header
            .message
            .strip_prefix(SEPARATOR)
            .and_then(|rest| rest.strip_suffix(SEPARATOR))
            .ok_or(SaslError::Malformed("the pairs"))?;
        let mut token = None;
        for pair in pairs.split_terminator(SEPARATOR) {
            let (name, value) = pair.split_once('=').ok_or(SaslError::Malformed("a pair"))?;
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
            if !is_name {
                return Err(SaslError::Malformed("a pair"));
            }
            if name == "auth" && token.replace(bearer(value)?).is_some() {
                return Err(SaslError::Malformed("there are two tokens"));
            }
        }
        let token = token.ok_or(SaslError::Malformed("there is no token"))?;
        Ok(Self { token, authorization_id: header.authorization_id })
    }
}

/// What a client is told about a token that is refused (RFC 7628, section
/// 3.2.2); it answers with one 0x01, and the login fails.
#[must_use]
pub const fn refusal() -> &'static str {
    "{\"status\":\"invalid_token\"}"
}

/// The token of `Bearer TOKEN` (RFC 6750; the scheme in any case).
fn bearer(value: &str) -> Result<Zeroizing<String>, SaslError> {
    let malformed = SaslError::Malformed("the token");
    let (scheme, token) = value.split_once(' ').ok_or(malformed.clone())?;
    let token = token.trim_matches(' ');
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.bytes().all(is_token) {
        return Ok(Zeroizing::new(token.to_owned()));
    }
    Err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_rfc_7628_writes_them() {
        let message = b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01\
                        auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";
        let login = OauthBearer::parse(message).unwrap();
        assert_eq!(login.token.as_str(), "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==");
        assert_eq!(login.authorization_id.as_deref(), Some("user@example.com"));
        assert_eq!(format!("{login:?}"), "OauthBearer(…)");
        assert!(OauthBearer::parse(b"n,,\x01auth=bearer abc\x01\x01").is_ok());
        for bad in [
            &b""[..],
            b"n,,",
            b"n,,\x01\x01",
            b"n,,\x01auth=Basic abc\x01\x01",
            b"n,,\x01auth=Bearer \x01\x01",
            b"n,,\x01auth=Bearer a b\x01\x01",
            b"n,,\x01auth=Bearer abc",
            b"n,,\x01auth=Bearer abc\x01auth=Bearer abc\x01\x01",
            b"n,,\x01auth\x01\x01",
            b"n,,\x01=x\x01auth=Bearer abc\x01\x01",
            b"p=x,,\x01auth=Bearer abc\x01\x01",
            b"n,,\x01auth=Bearer \xff\x01\x01",
        ] {
            assert!(OauthBearer::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}

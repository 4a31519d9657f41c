//! PLAIN (RFC 4616): `[authorization id] NUL user NUL password`.

use super::{MESSAGE_BYTES_MAX, SaslError};
use crate::{Password, UserName};

/// A login by PLAIN; its one message.
#[derive(Debug)]
pub struct Plain {
    /// Who it says it is.
    pub user: UserName,
    /// What is to prove it.
    pub password: Password,
}

impl Plain {
    /// Reads the message.
    ///
    /// # Errors
    /// [`SaslError`] where it is malformed or asks to act for another user.
    pub fn parse(message: &[u8]) -> Result<Self, SaslError> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(SaslError::Malformed("it is too long"));
        }
        let text = std::str::from_utf8(message).map_err(|_| SaslError::Malformed("not UTF-8"))?;
        let mut parts = text.split('\0');
        let (Some(authorization_id), Some(user), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SaslError::Malformed("it has not three parts"));
        };
        let malformed = |_| SaslError::Malformed("the user or the password");
        let plain = Self {
            user: UserName::new(user).map_err(malformed)?,
            password: Password::new(password).map_err(malformed)?,
        };
        if authorization_id.is_empty() || authorization_id == user {
            return Ok(plain);
        }
        Err(SaslError::ForAnother)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_three_parts() {
        let plain = Plain::parse(b"\0tim\0tanstaaftanstaaf").unwrap();
        assert_eq!(plain.user.as_str(), "tim");
        assert!(Plain::parse(b"tim\0tim\0tanstaaftanstaaf").is_ok());
        let check = |message: &[u8], error: SaslError| {
            let found = Plain::parse(message).unwrap_err();
            assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&error), "{found}");
        };
        check(b"Ursel\0Kurt\0xipj3plmq", SaslError::ForAnother);
        check(b"", SaslError::Malformed(""));
        check(b"tim\0pass", SaslError::Malformed(""));
        check(b"\0tim\0a\0b", SaslError::Malformed(""));
        check(b"\0\0pass", SaslError::Malformed(""));
        check(b"\0tim\0", SaslError::Malformed(""));
        check(b"\0tim\0\xff", SaslError::Malformed(""));
        check(&[b'a'; MESSAGE_BYTES_MAX + 1], SaslError::Malformed(""));
    }
}

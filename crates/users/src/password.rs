//! A password while it is looked at: wiped when dropped, never shown.

use std::fmt;

use zeroize::Zeroizing;

use crate::Error;

/// The longest password in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// A password.
///
/// Its bytes are hashed as they are: like Kafka's own clients, nothing here
/// normalises it (RFC 4013), so that the same keys are derived on both sides.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes a password over.
    ///
    /// # Errors
    /// [`Error::Password`] where it is empty, too long, or has control
    /// characters, such as the newline that an editor left.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = Zeroizing::new(text.into());
        let is_sound = !text.is_empty()
            && text.len() <= PASSWORD_BYTES_MAX
            && !text.chars().any(char::is_control);
        if is_sound { Ok(Self(text)) } else { Err(Error::Password { max: PASSWORD_BYTES_MAX }) }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_bounded_and_never_shown() {
        let password = Password::new("geheim").unwrap();
        assert_eq!(format!("{password:?}"), "Password(…)");
        for bad in [String::new(), "a\n".into(), "a\0b".into(), "x".repeat(1025)] {
            let why = Password::new(bad.clone()).unwrap_err().to_string();
            assert!(bad.is_empty() || !why.contains(&bad), "{why}");
        }
        assert!(Password::new("x".repeat(1024)).is_ok());
    }
}

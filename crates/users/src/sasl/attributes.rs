//! The `name=value` lists and the user names of RFC 5801 and RFC 5802.

use super::SaslError;

/// Splits `x=value` off the front of a list; the rest follows its comma.
pub(super) fn take<'a>(
    list: &mut Option<&'a str>,
    name: char,
    missing: &'static str,
) -> Result<&'a str, SaslError> {
    let text = list.ok_or(SaslError::Malformed(missing))?;
    let (attribute, rest) = match text.split_once(',') {
        Some((attribute, rest)) => (attribute, Some(rest)),
        None => (text, None),
    };
    let value = attribute
        .strip_prefix(name)
        .and_then(|value| value.strip_prefix('='))
        .ok_or(SaslError::Malformed(missing))?;
    *list = rest;
    Ok(value)
}

/// What stands between a GS2 header and its message: nobody's channel is bound,
/// and who acts for whom.
pub(super) struct Gs2Header<'a> {
    /// With its last comma.
    pub(super) text: &'a str,
    pub(super) authorization_id: Option<String>,
    pub(super) message: &'a str,
}

/// Reads a GS2 header (RFC 5801, section 4).
pub(super) fn gs2_header(text: &str) -> Result<Gs2Header<'_>, SaslError> {
    let malformed = SaslError::Malformed("the header");
    let (binding, rest) = text.split_once(',').ok_or(malformed.clone())?;
    match binding {
        // "y" is a client that could bind and believes that we cannot.
        "n" | "y" => {}
        other if other.starts_with("p=") => return Err(SaslError::Unsupported("channel binding")),
        _ => return Err(malformed),
    }
    let (authorization, message) = rest.split_once(',').ok_or(malformed.clone())?;
    let authorization_id = match authorization {
        "" => None,
        other => Some(user_name(other.strip_prefix("a=").ok_or(malformed)?)?),
    };
    let header = &text[..text.len() - message.len()];
    Ok(Gs2Header { text: header, authorization_id, message })
}

/// A name in which `,` and `=` are written `=2C` and `=3D`.
pub(super) fn user_name(escaped: &str) -> Result<String, SaslError> {
    let mut name = String::with_capacity(escaped.len());
    let mut pieces = escaped.split('=');
    name.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (character, rest) = if let Some(rest) = piece.strip_prefix("2C") {
            (',', rest)
        } else if let Some(rest) = piece.strip_prefix("3D") {
            ('=', rest)
        } else {
            return Err(SaslError::Malformed("the user name"));
        };
        name.push(character);
        name.push_str(rest);
    }
    if name.is_empty() { Err(SaslError::Malformed("the user name")) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unescaped() {
        assert_eq!(user_name("a=2Cb=3Dc").as_deref(), Ok("a,b=c"));
        assert_eq!(user_name("päul").as_deref(), Ok("päul"));
        for bad in ["", "a=", "a=2", "a=2c", "==3D", "a=41"] {
            assert!(user_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_end_where_they_end() {
        let header = gs2_header("n,a=x=2Cy,n=u,r=n").unwrap();
        assert_eq!(header.text, "n,a=x=2Cy,");
        assert_eq!(header.authorization_id.as_deref(), Some("x,y"));
        assert_eq!(header.message, "n=u,r=n");
        assert_eq!(gs2_header("y,,").unwrap().message, "");
        for bad in ["", "n", "n,", "x,,", "p=tls-exporter,,n=u", "n,b=x,n=u", "n,a=,"] {
            assert!(gs2_header(bad).is_err(), "{bad}");
        }
    }
}

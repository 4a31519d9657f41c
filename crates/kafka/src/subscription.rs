//! Which topics a member of protocol type `consumer` subscribes to, read from
//! what it says when it joins.

use std::collections::BTreeSet;

use bytes::Buf as _;

/// The topics of a `ConsumerProtocolSubscription` in any version: they stand in
/// front and never changed. None where the bytes are something else.
pub(crate) fn topics(mut metadata: &[u8]) -> Option<BTreeSet<String>> {
    let version = metadata.try_get_i16().ok()?;
    let count = usize::try_from(metadata.try_get_i32().ok()?).ok()?;
    // Each name takes two bytes at least.
    if version < 0 || count > metadata.remaining() / 2 {
        return None;
    }
    let mut topics = BTreeSet::new();
    for _ in 0..count {
        let length = usize::try_from(metadata.try_get_i16().ok()?).ok()?;
        let name = metadata.get(..length)?;
        topics.insert(std::str::from_utf8(name).ok()?.to_owned());
        metadata.advance(length);
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_from_any_version() {
        let check = |bytes: &[u8], expected: Option<&[&str]>| {
            let expected = expected.map(|of| of.iter().map(ToString::to_string).collect());
            assert_eq!(topics(bytes), expected, "{bytes:?}");
        };
        check(b"\0\0\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff", Some(&["a", "bc"]));
        check(b"\0\x03\0\0\0\0rest", Some(&[]));
        check(b"", None);
        check(b"\0\0\x7f\xff\xff\xff\0\x01a", None);
        check(b"\0\0\xff\xff\xff\xff", None);
        check(b"\0\0\0\0\0\x01\0\x09a", None);
        check(b"\0\0\0\0\0\x01\0\x01\xff", None);
    }
}

//! The fields of a JSON object: every scalar in it and its path, without a tree.
//!
//! A path is the keys down to the scalar, in lower case, with dots between;
//! elements of an array have the array's path. It is laxer than JSON where that
//! costs nothing: whatever a strict parser takes is walked as that would see it,
//! and what is no JSON is told, so that nothing is missed for it.
//!
//! Pure functions over bytes; what is allocated is bounded by the path.

use std::borrow::Cow;

use crate::tokens::escape;

/// The most keys in a path; fields further down have none.
pub const FIELD_DEPTH_MAX: usize = 8;
/// The most bytes of a path in lower case.
pub const FIELD_PATH_BYTES_MAX: usize = 256;
/// Objects and arrays within one another; what has more is taken for no JSON.
const NESTING_MAX: usize = 128;

/// A value that is neither object nor array.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar<'a> {
    /// A string as it stands between its quotes, escapes included.
    Text(&'a [u8]),
    Number(f64),
    /// `true`, `false` or `null`.
    Literal(&'a [u8]),
}

/// The path that a query names, as the index has it; `None` where such paths
/// are not in the index.
pub(crate) fn path_of_query(path: &str) -> Option<String> {
    let lower: String = path.chars().flat_map(char::to_lowercase).collect();
    let dots = lower.bytes().filter(|byte| *byte == b'.').count();
    let is_known = !lower.is_empty() && dots < FIELD_DEPTH_MAX;
    (is_known && lower.len() <= FIELD_PATH_BYTES_MAX).then_some(lower)
}

/// Whether `bytes` begin as a JSON object does.
pub(crate) fn is_object(bytes: &[u8]) -> bool {
    let mut rest = bytes.iter().filter(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    rest.next() == Some(&b'{')
}

/// Walks one object after the other.
#[derive(Debug, Default)]
pub(crate) struct Walker {
    path: String,
    /// Keys in the path.
    keys: usize,
    /// Keys below the last one that has a place in the path.
    hidden: usize,
}

impl Walker {
    /// Calls `each` with every scalar of the object in `bytes` that has a path.
    /// `None` where it is no JSON; then some were told and some were not.
    pub(crate) fn walk<'a>(
        &mut self,
        bytes: &'a [u8],
        mut each: impl FnMut(&str, Scalar<'a>),
    ) -> Option<()> {
        self.path.clear();
        (self.keys, self.hidden) = (0, 0);
        let start = behind_space(bytes, 0);
        self.value(bytes, start, 0, &mut each).map(|_| ())
    }

    /// Returns where the value at `at` ends.
    fn value<'a>(
        &mut self,
        bytes: &'a [u8],
        at: usize,
        nesting: usize,
        each: &mut impl FnMut(&str, Scalar<'a>),
    ) -> Option<usize> {
        let scalar = match bytes.get(at)? {
            b'{' => return self.object(bytes, at + 1, nesting + 1, each),
            b'[' => return self.array(bytes, at + 1, nesting + 1, each),
            b'"' => {
                let end = end_of_text(bytes, at + 1)?;
                (Scalar::Text(bytes.get(at + 1..end)?), end + 1)
            }
            b't' => literal(bytes, at, b"true")?,
            b'f' => literal(bytes, at, b"false")?,
            b'n' => literal(bytes, at, b"null")?,
            _ => {
                let is_part = |b: &u8| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let rest = bytes.get(at..)?;
                let length = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
                let text = std::str::from_utf8(rest.get(..length)?).ok()?;
                (Scalar::Number(text.parse().ok()?), at + length)
            }
        };
        if self.hidden == 0 && self.keys > 0 {
            each(&self.path, scalar.0);
        }
        Some(scalar.1)
    }

    fn object<'a>(
        &mut self,
        bytes: &'a [u8],
        at: usize,
        nesting: usize,
        each: &mut impl FnMut(&str, Scalar<'a>),
    ) -> Option<usize> {
        if nesting > NESTING_MAX {
            return None;
        }
        let mut at = behind_space(bytes, at);
        if bytes.get(at) == Some(&b'}') {
            return Some(at + 1);
        }
        loop {
            if bytes.get(at) != Some(&b'"') {
                return None;
            }
            let end = end_of_text(bytes, at + 1)?;
            let key = bytes.get(at + 1..end)?;
            at = behind_space(bytes, end + 1);
            if bytes.get(at) != Some(&b':') {
                return None;
            }
            let before = self.path.len();
            let has_place = self.enter(key);
            at = self.value(bytes, behind_space(bytes, at + 1), nesting, each)?;
            if has_place {
                self.path.truncate(before);
                self.keys -= 1;
            } else {
                self.hidden -= 1;
            }
            at = behind_space(bytes, at);
            match bytes.get(at)? {
                b',' => at = behind_space(bytes, at + 1),
                b'}' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    fn array<'a>(
        &mut self,
        bytes: &'a [u8],
        at: usize,
        nesting: usize,
        each: &mut impl FnMut(&str, Scalar<'a>),
    ) -> Option<usize> {
        if nesting > NESTING_MAX {
            return None;
        }
        let mut at = behind_space(bytes, at);
        if bytes.get(at) == Some(&b']') {
            return Some(at + 1);
        }
        loop {
            at = behind_space(bytes, self.value(bytes, at, nesting, each)?);
            match bytes.get(at)? {
                b',' => at = behind_space(bytes, at + 1),
                b']' => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// Goes down into a key; `false` where its fields have no path.
    fn enter(&mut self, key: &[u8]) -> bool {
        let before = self.path.len();
        // A key has no more bytes in the path than a few times its own.
        let is_short = key.len() <= FIELD_PATH_BYTES_MAX * 6;
        if self.hidden == 0 && self.keys < FIELD_DEPTH_MAX && is_short {
            if self.keys > 0 {
                self.path.push('.');
            }
            let plain = std::str::from_utf8(key).ok().filter(|key| !key.contains('\\'));
            match plain {
                Some(key) if key.is_ascii() => {
                    let start = self.path.len();
                    self.path.push_str(key);
                    self.path.get_mut(start..).into_iter().for_each(str::make_ascii_lowercase);
                }
                _ => {
                    let key = unescaped(key);
                    self.path.extend(key.chars().flat_map(char::to_lowercase));
                }
            }
            if self.path.len() <= FIELD_PATH_BYTES_MAX {
                self.keys += 1;
                return true;
            }
            self.path.truncate(before);
        }
        self.hidden += 1;
        false
    }
}

/// The text that stands between the quotes of a JSON string. Bytes that are not
/// UTF-8 are replaced, and a backslash that escapes nothing stays.
#[must_use]
pub fn unescaped(raw: &[u8]) -> Cow<'_, str> {
    if !raw.contains(&b'\\') {
        return String::from_utf8_lossy(raw);
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(byte) = raw.get(at) {
        if *byte != b'\\' {
            bytes.push(*byte);
            at += 1;
            continue;
        }
        let (character, length) = escape(raw.get(at..).unwrap_or_default());
        let mut utf8 = [0; 4];
        bytes.extend_from_slice(character.unwrap_or('\\').encode_utf8(&mut utf8).as_bytes());
        at += length;
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn behind_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Where the quote is that ends the string whose text begins at `at`.
fn end_of_text(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes.get(at) == Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

fn literal<'a>(bytes: &'a [u8], at: usize, text: &[u8]) -> Option<(Scalar<'a>, usize)> {
    let found = bytes.get(at..at + text.len()).filter(|found| *found == text)?;
    Some((Scalar::Literal(found), at + text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(bytes: &[u8]) -> (Vec<String>, bool) {
        let mut found = Vec::new();
        let walked = Walker::default().walk(bytes, |path, scalar| {
            found.push(match scalar {
                Scalar::Text(text) => format!("{path}={}", unescaped(text)),
                Scalar::Number(number) => format!("{path}#{number}"),
                Scalar::Literal(text) => format!("{path}!{}", String::from_utf8_lossy(text)),
            });
        });
        (found, walked.is_some())
    }

    #[test]
    fn every_scalar_has_its_path() {
        let check = |json: &str, expected: &[&str], is_json: bool| {
            let (found, walked) = fields(json.as_bytes());
            assert_eq!(
                (found.as_slice(), walked),
                (expected.map_strings().as_slice(), is_json),
                "{json}"
            );
        };
        check(r"{}", &[], true);
        check(
            r#" {"a":1,"B":{"c":"x","d":[1.5,{"e":null}]}} tail"#,
            &["a#1", "b.c=x", "b.d#1.5", "b.d.e!null"],
            true,
        );
        check(
            r#"{"a.b":true,"":{"x":false},"\u00c9\"":"q\"\n"}"#,
            &["a.b!true", ".x!false", "é\"=q\"\n"],
            true,
        );
        check(r#"{"a":-1e3,"a":[],"b":[[2]]}"#, &["a#-1000", "b#2"], true);
        check(r#"{"a":1,"b":tru}"#, &["a#1"], false);
        check(r#"{"a":1,"b":"x"#, &["a#1"], false);
        check(r#"{"a":1 "b":2}"#, &["a#1"], false);
        check(r#"{"a":.}"#, &[], false);
        check(r#"{"a":"\"#, &[], false);
        let deep = r#"{"a":"#.repeat(9) + "1" + &"}".repeat(9);
        check(&deep, &[], true);
        let deep = r#"{"a":"#.repeat(8) + "1" + &"}".repeat(8);
        check(&deep, &["a.a.a.a.a.a.a.a#1"], true);
        let long = format!(r#"{{"{}":{{"b":1}},"c":2}}"#, "k".repeat(257));
        check(&long, &["c#2"], true);
        check(&("[".repeat(200) + &"]".repeat(200)), &[], false);
    }

    trait Strings {
        fn map_strings(&self) -> Vec<String>;
    }

    impl Strings for &[&str] {
        fn map_strings(&self) -> Vec<String> {
            self.iter().map(|text| (*text).to_owned()).collect()
        }
    }

    #[test]
    fn paths_of_queries_are_those_of_the_index() {
        assert_eq!(path_of_query("User.Name").as_deref(), Some("user.name"));
        assert_eq!(path_of_query(""), None);
        assert_eq!(path_of_query("a.b.c.d.e.f.g.h").as_deref(), Some("a.b.c.d.e.f.g.h"));
        assert_eq!(path_of_query("a.b.c.d.e.f.g.h.i"), None);
        assert_eq!(path_of_query(&"x".repeat(257)), None);
    }

    #[test]
    fn fuzz_fields() {
        let samples = [br#"{"a":{"b":[1,2.5e3,"\u00e9",null,true]},"c":"\\"}"#.to_vec()];
        aquifer_testkit::fuzz("fields", 0.2, &samples, |bytes| {
            let _ = Walker::default().walk(bytes, |path, _| {
                assert!(path.len() <= FIELD_PATH_BYTES_MAX);
            });
        });
    }
}

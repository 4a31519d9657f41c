//! Walks the fields of a JSON object in the bytes of a record, without a tree.
//!
//! What was walked before a fault counts, what is behind it is not seen. Arrays
//! are looked through: their elements have the array's path. Levels deeper than
//! [`DEPTH_MAX`] are passed over.

use std::ops::Range;

use aquifer_chunk::unescaped;

/// The deepest level whose fields are seen.
const DEPTH_MAX: usize = 64;
/// Names behind a path of so many bytes are not seen.
const PATH_BYTES_MAX: usize = 4096;

/// What stands at a path. Ranges are those of the text, without quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A string as it stands, escapes and all.
    String(Range<usize>),
    /// What is written like a number; whether it is one is left open.
    Number(Range<usize>),
    True,
    False,
    Null,
    /// An object or array; its inside follows.
    Container,
}

/// Calls `each` with the path, names joined by dots, and value of every field,
/// until it answers false. Nothing, where the bytes do not begin as an object does.
pub(crate) fn walk(bytes: &[u8], mut each: impl FnMut(&str, Value) -> bool) {
    let mut walker = Walker { bytes, at: 0, path: String::new(), levels: Vec::new() };
    if walker.next_byte() != Some(b'{') {
        return;
    }
    // None: the bytes are not JSON from here on, or were walked to the end.
    let _ = walker.run(&mut each);
}

struct Level {
    is_object: bool,
    /// The length of the path without what this level's fields add.
    path_length: usize,
    /// The names in that path.
    names: usize,
}

struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
    path: String,
    levels: Vec<Level>,
}

impl Walker<'_> {
    fn run(&mut self, each: &mut impl FnMut(&str, Value) -> bool) -> Option<()> {
        self.value(each)?;
        while let Some(level) = self.levels.last() {
            let is_object = level.is_object;
            self.path.truncate(level.path_length);
            // A comma before the first element is let pass.
            let mut next = self.next_byte()?;
            if next == b',' {
                self.at += 1;
                next = self.next_byte()?;
            }
            if next == if is_object { b'}' } else { b']' } {
                self.at += 1;
                self.levels.pop();
                continue;
            }
            if is_object && !self.name()? {
                self.pass()?;
                continue;
            }
            self.value(each)?;
        }
        Some(())
    }

    /// Adds a field's name to the path and takes the colon; false where the path
    /// gets too long: no query has such a name.
    fn name(&mut self) -> Option<bool> {
        let raw = self.string()?;
        if self.levels.last().is_some_and(|level| level.names > 0) {
            self.path.push('.');
        }
        let raw = self.bytes.get(raw)?;
        let has_room = self.path.len() + raw.len() <= PATH_BYTES_MAX;
        if has_room {
            self.path.push_str(&unescaped(raw));
        }
        (self.next_byte()? == b':').then(|| self.at += 1)?;
        Some(has_room)
    }

    /// Passes over a value.
    fn pass(&mut self) -> Option<()> {
        match self.next_byte()? {
            b'{' | b'[' => self.skip(),
            b'"' => self.string().map(|_| ()),
            _ => self.scalar().map(|_| ()),
        }
    }

    fn value(&mut self, each: &mut impl FnMut(&str, Value) -> bool) -> Option<()> {
        let value = match self.next_byte()? {
            open @ (b'{' | b'[') => {
                if self.levels.len() >= DEPTH_MAX {
                    return self.skip();
                }
                self.at += 1;
                let is_object = open == b'{';
                let above = self.levels.last();
                let names = above.map_or(0, |above| above.names + usize::from(above.is_object));
                self.levels.push(Level { is_object, path_length: self.path.len(), names });
                Value::Container
            }
            b'"' => Value::String(self.string()?),
            _ => self.scalar()?,
        };
        each(&self.path, value).then_some(())
    }

    /// What is neither string, object nor array.
    fn scalar(&mut self) -> Option<Value> {
        let start = self.at;
        let rest = self.bytes.get(start..)?;
        let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        let length = rest.iter().position(is_end).unwrap_or(rest.len());
        self.at += length;
        match rest.get(..length)? {
            b"true" => Some(Value::True),
            b"false" => Some(Value::False),
            b"null" => Some(Value::Null),
            [b'-' | b'0'..=b'9', ..] => Some(Value::Number(start..start + length)),
            _ => None,
        }
    }

    /// Passes over an object or array, however deep it is.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.next_byte()? {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        self.at += 1;
                        return Some(());
                    }
                }
                b'"' => {
                    self.string()?;
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// The inside of a string that begins here.
    fn string(&mut self) -> Option<Range<usize>> {
        if self.next_byte()? != b'"' {
            return None;
        }
        let start = self.at + 1;
        let mut at = start;
        loop {
            at += memchr::memchr2(b'"', b'\\', self.bytes.get(at..)?)?;
            if *self.bytes.get(at)? == b'"' {
                self.at = at + 1;
                return Some(start..at);
            }
            at += 2;
        }
    }

    /// The next byte that is no white space.
    fn next_byte(&mut self) -> Option<u8> {
        let rest = self.bytes.get(self.at..)?;
        let skip = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))?;
        self.at += skip;
        rest.get(skip).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        walk(text.as_bytes(), |path, value| {
            let value = match value {
                Value::String(range) => format!("'{}'", unescaped(&text.as_bytes()[range])),
                Value::Number(range) => text[range].to_owned(),
                other => format!("{other:?}"),
            };
            found.push(format!("{path}={value}"));
            true
        });
        found
    }

    #[test]
    fn fields_are_walked() {
        let check = |text: &str, expected: &[&str]| assert_eq!(fields(text), expected, "{text}");
        check(r#"{}"#, &["=Container"]);
        check(
            r#" {"a":1,"b" : {"c":"x\ny","d":[true,null,{"e":-1.5e3}]}, "f.g":false}"#,
            &[
                "=Container",
                "a=1",
                "b=Container",
                "b.c='x\ny'",
                "b.d=Container",
                "b.d=True",
                "b.d=Null",
                "b.d=Container",
                "b.d.e=-1.5e3",
                "f.g=False",
            ],
        );
        check(r#"{"\u00e4":"\ud83d\ude00\"\q"}"#, &["=Container", "ä='😀\"\\q'"]);
        check(r#"{"a":"","":2}"#, &["=Container", "a=''", "=2"]);
        // What is behind a fault is not seen.
        check(r#"{"a":1,"b":"cut o"#, &["=Container", "a=1"]);
        check(r#"{"a":1 "b":2}"#, &["=Container", "a=1", "b=2"]);
        check(r#"{"a":what,"b":2}"#, &["=Container"]);
        check("plain", &[]);
        check("[1,2]", &[]);
        check(r#"[{"a":1}]"#, &[]);
        check(r#"{"":{"x":1}}"#, &["=Container", "=Container", ".x=1"]);
        check(r#"{"a":"ends in \"#, &["=Container"]);
    }

    #[test]
    fn fields_behind_long_names_are_passed_over() {
        let long = "x".repeat(PATH_BYTES_MAX);
        for value in ["1", "\"x\"", "{\"c\":[1,{\"d\":\"]}\"}]}", "[[1],\"}\"]", "null"] {
            let text = format!("{{\"a\":{{\"{long}\":{value}}},\"b\":1}}");
            assert_eq!(fields(&text), ["=Container", "a=Container", "b=1"], "{value}");
        }
        assert_eq!(fields(&format!("{{\"{long}\":what,\"b\":1}}")), ["=Container"]);
    }

    #[test]
    fn deep_levels_are_passed_over() {
        let deep =
            format!("{{\"a\":{}\"]{}\"{},\"b\":1}}", "[".repeat(1000), "x", "]".repeat(1000));
        let found = fields(&deep);
        assert_eq!(found.last().map(String::as_str), Some("b=1"));
        assert_eq!(found.len(), 1 + (DEPTH_MAX - 1) + 1);
        fields(&"{\"a\":".repeat(100_000));
    }

    #[test]
    fn fuzz_search_json() {
        let seeds = [br#"{"a":{"b":["\u00e4",1e5,null]},"c":"d"}"#.to_vec()];
        aquifer_testkit::fuzz("search_json", 0.2, &seeds, |bytes| {
            walk(bytes, |path, value| {
                assert!(path.len() <= 2 * PATH_BYTES_MAX + 3);
                if let Value::String(range) = value {
                    let _ = unescaped(&bytes[range]);
                }
                true
            });
        });
    }
}

//! JSON, read strictly (RFC 8259) and once, from the front to the back: no tree
//! and no allocation. Whoever reads asks for what may come next; `None` is
//! always "this is no JSON".
//!
//! The bytes are UTF-8 already. Objects and arrays lie within one another to a
//! bound, so that no input grows the stack.

use memchr::memchr;

/// Objects and arrays within one another; what has more is taken for no JSON.
pub(super) const NESTING_MAX: usize = 128;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// A place in a value.
#[derive(Debug)]
pub(super) struct Json<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// A string as it stands between its quotes; its escapes are sound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) raw: &'a [u8],
    pub(super) has_escapes: bool,
}

/// A number as it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    raw: &'a [u8],
    /// Without fraction and exponent.
    pub(super) is_whole: bool,
}

/// What is neither string, number, object nor array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Literal {
    True,
    False,
    Null,
}

impl<'a> Json<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next byte behind white space.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Goes behind `byte`, which comes next.
    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Whether nothing but white space is left.
    pub(super) fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// Goes to the next name of an object, from behind its `{` or behind a
    /// value in it. `false` where the object ended.
    #[inline]
    pub(super) fn next_name(&mut self, is_first: bool) -> Option<bool> {
        match (self.peek()?, is_first) {
            (b'}', _) => {
                self.at += 1;
                Some(false)
            }
            (b'"', true) => Some(true),
            (b',', false) => {
                self.at += 1;
                (self.peek()? == b'"').then_some(true)
            }
            _ => None,
        }
    }

    /// Goes behind the string that begins here, where it is `name` without an
    /// escape. The name has neither quote nor backslash.
    #[inline]
    pub(super) fn take_name(&mut self, name: &[u8]) -> bool {
        let start = self.at + 1;
        let end = start + name.len();
        let is_it = self.bytes.get(start..end) == Some(name) && self.bytes.get(end) == Some(&b'"');
        if is_it {
            self.at = end + 1;
        }
        is_it
    }

    /// The string that begins here.
    #[inline]
    pub(super) fn text(&mut self) -> Option<Text<'a>> {
        let start = self.at + 1;
        let mut at = start;
        let mut has_escapes = false;
        loop {
            at += plain_length(self.bytes.get(at..)?);
            match self.bytes.get(at)? {
                b'"' => {
                    self.at = at + 1;
                    return Some(Text { raw: self.bytes.get(start..at)?, has_escapes });
                }
                b'\\' => {
                    has_escapes = true;
                    at += escape_length(self.bytes.get(at..)?)?;
                }
                _ => return None,
            }
        }
    }

    /// The number that begins here.
    #[inline]
    pub(super) fn number(&mut self) -> Option<Number<'a>> {
        let start = self.at;
        let mut at = start;
        let mut is_whole = true;
        if self.bytes.get(at) == Some(&b'-') {
            at += 1;
        }
        match self.bytes.get(at)? {
            b'0' => at += 1,
            b'1'..=b'9' => at = self.behind_digits(at),
            _ => return None,
        }
        if self.bytes.get(at) == Some(&b'.') {
            is_whole = false;
            at = self.behind_some_digits(at + 1)?;
        }
        if matches!(self.bytes.get(at), Some(b'e' | b'E')) {
            is_whole = false;
            at += 1;
            if matches!(self.bytes.get(at), Some(b'+' | b'-')) {
                at += 1;
            }
            at = self.behind_some_digits(at)?;
        }
        self.at = at;
        Some(Number { raw: self.bytes.get(start..at)?, is_whole })
    }

    fn behind_digits(&self, mut at: usize) -> usize {
        while self.bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    }

    fn behind_some_digits(&self, at: usize) -> Option<usize> {
        let end = self.behind_digits(at);
        (end > at).then_some(end)
    }

    /// The `true`, `false` or `null` that begins here.
    #[inline]
    pub(super) fn literal(&mut self) -> Option<Literal> {
        let rest = self.bytes.get(self.at..)?;
        let (found, length) = match rest.first()? {
            b't' if rest.starts_with(b"true") => (Literal::True, 4),
            b'f' if rest.starts_with(b"false") => (Literal::False, 5),
            b'n' if rest.starts_with(b"null") => (Literal::Null, 4),
            _ => return None,
        };
        self.at += length;
        Some(found)
    }

    /// Goes behind the value that comes next, which lies in `nesting` others.
    pub(super) fn skip(&mut self, nesting: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.text().map(drop),
            b'{' => self.skip_object(nesting + 1),
            b'[' => self.skip_array(nesting + 1),
            b't' | b'f' | b'n' => self.literal().map(drop),
            _ => self.number().map(drop),
        }
    }

    fn skip_object(&mut self, nesting: usize) -> Option<()> {
        if nesting > NESTING_MAX {
            return None;
        }
        self.at += 1;
        let mut is_first = true;
        while self.next_name(is_first)? {
            is_first = false;
            self.text()?;
            self.expect(b':')?;
            self.skip(nesting)?;
        }
        Some(())
    }

    fn skip_array(&mut self, nesting: usize) -> Option<()> {
        if nesting > NESTING_MAX {
            return None;
        }
        self.at += 1;
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.skip(nesting)?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }
}

impl Text<'_> {
    /// Adds what the string stands for to `into`; `false` where it is no text,
    /// because one half of a pair of surrogates stands alone.
    pub(super) fn unescape(&self, into: &mut Vec<u8>) -> bool {
        let mut rest = self.raw;
        while let Some(at) = memchr(b'\\', rest) {
            let (plain, escape) = rest.split_at(at);
            into.extend_from_slice(plain);
            let Some((character, length)) = escaped(escape) else { return false };
            into.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            rest = escape.get(length..).unwrap_or_default();
        }
        into.extend_from_slice(rest);
        true
    }
}

impl Number<'_> {
    /// The whole number that is written here, where 64 bits hold it and it has
    /// no second spelling.
    pub(super) fn to_i64(self) -> Option<i64> {
        if !self.is_whole || self.raw == b"-0" {
            return None;
        }
        if self.raw.len() > 18 {
            return std::str::from_utf8(self.raw).ok()?.parse().ok();
        }
        let (is_negative, digits) = match self.raw.strip_prefix(b"-") {
            Some(digits) => (true, digits),
            None => (false, self.raw),
        };
        let whole = digits.iter().fold(0_i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        Some(if is_negative { -whole } else { whole })
    }

    /// The nearest that 64 bits of floating point hold, where that is finite; a
    /// whole number only where each one up to it has one of its own.
    pub(super) fn to_f64(self) -> Option<f64> {
        const WHOLE_MAX: i64 = 1 << 53;
        if self.is_whole && self.raw != b"-0" {
            let whole = self.to_i64()?;
            return (-WHOLE_MAX..=WHOLE_MAX).contains(&whole).then_some(whole as f64);
        }
        let number: f64 = std::str::from_utf8(self.raw).ok()?.parse().ok()?;
        number.is_finite().then_some(number)
    }
}

/// How many bytes at the front are neither quote, backslash nor control
/// character.
#[inline]
fn plain_length(bytes: &[u8]) -> usize {
    // The lowest byte that is less than `n`, and perhaps others above it.
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGHS;
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*word);
        let stops = below(word, 0x20)
            | below(word ^ (ONES * u64::from(b'"')), 1)
            | below(word ^ (ONES * u64::from(b'\\')), 1);
        if stops != 0 {
            return at + (stops.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len())
}

/// The length of the escape that begins here; what a `\u` stands for is not
/// looked at.
fn escape_length(bytes: &[u8]) -> Option<usize> {
    match bytes.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' => bytes.get(2..6)?.iter().all(u8::is_ascii_hexdigit).then_some(6),
        _ => None,
    }
}

/// What a sound escape stands for, and its length; `None` for half a pair.
fn escaped(bytes: &[u8]) -> Option<(char, usize)> {
    let plain = match bytes.get(1)? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = unit(bytes.get(2..6)?)?;
            if !(0xd800..0xdc00).contains(&first) {
                return Some((char::from_u32(first)?, 6));
            }
            let second = bytes.get(6..12)?.strip_prefix(br"\u")?;
            let second = unit(second).filter(|unit| (0xdc00..0xe000).contains(unit))?;
            let both = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return Some((char::from_u32(both)?, 12));
        }
        other => char::from(*other),
    };
    Some((plain, 2))
}

/// The number that four hexadecimal digits are.
fn unit(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_json_is_what_the_standard_says() {
        let check = |text: &str, is_json: bool| {
            let mut json = Json::new(text.as_bytes());
            let read = json.skip(0).is_some() && json.is_at_end();
            assert_eq!(read, is_json, "{text}");
            // Another reader says the same, but for halves of surrogates.
            if !text.contains(r"\ud") {
                let other = serde_json::from_str::<serde_json::Value>(text);
                assert_eq!(other.is_ok(), is_json, "{text}");
            }
        };
        for text in [
            " {\"a\" : [ 1 , -0.5e+3 , \"x\\u00e9\\n\" , { } , [ ] , null ] }\r\n\t",
            "0",
            "-0",
            "1E5",
            "true",
            r#""\ud800""#,
        ] {
            check(text, true);
        }
        for text in [
            "",
            "{",
            "{}}",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":1,}"#,
            r#"{"a":1 "b":2}"#,
            "{a:1}",
            "[1,]",
            "[1",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "nul",
            "truex",
            "\"\n\"",
            r#""\x""#,
            r#""\u12g4""#,
            r#""a"#,
            r#""\"#,
            "NaN",
            "'a'",
            "{} {}",
            "[1 2]",
            "{1:2}",
        ] {
            check(text, false);
        }
        check(&("[".repeat(127) + &"]".repeat(127)), true);
        let deep = "[".repeat(NESTING_MAX + 1) + &"]".repeat(NESTING_MAX + 1);
        assert!(Json::new(deep.as_bytes()).skip(0).is_none());
    }

    #[test]
    fn numbers_are_exact_or_none() {
        let check = |text: &str, whole: Option<i64>, number: Option<f64>| {
            let found = Json::new(text.as_bytes()).number().unwrap();
            assert_eq!((found.to_i64(), found.to_f64()), (whole, number), "{text}");
        };
        check("0", Some(0), Some(0.0));
        check("-7", Some(-7), Some(-7.0));
        check("-0", None, Some(-0.0));
        check("1.0", None, Some(1.0));
        check("1e3", None, Some(1000.0));
        check("999999999999999999", Some(999_999_999_999_999_999), None);
        check("9223372036854775807", Some(i64::MAX), None);
        check("-9223372036854775808", Some(i64::MIN), None);
        check("9223372036854775808", None, None);
        check("9007199254740992", Some(1 << 53), Some(9_007_199_254_740_992.0));
        check("9007199254740993", Some((1 << 53) + 1), None);
        check("1e999", None, None);
        check("1e-999", None, Some(0.0));
    }

    #[test]
    fn escapes_stand_for_their_characters() {
        let check = |raw: &str, expected: Option<&str>| {
            let quoted = format!("\"{raw}\"");
            let text = Json::new(quoted.as_bytes()).text().unwrap();
            let mut found = Vec::new();
            let is_text = text.unescape(&mut found);
            let found = is_text.then(|| String::from_utf8(found).unwrap());
            assert_eq!(found.as_deref(), expected, "{raw}");
        };
        check("plain é", Some("plain é"));
        check(r#"\"\\\/\b\f\n\r\t"#, Some("\"\\/\u{8}\u{c}\n\r\t"));
        check(r"\u00e9x\ud83d\ude00\u0000", Some("éx😀\0"));
        check(r"\ud83d", None);
        check(r"\ude00", None);
        check(r"\ud83dx\ude00", None);
        check(r"\ud83d\u0041", None);
    }
}

//! The tokeniser: what a word is, for the search index and for everything that
//! searches without it. There is one, so that both always agree.
//!
//! A token is a longest run of letters, digits and `_`, in lower case. What is a
//! letter or a digit, and its lower case, Unicode says, of each character by
//! itself (`ΑΣ` becomes `ασ`); nothing is normalised. A run of more than
//! [`TOKEN_BYTES_MAX`] bytes in lower case is cut into tokens of at most so many,
//! at characters. Bytes that are not UTF-8 separate tokens. So `10.0.0.1` is four
//! tokens, `user_id` is one, and a UUID is five.
//!
//! In bytes that begin as a JSON object or array of objects, arrays or strings
//! does (`{`, `[{`, `[[`, `["`, with JSON's white space before and between), JSON's
//! escapes stand for what they escape: `\n` separates, `\u00e9` is a letter. A
//! backslash that escapes nothing separates. Nothing is parsed, so a record that
//! was cut off has its words as well; and without a backslash in them the tokens
//! of JSON are those of its plain text.
//!
//! Pure functions over bytes; nothing is allocated.

use std::ops::Range;

/// The most bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 128;

/// The lower case of an ASCII letter, digit or `_`; 0 of what separates.
const PLAIN: [u8; 256] = plain();
/// What a byte needs a closer look for.
const CLOSER: u8 = 0xff;

const fn plain() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = if b.is_ascii_alphanumeric() || b == b'_' {
            b.to_ascii_lowercase()
        } else if b >= 0x80 || b == b'\\' {
            CLOSER
        } else {
            0
        };
        byte += 1;
    }
    table
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token<'a> {
    /// Its text in lower case: UTF-8, 1 to [`TOKEN_BYTES_MAX`] bytes.
    pub text: &'a [u8],
    /// Where it stands in what was tokenised, escapes included.
    pub range: Range<usize>,
}

/// Calls `each` with every token of a record's key, value, header key or header
/// value, in order.
pub fn tokens(bytes: &[u8], each: impl FnMut(Token<'_>)) {
    scan(bytes, looks_like_json(bytes), each);
}

/// Calls `each` with every token of what stands between the quotes of a string
/// in JSON. They are tokens of the JSON around it, too.
pub fn tokens_of_json_string(raw: &[u8], each: impl FnMut(Token<'_>)) {
    scan(raw, true, each);
}

/// The tokens of a text that somebody typed: nothing in it is an escape.
#[must_use]
pub fn tokens_of_text(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    scan(text.as_bytes(), false, |token| {
        found.push(String::from_utf8_lossy(token.text).into_owned());
    });
    found
}

/// Whether JSON's escapes count in `bytes`.
#[must_use]
pub fn looks_like_json(bytes: &[u8]) -> bool {
    let mut rest = bytes.iter().filter(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    match rest.next() {
        Some(b'{') => true,
        Some(b'[') => matches!(rest.next(), Some(b'{' | b'[' | b'"')),
        _ => false,
    }
}

/// Calls `each` with every token; `with_escapes`, a backslash begins an escape of
/// JSON.
pub(crate) fn scan(bytes: &[u8], with_escapes: bool, mut each: impl FnMut(Token<'_>)) {
    let mut run = Run::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match PLAIN[*byte as usize] {
            0 => {
                run.end(at, &mut each);
                at += 1;
            }
            CLOSER => {
                let (character, length) = closer(bytes.get(at..).unwrap_or_default(), with_escapes);
                match character.filter(|c| c.is_alphanumeric() || *c == '_') {
                    Some(character) => run.push(character, at, at + length, &mut each),
                    None => run.end(at, &mut each),
                }
                at += length;
            }
            lower => {
                if run.length == TOKEN_BYTES_MAX {
                    run.end(at, &mut each);
                }
                if run.length == 0 {
                    run.start = at;
                }
                run.buffer[run.length] = lower;
                run.length += 1;
                at += 1;
            }
        }
    }
    run.end(at, &mut each);
}

/// The token that is being read.
struct Run {
    buffer: [u8; TOKEN_BYTES_MAX],
    length: usize,
    start: usize,
}

impl Run {
    const fn new() -> Self {
        Self { buffer: [0; TOKEN_BYTES_MAX], length: 0, start: 0 }
    }

    /// Adds a character that stands at `start..end`.
    fn push(
        &mut self,
        character: char,
        start: usize,
        end: usize,
        each: &mut impl FnMut(Token<'_>),
    ) {
        debug_assert!(start < end);
        let lower = character.to_lowercase();
        let bytes: usize = lower.clone().map(char::len_utf8).sum();
        if self.length + bytes > TOKEN_BYTES_MAX {
            self.end(start, each);
        }
        if self.length == 0 {
            self.start = start;
        }
        for character in lower {
            let mut utf8 = [0; 4];
            let utf8 = character.encode_utf8(&mut utf8).as_bytes();
            if let Some(room) = self.buffer.get_mut(self.length..self.length + utf8.len()) {
                room.copy_from_slice(utf8);
                self.length += utf8.len();
            }
        }
    }

    fn end(&mut self, at: usize, each: &mut impl FnMut(Token<'_>)) {
        if self.length > 0 {
            each(Token { text: &self.buffer[..self.length], range: self.start..at });
            self.length = 0;
        }
    }
}

/// The character at the start of `rest`, which is not plain ASCII, and how many
/// bytes it takes; no character where they separate.
fn closer(rest: &[u8], with_escapes: bool) -> (Option<char>, usize) {
    match rest {
        [b'\\', ..] if with_escapes => escape(rest),
        [first, ..] => {
            let length = match first {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ => return (None, 1),
            };
            let text = rest.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
            text.and_then(|text| text.chars().next()).map_or((None, 1), |c| (Some(c), length))
        }
        [] => (None, 1),
    }
}

/// What an escape of JSON stands for, and its length.
pub(crate) fn escape(rest: &[u8]) -> (Option<char>, usize) {
    match rest {
        [_, b'u', ..] => {
            let Some(unit) = hex4(rest.get(2..6)) else { return (None, 1) };
            if let Some(character) = char::from_u32(unit) {
                return (Some(character), 6);
            }
            let low = match rest.get(6..8) {
                Some(b"\\u") => hex4(rest.get(8..12)),
                _ => None,
            };
            match (unit, low) {
                (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
                    let scalar = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                    (char::from_u32(scalar), 12)
                }
                _ => (Some(char::REPLACEMENT_CHARACTER), 6),
            }
        }
        [_, b'n', ..] => (Some('\n'), 2),
        [_, b't', ..] => (Some('\t'), 2),
        [_, b'r', ..] => (Some('\r'), 2),
        [_, b'b', ..] => (Some('\u{8}'), 2),
        [_, b'f', ..] => (Some('\u{c}'), 2),
        [_, escaped @ (b'"' | b'\\' | b'/'), ..] => (Some(char::from(*escaped)), 2),
        _ => (None, 1),
    }
}

fn hex4(digits: Option<&[u8]>) -> Option<u32> {
    let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Vec<(String, Range<usize>)> {
        let mut found = Vec::new();
        tokens(bytes, |token| {
            found.push((String::from_utf8(token.text.to_vec()).unwrap(), token.range));
        });
        found
    }

    #[test]
    fn what_a_token_is() {
        let check = |bytes: &[u8], expected: &[&str]| {
            let found: Vec<String> = all(bytes).into_iter().map(|(text, _)| text).collect();
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(bytes));
        };
        check(b"", &[]);
        check(b" .,-", &[]);
        check(b"GET /index.html 200", &["get", "index", "html", "200"]);
        check(b"user_id=Foo_9", &["user_id", "foo_9"]);
        check(b"10.0.0.1", &["10", "0", "0", "1"]);
        check("Größe ÉTÉ ΑΣ".as_bytes(), &["größe", "été", "ασ"]);
        check("日本語 text".as_bytes(), &["日本語", "text"]);
        check("a\u{2028}b".as_bytes(), &["a", "b"]);
        check(b"ab\xffcd\xc3", &["ab", "cd"]);
        check(b"a\xe2\x82b", &["a", "b"]);
        // Escapes count in what begins as JSON does, and nowhere else.
        check(br#"{"a":"x\ny"}"#, &["a", "x", "y"]);
        check(br"say x\ny", &["say", "x", "ny"]);
        check(br"[2024] C:\new", &["2024", "c", "new"]);
        check(br#" [ {"a\u00c9b":1}]"#, &["aéb", "1"].map(|t| t));
        check(br#"["\u0041\ud83d\ude00b\ud801\udc00"]"#, &["a", "b\u{10428}"]);
        check(br#"["\ud83dx\uzz\q"]"#, &["x", "uzz", "q"]);
        check(br#"{"v":-1.5e+3,"t":true}"#, &["v", "1", "5e", "3", "t", "true"]);
        check(br#"{"cut":"off\"#, &["cut", "off"]);
        check(br#"{"cut":"off\u00"#, &["cut", "off", "u00"]);
    }

    #[test]
    fn long_runs_are_cut_at_characters() {
        let check = |text: &str, lengths: &[usize]| {
            let found = all(text.as_bytes());
            let have: Vec<usize> = found.iter().map(|(text, _)| text.len()).collect();
            assert_eq!(have, lengths);
            let joined: String = found.iter().map(|(text, _)| text.as_str()).collect();
            assert_eq!(joined, text.to_lowercase());
            assert!(found.windows(2).all(|pair| pair[0].1.end == pair[1].1.start));
        };
        check(&"x".repeat(128), &[128]);
        check(&"x".repeat(129), &[128, 1]);
        check(&"x".repeat(300), &[128, 128, 44]);
        check(&format!("{}é", "x".repeat(127)), &[127, 2]);
        check(&"日".repeat(50), &[126, 24]);
    }

    #[test]
    fn ranges_lie_where_the_tokens_do() {
        let text = br#"{"name":"J\u00f6rg Z"}"#;
        let found = all(text);
        let expected = [("name", 2..6), ("jörg", 9..18), ("z", 19..20)];
        assert_eq!(found, expected.map(|(text, range)| (text.to_owned(), range)));
    }

    proptest! {
        #[test]
        fn tokens_are_sound(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut last = 0;
            tokens(&bytes, |token| {
                assert!(token.range.start >= last && token.range.end <= bytes.len());
                assert!((1..=TOKEN_BYTES_MAX).contains(&token.text.len()));
                assert!(std::str::from_utf8(token.text).is_ok());
                last = token.range.end;
            });
        }

        #[test]
        fn text_without_a_backslash_is_the_same_as_json(text in r#"[\[{" ]{0,3}[^\\]{0,60}"#) {
            let mut plain = Vec::new();
            scan(text.as_bytes(), false, |token| plain.push(token.text.to_vec()));
            let mut json = Vec::new();
            scan(text.as_bytes(), true, |token| json.push(token.text.to_vec()));
            prop_assert_eq!(&plain, &json);
        }

        #[test]
        fn a_token_is_a_token_of_itself(text in "\\PC{0,80}") {
            // Some lower cases have marks that are no letters.
            for token in tokens_of_text(&text).into_iter().filter(|t| t.chars().all(|c| c.is_alphanumeric() || c == '_')) {
                prop_assert_eq!(tokens_of_text(&token), vec![token.clone()]);
            }
        }
    }

    #[test]
    fn fuzz_tokens() {
        let samples =
            [br#"{"a":"\u00e9\ud83d\ude00 x"}"#.to_vec(), b"plain Text 10.0.0.1".to_vec()];
        aquifer_testkit::fuzz("tokens", 0.2, &samples, |bytes| {
            tokens(bytes, |token| assert!(!token.text.is_empty()));
        });
    }
}

//! Walks a query's text by characters.

use crate::SyntaxError;

/// A word, with what a backslash kept from being special.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// What stands between its wildcards, one more than there are of these.
    pub(crate) parts: Vec<String>,
    /// Whether it stood in quotes.
    pub(crate) is_quoted: bool,
}

impl Word {
    /// Its text; wildcards are stars again.
    pub(crate) fn text(&self) -> String {
        self.parts.join("*")
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.parts.as_slice(), [part] if part.is_empty())
    }

    /// Whether it is nothing but a wildcard.
    pub(crate) fn is_star(&self) -> bool {
        self.parts.len() == 2 && self.parts.iter().all(String::is_empty)
    }
}

/// Where the reading is.
#[derive(Debug, Clone)]
pub(crate) struct Lexer<'a> {
    rest: &'a str,
    /// Characters before `rest`.
    before: u64,
}

impl<'a> Lexer<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { rest: text, before: 0 }
    }

    /// The place of what comes next, in characters from 1.
    pub(crate) const fn position(&self) -> u64 {
        self.before + 1
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> SyntaxError {
        Self::error_at(self.position(), message)
    }

    pub(crate) fn error_at(position: u64, message: impl Into<String>) -> SyntaxError {
        SyntaxError { position, message: message.into() }
    }

    pub(crate) const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn sees(&self, text: &str) -> bool {
        self.rest.starts_with(text)
    }

    pub(crate) fn sees_space(&self) -> bool {
        self.rest.starts_with(char::is_whitespace)
    }

    pub(crate) fn skip_space(&mut self) {
        while self.sees_space() {
            self.next();
        }
    }

    pub(crate) fn take(&mut self, text: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(text) else { return false };
        self.rest = rest;
        self.before += text.chars().count() as u64;
        true
    }

    /// Whether a word in capitals comes next, as a word of its own.
    pub(crate) fn sees_keyword(&self, keyword: &str) -> bool {
        self.rest.strip_prefix(keyword).is_some_and(|rest| {
            rest.chars().next().is_none_or(|next| next.is_whitespace() || matches!(next, '(' | ')'))
        })
    }

    pub(crate) fn take_keyword(&mut self, keyword: &str) -> bool {
        let is_here = self.sees_keyword(keyword);
        if is_here {
            self.take(keyword);
            self.skip_space();
        }
        is_here
    }

    /// A sign that stands directly before what it is about.
    pub(crate) fn take_sign(&mut self, sign: char) -> bool {
        let mut next = self.rest.chars();
        if next.next() != Some(sign) {
            return false;
        }
        // Alone it is no sign; the caller finds that nothing can be searched.
        if next.next().is_none_or(|next| next.is_whitespace() || next == ')') {
            return false;
        }
        self.next();
        true
    }

    /// A field's name and the colon behind it, if that is what comes next.
    /// Nothing is taken where it is not.
    ///
    /// A name in quotes may be anything. Another one begins with a letter, `_`,
    /// `@` or `$`, so that `12:30` and `10.0.0.1:80` are texts; and `://` is no
    /// colon behind a name.
    pub(crate) fn take_name(&mut self) -> Result<Option<String>, SyntaxError> {
        let mut ahead = self.clone();
        let name = if ahead.sees("\"") {
            ahead.quoted()?.text()
        } else {
            if !ahead.rest.starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | '@' | '$'))
            {
                return Ok(None);
            }
            let word = ahead.word(":")?;
            let [name] = word.parts.as_slice() else { return Ok(None) };
            name.clone()
        };
        if name.is_empty() || ahead.sees("://") || !ahead.take(":") {
            return Ok(None);
        }
        *self = ahead;
        Ok(Some(name))
    }

    /// A word: up to a space, a parenthesis, a quote, or one of `ends`. A
    /// backslash takes what follows as it is.
    pub(crate) fn word(&mut self, ends: &str) -> Result<Word, SyntaxError> {
        let mut parts = vec![String::new()];
        let mut part = String::new();
        while let Some(next) = self.rest.chars().next() {
            match next {
                '\\' => part.push(self.escaped()?),
                '*' => {
                    self.next();
                    if let Some(last) = parts.last_mut() {
                        *last = std::mem::take(&mut part);
                    }
                    parts.push(String::new());
                }
                '(' | ')' | '"' => break,
                end if end.is_whitespace() || ends.contains(end) => break,
                other => {
                    self.next();
                    part.push(other);
                }
            }
        }
        if let Some(last) = parts.last_mut() {
            *last = part;
        }
        Ok(Word { parts, is_quoted: false })
    }

    /// What stands in quotes; the opening one comes next.
    pub(crate) fn quoted(&mut self) -> Result<Word, SyntaxError> {
        let open = self.position();
        self.take("\"");
        let mut text = String::new();
        while let Some(next) = self.rest.chars().next() {
            match next {
                '"' => {
                    self.next();
                    return Ok(Word { parts: vec![text], is_quoted: true });
                }
                '\\' => text.push(self.escaped()?),
                other => {
                    self.next();
                    text.push(other);
                }
            }
        }
        Err(Self::error_at(open, "this quote is not closed"))
    }

    fn escaped(&mut self) -> Result<char, SyntaxError> {
        let at = self.position();
        self.next();
        self.next().ok_or_else(|| Self::error_at(at, "there is nothing behind this backslash"))
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        self.before += 1;
        Some(next)
    }
}

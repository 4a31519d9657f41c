//! The text that is being typed, and the place of the cursor in it. Knows no
//! terminal.

/// A text with a cursor.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Line {
    text: String,
    /// A byte position between two letters.
    at: usize,
}

impl Line {
    /// A text with the cursor behind it.
    pub(super) fn of(text: &str) -> Self {
        Self { text: text.to_owned(), at: text.len() }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What is before the cursor.
    pub(super) fn before(&self) -> &str {
        self.text.get(..self.at).unwrap_or_default()
    }

    /// What is behind the cursor.
    pub(super) fn behind(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The cursor's place in bytes.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) fn insert(&mut self, letter: char) {
        self.text.insert(self.at, letter);
        self.at += letter.len_utf8();
    }

    /// Puts `text` in the place of what is between `from` and the cursor.
    pub(super) fn replace(&mut self, from: usize, text: &str) {
        let (Some(before), behind) = (self.text.get(..from), self.behind()) else { return };
        self.text = [before, text, behind].concat();
        self.at = from + text.len();
    }

    pub(super) fn left(&mut self) {
        self.at -= last_len(self.before());
    }

    pub(super) fn right(&mut self) {
        self.at += first_len(self.behind());
    }

    /// To the beginning of the line that the cursor is in.
    pub(super) fn home(&mut self) {
        self.at = self.before().rfind('\n').map_or(0, |end| end + 1);
    }

    /// To the end of the line that the cursor is in.
    pub(super) fn end(&mut self) {
        self.at += self.behind().find('\n').unwrap_or(self.behind().len());
    }

    /// Behind everything.
    pub(super) fn to_end(&mut self) {
        self.at = self.text.len();
    }

    pub(super) fn backspace(&mut self) {
        let from = self.at - last_len(self.before());
        self.replace(from, "");
    }

    pub(super) fn delete(&mut self) {
        let end = self.at + first_len(self.behind());
        self.text.replace_range(self.at..end, "");
    }

    /// Deletes to the end of the line that the cursor is in.
    pub(super) fn cut_behind(&mut self) {
        let end = self.at + self.behind().find('\n').unwrap_or(self.behind().len());
        self.text.replace_range(self.at..end, "");
    }

    /// Deletes to the beginning of the line that the cursor is in.
    pub(super) fn cut_before(&mut self) {
        let from = self.before().rfind('\n').map_or(0, |end| end + 1);
        self.replace(from, "");
    }

    /// Deletes the word before the cursor.
    pub(super) fn cut_word(&mut self) {
        let words = self.before().trim_end();
        let from = words.rfind(char::is_whitespace);
        let from =
            from.map_or(0, |space| space + first_len(words.get(space..).unwrap_or_default()));
        self.replace(from, "");
    }

    /// The cursor in the line above, or false in the first one.
    pub(super) fn up(&mut self) -> bool {
        let before = self.before();
        let Some(end) = before.rfind('\n') else { return false };
        let column = before.get(end + 1..).unwrap_or_default().chars().count();
        let above = before.get(..end).unwrap_or_default();
        let start = above.rfind('\n').map_or(0, |end| end + 1);
        self.at = place(above.get(start..).unwrap_or_default(), column) + start;
        true
    }

    /// The cursor in the line below, or false in the last one.
    pub(super) fn down(&mut self) -> bool {
        let Some(end) = self.behind().find('\n') else { return false };
        let before = self.before();
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let column = before.get(start..).unwrap_or_default().chars().count();
        let below = self.at + end + 1;
        let line = self.text.get(below..).unwrap_or_default().split('\n').next();
        self.at = below + place(line.unwrap_or_default(), column);
        true
    }
}

fn first_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

fn last_len(text: &str) -> usize {
    text.chars().next_back().map_or(0, char::len_utf8)
}

/// The byte position of a column of letters, or the end of a shorter line.
fn place(line: &str, column: usize) -> usize {
    line.char_indices().nth(column).map_or(line.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line written with `|` where the cursor is.
    fn line(text: &str) -> Line {
        let at = text.find('|').expect("a cursor");
        Line { text: text.replace('|', ""), at }
    }

    #[test]
    fn keys_change_text_and_cursor() {
        let check = |before: &str, key: &dyn Fn(&mut Line), after: &str| {
            let mut found = line(before);
            key(&mut found);
            assert_eq!(found, line(after), "{before}");
        };
        check("a|b", &|l| l.insert('ä'), "aä|b");
        check("aä|b", &|l| l.backspace(), "a|b");
        check("|b", &|l| l.backspace(), "|b");
        check("a|äb", &|l| l.delete(), "a|b");
        check("a|", &|l| l.delete(), "a|");
        check("ä|", &|l| l.left(), "|ä");
        check("|", &|l| l.left(), "|");
        check("|ä", &|l| l.right(), "ä|");
        check("ä|", &|l| l.right(), "ä|");
        check("a\nb|c\nd", &|l| l.home(), "a\n|bc\nd");
        check("a\nb|c\nd", &|l| l.end(), "a\nbc|\nd");
        check("a\nb|c\nd", &|l| l.to_end(), "a\nbc\nd|");
        check("a\nb|c\nd", &|l| l.cut_behind(), "a\nb|\nd");
        check("a\nbc|\nd", &|l| l.cut_before(), "a\n|\nd");
        check("select  a.b  |x", &|l| l.cut_word(), "select  |x");
        check("select|", &|l| l.cut_word(), "|");
        check("ab\nc|d", &|l| assert!(l.up()), "a|b\ncd");
        check("a\nbcd|", &|l| assert!(l.up()), "a|\nbcd");
        check("a|b", &|l| assert!(!l.up()), "a|b");
        check("ab|c\nd\ne", &|l| assert!(l.down()), "abc\nd|\ne");
        check("äö|\nüé", &|l| assert!(l.down()), "äö\nüé|");
        check("a|b", &|l| assert!(!l.down()), "a|b");
        check("select * fr|", &|l| l.replace(9, "from"), "select * from|");
    }
}

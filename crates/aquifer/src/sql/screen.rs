//! What the typed text looks like on a terminal, as the bytes that draw it.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar as _;

use super::cells::width;
use super::line::Line;

/// Before the first line, and before those that follow.
const PROMPT: &str = "aquifer> ";
const FOLLOWS: &str = "      -> ";

/// Draws a line again and again in the same place.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// The row of the cursor below the prompt's first.
    cursor_row: usize,
}

/// A place on the screen, from the first row and column of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    row: usize,
    column: usize,
}

impl Screen {
    /// The bytes that draw `line` in the place of what was drawn before, on a
    /// terminal of so many columns.
    pub(super) fn draw(&mut self, line: &Line, columns: usize) -> String {
        let columns = columns.max(width(PROMPT) + 2);
        let mut out = String::from("\r");
        if self.cursor_row > 0 {
            let _ = write!(out, "\x1b[{}A", self.cursor_row);
        }
        out.push_str("\x1b[J");
        out.push_str(PROMPT);
        for letter in line.text().chars() {
            match letter {
                '\n' => {
                    out.push_str("\r\n");
                    out.push_str(FOLLOWS);
                }
                letter if letter.is_control() => {}
                letter => out.push(letter),
            }
        }
        let end = place(line.text(), columns);
        let cursor = place(line.before(), columns);
        // A full row leaves the terminal's own cursor on it until more comes.
        if end.column == 0 {
            out.push_str("\r\n");
        }
        if end.row > cursor.row {
            let _ = write!(out, "\x1b[{}A", end.row - cursor.row);
        }
        out.push('\r');
        if cursor.column > 0 {
            let _ = write!(out, "\x1b[{}C", cursor.column);
        }
        self.cursor_row = cursor.row;
        out
    }

    /// The next line is drawn from where the cursor is then.
    pub(super) const fn forget(&mut self) {
        self.cursor_row = 0;
    }
}

/// Where the cursor is behind `text`.
fn place(text: &str, columns: usize) -> Place {
    let mut place = Place { row: 0, column: width(PROMPT) };
    for letter in text.chars() {
        if letter == '\n' {
            // A row that is just full was left already.
            place = Place { row: place.row + 1, column: width(FOLLOWS) };
            continue;
        }
        let wide = letter.width().unwrap_or(0);
        if place.column + wide > columns {
            place = Place { row: place.row + 1, column: 0 };
        }
        place.column += wide;
    }
    if place.column >= columns {
        place = Place { row: place.row + 1, column: 0 };
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_is_where_the_text_puts_it() {
        let check = |text: &str, columns, row, column| {
            assert_eq!(place(text, columns), Place { row, column }, "{text:?}");
        };
        check("", 80, 0, 9);
        check("abc", 80, 0, 12);
        check("a\nbc", 80, 1, 11);
        check("日本", 80, 0, 13);
        // Eleven letters fit behind the prompt.
        check(&"x".repeat(10), 20, 0, 19);
        check(&"x".repeat(11), 20, 1, 0);
        check(&"x".repeat(12), 20, 1, 1);
        // A wide letter that does not fit begins the next row.
        check(&format!("{}日", "x".repeat(10)), 20, 1, 2);
        check(&format!("{}\ny", "x".repeat(11)), 20, 1, 10);
    }

    #[test]
    fn a_line_is_drawn_over_the_one_before() {
        let mut screen = Screen::default();
        let mut line = Line::of("a\nb");
        assert_eq!(screen.draw(&line, 80), "\r\x1b[Jaquifer> a\r\n      -> b\r\x1b[10C");
        line.up();
        let drawn = screen.draw(&line, 80);
        assert_eq!(drawn, "\r\x1b[1A\x1b[Jaquifer> a\r\n      -> b\x1b[1A\r\x1b[10C");
        // What was pasted cannot move the cursor.
        assert!(!screen.draw(&Line::of("a\x1b[2J"), 80).contains("\x1b[2J"));
        screen.forget();
        assert!(screen.draw(&Line::default(), 80).starts_with("\r\x1b[J"));
    }
}

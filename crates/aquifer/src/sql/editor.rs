//! The prompt: keys become a text, with completion and earlier texts.

use std::io::Write as _;
use std::sync::Arc;

use console::{Key, Term};
use parking_lot::RwLock;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::cells::{printable, width};
use super::complete::Names;
use super::history::History;
use super::line::Line;
use super::screen::Screen;
use super::split;
use crate::failure::Failure;
use crate::output;

/// No longer text is typed.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// What was typed.
pub(super) enum Typed {
    /// A statement with its semicolon, or a command.
    Text(String),
    /// Ctrl-C: the text is given up.
    Interrupted,
    /// Ctrl-D.
    End,
}

/// Reads what is typed on a terminal.
pub(super) struct Prompt {
    terminal: Term,
    history: History,
    names: Arc<RwLock<Names>>,
}

/// A text on its way.
struct Typing {
    line: Line,
    screen: Screen,
    /// The earlier text that is shown, and what was typed before it was.
    earlier: Option<(usize, Line)>,
}

impl Prompt {
    pub(super) fn new(names: Arc<RwLock<Names>>) -> Self {
        Self { terminal: Term::stdout(), history: History::open(), names }
    }

    /// Waits for a text; blocks.
    pub(super) fn read(&mut self) -> Result<Typed, Failure> {
        let _quiet = Quiet::enter()?;
        let (line, screen) = (Line::default(), Screen::default());
        let mut typing = Typing { line, screen, earlier: None };
        loop {
            self.draw(&mut typing)?;
            match self.terminal.read_key_raw()? {
                Key::CtrlC => return self.leave(typing, "^C", Typed::Interrupted),
                Key::Char('\x04') if typing.line.is_empty() => {
                    return self.leave(typing, "", Typed::End);
                }
                Key::Enter if is_whole(typing.line.text()) => {
                    let text = typing.line.text().to_owned();
                    self.history.push(&text);
                    return self.leave(typing, "", Typed::Text(text));
                }
                Key::Tab => self.complete(&mut typing)?,
                Key::Char('\x0c') => {
                    output::write(b"\x1b[2J\x1b[H")?;
                    typing.screen.forget();
                }
                Key::ArrowUp | Key::Char('\x10') => self.older(&mut typing),
                Key::ArrowDown | Key::Char('\x0e') => self.newer(&mut typing),
                key => edit(&mut typing.line, key),
            }
        }
    }

    fn draw(&self, typing: &mut Typing) -> Result<(), Failure> {
        let (_, columns) = self.terminal.size();
        output::write(typing.screen.draw(&typing.line, columns.into()).as_bytes())
    }

    /// Goes to a row of its own behind the text.
    fn leave(&self, mut typing: Typing, mark: &str, typed: Typed) -> Result<Typed, Failure> {
        typing.line.to_end();
        self.draw(&mut typing)?;
        output::line(mark)?;
        Ok(typed)
    }

    fn older(&self, typing: &mut Typing) {
        if typing.earlier.is_none() && typing.line.up() {
            return;
        }
        let entries = self.history.entries();
        let (at, typed) = match typing.earlier.take() {
            Some((at, typed)) => (at, typed),
            None => (entries.len(), typing.line.clone()),
        };
        let at = at.saturating_sub(1);
        if let Some(text) = entries.get(at) {
            typing.line = Line::of(text);
            typing.earlier = Some((at, typed));
        }
    }

    fn newer(&self, typing: &mut Typing) {
        match typing.earlier.take() {
            Some((at, typed)) => match self.history.entries().get(at + 1) {
                Some(text) => {
                    typing.line = Line::of(text);
                    typing.earlier = Some((at + 1, typed));
                }
                None => typing.line = typed,
            },
            None => {
                typing.line.down();
            }
        }
    }

    /// Completes the word before the cursor as far as all candidates agree, and
    /// lists them where that is no further.
    fn complete(&self, typing: &mut Typing) -> Result<(), Failure> {
        let before = typing.line.before();
        if before.ends_with(|letter: char| letter.is_whitespace()) || before.is_empty() {
            // What is pasted may be indented.
            typing.line.insert(' ');
            return Ok(());
        }
        let (start, found) = self.names.read().complete(before, typing.line.at());
        let common = common_beginning(&found);
        let word = before.get(start..).unwrap_or_default();
        if common.len() > word.len() || (found.len() == 1 && common != word) {
            typing.line.replace(start, &common);
        } else if found.len() > 1 {
            let (_, columns) = self.terminal.size();
            let mut shown = typing.line.clone();
            shown.to_end();
            std::mem::swap(&mut shown, &mut typing.line);
            self.draw(typing)?;
            std::mem::swap(&mut shown, &mut typing.line);
            output::write(listed(&found, columns.into()).as_bytes())?;
            typing.screen.forget();
        }
        Ok(())
    }
}

/// Keys that change the text alone.
fn edit(line: &mut Line, key: Key) {
    match key {
        Key::Enter => line.insert('\n'),
        Key::Backspace => line.backspace(),
        Key::Del | Key::Char('\x04') => line.delete(),
        Key::ArrowLeft | Key::Char('\x02') => line.left(),
        Key::ArrowRight | Key::Char('\x06') => line.right(),
        Key::Home => line.home(),
        Key::End => line.end(),
        Key::Char('\x0b') => line.cut_behind(),
        Key::Char('\x15') => line.cut_before(),
        Key::Char('\x17') => line.cut_word(),
        Key::Char(letter) if !letter.is_control() && line.text().len() < TEXT_BYTES_MAX => {
            line.insert(letter);
        }
        _ => {}
    }
}

/// Whether Enter ends the text: a statement goes on with the next line until it
/// has its semicolon.
fn is_whole(text: &str) -> bool {
    let text = text.trim();
    let is_word = ["exit", "quit", "help"].iter().any(|word| text.eq_ignore_ascii_case(word));
    text.is_empty() || text.starts_with('\\') || is_word || split::is_complete(text)
}

/// What all words begin with, as the first one has it.
fn common_beginning(words: &[String]) -> String {
    let Some((first, others)) = words.split_first() else { return String::new() };
    let agree = |at: usize, letter: char| {
        let same = |other: &String| {
            other.chars().nth(at).is_some_and(|c| c.to_lowercase().eq(letter.to_lowercase()))
        };
        others.iter().all(same)
    };
    first
        .chars()
        .enumerate()
        .take_while(|(at, letter)| agree(*at, *letter))
        .map(|(_, c)| c)
        .collect()
}

/// Words side by side, below the line that is typed.
fn listed(words: &[String], columns: usize) -> String {
    let words: Vec<String> = words.iter().map(|word| printable(word)).collect();
    let widest = words.iter().map(|word| width(word)).max().unwrap_or(0) + 2;
    let each = (columns / widest).max(1);
    let mut out = String::from("\r\n");
    for row in words.chunks(each) {
        for word in row {
            out.push_str(word);
            out.extend(std::iter::repeat_n(' ', widest - width(word)));
        }
        out.push_str("\r\n");
    }
    out
}

/// A terminal that does not show what is typed by itself, and gives each key at
/// once; as it was before when dropped.
struct Quiet {
    before: Termios,
}

impl Quiet {
    fn enter() -> Result<Self, Failure> {
        let failed = |error: rustix::io::Errno| Failure::failed(error.to_string());
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut quiet = before.clone();
        // Ctrl-C is a key while a text is typed.
        quiet
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
        // What was typed ahead is kept.
        tcsetattr(std::io::stdin(), OptionalActions::Drain, &quiet).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = std::io::stdout().flush();
        // A terminal that is gone is no reason to fail.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enter_ends_what_is_whole() {
        for (text, expected) in [
            ("", true),
            ("\\d", true),
            ("Quit", true),
            ("select 1", false),
            ("select 1;", true),
            ("select ';", false),
            ("select 1; -- so", true),
        ] {
            assert_eq!(is_whole(text), expected, "{text}");
        }
    }

    #[test]
    fn words_agree_up_to_where_they_differ() {
        let check = |words: &[&str], expected: &str| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(common_beginning(&words), expected);
        };
        check(&[], "");
        check(&["select"], "select");
        check(&["events", "event_log"], "event");
        check(&["Orders", "ordinal"], "Ord");
        check(&["a", "ab"], "a");
        check(&["a", "b"], "");
    }

    #[test]
    fn words_stand_side_by_side() {
        let words = ["a", "bb", "c"].map(str::to_owned);
        assert_eq!(listed(&words, 8), "\r\na   bb  \r\nc   \r\n");
        assert_eq!(listed(&words, 1), "\r\na   \r\nbb  \r\nc   \r\n");
    }
}

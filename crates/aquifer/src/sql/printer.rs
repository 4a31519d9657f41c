//! An answer's rows on standard output, as they come.

use rustix::termios::tcgetwinsize;
use serde_json::value::RawValue;

use super::answer::Spent;
use super::cells::{Cell, printable};
use super::table::{Columns, expanded};
use crate::failure::Failure;
use crate::output::{self, bytes, count};

/// The columns are laid out by this many first rows.
const SAMPLE_ROWS_MAX: usize = 1000;
/// Or by as many as have this many bytes.
const SAMPLE_BYTES_MAX: usize = 8 << 20;

/// How rows are laid out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Each row as a list of its columns.
    pub(super) is_expanded: bool,
    /// Says what the statement took.
    pub(super) has_timing: bool,
    /// The columns of the terminal; none where it is not one.
    pub(super) width: Option<usize>,
}

/// The columns of standard output, where it is a terminal.
pub(super) fn width() -> Option<usize> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// Prints one answer.
#[derive(Debug)]
pub(super) struct Printer {
    layout: Layout,
    command: String,
    names: Vec<String>,
    /// The first rows, until the columns are known.
    sample: Vec<Vec<Cell>>,
    sample_bytes: usize,
    columns: Option<Columns>,
    rows: u64,
}

impl Printer {
    pub(super) const fn new(layout: Layout) -> Self {
        Self {
            layout,
            command: String::new(),
            names: Vec::new(),
            sample: Vec::new(),
            sample_bytes: 0,
            columns: None,
            rows: 0,
        }
    }

    pub(super) fn begin(&mut self, command: String, names: &[String]) {
        self.command = command;
        self.names = names.iter().map(|name| printable(name)).collect();
    }

    /// Takes the rows of an event: an array a line.
    pub(super) fn rows(&mut self, lines: &[u8]) -> Result<(), Failure> {
        let mut out = String::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let values: Vec<&RawValue> = serde_json::from_slice(line)
                .map_err(|error| Failure::failed(format!("a row is malformed: {error}")))?;
            let cells: Vec<Cell> = values.into_iter().map(Cell::of).collect();
            self.rows += 1;
            if self.layout.is_expanded {
                expanded(self.rows, &self.names, &cells, self.layout.width, &mut out);
            } else if let Some(columns) = &self.columns {
                columns.row(&cells, &mut out);
            } else {
                self.sample_bytes += line.len();
                self.sample.push(cells);
                let is_enough = self.sample.len() >= SAMPLE_ROWS_MAX;
                if is_enough || self.sample_bytes >= SAMPLE_BYTES_MAX {
                    self.lay_out(&mut out);
                }
            }
        }
        output::write(out.as_bytes())
    }

    /// Whether rows wait for others before they are printed.
    pub(super) fn is_waiting(&self) -> bool {
        !self.sample.is_empty()
    }

    /// Prints what waits.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        let mut out = String::new();
        if self.is_waiting() {
            self.lay_out(&mut out);
        }
        output::write(out.as_bytes())
    }

    fn lay_out(&mut self, out: &mut String) {
        let columns = Columns::of(&self.names, &self.sample, self.layout.width);
        columns.head(&self.names, out);
        for row in self.sample.drain(..) {
            columns.row(&row, out);
        }
        self.columns = Some(columns);
    }

    /// Prints the rest, and how much it was.
    pub(super) fn end(&mut self, spent: Spent, elapsed_ms: u64) -> Result<(), Failure> {
        let mut out = String::new();
        if self.columns.is_none() && !self.layout.is_expanded && !self.names.is_empty() {
            self.lay_out(&mut out);
        }
        if self.names.is_empty() {
            out += &format!("{}\n", printable(&self.command));
        } else {
            let noun = if self.rows == 1 { "row" } else { "rows" };
            out += &format!("({} {noun})\n", count(self.rows));
        }
        if self.layout.has_timing {
            out += &timing(spent, elapsed_ms);
        }
        output::write(out.as_bytes())
    }
}

fn timing(spent: Spent, elapsed_ms: u64) -> String {
    let mut text = format!("{elapsed_ms} ms");
    if spent.chunks > 0 {
        let read = spent.chunks.saturating_sub(spent.chunks_pruned);
        text += &format!(
            " · {} from {} of {} files",
            bytes(spent.bytes_read),
            count(read),
            count(spent.chunks)
        );
    }
    if spent.tail_bytes_read > 0 {
        text += &format!(" · {} of the tail", bytes(spent.tail_bytes_read));
    }
    if spent.spilled_bytes > 0 {
        text += &format!(" · {} spilled", bytes(spent.spilled_bytes));
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_took_is_said_in_a_line() {
        let check = |spent: Spent, expected: &str| assert_eq!(timing(spent, 12), expected);
        check(Spent::default(), "12 ms\n");
        check(
            Spent {
                chunks: 5,
                chunks_pruned: 3,
                bytes_read: 2048,
                tail_bytes_read: 10,
                spilled_bytes: 1 << 20,
            },
            "12 ms · 2.0 KiB from 2 of 5 files · 10 B of the tail · 1.0 MiB spilled\n",
        );
    }
}

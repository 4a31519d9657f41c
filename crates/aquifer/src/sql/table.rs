//! Rows in columns that fit into a terminal.

use super::cells::{Cell, cut, width};

/// The narrowest that a column is cut to.
const COLUMN_MIN: usize = 6;

/// The widths of a table's columns, found from its first rows and kept for those
/// that follow.
#[derive(Debug)]
pub(super) struct Columns {
    widths: Vec<usize>,
    is_right: Vec<bool>,
    /// The last column is not cut or padded where the width does not matter.
    is_bounded: bool,
}

impl Columns {
    /// Columns for `names` and the first `rows`, cut so that all of them fit
    /// into `terminal` columns.
    pub(super) fn of(names: &[String], rows: &[Vec<Cell>], terminal: Option<usize>) -> Self {
        let mut widths: Vec<usize> = names.iter().map(|name| width(name)).collect();
        let mut is_right = vec![false; names.len()];
        for (place, (widest, is_right)) in widths.iter_mut().zip(&mut is_right).enumerate() {
            let cells = rows.iter().filter_map(|row| row.get(place));
            let mut numbers = 0;
            let mut others = 0;
            for cell in cells {
                *widest = (*widest).max(width(&cell.text));
                numbers += usize::from(cell.is_number);
                others += usize::from(!cell.is_number && !cell.is_null);
            }
            *is_right = numbers > 0 && others == 0;
        }
        if let Some(terminal) = terminal {
            // Each column has a space on both sides, and a line between two.
            let frame = widths.len() * 3;
            fit(&mut widths, (terminal + 1).saturating_sub(frame));
        }
        Self { widths, is_right, is_bounded: terminal.is_some() }
    }

    /// The names, and the line below them.
    pub(super) fn head(&self, names: &[String], out: &mut String) {
        let cells =
            names.iter().map(|name| Cell { text: name.clone(), is_number: false, is_null: false });
        self.row(&cells.collect::<Vec<_>>(), out);
        for (place, width) in self.widths.iter().enumerate() {
            if place > 0 {
                out.push('┼');
            }
            out.extend(std::iter::repeat_n('─', width + 2));
        }
        out.push('\n');
    }

    /// One row.
    pub(super) fn row(&self, cells: &[Cell], out: &mut String) {
        let start = out.len();
        for (place, (cell, columns)) in cells.iter().zip(&self.widths).enumerate() {
            if place > 0 {
                out.push('│');
            }
            out.push(' ');
            let shown = if self.is_bounded { cut(&cell.text, *columns) } else { cell.text.clone() };
            let padding = columns.saturating_sub(width(&shown));
            let is_right = self.is_right.get(place).copied().unwrap_or(false);
            if is_right {
                out.extend(std::iter::repeat_n(' ', padding));
            }
            out.push_str(&shown);
            if !is_right {
                out.extend(std::iter::repeat_n(' ', padding));
            }
            out.push(' ');
        }
        let end = out.get(start..).unwrap_or_default().trim_end().len();
        out.truncate(start + end);
        out.push('\n');
    }
}

/// Cuts the widest columns first, until all fit into `available` or none can be
/// cut further.
fn fit(widths: &mut [usize], available: usize) {
    let fits = |cap: usize, widths: &[usize]| {
        widths.iter().map(|width| (*width).min(cap)).sum::<usize>() <= available
    };
    let widest = widths.iter().copied().max().unwrap_or(0);
    if fits(widest, widths) {
        return;
    }
    let (mut low, mut high) = (COLUMN_MIN, widest.max(COLUMN_MIN));
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle, widths) { low = middle } else { high = middle - 1 }
    }
    let mut spare = available.saturating_sub(widths.iter().map(|width| (*width).min(low)).sum());
    for width in widths.iter_mut().filter(|width| **width > low) {
        // What is left over after the division goes to the first of them.
        let extra = usize::from(spare > 0);
        spare -= extra;
        *width = low + extra;
    }
}

/// One row as a list of its columns, for rows that no line holds.
pub(super) fn expanded(
    number: u64,
    names: &[String],
    cells: &[Cell],
    terminal: Option<usize>,
    out: &mut String,
) {
    let widest = names.iter().map(|name| width(name)).max().unwrap_or(0);
    let title = format!("─ row {number} ");
    out.push_str(&title);
    let line = (widest + 3).saturating_sub(width(&title)).max(1);
    out.extend(std::iter::repeat_n('─', line));
    out.push('\n');
    for (name, cell) in names.iter().zip(cells) {
        out.push_str(name);
        out.extend(std::iter::repeat_n(' ', widest - width(name)));
        out.push_str(" │ ");
        match terminal {
            Some(terminal) => {
                let left = terminal.saturating_sub(widest + 3).max(COLUMN_MIN);
                // A few lines of a long value are worth more than one.
                out.push_str(&cut(&cell.text, left * LINES_SHOWN));
            }
            None => out.push_str(&cell.text),
        }
        out.push('\n');
    }
}

/// How many lines of a terminal a value has in the expanded form.
const LINES_SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(row: &[&str]) -> Vec<Cell> {
        let cell = |text: &&str| Cell {
            text: (*text).to_owned(),
            is_number: text.parse::<f64>().is_ok(),
            is_null: *text == "∅",
        };
        row.iter().map(cell).collect()
    }

    fn shown(names: &[&str], rows: &[&[&str]], terminal: Option<usize>) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let rows: Vec<_> = rows.iter().map(|row| cells(row)).collect();
        let columns = Columns::of(&names, &rows, terminal);
        let mut out = String::new();
        columns.head(&names, &mut out);
        rows.iter().for_each(|row| columns.row(row, &mut out));
        out
    }

    #[test]
    fn rows_stand_in_columns() {
        assert_eq!(
            shown(&["verb", "n"], &[&["get", "1000"], &["delete", "7"], &["∅", "∅"]], None),
            " verb   │    n\n────────┼──────\n get    │ 1000\n delete │    7\n ∅      │    ∅\n"
        );
        assert_eq!(shown(&["a"], &[], Some(80)), " a\n───\n");
    }

    #[test]
    fn the_widest_columns_are_cut_to_the_terminal() {
        let long = "x".repeat(300);
        for terminal in [24, 40, 79, 80, 200] {
            let text =
                shown(&["id", "value", "other"], &[&["1", &long, &long[..30]]], Some(terminal));
            for line in text.lines() {
                assert!(width(line) <= terminal, "{terminal}: {line}");
            }
            assert!(text.contains(" 1"), "{text}");
        }
        // More columns than fit are not cut to nothing.
        let names = vec!["column"; 50];
        let row = vec!["value of it"; 50];
        let text = shown(&names, &[&row], Some(80));
        assert!(text.contains("value…"), "{text}");
    }

    #[test]
    fn a_row_can_be_a_list() {
        let mut out = String::new();
        let names = ["verb".to_owned(), "n".to_owned()];
        expanded(3, &names, &cells(&["get", "1"]), Some(80), &mut out);
        assert_eq!(out, "─ row 3 ─\nverb │ get\nn    │ 1\n");
    }
}

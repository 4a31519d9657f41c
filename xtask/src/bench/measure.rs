//! Medians, quantiles and Markdown tables.

use std::fmt::Write as _;
use std::time::Duration;

/// Latencies of one run in nanoseconds.
#[derive(Debug, Default, Clone)]
pub(super) struct Latencies(Vec<u64>);

impl Latencies {
    pub(super) fn push(&mut self, took: Duration) {
        self.0.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The latency in ms that a part `q` of all does not exceed; 0 without any.
    pub(super) fn quantile_ms(&mut self, q: f64) -> f64 {
        self.0.sort_unstable();
        let last = self.0.len().saturating_sub(1);
        let at = ((self.0.len() as f64 * q) as usize).min(last);
        self.0.get(at).map_or(0.0, |nanos| *nanos as f64 / 1e6)
    }
}

/// The value in the middle; not a number without any.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A Markdown table: columns after the first are numbers.
#[derive(Debug)]
pub(super) struct Table {
    columns: usize,
    text: String,
}

impl Table {
    pub(super) fn new(columns: &[&str]) -> Self {
        let mut table = Self { columns: columns.len(), text: String::new() };
        table.line(columns);
        let mut rule: Vec<&str> = vec!["--:"; columns.len()];
        rule[0] = "---";
        table.line(&rule);
        table
    }

    pub(super) fn row(&mut self, cells: &[&str]) {
        assert_eq!(cells.len(), self.columns, "a row has as many cells as the table has columns");
        self.line(cells);
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, cells: &[&str]) {
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }
}

/// A number with as many digits as can be told from noise.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "not measured".to_owned(),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles() {
        assert_eq!(median([3.0, 1.0, 2.0, 9.0, 0.5]), 2.0);
        assert!(median([]).is_nan());
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile_ms(0.99), 0.0);
        for ms in (1..=100).rev() {
            latencies.push(Duration::from_millis(ms));
        }
        assert_eq!(latencies.quantile_ms(0.5), 51.0);
        assert_eq!(latencies.quantile_ms(0.99), 100.0);
        assert_eq!(latencies.quantile_ms(1.0), 100.0);
    }

    #[test]
    fn tables_are_markdown() {
        let mut table = Table::new(&["what", "MB/s"]);
        table.row(&["ledger", &figure(123.4)]);
        assert_eq!(table.into_text(), "| what | MB/s |\n| --- | --: |\n| ledger | 123 |\n");
        assert_eq!(figure(12.34), "12.3");
        assert_eq!(figure(0.851), "0.85");
        assert_eq!(figure(f64::NAN), "not measured");
    }
}

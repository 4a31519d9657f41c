//! The line that says how far a statement is, while nothing else is printed.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use aquifer_env::{Clock as _, RealClock};
use serde::Deserialize;

use crate::output::{bytes, count};

/// A statement that answers sooner has no such line.
const QUIET_MS: u64 = 400;

/// How far the server is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    bytes_read: u64,
    bytes_total: u64,
    rows_read: u64,
}

/// The line on standard error; nothing where that is no terminal.
#[derive(Debug)]
pub(super) struct ProgressLine {
    clock: Arc<RealClock>,
    begun_ns: u64,
    is_terminal: bool,
    is_shown: bool,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        let clock = Arc::new(RealClock::new());
        let begun_ns = clock.monotonic_ns();
        Self { clock, begun_ns, is_terminal: std::io::stderr().is_terminal(), is_shown: false }
    }

    /// How long the statement has been running.
    pub(super) fn elapsed_ms(&self) -> u64 {
        self.clock.monotonic_ns().saturating_sub(self.begun_ns) / 1_000_000
    }

    /// Shows the line anew.
    pub(super) fn show(&mut self, progress: Progress) {
        let elapsed_ms = self.elapsed_ms();
        if !self.is_terminal || elapsed_ms < QUIET_MS {
            return;
        }
        self.is_shown = true;
        let mut out = std::io::stderr().lock();
        // A terminal that is gone is no reason to fail.
        let _ = write!(out, "\r\x1b[K{}", text(progress, elapsed_ms));
        let _ = out.flush();
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let mut out = std::io::stderr().lock();
            let _ = write!(out, "\r\x1b[K");
            let _ = out.flush();
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

fn text(progress: Progress, elapsed_ms: u64) -> String {
    let Progress { bytes_read, bytes_total, rows_read } = progress;
    let mut text = format!("{:.1} s", elapsed_ms as f64 / 1000.0);
    if bytes_total > 0 {
        let percent = (bytes_read.min(bytes_total) as u128 * 100 / u128::from(bytes_total)) as u64;
        text += &format!(" · {} of {} ({percent} %)", bytes(bytes_read), bytes(bytes_total));
    } else if bytes_read > 0 {
        text += &format!(" · {}", bytes(bytes_read));
    }
    if rows_read > 0 {
        text += &format!(" · {} rows read", count(rows_read));
    }
    text + " · Ctrl-C cancels"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_it_is() {
        let check = |bytes_read, bytes_total, rows_read, expected: &str| {
            let progress = Progress { bytes_read, bytes_total, rows_read };
            assert_eq!(text(progress, 1500), format!("1.5 s{expected} · Ctrl-C cancels"));
        };
        check(0, 0, 0, "");
        check(1 << 20, 4 << 20, 1234, " · 1.0 MiB of 4.0 MiB (25 %) · 1,234 rows read");
        check(5, 4, 0, " · 5 B of 4 B (100 %)");
        check(7, 0, 0, " · 7 B");
    }
}

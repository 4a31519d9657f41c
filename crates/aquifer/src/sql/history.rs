//! What was typed before, over all runs of the shell: a file of the user's own
//! with a JSON string a line.
//!
//! A crash leaves at most a line without its end, which the next run drops. A
//! history that cannot be read or written is no reason to fail.

use std::path::{Path, PathBuf};

use aquifer_env::{Disk, RealDisk, create_private_directory};

use crate::config::variable;

/// How many texts are kept.
const ENTRIES_MAX: usize = 2000;
/// A longer text is not kept.
const ENTRY_BYTES_MAX: usize = 64 << 10;
/// A longer file is written anew with its last part.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Earlier texts, the oldest first.
#[derive(Debug)]
pub(super) struct History {
    entries: Vec<String>,
    path: Option<PathBuf>,
}

impl History {
    /// The history of this user.
    pub(super) fn open() -> Self {
        let path = path();
        let entries = path.as_deref().and_then(read).unwrap_or_default();
        Self { entries, path }
    }

    pub(super) fn entries(&self) -> &[String] {
        &self.entries
    }

    /// Keeps a text, unless it is the last one again.
    pub(super) fn push(&mut self, text: &str) {
        let is_again = self.entries.last().is_some_and(|last| last == text);
        if text.trim().is_empty() || is_again || text.len() > ENTRY_BYTES_MAX {
            return;
        }
        self.entries.push(text.to_owned());
        if self.entries.len() > ENTRIES_MAX {
            self.entries.remove(0);
        }
        if let Some(path) = &self.path
            && let Err(error) = append(path, text)
        {
            tracing::debug!(%error, "the history could not be written");
            self.path = None;
        }
    }
}

/// `sql_history` in the user's state directory (XDG Base Directory), which is
/// closed to others: statements may hold what is nobody else's business.
fn path() -> Option<PathBuf> {
    let state = match variable("XDG_STATE_HOME").map(PathBuf::from) {
        Some(state) if state.is_absolute() => state,
        _ => PathBuf::from(variable("HOME")?).join(".local").join("state"),
    };
    let directory = state.join("aquifer");
    create_private_directory(&directory).ok()?;
    Some(directory.join("sql_history"))
}

fn read(path: &Path) -> Option<Vec<String>> {
    let disk = RealDisk::new();
    let file = disk.open_read(path).ok()?;
    let length = file.len().ok()?;
    let from = length.saturating_sub(FILE_BYTES_MAX);
    let mut bytes = vec![0; (length - from) as usize];
    file.read_at(&mut bytes, from).ok()?;
    let lines = bytes.split(|byte| *byte == b'\n');
    let mut entries: Vec<String> =
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    entries.drain(..entries.len().saturating_sub(ENTRIES_MAX));
    if from > 0 {
        let mut kept = Vec::new();
        for entry in &entries {
            kept.extend(line_of(entry));
        }
        let written = disk.remove(path).and_then(|()| disk.create(path)?.write_at(&kept, 0));
        if let Err(error) = written {
            tracing::debug!(%error, "the history could not be written anew");
        }
    }
    Some(entries)
}

fn append(path: &Path, text: &str) -> std::io::Result<()> {
    let disk = RealDisk::new();
    let file = match disk.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => disk.create(path)?,
        opened => opened?,
    };
    // Begins a line of its own, whatever a crash has left there.
    let mut line = vec![b'\n'];
    line.extend(line_of(text));
    file.write_at(&line, file.len()?)
}

fn line_of(text: &str) -> Vec<u8> {
    let mut line = serde_json::to_vec(text).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sql_history");
        let mut history = History { entries: Vec::new(), path: Some(path.clone()) };
        for text in ["select 1;", "select 1;", "  ", "select\n'ä';"] {
            history.push(text);
        }
        assert_eq!(history.entries(), ["select 1;", "select\n'ä';"]);
        assert_eq!(read(&path).unwrap(), history.entries());
        // As a crash in the middle of a line leaves it.
        let file = RealDisk::new().open(&path).unwrap();
        file.write_at(b"\"select", file.len().unwrap()).unwrap();
        append(&path, "after").unwrap();
        assert_eq!(read(&path).unwrap(), ["select 1;", "select\n'ä';", "after"]);
    }

    #[test]
    fn a_long_file_is_cut_at_its_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sql_history");
        let text = "x".repeat(ENTRY_BYTES_MAX - 10);
        for _ in 0..70 {
            append(&path, &text).unwrap();
        }
        append(&path, "last").unwrap();
        let found = read(&path).unwrap();
        assert_eq!(found.last().map(String::as_str), Some("last"));
        let length = RealDisk::new().open(&path).unwrap().len().unwrap();
        assert!(length <= FILE_BYTES_MAX, "{length}");
        assert_eq!(read(&path).unwrap(), found);
    }
}

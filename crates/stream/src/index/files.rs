//! How many live batches each journal file holds: a file without any can go.

use std::collections::BTreeMap;

use aquifer_journal::FileId;
use parking_lot::Mutex;

#[derive(Debug, Default)]
pub(crate) struct LiveFiles(Mutex<BTreeMap<FileId, u64>>);

impl LiveFiles {
    pub(crate) fn add(&self, file: FileId, batches: u64) {
        if batches > 0 {
            *self.0.lock().entry(file).or_default() += batches;
        }
    }

    pub(crate) fn remove(&self, batches: impl IntoIterator<Item = FileId>) {
        let mut files = self.0.lock();
        for file in batches {
            if let Some(count) = files.get_mut(&file) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    files.remove(&file);
                }
            }
        }
    }

    /// The oldest file with a live batch.
    pub(crate) fn oldest(&self) -> Option<FileId> {
        self.0.lock().keys().next().copied()
    }
}

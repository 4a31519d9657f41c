//! What a power cut decides on: writes, lengths and names that are not durable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::model::FileId;

/// What is not durable yet, in the order in which it was done.
#[derive(Debug, Clone)]
pub(super) enum Pending {
    Write(PendingWrite),
    Length { file: FileId, len: usize },
    Name(NameChange),
}

/// A write, and the sectors that it touched as the page cache then held them.
#[derive(Debug, Clone)]
pub(super) struct PendingWrite {
    pub(super) file: FileId,
    /// Where the write's own bytes end.
    pub(super) end: usize,
    /// Where the first sector begins.
    pub(super) first_sector: usize,
    /// The sectors' content; the last one ends where the file ended.
    pub(super) sectors: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Created { path: PathBuf, file: FileId },
    Renamed { from: PathBuf, to: PathBuf },
    Removed { path: PathBuf },
}

impl NameChange {
    pub(super) fn names(&self) -> impl Iterator<Item = &PathBuf> {
        let (first, second) = match self {
            NameChange::Created { path, .. } | NameChange::Removed { path } => (path, None),
            NameChange::Renamed { from, to } => (to, Some(from)),
        };
        std::iter::once(first).chain(second)
    }

    /// The name whose directory's sync makes this durable.
    pub(super) fn synced_name(&self) -> &Path {
        match self {
            NameChange::Created { path, .. } | NameChange::Removed { path } => path,
            NameChange::Renamed { to, .. } => to,
        }
    }

    pub(super) fn apply(&self, entries: &mut BTreeMap<PathBuf, FileId>) {
        match self {
            NameChange::Created { path, file } => {
                entries.insert(path.clone(), *file);
            }
            NameChange::Renamed { from, to } => {
                if let Some(file) = entries.remove(from) {
                    entries.insert(to.clone(), file);
                }
            }
            NameChange::Removed { path } => {
                entries.remove(path);
            }
        }
    }
}

impl PendingWrite {
    /// How many sectors a cut decides on.
    pub(super) fn units(&self, sector_bytes: usize) -> usize {
        self.sectors.len().div_ceil(sector_bytes)
    }

    /// Writes the given sector into `image`, as far as the file reaches.
    pub(super) fn apply_sector(&self, index: usize, sector_bytes: usize, image: &mut [u8]) {
        let Some(content) = self.sectors.chunks(sector_bytes).nth(index) else {
            return;
        };
        let begin = self.first_sector + index * sector_bytes;
        if let Some(place) = image.get_mut(begin..) {
            let len = place.len().min(content.len());
            place[..len].copy_from_slice(&content[..len]);
        }
    }
}

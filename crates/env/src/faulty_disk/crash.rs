//! The power cut: which part of what is pending reached the disk.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::model::{FileId, Model};
use super::pending::{Pending, PendingWrite};
use crate::random::{Random, SeededRandom};

/// What a power cut keeps of what is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashChoice {
    /// Only what was synced.
    LoseAll,
    /// Everything, as after a crash of the process alone.
    KeepAll,
    /// What has its bit set: bit 0 for the oldest. Beyond 64, nothing.
    Subset(u64),
    /// Whatever the seed chooses: with equal chances a scattered subset, dense
    /// or thin, or everything up to some moment and a few strays after it.
    Random(u64),
}

impl CrashChoice {
    fn keeps(self, units: usize) -> Vec<bool> {
        match self {
            CrashChoice::LoseAll => vec![false; units],
            CrashChoice::KeepAll => vec![true; units],
            CrashChoice::Subset(mask) => {
                (0..units).map(|unit| unit < 64 && mask >> unit & 1 == 1).collect()
            }
            CrashChoice::Random(seed) => {
                let random = SeededRandom::new(seed);
                let scattered = random.next_u64().is_multiple_of(2);
                let all_before = match scattered {
                    true => 0,
                    false => random.next_u64() % (units as u64 + 1),
                };
                let chance = random.next_u64() % 101;
                (0..units as u64)
                    .map(|unit| unit < all_before || random.next_u64() % 100 < chance)
                    .collect()
            }
        }
    }
}

/// What the power cuts of one disk and its successors have hit.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    torn_writes: AtomicU64,
    lost_writes: AtomicU64,
}

impl Coverage {
    pub(super) fn torn_writes(&self) -> u64 {
        self.torn_writes.load(Ordering::Relaxed)
    }

    pub(super) fn lost_writes(&self) -> u64 {
        self.lost_writes.load(Ordering::Relaxed)
    }

    pub(super) fn add_torn(&self) {
        self.torn_writes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_lost(&self) {
        self.lost_writes.fetch_add(1, Ordering::Relaxed);
    }
}

/// The disk as it is found after a cut, and what it meant for the writes.
pub(super) fn after_power_cut(model: &Model, choice: CrashChoice, coverage: &Coverage) -> Model {
    let mut keeps = choice.keeps(model.pending_units()).into_iter();
    let mut next = move || keeps.next().unwrap_or(false);
    let mut entries = model.durable_entries.clone();
    let mut images: HashMap<FileId, Arc<Vec<u8>>> =
        model.files.iter().map(|(file, image)| (*file, image.durable.clone())).collect();
    let mut held_names: HashSet<&PathBuf> = HashSet::new();
    let mut held_lengths: HashSet<FileId> = HashSet::new();
    let mut kept_sectors: Vec<(&PendingWrite, Vec<bool>)> = Vec::new();
    for pending in &model.pending {
        match pending {
            Pending::Name(change) => {
                if next() && !change.names().any(|name| held_names.contains(name)) {
                    change.apply(&mut entries);
                } else {
                    held_names.extend(change.names());
                }
            }
            Pending::Length { file, len } => {
                if next() && !held_lengths.contains(file) {
                    Arc::make_mut(images.entry(*file).or_default()).resize(*len, 0);
                } else {
                    held_lengths.insert(*file);
                }
            }
            Pending::Write(write) => {
                let image: &mut Vec<u8> = Arc::make_mut(images.entry(write.file).or_default());
                let kept: Vec<bool> =
                    (0..write.units(model.sector_bytes)).map(|_| next()).collect();
                for (sector, kept) in kept.iter().enumerate() {
                    if *kept {
                        write.apply_sector(sector, model.sector_bytes, image);
                    }
                }
                kept_sectors.push((write, kept));
            }
        }
    }
    count(&kept_sectors, &images, &entries, model.sector_bytes, coverage);
    model.found(entries, images)
}

/// Counts the writes that are gone, and those of which only a part is left. A
/// sector counts as left when it, or a later picture of it, was kept and the
/// file reaches over the write's bytes in it.
fn count(
    writes: &[(&PendingWrite, Vec<bool>)],
    images: &HashMap<FileId, Arc<Vec<u8>>>,
    entries: &BTreeMap<PathBuf, FileId>,
    sector_bytes: usize,
    coverage: &Coverage,
) {
    let named: HashSet<FileId> = entries.values().copied().collect();
    let mut kept_later: HashSet<(FileId, usize)> = HashSet::new();
    for (write, kept) in writes.iter().rev() {
        let len = images.get(&write.file).map_or(0, |image| image.len());
        let mut left = 0;
        for (sector, kept) in kept.iter().enumerate() {
            let begin = write.first_sector + sector * sector_bytes;
            if *kept {
                kept_later.insert((write.file, begin));
            }
            let reached = (begin + sector_bytes).min(write.end) <= len;
            if kept_later.contains(&(write.file, begin)) && reached {
                left += 1;
            }
        }
        if left == 0 || !named.contains(&write.file) {
            coverage.add_lost();
        } else if left < kept.len() {
            coverage.add_torn();
        }
    }
}

//! The disk's two pictures and the operations between them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pending::{NameChange, Pending, PendingWrite};
use crate::random::{Random, SeededRandom};

/// What `free_bytes` tells of a disk without a limit: 1 TiB.
const FREE_BYTES_UNLIMITED: u64 = 1 << 40;

/// A file's identity; names point to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileId(u64);

#[derive(Debug, Clone, Default)]
pub(super) struct FileImage {
    /// What reads see.
    pub(super) cached: Arc<Vec<u8>>,
    /// What a power cut leaves if it loses everything pending.
    pub(super) durable: Arc<Vec<u8>>,
    handles: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum SyncFailure {
    LosesAll,
    LosesSome,
}

/// What becomes of an operation.
enum Fate {
    Done,
    /// The power goes while it runs: it is pending, and nobody hears of it.
    Cut,
    Failed(io::ErrorKind),
}

#[derive(Debug)]
pub(super) struct Model {
    seed: u64,
    pub(super) sector_bytes: usize,
    next_file: u64,
    pub(super) files: HashMap<FileId, FileImage>,
    pub(super) directories: BTreeSet<PathBuf>,
    pub(super) entries: BTreeMap<PathBuf, FileId>,
    pub(super) durable_entries: BTreeMap<PathBuf, FileId>,
    pub(super) pending: Vec<Pending>,
    pub(super) operations: u64,
    pub(super) syncs: u64,
    pub(super) writes: u64,
    pub(super) reads: u64,
    pub(super) crash_at: Option<u64>,
    pub(super) crashed: bool,
    pub(super) failing_syncs: HashMap<u64, SyncFailure>,
    pub(super) failing_writes: HashMap<u64, io::ErrorKind>,
    pub(super) failing_reads: HashMap<u64, io::ErrorKind>,
    pub(super) failing_operations: HashMap<u64, io::ErrorKind>,
    pub(super) capacity: u64,
    used: u64,
}

impl Model {
    pub(super) fn new(seed: u64, sector_bytes: usize) -> Model {
        Model {
            seed,
            sector_bytes,
            next_file: 0,
            files: HashMap::new(),
            directories: BTreeSet::from([PathBuf::from("/")]),
            entries: BTreeMap::new(),
            durable_entries: BTreeMap::new(),
            pending: Vec::new(),
            operations: 0,
            syncs: 0,
            writes: 0,
            reads: 0,
            crash_at: None,
            crashed: false,
            failing_syncs: HashMap::new(),
            failing_writes: HashMap::new(),
            failing_reads: HashMap::new(),
            failing_operations: HashMap::new(),
            capacity: u64::MAX,
            used: 0,
        }
    }

    /// The disk that a power cut leaves: these names, with these bytes.
    pub(super) fn found(
        &self,
        entries: BTreeMap<PathBuf, FileId>,
        mut images: HashMap<FileId, Arc<Vec<u8>>>,
    ) -> Model {
        let mut found = Model::new(self.seed, self.sector_bytes);
        found.next_file = self.next_file;
        found.directories = self.directories.clone();
        for file in entries.values() {
            let image = images.remove(file).unwrap_or_default();
            found.used += image.len() as u64;
            let image = FileImage { cached: image.clone(), durable: image, handles: 0 };
            found.files.insert(*file, image);
        }
        found.durable_entries = entries.clone();
        found.entries = entries;
        found
    }

    pub(super) fn pending_units(&self) -> usize {
        let units = |pending: &Pending| match pending {
            Pending::Write(write) => write.units(self.sector_bytes),
            Pending::Length { .. } | Pending::Name(_) => 1,
        };
        self.pending.iter().map(units).sum()
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<FileId> {
        self.check_power()?;
        self.check_parent(path)?;
        if self.entries.contains_key(path) || self.directories.contains(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let fate = self.begin();
        if let Fate::Failed(kind) = fate {
            return Err(kind.into());
        }
        if self.used >= self.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = FileId(self.next_file);
        self.next_file += 1;
        let image = FileImage { handles: 1, ..FileImage::default() };
        self.files.insert(file, image);
        self.change_name(NameChange::Created { path: path.to_owned(), file });
        finish(fate).map(|()| file)
    }

    pub(super) fn open(&mut self, path: &Path) -> io::Result<FileId> {
        self.check_power()?;
        let file = self.lookup(path)?;
        self.file_mut(file)?.handles += 1;
        Ok(file)
    }

    pub(super) fn close(&mut self, file: FileId) {
        if let Some(image) = self.files.get_mut(&file) {
            image.handles = image.handles.saturating_sub(1);
            if image.handles == 0 {
                self.collect(file);
            }
        }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_power()?;
        self.check_parent(to)?;
        let moved = self.lookup(from)?;
        if self.directories.contains(to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let fate = self.begin();
        if let Fate::Failed(kind) = fate {
            return Err(kind.into());
        }
        if from != to {
            if let Some(replaced) = self.entries.get(to).copied().filter(|file| *file != moved) {
                self.used -= self.len_of(replaced);
            }
            self.change_name(NameChange::Renamed { from: from.to_owned(), to: to.to_owned() });
        }
        finish(fate)
    }

    pub(super) fn rename_new(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_power()?;
        self.lookup(from)?;
        if self.entries.contains_key(to) || self.directories.contains(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.rename(from, to)
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.check_power()?;
        let file = self.lookup(path)?;
        let fate = self.begin();
        if let Fate::Failed(kind) = fate {
            return Err(kind.into());
        }
        self.used -= self.len_of(file);
        self.change_name(NameChange::Removed { path: path.to_owned() });
        finish(fate)
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.check_power()?;
        self.check_directory(dir)?;
        match self.begin() {
            Fate::Done => {}
            // What a sync in flight has reached is as open as before it.
            fate @ (Fate::Cut | Fate::Failed(_)) => return finish(fate),
        }
        // An older change of the same name goes along, even of another
        // directory: a name's changes become durable in order.
        let mut synced: Vec<bool> = vec![false; self.pending.len()];
        let mut names: BTreeSet<&PathBuf> = BTreeSet::new();
        for (index, pending) in self.pending.iter().enumerate().rev() {
            let Pending::Name(change) = pending else {
                continue;
            };
            let here = change.synced_name().parent() == Some(dir);
            if here || change.names().any(|name| names.contains(name)) {
                names.extend(change.names());
                synced[index] = true;
            }
        }
        let mut dropped = Vec::new();
        let mut index = 0;
        let durable = &mut self.durable_entries;
        self.pending.retain(|pending| {
            let keep = !synced[index];
            index += 1;
            if let (false, Pending::Name(change)) = (keep, pending) {
                dropped.extend(change.names().filter_map(|name| durable.get(name).copied()));
                change.apply(durable);
            }
            keep
        });
        for file in dropped {
            self.collect(file);
        }
        Ok(())
    }

    pub(super) fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        self.check_power()?;
        check_absolute(dir)?;
        let chain: Vec<&Path> = dir.ancestors().collect();
        for made in chain.into_iter().rev() {
            if self.entries.contains_key(made) {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            if self.directories.contains(made) {
                continue;
            }
            // A cut between a directory and its sync is as if it was not made.
            finish(self.begin())?;
            self.directories.insert(made.to_owned());
        }
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.check_power()?;
        self.check_directory(dir)?;
        Ok(self.shuffled_below(dir, self.entries.keys()))
    }

    pub(super) fn list_dirs(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.check_power()?;
        self.check_directory(dir)?;
        Ok(self.shuffled_below(dir, self.directories.iter()))
    }

    pub(super) fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.check_power()?;
        self.check_directory(dir)?;
        Ok(match self.capacity {
            u64::MAX => FREE_BYTES_UNLIMITED,
            capacity => capacity.saturating_sub(self.used),
        })
    }

    pub(super) fn read_at(
        &mut self,
        file: FileId,
        buffer: &mut [u8],
        position: u64,
    ) -> io::Result<()> {
        self.check_power()?;
        self.reads += 1;
        if let Some(kind) = self.failing_reads.remove(&self.reads) {
            return Err(kind.into());
        }
        if buffer.is_empty() {
            return Ok(());
        }
        let end_of_file = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let begin = usize::try_from(position).map_err(|_| end_of_file())?;
        let end = begin.checked_add(buffer.len()).ok_or_else(end_of_file)?;
        let cached = &self.file_mut(file)?.cached;
        buffer.copy_from_slice(cached.get(begin..end).ok_or_else(end_of_file)?);
        Ok(())
    }

    pub(super) fn write_at(&mut self, file: FileId, bytes: &[u8], position: u64) -> io::Result<()> {
        self.check_power()?;
        let begin = usize::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge)?;
        begin.checked_add(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        self.writes += 1;
        let fate = self.begin();
        let failure = match fate {
            Fate::Failed(kind) => return Err(kind.into()),
            Fate::Cut => None,
            Fate::Done => self.failing_writes.remove(&self.writes),
        };
        if let Some(kind) = failure {
            let chosen = self.choose().next_u64() % (2 * bytes.len() as u64 + 1);
            let written = bytes.get(..chosen as usize).unwrap_or_default();
            self.put(file, written, begin)?;
            return Err(kind.into());
        }
        let fitting = self.fitting_len(file, begin, bytes.len());
        self.put(file, bytes.get(..fitting).unwrap_or_default(), begin)?;
        finish(fate)?;
        match fitting == bytes.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    pub(super) fn sync_data(&mut self, file: FileId) -> io::Result<()> {
        self.check_power()?;
        self.syncs += 1;
        match self.begin() {
            Fate::Done => match self.failing_syncs.remove(&self.syncs) {
                None => self.make_durable(file),
                Some(failure) => return self.lose_writes(file, failure),
            },
            Fate::Cut => return finish(Fate::Cut),
            Fate::Failed(kind) => {
                let _ = self.lose_writes(file, SyncFailure::LosesAll);
                return Err(kind.into());
            }
        }
        Ok(())
    }

    pub(super) fn len(&self, file: FileId) -> io::Result<u64> {
        self.check_power()?;
        Ok(self.len_of(file))
    }

    pub(super) fn set_len(&mut self, file: FileId, len: u64) -> io::Result<()> {
        self.check_power()?;
        let new_len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let fate = self.begin();
        if let Fate::Failed(kind) = fate {
            return Err(kind.into());
        }
        let grown = new_len.saturating_sub(self.len_of(file) as usize);
        if self.fitting_len(file, new_len - grown, grown) < grown {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.resize(file, new_len)?;
        finish(fate)
    }

    pub(super) fn content(&self, path: &Path) -> io::Result<&[u8]> {
        let file = self.lookup(path)?;
        let image = self.files.get(&file).ok_or(io::ErrorKind::NotFound)?;
        Ok(&image.cached)
    }

    pub(super) fn corrupt(&mut self, path: &Path, byte: u64, bit: u8) -> io::Result<()> {
        let file = self.lookup(path)?;
        let image = self.file_mut(file)?;
        let byte = byte as usize;
        if byte >= image.cached.len() || bit > 7 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for picture in [&mut image.cached, &mut image.durable] {
            if let Some(byte) = Arc::make_mut(picture).get_mut(byte) {
                *byte ^= 1 << bit;
            }
        }
        Ok(())
    }

    /// Changes a file's bytes past all faults, durably.
    pub(super) fn overwrite(
        &mut self,
        path: &Path,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> io::Result<()> {
        let file = self.lookup(path)?;
        self.make_durable(file);
        let image = self.file_mut(file)?;
        let before = image.cached.len() as u64;
        change(Arc::make_mut(&mut image.cached));
        image.durable = image.cached.clone();
        let after = image.cached.len() as u64;
        self.used = self.used - before + after;
        Ok(())
    }

    pub(super) fn forget(&mut self, path: &Path) -> io::Result<()> {
        let file = self.lookup(path)?;
        self.used -= self.len_of(file);
        self.settle_names();
        self.entries.remove(path);
        self.durable_entries.remove(path);
        self.collect(file);
        Ok(())
    }

    pub(super) fn place(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        check_absolute(path)?;
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        self.directories.extend(parent.ancestors().map(Path::to_owned));
        if !self.entries.contains_key(path) {
            self.settle_names();
            let file = FileId(self.next_file);
            self.next_file += 1;
            self.files.insert(file, FileImage::default());
            self.entries.insert(path.to_owned(), file);
            self.durable_entries.insert(path.to_owned(), file);
        }
        self.overwrite(path, |content| *content = bytes.to_vec())
    }

    /// Those directly in `dir`, in an order that nobody may rely on.
    fn shuffled_below<'a>(
        &self,
        dir: &Path,
        paths: impl Iterator<Item = &'a PathBuf>,
    ) -> Vec<PathBuf> {
        let mut below: Vec<PathBuf> =
            paths.filter(|path| path.parent() == Some(dir)).cloned().collect();
        below.sort_by_cached_key(|path| {
            let mut hasher = DefaultHasher::new();
            (self.seed, path).hash(&mut hasher);
            hasher.finish()
        });
        below
    }

    fn check_power(&self) -> io::Result<()> {
        match self.crashed {
            false => Ok(()),
            true => Err(power_is_off()),
        }
    }

    fn check_directory(&self, dir: &Path) -> io::Result<()> {
        match (self.directories.contains(dir), self.entries.get(dir)) {
            (true, _) => Ok(()),
            (false, Some(_)) => Err(io::ErrorKind::NotADirectory.into()),
            (false, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        check_absolute(path)?;
        self.check_directory(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
    }

    fn lookup(&self, path: &Path) -> io::Result<FileId> {
        if self.directories.contains(path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let file = self.entries.get(path).copied();
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file_mut(&mut self, file: FileId) -> io::Result<&mut FileImage> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        self.files.get_mut(&file).ok_or_else(missing)
    }

    fn len_of(&self, file: FileId) -> u64 {
        let image = self.files.get(&file);
        image.map_or(0, |image| image.cached.len() as u64)
    }

    /// Counts an operation and decides what becomes of it.
    fn begin(&mut self) -> Fate {
        self.operations += 1;
        if self.crash_at.is_some_and(|nth| self.operations >= nth) {
            self.crashed = true;
            return Fate::Cut;
        }
        match self.failing_operations.remove(&self.operations) {
            Some(kind) => Fate::Failed(kind),
            None => Fate::Done,
        }
    }

    /// The choices of the present operation, fixed by seed and count.
    fn choose(&self) -> SeededRandom {
        let mixed = SeededRandom::new(self.seed).next_u64();
        SeededRandom::new(mixed.wrapping_add(self.operations))
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.entries);
        self.pending.push(Pending::Name(change));
    }

    /// Makes every name durable as it is, so that a change past all faults
    /// meets no pending one.
    fn settle_names(&mut self) {
        self.pending.retain(|pending| !matches!(pending, Pending::Name(_)));
        self.durable_entries = self.entries.clone();
    }

    /// How much of `len` bytes at `begin` the capacity lets in.
    fn fitting_len(&self, file: FileId, begin: usize, len: usize) -> usize {
        let old_len = self.len_of(file);
        let free = self.capacity.saturating_sub(self.used);
        let limit = old_len.saturating_add(free);
        let fitting = limit.saturating_sub(begin as u64).min(len as u64);
        fitting as usize
    }

    fn put(&mut self, file: FileId, bytes: &[u8], begin: usize) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = begin + bytes.len();
        if end > self.len_of(file) as usize {
            self.resize(file, end)?;
        }
        let sector_bytes = self.sector_bytes;
        let cached = Arc::make_mut(&mut self.file_mut(file)?.cached);
        cached[begin..end].copy_from_slice(bytes);
        let first_sector = begin - begin % sector_bytes;
        let last_sector_end = end.next_multiple_of(sector_bytes).min(cached.len());
        let write = PendingWrite {
            file,
            end,
            first_sector,
            sectors: cached[first_sector..last_sector_end].to_vec(),
        };
        self.pending.push(Pending::Write(write));
        Ok(())
    }

    fn resize(&mut self, file: FileId, len: usize) -> io::Result<()> {
        let linked = self.entries.values().any(|linked| *linked == file);
        let image = self.file_mut(file)?;
        let before = image.cached.len();
        Arc::make_mut(&mut image.cached).resize(len, 0);
        if linked {
            self.used = self.used - before as u64 + len as u64;
        }
        if before != len {
            self.pending.push(Pending::Length { file, len });
        }
        Ok(())
    }

    /// Applies what is pending of `file`.
    fn make_durable(&mut self, file: FileId) {
        let sector_bytes = self.sector_bytes;
        let Some(image) = self.files.get_mut(&file) else {
            return;
        };
        let durable = &mut image.durable;
        self.pending.retain(|pending| match pending {
            Pending::Write(write) if write.file == file => {
                let durable: &mut Vec<u8> = Arc::make_mut(durable);
                for sector in 0..write.units(sector_bytes) {
                    write.apply_sector(sector, sector_bytes, durable);
                }
                false
            }
            Pending::Length { file: of, len } if *of == file => {
                Arc::make_mut(durable).resize(*len, 0);
                false
            }
            _ => true,
        });
    }

    /// A failed sync: the pages are marked clean, whatever reached the disk.
    /// The length, which is not in them, stays pending.
    fn lose_writes(&mut self, file: FileId, failure: SyncFailure) -> io::Result<()> {
        let sector_bytes = self.sector_bytes;
        let random = self.choose();
        let Some(image) = self.files.get_mut(&file) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let durable = &mut image.durable;
        self.pending.retain(|pending| {
            let Pending::Write(write) = pending else {
                return true;
            };
            if write.file != file {
                return true;
            }
            if let SyncFailure::LosesSome = failure {
                let durable: &mut Vec<u8> = Arc::make_mut(durable);
                for sector in 0..write.units(sector_bytes) {
                    if random.next_u64().is_multiple_of(2) {
                        write.apply_sector(sector, sector_bytes, durable);
                    }
                }
            }
            false
        });
        Err(rustix::io::Errno::IO.into())
    }

    /// Frees a file that no name, durable or not, and no handle leads to.
    fn collect(&mut self, file: FileId) {
        let open = self.files.get(&file).is_some_and(|image| image.handles > 0);
        let named = |entries: &BTreeMap<PathBuf, FileId>| entries.values().any(|of| *of == file);
        let coming = self.pending.iter().any(|pending| {
            matches!(pending, Pending::Name(NameChange::Created { file: of, .. }) if *of == file)
        });
        if open || coming || named(&self.entries) || named(&self.durable_entries) {
            return;
        }
        self.files.remove(&file);
        self.pending.retain(|pending| match pending {
            Pending::Write(write) => write.file != file,
            Pending::Length { file: of, .. } => *of != file,
            Pending::Name(_) => true,
        });
    }
}

fn finish(fate: Fate) -> io::Result<()> {
    match fate {
        Fate::Done => Ok(()),
        Fate::Cut => Err(power_is_off()),
        Fate::Failed(kind) => Err(kind.into()),
    }
}

fn power_is_off() -> io::Error {
    io::Error::other("crashed: the power of this disk is off")
}

fn check_absolute(path: &Path) -> io::Result<()> {
    match path.is_absolute() {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("path {} is not absolute", path.display()),
        )),
    }
}

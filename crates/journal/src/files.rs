//! The directory's files: names, preparing, recycling, pins and the reserve.
//!
//! Never knows what is in a file. Each file id is used once; ids only grow, so
//! that what an earlier life of a recycled file left in it is never taken for
//! alive. Files are released in the order of their ids, each made durable
//! before the next, so that a crash leaves a chain without gaps behind, and
//! besides it at most a file that is half prepared, which the next start
//! removes or prepares anew.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use aquifer_env::{Disk, DiskFile};
use parking_lot::Mutex;

use crate::error::{Error, is_full};
use crate::{FileId, Options};

/// The name of the file that is given up when the disk is full.
pub(crate) const RESERVE_NAME: &str = "reserve";
const SUFFIX: &str = ".journal";
const ZEROS: &[u8] = &[0; 1 << 20];
const FILL_SYNC_BYTES: u64 = 4 << 20;

/// The path of a journal file.
pub(crate) fn path_of(dir: &Path, file: FileId) -> PathBuf {
    dir.join(format!("{:020}{SUFFIX}", file.0))
}

/// The id in a journal file's name.
pub(crate) fn id_of(path: &Path) -> Option<FileId> {
    let digits = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    if digits.len() != 20 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|id| *id > 0).map(FileId)
}

/// A file that bears its name, is filled and durable, and has no valid header.
#[derive(Debug)]
pub(crate) struct ReadyFile {
    pub(crate) id: FileId,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) len: u64,
}

/// A file that the writer or a reader holds open.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) id: FileId,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) len: u64,
}

/// The files of one journal, shared by writer, readers and the thread that
/// prepares.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    file_bytes: u64,
    prepared_files: usize,
    recycled_files_max: usize,
    reserve_bytes: u64,
    /// Held by whoever gives a file its name, so that the writer waits for a
    /// file that is nearly ready and ready files are in the order of their ids.
    naming: Mutex<Naming>,
    /// Held while the reserve is filled or given up.
    reserve: Mutex<()>,
    inner: Mutex<Inner>,
}

/// What whoever changes names knows.
#[derive(Debug, Default)]
struct Naming {
    /// A file was given up, and that may not be durable yet.
    unsynced_release: bool,
}

#[derive(Debug)]
struct Inner {
    next_id: FileId,
    ready: VecDeque<ReadyFile>,
    kept: BTreeMap<FileId, Kept>,
    /// The last file whose header is durable; it and later ones stay.
    last_durable: FileId,
}

/// A file in use, not released yet.
#[derive(Debug)]
struct Kept {
    len: u64,
    /// Never to be written again, so not to be recycled either.
    spoilt: bool,
    open: Weak<OpenFile>,
}

impl Files {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf, options: &Options) -> Files {
        Files {
            disk,
            dir,
            file_bytes: options.file_bytes,
            prepared_files: options.prepared_files,
            recycled_files_max: options.recycled_files_max.max(options.prepared_files),
            reserve_bytes: options.disk_reserve_bytes,
            naming: Mutex::default(),
            reserve: Mutex::default(),
            inner: Mutex::new(Inner {
                next_id: FileId(1),
                ready: VecDeque::new(),
                kept: BTreeMap::new(),
                last_durable: FileId(0),
            }),
        }
    }

    /// Makes known a file that was found when the journal was opened.
    pub(crate) fn keep_found(&self, id: FileId, len: u64, spoilt: bool) {
        let mut inner = self.inner.lock();
        inner.kept.insert(id, Kept { len, spoilt, open: Weak::new() });
        inner.next_id = inner.next_id.max(FileId(id.0.saturating_add(1)));
    }

    /// Gives out a file id, never again; at least `at_least`.
    pub(crate) fn take_id(&self, at_least: FileId) -> FileId {
        let mut inner = self.inner.lock();
        let id = inner.next_id.max(at_least);
        inner.next_id = FileId(id.0 + 1);
        id
    }

    /// Gives out no id below `next` any more.
    pub(crate) fn skip_ids(&self, next: FileId) {
        let mut inner = self.inner.lock();
        inner.next_id = inner.next_id.max(next);
    }

    pub(crate) fn set_last_durable(&self, file: FileId) {
        let mut inner = self.inner.lock();
        inner.last_durable = inner.last_durable.max(file);
    }

    /// The file must never be written again.
    pub(crate) fn spoil(&self, file: FileId) {
        if let Some(kept) = self.inner.lock().kept.get_mut(&file) {
            kept.spoilt = true;
        }
    }

    /// How many files could be prepared ahead.
    pub(crate) fn missing_ready(&self) -> usize {
        self.prepared_files.saturating_sub(self.inner.lock().ready.len())
    }

    /// Prepares one file if fewer than `prepared_files` are ready; says
    /// whether it did.
    pub(crate) fn prepare_next(&self) -> Result<bool, Error> {
        let _naming = self.naming.lock();
        if self.missing_ready() == 0 {
            return Ok(false);
        }
        let ready = self.create(self.take_id(FileId(1)), self.file_bytes)?;
        self.inner.lock().ready.push_back(ready);
        Ok(true)
    }

    /// A file with room for `bytes`, ready to be written: prepared if there is
    /// one, otherwise made now. It counts as kept from here on.
    pub(crate) fn take(&self, bytes: u64) -> Result<Arc<OpenFile>, Error> {
        let prepared = self.inner.lock().ready.pop_front();
        let mut ready = match prepared {
            Some(ready) => ready,
            None => {
                let _naming = self.naming.lock();
                let prepared = self.inner.lock().ready.pop_front();
                match prepared {
                    Some(ready) => ready,
                    None => self.create(self.take_id(FileId(1)), self.file_bytes.max(bytes))?,
                }
            }
        };
        if ready.len < bytes
            && let Err(error) = self.extend(&mut ready, bytes)
        {
            self.inner.lock().ready.push_front(ready);
            return Err(error);
        }
        Ok(self.adopt(ready))
    }

    /// Counts a ready file as kept.
    pub(crate) fn adopt(&self, ready: ReadyFile) -> Arc<OpenFile> {
        let ReadyFile { id, path, file, len } = ready;
        let open = Arc::new(OpenFile { id, path, file, len });
        let kept = Kept { len, spoilt: false, open: Arc::downgrade(&open) };
        self.inner.lock().kept.insert(id, kept);
        open
    }

    /// Takes back a file that was taken and not written.
    pub(crate) fn put_back(&self, open: &OpenFile) {
        let mut inner = self.inner.lock();
        inner.kept.remove(&open.id);
        let (path, file) = (open.path.clone(), open.file.clone());
        inner.ready.push_front(ReadyFile { id: open.id, path, file, len: open.len });
    }

    /// Counts a file that was renamed to a fresh id as ready, or removes it if
    /// enough are. The caller syncs the directory before.
    pub(crate) fn add_ready(&self, ready: ReadyFile) {
        self.inner.lock().ready.push_back(ready);
    }

    /// Creates a file filled with zeros, durable with its name.
    pub(crate) fn create(&self, id: FileId, len: u64) -> Result<ReadyFile, Error> {
        let path = path_of(&self.dir, id);
        let made = self.disk.create(&path).and_then(|file| {
            fill(&*file, 0, len)?;
            self.disk.sync_dir(&self.dir)?;
            Ok(file)
        });
        match made {
            Ok(file) => Ok(ReadyFile { id, path, file, len }),
            Err(error) => {
                // If this fails too, the next start removes it.
                let _ = self.disk.remove(&path);
                Err(full_or(error, "prepare", path, len))
            }
        }
    }

    fn extend(&self, ready: &mut ReadyFile, len: u64) -> Result<(), Error> {
        let before = ready.len;
        let extended = fill(&*ready.file, before, len);
        match extended {
            Ok(()) => {
                ready.len = len;
                Ok(())
            }
            Err(error) => {
                // A file of another length is fine as well: its header says
                // how much of it counts. It only should not hold the room.
                let _ = ready.file.set_len(before);
                Err(full_or(error, "extend", ready.path.clone(), len))
            }
        }
    }

    /// Gives up all files up to `through` that are not needed to go on
    /// writing: recycled while the pool of ready files has room and no reader
    /// holds them, otherwise removed. Returns how many were given up.
    pub(crate) fn release_through(&self, through: FileId) -> Result<usize, Error> {
        let mut naming = self.naming.lock();
        let mut released = 0;
        loop {
            if naming.unsynced_release {
                // The one before must be gone for good, or a crash could bring
                // it back without this one.
                self.sync_dir()?;
                naming.unsynced_release = false;
            }
            let Some((id, kept, recycle)) = self.next_to_release(through) else {
                return Ok(released);
            };
            let path = path_of(&self.dir, id);
            naming.unsynced_release = true;
            let recycled = recycle && self.recycle(&path).is_ok();
            if !recycled && let Err(error) = self.remove(&path) {
                self.inner.lock().kept.insert(id, kept);
                return Err(error);
            }
            released += 1;
        }
    }

    /// Takes the oldest kept file out, if it may go; says whether to recycle it.
    fn next_to_release(&self, through: FileId) -> Option<(FileId, Kept, bool)> {
        let mut inner = self.inner.lock();
        let last_durable = inner.last_durable;
        let entry = inner.kept.first_entry()?;
        if *entry.key() > through || *entry.key() >= last_durable {
            return None;
        }
        let (id, kept) = entry.remove_entry();
        let recycle = !kept.spoilt
            && kept.len == self.file_bytes
            && kept.open.strong_count() == 0
            && inner.ready.len() < self.recycled_files_max;
        Some((id, kept, recycle))
    }

    /// Renames a file to a fresh id and counts it as ready once that is
    /// durable. After an error it is at most a file that nobody uses.
    fn recycle(&self, path: &Path) -> Result<(), Error> {
        let ready = self.rename(path, self.take_id(FileId(1)), self.file_bytes)?;
        if let Err(error) = self.sync_dir() {
            let _ = self.disk.remove(&ready.path);
            return Err(error);
        }
        self.inner.lock().ready.push_back(ready);
        Ok(())
    }

    /// Removes a file that may be gone already.
    fn remove(&self, path: &Path) -> Result<(), Error> {
        match self.disk.remove(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(Error::disk("remove", path)),
        }
    }

    /// Renames a file to `id`; the caller syncs the directory.
    pub(crate) fn rename(&self, from: &Path, id: FileId, len: u64) -> Result<ReadyFile, Error> {
        let file = self.disk.open(from).map_err(Error::disk("open", from))?;
        let path = path_of(&self.dir, id);
        self.disk.rename(from, &path).map_err(Error::disk("rename", from))?;
        Ok(ReadyFile { id, path, file, len })
    }

    pub(crate) fn sync_dir(&self) -> Result<(), Error> {
        self.disk.sync_dir(&self.dir).map_err(Error::disk("sync", &self.dir))
    }

    /// Holds a file open for reading; `None` if it was released or never was.
    pub(crate) fn pin(&self, id: FileId) -> Result<Option<Arc<OpenFile>>, Error> {
        let mut inner = self.inner.lock();
        let Some(kept) = inner.kept.get_mut(&id) else {
            return Ok(None);
        };
        if let Some(open) = kept.open.upgrade() {
            return Ok(Some(open));
        }
        let path = path_of(&self.dir, id);
        let file = self.disk.open_read(&path).map_err(Error::disk("open", &path))?;
        let open = Arc::new(OpenFile { id, path, file, len: kept.len });
        kept.open = Arc::downgrade(&open);
        Ok(Some(open))
    }

    /// Ids and lengths of the files that are kept, in order.
    pub(crate) fn kept(&self) -> Vec<(FileId, u64)> {
        self.inner.lock().kept.iter().map(|(id, kept)| (*id, kept.len)).collect()
    }

    /// Makes the reserve if it is wanted and not there.
    pub(crate) fn fill_reserve(&self) -> Result<(), Error> {
        let path = self.dir.join(RESERVE_NAME);
        let len = self.reserve_bytes;
        let _reserve = self.reserve.lock();
        let opened = match self.disk.open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            opened => Some(opened.map_err(Error::disk("open", &path))?),
        };
        if let Some(opened) = opened {
            if opened.len().map_err(Error::disk("measure", &path))? == len {
                return Ok(());
            }
            // Cut short by a crash, or another size was configured.
            drop(opened);
            self.disk.remove(&path).map_err(Error::disk("remove", &path))?;
        }
        if len == 0 {
            return Ok(());
        }
        let made = self.disk.create(&path).and_then(|file| {
            fill(&*file, 0, len)?;
            self.disk.sync_dir(&self.dir)
        });
        made.map_err(|error| {
            let _ = self.disk.remove(&path);
            full_or(error, "fill", path, len)
        })
    }

    /// Gives the reserve up; says whether there was one.
    pub(crate) fn release_reserve(&self) -> Result<bool, Error> {
        let path = self.dir.join(RESERVE_NAME);
        let _reserve = self.reserve.lock();
        match self.disk.remove(&path) {
            Ok(()) => self.sync_dir().map(|()| true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::disk("remove", &path)(error)),
        }
    }
}

/// Writes zeros and makes them durable, so that later writes allocate nothing.
/// In steps, or the writer's own syncs would wait behind a whole file.
fn fill(file: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    let mut position = from;
    while position < to {
        let len = (to - position).min(ZEROS.len() as u64);
        file.write_at(ZEROS.get(..len as usize).unwrap_or(ZEROS), position)?;
        position += len;
        if position == to || position.is_multiple_of(FILL_SYNC_BYTES) {
            file.sync_data()?;
        }
    }
    Ok(())
}

fn full_or(error: std::io::Error, doing: &'static str, path: PathBuf, bytes: u64) -> Error {
    match is_full(&error) {
        true => Error::Full { path, bytes, source: Arc::new(error) },
        false => Error::disk(doing, &path)(error),
    }
}

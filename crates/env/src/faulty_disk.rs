//! A disk in memory that loses, tears and refuses what a real one may. For
//! tests only (feature `faulty`).
//!
//! [`FaultyDisk`] has the fault model.

mod crash;
mod model;
mod pending;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};
use crash::Coverage;
pub use crash::CrashChoice;
use model::{FileId, Model, SyncFailure};

/// A disk in memory under a test's control. Clones are handles to the same disk.
///
/// It keeps two pictures: what processes see (the page cache) and what a power
/// cut leaves (the durable image), and between them the list of what is still
/// *pending*. The model, harsher than any one file system:
///
/// - A write is pending, sector by sector, until its file is synced; a cut may
///   keep any subset of the sectors. A sector is written whole, with whatever
///   the page cache held in it at that moment.
/// - A change of a file's length is pending until the file is synced. Lengths
///   of one file become durable in order; a length that is kept while data is
///   lost shows zeros, a length that is lost takes the data behind it along.
/// - A created, renamed or removed name is pending until its directory (for a
///   rename, the target's) is synced; syncing the file does not help it. A cut
///   may keep any subset, in order for each name. A rename is atomic.
/// - A directory is durable when `create_dir_all` returns.
/// - A failed sync of a file drops the pending writes: reads see them until the
///   cut, later syncs succeed, and the cut loses them, as on Linux.
///
/// Operations that change something are counted from 1, so that a test runs a
/// script once, reads [`FaultyDisk::operations`], and then runs it again for
/// each crash point.
#[derive(Debug, Clone)]
pub struct FaultyDisk {
    model: Arc<Mutex<Model>>,
    coverage: Arc<Coverage>,
}

impl FaultyDisk {
    /// An empty disk with 512-byte sectors and no capacity limit, holding the
    /// directory `/`. The seed decides what the model leaves open.
    pub fn new(seed: u64) -> FaultyDisk {
        FaultyDisk::with_sector_bytes(seed, 512)
    }

    /// An empty disk whose writes tear at multiples of `sector_bytes`
    /// (at least 1; 512 and 4,096 are what devices have).
    pub fn with_sector_bytes(seed: u64, sector_bytes: usize) -> FaultyDisk {
        FaultyDisk::of(Model::new(seed, sector_bytes.max(1)), Arc::default())
    }

    fn of(model: Model, coverage: Arc<Coverage>) -> FaultyDisk {
        FaultyDisk { model: Arc::new(Mutex::new(model)), coverage }
    }

    /// This disk behind the seam.
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Operations so far that changed, or were to change, something: creations
    /// of files and directories, writes, length changes, renames, removals and
    /// syncs of both kinds. Calls refused for their arguments do not count.
    pub fn operations(&self) -> u64 {
        self.model.lock().operations
    }

    /// File syncs so far.
    pub fn syncs(&self) -> u64 {
        self.model.lock().syncs
    }

    /// Writes so far.
    pub fn writes(&self) -> u64 {
        self.model.lock().writes
    }

    /// Reads so far.
    pub fn reads(&self) -> u64 {
        self.model.lock().reads
    }

    /// From operation number `nth` on (counted by [`FaultyDisk::operations`],
    /// the first is 1) every call fails. That operation itself may have
    /// happened, or a part of it: it is pending.
    pub fn crash_at(&self, nth: u64) {
        self.model.lock().crash_at = Some(nth);
    }

    /// Whether the power is off: a crash point was passed, or
    /// [`FaultyDisk::crash`] was called.
    pub fn is_crashed(&self) -> bool {
        self.model.lock().crashed
    }

    /// How much a power cut now would decide on: sectors, lengths and names.
    /// Bit `i` of [`CrashChoice::Subset`] stands for the i-th of them, oldest
    /// first.
    pub fn pending(&self) -> usize {
        self.model.lock().pending_units()
    }

    /// Cuts the power and returns the disk as it is found afterwards, without
    /// faults, crash points or capacity, and with its counters at zero. This
    /// disk fails every call from now on; it may be asked again, to see another
    /// outcome of the same cut.
    pub fn crash(&self, choice: CrashChoice) -> FaultyDisk {
        let mut model = self.model.lock();
        model.crashed = true;
        let found = crash::after_power_cut(&model, choice, &self.coverage);
        FaultyDisk::of(found, self.coverage.clone())
    }

    /// Lets file sync number `nth` (counted by [`FaultyDisk::syncs`]) fail with
    /// `EIO` and lose everything that was written since the last one.
    pub fn fail_sync(&self, nth: u64) {
        self.model.lock().failing_syncs.insert(nth, SyncFailure::LosesAll);
    }

    /// As [`FaultyDisk::fail_sync`], but some sectors, chosen by the seed, do
    /// reach the disk.
    pub fn fail_sync_partly(&self, nth: u64) {
        self.model.lock().failing_syncs.insert(nth, SyncFailure::LosesSome);
    }

    /// Lets write number `nth` (counted by [`FaultyDisk::writes`]) fail after
    /// some prefix of it, chosen by the seed and often empty.
    pub fn fail_write(&self, nth: u64, kind: io::ErrorKind) {
        self.model.lock().failing_writes.insert(nth, kind);
    }

    /// Lets read number `nth` (counted by [`FaultyDisk::reads`]) fail.
    pub fn fail_read(&self, nth: u64, kind: io::ErrorKind) {
        self.model.lock().failing_reads.insert(nth, kind);
    }

    /// Lets operation number `nth` fail, whichever it is, and do nothing; a
    /// file sync fails as in [`FaultyDisk::fail_sync`].
    pub fn fail_operation(&self, nth: u64, kind: io::ErrorKind) {
        self.model.lock().failing_operations.insert(nth, kind);
    }

    /// Limits the sum of all files' lengths. What would go beyond fails with
    /// `StorageFull`; a write has written what fitted. Nothing is cut off when
    /// the limit is below what is stored. `u64::MAX` lifts the limit.
    pub fn set_capacity(&self, bytes: u64) {
        self.model.lock().capacity = bytes;
    }

    /// Flips `bit` (0 to 7) of byte number `byte` of a file, in what is seen
    /// and in what is durable.
    pub fn corrupt(&self, path: &Path, byte: u64, bit: u8) -> io::Result<()> {
        self.model.lock().corrupt(path, byte, bit)
    }

    /// Cuts or zero-extends a file, durably.
    pub fn truncate_file(&self, path: &Path, len: u64) -> io::Result<()> {
        self.model.lock().overwrite(path, |bytes| {
            bytes.resize(len as usize, 0);
        })
    }

    /// Removes a file, durably.
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.model.lock().forget(path)
    }

    /// A file's bytes, as processes see them.
    pub fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.model.lock().content(path).map(<[u8]>::to_vec)
    }

    /// Creates or replaces a file and its directories, durably.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.model.lock().place(path, bytes)
    }

    /// All files, as processes see them, in the order of their names.
    pub fn files(&self) -> Vec<PathBuf> {
        self.model.lock().entries.keys().cloned().collect()
    }

    /// Writes of which a power cut, of this disk or one that it came from or
    /// led to, kept a part. A test run in which this stays zero proves little.
    pub fn torn_writes(&self) -> u64 {
        self.coverage.torn_writes()
    }

    /// Writes of which a power cut kept nothing, counted likewise.
    pub fn lost_writes(&self) -> u64 {
        self.coverage.lost_writes()
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.model.lock().create(path)?;
        Ok(self.handle(file, true))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.model.lock().open(path)?;
        Ok(self.handle(file, true))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.model.lock().open(path)?;
        Ok(self.handle(file, false))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.model.lock().rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.model.lock().rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.model.lock().remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.model.lock().sync_dir(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.model.lock().create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.model.lock().list(dir)
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.model.lock().list_dirs(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.model.lock().free_bytes(dir)
    }
}

impl FaultyDisk {
    fn handle(&self, file: FileId, writable: bool) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile { model: self.model.clone(), file, writable })
    }
}

#[derive(Debug)]
struct FaultyFile {
    model: Arc<Mutex<Model>>,
    file: FileId,
    writable: bool,
}

impl FaultyFile {
    fn check_writable(&self) -> io::Result<()> {
        match self.writable {
            true => Ok(()),
            false => Err(io::Error::other("the file is open for reading only")),
        }
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.model.lock().read_at(self.file, buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.check_writable()?;
        self.model.lock().write_at(self.file, bytes, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.model.lock().sync_data(self.file)
    }

    fn len(&self) -> io::Result<u64> {
        self.model.lock().len(self.file)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.model.lock().set_len(self.file, len)
    }
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        self.model.lock().close(self.file);
    }
}

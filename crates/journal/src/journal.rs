//! Writing: groups, syncs, and going on after a failure.
//!
//! The journal starts no thread and decides on no moment to sync. At every
//! point a crash leaves behind all groups up to [`Journal::synced_through`],
//! and of those after it a prefix or nothing.
//!
//! A file in which a write or a sync failed is never written or synced again:
//! after a failed sync the kernel calls pages clean that are not. The next
//! write goes to a new file, whose header says where the failed one ends; from
//! that file's first sync on, what came later in the failed one is absent for
//! certain. Header and first group share a sync, because nothing in the file is
//! acknowledged before it.

use std::path::Path;
use std::sync::Arc;

use aquifer_env::Disk;
use aquifer_types::{Epoch, GroupSequence};

use crate::error::Error;
use crate::files::{Files, OpenFile};
use crate::format::{BLOCK_BYTES, FileHeader, GROUP_HEADER_BYTES, Link, flag, padded};
use crate::group::{GroupBuilder, Place};
use crate::layout::{Layout, OtherFile};
use crate::reader::JournalReader;
use crate::recovery::{Recovered, ResumePoint, Tail};
use crate::{Durability, FileId, Options, Written};

/// The writer of a journal: one a directory.
#[derive(Debug)]
pub struct Journal {
    files: Arc<Files>,
    options: Options,
    epoch: Epoch,
    start: Start,
    current: Option<Current>,
    /// Where the last durable group ends: what the next file's header says.
    link: Option<Link>,
    last_written: GroupSequence,
    synced_through: GroupSequence,
    unsynced_bytes: u64,
    /// Whether a failure left behind what may or may not have happened.
    unsettled: bool,
    /// Whether the last thing in the journal is a clean mark, or nothing.
    clean: bool,
    /// Whether the last group of the present file is a mark.
    marked: bool,
}

/// What is to be done before the first write.
#[derive(Debug)]
enum Start {
    Ahead { tail: Option<Tail>, spare: Vec<OtherFile> },
    Done,
    Failed,
}

/// The file that is being written.
#[derive(Debug)]
struct Current {
    open: Arc<OpenFile>,
    /// Where the next group goes; 0 while there is no header.
    position: u64,
    header_synced: bool,
}

impl Current {
    fn fits(&self, bytes: u64) -> bool {
        self.position.saturating_add(bytes) <= self.open.len
    }
}

impl Journal {
    /// Examines the journal in `dir`, which need not exist, and readies it for
    /// writing under `epoch`. Changes nothing on the disk: that waits for
    /// [`Journal::start`] or the first write, so that a caller may refuse what
    /// it recovers. The caller holds the directory's lock.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::MissingFile`] or [`Error::Version`] if what
    /// was once durable is not there, [`Error::Fenced`] if a file bears a higher
    /// epoch, [`Error::Option`], [`Error::Disk`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        epoch: Epoch,
    ) -> Result<(Journal, Recovered), Error> {
        let options = options.checked()?;
        let layout = Layout::read(&disk, dir)?;
        if layout.epoch() > epoch {
            return Err(Error::Fenced { found: layout.epoch(), given: epoch });
        }
        let (recovered, resume) = Recovered::examine(disk.clone(), dir, &layout)?;
        let ResumePoint { link, proved, tail } = resume;
        let files = Files::new(disk, dir.to_owned(), &options);
        let failed = |id: FileId| link.is_none_or(|link| link.file != id);
        for (index, file) in layout.chain.iter().enumerate() {
            let last = index + 1 == layout.chain.len();
            files.keep_found(file.id, file.header.file_bytes, last && failed(file.id));
        }
        for file in &layout.void {
            files.keep_found(file.id, file.len, true);
        }
        if let Some(link) = link {
            files.set_last_durable(link.file);
        }
        // The tail's target comes first, so that its place is known already.
        if tail.is_some() {
            files.take_id(layout.next_id);
        } else {
            files.skip_ids(layout.next_id);
        }
        let journal = Journal {
            files: Arc::new(files),
            options,
            epoch,
            start: Start::Ahead { tail, spare: layout.spare },
            current: None,
            link,
            last_written: proved,
            synced_through: proved,
            unsynced_bytes: 0,
            unsettled: false,
            clean: recovered.is_clean_shutdown(),
            marked: false,
        };
        Ok((journal, recovered))
    }

    /// Goes on under another epoch, for a caller that learns its own from what
    /// it recovers. To be called before the first write: a file has one epoch,
    /// so it is ignored while there is one.
    ///
    /// # Errors
    /// [`Error::Fenced`] if it is lower than the present one.
    pub fn set_epoch(&mut self, epoch: Epoch) -> Result<(), Error> {
        if epoch < self.epoch {
            return Err(Error::Fenced { found: self.epoch, given: epoch });
        }
        if self.current.is_none() {
            self.epoch = epoch;
        }
        Ok(())
    }

    /// Does what must precede the first write: makes the directory, takes over
    /// files that an earlier run prepared, and copies groups that are not proved
    /// durable into a new file. Writing calls it by itself; a second call does
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::Disk`]. This journal is of no use then
    /// ([`Error::Closed`]): open it again, which loses nothing.
    pub fn start(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.start, Start::Failed) {
            Start::Done => {}
            Start::Failed => return Err(Error::Closed),
            Start::Ahead { tail, spare } => {
                let files = self.files.clone();
                let made = files.disk.create_dir_all(&files.dir);
                made.map_err(Error::disk("create", &files.dir))?;
                let target = self.take_over(&spare, tail.as_ref())?;
                if let (Some(tail), Some(target)) = (tail, target) {
                    self.copy_tail(&tail, target)?;
                }
            }
        }
        self.start = Start::Done;
        Ok(())
    }

    /// Gives spare files fresh ids, or removes them; returns the file for the
    /// tail, if there is one to copy.
    fn take_over(
        &mut self,
        spare: &[OtherFile],
        tail: Option<&Tail>,
    ) -> Result<Option<Arc<OpenFile>>, Error> {
        let files = self.files.clone();
        let mut target = None;
        let mut ready = Vec::new();
        for file in spare {
            let usable = file.len == self.options.file_bytes;
            let wanted = tail.filter(|tail| target.is_none() && fits_tail(file.len, tail));
            if let Some(tail) = wanted.filter(|_| usable) {
                target = Some(files.rename(&file.path, tail.target, file.len)?);
            } else if usable && ready.len() < self.options.recycled_files_max {
                let id = files.take_id(FileId(1));
                ready.push(files.rename(&file.path, id, file.len)?);
            } else {
                files.disk.remove(&file.path).map_err(Error::disk("remove", &file.path))?;
            }
        }
        if !spare.is_empty() {
            files.sync_dir()?;
        }
        ready.into_iter().for_each(|file| files.add_ready(file));
        let Some(tail) = tail else {
            return Ok(None);
        };
        let target = match target {
            Some(target) => target,
            None => {
                let len = self.options.file_bytes.max(BLOCK_BYTES + tail.bytes());
                files.create(tail.target, len)?
            }
        };
        Ok(Some(files.adopt(target)))
    }

    /// Writes the tail's groups, then the header. In this order, because the
    /// header declares void what the groups were copied from.
    fn copy_tail(&mut self, tail: &Tail, target: Arc<OpenFile>) -> Result<(), Error> {
        let files = self.files.clone();
        let mut position = BLOCK_BYTES;
        let mut copy = GroupBuilder::new(0);
        tail.for_each(&*files.disk, |group, to| {
            copy.copy_from(&group);
            let place = Place {
                file: target.id,
                epoch: self.epoch,
                position: to,
                sequence: group.sequence(),
                synced_through: self.synced_through,
                flags: group.header().flags & !flag::HEADER_SYNCED,
            };
            let bytes = copy.finish(place);
            position = to + bytes.len() as u64;
            target.file.write_at(bytes, to).map_err(Error::disk("write", &target.path))
        })?;
        target.file.sync_data().map_err(Error::disk("sync", &target.path))?;
        let header = self.header_of(&target);
        let written = target.file.write_at(&header.encode(), 0);
        written.map_err(Error::disk("write", &target.path))?;
        target.file.sync_data().map_err(Error::disk("sync", &target.path))?;
        self.last_written = tail.last;
        self.current = Some(Current { open: target, position, header_synced: false });
        self.note_synced();
        Ok(())
    }

    /// Writes a group behind the last one. It is durable once
    /// [`Journal::sync`] has returned; several may be written before that.
    /// `durability` is only noted in the group.
    ///
    /// # Errors
    /// Definite, and the journal stands as before: [`Error::GroupTooLarge`],
    /// [`Error::Full`], [`Error::Disk`]. Indefinite: [`Error::Write`] and
    /// [`Error::Sync`]; then every group after
    /// [`Journal::synced_through`] is lost or may be, this one included, and the
    /// next write goes on behind that one. [`Error::Closed`] after a failed start.
    pub fn write(
        &mut self,
        group: &mut GroupBuilder,
        durability: Durability,
    ) -> Result<Written, Error> {
        let flags = match durability {
            Durability::Sync => 0,
            Durability::Relaxed => flag::RELAXED,
        };
        self.put(group, flags)
    }

    fn put(&mut self, group: &mut GroupBuilder, flags: u8) -> Result<Written, Error> {
        self.start()?;
        let (len, len_max) = (group.len_bytes(), self.options.group_bytes_max);
        if len > len_max {
            return Err(Error::GroupTooLarge { bytes: len, bytes_max: len_max });
        }
        let bytes = padded(len);
        let unsynced = self.unsynced_bytes;
        if unsynced > 0 && unsynced.saturating_add(bytes) > self.options.unsynced_bytes_max {
            self.sync()?;
        }
        if !self.current.as_ref().is_some_and(|current| current.fits(bytes)) {
            self.next_file(bytes)?;
        }
        let Some(current) = &mut self.current else {
            return Err(Error::Closed);
        };
        let sequence = GroupSequence(self.last_written.0 + 1);
        let header_synced = if current.header_synced { flag::HEADER_SYNCED } else { 0 };
        let place = Place {
            file: current.open.id,
            epoch: self.epoch,
            position: current.position,
            sequence,
            synced_through: self.synced_through,
            flags: flags | header_synced,
        };
        // INV-J1: a group vouches for earlier ones only. Recovery refuses others.
        assert!(place.synced_through < sequence, "INV-J1: group {sequence} vouches for itself");
        let written = Written { sequence, file: place.file, position: place.position };
        if let Err(source) = current.open.file.write_at(group.finish(place), place.position) {
            return Err(self.fail_write(place.position, source));
        }
        current.position += bytes;
        self.unsynced_bytes += bytes;
        self.last_written = sequence;
        self.clean = flags & flag::CLEAN != 0;
        self.marked = flags & flag::SYNC_MARK != 0;
        Ok(written)
    }

    /// Goes on to a file with room for `bytes` of groups.
    fn next_file(&mut self, bytes: u64) -> Result<(), Error> {
        let next = self.files.take(BLOCK_BYTES + bytes)?;
        // The old file's end must be durable before a header vouches for it.
        if let Err(error) = self.sync() {
            self.files.put_back(&next);
            return Err(error);
        }
        let header = self.header_of(&next);
        let written = next.file.write_at(&header.encode(), 0);
        self.current = Some(Current { open: next, position: BLOCK_BYTES, header_synced: false });
        written.map_err(|source| self.fail_write(0, source))
    }

    fn header_of(&self, file: &OpenFile) -> FileHeader {
        FileHeader {
            file: file.id,
            epoch: self.epoch,
            created_ms: self.options.clock.now_ms(),
            first_sequence: GroupSequence(self.synced_through.0 + 1),
            previous: self.link,
            synced_through: self.synced_through,
            file_bytes: file.len,
        }
    }

    /// Makes every group that was written durable. Does nothing if they are.
    ///
    /// # Errors
    /// [`Error::Sync`]: indefinite, see [`Journal::write`].
    pub fn sync(&mut self) -> Result<(), Error> {
        let Some(current) = &self.current else {
            return Ok(());
        };
        if current.header_synced && self.last_written == self.synced_through {
            return Ok(());
        }
        match current.open.file.sync_data() {
            Ok(()) => {
                self.note_synced();
                Ok(())
            }
            Err(source) => {
                let path = current.open.path.clone();
                self.fail();
                let synced_through = self.synced_through;
                Err(Error::Sync { path, synced_through, source: Arc::new(source) })
            }
        }
    }

    fn note_synced(&mut self) {
        if let Some(current) = &mut self.current {
            current.header_synced = true;
            self.link = Some(Link { file: current.open.id, end: current.position });
            self.files.set_last_durable(current.open.id);
        }
        self.synced_through = self.last_written;
        self.unsynced_bytes = 0;
        self.unsettled = false;
    }

    fn fail_write(&mut self, position: u64, source: std::io::Error) -> Error {
        let sequence = GroupSequence(self.last_written.0 + 1);
        let path = self.current.as_ref().map(|current| current.open.path.clone());
        self.fail();
        Error::Write {
            path: path.unwrap_or_default(),
            position,
            sequence,
            synced_through: self.synced_through,
            source: Arc::new(source),
        }
    }

    /// Leaves the present file for good and forgets what was not synced.
    fn fail(&mut self) {
        if let Some(current) = self.current.take() {
            self.files.spoil(current.open.id);
        }
        self.last_written = self.synced_through;
        self.unsynced_bytes = 0;
        self.unsettled = true;
        self.clean = false;
        self.marked = false;
    }

    /// After a failure: makes certain that nothing after
    /// [`Journal::synced_through`] will ever be recovered, by making a new
    /// file's header durable. Without a failure it does nothing. A synced write
    /// does the same.
    ///
    /// # Errors
    /// As of [`Journal::write`]; it can be called again.
    pub fn settle(&mut self) -> Result<(), Error> {
        if !self.unsettled {
            return Ok(());
        }
        if self.current.is_none() {
            self.start()?;
            self.next_file(GROUP_HEADER_BYTES as u64)?;
        }
        self.sync()
    }

    /// Makes everything durable and says so in a mark of its own, so that no
    /// group remains at the end of which recovery would have to guess. `clean`
    /// marks an orderly shutdown. Does nothing where no group was written since
    /// the last mark of that kind.
    ///
    /// # Errors
    /// As of [`Journal::write`]. If only the mark failed, nothing is lost:
    /// [`Journal::synced_through`] tells.
    pub fn write_sync_mark(&mut self, clean: bool) -> Result<(), Error> {
        let needless = match clean {
            true => self.clean,
            false => self.marked || self.current.is_none(),
        };
        if needless {
            return Ok(());
        }
        self.start()?;
        self.sync()?;
        let flags = if clean { flag::SYNC_MARK | flag::CLEAN } else { flag::SYNC_MARK };
        self.put(&mut GroupBuilder::new(0), flags)?;
        self.sync()
    }

    /// Every group up to this one is durable.
    #[must_use]
    pub fn synced_through(&self) -> GroupSequence {
        self.synced_through
    }

    /// The last group that was written, durable or not.
    #[must_use]
    pub fn last_written(&self) -> GroupSequence {
        self.last_written
    }

    /// How many bytes were written since the last sync.
    #[must_use]
    pub fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes
    }

    /// The file that is being written, once there is one.
    #[must_use]
    pub fn current_file(&self) -> Option<FileId> {
        self.current.as_ref().map(|current| current.open.id)
    }

    /// Reads payloads while the journal is written.
    #[must_use]
    pub fn reader(&self) -> JournalReader {
        JournalReader::new(self.files.clone())
    }

    /// What another thread may do beside the writer.
    #[must_use]
    pub fn maintenance(&self) -> Maintenance {
        Maintenance { files: self.files.clone() }
    }

    /// See [`Maintenance::prepare_next`].
    ///
    /// # Errors
    /// The same, and those of [`Journal::start`].
    pub fn prepare_next(&mut self) -> Result<bool, Error> {
        self.start()?;
        self.maintenance().prepare_next()
    }

    /// See [`Maintenance::release_through`].
    ///
    /// # Errors
    /// The same, and those of [`Journal::start`].
    pub fn release_through(&mut self, file: FileId) -> Result<usize, Error> {
        self.start()?;
        self.maintenance().release_through(file)
    }
}

fn fits_tail(len: u64, tail: &Tail) -> bool {
    BLOCK_BYTES + tail.bytes() <= len
}

/// The files of a started journal, for a thread beside the writer. Cheap to
/// clone; all calls block.
#[derive(Debug, Clone)]
pub struct Maintenance {
    files: Arc<Files>,
}

impl Maintenance {
    /// How many files could be prepared.
    #[must_use]
    pub fn missing_files(&self) -> usize {
        self.files.missing_ready()
    }

    /// Makes one file ready ahead, if fewer than `prepared_files` are; says
    /// whether it did. The writer waits for a file that is being made, and makes
    /// its own where none is.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Disk`]; nothing is left behind then.
    pub fn prepare_next(&self) -> Result<bool, Error> {
        self.files.prepare_next()
    }

    /// Gives up the files up to and including `file`, which nobody needs any
    /// more; returns how many. They are recycled or removed. The newest file
    /// that is durable always stays, since it tells how to go on. A file that is
    /// pinned is removed, and readable until the pin is dropped.
    ///
    /// # Errors
    /// [`Error::Disk`]; the rest is kept and can be released again.
    pub fn release_through(&self, file: FileId) -> Result<usize, Error> {
        self.files.release_through(file)
    }

    /// Ids and lengths in bytes of the files that were not released, in order;
    /// prepared files are not among them.
    #[must_use]
    pub fn files(&self) -> Vec<(FileId, u64)> {
        self.files.kept()
    }

    /// Makes the file `reserve` of `disk_reserve_bytes`, if it is not there.
    ///
    /// # Errors
    /// [`Error::Full`] or [`Error::Disk`]; nothing is left behind then.
    pub fn fill_reserve(&self) -> Result<(), Error> {
        self.files.fill_reserve()
    }

    /// Removes the file `reserve`, so that what frees room has room to work;
    /// says whether it was there.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub fn release_reserve(&self) -> Result<bool, Error> {
        self.files.release_reserve()
    }
}

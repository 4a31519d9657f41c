//! A journal under test beside the history that it must agree with.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aquifer_env::{CrashChoice, FaultyDisk, MockClock};
use aquifer_journal::{
    Durability, Error, FileId, GroupBuilder, Journal, Options, Recovered, Written,
};
use aquifer_types::{Epoch, GroupSequence};

pub fn dir() -> PathBuf {
    PathBuf::from("/journal")
}

/// Small files, so that a short script goes through several.
pub fn options() -> Options {
    Options {
        file_bytes: 24 << 10,
        group_bytes_max: 64 << 10,
        prepared_files: 1,
        recycled_files_max: 1,
        unsynced_bytes_max: 20 << 10,
        disk_reserve_bytes: 0,
        clock: Arc::new(MockClock::new(1_700_000_000_000)),
    }
}

/// A group that can be told from every other by `id`.
pub fn group(id: u64, bytes: usize) -> GroupBuilder {
    let mut group = GroupBuilder::new(bytes);
    group.push(1, &id.to_le_bytes(), &[&content(id, bytes)]).unwrap();
    group.push((id % 200) as u8, b"second", &[]).unwrap();
    group
}

/// Bytes that tell their group and their place in it. The golden files hold
/// some, so this never changes.
pub fn content(id: u64, bytes: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(bytes + 8);
    for word in 0..bytes.div_ceil(8) as u64 {
        content.extend_from_slice(&(id << 32 | word).to_le_bytes());
    }
    content.truncate(bytes);
    content
}

/// Everything in a journal, as (sequence, id); marks have id 0. Checks that
/// each group is what was written under its id, and that sequences have no gap.
pub fn read_all(recovered: &Recovered) -> Result<Vec<(u64, u64)>, Error> {
    let mut found = Vec::new();
    let mut expected = recovered.first_sequence();
    recovered.for_each_group(expected, |group| {
        assert_eq!(group.sequence(), expected);
        expected = GroupSequence(expected.0 + 1);
        if group.is_sync_mark() {
            assert_eq!(group.frame_count(), 0);
            found.push((group.sequence().0, 0));
            return Ok(());
        }
        let frames: Vec<_> = group.frames().collect();
        assert_eq!(frames.len(), 2);
        let id = u64::from_le_bytes(frames[0].meta.try_into().unwrap());
        assert!(frames[0].payload == content(id, frames[0].payload.len()), "wrong bytes in {id}");
        assert_eq!((frames[0].kind, frames[1].kind), (1, (id % 200) as u8));
        assert_eq!((frames[1].meta, frames[1].payload), (&b"second"[..], &b""[..]));
        found.push((group.sequence().0, id));
        Ok::<(), Error>(())
    })?;
    assert_eq!(recovered.last_sequence().0 + 1, expected.0);
    Ok(found)
}

pub fn open(disk: &FaultyDisk, epoch: u32) -> Result<(Journal, Recovered), Error> {
    Journal::open(disk.disk(), &dir(), options(), Epoch(epoch))
}

/// One step of a script.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    /// Write a group with that many bytes of payload.
    Write(usize),
    WriteRelaxed(usize),
    Sync,
    Mark,
    CleanMark,
    Settle,
    Prepare,
    /// Give up all files; the newest durable one must stay nevertheless.
    ReleaseOld,
    /// Let go of the journal without a word, and open it again.
    Reopen,
}

/// Runs scripts, and knows what must be found afterwards.
#[derive(Debug)]
pub struct Driver {
    pub disk: FaultyDisk,
    journal: Option<Journal>,
    epoch: u32,
    pub history: History,
    next_id: u64,
    files: BTreeMap<FileId, u64>,
    pub failures: u64,
}

#[derive(Debug, Clone, Default)]
pub struct History {
    /// What a returned sync covers: (sequence, id).
    synced: Vec<(u64, u64)>,
    /// What was written since.
    written: Vec<(u64, u64)>,
    /// What was written behind `synced` and failed since.
    failed: Vec<Vec<(u64, u64)>>,
    /// Groups before this one may be gone.
    needed_from: u64,
}

impl History {
    fn advance(&mut self, through: GroupSequence) {
        let count = self.written.iter().take_while(|(sequence, _)| *sequence <= through.0).count();
        if count > 0 {
            self.synced.extend(self.written.drain(..count));
            self.failed.clear();
        }
    }

    fn fail(&mut self) {
        let lost = std::mem::take(&mut self.written);
        self.failed.push(lost);
    }

    /// Panics unless `found` is everything synced, then a beginning of what
    /// was written and not synced.
    pub fn check(&self, found: &[(u64, u64)], what: &str) {
        let data = |list: &[(u64, u64)]| -> Vec<(u64, u64)> {
            list.iter().copied().filter(|(_, id)| *id != 0).collect()
        };
        let (found, synced) = (data(found), data(&self.synced));
        let first = found.first().map_or(self.needed_from, |(sequence, _)| *sequence);
        let first = first.min(self.needed_from);
        let synced: Vec<_> =
            synced.into_iter().filter(|(sequence, _)| *sequence >= first).collect();
        assert!(
            found.len() >= synced.len() && found[..synced.len()] == synced[..],
            "{what}: acknowledged groups are missing or changed\nfound {found:?}\n{self:?}"
        );
        let rest = &found[synced.len()..];
        let fits = |branch: &Vec<(u64, u64)>| data(branch).starts_with(rest);
        assert!(
            fits(&self.written) || self.failed.iter().any(fits),
            "{what}: what was not synced came back otherwise than written\nfound {found:?}\n{self:?}"
        );
    }

    /// From now on exactly `found` is there.
    pub fn settle(&mut self, found: &[(u64, u64)]) {
        self.synced = found.to_vec();
        self.written.clear();
        self.failed.clear();
        self.needed_from = found.first().map_or(self.needed_from, |(sequence, _)| *sequence);
    }
}

impl Driver {
    pub fn new(disk: FaultyDisk) -> Driver {
        Driver {
            disk,
            journal: None,
            epoch: 0,
            history: History { needed_from: 1, ..History::default() },
            next_id: 1,
            files: BTreeMap::new(),
            failures: 0,
        }
    }

    /// Goes on with what a power cut left.
    pub fn after_crash(&self, choice: CrashChoice) -> Driver {
        Driver {
            disk: self.disk.crash(choice),
            journal: None,
            epoch: self.epoch,
            history: self.history.clone(),
            next_id: self.next_id,
            files: BTreeMap::new(),
            failures: 0,
        }
    }

    /// Opens the journal and checks what it holds.
    pub fn open(&mut self, what: &str) -> Result<(), Error> {
        self.journal = None;
        self.epoch += 1;
        let (mut journal, recovered) = open(&self.disk, self.epoch)?;
        let found = read_all(&recovered)?;
        self.history.check(&found, what);
        journal.start()?;
        self.history.settle(&found);
        // The model's next sequence: a mark at the end may have been dropped.
        self.files =
            recovered.files().iter().map(|file| (file.file, file.first_sequence.0)).collect();
        self.journal = Some(journal);
        Ok(())
    }

    /// Does the steps; a failing one is noted, and the next one tried, unless
    /// the power is off.
    pub fn run(&mut self, script: &[Op]) {
        for (index, op) in script.iter().enumerate() {
            if self.journal.is_none()
                && let Err(error) = self.open(&format!("before step {index}"))
            {
                self.note(&error);
                if self.disk.is_crashed() {
                    return;
                }
                continue;
            }
            if let Err(error) = self.step(*op) {
                self.note(&error);
            }
            if self.disk.is_crashed() {
                return;
            }
        }
    }

    fn note(&mut self, error: &Error) {
        let damaged = matches!(
            error,
            Error::Damaged { .. } | Error::MissingFile { .. } | Error::MissingGroups { .. }
        );
        assert!(!damaged, "a sound journal was refused: {error}");
        self.failures += 1;
    }

    pub fn step(&mut self, op: Op) -> Result<(), Error> {
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        let before = journal.last_written();
        let result = match op {
            Op::Write(bytes) | Op::WriteRelaxed(bytes) => {
                let durability = match op {
                    Op::Write(_) => Durability::Sync,
                    _ => Durability::Relaxed,
                };
                let id = self.next_id;
                self.next_id += 1;
                self.history.written.push((before.0 + 1, id));
                let result = journal.write(&mut group(id, bytes), durability);
                if let Ok(Written { sequence, file, position }) = &result {
                    assert_eq!(self.history.written.last(), Some(&(sequence.0, id)));
                    assert_eq!(position % 4096, 0);
                    self.files.entry(*file).or_insert(sequence.0);
                } else if result.as_ref().is_err_and(Error::is_definite) {
                    self.history.written.pop();
                }
                result.map(|_| ())
            }
            Op::Sync => journal.sync(),
            Op::Mark | Op::CleanMark => {
                self.history.written.push((before.0 + 1, 0));
                let result = journal.write_sync_mark(matches!(op, Op::CleanMark));
                let written = journal.last_written() != before
                    || result.as_ref().is_err_and(|e| !e.is_definite());
                if !written {
                    self.history.written.pop();
                } else if let (Ok(()), Some(file)) = (&result, journal.current_file()) {
                    self.files.entry(file).or_insert(journal.last_written().0);
                }
                result
            }
            Op::Settle => {
                let result = journal.settle();
                if result.is_ok() {
                    self.history.failed.clear();
                }
                result
            }
            Op::Prepare => journal.prepare_next().map(|_| ()),
            Op::ReleaseOld => {
                let newest = self.files.iter().next_back().map(|(file, first)| (*file, *first));
                match newest {
                    // Only what lies before the newest file with a known group:
                    // settling may have gone on to a newer one without any.
                    Some((newest, first)) => {
                        self.history.needed_from = self.history.needed_from.max(first);
                        journal.release_through(FileId(newest.0 - 1)).map(|_| ())
                    }
                    _ => Ok(()),
                }
            }
            Op::Reopen => return self.open("after reopening"),
        };
        if let Some(journal) = &self.journal {
            self.history.advance(journal.synced_through());
        }
        if result.as_ref().is_err_and(|error| !error.is_definite()) {
            self.history.fail();
        }
        result
    }
}

/// Every file of a directory on a faulty disk, with its bytes.
pub fn image(disk: &FaultyDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |path: PathBuf| (path.clone(), disk.read_file(&path).unwrap());
    disk.files().into_iter().map(read).collect()
}

pub fn place(disk: &FaultyDisk, image: &[(PathBuf, Vec<u8>)]) {
    for (path, bytes) in image {
        disk.write_file(path, bytes).unwrap();
    }
}

pub fn path_of(file: u64) -> PathBuf {
    Path::new("/journal").join(format!("{file:020}.journal"))
}

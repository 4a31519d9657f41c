//! Reading one file's groups in order, and looking for any that are alive.
//!
//! Reads large pieces into one bounded buffer and changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aquifer_env::DiskFile;
use aquifer_types::{Epoch, GroupSequence};

use crate::FileId;
use crate::error::Error;
use crate::format::{BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, padded};
use crate::group::Group;

/// How much is read at once, unless a group is longer.
const READ_BYTES: u64 = 4 << 20;

/// Goes through the groups of one file.
#[derive(Debug)]
pub(crate) struct Scanner {
    window: Window,
    file: FileId,
    epoch: Epoch,
    position: u64,
    end: u64,
}

/// What comes next in a file.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    Group(Group<'a>),
    /// The end was reached exactly.
    End,
    /// What is there is not the expected group, and why.
    Invalid(&'static str),
}

impl Scanner {
    /// Reads `opened` from the first group up to `end`.
    pub(crate) fn new(
        opened: Arc<dyn DiskFile>,
        path: PathBuf,
        file: FileId,
        epoch: Epoch,
        end: u64,
    ) -> Scanner {
        let window = Window { opened, path, start: 0, filled: 0, bytes: Vec::new(), end };
        Scanner { window, file, epoch, position: BLOCK_BYTES, end }
    }

    /// Goes on at another position.
    pub(crate) fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// Where the next group ought to begin.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn path(&self) -> &Path {
        &self.window.path
    }

    /// The next group, which must have the sequence `expected`. After
    /// `Invalid` the scanner stays where it is.
    pub(crate) fn next(&mut self, expected: GroupSequence) -> Result<Step<'_>, Error> {
        let room = self.end.saturating_sub(self.position);
        if room == 0 {
            return Ok(Step::End);
        }
        if room < BLOCK_BYTES {
            return Ok(Step::Invalid("the file ends within a block"));
        }
        let start = self.window.get(self.position, GROUP_HEADER_BYTES as u64)?;
        let Some(header) = GroupHeader::decode(start, self.file, self.position) else {
            return Ok(Step::Invalid("no group begins here"));
        };
        if header.epoch != self.epoch {
            return Ok(Step::Invalid("the group's epoch is not the file's"));
        }
        if header.sequence != expected {
            return Ok(Step::Invalid("the group has another sequence"));
        }
        let len = u64::from(header.len);
        if len < GROUP_HEADER_BYTES as u64 || padded(len) > room {
            return Ok(Step::Invalid("the group's length cannot be"));
        }
        let position = self.position;
        let bytes = self.window.get(position, len)?;
        match Group::check(header, bytes, self.file, position) {
            Ok(group) => {
                self.position = position + padded(len);
                Ok(Step::Group(group))
            }
            Err(why) => Ok(Step::Invalid(why)),
        }
    }

    /// Calls `found` with every group header that was written for its place,
    /// at `from` or later, until it returns `false`.
    pub(crate) fn find_alive(
        &mut self,
        from: u64,
        mut found: impl FnMut(u64, GroupHeader) -> bool,
    ) -> Result<(), Error> {
        let mut position = from;
        while position.saturating_add(BLOCK_BYTES) <= self.end {
            let start = self.window.get(position, GROUP_HEADER_BYTES as u64)?;
            if let Some(header) = GroupHeader::decode(start, self.file, position)
                && !found(position, header)
            {
                return Ok(());
            }
            position += BLOCK_BYTES;
        }
        Ok(())
    }
}

/// A piece of a file in memory.
#[derive(Debug)]
struct Window {
    opened: Arc<dyn DiskFile>,
    path: PathBuf,
    start: u64,
    filled: usize,
    bytes: Vec<u8>,
    /// Nothing is read at or beyond.
    end: u64,
}

impl Window {
    /// The bytes at `position`; they must lie before `end`.
    fn get(&mut self, position: u64, len: u64) -> Result<&[u8], Error> {
        let held = position.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let held = held.filter(|skip| *skip <= self.filled);
        let missing = match held {
            Some(skip) => ((self.filled - skip) as u64) < len,
            None => true,
        };
        if missing {
            self.fill(position, len, held)?;
        }
        let skip = (position - self.start) as usize;
        let bytes = self.bytes.get(skip..skip + len as usize);
        bytes.ok_or_else(|| self.failed(std::io::ErrorKind::UnexpectedEof.into()))
    }

    fn fill(&mut self, position: u64, len: u64, held: Option<usize>) -> Result<(), Error> {
        let skip = held.unwrap_or(self.filled);
        let kept = self.filled - skip;
        let wanted = len.max(READ_BYTES).min(self.end.saturating_sub(position)) as usize;
        if self.bytes.len() < wanted {
            let mut larger = vec![0; wanted];
            if let (Some(to), Some(from)) =
                (larger.get_mut(..kept), self.bytes.get(skip..self.filled))
            {
                to.copy_from_slice(from);
            }
            self.bytes = larger;
        } else {
            self.bytes.copy_within(skip..self.filled, 0);
        }
        (self.start, self.filled) = (position, kept);
        if let Some(rest) = self.bytes.get_mut(kept..wanted) {
            let read = self.opened.read_at(rest, position + kept as u64);
            read.map_err(|error| self.failed(error))?;
            self.filled = wanted;
        }
        Ok(())
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::disk("read", &self.path)(error)
    }
}

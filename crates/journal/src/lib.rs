//! The durable write-ahead log: append, group commit, recover, truncate.
//!
//! A journal is a directory of files that are prepared ahead and recycled, and
//! holds numbered groups of opaque frames. It never knows streams, and it has
//! no opinion on when to sync: [`Journal`] is a synchronous state machine
//! behind [`aquifer_env::Disk`], so that tests can cut the power between any
//! two of its steps; its user gives it threads.
//!
//! What a crash leaves behind, at any point: every group that a returned sync
//! covers, in order; of those after it a prefix, possibly empty; and nothing
//! that an earlier recovery had cut. Damage to what is proved to have been
//! synced is refused by name and never taken for a torn tail ([`Error::Damaged`]).
//! The format and why this holds are described in `format.rs`.
//!
//! ```
//! # use std::sync::Arc;
//! # use aquifer_journal::{Durability, Error, GroupBuilder, Journal, Options};
//! # use aquifer_types::{Epoch, GroupSequence};
//! # fn main() -> Result<(), Error> {
//! # let temporary = tempfile::tempdir().unwrap();
//! # let dir = temporary.path();
//! let disk = Arc::new(aquifer_env::RealDisk::new());
//! let options = Options { file_bytes: 1 << 20, ..Options::default() };
//! let (mut journal, recovered) = Journal::open(disk, dir, options, Epoch(1))?;
//! recovered.for_each_group(GroupSequence(1), |group| {
//!     println!("group {} has {} frames", group.sequence(), group.frame_count());
//!     Ok::<(), Error>(())
//! })?;
//! let mut group = GroupBuilder::new(4096);
//! group.push(1, b"meta", &[b"payload"])?;
//! let written = journal.write(&mut group, Durability::Sync)?;
//! journal.sync()?;
//! assert_eq!(journal.synced_through(), written.sequence);
//! # Ok(())
//! # }
//! ```

mod error;
mod files;
mod format;
mod group;
mod journal;
mod layout;
mod reader;
mod recovery;
mod scan;
mod verify;

use std::fmt;
use std::sync::Arc;

use aquifer_env::{Clock, RealClock};
use aquifer_types::GroupSequence;

pub use error::{Error, Expected};
pub use group::{Frame, FrameAt, Frames, Group, GroupBuilder};
pub use journal::{Journal, Maintenance};
pub use reader::{JournalReader, PinnedFile};
pub use recovery::{FileSummary, Recovered, TornTail};
pub use verify::{DamagedRange, Report, verify};

/// The number of a journal file, from 1; never given twice in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When a group is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After a sync.
    Sync,
    /// After the write: it survives the process, not the machine.
    Relaxed,
}

/// Where a group was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The group's number.
    pub sequence: GroupSequence,
    /// The file that it lies in.
    pub file: FileId,
    /// Where in the file it begins, in bytes; a multiple of 4,096. A payload
    /// lies [`FrameAt::payload_offset_in_group`] further on.
    pub position: u64,
}

/// How a journal is to work.
#[derive(Debug, Clone)]
pub struct Options {
    /// Length of a file, rounded up to 4 KiB. Default 64 MiB.
    pub file_bytes: u64,
    /// Largest group, header included. A group that is longer than a file gets
    /// a longer file. Default 80 MiB, at most 1 GiB.
    pub group_bytes_max: u64,
    /// How many files to keep ready. Default 2.
    pub prepared_files: usize,
    /// How many files to keep for their next use, prepared ones included, when
    /// they are released: a released file is written already, a new one must be.
    /// At least `prepared_files` are. Default 8.
    pub recycled_files_max: usize,
    /// How many bytes may be written and not synced; a write beyond it syncs
    /// first. At least one group is always let in. Default 64 MiB.
    pub unsynced_bytes_max: u64,
    /// Length of the file that can be given up when the disk is full; 0 for
    /// none. Default 0.
    pub disk_reserve_bytes: u64,
    /// Stamps the files.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            file_bytes: 64 << 20,
            group_bytes_max: 80 << 20,
            prepared_files: 2,
            recycled_files_max: 8,
            unsynced_bytes_max: 64 << 20,
            disk_reserve_bytes: 0,
            clock: Arc::new(RealClock::new()),
        }
    }
}

impl Options {
    /// The options as they can be worked with.
    fn checked(mut self) -> Result<Options, Error> {
        let refuse = |name, value, why| Err(Error::Option { name, value, why });
        if self.file_bytes < 2 * format::BLOCK_BYTES {
            return refuse("file_bytes", self.file_bytes, "below 8192");
        }
        if self.file_bytes > 1 << 40 {
            return refuse("file_bytes", self.file_bytes, "above 1 TiB");
        }
        if self.group_bytes_max > group::GROUP_BYTES_LIMIT {
            return refuse("group_bytes_max", self.group_bytes_max, "above 1 GiB");
        }
        self.file_bytes = format::padded(self.file_bytes);
        Ok(self)
    }
}

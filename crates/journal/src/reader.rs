//! Reading payloads back by place. Never follows groups, never checks bytes:
//! what lies at a place is known, and checked, by whoever kept the place.

use std::sync::Arc;

use bytes::Bytes;

use crate::FileId;
use crate::error::Error;
use crate::files::{Files, OpenFile};

/// Reads journal files while they are written. Cheap to clone; all calls block.
#[derive(Debug, Clone)]
pub struct JournalReader {
    files: Arc<Files>,
}

/// A journal file that is neither recycled nor closed while this exists. If it
/// is released meanwhile, its room is freed when the last pin is dropped.
#[derive(Debug, Clone)]
pub struct PinnedFile {
    open: Arc<OpenFile>,
}

impl JournalReader {
    pub(crate) fn new(files: Arc<Files>) -> JournalReader {
        JournalReader { files }
    }

    /// Holds a file; `None` if it was released, or never existed.
    ///
    /// # Errors
    /// [`Error::Disk`] if it exists but cannot be opened.
    pub fn pin(&self, file: FileId) -> Result<Option<PinnedFile>, Error> {
        Ok(self.files.pin(file)?.map(|open| PinnedFile { open }))
    }
}

impl PinnedFile {
    /// The file's id.
    #[must_use]
    pub fn file(&self) -> FileId {
        self.open.id
    }

    /// The `len` bytes from `position` on, as they are: groups that were
    /// written are complete, whether synced or not; anything else is arbitrary.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] beyond the file's end, [`Error::Disk`] if reading
    /// fails. Nothing is allocated before the range is checked.
    pub fn read(&self, position: u64, len: u64) -> Result<Bytes, Error> {
        let out_of_range = Error::OutOfRange { file: self.open.id, position, len };
        let end = position.checked_add(len).filter(|end| *end <= self.open.len);
        let (Some(_), Ok(bytes_len)) = (end, usize::try_from(len)) else {
            return Err(out_of_range);
        };
        let read = self.open.file.read_vec(bytes_len, position);
        read.map(Bytes::from).map_err(Error::disk("read", &self.open.path))
    }
}

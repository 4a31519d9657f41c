//! Which files of a directory belong to the journal, and in which order.
//!
//! The newest file with a valid header ends the chain, and each header names
//! its predecessor. Everything else is *void* (a later header passes over it:
//! a failed file) or *spare* (newer than the chain and without a valid header:
//! prepared, or its header never became durable). Reads only; refuses when
//! something is missing or damaged that was once synced.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aquifer_env::{Disk, DiskFile};
use aquifer_types::Epoch;

use crate::FileId;
use crate::error::{Error, Expected};
use crate::files::{id_of, path_of};
use crate::format::{BLOCK_BYTES, FileHeader, HeaderFault, VERSION, flag};
use crate::scan::Scanner;

/// The files of a directory, sorted out.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Oldest first.
    pub(crate) chain: Vec<ChainFile>,
    pub(crate) spare: Vec<OtherFile>,
    pub(crate) void: Vec<OtherFile>,
    /// One more than any id that a name bears.
    pub(crate) next_id: FileId,
}

/// A file of the chain.
#[derive(Debug, Clone)]
pub(crate) struct ChainFile {
    pub(crate) id: FileId,
    pub(crate) path: PathBuf,
    pub(crate) header: FileHeader,
    /// Where its groups end as its successor says; for the last file the
    /// file's end.
    pub(crate) end: u64,
}

/// A file that holds nothing of the journal.
#[derive(Debug, Clone)]
pub(crate) struct OtherFile {
    pub(crate) id: FileId,
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
}

/// A file as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: FileId,
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
    pub(crate) header: Result<FileHeader, HeaderFault>,
}

impl Found {
    fn damaged(&self, position: u64, expected: Expected, why: &'static str) -> Error {
        Error::Damaged { path: self.path.clone(), position, expected, why }
    }

    fn header(&self) -> Option<&FileHeader> {
        self.header.as_ref().ok()
    }
}

/// The journal files of a directory, in the order of their ids; none if there
/// is no directory.
pub(crate) fn find(disk: &dyn Disk, dir: &Path) -> Result<Vec<Found>, Error> {
    let paths = match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(Error::disk("list", dir))?,
    };
    let mut files = Vec::new();
    for path in paths {
        let Some(id) = id_of(&path) else {
            continue;
        };
        let opened = disk.open_read(&path).map_err(Error::disk("open", &path))?;
        let len = opened.len().map_err(Error::disk("measure", &path))?;
        let mut block = vec![0u8; len.min(BLOCK_BYTES) as usize];
        opened.read_at(&mut block, 0).map_err(Error::disk("read", &path))?;
        files.push(Found { id, path, len, header: FileHeader::decode(&block, id) });
    }
    files.sort_by_key(|file| file.id);
    Ok(files)
}

impl Layout {
    /// Sorts out the files of `dir`.
    pub(crate) fn read(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Layout, Error> {
        let files = find(&**disk, dir)?;
        for file in &files {
            if let Err(HeaderFault::Version(version)) = file.header {
                return Err(Error::Version { path: file.path.clone(), version, known: VERSION });
            }
        }
        let chain = chain(&files, dir)?;
        let last = chain.last().map_or(FileId(0), |file| file.id);
        let (mut spare, mut void) = (Vec::new(), Vec::new());
        for file in &files {
            let other = OtherFile { id: file.id, path: file.path.clone(), len: file.len };
            if file.id > last {
                check_spare(disk, file)?;
                spare.push(other);
            } else if !chain.iter().any(|used| used.id == file.id) {
                void.push(other);
            }
        }
        let next_id = FileId(files.last().map_or(0, |file| file.id.0).saturating_add(1));
        Ok(Layout { chain, spare, void, next_id })
    }

    /// The highest epoch in a header.
    pub(crate) fn epoch(&self) -> Epoch {
        self.chain.iter().map(|file| file.header.epoch).max().unwrap_or_default()
    }
}

impl ChainFile {
    pub(crate) fn scanner(&self, disk: &dyn Disk) -> Result<Scanner, Error> {
        let opened = disk.open_read(&self.path).map_err(Error::disk("open", &self.path))?;
        Ok(self.scanner_of(opened))
    }

    fn scanner_of(&self, opened: Arc<dyn DiskFile>) -> Scanner {
        Scanner::new(opened, self.path.clone(), self.id, self.header.epoch, self.end)
    }

    pub(crate) fn damaged(&self, position: u64, expected: Expected, why: &'static str) -> Error {
        Error::Damaged { path: self.path.clone(), position, expected, why }
    }
}

/// Follows the headers from the newest file back to the oldest that is kept.
fn chain(files: &[Found], dir: &Path) -> Result<Vec<ChainFile>, Error> {
    let mut chain: Vec<ChainFile> = Vec::new();
    let Some((mut file, mut header)) =
        files.iter().rev().find_map(|file| Some((file, file.header()?)))
    else {
        return Ok(chain);
    };
    let mut end = header.file_bytes;
    loop {
        check_shape(file, header, end)?;
        chain.push(ChainFile { id: file.id, path: file.path.clone(), header: header.clone(), end });
        let Some(link) = header.previous else {
            break;
        };
        if link.file >= file.id {
            return Err(file.damaged(0, Expected::Header, "it names a later file as previous"));
        }
        let previous = files.iter().find(|found| found.id == link.file);
        let Some(previous) = previous else {
            // Released, together with all before it; what lies between the two
            // is void, and a file without a header was never part of the chain.
            if files.iter().any(|found| found.id < link.file && found.header.is_ok()) {
                let path = path_of(dir, link.file);
                return Err(Error::MissingFile { path, needed_by: file.id });
            }
            break;
        };
        let Some(previous_header) = previous.header() else {
            return Err(previous.damaged(0, Expected::Header, "a later file goes on from it"));
        };
        if previous_header.first_sequence > header.first_sequence {
            return Err(file.damaged(0, Expected::Header, "its groups precede an earlier file's"));
        }
        (file, header, end) = (previous, previous_header, link.end);
    }
    chain.reverse();
    Ok(chain)
}

fn check_shape(file: &Found, header: &FileHeader, end: u64) -> Result<(), Error> {
    if header.file_bytes > file.len {
        let why = "the file is shorter than its header says";
        return Err(file.damaged(file.len, Expected::Header, why));
    }
    if end < BLOCK_BYTES || end > header.file_bytes || !end.is_multiple_of(BLOCK_BYTES) {
        let why = "its end, as a header gives it, cannot be";
        return Err(file.damaged(0, Expected::Header, why));
    }
    Ok(())
}

/// Refuses a file without a valid header in which a group says that the header
/// was once durable.
fn check_spare(disk: &Arc<dyn Disk>, file: &Found) -> Result<(), Error> {
    let opened = disk.open_read(&file.path).map_err(Error::disk("open", &file.path))?;
    let mut scanner = Scanner::new(opened, file.path.clone(), file.id, Epoch::default(), file.len);
    let mut proof = false;
    scanner.find_alive(BLOCK_BYTES, |_, header| {
        proof = header.has(flag::HEADER_SYNCED);
        !proof
    })?;
    match proof {
        true => Err(file.damaged(0, Expected::Header, "a group in the file was synced after it")),
        false => Ok(()),
    }
}

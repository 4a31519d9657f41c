//! Objects that are files. Symbolic links are not followed below the directory
//! that is listed, and what is opened has to lie in the directory that the rules
//! name when all links are followed.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use futures::StreamExt as _;
use url::Url;

use super::read::{SourceBody, blocking_body};
use super::{SourceObject, changed, too_many};
use crate::store::StoreError;

/// A file is handed on in pieces of this size.
const PIECE_BYTES: u64 = 256 << 10;
/// Directories below each other; more are a loop of mounts or an attack.
const DEPTH_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct FileSource {
    path: PathBuf,
    /// In which everything lies, with all links followed.
    directory: Option<PathBuf>,
    url: String,
}

impl FileSource {
    pub(super) fn open(url: &Url, directory: Option<PathBuf>) -> Result<Self, StoreError> {
        let path = url
            .to_file_path()
            .map_err(|()| StoreError::refused(url.as_str(), "a file is file:///absolute/path"))?;
        let url = url.as_str().to_owned();
        let directory = match directory {
            None => None,
            Some(directory) => Some(
                fs::canonicalize(&directory).map_err(|error| StoreError::from_io(&url, error))?,
            ),
        };
        Ok(Self { path, directory, url })
    }

    pub(super) fn list(&self, count_max: usize) -> Result<Vec<SourceObject>, StoreError> {
        let failed = |error| StoreError::from_io(&self.url, error);
        self.check(&self.path)?;
        let metadata = fs::metadata(&self.path).map_err(failed)?;
        let mut found = Vec::new();
        if metadata.is_file() {
            let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(object(&self.path, name, &metadata));
        } else {
            self.walk(&self.path, 0, count_max, &mut found)?;
        }
        Ok(found)
    }

    fn walk(
        &self,
        directory: &Path,
        depth: usize,
        count_max: usize,
        found: &mut Vec<SourceObject>,
    ) -> Result<(), StoreError> {
        if depth > DEPTH_MAX {
            let why = format!("directories are more than {DEPTH_MAX} deep");
            return Err(StoreError::refused(self.url.as_str(), why));
        }
        let failed = |error| StoreError::from_io(&self.url, error);
        for entry in fs::read_dir(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            // Of the entry itself: a link is neither a file nor a directory.
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            if metadata.is_dir() {
                self.walk(&path, depth + 1, count_max, found)?;
            } else if metadata.is_file() {
                if found.len() >= count_max {
                    return Err(too_many(&self.url, count_max));
                }
                let name = path.strip_prefix(&self.path).unwrap_or(&path);
                let name = name.to_string_lossy().into_owned();
                found.push(object(&path, name, &metadata));
            }
        }
        Ok(())
    }

    fn check(&self, path: &Path) -> Result<(), StoreError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let real = fs::canonicalize(path).map_err(|error| StoreError::from_io(&self.url, error))?;
        match real.starts_with(directory) {
            true => Ok(()),
            false => Err(StoreError::refused(
                self.url.as_str(),
                "it lies outside of the directory that is allowed",
            )),
        }
    }

    fn open_file(&self, object: &SourceObject) -> Result<File, StoreError> {
        let path = Path::new(&object.location);
        let failed = |error| StoreError::from_io(&object.url, error);
        self.check(path)?;
        let file = File::open(path).map_err(failed)?;
        check_version(&file, object)?;
        Ok(file)
    }

    pub(super) async fn read(&self, object: &SourceObject) -> Result<SourceBody, StoreError> {
        let file = self.open_file(object)?;
        let state = (file, object.clone(), object.bytes);
        let pieces = futures::stream::try_unfold(state, |(mut file, object, left)| async move {
            // This runs on the thread that blocks for the piece.
            let mut piece = Vec::new();
            let wanted = left.min(PIECE_BYTES);
            (&mut file)
                .take(wanted)
                .read_to_end(&mut piece)
                .map_err(|error| StoreError::from_io(&object.url, error))?;
            if piece.len() as u64 != wanted {
                return Err(changed(&object));
            }
            let left = left - wanted;
            if left == 0 {
                check_version(&file, &object)?;
            }
            match piece.is_empty() {
                true => Ok(None),
                false => Ok(Some((Bytes::from(piece), (file, object, left)))),
            }
        });
        Ok(blocking_body(&object.url, Some(object.bytes), pieces.boxed()))
    }

    pub(super) async fn read_range(
        &self,
        object: &SourceObject,
        range: Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let mut file = self.open_file(object)?;
        let failed = |error| StoreError::from_io(&object.url, error);
        file.seek(SeekFrom::Start(range.start)).map_err(failed)?;
        let mut bytes = Vec::new();
        let wanted = range.end.saturating_sub(range.start);
        file.take(wanted).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes.into())
    }
}

fn check_version(file: &File, object: &SourceObject) -> Result<(), StoreError> {
    let metadata = file.metadata().map_err(|error| StoreError::from_io(&object.url, error))?;
    match version(&metadata) == object.version {
        true => Ok(()),
        false => Err(changed(object)),
    }
}

fn object(path: &Path, name: String, metadata: &fs::Metadata) -> SourceObject {
    let url = Url::from_file_path(path).map_or_else(|()| name.clone(), String::from);
    SourceObject {
        url,
        name,
        bytes: metadata.len(),
        version: version(metadata),
        modified_ms: modified_ns(metadata).map_or(0, |ns| (ns / 1_000_000) as i64),
        e_tag: None,
        location: path.to_string_lossy().into_owned(),
    }
}

fn modified_ns(metadata: &fs::Metadata) -> Option<u128> {
    let modified = metadata.modified().ok()?;
    Some(modified.duration_since(UNIX_EPOCH).ok()?.as_nanos())
}

fn version(metadata: &fs::Metadata) -> String {
    format!("{}@{}", metadata.len(), modified_ns(metadata).unwrap_or(0))
}

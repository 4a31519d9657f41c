//! What a table is to show: the live chunks of its stream at one cut.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aquifer_stream::{ChunkMeta, View};
use aquifer_types::{Offset, PartitionIndex, StreamPath};

use crate::Error;
use crate::location::Location;

/// A chunk with rows.
#[derive(Debug, Clone)]
pub(crate) struct LiveFile {
    pub(crate) chunk: Arc<ChunkMeta>,
    pub(crate) url: String,
    /// Rows below this offset are not shown, where a truncation cut through.
    pub(crate) hidden_below: Option<Offset>,
}

/// The chunks of a cut, by partition and offset. While it lives, so do they.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) files: Vec<LiveFile>,
    /// The first offset of each partition that is in no chunk.
    pub(crate) next: BTreeMap<PartitionIndex, Offset>,
    pub(crate) view: View,
    by_url: HashMap<String, usize>,
}

impl Live {
    pub(crate) fn new(
        path: &StreamPath,
        view: View,
        location: &Location,
        chunks_max: usize,
    ) -> Result<Self, Error> {
        let mut files = Vec::new();
        let mut next = BTreeMap::new();
        for (partition, cut) in view.cuts() {
            let first_open = cut.chunks().last().map_or(cut.start, |chunk| chunk.next);
            next.insert(partition.index, first_open.max(cut.start));
            for chunk in cut.chunks() {
                if chunk.key_id.is_some() {
                    let why = "its chunks are encrypted".to_owned();
                    return Err(Error::NotATable { path: path.clone(), why });
                }
                if chunk.records > 0 && chunk.next > cut.start {
                    files.push(LiveFile {
                        url: location.of(&chunk.object_path),
                        hidden_below: (chunk.base < cut.start).then_some(cut.start),
                        chunk: chunk.clone(),
                    });
                }
            }
        }
        if files.len() > chunks_max {
            let (path, chunks) = (path.clone(), files.len());
            return Err(Error::TooManyChunks { path, chunks, limit: chunks_max });
        }
        let by_url = files.iter().enumerate().map(|(at, file)| (file.url.clone(), at)).collect();
        Ok(Self { files, next, view, by_url })
    }

    pub(crate) fn get(&self, url: &str) -> Option<&LiveFile> {
        self.files.get(*self.by_url.get(url)?)
    }
}

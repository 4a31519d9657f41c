//! What an earlier run left of a table.
//!
//! The highest version of the metadata counts. Where it, or what its current
//! snapshot names, is not there or not as it was written, the table begins anew
//! with the chunks that are live: its history is lost, no record is.

use std::collections::{BTreeSet, HashMap, HashSet};

use aquifer_types::{Offset, PartitionIndex, StreamId};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::Error;
use crate::data_file::{FILE_PATH_ID, POSITION_DELETES};
use crate::draft::{Hidden, known};
use crate::history::{Contents, History};
use crate::manifest::{self, Entry};
use crate::manifest_list::{self, ManifestFile};
use crate::metadata::Metadata;
use crate::table::Context;

/// Objects of one table that are looked at.
const OBJECTS_MAX: usize = 100_000;
/// Objects that are read at once.
const READS_AT_ONCE: usize = 8;
const VERSION_DIGITS: usize = 10;

/// A table as tier 2 has it.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) metadata: Option<Metadata>,
    pub(crate) document: Bytes,
    pub(crate) object_path: String,
    /// The highest version that there is; 0 where there is none, or none that
    /// can be gone on with.
    pub(crate) version: u64,
    pub(crate) history: History,
    pub(crate) hidden: Vec<Hidden>,
    /// Objects that nothing names.
    pub(crate) others: Vec<String>,
}

impl Stored {
    pub(crate) async fn read(context: &Context, folder: &str, id: StreamId) -> Result<Self, Error> {
        let objects = context.store.list_beside(folder, |_| true, OBJECTS_MAX).await?;
        let objects: BTreeSet<String> = objects.into_iter().collect();
        let newest = objects.iter().filter_map(|path| Some((version_of(folder, path)?, path)));
        let Some((version, path)) = newest.max() else {
            return Ok(Self { others: objects.into_iter().collect(), ..Self::default() });
        };
        let mut stored = match read_version(context, path, id, &objects).await {
            Ok(stored) => Self { version, object_path: path.clone(), ..stored },
            Err(error @ Error::Damaged { .. }) => {
                tracing::warn!(%error, "a table's history cannot be read: it begins anew");
                Self { version, ..Self::default() }
            }
            Err(error) => return Err(error),
        };
        let mut needed = stored.history.objects();
        needed.insert(stored.object_path.clone());
        stored.others = objects.difference(&needed).cloned().collect();
        Ok(stored)
    }
}

fn version_of(folder: &str, path: &str) -> Option<u64> {
    let name = path.strip_prefix(folder)?.strip_prefix('/')?.strip_suffix(".metadata.json")?;
    let (digits, _) = name.split_once('-')?;
    (digits.len() == VERSION_DIGITS).then(|| digits.parse().ok()).flatten()
}

async fn read_version(
    context: &Context,
    path: &str,
    id: StreamId,
    objects: &BTreeSet<String>,
) -> Result<Stored, Error> {
    let document = context.store.get_beside(path).await?;
    let mut metadata = Metadata::decode(path, &document)?;
    if metadata.table_uuid != id.0 {
        return Err(Error::damaged(path, "it is another stream's table"));
    }
    let mut history = History::default();
    let mut lists = HashMap::new();
    for snapshot in &metadata.snapshots {
        let is_current = metadata.current_snapshot_id == Some(snapshot.snapshot_id);
        let list_path = context.location.object_path(&snapshot.manifest_list);
        let list_path = list_path.filter(|list_path| objects.contains(*list_path));
        let Some(list_path) = list_path else {
            // Without its list an older one cannot be read, but others can.
            if is_current {
                return Err(Error::damaged(&snapshot.manifest_list, "it is not there"));
            }
            continue;
        };
        let files = manifest_list::decode(list_path, &context.store.get_beside(list_path).await?)?;
        let manifests = files.iter().map(|file| object_of(context, &file.manifest_path, objects));
        history.contents.push(Contents {
            snapshot_id: snapshot.snapshot_id,
            list_path: list_path.to_owned(),
            manifests: manifests.collect::<Result<_, _>>()?,
        });
        for file in files {
            lists.insert(object_of(context, &file.manifest_path, objects)?, file);
        }
    }
    // The current snapshot comes last, whatever the clock did.
    let current = metadata.current_snapshot_id;
    history.contents.sort_by_key(|contents| current == Some(contents.snapshot_id));
    let manifests: Vec<(String, ManifestFile, Vec<Entry>)> = futures::stream::iter(lists)
        .map(|(path, file)| async move {
            let bytes = context.store.get_beside(&path).await?;
            let entries = manifest::decode(&path, &bytes)?;
            Ok::<_, Error>((path, file, entries))
        })
        .buffer_unordered(READS_AT_ONCE)
        .try_collect()
        .await?;
    let newest = history.contents.last().map(|contents| contents.manifests.clone());
    let newest: HashSet<String> = newest.unwrap_or_default().into_iter().collect();
    let mut hidden = Vec::new();
    for (path, file, entries) in manifests {
        if newest.contains(&path) {
            let positions = entries
                .iter()
                .filter(|entry| entry.is_live() && entry.data_file.content == POSITION_DELETES);
            for entry in positions {
                hidden.push(hidden_of(context, &path, entry)?);
            }
        }
        let known = known(context, &path, file, entries, None)?;
        history.manifests.insert(path, known);
    }
    let listed: HashSet<i64> = history.contents.iter().map(|c| c.snapshot_id).collect();
    metadata.forget(|id| !listed.contains(&id));
    Ok(Stored { metadata: Some(metadata), document, history, hidden, ..Stored::default() })
}

fn object_of(context: &Context, url: &str, objects: &BTreeSet<String>) -> Result<String, Error> {
    let path = context.location.object_path(url).filter(|path| objects.contains(*path));
    path.map(str::to_owned).ok_or_else(|| Error::damaged(url, "it is not there"))
}

/// A file of deleted positions, from its entry and its name.
fn hidden_of(context: &Context, path: &str, entry: &Entry) -> Result<Hidden, Error> {
    let file = &entry.data_file;
    let read = || {
        let bound = file.lower_bounds.as_ref()?.iter().find(|bound| bound.key == FILE_PATH_ID)?;
        let name = file.file_path.strip_suffix(".parquet")?;
        let (_, below) = name.rsplit_once("-d")?;
        Some(Hidden {
            object_path: context.location.object_path(&file.file_path)?.to_owned(),
            data_url: String::from_utf8(bound.value.clone()).ok()?,
            below: Offset(below.parse().ok()?),
            partition: PartitionIndex(u32::try_from(file.partition.partition?).ok()?),
            rows: u64::try_from(file.record_count).ok()?,
            bytes: u64::try_from(file.file_size_in_bytes).ok()?,
            added: entry.snapshot_id.zip(entry.sequence_number),
        })
    };
    read()
        .ok_or_else(|| Error::damaged(path, format!("{} is no file of positions", file.file_path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_names() {
        let check = |path: &str, expected: Option<u64>| {
            assert_eq!(version_of("a/metadata", path), expected, "{path}");
        };
        check("a/metadata/0000000042-x.metadata.json", Some(42));
        check("a/metadata/0000000042-x-y.metadata.json", Some(42));
        check("a/metadata/42-x.metadata.json", None);
        check("a/metadata/0000000042.metadata.json", None);
        check("a/metadata/000000004x-x.metadata.json", None);
        check("b/metadata/0000000042-x.metadata.json", None);
        check("a/metadata/snap-1-x.avro", None);
    }
}

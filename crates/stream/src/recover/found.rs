//! What is in tier 2: the newest manifest that can be read, and the chunks that
//! it does not know. Reads only.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::ops::Range;

use aquifer_chunk::{Footer, IndexName, ObjectName, RangeRead};
use aquifer_env::store::{StoreEntry, StoreErrorKind, TierStore};
use aquifer_types::{Partition, StreamId, StreamSchema};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};

use crate::Error;
use crate::chunk_meta::ChunkMeta;
use crate::read::from_chunk;
use crate::tier::from_store;
use crate::tier::manifest::{Manifest, ManifestKey};

/// Footers that are read at once.
const FOOTERS_AT_ONCE: usize = 16;

/// Everything that tier 2 has.
pub(super) struct Found {
    pub(super) manifest: Option<(ManifestKey, Manifest)>,
    pub(super) keys: Vec<ManifestKey>,
    /// Chunks' objects, by their paths.
    pub(super) objects: BTreeMap<String, (ObjectName, u64)>,
    /// Indexes' objects, by their paths.
    pub(super) indexes: BTreeMap<String, IndexName>,
    /// Objects whose names are nobody's.
    pub(super) strange: u64,
    pub(super) warnings: Vec<String>,
}

impl Found {
    pub(super) async fn read(store: &TierStore) -> Result<Self, Error> {
        let entries = store.list("").await.map_err(from_store)?;
        let mut found = Self {
            manifest: None,
            keys: Vec::new(),
            objects: BTreeMap::new(),
            indexes: BTreeMap::new(),
            strange: 0,
            warnings: Vec::new(),
        };
        for StoreEntry { path, bytes } in entries {
            if let Some(key) = ManifestKey::of_path(&path) {
                found.keys.push(key);
            } else if path.starts_with('_') {
                // A claim, or a probe.
            } else if let Ok(name) = path.parse::<ObjectName>() {
                found.objects.insert(path, (name, bytes));
            } else if let Ok(name) = path.parse::<IndexName>() {
                found.indexes.insert(path, name);
            } else {
                found.strange += 1;
            }
        }
        found.keys.sort();
        found.read_manifest(store).await?;
        Ok(found)
    }

    /// Reads the newest manifest that is whole. One of a later version ends it:
    /// an older one would bring back what is gone.
    async fn read_manifest(&mut self, store: &TierStore) -> Result<(), Error> {
        for key in self.keys.clone().into_iter().rev() {
            let bytes = match store.get(&key.path()).await {
                Ok(bytes) => bytes,
                Err(error) if error.kind == StoreErrorKind::NotFound => continue,
                Err(error) => return Err(from_store(error)),
            };
            let decoded =
                aquifer_env::tasks::run_blocking(move || Manifest::decode(&bytes, key)).await;
            match decoded {
                Ok(manifest) => {
                    self.manifest = Some((key, manifest));
                    return Ok(());
                }
                Err(error @ Error::Unsupported(_)) => return Err(error),
                Err(error) => self.warnings.push(format!("{error}: an older manifest is used")),
            }
        }
        Ok(())
    }

    /// The chunks that the manifest neither counts as live nor as garbage and
    /// that may be needed, by partition: behind the tiered offset, or anywhere
    /// where live ones are missing.
    pub(super) async fn read_others(
        &mut self,
        store: &TierStore,
        mut on_progress: impl FnMut(u64, u64),
    ) -> Result<HashMap<Partition, Vec<ChunkMeta>>, Error> {
        let wanted = self.wanted();
        let total = wanted.len() as u64;
        let mut footers = futures::stream::iter(wanted)
            .map(|(path, name, bytes)| async move {
                let read = read_footer(store, &path, bytes).await;
                (path, name, read)
            })
            .buffer_unordered(FOOTERS_AT_ONCE);
        let mut others: HashMap<Partition, Vec<ChunkMeta>> = HashMap::new();
        let mut done = 0;
        while let Some((path, name, read)) = footers.next().await {
            done += 1;
            on_progress(done, total);
            match read {
                Ok(chunk) if chunk.id == name.chunk_id && chunk.object_path == path => {
                    others.entry(chunk.partition).or_default().push(chunk);
                }
                Ok(_) => self.warnings.push(format!("{path} holds another chunk: left alone")),
                Err(error @ (Error::Damaged { .. } | Error::Unsupported(_))) => {
                    self.warnings.push(format!("{error}: left alone"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(others)
    }

    fn wanted(&self) -> Vec<(String, ObjectName, u64)> {
        let mut unwanted: HashSet<&str> = HashSet::new();
        let mut deleted: BTreeSet<StreamId> = BTreeSet::new();
        let mut tiered = HashMap::new();
        if let Some((_, manifest)) = &self.manifest {
            deleted.extend(manifest.tombstones.iter().map(|tombstone| tombstone.id));
            unwanted.extend(manifest.garbage.iter().map(|entry| entry.object_path.as_str()));
            for stream in &manifest.streams {
                for entry in &stream.partitions {
                    let paths = entry.chunks.iter().map(|chunk| chunk.object_path.as_str());
                    let is_whole = paths.clone().all(|path| self.objects.contains_key(path));
                    unwanted.extend(paths);
                    if is_whole {
                        tiered.insert(Partition::new(stream.id, entry.partition), entry.tiered);
                    }
                }
            }
        }
        let is_wanted = |(path, (name, _)): &(&String, &(ObjectName, u64))| {
            let at = Partition::new(name.stream_id, name.partition);
            !unwanted.contains(path.as_str())
                && !deleted.contains(&name.stream_id)
                && tiered.get(&at).is_none_or(|tiered| name.base >= *tiered)
        };
        let wanted = self.objects.iter().filter(is_wanted);
        wanted.map(|(path, (name, bytes))| (path.clone(), name.clone(), *bytes)).collect()
    }
}

/// An object without a cache: footers are read once.
struct Plain<'a> {
    store: &'a TierStore,
    path: &'a str,
    bytes: u64,
}

impl RangeRead for Plain<'_> {
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(async move {
            self.store.get_range(self.path, range).await.map_err(|error| {
                let kind = match error.kind {
                    StoreErrorKind::NotFound => io::ErrorKind::NotFound,
                    _ => io::ErrorKind::Other,
                };
                io::Error::new(kind, error)
            })
        })
    }

    fn size(&self) -> u64 {
        self.bytes
    }
}

/// The schema that a chunk follows, as its footer has it.
pub(super) async fn read_schema(
    store: &TierStore,
    chunk: &ChunkMeta,
) -> Result<Option<StreamSchema>, Error> {
    let (path, bytes) = (chunk.object_path.as_str(), chunk.object_bytes);
    let footer = Footer::load(&Plain { store, path, bytes }, path).await.map_err(from_chunk)?;
    Ok(footer.schema().cloned())
}

async fn read_footer(store: &TierStore, path: &str, bytes: u64) -> Result<ChunkMeta, Error> {
    let footer = Footer::load(&Plain { store, path, bytes }, path).await.map_err(from_chunk)?;
    let (spec, stats) = (footer.spec(), footer.stats());
    Ok(ChunkMeta {
        id: spec.chunk_id,
        partition: Partition::new(spec.stream_id, spec.partition),
        base: spec.base,
        next: spec.next,
        object_path: spec.object_path(),
        object_bytes: bytes,
        // Only the whole file has one; the chunk's own checksums cover all of it.
        checksum: "none:".into(),
        records: stats.records,
        raw_bytes: stats.raw_bytes,
        min_timestamp: stats.min_timestamp,
        max_timestamp: stats.max_timestamp,
        max_appended: stats.max_appended,
        epochs: spec.epochs.clone(),
        generation: spec.generation,
        schema_version: spec.schema_version,
        unfit: stats.unfit,
        timestamp_type: spec.timestamp_type,
        index_path: None,
        index_bytes: None,
        key_id: None,
    })
}

/// Deletes manifests older than `newest`.
pub(super) async fn delete_manifests(
    store: &TierStore,
    keys: &[ManifestKey],
    newest: ManifestKey,
) -> Result<(), Error> {
    let older = keys.iter().filter(|key| **key < newest).map(|key| key.path());
    futures::stream::iter(older)
        .map(|path| async move { store.delete(&path).await.map_err(from_store) })
        .buffer_unordered(FOOTERS_AT_ONCE)
        .try_collect()
        .await
}

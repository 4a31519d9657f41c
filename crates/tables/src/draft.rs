//! Snapshots in the making: manifests and their lists are put, the table's
//! metadata is not yet. A crash leaves objects that nothing names.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use aquifer_env::{tasks, uuid_v4};
use aquifer_types::{Offset, PartitionIndex};
use bytes::Bytes;
use uuid::Uuid;

use crate::changes::{Kind, Step};
use crate::data_file::{DataFile, Listed, POSITION_DELETES};
use crate::history::{Contents, History, Known};
use crate::live::{Live, LiveFile};
use crate::manifest::{self, ADDED, DELETED, ENTRIES_MAX, EXISTING, Entry};
use crate::manifest_list::{self, ManifestFile};
use crate::metadata::Metadata;
use crate::snapshot::{self, Snapshot, Totals};
use crate::table::Context;
use crate::{Error, positions};

/// Half-empty manifests that a snapshot may have; more are merged.
const MANIFESTS_SMALL_MAX: usize = 16;

/// A file of deleted positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hidden {
    pub(crate) object_path: String,
    /// The chunk whose rows it deletes, and up to which offset.
    pub(crate) data_url: String,
    pub(crate) below: Offset,
    pub(crate) partition: PartitionIndex,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// The snapshot that added it and its sequence number, once there is one.
    pub(crate) added: Option<(i64, i64)>,
}

impl Hidden {
    fn is_in(&self, all: &[Self]) -> bool {
        all.iter().any(|other| other.object_path == self.object_path)
    }
}

fn is_same(one: &[Hidden], other: &[Hidden]) -> bool {
    one.len() == other.len() && one.iter().all(|hidden| hidden.is_in(other))
}

/// What a table is to become.
#[derive(Debug)]
pub(crate) struct Draft {
    context: Arc<Context>,
    folder: String,
    pub(crate) metadata: Metadata,
    pub(crate) history: History,
    pub(crate) hidden: Vec<Hidden>,
    /// The objects that were put.
    pub(crate) written: Vec<String>,
}

/// A snapshot that is being made.
struct Making<'a> {
    id: i64,
    sequence: i64,
    live: &'a Live,
    /// When all of its chunks were live last.
    whole_ns: Option<u64>,
}

impl Draft {
    pub(crate) fn new(
        context: Arc<Context>,
        folder: String,
        metadata: Metadata,
        history: History,
        hidden: Vec<Hidden>,
    ) -> Self {
        Self { context, folder, metadata, history, hidden, written: Vec::new() }
    }

    /// Whether it hides the rows that are to be hidden and no others; `unhidden`
    /// names chunks where there are none.
    pub(crate) fn hides(&self, live: &Live, unhidden: &BTreeMap<String, Offset>) -> bool {
        let hidden: HashSet<(&str, Offset)> =
            self.hidden.iter().map(|hidden| (hidden.data_url.as_str(), hidden.below)).collect();
        let wanted = live.files.iter().filter_map(|file| {
            let below = file.hidden_below?;
            (unhidden.get(&file.url) != Some(&below)).then_some((file.url.as_str(), below))
        });
        wanted.collect::<HashSet<_>>() == hidden
    }

    /// Makes a snapshot of each step. Returns the chunks that a truncation cut
    /// where no row was.
    pub(crate) async fn advance(
        &mut self,
        live: &Live,
        mut steps: BTreeMap<Kind, Step<'_>>,
        looked_ns: Option<u64>,
        now_ns: u64,
    ) -> Result<BTreeMap<String, Offset>, Error> {
        let (hidden, unhidden) = self.hide(live).await?;
        let is_changed = !is_same(&hidden, &self.hidden);
        // Rows that are shown now go at once, those of chunks that are yet to be
        // listed with these.
        let newest = self.history.newest().flat_map(|(_, known)| known.listed.iter());
        let listed: HashSet<&str> = newest.map(|file| file.url.as_str()).collect();
        let at_once: Vec<Hidden> = hidden
            .iter()
            .filter(|hidden| listed.contains(hidden.data_url.as_str()))
            .cloned()
            .collect();
        let goes = at_once.iter().any(|hidden| !hidden.is_in(&self.hidden));
        if goes || (steps.is_empty() && is_changed) {
            steps.entry(Kind::Delete).or_default();
        }
        let count = steps.len();
        for (at, (kind, step)) in steps.iter().enumerate() {
            let is_last = at + 1 == count;
            let making = Making {
                id: self.new_snapshot_id(),
                sequence: self.metadata.last_sequence_number.saturating_add(1),
                live,
                // What a later step removes is not live any more.
                whole_ns: if is_last { Some(now_ns) } else { looked_ns },
            };
            let hides = match at {
                _ if is_last => Some(&hidden),
                0 if goes => Some(&at_once),
                _ => None,
            };
            let hides = hides.filter(|hides| !is_same(hides, &self.hidden)).cloned();
            self.make(&making, *kind, step, hides, is_last).await?;
            self.context.metrics.snapshots.inc();
        }
        Ok(unhidden)
    }

    /// Writes the files of positions that are missing; returns all that are
    /// needed, and the chunks that need none.
    async fn hide(
        &mut self,
        live: &Live,
    ) -> Result<(Vec<Hidden>, BTreeMap<String, Offset>), Error> {
        let (mut all, mut unhidden) = (Vec::new(), BTreeMap::new());
        let cut = live.files.iter().filter_map(|file| Some((file, file.hidden_below?)));
        for (file, below) in cut {
            let known = self
                .hidden
                .iter()
                .find(|hidden| hidden.data_url == file.url && hidden.below == below);
            if let Some(known) = known {
                all.push(known.clone());
                continue;
            }
            let rows = positions::count_below(&live.view, file, below).await?;
            if rows == 0 {
                unhidden.insert(file.url.clone(), below);
                continue;
            }
            let data_url = file.url.clone();
            let bytes = tasks::run_blocking(move || positions::encode(&data_url, rows)).await?;
            let object_path = format!("{}/{}-d{below}.parquet", self.folder, self.new_uuid());
            let length = bytes.len() as u64;
            self.put(&object_path, bytes).await?;
            all.push(Hidden {
                object_path,
                data_url: file.url.clone(),
                below,
                partition: file.chunk.partition.index,
                rows,
                bytes: length,
                added: None,
            });
        }
        Ok((all, unhidden))
    }

    /// Puts one snapshot and makes it the current one.
    async fn make(
        &mut self,
        making: &Making<'_>,
        kind: Kind,
        step: &Step<'_>,
        hidden: Option<Vec<Hidden>>,
        is_last: bool,
    ) -> Result<(), Error> {
        let (mut manifests, entries) = self.carry_on(making, step, hidden.is_some());
        let (mut added_files, mut added_positions) = (0, 0);
        if let Some(mut hidden) = hidden {
            // It concerns files of its own snapshot and of those before.
            let known = |hidden: &Hidden| {
                let same = self.hidden.iter().find(|it| it.object_path == hidden.object_path);
                same.and_then(|it| it.added)
            };
            for hidden in &mut hidden {
                hidden.added = known(hidden).or(Some((making.id, making.sequence)));
            }
            let entries = self.positions_entries(making, &hidden);
            let added = entries.iter().filter(|entry| entry.status == ADDED);
            for entry in added {
                added_files += 1;
                added_positions += entry.data_file.record_count;
            }
            manifests.extend(self.put_manifests(making, entries, true).await?);
            self.hidden = hidden;
        }
        manifests.extend(self.put_manifests(making, entries, false).await?);
        let parent = self.metadata.current_snapshot_id;
        let files: Vec<ManifestFile> =
            manifests.iter().map(|(_, known)| known.file.clone()).collect();
        let bytes = manifest_list::encode(
            &files,
            making.id,
            parent,
            making.sequence,
            self.context.marker(),
        )?;
        let list_path = format!("{}/snap-{}-{}.avro", self.folder, making.id, self.new_uuid());
        self.put(&list_path, bytes).await?;
        let next = is_last.then_some(&making.live.next);
        let mut summary = snapshot::summary(kind, step, self.totals(&manifests), next);
        if added_files > 0 {
            summary.insert("added-delete-files".to_owned(), added_files.to_string());
            summary.insert("added-position-deletes".to_owned(), added_positions.to_string());
        }
        self.metadata.push(Snapshot {
            snapshot_id: making.id,
            parent_snapshot_id: parent,
            sequence_number: making.sequence,
            timestamp_ms: self.metadata.next_ms(self.context.clock.now_ms()),
            manifest_list: self.context.location.of(&list_path),
            summary,
            schema_id: self.metadata.current_schema_id,
        });
        self.history.contents.push(Contents {
            snapshot_id: making.id,
            list_path,
            manifests: manifests.iter().map(|(path, _)| path.clone()).collect(),
        });
        self.history.manifests.extend(manifests);
        Ok(())
    }

    /// The manifests of the current snapshot that go on as they are, and the
    /// entries that are to be written.
    fn carry_on(
        &self,
        making: &Making<'_>,
        step: &Step<'_>,
        is_hiding_anew: bool,
    ) -> (Vec<(String, Known)>, Vec<Entry>) {
        let removed: HashSet<&str> = step.removed.iter().map(|file| file.url.as_str()).collect();
        let is_touched =
            |known: &Known| known.listed.iter().any(|file| removed.contains(file.url.as_str()));
        let is_small = |known: &Known| known.listed.len() < ENTRIES_MAX / 2;
        let (mut kept, mut rewritten) = (Vec::new(), Vec::new());
        let mut small = 0;
        for (path, known) in self.history.newest() {
            if known.file.content == 1 {
                let has_live = !known.positions.is_empty();
                if has_live && !is_hiding_anew {
                    kept.push((path.clone(), known.clone()));
                }
            } else if is_touched(known) {
                rewritten.push(known);
            } else if !known.listed.is_empty() {
                small += usize::from(is_small(known));
                kept.push((path.clone(), known.clone()));
            }
        }
        let mut entries = Vec::new();
        let survivor = |file: &Listed| {
            let data_file = data_file(making.live, file);
            Entry::new(EXISTING, file.snapshot_id, file.sequence, data_file)
        };
        if small > MANIFESTS_SMALL_MAX {
            kept.retain(|(_, known)| {
                let is_merged = known.file.content == 0 && is_small(known);
                if is_merged {
                    entries.extend(known.listed.iter().map(survivor));
                }
                !is_merged
            });
        }
        for file in rewritten.iter().flat_map(|known| known.listed.iter()) {
            entries.push(match removed.contains(file.url.as_str()) {
                true => Entry::new(DELETED, making.id, file.sequence, DataFile::of_listed(file)),
                false => survivor(file),
            });
        }
        let added = |file: &&LiveFile| {
            let data_file = DataFile::of_chunk(&file.chunk, file.url.clone());
            Entry::new(ADDED, making.id, making.sequence, data_file)
        };
        entries.extend(step.added.iter().map(added));
        // Neighbours in the stream are neighbours in manifests, so that a
        // filter leaves most of these out.
        entries.sort_by_cached_key(|entry| {
            (entry.data_file.partition.partition, entry.data_file.file_path.clone())
        });
        (kept, entries)
    }

    fn positions_entries(&self, making: &Making<'_>, hidden: &[Hidden]) -> Vec<Entry> {
        let of = |hidden: &Hidden| {
            let url = self.context.location.of(&hidden.object_path);
            let Hidden { data_url, partition, rows, bytes, .. } = hidden;
            DataFile::of_positions(url, data_url, *partition, *rows, *bytes)
        };
        let now = hidden.iter().map(|hidden| {
            let status = if hidden.is_in(&self.hidden) { EXISTING } else { ADDED };
            let (id, sequence) = hidden.added.unwrap_or((making.id, making.sequence));
            Entry::new(status, id, sequence, of(hidden))
        });
        let gone = self.hidden.iter().filter(|known| !known.is_in(hidden));
        let gone = gone.map(|known| {
            let sequence = known.added.map_or(making.sequence, |(_, sequence)| sequence);
            Entry::new(DELETED, making.id, sequence, of(known))
        });
        now.chain(gone).collect()
    }

    async fn put_manifests(
        &mut self,
        making: &Making<'_>,
        entries: Vec<Entry>,
        is_deletes: bool,
    ) -> Result<Vec<(String, Known)>, Error> {
        let mut manifests = Vec::new();
        for (number, some) in entries.chunks(ENTRIES_MAX).enumerate() {
            let (entries, marker) = (some.to_vec(), self.context.marker());
            let schema = self.metadata.schema()?.clone();
            let encode = move || {
                let bytes = manifest::encode(&entries, &schema, is_deletes, marker)?;
                Ok::<_, Error>((entries, bytes))
            };
            let (entries, bytes) = tasks::run_blocking(encode).await?;
            let path = format!("{}/{}-m{number}.avro", self.folder, self.new_uuid());
            let url = self.context.location.of(&path);
            let file = ManifestFile::new(url, bytes.len(), &entries, making.id, making.sequence);
            self.put(&path, bytes).await?;
            let known = known(&self.context, &path, file, entries, making.whole_ns)?;
            manifests.push((path, known));
        }
        Ok(manifests)
    }

    fn totals(&self, manifests: &[(String, Known)]) -> Totals {
        let mut totals = Totals {
            delete_files: self.hidden.len() as u64,
            deleted_positions: self.hidden.iter().map(|hidden| hidden.rows).sum(),
            ..Totals::default()
        };
        for file in manifests.iter().flat_map(|(_, known)| known.listed.iter()) {
            totals.files += 1;
            totals.records += file.records;
            totals.bytes += file.bytes;
        }
        totals
    }

    async fn put(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), Error> {
        // Before it is there: a lost answer leaves an object all the same.
        self.written.push(path.to_owned());
        self.context.store.put_beside(path, Bytes::from(bytes)).await?;
        Ok(())
    }

    fn new_uuid(&self) -> Uuid {
        uuid_v4(&*self.context.random)
    }

    /// Positive, and small enough for readers that count in doubles.
    fn new_snapshot_id(&self) -> i64 {
        i64::try_from(self.context.random.next_u64() >> 11).unwrap_or(0).max(1)
    }
}

/// A chunk with all that is known of it.
fn data_file(live: &Live, listed: &Listed) -> DataFile {
    match live.get(&listed.url) {
        Some(file) => DataFile::of_chunk(&file.chunk, listed.url.clone()),
        None => DataFile::of_listed(listed),
    }
}

/// What is remembered of the manifest at `path`.
pub(crate) fn known(
    context: &Context,
    path: &str,
    file: ManifestFile,
    entries: Vec<Entry>,
    whole_ns: Option<u64>,
) -> Result<Known, Error> {
    let (mut listed, mut hidden) = (Vec::new(), Vec::new());
    for entry in entries.into_iter().filter(Entry::is_live) {
        let (Some(snapshot_id), Some(sequence)) = (entry.snapshot_id, entry.sequence_number) else {
            return Err(Error::damaged(path, "an entry has no snapshot"));
        };
        if entry.data_file.content == POSITION_DELETES {
            let url = &entry.data_file.file_path;
            let object_path = context.location.object_path(url);
            let object_path = object_path.ok_or_else(|| Error::damaged(path, "it is elsewhere"))?;
            hidden.push(object_path.to_owned());
        } else {
            listed.push(entry.data_file.listed(path, snapshot_id, sequence)?);
        }
    }
    Ok(Known::new(file, listed, hidden, whole_ns))
}

//! One table: what it lists, and how it is brought up to date.
//!
//! A change is drafted beside the state in force: manifests, their list and the
//! table's metadata are put in this order, and only then the state is replaced.
//! Whatever fails before leaves the state as it was, and objects that nothing
//! names, which are deleted like those that nothing names any more: after the
//! grace time, since a reader may have been told of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use aquifer_env::{Clock, Random, uuid_v4};
use aquifer_stream::{ChunkMeta, Isolation, StreamStore, View};
use aquifer_types::{Offset, PartitionIndex, StreamId, StreamPath};
use bytes::Bytes;

use crate::draft::{Draft, Hidden};
use crate::history::History;
use crate::live::Live;
use crate::location::Location;
use crate::metadata::Metadata;
use crate::stored::Stored;
use crate::{Error, Snapshots, TableMetrics, TableOptions, changes, schema};

/// Objects that are deleted in one go.
const DELETED_MAX: usize = 100;
/// Snapshots follow each other at a pace that lets each be read: at most this
/// part of the grace time lies between two.
const INTERVAL_DIVISOR: u64 = 4;
/// The part of the grace time that a reader has left, at least.
const KEEP_DIVISOR: u64 = 2;
/// How Iceberg's library reads Parquet in Spark: row by row. Its vectorized
/// reader refuses the delta encodings that chunks have before Iceberg 1.11; a
/// session that has a later one may ask for it all the same.
const VECTORIZED: (&str, &str) = ("read.parquet.vectorization.enabled", "false");

/// What all tables work with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) store: StreamStore,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) options: TableOptions,
    pub(crate) location: Location,
    pub(crate) metrics: TableMetrics,
}

impl Context {
    pub(crate) fn grace_ns(&self) -> u64 {
        self.store.options().chunk_grace_ms.saturating_mul(1_000_000)
    }

    fn interval_ns(&self) -> u64 {
        let wanted = self.options.snapshot_interval_ms_min.saturating_mul(1_000_000);
        wanted.min(self.grace_ns() / INTERVAL_DIVISOR)
    }

    fn keep_ns(&self) -> u64 {
        let wanted = self.options.snapshot_ms_max.saturating_mul(1_000_000);
        wanted.min(self.grace_ns() / KEEP_DIVISOR)
    }

    /// The bytes that separate an Avro file's blocks.
    pub(crate) fn marker(&self) -> [u8; 16] {
        let mut marker = [0; 16];
        self.random.fill(&mut marker);
        marker
    }
}

/// The folder of a stream's table.
pub(crate) fn folder(path: &StreamPath, id: StreamId) -> String {
    format!("{}/{}/{}-{id}", crate::sweep::FOLDER, path.tenant, path.name)
}

/// A table; whoever has it is alone with it.
#[derive(Debug)]
pub(crate) struct Table {
    context: Arc<Context>,
    path: StreamPath,
    id: StreamId,
    /// Where the objects of its metadata lie.
    folder: String,
    metadata: Metadata,
    /// The metadata as it was put, and where.
    document: Bytes,
    object_path: String,
    version: u64,
    history: History,
    hidden: Vec<Hidden>,
    /// Chunks that a truncation cut where no row was.
    unhidden: BTreeMap<String, Offset>,
    /// Objects that nothing names, since when.
    trash: Vec<(String, u64)>,
    /// The chunks and starts that were looked at last, and when that was.
    seen: Vec<(PartitionIndex, Offset, Vec<Arc<ChunkMeta>>)>,
    looked_ns: Option<u64>,
    /// The version of the stream's schema that the metadata is known to have.
    schema_version: Option<u32>,
    /// There are changes that no snapshot has yet.
    is_behind: bool,
    /// When the last snapshot was made, or tried, and what stood against it.
    made_ns: Option<u64>,
    failure: Option<Error>,
}

impl Table {
    /// Reads back what there is of the table, or begins it.
    pub(crate) async fn open(
        context: Arc<Context>,
        path: StreamPath,
        id: StreamId,
    ) -> Result<Self, Error> {
        let folder = format!("{}/metadata", folder(&path, id));
        let now_ns = context.clock.monotonic_ns();
        let stored = Stored::read(&context, &folder, id).await?;
        let metadata = match stored.metadata {
            Some(metadata) => metadata,
            None => {
                let schema = schema::of_stream(&*context.store.stream_schema(&path)?)?;
                let location = context.location.of(folder.trim_end_matches("/metadata"));
                let properties = [
                    ("aquifer.stream".to_owned(), path.name.to_string()),
                    ("aquifer.stream-id".to_owned(), id.to_string()),
                ];
                let now_ms = context.clock.now_ms();
                Metadata::new(id.0, location, schema, properties.into(), now_ms)
            }
        };
        Ok(Self {
            path,
            id,
            folder,
            metadata,
            document: stored.document,
            object_path: stored.object_path,
            version: stored.version,
            history: stored.history,
            hidden: stored.hidden,
            unhidden: BTreeMap::new(),
            trash: stored.others.into_iter().map(|path| (path, now_ns)).collect(),
            seen: Vec::new(),
            looked_ns: None,
            schema_version: None,
            is_behind: true,
            made_ns: None,
            failure: None,
            context,
        })
    }

    /// Where its metadata lies, for readers.
    pub(crate) fn metadata_url(&self) -> String {
        self.context.location.of(&self.object_path)
    }

    /// Its metadata, in JSON.
    pub(crate) fn document(&self, which: Snapshots) -> Result<Bytes, Error> {
        match which {
            Snapshots::All => Ok(self.document.clone()),
            Snapshots::Current => self.metadata.with_current_only().encode().map(Bytes::from),
        }
    }

    /// Brings it up to date as far as its pace allows.
    pub(crate) async fn refresh(&mut self) -> Result<(), Error> {
        let now_ns = self.context.clock.monotonic_ns();
        // Its lease keeps the chunks while a snapshot with them is written.
        let paths = [self.path.clone()];
        let view = self.context.store.view(&paths, Isolation::Committed)?;
        if view.cuts().any(|(partition, _)| partition.stream != self.id) {
            return Err(aquifer_stream::Error::StreamDeleted(self.id).into());
        }
        let mut draft = Draft::new(
            self.context.clone(),
            self.folder.clone(),
            self.metadata.clone(),
            self.history.clone(),
            self.hidden.clone(),
        );
        // One that was begun by an earlier version is without it.
        let (name, value) = VECTORIZED;
        draft.metadata.properties.insert(name.to_owned(), value.to_owned());
        // Asked behind the view: it has the columns of every chunk in it.
        let schema = self.context.store.stream_schema(&self.path)?;
        if self.schema_version != Some(schema.version()) {
            let columns = schema::of_stream(&schema)?;
            if draft.metadata.schema()? != &columns {
                draft.metadata.set_schema(columns);
            }
        }
        if !self.is_behind && self.is_as_seen(&view) {
            draft.history.unchanged(now_ns);
        } else {
            self.look(&mut draft, view, now_ns).await?;
        }
        let (context, options) = (&self.context, &self.context.options);
        let expired = draft.history.expired(now_ns, context.keep_ns(), options.snapshots_max);
        if !expired.is_empty() {
            context.metrics.snapshots_expired.inc_by(expired.len() as u64);
            draft.history.forget(&expired);
            draft.metadata.forget(|id| expired.contains(&id));
        }
        self.adopt(draft, now_ns).await?;
        self.schema_version = Some(schema.version());
        Ok(())
    }

    /// Drafts the snapshots between what is listed and what is live.
    async fn look(&mut self, draft: &mut Draft, view: View, now_ns: u64) -> Result<(), Error> {
        let limit = self.context.options.chunks_max;
        let live = Live::new(&self.path, view, &self.context.location, limit)?;
        draft.history.look(|url| live.get(url).is_some(), now_ns);
        let before = draft.history.clone();
        let listed: Vec<_> = before.newest().flat_map(|(_, known)| known.listed.iter()).collect();
        let hidden_rows = self.hidden.iter().map(|hidden| (hidden.data_url.as_str(), hidden.rows));
        let steps = changes::between(&listed, &live.files, &hidden_rows.collect());
        let is_hidden = draft.hides(&live, &self.unhidden);
        self.is_behind = !steps.is_empty() || !is_hidden;
        let interval_ns = self.context.interval_ns();
        let is_due = self.made_ns.is_none_or(|ns| now_ns.saturating_sub(ns) >= interval_ns);
        if self.is_behind && is_due {
            let drafted = draft.advance(&live, steps, self.looked_ns, now_ns).await;
            // Whatever became of it, the next one waits its turn.
            self.made_ns = Some(now_ns);
            self.failure = drafted.as_ref().err().cloned();
            match drafted {
                Ok(unhidden) => self.unhidden = unhidden,
                Err(error) => {
                    self.discard(std::mem::take(&mut draft.written), now_ns);
                    return Err(error);
                }
            }
            self.is_behind = false;
        } else if let Some(failure) = self.failure.clone().filter(|_| self.is_behind) {
            // What is listed may be older than its pace allows.
            return Err(failure);
        }
        self.seen = live
            .view
            .cuts()
            .map(|(at, cut)| (at.index, cut.start, cut.chunks().to_vec()))
            .collect();
        self.looked_ns = Some(now_ns);
        Ok(())
    }

    fn is_as_seen(&self, view: &View) -> bool {
        view.cuts().count() == self.seen.len()
            && view.cuts().zip(&self.seen).all(|((at, cut), (index, start, chunks))| {
                at.index == *index
                    && cut.start == *start
                    && cut.chunks().len() == chunks.len()
                    && cut.chunks().iter().zip(chunks).all(|(now, then)| Arc::ptr_eq(now, then))
            })
    }

    /// Puts the drafted metadata where it differs and goes on with the draft.
    async fn adopt(&mut self, mut draft: Draft, now_ns: u64) -> Result<(), Error> {
        if !self.object_path.is_empty() && draft.metadata == self.metadata {
            self.history = draft.history;
            return Ok(());
        }
        // One that failed may be there all the same: its number is not used again.
        self.version = self.version.saturating_add(1);
        let version = self.version;
        let name = uuid_v4(&*self.context.random);
        let path = format!("{}/{version:010}-{name}.metadata.json", self.folder);
        draft.metadata.last_updated_ms = draft.metadata.next_ms(self.context.clock.now_ms());
        let document = Bytes::from(draft.metadata.encode()?);
        draft.written.push(path.clone());
        if let Err(error) = self.context.store.put_beside(&path, document.clone()).await {
            self.is_behind = true;
            self.failure = Some(error.clone().into());
            self.discard(draft.written, now_ns);
            return Err(error.into());
        }
        self.context.metrics.objects_written.inc_by(draft.written.len() as u64);
        let needed = draft.history.objects();
        let mut unneeded: Vec<String> =
            self.history.objects().into_iter().filter(|path| !needed.contains(path)).collect();
        // Only what no other snapshot came to need was written in vain.
        let in_vain = draft.written.iter().filter(|written| **written != path);
        unneeded.extend(in_vain.filter(|written| !needed.contains(*written)).cloned());
        if !self.object_path.is_empty() {
            unneeded.push(std::mem::take(&mut self.object_path));
        }
        self.discard(unneeded, now_ns);
        self.metadata = draft.metadata;
        self.history = draft.history;
        self.hidden = draft.hidden;
        (self.document, self.object_path) = (document, path);
        Ok(())
    }

    fn discard(&mut self, paths: Vec<String>, now_ns: u64) {
        self.trash.extend(paths.into_iter().map(|path| (path, now_ns)));
    }

    /// Deletes what nothing has named for the grace time, some of it at a time.
    pub(crate) async fn clean(&mut self) -> Result<(), Error> {
        let now_ns = self.context.clock.monotonic_ns();
        let grace_ns = self.context.grace_ns();
        let (due, mut rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.trash)
            .into_iter()
            .partition(|(_, since_ns)| now_ns.saturating_sub(*since_ns) >= grace_ns);
        let (mut tried, mut deleted, mut failure) = (0, 0, None);
        for (path, since_ns) in due {
            if tried >= DELETED_MAX {
                rest.push((path, since_ns));
                continue;
            }
            tried += 1;
            match self.context.store.delete_beside(&path).await {
                Ok(()) => deleted += 1,
                // One that may not be deleted keeps no other.
                Err(error) => {
                    rest.push((path, since_ns));
                    failure.get_or_insert(error);
                }
            }
        }
        self.trash = rest;
        self.context.metrics.objects_deleted.inc_by(deleted as u64);
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

//! What readers see: the published streams, partitions, positions and chunks.
//!
//! Only groups that are synced (or, for relaxed streams, written) arrive here,
//! whole and in order. The index of the tail says where in the journal each
//! batch lies; chunk lists are replaced, never changed, so that a view keeps
//! the one that it took. Nothing here is durable of itself: it is rebuilt from
//! the catalog and the journal at every start.

mod files;
mod groups;
mod partition;
mod publish;
mod schemas;
mod tail_cache;
mod watchers;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aquifer_types::{
    Epoch, GroupSequence, Partition, PartitionIndex, StreamClass, StreamConfig, StreamId,
    StreamPath, TenantName, Timestamp,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub(crate) use files::LiveFiles;
pub(crate) use groups::Groups;
pub(crate) use partition::{
    ChunkList, PartitionLog, PartitionState, TailEntry, TailKind, chunk_at,
};
pub(crate) use publish::{chunk_of_row, chunk_row};
pub(crate) use tail_cache::TailCache;
pub use watchers::{PartitionsWatch, Waker};

use self::schemas::KnownSchema;
use crate::Error;
use crate::ledger::document::{DocumentKind, Documents};

/// A stream as readers see it.
#[derive(Debug)]
pub(crate) struct StreamIndex {
    pub(crate) id: StreamId,
    pub(crate) path: StreamPath,
    pub(crate) class: StreamClass,
    pub(crate) created: Timestamp,
    /// The epoch of its appends; it changes only before anybody is served.
    epoch: AtomicU32,
    pub(crate) config: RwLock<Arc<StreamConfig>>,
    pub(crate) partitions: RwLock<Arc<Vec<Arc<PartitionLog>>>>,
    /// What [`Index::schema`] read last.
    schema: Mutex<Option<KnownSchema>>,
}

impl StreamIndex {
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Relaxed))
    }

    pub(crate) fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.get(), Ordering::Relaxed);
    }

    pub(crate) fn config(&self) -> Arc<StreamConfig> {
        self.config.read().clone()
    }

    pub(crate) fn partitions(&self) -> Arc<Vec<Arc<PartitionLog>>> {
        self.partitions.read().clone()
    }

    pub(crate) fn partition(&self, index: PartitionIndex) -> Result<Arc<PartitionLog>, Error> {
        let partitions = self.partitions.read();
        partitions.get(index.get() as usize).cloned().ok_or_else(|| Error::PartitionNotFound {
            path: self.path.clone(),
            partitions: partitions.len() as u32,
            partition: index.get(),
        })
    }
}

/// An object of tier 2 that nobody needs any more but readers that hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Garbage {
    pub(crate) since: Timestamp,
    pub(crate) due: Timestamp,
    pub(crate) reason: &'static str,
    /// Since when this run counts its grace time, on the monotonic clock.
    pub(crate) counted_ns: Option<u64>,
}

/// A stream that was deleted, for the manifest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Tombstone {
    pub(crate) id: StreamId,
    pub(crate) path: StreamPath,
    pub(crate) at: Timestamp,
}

#[derive(Debug, Default)]
struct Streams {
    by_id: HashMap<StreamId, Arc<StreamIndex>>,
    by_path: BTreeMap<StreamPath, Arc<StreamIndex>>,
}

/// Everything that is published.
#[derive(Debug)]
pub(crate) struct Index {
    streams: RwLock<Streams>,
    /// Held for writing while a group is published, for reading while a view
    /// takes its cut: a cut has all of a commit or nothing of it.
    cut: RwLock<GroupSequence>,
    pub(crate) groups: RwLock<Groups>,
    pub(crate) documents: RwLock<Documents>,
    /// Counts up with every change of a document.
    pub(crate) documents_changed: watch::Sender<u64>,
    /// The same for those of one kind, for who follows a kind that changes less
    /// often than others.
    pub(crate) kinds_changed: BTreeMap<DocumentKind, watch::Sender<u64>>,
    pub(crate) garbage: Mutex<BTreeMap<String, Garbage>>,
    pub(crate) tombstones: Mutex<BTreeMap<StreamId, Tombstone>>,
    pub(crate) files: LiveFiles,
    pub(crate) tail_cache: TailCache,
    chunk_grace_ms: u64,
    /// Grows with every fact that a manifest tells of.
    changes: AtomicU64,
    /// Grows when a stream came, got more partitions, or went.
    shapes: AtomicU64,
}

impl Index {
    pub(crate) fn new(tail_cache_bytes_max: usize, chunk_grace_ms: u64) -> Self {
        Self {
            streams: RwLock::default(),
            cut: RwLock::default(),
            groups: RwLock::default(),
            documents: RwLock::default(),
            documents_changed: watch::Sender::new(0),
            kinds_changed: DocumentKind::ALL.map(|kind| (kind, watch::Sender::new(0))).into(),
            garbage: Mutex::default(),
            tombstones: Mutex::default(),
            files: LiveFiles::default(),
            tail_cache: TailCache::new(tail_cache_bytes_max),
            chunk_grace_ms,
            changes: AtomicU64::new(0),
            shapes: AtomicU64::new(0),
        }
    }

    /// Differs from an earlier answer where a stream came, got more partitions,
    /// or went.
    pub(crate) fn shapes(&self) -> u64 {
        self.shapes.load(Ordering::Acquire)
    }

    /// Differs from an earlier answer where what a manifest tells has changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(crate) fn stream(&self, path: &StreamPath) -> Result<Arc<StreamIndex>, Error> {
        let streams = self.streams.read();
        streams.by_path.get(path).cloned().ok_or_else(|| Error::StreamNotFound(path.clone()))
    }

    pub(crate) fn stream_by_id(&self, id: StreamId) -> Option<Arc<StreamIndex>> {
        self.streams.read().by_id.get(&id).cloned()
    }

    pub(crate) fn partition(&self, at: Partition) -> Option<Arc<PartitionLog>> {
        self.stream_by_id(at.stream)?.partition(at.index).ok()
    }

    pub(crate) fn streams_of(&self, tenant: &TenantName) -> Vec<Arc<StreamIndex>> {
        let streams = self.streams.read();
        streams.by_path.values().filter(|s| s.path.tenant == *tenant).cloned().collect()
    }

    pub(crate) fn all_streams(&self) -> Vec<Arc<StreamIndex>> {
        self.streams.read().by_path.values().cloned().collect()
    }

    /// Runs `take` while nothing is published, and says up to which group
    /// everything is.
    pub(crate) fn at_cut<T>(&self, take: impl FnOnce(GroupSequence) -> T) -> T {
        let cut = self.cut.read();
        take(*cut)
    }
}

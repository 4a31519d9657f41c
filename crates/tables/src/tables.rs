//! All tables, as the door that serves the catalog sees them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use aquifer_env::{Clock, Random};
use aquifer_stream::StreamStore;
use aquifer_types::{StreamId, StreamName, StreamPath, TenantName};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, Semaphore};

use crate::location::Location;
use crate::sweep::Sweep;
use crate::table::{Context, Table};
use crate::{Error, TableMetrics, TableOptions};

/// What tables need besides the store.
#[derive(Debug)]
pub struct TableEnvironment {
    /// For times and ages.
    pub clock: Arc<dyn Clock>,
    /// For ids.
    pub random: Arc<dyn Random>,
    /// Where tables count.
    pub metrics: TableMetrics,
}

/// Which snapshots of a table are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Snapshots {
    /// All that may still be read.
    #[default]
    All,
    /// The current one.
    Current,
}

/// A table as a catalog answers it.
#[derive(Debug, Clone)]
pub struct LoadedTable {
    /// Where its metadata lies, for readers.
    pub metadata_location: String,
    /// Its metadata: a JSON document.
    pub metadata: Bytes,
}

/// The tables; cheap to clone.
#[derive(Debug, Clone)]
pub struct Tables {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: StreamStore,
    /// Why readers cannot reach tier 2, where they cannot.
    context: Result<Arc<Context>, Error>,
    tables: Mutex<HashMap<StreamId, Slot>>,
    permits: Arc<Semaphore>,
    /// Loads that have not ended.
    loads: AtomicUsize,
    sweep: tokio::sync::Mutex<Sweep>,
    metrics: TableMetrics,
    options: TableOptions,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct Slot {
    table: Arc<tokio::sync::Mutex<Option<Table>>>,
    used_ns: u64,
}

impl Tables {
    /// The tables of a store. Must be called in a Tokio runtime, where it also
    /// starts to look for objects that nothing needs any more, until the last
    /// clone is dropped.
    #[must_use]
    pub fn new(store: StreamStore, options: TableOptions, environment: TableEnvironment) -> Self {
        let TableEnvironment { clock, random, metrics } = environment;
        let location = Location::new(options.location.as_deref(), &store.options().tier2_url());
        let context = location.map(|location| {
            Arc::new(Context {
                store: store.clone(),
                clock: clock.clone(),
                random,
                options: options.clone(),
                location,
                metrics: metrics.clone(),
            })
        });
        let shared = Arc::new(Shared {
            store,
            context,
            tables: Mutex::default(),
            permits: Arc::new(Semaphore::new(options.concurrency)),
            loads: AtomicUsize::new(0),
            sweep: tokio::sync::Mutex::default(),
            metrics,
            options,
            clock,
        });
        tokio::spawn(keep_clean(Arc::downgrade(&shared)));
        Self { shared }
    }

    /// What readers have to know to reach tier 2, in Iceberg's words and without
    /// anything secret.
    #[must_use]
    pub fn reader_settings(&self) -> Vec<(&'static str, String)> {
        let options = self.shared.store.options();
        let pairs: Vec<(String, String)> =
            options.tier2_options.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        aquifer_env::store::reader_settings(&options.tier2_url(), &pairs)
    }

    /// The streams of a tenant that are tables.
    #[must_use]
    pub fn list(&self, tenant: &TenantName) -> Vec<StreamName> {
        let streams = self.shared.store.list_streams(tenant);
        streams.into_iter().map(|stream| stream.path.name).collect()
    }

    /// Whether there is such a table.
    ///
    /// # Errors
    /// That of the store where there is none.
    pub fn find(&self, path: &StreamPath) -> Result<(), Error> {
        self.shared.store.stream(path)?;
        Ok(())
    }

    /// A table as it is now, or was at most `snapshot_interval_ms_min` ago.
    /// What its snapshots name can be read for half of `chunk_grace_ms` from
    /// now on at least.
    ///
    /// # Errors
    /// [`Error::Store`] where there is no such stream, or tier 2 fails;
    /// [`Error::Location`], [`Error::NotATable`], [`Error::TooManyChunks`];
    /// [`Error::Busy`] where too many wait already, as they do while tier 2
    /// hangs.
    pub async fn load(&self, path: &StreamPath, which: Snapshots) -> Result<LoadedTable, Error> {
        let shared = &self.shared;
        let context = shared.context.clone()?;
        let id = shared.store.stream(path)?.id();
        let _waiting = Waiting::enter(shared)?;
        // Who waits here is gone when it gives up, and of those who have one
        // table loaded only one works.
        let slot = shared.slot(id).lock_owned().await;
        let permit = shared.permits.clone().acquire_owned().await.map_err(Error::internal)?;
        let (shared, path) = (shared.clone(), path.clone());
        // Whoever asked may go away; what was begun is ended all the same.
        let loading = tokio::spawn(async move {
            let loaded = shared.load(context, path, id, slot, which).await;
            drop(permit);
            loaded
        });
        loading.await.map_err(Error::internal)?
    }

    /// Deletes objects that nothing needs any more, and not only at the next
    /// `cleanup_interval_ms`.
    ///
    /// # Errors
    /// The store's.
    pub async fn clean(&self) -> Result<(), Error> {
        self.shared.clean().await
    }
}

/// The place of one load among those that there may be.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn enter(shared: &'a Shared) -> Result<Self, Error> {
        let limit = shared.options.loads_max;
        let loads = shared.loads.fetch_add(1, Ordering::Relaxed);
        // Given back below in either case.
        let waiting = Self(shared);
        if loads < limit { Ok(waiting) } else { Err(Error::Busy { limit }) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.loads.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    async fn load(
        &self,
        context: Arc<Context>,
        path: StreamPath,
        id: StreamId,
        mut slot: OwnedMutexGuard<Option<Table>>,
        which: Snapshots,
    ) -> Result<LoadedTable, Error> {
        let table = match &mut *slot {
            Some(table) => table,
            None => slot.insert(Table::open(context, path, id).await?),
        };
        table.refresh().await?;
        self.metrics.loads.inc();
        Ok(LoadedTable {
            metadata_location: table.metadata_url(),
            metadata: table.document(which)?,
        })
    }

    /// The place of a table's state. Where there are too many, the one that was
    /// not used for the longest time is forgotten: it can be read back.
    fn slot(&self, id: StreamId) -> Arc<tokio::sync::Mutex<Option<Table>>> {
        let used_ns = self.clock.monotonic_ns();
        let mut tables = self.tables.lock();
        if !tables.contains_key(&id) && tables.len() >= self.options.tables_max {
            let idle = tables.iter().filter(|(_, slot)| Arc::strong_count(&slot.table) == 1);
            let oldest = idle.min_by_key(|(_, slot)| slot.used_ns).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                tables.remove(&oldest);
            }
        }
        let slot = tables.entry(id).or_insert_with(|| Slot { table: Arc::default(), used_ns });
        slot.used_ns = used_ns;
        let table = slot.table.clone();
        self.metrics.tables.set(i64::try_from(tables.len()).unwrap_or(i64::MAX));
        table
    }

    async fn clean(&self) -> Result<(), Error> {
        let Ok(context) = &self.context else { return Ok(()) };
        let slots: Vec<_> = {
            let mut tables = self.tables.lock();
            tables.retain(|id, _| self.store.stream_by_id(*id).is_some());
            tables.values().map(|slot| slot.table.clone()).collect()
        };
        let mut first = Ok(());
        for slot in slots {
            if let Some(table) = slot.lock().await.as_mut() {
                // One table's failure keeps no other from being cleaned.
                first = first.and(table.clean().await);
            }
        }
        first.and(self.sweep.lock().await.run(context).await)
    }
}

async fn keep_clean(shared: Weak<Shared>) {
    let mut is_failing = false;
    loop {
        let Some(interval_ms) = shared.upgrade().map(|it| it.options.cleanup_interval_ms) else {
            return;
        };
        tokio::time::sleep(Duration::from_millis(interval_ms)).await;
        let Some(shared) = shared.upgrade() else { return };
        match shared.clean().await {
            Ok(()) => is_failing = false,
            // Said once: it is tried again.
            Err(error) if !is_failing => {
                is_failing = true;
                tracing::warn!(%error, "metadata of tables could not be cleaned up");
            }
            Err(_) => {}
        }
    }
}

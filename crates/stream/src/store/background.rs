//! The tasks that run beside serving.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;

use super::{Inner, StreamStore};

/// How often transactions whose time is over are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);
/// How often gauges are set.
const GAUGES_INTERVAL: Duration = Duration::from_millis(1000);
/// The pause behind a panic.
const PANIC_PAUSE: Duration = Duration::from_secs(5);

impl StreamStore {
    pub(super) fn spawn_background(&self) {
        let tier = self.inner.tier.clone();
        self.spawn("tiering", move || tier.clone().run());
        let tier = self.inner.tier.clone();
        self.spawn("indexing", move || tier.clone().run_indexing());
        let weak = Arc::downgrade(&self.inner);
        let interval = Duration::from_millis(self.inner.options.retention_interval_ms.max(10));
        self.spawn("retention", move || enforce_retention(weak.clone(), interval));
        let weak = Arc::downgrade(&self.inner);
        self.spawn("expiry", move || expire_transactions(weak.clone()));
        let weak = Arc::downgrade(&self.inner);
        self.spawn("gauges", move || set_gauges(weak.clone()));
    }

    /// Runs a task until it ends or the store stops. One that panics is begun
    /// anew: without tiering the journal would only grow, and nobody would know.
    fn spawn<F>(&self, name: &'static str, task: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut stopping = self.inner.stopping.subscribe();
        let watched = async move {
            while AssertUnwindSafe(task()).catch_unwind().await.is_err() {
                tracing::error!(name, "a task panicked, it is begun anew");
                tokio::time::sleep(PANIC_PAUSE).await;
            }
        };
        self.inner.tasks.lock().spawn(async move {
            tokio::select! {
                () = watched => {}
                _ = stopping.wait_for(|is_stopping| *is_stopping) => {}
            }
        });
    }
}

async fn enforce_retention(weak: Weak<Inner>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(inner) = weak.upgrade() else { return };
        if let Err(error) = inner.retention.lock().await.enforce().await {
            tracing::warn!(%error, "retention could not be enforced, it is tried again");
        }
    }
}

async fn expire_transactions(weak: Weak<Inner>) {
    loop {
        tokio::time::sleep(EXPIRY_INTERVAL).await;
        let Some(inner) = weak.upgrade() else { return };
        if let Err(error) = (StreamStore { inner }).expire_transactions().await {
            tracing::warn!(%error, "a transaction could not be aborted, it is tried again");
        }
    }
}

async fn set_gauges(weak: Weak<Inner>) {
    loop {
        tokio::time::sleep(GAUGES_INTERVAL).await;
        let Some(inner) = weak.upgrade() else { return };
        inner.set_gauges();
    }
}

impl Inner {
    fn set_gauges(&self) {
        let metrics = &self.metrics;
        let set = |gauge: &prometheus_client::metrics::gauge::Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&metrics.journal_bytes, self.ledger.journal_bytes());
        set(&metrics.tail_cache_bytes, self.index.tail_cache.bytes() as u64);
        set(&metrics.chunk_cache_bytes, self.reader.cache.bytes());
        set(&metrics.garbage_objects, self.index.garbage.lock().len() as u64);
        set(&metrics.leases, self.reader.leases.count() as u64);
        set(&metrics.catalog_changes_waiting, self.ledger.catalog_changes_waiting() as u64);
        set(&metrics.tiering_lag_ms, self.tier.lag_ms());
        let streams = self.index.all_streams();
        set(&metrics.streams, streams.len() as u64);
        let schemas = streams.iter().filter_map(|stream| self.index.schema(stream).ok());
        let (mut fields, mut closed) = (0, 0);
        for known in schemas {
            fields += known.schema.fields().len() as u64;
            closed += u64::from(known.schema.is_closed());
        }
        set(&metrics.schema_fields, fields);
        set(&metrics.schemas_closed, closed);
        let logs: Vec<_> = streams.iter().map(|stream| stream.partitions()).collect();
        set(&metrics.partitions, logs.iter().map(|logs| logs.len() as u64).sum());
        let untiered = logs.iter().flat_map(|logs| logs.iter());
        set(&metrics.untiered_bytes, untiered.map(|log| log.with(|s| s.tail_bytes)).sum());
    }
}

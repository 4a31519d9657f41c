//! The tasks that run beside serving.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::{Inner, StreamStore};

/// How often transactions whose time is over are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);
/// How often gauges are set.
const GAUGES_INTERVAL: Duration = Duration::from_millis(1000);

impl StreamStore {
    pub(super) fn spawn_background(&self) {
        let tier = self.inner.tier.clone();
        self.spawn(async move { tier.run().await });
        let weak = Arc::downgrade(&self.inner);
        let interval = Duration::from_millis(self.inner.options.retention_interval_ms.max(10));
        self.spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(inner) = weak.upgrade() else { return };
                if let Err(error) = inner.retention.lock().await.enforce().await {
                    tracing::warn!(%error, "retention could not be enforced, it is tried again");
                }
            }
        });
        let weak = Arc::downgrade(&self.inner);
        self.spawn(async move {
            loop {
                tokio::time::sleep(EXPIRY_INTERVAL).await;
                let Some(inner) = weak.upgrade() else { return };
                if let Err(error) = (StreamStore { inner }).expire_transactions().await {
                    tracing::warn!(%error, "a transaction could not be aborted, it is tried again");
                }
            }
        });
        let weak = Arc::downgrade(&self.inner);
        self.spawn(async move {
            loop {
                tokio::time::sleep(GAUGES_INTERVAL).await;
                let Some(inner) = weak.upgrade() else { return };
                inner.set_gauges();
            }
        });
    }

    /// Runs a task until it ends or the store stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut stopping = self.inner.stopping.subscribe();
        self.inner.tasks.lock().spawn(async move {
            tokio::select! {
                () = task => {}
                _ = stopping.wait_for(|is_stopping| *is_stopping) => {}
            }
        });
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
        let logs: Vec<_> = streams.iter().map(|stream| stream.partitions()).collect();
        set(&metrics.partitions, logs.iter().map(|logs| logs.len() as u64).sum());
        let untiered = logs.iter().flat_map(|logs| logs.iter());
        set(&metrics.untiered_bytes, untiered.map(|log| log.with(|s| s.tail_bytes)).sum());
    }
}

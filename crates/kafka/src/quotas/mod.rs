//! Quotas: how much users and clients may send and fetch (KIP-13, KIP-546).
//!
//! A quota is a document of the ledger. What holds is kept in a table that
//! follows the documents, so that a change counts without a restart. Whoever
//! took too much is answered at once and told how long to pause, and for as long
//! its connection is not read from (KIP-219). What is owed is not stored: a
//! restart forgets it. Enforced are the byte rates of producers and consumers;
//! the others are kept and told, no more.

mod alter;
mod bucket;
mod describe;
mod entity;
mod table;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::Clock;
use aquifer_stream::{DocumentKind, StreamStore};
use aquifer_types::TenantName;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub(crate) use self::alter::alter;
use self::bucket::Bucket;
pub(crate) use self::describe::describe;
use self::entity::ClientQuota;
pub(crate) use self::entity::Quota;
use self::table::QuotaTable;
use crate::authorizer::Principal;
use crate::options::KafkaOptions;

/// Who has a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct BucketKey {
    tenant: TenantName,
    quota: Quota,
    /// Absent where all users share it.
    user: Option<String>,
    /// Absent where all clients share it.
    client: Option<String>,
}

/// All quotas and what is left of them.
#[derive(Debug)]
pub(crate) struct ClientQuotas {
    store: StreamStore,
    clock: Arc<dyn Clock>,
    /// What a bucket holds, in the time that fills it.
    windows: Duration,
    throttle_max: Duration,
    buckets_max: usize,
    /// Absent where nobody has a quota.
    table: RwLock<Option<Arc<QuotaTable>>>,
    buckets: Mutex<HashMap<BucketKey, Bucket>>,
}

impl ClientQuotas {
    /// Reads the quotas, and follows them until the server stops.
    pub(crate) fn start(
        store: StreamStore,
        options: &KafkaOptions,
        clock: Arc<dyn Clock>,
        mut stopping: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let mut changed = store.watch_documents_of(DocumentKind::ClientQuota);
        let quotas = Arc::new(Self::new(store, options, clock));
        quotas.load();
        let following = quotas.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    changed = changed.changed() => if changed.is_err() { return },
                    _ = stopping.wait_for(|is_stopping| *is_stopping) => return,
                }
                following.load();
            }
        });
        quotas
    }

    fn new(store: StreamStore, options: &KafkaOptions, clock: Arc<dyn Clock>) -> Self {
        let window = Duration::from_millis(options.quota_window_ms);
        Self {
            store,
            clock,
            windows: window.saturating_mul(options.quota_windows),
            // A request that was arriving when the pause began has time left.
            throttle_max: Duration::from_millis(
                options.quota_throttle_ms_max.min(options.request_ms_max / 2),
            ),
            buckets_max: options.quota_buckets_max,
            table: RwLock::default(),
            buckets: Mutex::default(),
        }
    }

    /// Takes up what the documents say now.
    fn load(&self) {
        let documents = self.store.all_documents(DocumentKind::ClientQuota);
        let mut table = QuotaTable::default();
        for (key, document) in &documents {
            match serde_json::from_str::<ClientQuota>(&document.value) {
                Ok(quota) => table.put(&key.tenant, &quota),
                Err(error) => {
                    tracing::error!(%error, quota = %key.name, "a quota cannot be read, it does not hold");
                }
            }
        }
        let table = (!documents.is_empty()).then(|| Arc::new(table));
        if table.is_none() {
            self.buckets.lock().clear();
        }
        *self.table.write() = table;
    }

    /// Counts what a client took, and says how long it has to pause.
    pub(crate) fn charge(
        &self,
        principal: &Principal,
        client: &str,
        quota: Quota,
        amount: usize,
    ) -> Duration {
        let Some(table) = self.table.read().clone() else { return Duration::ZERO };
        let found = table.find(&principal.tenant, &principal.user, client, quota);
        let Some(found) = found else { return Duration::ZERO };
        let key = BucketKey {
            tenant: principal.tenant.clone(),
            quota,
            user: found.is_of_user.then(|| principal.user.clone()),
            client: found.is_of_client.then(|| client.to_owned()),
        };
        let now = self.clock.monotonic_ns();
        let mut buckets = self.buckets.lock();
        if !buckets.contains_key(&key) && buckets.len() >= self.buckets_max {
            self.make_room(&mut buckets, now);
        }
        let new = || Bucket::new(found.limit, self.windows, now);
        let bucket = buckets.entry(key).or_insert_with(new);
        let pause = bucket.take(amount as f64, found.limit, self.windows, now);
        pause.min(self.throttle_max)
    }

    /// Forgets those that are full, and if none is, the one that owes least.
    fn make_room(&self, buckets: &mut HashMap<BucketKey, Bucket>, now_ns: u64) {
        buckets.retain(|_, bucket| !bucket.is_full(self.windows, now_ns));
        if buckets.len() < self.buckets_max {
            return;
        }
        let share = |bucket: &Bucket| bucket.share(self.windows);
        let fullest = buckets.iter().max_by(|a, b| share(a.1).total_cmp(&share(b.1)));
        if let Some(key) = fullest.map(|(key, _)| key.clone()) {
            buckets.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use aquifer_env::MockClock;
    use aquifer_stream::{DocumentExpectation, DocumentKey, Environment, Options};
    use prometheus_client::registry::Registry;

    use super::*;

    fn principal(user: &str) -> Principal {
        Principal { user: user.to_owned(), ..Principal::anonymous() }
    }

    async fn put(quotas: &ClientQuotas, text: &str) {
        let quota: ClientQuota = serde_json::from_str(text).unwrap();
        let name = quota.entity.document_name();
        let key = DocumentKey::new(TenantName::default_tenant(), DocumentKind::ClientQuota, name);
        let put = quotas.store.put_document(key, text.to_owned(), DocumentExpectation::Any);
        put.await.unwrap();
        quotas.load();
    }

    async fn quotas(options: KafkaOptions) -> (Arc<MockClock>, ClientQuotas, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let store_options = Options { data, journal_file_bytes: 1 << 20, ..Options::default() };
        let mut registry = Registry::default();
        let store = StreamStore::open(store_options, Environment::real(), &mut registry);
        let clock = Arc::new(MockClock::new(0));
        let quotas = ClientQuotas::new(store.await.unwrap(), &options, clock.clone());
        (clock, quotas, directory)
    }

    #[tokio::test]
    async fn users_and_clients_pause_apart() {
        let options = KafkaOptions {
            quota_window_ms: 500,
            quota_windows: 4,
            quota_throttle_ms_max: 3_000,
            ..KafkaOptions::default()
        };
        let (clock, quotas, _directory) = quotas(options).await;
        let sends = |user: &str, client: &str, bytes| {
            let pause = quotas.charge(&principal(user), client, Quota::ProducerByteRate, bytes);
            u64::try_from(pause.as_millis()).unwrap()
        };
        assert_eq!(sends("ann", "a", 1 << 40), 0, "nobody has a quota");
        put(&quotas, r#"{"entity":{"user":null},"quotas":{"producer_byte_rate":1000}}"#).await;
        put(&quotas, r#"{"entity":{"client-id":"x"},"quotas":{"consumer_byte_rate":1}}"#).await;
        // A bucket holds two seconds.
        assert_eq!(sends("ann", "a", 2_000), 0);
        assert_eq!(sends("ann", "b", 500), 500, "all clients of a user share");
        assert_eq!(sends("bob", "a", 1_900), 0, "another user does not");
        clock.advance(Duration::from_millis(400));
        assert_eq!(sends("ann", "a", 0), 100);
        assert_eq!(sends("ann", "a", 50_000), 3_000, "as long as it may be");
        // The rest is owed.
        clock.advance(Duration::from_secs(3));
        assert_eq!(sends("ann", "a", 0), 3_000);
        // A user's own goes before that of everybody.
        put(&quotas, r#"{"entity":{"user":"ann"},"quotas":{"producer_byte_rate":1000000}}"#).await;
        assert_eq!(sends("ann", "a", 0), 47);
        assert_eq!(sends("bob", "a", 900), 0);
        quotas.store.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn the_buckets_are_bounded() {
        let options = KafkaOptions { quota_buckets_max: 3, ..KafkaOptions::default() };
        let windows = options.quota_window_ms * u64::from(options.quota_windows);
        let (clock, quotas, _directory) = quotas(options).await;
        put(&quotas, r#"{"entity":{"client-id":null},"quotas":{"consumer_byte_rate":1000}}"#).await;
        let full = usize::try_from(windows).unwrap();
        let fetches = |client: &str, bytes| {
            let pause = quotas.charge(&principal("ann"), client, Quota::ConsumerByteRate, bytes);
            u64::try_from(pause.as_millis()).unwrap()
        };
        assert_eq!(fetches("a", full + 3_000), 3_000);
        assert_eq!(fetches("b", full + 1_000), 1_000);
        assert_eq!(fetches("c", 10), 0);
        // The one that owes nothing makes room.
        assert_eq!(fetches("d", full + 2_000), 2_000);
        assert_eq!(fetches("a", 0), 3_000);
        assert_eq!(fetches("e", 0), 0);
        assert_eq!(quotas.buckets.lock().len(), 3);
        assert_eq!(fetches("a", 0), 3_000);
        clock.advance(Duration::from_secs(3_600));
        // All are full again and can be forgotten.
        assert_eq!(fetches("f", 0), 0);
        assert_eq!(quotas.buckets.lock().len(), 1);
        quotas.store.shutdown().await.unwrap();
    }
}

//! The store's configuration: where it lives and every limit that it keeps.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the store lives and what it may use. Field names are the names in the
/// configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The data directory: journal, catalog, lock.
    pub data: PathBuf,
    /// Where chunks go; absent: `file://<data>/tier2`.
    pub tier2: Option<String>,
    /// Options of the object store, as it names them (`aws_endpoint`, …).
    pub tier2_options: std::collections::BTreeMap<String, String>,

    /// The size of a journal file; 1 MiB to 2 GiB.
    pub journal_file_bytes: u64,
    /// The most bytes of journal files; beyond it appends wait for tier 2.
    pub journal_bytes_max: u64,
    /// The most journal bytes that one partition may pin.
    pub journal_partition_bytes_max: u64,
    /// A group is cut when its commits reach this size.
    pub group_bytes_max: usize,
    /// The most bytes of one commit: of one request's batches together.
    pub commit_bytes_max: usize,
    /// The most bytes of commits that wait for the ledger.
    pub commit_queue_bytes_max: usize,
    /// The most records' bytes of one batch when it is decompressed.
    pub batch_decompressed_bytes_max: usize,
    /// Relaxed streams are synced at least this often, in ms.
    pub relaxed_sync_ms_max: u64,
    /// Journal bytes between two snapshots of the ledger's state.
    pub snapshot_journal_bytes: u64,
    /// The most changes of metadata that wait for the catalog; beyond it what
    /// changes metadata is refused: streams, truncation, chunks.
    pub catalog_changes_max: usize,
    /// Bytes held back on disk, beside one journal file, for tiering, truncation
    /// and snapshots when the disk is full; 0 holds nothing back.
    pub disk_reserve_bytes: u64,

    /// The most streams of all tenants.
    pub streams_max: u64,
    /// The most partitions of all streams.
    pub partitions_max: u64,
    /// The most idempotent producers remembered for one partition.
    pub producers_per_partition_max: usize,
    /// A producer that is idle for longer is forgotten, in ms.
    pub producer_idle_ms_max: u64,
    /// The longest timeout that a producer may declare for its transactions, in
    /// ms.
    pub transaction_ms_max: u64,
    /// The most transactions that are open at once.
    pub transactions_open_max: usize,
    /// The most partitions and groups in one transaction.
    pub transaction_partitions_max: usize,
    /// The most transactional ids that are kept.
    pub transactional_ids_max: usize,
    /// A transactional id without an open transaction that is not used for
    /// longer is forgotten, in ms.
    pub transactional_id_idle_ms_max: u64,
    /// The most answers kept for `Idempotency-Key`.
    pub idempotency_keys_max: usize,
    /// How long an answer is kept for `Idempotency-Key`, in ms.
    pub idempotency_key_ms: u64,
    /// The most outcomes of commits under an id of their caller's that are
    /// remembered; at twice as many nobody can ask for one either.
    pub commit_outcomes_max: usize,
    /// How long such an outcome is remembered, in ms.
    pub commit_outcomes_ms: u64,
    /// The most leases that are held at once.
    pub leases_max: usize,
    /// The longest time that a lease lasts without being renewed, in ms.
    pub lease_ttl_ms_max: u64,
    /// The most positions kept for consumer groups, all groups together.
    pub group_positions_max: usize,
    /// The most positions whose lag is among the metrics, those of the first
    /// groups by name; 0 shows none.
    pub group_lag_series_max: usize,
    /// The most bytes of one document: a user, a group's members, a quota.
    pub document_bytes_max: usize,
    /// The most bytes of all documents together.
    pub documents_bytes_max: usize,

    /// Recent journal bytes kept in memory for tailing readers.
    pub tail_cache_bytes_max: usize,
    /// Bytes of chunks kept in memory for reading readers.
    pub chunk_cache_bytes_max: usize,
    /// The most bytes that one read answers.
    pub read_bytes_max: usize,
    /// A view's chunks are kept for at most this long, in ms.
    pub view_lease_ms: u64,

    /// How often the tierer looks for work, in ms.
    pub tier_interval_ms: u64,
    /// The most chunks that are encoded and uploaded at once.
    pub tier_concurrency: usize,
    /// The zstd level of chunks; 1 to 19.
    pub chunk_zstd_level: i32,
    /// Chunks of one partition are merged when this many small ones lie in a row.
    pub compaction_chunks_min: usize,
    /// How often partitions are looked for that are worth a compaction by key,
    /// in ms.
    pub compaction_interval_ms: u64,
    /// The memory for the keys of one compaction; what has more distinct keys
    /// takes several passes.
    pub compaction_keys_bytes_max: usize,
    /// The most search indexes that are built at once.
    pub index_concurrency: usize,
    /// The most bytes of records a second that search indexes are built of.
    pub index_bytes_per_second_max: u64,
    /// Chunks with fewer bytes of records have no search index: reading them costs
    /// no more.
    pub index_chunk_bytes_min: u64,
    /// Replaced, truncated and deleted chunks stay this long, in ms.
    pub chunk_grace_ms: u64,
    /// The shortest time between two manifests, in ms.
    pub manifest_interval_ms_min: u64,
    /// Offsets of each partition that manifests reserve ahead: a recovery goes
    /// on behind them.
    pub manifest_offsets_ahead: u64,
    /// How often one stream's folder in tier 2 is searched for objects that
    /// nothing knows, in ms.
    pub orphan_interval_ms: u64,
    /// Such an object becomes garbage when it was seen for so long, in ms.
    pub orphan_age_ms: u64,
    /// How many manifests are kept.
    pub manifests_kept: usize,
    /// How often retention is enforced, in ms.
    pub retention_interval_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data: "aquifer-data".into(),
            tier2: None,
            tier2_options: Default::default(),
            journal_file_bytes: 64 << 20,
            journal_bytes_max: 4 << 30,
            journal_partition_bytes_max: 1 << 30,
            group_bytes_max: 1 << 20,
            commit_bytes_max: 32 << 20,
            commit_queue_bytes_max: 64 << 20,
            batch_decompressed_bytes_max: 64 << 20,
            relaxed_sync_ms_max: 100,
            snapshot_journal_bytes: 128 << 20,
            catalog_changes_max: 200_000,
            disk_reserve_bytes: 16 << 20,
            streams_max: 10_000,
            partitions_max: 100_000,
            producers_per_partition_max: 10_000,
            producer_idle_ms_max: 24 * 3600 * 1000,
            transaction_ms_max: 15 * 60 * 1000,
            transactions_open_max: 10_000,
            transaction_partitions_max: 10_000,
            transactional_ids_max: 100_000,
            transactional_id_idle_ms_max: 7 * 24 * 3600 * 1000,
            idempotency_keys_max: 100_000,
            idempotency_key_ms: 24 * 3600 * 1000,
            commit_outcomes_max: 200_000,
            commit_outcomes_ms: 3600 * 1000,
            leases_max: 10_000,
            lease_ttl_ms_max: 3600 * 1000,
            group_positions_max: 1_000_000,
            group_lag_series_max: 10_000,
            document_bytes_max: 1 << 20,
            documents_bytes_max: 256 << 20,
            tail_cache_bytes_max: 64 << 20,
            chunk_cache_bytes_max: 32 << 20,
            read_bytes_max: 8 << 20,
            view_lease_ms: 10 * 60 * 1000,
            tier_interval_ms: 500,
            tier_concurrency: 2,
            chunk_zstd_level: 1,
            compaction_chunks_min: 8,
            compaction_interval_ms: 10_000,
            compaction_keys_bytes_max: 64 << 20,
            index_concurrency: 1,
            index_bytes_per_second_max: 256 << 20,
            index_chunk_bytes_min: 64 << 10,
            chunk_grace_ms: 15 * 60 * 1000,
            manifest_interval_ms_min: 2_000,
            manifest_offsets_ahead: 1 << 32,
            orphan_interval_ms: 60_000,
            orphan_age_ms: 24 * 3600 * 1000,
            manifests_kept: 3,
            retention_interval_ms: 10_000,
        }
    }
}

impl Options {
    /// Checks the bounds of every field.
    ///
    /// # Errors
    /// A sentence that names the first field outside its bounds.
    pub fn validate(&self) -> Result<(), crate::Error> {
        let bounds: [(&str, u64, u64, u64); 15] = [
            ("journal_file_bytes", self.journal_file_bytes, 1 << 20, 2 << 30),
            ("journal_bytes_max", self.journal_bytes_max, 3 * self.journal_file_bytes, u64::MAX),
            ("group_bytes_max", self.group_bytes_max as u64, 4 << 10, 32 << 20),
            ("commit_bytes_max", self.commit_bytes_max as u64, 64 << 10, 256 << 20),
            ("tier_interval_ms", self.tier_interval_ms, 10, 3_600_000),
            ("tier_concurrency", self.tier_concurrency as u64, 1, 64),
            ("chunk_zstd_level", u64::try_from(self.chunk_zstd_level).unwrap_or(0), 1, 19),
            ("compaction_chunks_min", self.compaction_chunks_min as u64, 2, 1_000),
            ("compaction_interval_ms", self.compaction_interval_ms, 10, 3_600_000),
            ("compaction_keys_bytes_max", self.compaction_keys_bytes_max as u64, 4 << 10, 64 << 30),
            ("index_concurrency", self.index_concurrency as u64, 1, 64),
            ("index_bytes_per_second_max", self.index_bytes_per_second_max, 64 << 10, u64::MAX),
            ("transaction_ms_max", self.transaction_ms_max, 1, i32::MAX as u64),
            ("manifest_offsets_ahead", self.manifest_offsets_ahead, 1 << 10, 1 << 48),
            ("manifests_kept", self.manifests_kept as u64, 1, 1_000),
        ];
        for (name, value, low, high) in bounds {
            if !(low..=high).contains(&value) {
                return Err(crate::Error::Start(format!(
                    "{name} is {value}, it must lie between {low} and {high}"
                )));
            }
        }
        Ok(())
    }

    /// The URL of tier 2.
    #[must_use]
    pub fn tier2_url(&self) -> String {
        self.tier2.clone().unwrap_or_else(|| {
            let path = std::path::absolute(self.data.join("tier2"))
                .unwrap_or_else(|_| self.data.join("tier2"));
            format!("file://{}", path.display())
        })
    }
}

//! The configuration of open tables, and their limits.

use serde::{Deserialize, Serialize};

/// Whether and how streams are shown as tables. Field names are the names in
/// the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableOptions {
    /// Answers the Iceberg REST catalog at `/iceberg`.
    pub enabled: bool,
    /// The URL under which readers reach tier 2, where it is not `store.tier2`:
    /// another scheme (`s3a://…`, `abfss://…`) or the place of a mount.
    pub location: Option<String>,
    /// The shortest time between two snapshots of a table, in ms; at most a
    /// quarter of `store.chunk_grace_ms` counts.
    pub snapshot_interval_ms_min: u64,
    /// A snapshot whose chunks are not all live any more is listed for this
    /// long, in ms; at most half of `store.chunk_grace_ms` counts.
    pub snapshot_ms_max: u64,
    /// The most snapshots that a table lists.
    pub snapshots_max: usize,
    /// The most chunks of a table; one with more is refused.
    pub chunks_max: usize,
    /// The most tables whose state is kept in memory.
    pub tables_max: usize,
    /// The most tables that are brought up to date at once.
    pub concurrency: usize,
    /// The most loads of tables that are under way or wait; one more is refused.
    pub loads_max: usize,
    /// How often objects that nothing needs any more are looked for, in ms.
    pub cleanup_interval_ms: u64,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            location: None,
            snapshot_interval_ms_min: 5_000,
            snapshot_ms_max: 5 * 60 * 1000,
            snapshots_max: 100,
            chunks_max: 200_000,
            tables_max: 1_000,
            concurrency: 2,
            loads_max: 1_000,
            cleanup_interval_ms: 60_000,
        }
    }
}

impl TableOptions {
    /// Checks the bounds of every field.
    ///
    /// # Errors
    /// The field's name and the rule that it breaks.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        for (field, value) in [
            ("snapshots_max", self.snapshots_max),
            ("chunks_max", self.chunks_max),
            ("tables_max", self.tables_max),
            ("concurrency", self.concurrency),
            ("loads_max", self.loads_max),
        ] {
            if value == 0 {
                return Err((field, "it is at least 1"));
            }
        }
        if self.snapshots_max > 10_000 {
            return Err(("snapshots_max", "it is at most 10000"));
        }
        if self.cleanup_interval_ms < 100 {
            return Err(("cleanup_interval_ms", "it is at least 100"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_checked() {
        let check = |change: fn(&mut TableOptions), expected: Result<(), &str>| {
            let mut options = TableOptions::default();
            change(&mut options);
            assert_eq!(options.validate().map_err(|(field, _)| field), expected);
        };
        check(|_| {}, Ok(()));
        check(|options| options.snapshots_max = 0, Err("snapshots_max"));
        check(|options| options.snapshots_max = 10_001, Err("snapshots_max"));
        check(|options| options.chunks_max = 0, Err("chunks_max"));
        check(|options| options.tables_max = 0, Err("tables_max"));
        check(|options| options.concurrency = 0, Err("concurrency"));
        check(|options| options.loads_max = 0, Err("loads_max"));
        check(|options| options.cleanup_interval_ms = 1, Err("cleanup_interval_ms"));
    }
}

//! The configuration of imports and exports, and their limits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What may be imported and exported, and how much at a time. Field names are
/// the names in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectOptions {
    /// The beginnings of the addresses that clients may name. A directory is
    /// `file:///path/`; no file is read that lies outside of those when links
    /// are followed.
    pub allowed: Vec<String>,
    /// Hosts that `http` and `https` may reach although their addresses are
    /// private, of this machine or of a link.
    pub private_hosts: Vec<String>,
    /// Options of the `object_store` crate, as in `store.tier2_options`; those
    /// that begin with `aws_`, `google_` and `azure_` are for `s3`, `gs` and `az`.
    pub store_options: BTreeMap<String, String>,
    /// The most objects that are imported or exported at the same time.
    pub concurrency: usize,
    /// The most objects that clients upload at the same time.
    pub uploads_max: usize,
    /// The most imports, and exports, that are kept; of those that have ended
    /// the oldest go first.
    pub jobs_max: usize,
    /// The most watches.
    pub watches_max: usize,
    /// The most addresses of one import.
    pub urls_max: usize,
    /// The most objects below one address, and the most that one look of an
    /// import finds to be imported.
    pub listed_max: usize,
    /// About how many bytes of records are appended at a time.
    pub part_bytes: usize,
    /// The most bytes of an uploaded Parquet file: it is read from its end.
    pub upload_bytes_max: usize,
    /// An object that grows beyond so many times its length when it is
    /// decompressed, and beyond 64 MiB, is refused.
    pub ratio_max: u64,
    /// Of rows that cannot be imported, the first so many are named.
    pub errors_max: usize,
    /// The most objects of a stream that are remembered as imported.
    pub remembered_max: usize,
    /// A failed import or export is tried again so often before it is given up.
    pub retries_max: u32,
    /// The first pause before that, in ms; it doubles each time.
    pub retry_ms_min: u64,
    /// The longest such pause, in ms.
    pub retry_ms_max: u64,
    /// The pause between two looks of a watch, in ms.
    pub watch_poll_ms: u64,
    /// A watched file that changed less than this ago is left for the next
    /// look: somebody may still be writing it. In ms.
    pub watch_settle_ms: u64,
    /// The most bytes of records in an exported object.
    pub export_bytes_max: usize,
}

impl Default for ObjectOptions {
    fn default() -> Self {
        let schemes = ["s3://", "gs://", "az://", "https://", "http://"];
        Self {
            allowed: schemes.map(str::to_owned).into(),
            private_hosts: Vec::new(),
            store_options: BTreeMap::new(),
            concurrency: 2,
            uploads_max: 8,
            jobs_max: 1_000,
            watches_max: 100,
            urls_max: 1_000,
            listed_max: 100_000,
            part_bytes: 2 << 20,
            upload_bytes_max: 256 << 20,
            ratio_max: 1_000,
            errors_max: 20,
            remembered_max: 1_000_000,
            retries_max: 8,
            retry_ms_min: 250,
            retry_ms_max: 30_000,
            watch_poll_ms: 10_000,
            watch_settle_ms: 2_000,
            export_bytes_max: 256 << 20,
        }
    }
}

impl ObjectOptions {
    /// Checks the bounds of every field.
    ///
    /// # Errors
    /// The field's name and the rule that it breaks.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        for (field, value) in [
            ("concurrency", self.concurrency),
            ("uploads_max", self.uploads_max),
            ("jobs_max", self.jobs_max),
            ("urls_max", self.urls_max),
            ("listed_max", self.listed_max),
            ("remembered_max", self.remembered_max),
        ] {
            if value == 0 {
                return Err((field, "it is at least 1"));
            }
        }
        if self.concurrency > 64 || self.uploads_max > 64 {
            return Err(("concurrency", "it and uploads_max are at most 64"));
        }
        if !(16 << 10..=16 << 20).contains(&self.part_bytes) {
            return Err(("part_bytes", "it lies between 16 KiB and 16 MiB"));
        }
        if self.export_bytes_max < 1 << 20 || self.export_bytes_max > 1 << 30 {
            return Err(("export_bytes_max", "it lies between 1 MiB and 1 GiB"));
        }
        if self.ratio_max == 0 {
            return Err(("ratio_max", "it is at least 1"));
        }
        if self.errors_max > 1_000 {
            return Err(("errors_max", "it is at most 1000"));
        }
        if self.watch_poll_ms < 10 {
            return Err(("watch_poll_ms", "it is at least 10"));
        }
        if self.retry_ms_min == 0 || self.retry_ms_max < self.retry_ms_min {
            return Err(("retry_ms_max", "it is at least retry_ms_min, and that at least 1"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_checked() {
        let check = |change: fn(&mut ObjectOptions), expected: Result<(), &str>| {
            let mut options = ObjectOptions::default();
            change(&mut options);
            assert_eq!(options.validate().map_err(|(field, _)| field), expected);
        };
        check(|_| {}, Ok(()));
        check(|options| options.concurrency = 0, Err("concurrency"));
        check(|options| options.concurrency = 65, Err("concurrency"));
        check(|options| options.part_bytes = 1, Err("part_bytes"));
        check(|options| options.export_bytes_max = 1, Err("export_bytes_max"));
        check(|options| options.ratio_max = 0, Err("ratio_max"));
        check(|options| options.errors_max = 2_000, Err("errors_max"));
        check(|options| options.watch_poll_ms = 1, Err("watch_poll_ms"));
        check(|options| options.retry_ms_max = 1, Err("retry_ms_max"));
    }
}

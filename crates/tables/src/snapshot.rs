//! A snapshot as table metadata has it.

use std::collections::BTreeMap;

use aquifer_types::{Offset, PartitionIndex};
use serde::{Deserialize, Serialize};

use crate::changes::{Kind, Step};

/// Positions of more partitions are left out of a summary: it is part of every
/// answer.
const POSITIONS_MAX: usize = 256;
/// Where a reader of the table goes on in the stream, by partition.
pub(crate) const POSITIONS: &str = "aquifer.next-offsets";

/// A snapshot. Field names are the specification's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Snapshot {
    pub(crate) snapshot_id: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent_snapshot_id: Option<i64>,
    pub(crate) sequence_number: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) manifest_list: String,
    pub(crate) summary: BTreeMap<String, String>,
    pub(crate) schema_id: i32,
}

/// What a table has in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) files: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) delete_files: u64,
    pub(crate) deleted_positions: u64,
}

/// What a snapshot changed and what the table has then, in the names that
/// Iceberg's tools show.
pub(crate) fn summary(
    kind: Kind,
    step: &Step<'_>,
    totals: Totals,
    next: Option<&BTreeMap<PartitionIndex, Offset>>,
) -> BTreeMap<String, String> {
    let mut summary = BTreeMap::from([("operation".to_owned(), kind.name().to_owned())]);
    let mut put = |name: &str, number: u64| {
        summary.insert(name.to_owned(), number.to_string());
    };
    if !step.added.is_empty() {
        put("added-data-files", step.added.len() as u64);
        put("added-records", step.added.iter().map(|file| file.chunk.records).sum());
        put("added-files-size", step.added.iter().map(|file| file.chunk.object_bytes).sum());
    }
    if !step.removed.is_empty() {
        put("deleted-data-files", step.removed.len() as u64);
        put("deleted-records", step.removed.iter().map(|file| file.records).sum());
        put("removed-files-size", step.removed.iter().map(|file| file.bytes).sum());
    }
    put("total-data-files", totals.files);
    put("total-records", totals.records);
    put("total-files-size", totals.bytes);
    put("total-delete-files", totals.delete_files);
    put("total-position-deletes", totals.deleted_positions);
    put("total-equality-deletes", 0);
    if let Some(next) = next.filter(|next| next.len() <= POSITIONS_MAX) {
        let positions = next.iter().map(|(partition, offset)| format!("{partition}:{offset}"));
        summary.insert(POSITIONS.to_owned(), positions.collect::<Vec<_>>().join(","));
    }
    summary
}

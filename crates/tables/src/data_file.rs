//! A file of a table as manifests describe it: where it is, what is in it, and
//! between which bounds, so that readers leave out what a filter excludes.

use aquifer_stream::ChunkMeta;
use aquifer_types::{Offset, PartitionIndex};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::bounds;
use crate::schema::{
    APPENDED_ID, OFFSET_ID, PARTITION_ID, REQUIRED_IDS, SORT_ORDER_ID, TIMESTAMP_ID,
};

/// Rows of the table.
pub(crate) const DATA: i32 = 0;
/// Positions of rows that are deleted.
pub(crate) const POSITION_DELETES: i32 = 1;
/// The reserved field id of the column `file_path` in files of positions.
pub(crate) const FILE_PATH_ID: i32 = 2_147_483_546;
/// The reserved field id of the column `pos`.
pub(crate) const POS_ID: i32 = 2_147_483_545;

/// A file. Field names are the specification's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DataFile {
    pub(crate) content: i32,
    pub(crate) file_path: String,
    pub(crate) file_format: String,
    pub(crate) partition: PartitionValue,
    pub(crate) record_count: i64,
    pub(crate) file_size_in_bytes: i64,
    pub(crate) value_counts: Option<Vec<Count>>,
    pub(crate) null_value_counts: Option<Vec<Count>>,
    pub(crate) lower_bounds: Option<Vec<Bound>>,
    pub(crate) upper_bounds: Option<Vec<Bound>>,
    pub(crate) sort_order_id: Option<i32>,
}

/// The value of the one partition field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionValue {
    #[serde(rename = "_partition_id")]
    pub(crate) partition: Option<i32>,
}

/// A number for a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) key: i32,
    pub(crate) value: i64,
}

/// A value for a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) key: i32,
    #[serde(with = "serde_bytes")]
    pub(crate) value: Vec<u8>,
}

/// A chunk that a snapshot lists, as far as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) url: String,
    pub(crate) partition: PartitionIndex,
    pub(crate) base: Offset,
    pub(crate) next: Offset,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// The snapshot that added it.
    pub(crate) snapshot_id: i64,
    /// That snapshot's sequence number.
    pub(crate) sequence: i64,
}

impl DataFile {
    /// A chunk with all that is known of its values.
    pub(crate) fn of_chunk(chunk: &ChunkMeta, url: String) -> Self {
        let partition = partition_value(chunk.partition.index);
        let bound = |key: i32, value: Option<Vec<u8>>| value.map(|value| Bound { key, value });
        // The covered range may be wider than the rows, so both are bounds.
        let last = Offset(chunk.next.0.saturating_sub(1));
        let lower = [
            bound(PARTITION_ID, partition.map(bounds::of_int)),
            bound(OFFSET_ID, Some(bounds::of_long(chunk.base.0))),
            bound(TIMESTAMP_ID, chunk.min_timestamp.map(bounds::of_timestamp)),
        ];
        let upper = [
            bound(PARTITION_ID, partition.map(bounds::of_int)),
            bound(OFFSET_ID, Some(bounds::of_long(last.0))),
            bound(TIMESTAMP_ID, chunk.max_timestamp.map(bounds::of_timestamp)),
            bound(APPENDED_ID, chunk.max_appended.map(bounds::of_timestamp)),
        ];
        let count = |value: i64| REQUIRED_IDS.map(|key| Count { key, value }).to_vec();
        Self {
            value_counts: Some(count(signed(chunk.records))),
            null_value_counts: Some(count(0)),
            lower_bounds: Some(lower.into_iter().flatten().collect()),
            upper_bounds: Some(upper.into_iter().flatten().collect()),
            ..Self::plain(url, partition, chunk.records, chunk.object_bytes)
        }
    }

    /// A chunk that is not live any more, with what is remembered of it.
    pub(crate) fn of_listed(listed: &Listed) -> Self {
        let partition = partition_value(listed.partition);
        let bound = |value: i64| vec![Bound { key: OFFSET_ID, value: bounds::of_long(value) }];
        Self {
            lower_bounds: Some(bound(listed.base.0)),
            upper_bounds: Some(bound(listed.next.0.saturating_sub(1))),
            ..Self::plain(listed.url.clone(), partition, listed.records, listed.bytes)
        }
    }

    /// A file of deleted positions of the data file at `of`.
    pub(crate) fn of_positions(
        url: String,
        of: &str,
        partition: PartitionIndex,
        rows: u64,
        bytes: u64,
    ) -> Self {
        let bound = vec![Bound { key: FILE_PATH_ID, value: of.as_bytes().to_vec() }];
        Self {
            content: POSITION_DELETES,
            lower_bounds: Some(bound.clone()),
            upper_bounds: Some(bound),
            sort_order_id: None,
            ..Self::plain(url, partition_value(partition), rows, bytes)
        }
    }

    fn plain(url: String, partition: Option<i32>, records: u64, bytes: u64) -> Self {
        Self {
            content: DATA,
            file_path: url,
            file_format: "PARQUET".to_owned(),
            partition: PartitionValue { partition },
            record_count: signed(records),
            file_size_in_bytes: signed(bytes),
            value_counts: None,
            null_value_counts: None,
            lower_bounds: None,
            upper_bounds: None,
            sort_order_id: Some(SORT_ORDER_ID),
        }
    }

    /// What is remembered of a chunk that the manifest at `path` lists.
    pub(crate) fn listed(
        self,
        path: &str,
        snapshot_id: i64,
        sequence: i64,
    ) -> Result<Listed, Error> {
        let missing = |what: &str| Error::damaged(path, format!("{}: {what}", self.file_path));
        let long = |bounds: &Option<Vec<Bound>>| {
            let bound = bounds.as_ref()?.iter().find(|bound| bound.key == OFFSET_ID)?;
            bounds::to_long(&bound.value)
        };
        let base = long(&self.lower_bounds).ok_or_else(|| missing("no lowest offset"))?;
        let last = long(&self.upper_bounds).ok_or_else(|| missing("no highest offset"))?;
        let partition = self.partition.partition.and_then(|number| u32::try_from(number).ok());
        let partition = partition.ok_or_else(|| missing("no partition"))?;
        Ok(Listed {
            partition: PartitionIndex(partition),
            base: Offset(base),
            next: Offset(last.saturating_add(1)),
            records: u64::try_from(self.record_count).map_err(|_| missing("no count"))?,
            bytes: u64::try_from(self.file_size_in_bytes).map_err(|_| missing("no size"))?,
            url: self.file_path,
            snapshot_id,
            sequence,
        })
    }
}

/// Iceberg's integers are signed; a stream has far fewer partitions.
fn partition_value(partition: PartitionIndex) -> Option<i32> {
    i32::try_from(partition.get()).ok()
}

/// Iceberg's counts are signed.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

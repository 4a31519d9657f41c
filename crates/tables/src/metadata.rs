//! A table's metadata: the document that a catalog answers and that is kept as
//! `metadata.json`, version 2 of the specification.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::snapshot::Snapshot;
use crate::{Error, schema};

const FORMAT_VERSION: u8 = 2;
/// The branch that readers see.
const MAIN: &str = "main";

/// A table. Field names are the specification's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Metadata {
    pub(crate) format_version: u8,
    pub(crate) table_uuid: Uuid,
    pub(crate) location: String,
    pub(crate) last_sequence_number: i64,
    pub(crate) last_updated_ms: i64,
    pub(crate) last_column_id: i64,
    pub(crate) current_schema_id: i32,
    pub(crate) schemas: Vec<Value>,
    pub(crate) default_spec_id: i32,
    pub(crate) partition_specs: Value,
    pub(crate) last_partition_id: i32,
    pub(crate) default_sort_order_id: i32,
    pub(crate) sort_orders: Value,
    pub(crate) properties: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current_snapshot_id: Option<i64>,
    pub(crate) refs: BTreeMap<String, Value>,
    pub(crate) snapshots: Vec<Snapshot>,
    pub(crate) snapshot_log: Vec<LogEntry>,
    pub(crate) metadata_log: Vec<Value>,
}

/// When a snapshot became the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct LogEntry {
    pub(crate) timestamp_ms: i64,
    pub(crate) snapshot_id: i64,
}

impl Metadata {
    /// A table without snapshots.
    pub(crate) fn new(
        table_uuid: Uuid,
        location: String,
        schema: Value,
        properties: BTreeMap<String, String>,
        now_ms: i64,
    ) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            table_uuid,
            location,
            last_sequence_number: 0,
            last_updated_ms: now_ms,
            last_column_id: schema::last_column_id(&schema),
            current_schema_id: schema::id(&schema),
            schemas: vec![schema],
            default_spec_id: schema::SPEC_ID,
            partition_specs: serde_json::json!([
                { "spec-id": schema::SPEC_ID, "fields": schema::spec_fields() }
            ]),
            last_partition_id: schema::PARTITION_FIELD_ID,
            default_sort_order_id: schema::SORT_ORDER_ID,
            sort_orders: schema::sort_orders(),
            properties,
            current_snapshot_id: None,
            refs: BTreeMap::new(),
            snapshots: Vec::new(),
            snapshot_log: Vec::new(),
            metadata_log: Vec::new(),
        }
    }

    pub(crate) fn decode(path: &str, bytes: &[u8]) -> Result<Self, Error> {
        let metadata: Self =
            serde_json::from_slice(bytes).map_err(|error| Error::damaged(path, error))?;
        if metadata.format_version != FORMAT_VERSION {
            let why = format!("its format has version {}", metadata.format_version);
            return Err(Error::damaged(path, why));
        }
        Ok(metadata)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(Error::internal)
    }

    /// The table with no snapshot but the current one.
    pub(crate) fn with_current_only(&self) -> Self {
        let mut table = self.clone();
        table.snapshots.retain(|snapshot| Some(snapshot.snapshot_id) == self.current_snapshot_id);
        table
    }

    /// The schema that new snapshots have.
    pub(crate) fn schema(&self) -> Result<&Value, Error> {
        let id = self.current_schema_id;
        let schema = self.schemas.iter().find(|schema| schema::id(schema) == id);
        schema.ok_or_else(|| Error::internal(format!("a table has no schema {id}")))
    }

    /// Goes on with this schema, and with those of it that snapshots have.
    pub(crate) fn set_schema(&mut self, schema: Value) {
        let id = schema::id(&schema);
        self.last_column_id = self.last_column_id.max(schema::last_column_id(&schema));
        self.current_schema_id = id;
        // A stream that was recovered from tier 2 may have lost its newest
        // versions, which no chunk has: their numbers are given again.
        self.schemas.retain(|known| schema::id(known) < id);
        self.schemas.push(schema);
        for snapshot in &mut self.snapshots {
            snapshot.schema_id = snapshot.schema_id.min(id);
        }
        self.forget_schemas();
    }

    /// Forgets the schemas that no snapshot has.
    fn forget_schemas(&mut self) {
        let used = self.snapshots.iter().map(|snapshot| snapshot.schema_id);
        let used: BTreeSet<i32> = used.chain([self.current_schema_id]).collect();
        self.schemas.retain(|schema| used.contains(&schema::id(schema)));
    }

    /// A time for the next change, behind all before it.
    pub(crate) fn next_ms(&self, now_ms: i64) -> i64 {
        now_ms.max(self.last_updated_ms.saturating_add(1))
    }

    /// Makes a snapshot the current one.
    pub(crate) fn push(&mut self, snapshot: Snapshot) {
        let id = snapshot.snapshot_id;
        self.last_sequence_number = snapshot.sequence_number;
        self.last_updated_ms = snapshot.timestamp_ms;
        self.current_snapshot_id = Some(id);
        let main = serde_json::json!({ "snapshot-id": id, "type": "branch" });
        self.refs.insert(MAIN.to_owned(), main);
        self.snapshot_log.push(LogEntry { timestamp_ms: snapshot.timestamp_ms, snapshot_id: id });
        self.snapshots.push(snapshot);
    }

    /// Forgets snapshots, and the history before the last of them: what is left
    /// of it has no holes.
    pub(crate) fn forget(&mut self, is_forgotten: impl Fn(i64) -> bool) {
        self.snapshots.retain(|snapshot| !is_forgotten(snapshot.snapshot_id));
        let last = self.snapshot_log.iter().rposition(|entry| is_forgotten(entry.snapshot_id));
        if let Some(last) = last {
            self.snapshot_log.drain(..=last);
        }
        self.forget_schemas();
    }
}

#[cfg(test)]
mod tests {
    use aquifer_types::{FieldKind, NewField, StreamSchema};

    use super::*;

    const GOLDEN: &str = include_str!("../tests/golden/table-v2.metadata.json");

    fn snapshot(id: i64, timestamp_ms: i64) -> Snapshot {
        Snapshot {
            snapshot_id: id,
            parent_snapshot_id: (id > 1).then_some(id - 1),
            sequence_number: id,
            timestamp_ms,
            manifest_list: format!("file:///t/metadata/snap-{id}.avro"),
            summary: [("operation".to_owned(), "append".to_owned())].into(),
            schema_id: 0,
        }
    }

    fn table() -> Metadata {
        let schema = schema::of_stream(&StreamSchema::default()).unwrap();
        let properties = [("aquifer.stream".to_owned(), "audit".to_owned())].into();
        Metadata::new(Uuid::from_bytes([7; 16]), "file:///t".to_owned(), schema, properties, 1000)
    }

    #[test]
    fn the_format_is_the_golden_files() {
        let mut table = table();
        table.push(snapshot(1, 2000));
        table.push(snapshot(2, 3000));
        let found: Value = serde_json::from_slice(&table.encode().unwrap()).unwrap();
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(found, golden, "{}", serde_json::to_string_pretty(&found).unwrap());
        assert_eq!(Metadata::decode("golden", GOLDEN.as_bytes()).unwrap(), table);
    }

    #[test]
    fn what_is_forgotten_leaves_no_hole() {
        let check = |forgotten: &[i64], snapshots: &[i64], log: &[i64]| {
            let mut table = table();
            for id in 1..=4 {
                table.push(snapshot(id, 1000 * id));
            }
            table.forget(|id| forgotten.contains(&id));
            let kept: Vec<i64> = table.snapshots.iter().map(|s| s.snapshot_id).collect();
            let logged: Vec<i64> = table.snapshot_log.iter().map(|e| e.snapshot_id).collect();
            assert_eq!((kept.as_slice(), logged.as_slice()), (snapshots, log), "{forgotten:?}");
            let current = table.with_current_only().snapshots;
            assert_eq!(current.iter().map(|s| s.snapshot_id).collect::<Vec<_>>(), [4]);
        };
        check(&[], &[1, 2, 3, 4], &[1, 2, 3, 4]);
        check(&[1], &[2, 3, 4], &[2, 3, 4]);
        check(&[2], &[1, 3, 4], &[3, 4]);
        check(&[1, 2, 3], &[4], &[4]);
    }

    #[test]
    fn a_schema_lasts_as_long_as_a_snapshot_has_it() {
        let mut streams = vec![StreamSchema::default()];
        for name in ["a", "b", "c"] {
            let new =
                NewField { path: vec![name.to_owned()], kind: FieldKind::Text, is_declared: false };
            streams.push(streams.last().unwrap().extended(&[new]));
        }
        let schema = |version: usize| schema::of_stream(&streams[version]).unwrap();
        let ids = |table: &Metadata| table.schemas.iter().map(schema::id).collect::<Vec<_>>();
        let mut table = table();
        table.set_schema(schema(1));
        assert_eq!(
            (ids(&table), table.current_schema_id, table.last_column_id),
            (vec![1], 1, 1000)
        );
        for (id, version) in [(1, 1), (2, 1), (3, 3)] {
            table.set_schema(schema(version));
            let snapshot = Snapshot { schema_id: version as i32, ..snapshot(id, 1000 * id) };
            table.push(snapshot);
        }
        assert_eq!((ids(&table), table.schema().unwrap()), (vec![1, 3], &schema(3)));
        table.forget(|id| id == 1);
        assert_eq!(ids(&table), [1, 3]);
        let mut expired = table.clone();
        expired.forget(|id| id == 2);
        assert_eq!(ids(&expired), [3]);
        // The stream came back without its newest version, and has another one.
        table.set_schema(schema(2));
        let of_snapshots: Vec<i32> = table.snapshots.iter().map(|s| s.schema_id).collect();
        assert_eq!((ids(&table), of_snapshots), (vec![1, 2], vec![1, 2]));
        assert_eq!(table.last_column_id, 1002);
    }

    #[test]
    fn times_grow_whatever_the_clock_does() {
        let mut table = table();
        assert_eq!(table.next_ms(5000), 5000);
        table.push(snapshot(1, 5000));
        assert_eq!(table.next_ms(10), 5001);
    }

    #[test]
    fn damage_is_an_error() {
        let newer = GOLDEN.replacen("\"format-version\": 2", "\"format-version\": 3", 1);
        for bytes in ["", "{}", "[]", GOLDEN.get(..500).unwrap(), newer.as_str()] {
            assert!(matches!(Metadata::decode("a", bytes.as_bytes()), Err(Error::Damaged { .. })));
        }
    }
}

//! Manifests: files of a table, each with what became of it in the snapshot
//! that the manifest was written for.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data_file::DataFile;
use crate::{Error, avro, schema};

/// Entries of one manifest; more become several.
pub(crate) const ENTRIES_MAX: usize = 4096;

/// The file was listed before.
pub(crate) const EXISTING: i32 = 0;
/// The snapshot adds it.
pub(crate) const ADDED: i32 = 1;
/// The snapshot does not list it any more.
pub(crate) const DELETED: i32 = 2;

/// A file and what became of it. Field names are the specification's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) status: i32,
    pub(crate) snapshot_id: Option<i64>,
    pub(crate) sequence_number: Option<i64>,
    pub(crate) file_sequence_number: Option<i64>,
    pub(crate) data_file: DataFile,
}

impl Entry {
    /// `sequence` is that of the snapshot that added the file.
    pub(crate) fn new(status: i32, snapshot_id: i64, sequence: i64, data_file: DataFile) -> Self {
        Self {
            status,
            snapshot_id: Some(snapshot_id),
            sequence_number: Some(sequence),
            file_sequence_number: Some(sequence),
            data_file,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.status != DELETED
    }
}

/// A manifest of data files, or of deleted positions, under the table's current
/// schema.
pub(crate) fn encode(
    entries: &[Entry],
    table_schema: &Value,
    is_deletes: bool,
    marker: [u8; 16],
) -> Result<Vec<u8>, Error> {
    let header = [
        ("schema", table_schema.to_string()),
        ("schema-id", schema::id(table_schema).to_string()),
        ("partition-spec", schema::spec_fields().to_string()),
        ("partition-spec-id", schema::SPEC_ID.to_string()),
        ("format-version", "2".to_owned()),
        ("content", if is_deletes { "deletes" } else { "data" }.to_owned()),
    ];
    avro::encode(SCHEMA, &header, entries, marker)
}

pub(crate) fn decode(path: &str, bytes: &[u8]) -> Result<Vec<Entry>, Error> {
    // One that lists what it deletes beside what it adds may have twice as many.
    avro::decode(SCHEMA, path, bytes, 2 * ENTRIES_MAX)
}

/// The specification's schema of a manifest entry, version 2, without the
/// optional fields that are not written.
const SCHEMA: &str = r#"{
  "type": "record", "name": "manifest_entry", "fields": [
    { "name": "status", "type": "int", "field-id": 0 },
    { "name": "snapshot_id", "type": ["null", "long"], "default": null, "field-id": 1 },
    { "name": "sequence_number", "type": ["null", "long"], "default": null, "field-id": 3 },
    { "name": "file_sequence_number", "type": ["null", "long"], "default": null, "field-id": 4 },
    { "name": "data_file", "field-id": 2, "type": {
      "type": "record", "name": "r2", "fields": [
        { "name": "content", "type": "int", "field-id": 134 },
        { "name": "file_path", "type": "string", "field-id": 100 },
        { "name": "file_format", "type": "string", "field-id": 101 },
        { "name": "partition", "field-id": 102, "type": {
          "type": "record", "name": "r102", "fields": [
            { "name": "_partition_id", "type": ["null", "int"], "default": null, "field-id": 1000 }
          ] } },
        { "name": "record_count", "type": "long", "field-id": 103 },
        { "name": "file_size_in_bytes", "type": "long", "field-id": 104 },
        { "name": "value_counts", "default": null, "field-id": 109, "type": ["null", {
          "type": "array", "logicalType": "map", "items": {
            "type": "record", "name": "k119_v120", "fields": [
              { "name": "key", "type": "int", "field-id": 119 },
              { "name": "value", "type": "long", "field-id": 120 }
            ] } }] },
        { "name": "null_value_counts", "default": null, "field-id": 110, "type": ["null", {
          "type": "array", "logicalType": "map", "items": {
            "type": "record", "name": "k121_v122", "fields": [
              { "name": "key", "type": "int", "field-id": 121 },
              { "name": "value", "type": "long", "field-id": 122 }
            ] } }] },
        { "name": "lower_bounds", "default": null, "field-id": 125, "type": ["null", {
          "type": "array", "logicalType": "map", "items": {
            "type": "record", "name": "k126_v127", "fields": [
              { "name": "key", "type": "int", "field-id": 126 },
              { "name": "value", "type": "bytes", "field-id": 127 }
            ] } }] },
        { "name": "upper_bounds", "default": null, "field-id": 128, "type": ["null", {
          "type": "array", "logicalType": "map", "items": {
            "type": "record", "name": "k129_v130", "fields": [
              { "name": "key", "type": "int", "field-id": 129 },
              { "name": "value", "type": "bytes", "field-id": 130 }
            ] } }] },
        { "name": "sort_order_id", "type": ["null", "int"], "default": null, "field-id": 140 }
      ] } }
  ] }"#;

#[cfg(test)]
mod tests {
    use aquifer_stream::ChunkMeta;
    use aquifer_types::{
        ChunkId, Offset, Partition, PartitionIndex, StreamId, StreamSchema, Timestamp,
    };

    use super::*;
    use crate::data_file::Listed;

    const GOLDEN: &[u8] = include_bytes!("../tests/golden/manifest-v2.avro");
    const FOLDER: &str = "file:///tier2/default/audit-01010101-0101-0101-0101-010101010101/p3";

    fn entries() -> Vec<Entry> {
        let chunk = ChunkMeta {
            id: ChunkId::from_bytes([2; 16]),
            partition: Partition::new(StreamId::from_bytes([1; 16]), PartitionIndex(3)),
            base: Offset(40),
            next: Offset(52),
            object_path: "a.parquet".into(),
            object_bytes: 1234,
            checksum: String::new(),
            records: 10,
            raw_bytes: 1,
            min_timestamp: Some(Timestamp(1000)),
            max_timestamp: Some(Timestamp(2000)),
            max_appended: Some(Timestamp(2500)),
            epochs: Vec::new(),
            generation: 0,
            schema_version: 0,
            unfit: None,
            timestamp_type: aquifer_types::TimestampType::Create,
            index_path: None,
            index_bytes: None,
            key_id: None,
        };
        let listed = Listed {
            url: format!("{FOLDER}/b.parquet"),
            partition: PartitionIndex(3),
            base: Offset(30),
            next: Offset(40),
            records: 5,
            bytes: 99,
            snapshot_id: 6,
            sequence: 1,
        };
        let added = DataFile::of_chunk(&chunk, format!("{FOLDER}/a.parquet"));
        vec![
            Entry::new(ADDED, 7, 2, added),
            Entry::new(DELETED, 7, 1, DataFile::of_listed(&listed)),
        ]
    }

    #[test]
    fn the_format_is_the_golden_files() {
        assert_eq!(decode("golden", GOLDEN).unwrap(), entries());
        let schema = schema::of_stream(&StreamSchema::default()).unwrap();
        let bytes = encode(&entries(), &schema, false, [7; 16]).unwrap();
        assert_eq!(decode("own", &bytes).unwrap(), entries());
        // What is kept of the schema is what readers find columns by.
        let header = |bytes: &[u8]| {
            let reader = apache_avro::Reader::new(bytes).unwrap();
            let metadata = reader.user_metadata().clone();
            let schema = serde_json::to_value(reader.writer_schema()).unwrap();
            (metadata, schema)
        };
        let (own, golden) = (header(&bytes), header(GOLDEN));
        assert_eq!(own.1, golden.1);
        for (key, value) in &own.0 {
            assert_eq!(golden.0.get(key), Some(value), "{key}");
        }
        assert_eq!(own.0.len(), 6);
    }

    #[test]
    fn fuzz_decode_manifest() {
        aquifer_testkit::fuzz("decode_manifest", 0.2, &[GOLDEN.to_vec()], |bytes| {
            let _ = decode("fuzz", bytes);
        });
    }

    #[test]
    fn damage_is_an_error() {
        for end in [0, 3, 100, GOLDEN.len() - 1] {
            let cut = GOLDEN.get(..end).unwrap();
            assert!(matches!(decode("cut", cut), Err(Error::Damaged { .. })), "{end}");
        }
    }

    #[test]
    fn what_is_listed_is_read_back() {
        let [added, deleted] = <[Entry; 2]>::try_from(entries()).unwrap();
        let listed = added.data_file.listed("m", 7, 2).unwrap();
        assert_eq!((listed.base, listed.next, listed.records), (Offset(40), Offset(52), 10));
        let gone = deleted.data_file.clone().listed("m", 6, 1).unwrap();
        assert_eq!((gone.base, gone.next, gone.bytes), (Offset(30), Offset(40), 99));
        let unbounded = DataFile { lower_bounds: None, ..deleted.data_file };
        assert!(matches!(unbounded.listed("m", 6, 1), Err(Error::Damaged { .. })));
    }
}

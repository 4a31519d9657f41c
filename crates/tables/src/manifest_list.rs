//! Lists of manifests: what one snapshot consists of.

use serde::{Deserialize, Serialize};

use crate::data_file::{POSITION_DELETES, signed};
use crate::manifest::{ADDED, DELETED, EXISTING, Entry};
use crate::{Error, avro, bounds, schema};

/// Manifests of one snapshot that are read back at most.
const MANIFESTS_MAX: usize = 100_000;

/// A manifest and what is in it. Field names are the specification's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestFile {
    pub(crate) manifest_path: String,
    pub(crate) manifest_length: i64,
    pub(crate) partition_spec_id: i32,
    pub(crate) content: i32,
    pub(crate) sequence_number: i64,
    pub(crate) min_sequence_number: i64,
    pub(crate) added_snapshot_id: i64,
    pub(crate) added_files_count: i32,
    pub(crate) existing_files_count: i32,
    pub(crate) deleted_files_count: i32,
    pub(crate) added_rows_count: i64,
    pub(crate) existing_rows_count: i64,
    pub(crate) deleted_rows_count: i64,
    pub(crate) partitions: Option<Vec<FieldSummary>>,
}

/// The values of the one partition field in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FieldSummary {
    pub(crate) contains_null: bool,
    pub(crate) contains_nan: Option<bool>,
    #[serde(with = "serde_bytes")]
    pub(crate) lower_bound: Option<Vec<u8>>,
    #[serde(with = "serde_bytes")]
    pub(crate) upper_bound: Option<Vec<u8>>,
}

impl ManifestFile {
    /// The manifest at `url` with these entries, written for a snapshot.
    pub(crate) fn new(
        url: String,
        bytes: usize,
        entries: &[Entry],
        snapshot_id: i64,
        sequence: i64,
    ) -> Self {
        let of = |status: i32| entries.iter().filter(move |entry| entry.status == status);
        let files = |status| i32::try_from(of(status).count()).unwrap_or(i32::MAX);
        let rows = |status| of(status).map(|entry| entry.data_file.record_count).sum();
        let live = entries.iter().filter(|entry| entry.is_live());
        let least = live.filter_map(|entry| entry.sequence_number).min();
        let values = || entries.iter().filter_map(|entry| entry.data_file.partition.partition);
        let content = entries.first().map_or(0, |entry| entry.data_file.content);
        Self {
            manifest_path: url,
            manifest_length: signed(bytes as u64),
            partition_spec_id: schema::SPEC_ID,
            content: i32::from(content == POSITION_DELETES),
            sequence_number: sequence,
            min_sequence_number: least.unwrap_or(sequence),
            added_snapshot_id: snapshot_id,
            added_files_count: files(ADDED),
            existing_files_count: files(EXISTING),
            deleted_files_count: files(DELETED),
            added_rows_count: rows(ADDED),
            existing_rows_count: rows(EXISTING),
            deleted_rows_count: rows(DELETED),
            partitions: Some(vec![FieldSummary {
                contains_null: false,
                contains_nan: Some(false),
                lower_bound: values().min().map(bounds::of_int),
                upper_bound: values().max().map(bounds::of_int),
            }]),
        }
    }
}

/// The list of a snapshot.
pub(crate) fn encode(
    manifests: &[ManifestFile],
    snapshot_id: i64,
    parent: Option<i64>,
    sequence: i64,
    marker: [u8; 16],
) -> Result<Vec<u8>, Error> {
    let parent = parent.map_or_else(|| "null".to_owned(), |id| id.to_string());
    let header = [
        ("snapshot-id", snapshot_id.to_string()),
        ("parent-snapshot-id", parent),
        ("sequence-number", sequence.to_string()),
        ("format-version", "2".to_owned()),
    ];
    avro::encode(SCHEMA, &header, manifests, marker)
}

pub(crate) fn decode(path: &str, bytes: &[u8]) -> Result<Vec<ManifestFile>, Error> {
    avro::decode(SCHEMA, path, bytes, MANIFESTS_MAX)
}

/// The specification's schema of a manifest list, version 2.
const SCHEMA: &str = r#"{
  "type": "record", "name": "manifest_file", "fields": [
    { "name": "manifest_path", "type": "string", "field-id": 500 },
    { "name": "manifest_length", "type": "long", "field-id": 501 },
    { "name": "partition_spec_id", "type": "int", "field-id": 502 },
    { "name": "content", "type": "int", "field-id": 517 },
    { "name": "sequence_number", "type": "long", "field-id": 515 },
    { "name": "min_sequence_number", "type": "long", "field-id": 516 },
    { "name": "added_snapshot_id", "type": "long", "field-id": 503 },
    { "name": "added_files_count", "type": "int", "field-id": 504 },
    { "name": "existing_files_count", "type": "int", "field-id": 505 },
    { "name": "deleted_files_count", "type": "int", "field-id": 506 },
    { "name": "added_rows_count", "type": "long", "field-id": 512 },
    { "name": "existing_rows_count", "type": "long", "field-id": 513 },
    { "name": "deleted_rows_count", "type": "long", "field-id": 514 },
    { "name": "partitions", "default": null, "field-id": 507, "type": ["null", {
      "type": "array", "element-id": 508, "items": {
        "type": "record", "name": "r508", "fields": [
          { "name": "contains_null", "type": "boolean", "field-id": 509 },
          { "name": "contains_nan", "type": ["null", "boolean"], "default": null, "field-id": 518 },
          { "name": "lower_bound", "type": ["null", "bytes"], "default": null, "field-id": 510 },
          { "name": "upper_bound", "type": ["null", "bytes"], "default": null, "field-id": 511 }
        ] } }] }
  ] }"#;

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../tests/golden/manifest-list-v2.avro");

    #[test]
    fn the_format_is_the_golden_files() {
        let manifest = include_bytes!("../tests/golden/manifest-v2.avro");
        let entries = crate::manifest::decode("golden", manifest).unwrap();
        let url = "file:///tier2/_iceberg/m.avro".to_owned();
        let file = ManifestFile::new(url, 500, &entries, 7, 2);
        let files = vec![file];
        assert_eq!(decode("golden", GOLDEN).unwrap(), files);
        let bytes = encode(&files, 7, None, 2, [7; 16]).unwrap();
        assert_eq!(decode("own", &bytes).unwrap(), files);
        let header = |bytes: &[u8]| {
            let reader = apache_avro::Reader::new(bytes).unwrap();
            (reader.user_metadata().clone(), serde_json::to_value(reader.writer_schema()).unwrap())
        };
        assert_eq!(header(&bytes), header(GOLDEN));
    }

    #[test]
    fn fuzz_decode_manifest_list() {
        aquifer_testkit::fuzz("decode_manifest_list", 0.2, &[GOLDEN.to_vec()], |bytes| {
            let _ = decode("fuzz", bytes);
        });
    }

    #[test]
    fn a_list_of_nothing_is_a_list() {
        let bytes = encode(&[], 7, Some(6), 2, [7; 16]).unwrap();
        assert!(decode("empty", &bytes).unwrap().is_empty());
        assert!(matches!(decode("cut", &bytes[..20]), Err(Error::Damaged { .. })));
    }
}

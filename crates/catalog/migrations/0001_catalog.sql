-- Ids are UUIDs. Offsets, epochs and counts are BIGINT, times are milliseconds
-- since the Unix epoch, sizes are bytes. `row_crc` is the CRC-32C of the row.
-- There are no foreign keys: a replay passes through states that they would
-- refuse. The integrity check follows the references instead.

CREATE TABLE streams (
  stream_id {uuid} NOT NULL PRIMARY KEY,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  partitions {bigint} NOT NULL CHECK (partitions > 0),
  class TEXT NOT NULL,
  config_json TEXT NOT NULL,
  created_ms {bigint} NOT NULL,
  epoch {bigint} NOT NULL,
  row_crc {bigint} NOT NULL,
  UNIQUE (tenant, name)
){clustered};

CREATE TABLE partitions (
  stream_id {uuid} NOT NULL,
  partition {bigint} NOT NULL CHECK (partition >= 0),
  start_offset {bigint} NOT NULL CHECK (start_offset >= 0),
  tiered_offset {bigint} NOT NULL CHECK (tiered_offset >= 0),
  epoch {bigint} NOT NULL,
  row_crc {bigint} NOT NULL,
  PRIMARY KEY (stream_id, partition)
){clustered};

CREATE TABLE chunks (
  chunk_id {uuid} NOT NULL PRIMARY KEY,
  stream_id {uuid} NOT NULL,
  partition {bigint} NOT NULL CHECK (partition >= 0),
  base_offset {bigint} NOT NULL CHECK (base_offset >= 0),
  next_offset {bigint} NOT NULL CHECK (next_offset > base_offset),
  object_path TEXT NOT NULL,
  object_bytes {bigint} NOT NULL CHECK (object_bytes >= 0),
  record_count {bigint} NOT NULL CHECK (record_count >= 0),
  raw_bytes {bigint} NOT NULL CHECK (raw_bytes >= 0),
  min_timestamp {bigint},
  max_timestamp {bigint},
  max_appended {bigint} NOT NULL,
  generation {bigint} NOT NULL CHECK (generation >= 0),
  schema_version {bigint} NOT NULL CHECK (schema_version >= 0),
  checksum TEXT NOT NULL,
  metadata_json TEXT NOT NULL,
  index_path TEXT,
  index_bytes {bigint} CHECK (index_bytes >= 0),
  key_id TEXT,
  row_crc {bigint} NOT NULL
){table};

CREATE INDEX chunks_by_offset ON chunks (stream_id, partition, base_offset);

CREATE INDEX chunks_by_object ON chunks (object_path);

CREATE INDEX chunks_by_index ON chunks (index_path);

CREATE TABLE garbage (
  object_path TEXT NOT NULL PRIMARY KEY,
  reason TEXT NOT NULL,
  since_ms {bigint} NOT NULL,
  due_ms {bigint} NOT NULL,
  row_crc {bigint} NOT NULL
){clustered};

CREATE INDEX garbage_by_due ON garbage (due_ms);

CREATE TABLE intents (
  chunk_id {uuid} NOT NULL PRIMARY KEY,
  stream_id {uuid} NOT NULL,
  partition {bigint} NOT NULL CHECK (partition >= 0),
  object_path TEXT NOT NULL,
  created_ms {bigint} NOT NULL,
  row_crc {bigint} NOT NULL
){clustered};

CREATE TABLE tombstones (
  stream_id {uuid} NOT NULL PRIMARY KEY,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  deleted_ms {bigint} NOT NULL,
  row_crc {bigint} NOT NULL
){clustered};

CREATE TABLE meta (
  key TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL,
  row_crc {bigint} NOT NULL
){clustered};

CREATE TABLE fields (
  stream_id {uuid} NOT NULL,
  field_id {bigint} NOT NULL CHECK (field_id >= 0),
  path TEXT NOT NULL,
  type TEXT NOT NULL,
  since {bigint} NOT NULL CHECK (since >= 0),
  row_crc {bigint} NOT NULL,
  PRIMARY KEY (stream_id, field_id)
){clustered};

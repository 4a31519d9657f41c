CREATE TABLE schema_version (
  version INTEGER NOT NULL PRIMARY KEY,
  name TEXT NOT NULL
) STRICT;

-- Migration 1: catalog

-- Ids are UUIDs. Offsets, epochs and counts are BIGINT, times are milliseconds
-- since the Unix epoch, sizes are bytes. `row_crc` is the CRC-32C of the row.
-- There are no foreign keys: a replay passes through states that they would
-- refuse. The integrity check follows the references instead.

CREATE TABLE streams (
  stream_id BLOB NOT NULL PRIMARY KEY,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  partitions INTEGER NOT NULL CHECK (partitions > 0),
  class TEXT NOT NULL,
  config_json TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  row_crc INTEGER NOT NULL,
  UNIQUE (tenant, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE partitions (
  stream_id BLOB NOT NULL,
  partition INTEGER NOT NULL CHECK (partition >= 0),
  start_offset INTEGER NOT NULL CHECK (start_offset >= 0),
  tiered_offset INTEGER NOT NULL CHECK (tiered_offset >= 0),
  epoch INTEGER NOT NULL,
  row_crc INTEGER NOT NULL,
  PRIMARY KEY (stream_id, partition)
) STRICT, WITHOUT ROWID;

CREATE TABLE chunks (
  chunk_id BLOB NOT NULL PRIMARY KEY,
  stream_id BLOB NOT NULL,
  partition INTEGER NOT NULL CHECK (partition >= 0),
  base_offset INTEGER NOT NULL CHECK (base_offset >= 0),
  next_offset INTEGER NOT NULL CHECK (next_offset > base_offset),
  object_path TEXT NOT NULL,
  object_bytes INTEGER NOT NULL CHECK (object_bytes >= 0),
  record_count INTEGER NOT NULL CHECK (record_count >= 0),
  raw_bytes INTEGER NOT NULL CHECK (raw_bytes >= 0),
  min_timestamp INTEGER,
  max_timestamp INTEGER,
  max_appended INTEGER NOT NULL,
  generation INTEGER NOT NULL CHECK (generation >= 0),
  schema_version INTEGER NOT NULL CHECK (schema_version >= 0),
  checksum TEXT NOT NULL,
  metadata_json TEXT NOT NULL,
  index_path TEXT,
  index_bytes INTEGER CHECK (index_bytes >= 0),
  key_id TEXT,
  row_crc INTEGER NOT NULL
) STRICT;

CREATE INDEX chunks_by_offset ON chunks (stream_id, partition, base_offset);

CREATE INDEX chunks_by_object ON chunks (object_path);

CREATE INDEX chunks_by_index ON chunks (index_path);

CREATE TABLE garbage (
  object_path TEXT NOT NULL PRIMARY KEY,
  reason TEXT NOT NULL,
  since_ms INTEGER NOT NULL,
  due_ms INTEGER NOT NULL,
  row_crc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX garbage_by_due ON garbage (due_ms);

CREATE TABLE intents (
  chunk_id BLOB NOT NULL PRIMARY KEY,
  stream_id BLOB NOT NULL,
  partition INTEGER NOT NULL CHECK (partition >= 0),
  object_path TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  row_crc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tombstones (
  stream_id BLOB NOT NULL PRIMARY KEY,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  deleted_ms INTEGER NOT NULL,
  row_crc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
  key TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL,
  row_crc INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE fields (
  stream_id BLOB NOT NULL,
  field_id INTEGER NOT NULL CHECK (field_id >= 0),
  path TEXT NOT NULL,
  type TEXT NOT NULL,
  since INTEGER NOT NULL CHECK (since >= 0),
  row_crc INTEGER NOT NULL,
  PRIMARY KEY (stream_id, field_id)
) STRICT, WITHOUT ROWID;

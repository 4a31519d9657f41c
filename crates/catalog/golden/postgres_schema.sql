CREATE TABLE schema_version (
  version BIGINT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL
);

-- Migration 1: catalog

-- Ids are UUIDs. Offsets, epochs and counts are BIGINT, times are milliseconds
-- since the Unix epoch, sizes are bytes. `row_crc` is the CRC-32C of the row.
-- There are no foreign keys: a replay passes through states that they would
-- refuse. The integrity check follows the references instead.

CREATE TABLE streams (
  stream_id UUID NOT NULL PRIMARY KEY,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  partitions BIGINT NOT NULL CHECK (partitions > 0),
  class TEXT NOT NULL,
  config_json TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  epoch BIGINT NOT NULL,
  row_crc BIGINT NOT NULL,
  UNIQUE (tenant, name)
);

CREATE TABLE partitions (
  stream_id UUID NOT NULL,
  partition BIGINT NOT NULL CHECK (partition >= 0),
  start_offset BIGINT NOT NULL CHECK (start_offset >= 0),
  tiered_offset BIGINT NOT NULL CHECK (tiered_offset >= 0),
  epoch BIGINT NOT NULL,
  row_crc BIGINT NOT NULL,
  PRIMARY KEY (stream_id, partition)
);

CREATE TABLE chunks (
  chunk_id UUID NOT NULL PRIMARY KEY,
  stream_id UUID NOT NULL,
  partition BIGINT NOT NULL CHECK (partition >= 0),
  base_offset BIGINT NOT NULL CHECK (base_offset >= 0),
  next_offset BIGINT NOT NULL CHECK (next_offset > base_offset),
  object_path TEXT NOT NULL,
  object_bytes BIGINT NOT NULL CHECK (object_bytes >= 0),
  record_count BIGINT NOT NULL CHECK (record_count >= 0),
  raw_bytes BIGINT NOT NULL CHECK (raw_bytes >= 0),
  min_timestamp BIGINT,
  max_timestamp BIGINT,
  max_appended BIGINT NOT NULL,
  generation BIGINT NOT NULL CHECK (generation >= 0),
  schema_version BIGINT NOT NULL CHECK (schema_version >= 0),
  checksum TEXT NOT NULL,
  metadata_json TEXT NOT NULL,
  index_path TEXT,
  index_bytes BIGINT CHECK (index_bytes >= 0),
  key_id TEXT,
  row_crc BIGINT NOT NULL
);

CREATE INDEX chunks_by_offset ON chunks (stream_id, partition, base_offset);

CREATE INDEX chunks_by_object ON chunks (object_path);

CREATE INDEX chunks_by_index ON chunks (index_path);

CREATE TABLE garbage (
  object_path TEXT NOT NULL PRIMARY KEY,
  reason TEXT NOT NULL,
  since_ms BIGINT NOT NULL,
  due_ms BIGINT NOT NULL,
  row_crc BIGINT NOT NULL
);

CREATE INDEX garbage_by_due ON garbage (due_ms);

CREATE TABLE intents (
  chunk_id UUID NOT NULL PRIMARY KEY,
  stream_id UUID NOT NULL,
  partition BIGINT NOT NULL CHECK (partition >= 0),
  object_path TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  row_crc BIGINT NOT NULL
);

CREATE TABLE tombstones (
  stream_id UUID NOT NULL PRIMARY KEY,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  deleted_ms BIGINT NOT NULL,
  row_crc BIGINT NOT NULL
);

CREATE TABLE meta (
  key TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL,
  row_crc BIGINT NOT NULL
);

CREATE TABLE fields (
  stream_id UUID NOT NULL,
  field_id BIGINT NOT NULL CHECK (field_id >= 0),
  path TEXT NOT NULL,
  type TEXT NOT NULL,
  since BIGINT NOT NULL CHECK (since >= 0),
  row_crc BIGINT NOT NULL,
  PRIMARY KEY (stream_id, field_id)
);

-- GetVersion
SELECT max(version) FROM schema_version;
-- PutVersion
INSERT INTO schema_version (version, name) VALUES ($1, $2);
-- PutStream
INSERT INTO streams (stream_id, tenant, name, partitions, class, config_json, created_ms, epoch, row_crc) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (stream_id) DO UPDATE SET tenant = excluded.tenant, name = excluded.name, partitions = excluded.partitions, class = excluded.class, config_json = excluded.config_json, created_ms = excluded.created_ms, epoch = excluded.epoch, row_crc = excluded.row_crc;
-- EvictStream
DELETE FROM streams WHERE tenant = $1 AND name = $2 AND stream_id <> $3;
-- RemoveStream
DELETE FROM streams WHERE stream_id = $1;
-- RemoveStreamPartitions
DELETE FROM partitions WHERE stream_id = $1;
-- RemoveStreamFields
DELETE FROM fields WHERE stream_id = $1;
-- AllStreams
SELECT stream_id, tenant, name, partitions, class, config_json, created_ms, epoch, row_crc FROM streams ORDER BY stream_id;
-- PutPartition
INSERT INTO partitions (stream_id, partition, start_offset, tiered_offset, epoch, row_crc) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (stream_id, partition) DO UPDATE SET start_offset = excluded.start_offset, tiered_offset = excluded.tiered_offset, epoch = excluded.epoch, row_crc = excluded.row_crc;
-- AllPartitions
SELECT stream_id, partition, start_offset, tiered_offset, epoch, row_crc FROM partitions ORDER BY stream_id, partition;
-- PutChunk
INSERT INTO chunks (chunk_id, stream_id, partition, base_offset, next_offset, object_path, object_bytes, record_count, raw_bytes, min_timestamp, max_timestamp, max_appended, generation, schema_version, checksum, metadata_json, index_path, index_bytes, key_id, row_crc) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20) ON CONFLICT (chunk_id) DO UPDATE SET stream_id = excluded.stream_id, partition = excluded.partition, base_offset = excluded.base_offset, next_offset = excluded.next_offset, object_path = excluded.object_path, object_bytes = excluded.object_bytes, record_count = excluded.record_count, raw_bytes = excluded.raw_bytes, min_timestamp = excluded.min_timestamp, max_timestamp = excluded.max_timestamp, max_appended = excluded.max_appended, generation = excluded.generation, schema_version = excluded.schema_version, checksum = excluded.checksum, metadata_json = excluded.metadata_json, index_path = excluded.index_path, index_bytes = excluded.index_bytes, key_id = excluded.key_id, row_crc = excluded.row_crc;
-- RemoveChunk
DELETE FROM chunks WHERE chunk_id = $1;
-- AllChunks
SELECT chunk_id, stream_id, partition, base_offset, next_offset, object_path, object_bytes, record_count, raw_bytes, min_timestamp, max_timestamp, max_appended, generation, schema_version, checksum, metadata_json, index_path, index_bytes, key_id, row_crc FROM chunks ORDER BY stream_id, partition, base_offset, chunk_id;
-- AddGarbage
INSERT INTO garbage (object_path, reason, since_ms, due_ms, row_crc) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (object_path) DO UPDATE SET reason = excluded.reason, since_ms = excluded.since_ms, due_ms = excluded.due_ms, row_crc = excluded.row_crc;
-- RemoveGarbage
DELETE FROM garbage WHERE object_path = $1;
-- AllGarbage
SELECT object_path, reason, since_ms, due_ms, row_crc FROM garbage ORDER BY due_ms, object_path;
-- PutIntent
INSERT INTO intents (chunk_id, stream_id, partition, object_path, created_ms, row_crc) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (chunk_id) DO UPDATE SET stream_id = excluded.stream_id, partition = excluded.partition, object_path = excluded.object_path, created_ms = excluded.created_ms, row_crc = excluded.row_crc;
-- RemoveIntent
DELETE FROM intents WHERE chunk_id = $1;
-- AllIntents
SELECT chunk_id, stream_id, partition, object_path, created_ms, row_crc FROM intents ORDER BY chunk_id;
-- PutTombstone
INSERT INTO tombstones (stream_id, tenant, name, deleted_ms, row_crc) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (stream_id) DO UPDATE SET tenant = excluded.tenant, name = excluded.name, deleted_ms = excluded.deleted_ms, row_crc = excluded.row_crc;
-- RemoveTombstone
DELETE FROM tombstones WHERE stream_id = $1;
-- AllTombstones
SELECT stream_id, tenant, name, deleted_ms, row_crc FROM tombstones ORDER BY stream_id;
-- PutMeta
INSERT INTO meta (key, value, row_crc) VALUES ($1, $2, $3) ON CONFLICT (key) DO UPDATE SET value = excluded.value, row_crc = excluded.row_crc;
-- GetMeta
SELECT key, value, row_crc FROM meta WHERE key = $1;
-- AllMeta
SELECT key, value, row_crc FROM meta ORDER BY key;
-- PutField
INSERT INTO fields (stream_id, field_id, path, type, since, row_crc) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (stream_id, field_id) DO UPDATE SET path = excluded.path, type = excluded.type, since = excluded.since, row_crc = excluded.row_crc;
-- StreamFields
SELECT stream_id, field_id, path, type, since, row_crc FROM fields WHERE stream_id = $1 ORDER BY field_id;
-- AllFields
SELECT stream_id, field_id, path, type, since, row_crc FROM fields ORDER BY stream_id, field_id;

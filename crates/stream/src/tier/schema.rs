//! The schema that a chunk is written under.
//!
//! A chunk is begun under the schema that the stream has, and its values are
//! looked at on the way. Where they have something that the schema has not, the
//! schema's next version is put first, and everything is encoded again under
//! that; so a stream whose fields are known pays for one look, and no chunk is
//! added before its schema is committed. A crash between the two leaves a schema
//! with fields that no chunk has: they occurred, and will again.
//!
//! Never fails a record, and never holds tiering up: where there is no room for
//! the schema, the chunk has no columns of fields.

use std::sync::Arc;

use aquifer_chunk::{ChunkEncoder, ChunkSpec, FieldWalk};
use aquifer_types::{ChunkShred, StreamSchema};

use super::Tier;
use crate::Error;
use crate::index::StreamIndex;
use crate::ledger::{DocumentKey, Operation};
use crate::read::from_chunk;

/// So often others may extend a schema while this one tries to.
const ATTEMPTS_MAX: usize = 16;

impl Tier {
    /// What a chunk of the stream is begun with. `is_looked_at` says that all
    /// values were looked at for the schema that the stream has.
    pub(super) fn encoder(
        &self,
        stream: &StreamIndex,
        spec: ChunkSpec,
        is_looked_at: bool,
    ) -> Result<ChunkEncoder, Error> {
        if stream.config().shred == ChunkShred::None {
            return self.plain_encoder(spec);
        }
        let schema = match self.reader.index.schema(stream) {
            Ok(known) => known.schema,
            Err(error) => {
                tracing::warn!(%error, "a chunk has no columns of fields");
                return self.plain_encoder(spec);
            }
        };
        let encoder = if is_looked_at && schema.version() > 0 {
            ChunkEncoder::shredding(spec, self.encode_options(), &schema)
        } else {
            ChunkEncoder::looking(spec, self.encode_options(), &schema)
        };
        Ok(self.timed(encoder.map_err(from_chunk)?))
    }

    /// The encoder that everything is pushed into again, where `walk` found what
    /// the schema of the first one has not.
    pub(super) async fn next_encoder(
        &self,
        stream: &StreamIndex,
        spec: ChunkSpec,
        walk: FieldWalk,
    ) -> Result<ChunkEncoder, Error> {
        let Some(schema) = self.extend_schema(stream, &walk).await? else {
            return self.plain_encoder(spec);
        };
        let next = ChunkEncoder::shredding(spec, self.encode_options(), &schema);
        Ok(self.timed(next.map_err(from_chunk)?))
    }

    /// The stream's schema with all that was found; `None` where there is no room
    /// for it.
    async fn extend_schema(
        &self,
        stream: &StreamIndex,
        walk: &FieldWalk,
    ) -> Result<Option<Arc<StreamSchema>>, Error> {
        let key = DocumentKey::of_schema(&stream.path.tenant, stream.id);
        for _ in 0..ATTEMPTS_MAX {
            let known = self.reader.index.schema(stream)?;
            let next = walk.extend(&known.schema);
            if next.version() == known.schema.version() {
                return Ok(Some(known.schema));
            }
            let operation = Operation::PutDocument {
                key: key.clone(),
                value: next.to_json(),
                expected: known.expectation(),
            };
            match self.commit(operation).await {
                Ok(_) => {
                    self.metrics.schema_versions.inc();
                    return Ok(Some(Arc::new(next)));
                }
                Err(Error::DocumentChanged { .. }) => {}
                Err(error @ (Error::Throttled { .. } | Error::TooLarge { .. })) => {
                    tracing::warn!(%error, stream = %stream.path, "a schema has no room");
                    self.metrics.schemas_refused.inc();
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        self.metrics.schemas_refused.inc();
        Ok(None)
    }

    fn plain_encoder(&self, spec: ChunkSpec) -> Result<ChunkEncoder, Error> {
        let spec = ChunkSpec { schema_version: 0, ..spec };
        ChunkEncoder::new(spec, self.encode_options()).map_err(from_chunk)
    }

    fn timed(&self, encoder: ChunkEncoder) -> ChunkEncoder {
        let clock = self.environment.clock.clone();
        encoder.with_clock(move || clock.monotonic_ns())
    }

    /// Counts what an encoder's fields cost.
    pub(super) fn count_fields(&self, encoder: &ChunkEncoder) {
        let costs = encoder.field_costs();
        self.metrics.fields_walked_bytes.inc_by(costs.walk_bytes);
        self.metrics.fields_shredded_bytes.inc_by(costs.shred_bytes);
        if costs.walk_bytes > 0 {
            self.metrics.fields_walk_seconds.observe(costs.walk_ns as f64 / 1e9);
        }
        if costs.shred_bytes > 0 {
            self.metrics.fields_shred_seconds.observe(costs.shred_ns as f64 / 1e9);
        }
    }
}

//! The fields that somebody declares for the values of a stream: before its
//! first record, or later. They are part of the stream's schema like those that
//! values bring along, so what is declared can only be added.

use std::sync::Arc;

use aquifer_types::{NewField, StreamPath, StreamSchema};

use super::StreamStore;
use crate::Error;
use crate::api::{NewStream, StreamDescription};
use crate::ledger::{DocumentExpectation, DocumentKey, Operation};

/// How often fields are declared anew after tiering found others meanwhile.
const TRIES_MAX: usize = 16;

impl StreamStore {
    /// Creates a stream whose values have these fields from the first record
    /// on, in one commit.
    ///
    /// # Errors
    /// As [`StreamStore::create_stream`]; [`Error::FieldConflict`] where the
    /// fields are not one schema's.
    pub async fn create_stream_with(
        &self,
        new: NewStream,
        fields: &[NewField],
    ) -> Result<StreamDescription, Error> {
        self.check_new_stream(&new)?;
        let (path, id) = (new.path.clone(), self.new_stream_id());
        let schema = declared(&path, &StreamSchema::default(), fields)?;
        let mut operations = vec![Operation::CreateStream { id, new }];
        if schema.version() > 0 {
            operations.push(Operation::PutDocument {
                key: DocumentKey::of_schema(&path.tenant, id),
                value: schema.to_json(),
                expected: DocumentExpectation::Absent,
            });
        }
        self.commit(operations).await?;
        self.describe_stream(&path)
    }

    /// The fields of a stream's values.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`].
    pub fn stream_schema(&self, path: &StreamPath) -> Result<Arc<StreamSchema>, Error> {
        let stream = self.inner.index.stream(path)?;
        Ok(self.inner.index.schema(&stream)?.schema)
    }

    /// Adds fields to those of a stream's values; answers all of them when they
    /// are durable. What is there already stays.
    ///
    /// # Errors
    /// [`Error::FieldConflict`] names a field that cannot be added, and then
    /// none was; [`Error::StreamNotFound`]; as the ledger decides.
    pub async fn declare_fields(
        &self,
        path: &StreamPath,
        fields: &[NewField],
    ) -> Result<Arc<StreamSchema>, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let stream = self.inner.index.stream(path)?;
            let known = self.inner.index.schema(&stream)?;
            let next = declared(path, &known.schema, fields)?;
            if next == *known.schema {
                return Ok(known.schema);
            }
            let key = DocumentKey::of_schema(&path.tenant, stream.id);
            match self.put_document(key, next.to_json(), known.expectation()).await {
                Ok(_) => return Ok(Arc::new(next)),
                Err(Error::DocumentChanged { .. }) if tries < TRIES_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn declared(
    path: &StreamPath,
    schema: &StreamSchema,
    fields: &[NewField],
) -> Result<StreamSchema, Error> {
    let conflict = |why| Error::FieldConflict { path: path.clone(), why };
    schema.declared(fields).map_err(conflict)
}

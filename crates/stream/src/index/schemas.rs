//! The schemas of streams, as their documents have them: each is parsed once.

use std::sync::Arc;

use aquifer_types::StreamSchema;

use super::{Index, StreamIndex};
use crate::Error;
use crate::ledger::document::{DocumentExpectation, DocumentKey};

/// A schema and the document that it was read from.
#[derive(Debug, Clone, Default)]
pub(crate) struct KnownSchema {
    /// The document's version; `None` where there is none.
    document: Option<u64>,
    pub(crate) schema: Arc<StreamSchema>,
}

impl KnownSchema {
    /// What has to hold for the next one to follow this one.
    pub(crate) fn expectation(&self) -> DocumentExpectation {
        self.document.map_or(DocumentExpectation::Absent, DocumentExpectation::Version)
    }
}

impl Index {
    /// The schema of a stream now; one of version 0 where nobody has looked at
    /// its values.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where a later version of this program wrote it.
    pub(crate) fn schema(&self, stream: &StreamIndex) -> Result<KnownSchema, Error> {
        let key = DocumentKey::of_schema(&stream.path.tenant, stream.id);
        let Some(document) = self.documents.read().get(&key).cloned() else {
            return Ok(KnownSchema::default());
        };
        let mut last = stream.schema.lock();
        if let Some(known) = last.as_ref().filter(|known| known.document == Some(document.version))
        {
            return Ok(known.clone());
        }
        let schema = StreamSchema::from_json(&document.value).map_err(|error| {
            Error::Unsupported(format!("the schema of {} cannot be read: {error}", stream.path))
        })?;
        let known = KnownSchema { document: Some(document.version), schema: Arc::new(schema) };
        *last = Some(known.clone());
        Ok(known)
    }
}

//! Documents, as the doors use them.

use std::sync::Arc;

use aquifer_types::TenantName;
use tokio::sync::watch;

use super::StreamStore;
use crate::Error;
use crate::ledger::{Document, DocumentExpectation, DocumentKey, DocumentKind, Operation, Outcome};

impl StreamStore {
    /// Puts a document in the place of any of its name; answers its version when
    /// it is durable.
    ///
    /// # Errors
    /// [`Error::DocumentChanged`] where `expected` does not hold;
    /// [`Error::TooLarge`], [`Error::Throttled`] beyond the limits.
    pub async fn put_document(
        &self,
        key: DocumentKey,
        value: String,
        expected: DocumentExpectation,
    ) -> Result<u64, Error> {
        let operation = Operation::PutDocument { key, value, expected };
        let committed = self.commit(vec![operation]).await?;
        match committed.outcomes.first() {
            Some(Outcome::Document { version }) => Ok(*version),
            other => Err(Error::Internal(format!("a document was answered with {other:?}"))),
        }
    }

    /// Deletes a document; one that does not exist stays so.
    ///
    /// # Errors
    /// [`Error::DocumentChanged`] where `expected` does not hold.
    pub async fn delete_document(
        &self,
        key: DocumentKey,
        expected: DocumentExpectation,
    ) -> Result<(), Error> {
        self.commit(vec![Operation::DeleteDocument { key, expected }]).await.map(|_| ())
    }

    /// A document, if it exists.
    #[must_use]
    pub fn document(&self, key: &DocumentKey) -> Option<Arc<Document>> {
        self.inner.index.documents.read().get(key).cloned()
    }

    /// The documents of one kind of a tenant, by name.
    #[must_use]
    pub fn documents(
        &self,
        tenant: &TenantName,
        kind: DocumentKind,
    ) -> Vec<(String, Arc<Document>)> {
        let documents = self.inner.index.documents.read();
        documents
            .of_kind(tenant, kind)
            .map(|(key, document)| (key.name.clone(), document.clone()))
            .collect()
    }

    /// The documents of one kind of all tenants.
    #[must_use]
    pub fn all_documents(&self, kind: DocumentKind) -> Vec<(DocumentKey, Arc<Document>)> {
        let documents = self.inner.index.documents.read();
        let of_kind = documents.iter().filter(|(key, _)| key.kind == kind);
        of_kind.map(|(key, document)| (key.clone(), document.clone())).collect()
    }

    /// Changes with every change of any document.
    #[must_use]
    pub fn watch_documents(&self) -> watch::Receiver<u64> {
        self.inner.index.documents_changed.subscribe()
    }

    /// Changes with every change of a document of this kind.
    #[must_use]
    pub fn watch_documents_of(&self, kind: DocumentKind) -> watch::Receiver<u64> {
        let changed = self.inner.index.kinds_changed.get(&kind);
        changed.unwrap_or(&self.inner.index.documents_changed).subscribe()
    }
}

//! The cluster's id, by which clients tell one from another.
//!
//! Chosen at random when it is first asked for, and kept in the store as long
//! as its streams are.

use aquifer_env::uuid_v4;
use aquifer_stream::{DocumentExpectation, DocumentKey, DocumentKind, Error};
use aquifer_types::TenantName;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::broker::Broker;

const DOCUMENT: &str = "kafka.cluster_id";

impl Broker {
    /// The cluster's id; none where the store cannot keep one now.
    pub(crate) async fn cluster_id(&self) -> Option<String> {
        match self.cluster_id.get_or_try_init(|| self.find_cluster_id()).await {
            Ok(id) => Some(id.clone()),
            Err(error) => {
                tracing::warn!(%error, "the cluster's id could not be kept");
                None
            }
        }
    }

    async fn find_cluster_id(&self) -> Result<String, Error> {
        let key = DocumentKey::new(TenantName::default_tenant(), DocumentKind::Server, DOCUMENT);
        if let Some(document) = self.store.document(&key) {
            return Ok(document.value.clone());
        }
        // As Kafka writes its ids.
        let id = URL_SAFE_NO_PAD.encode(uuid_v4(&*self.random).as_bytes());
        self.store.put_document(key, id.clone(), DocumentExpectation::Absent).await?;
        Ok(id)
    }
}

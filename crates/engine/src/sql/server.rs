//! What a statement needs of the server.

use std::sync::Arc;

use aquifer_query::wire::Refusal;
use aquifer_types::StreamName;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;

/// A stream of the cut, to be read.
pub(crate) type Resolved = (StreamName, Arc<dyn TableProvider>);

/// The server, as a statement sees it.
#[async_trait]
pub(crate) trait Server: Send + Sync {
    /// All streams, and all views with their SQL.
    async fn list(&self) -> Result<(Vec<StreamName>, Vec<(String, String)>), Refusal>;

    /// The columns of `streams`, in their order.
    async fn columns(&self, streams: &[StreamName]) -> Result<Vec<SchemaRef>, Refusal>;

    /// One cut over `streams`. Asked once for a statement.
    async fn resolve(&self, streams: Vec<StreamName>) -> Result<Vec<Resolved>, Refusal>;

    /// Stores a view.
    async fn put_view(&self, name: String, sql: String, replace: bool) -> Result<(), Refusal>;

    /// Drops a view.
    async fn drop_view(&self, name: String, if_exists: bool) -> Result<(), Refusal>;
}

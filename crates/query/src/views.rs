//! Views: named queries of a tenant, kept as documents of the ledger.
//!
//! A view is stored as it was written, JSON of [`StoredView`]; what it means is
//! the engine's matter, each time that it is used. The ledger sees to it that
//! no stream has the same name. A crash leaves a view as it was or as it is to
//! be.

use aquifer_stream::{DocumentExpectation, DocumentKey, DocumentKind, StreamStore};
use aquifer_types::{ErrorKind, TenantName};
use serde::{Deserialize, Serialize};

use crate::QueryOptions;
use crate::wire::Refusal;

/// The document of a view.
#[derive(Debug, Serialize, Deserialize)]
struct StoredView {
    sql: String,
}

/// The views of a tenant, by name, with their SQL. A document that cannot be
/// read is left out: it must not keep all others from being used.
pub(crate) fn list(store: &StreamStore, tenant: &TenantName) -> Vec<(String, String)> {
    let documents = store.documents(tenant, DocumentKind::View);
    let read = |(name, document): (String, std::sync::Arc<aquifer_stream::Document>)| {
        match serde_json::from_str::<StoredView>(&document.value) {
            Ok(view) => Some((name, view.sql)),
            Err(error) => {
                tracing::warn!(view = name, %error, "a view cannot be read and is left out");
                None
            }
        }
    };
    documents.into_iter().filter_map(read).collect()
}

/// Stores a view; durable when it returns.
pub(crate) async fn put(
    store: &StreamStore,
    options: &QueryOptions,
    tenant: &TenantName,
    name: String,
    sql: String,
    may_replace: bool,
) -> Result<(), Refusal> {
    if sql.len() > options.view_bytes_max {
        let limit = options.view_bytes_max as u64;
        return Err(Refusal::too_large("the view's statement", limit, "query.view_bytes_max"));
    }
    let key = DocumentKey::new(tenant.clone(), DocumentKind::View, name);
    let is_there = store.document(&key).is_some();
    if is_there && !may_replace {
        return Err(exists(&key.name));
    }
    // Two at a time may go beyond it by one each; the ledger bounds the bytes.
    if !is_there && store.documents(tenant, DocumentKind::View).len() >= options.views_max {
        return Err(Refusal::new(
            ErrorKind::Throttled,
            "limit",
            "54000",
            format!("there are {} views (query.views_max); drop one first", options.views_max),
        ));
    }
    let value = serde_json::to_string(&StoredView { sql })
        .map_err(|error| Refusal::protocol(&format!("sent a view that is no text: {error}")))?;
    // They are all listed at once to whoever names one.
    let others = store.documents(tenant, DocumentKind::View).into_iter();
    let others = others.filter(|(other, _)| *other != key.name);
    let held: usize = others.map(|(other, document)| other.len() + document.value.len()).sum();
    if held.saturating_add(key.name.len() + value.len()) > options.views_bytes_max {
        let limit = options.views_bytes_max as u64;
        return Err(Refusal::too_large("all views together", limit, "query.views_bytes_max"));
    }
    let expected = match may_replace {
        true => DocumentExpectation::Any,
        false => DocumentExpectation::Absent,
    };
    match store.put_document(key.clone(), value, expected).await {
        Ok(_) => Ok(()),
        Err(aquifer_stream::Error::DocumentChanged { .. }) => Err(exists(&key.name)),
        Err(error) => Err(Refusal::of_store(&error)),
    }
}

/// Drops a view; durable when it returns.
pub(crate) async fn drop_view(
    store: &StreamStore,
    tenant: &TenantName,
    name: String,
    if_exists: bool,
) -> Result<(), Refusal> {
    let key = DocumentKey::new(tenant.clone(), DocumentKind::View, name);
    if store.document(&key).is_none() {
        return match if_exists {
            true => Ok(()),
            false => Err(Refusal::new(
                ErrorKind::NotFound,
                "unknown-view",
                "42P01",
                format!("there is no view {}", key.name),
            )),
        };
    }
    let deleted = store.delete_document(key, DocumentExpectation::Any).await;
    deleted.map_err(|error| Refusal::of_store(&error))
}

fn exists(name: &str) -> Refusal {
    let message = format!("a view {name} exists already; CREATE OR REPLACE VIEW replaces it");
    Refusal::new(ErrorKind::AlreadyExists, "already-exists", "42P07", message)
}

//! The seam to objects of others: files, buckets and web servers that are read
//! from, with the version of each object.
//!
//! Unlike tier 2 ([`crate::TierStore`]), what lies here belongs to somebody
//! else: it changes while it is read. So a list tells each object's version,
//! and a read is of that version or fails with
//! [`StoreErrorKind::Precondition`]. Nothing is ever written here.
//!
//! | scheme | what an address names | version |
//! |---|---|---|
//! | `file` | a file, or a directory and all below it | length and time of change |
//! | `s3`, `gs`, `az` | an object, or all objects below a prefix | entity tag, else time of change; length |
//! | `http`, `https` | one object | entity tag, else time of change; length |
//!
//! Reading blocks, for decoders that run on threads of their own; it waits at
//! most [`READ_MS_MAX`] for each piece.

mod file;
mod http;
mod read;
mod remote;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use url::Url;

use crate::store::{StoreError, StoreErrorKind, remote_store};
pub use read::{SourceBody, blocking_body};

/// How long the next piece of an object may take, in ms.
pub const READ_MS_MAX: u64 = 60_000;

/// An object that can be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceObject {
    /// Its address in full, without credentials or query.
    pub url: String,
    /// Its name below what was listed; the last part of its address where that
    /// named it alone.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// What changes when it does.
    pub version: String,
    /// When it changed last, in ms since 1970; 0 where the store does not tell.
    pub modified_ms: i64,
    /// The entity tag that reads insist on.
    e_tag: Option<String>,
    /// Where the store keeps it.
    location: String,
}

/// A place that objects are read from; cheap to clone.
#[derive(Debug, Clone)]
pub struct SourceStore {
    backend: Backend,
    url: Url,
}

#[derive(Debug, Clone)]
enum Backend {
    File(Arc<file::FileSource>),
    Remote(Arc<remote::RemoteSource>),
    Http(Arc<http::HttpSource>),
}

/// What an address may lead to.
#[derive(Debug, Clone, Default)]
pub struct SourceRules {
    /// The options of the `object_store` crate for the scheme.
    pub options: Vec<(String, String)>,
    /// Hosts that may have a private, local or link-local address; all others
    /// are refused over HTTP, so that no client reaches this machine or a
    /// service of its network through the server.
    pub private_hosts: Vec<String>,
    /// A directory that a file has to lie in when all links are followed.
    pub directory: Option<std::path::PathBuf>,
}

impl SourceStore {
    /// Opens what `url` names. Nothing is reached yet.
    ///
    /// # Errors
    /// An address that is none, or of a scheme that is not known.
    pub fn open(url: &str, rules: SourceRules) -> Result<Self, StoreError> {
        let invalid = |why: String| StoreError::refused(url, why);
        let parsed = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
        let backend = match parsed.scheme() {
            "file" => Backend::File(Arc::new(file::FileSource::open(&parsed, rules.directory)?)),
            "http" | "https" => {
                Backend::Http(Arc::new(http::HttpSource::open(&parsed, rules.private_hosts)?))
            }
            "s3" | "gs" | "az" => {
                let store = remote_store(&parsed, &rules.options)?;
                Backend::Remote(Arc::new(remote::RemoteSource::open(store, &parsed)?))
            }
            scheme => {
                return Err(invalid(format!(
                    "unknown scheme {scheme}: use file, s3, gs, az, http or https"
                )));
            }
        };
        let mut url = parsed;
        // What stands in statuses and documents names no credentials.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self { backend, url })
    }

    /// The address, without credentials.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The objects that the address names, by their names: the one that has it,
    /// else all below it. More than `count_max` are refused.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotFound`] where there is none; the store's.
    pub async fn list(&self, count_max: usize) -> Result<Vec<SourceObject>, StoreError> {
        let mut objects = match &self.backend {
            Backend::File(source) => {
                let source = source.clone();
                crate::tasks::run_blocking(move || source.list(count_max)).await?
            }
            Backend::Remote(source) => source.list(count_max).await?,
            Backend::Http(source) => vec![source.head().await?],
        };
        if objects.is_empty() {
            let why = "there is no such object and none below it".to_owned();
            return Err(StoreError::new(StoreErrorKind::NotFound, self.url.as_str(), why));
        }
        objects.sort();
        Ok(objects)
    }

    /// The whole of an object, in the version that was listed.
    ///
    /// # Errors
    /// [`StoreErrorKind::Precondition`] where it has changed, also in the middle
    /// of the body; the store's.
    pub async fn read(&self, object: &SourceObject) -> Result<SourceBody, StoreError> {
        match &self.backend {
            Backend::File(source) => source.read(object).await,
            Backend::Remote(source) => source.read(object).await,
            Backend::Http(source) => source.read(object).await,
        }
    }

    /// A part of an object, in the version that was listed.
    ///
    /// # Errors
    /// As [`SourceStore::read`].
    pub async fn read_range(
        &self,
        object: &SourceObject,
        range: Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let wanted = range.end.saturating_sub(range.start);
        let bytes = match &self.backend {
            Backend::File(source) => source.read_range(object, range).await?,
            Backend::Remote(source) => source.read_range(object, range).await?,
            Backend::Http(source) => source.read_range(object, range).await?,
        };
        if bytes.len() as u64 != wanted {
            let why = format!("{wanted} bytes were asked for, {} came", bytes.len());
            return Err(StoreError::unavailable(object.url.as_str(), why));
        }
        Ok(bytes)
    }
}

fn changed(object: &SourceObject) -> StoreError {
    let why = "it has changed since it was listed".to_owned();
    StoreError::new(StoreErrorKind::Precondition, object.url.as_str(), why)
}

fn too_many(url: &str, count_max: usize) -> StoreError {
    let why = format!("there are more than {count_max} objects; name a longer prefix");
    StoreError::refused(url, why)
}

#[cfg(test)]
mod tests;

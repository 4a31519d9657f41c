//! Objects of a bucket.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _};
use url::Url;

use super::read::{SourceBody, blocking_body};
use super::{READ_MS_MAX, SourceObject, too_many};
use crate::store::{StoreError, StoreErrorKind};

pub(super) struct RemoteSource {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// Scheme and bucket.
    base: String,
    url: String,
    /// A name that ends with `/` is a folder and no object.
    is_folder: bool,
}

impl fmt::Debug for RemoteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteSource({})", self.url)
    }
}

impl RemoteSource {
    pub(super) fn open(store: Arc<dyn ObjectStore>, url: &Url) -> Result<Self, StoreError> {
        let base = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        let path = Path::from_url_path(url.path())
            .map_err(|error| StoreError::refused(url.as_str(), error.to_string()))?;
        let is_folder = url.path().is_empty() || url.path().ends_with('/');
        Ok(Self { store, path, url: format!("{base}{}", url.path()), base, is_folder })
    }

    pub(super) async fn list(&self, count_max: usize) -> Result<Vec<SourceObject>, StoreError> {
        if !self.is_folder {
            match within(&self.url, self.store.head(&self.path)).await {
                Ok(meta) => {
                    let name = self.path.filename().unwrap_or_default().to_owned();
                    return Ok(vec![self.object(&meta, name)]);
                }
                Err(error) if error.kind == StoreErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut listed = self.store.list(Some(&self.path));
        let mut found = Vec::new();
        while let Some(meta) = within(&self.url, listed.try_next()).await? {
            if found.len() >= count_max {
                return Err(too_many(&self.url, count_max));
            }
            let path = meta.location.as_ref();
            let name = path.strip_prefix(self.path.as_ref()).unwrap_or(path);
            let name = name.trim_start_matches('/').to_owned();
            // Some consoles make empty objects to show folders.
            if meta.size == 0 && name.is_empty() {
                continue;
            }
            found.push(self.object(&meta, name));
        }
        Ok(found)
    }

    fn object(&self, meta: &ObjectMeta, name: String) -> SourceObject {
        let modified_ms = meta.last_modified.timestamp_millis();
        let e_tag = meta.e_tag.as_deref().map(quoted);
        let version = match &e_tag {
            Some(tag) => format!("{}#{tag}", meta.size),
            None => format!("{}@{modified_ms}", meta.size),
        };
        SourceObject {
            url: format!("{}/{}", self.base, meta.location),
            name,
            bytes: meta.size,
            version,
            modified_ms,
            e_tag,
            location: meta.location.to_string(),
        }
    }

    async fn get(
        &self,
        object: &SourceObject,
        range: Option<Range<u64>>,
    ) -> Result<object_store::GetResult, StoreError> {
        let path = Path::parse(&object.location)
            .map_err(|error| StoreError::refused(object.url.as_str(), error.to_string()))?;
        let options = GetOptions {
            if_match: object.e_tag.clone(),
            range: range.map(Into::into),
            ..GetOptions::default()
        };
        within(&object.url, self.store.get_opts(&path, options)).await
    }

    pub(super) async fn read(&self, object: &SourceObject) -> Result<SourceBody, StoreError> {
        let found = self.get(object, None).await?;
        if found.meta.size != object.bytes {
            return Err(super::changed(object));
        }
        let url = object.url.clone();
        let pieces =
            found.into_stream().map_err(move |error| StoreError::from_remote(&url, error)).boxed();
        Ok(blocking_body(&object.url, Some(object.bytes), pieces))
    }

    pub(super) async fn read_range(
        &self,
        object: &SourceObject,
        range: Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let found = self.get(object, Some(range)).await?;
        within(&object.url, found.bytes()).await
    }
}

/// An entity tag as a header has it: some stores leave the quotes out of their
/// lists, and the version would be another one than that of the object alone.
fn quoted(tag: &str) -> String {
    match tag.contains('"') {
        true => tag.to_owned(),
        false => format!("\"{tag}\""),
    }
}

async fn within<T>(
    url: &str,
    call: impl Future<Output = object_store::Result<T>>,
) -> Result<T, StoreError> {
    let limit = Duration::from_millis(READ_MS_MAX);
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result.map_err(|error| StoreError::from_remote(url, error)),
        Err(_) => {
            Err(StoreError::unavailable(url, format!("no answer within {} s", limit.as_secs())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_one_version_however_it_is_found() {
        for (tag, expected) in
            [("0x8D", "\"0x8D\""), ("\"0x8D\"", "\"0x8D\""), ("W/\"0\"", "W/\"0\"")]
        {
            assert_eq!(quoted(tag), expected);
        }
    }
}

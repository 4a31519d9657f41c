//! Tier 2 behind an object store's protocol.
//!
//! The store syncs and replicates; a crash of this process leaves an object
//! whole or absent. A call has [`CALL_MS_MAX`] and the time that its bytes take
//! at [`BYTES_PER_MS_MIN`]; what runs longer is given up, and may still happen.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::{Backend, OBJECT_READ_BYTES_MAX, StoreEntry, StoreError};

/// How long a store may take to answer a call without payload.
const CALL_MS_MAX: u64 = 30_000;
/// How slow a payload may flow: 256 KiB/s.
const BYTES_PER_MS_MIN: u64 = 256;

#[derive(Debug)]
pub(super) struct RemoteBackend {
    store: Arc<dyn ObjectStore>,
    root: Path,
    address: String,
}

impl RemoteBackend {
    pub(super) fn new(store: Arc<dyn ObjectStore>, root: Path, address: String) -> RemoteBackend {
        RemoteBackend { store, root, address }
    }

    pub(super) fn memory() -> RemoteBackend {
        let address = "memory://".to_owned();
        RemoteBackend::new(Arc::new(InMemory::new()), Path::default(), address)
    }

    fn locate(&self, path: &str) -> Result<Path, StoreError> {
        let below = match (self.root.as_ref(), path) {
            (root, "") => Path::parse(root),
            ("", path) => Path::parse(path),
            (root, path) => Path::parse(format!("{root}/{path}")),
        };
        below.map_err(|error| StoreError::other(path, error.to_string()))
    }

    async fn put_with(&self, path: &str, bytes: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let location = self.locate(path)?;
        let payload_bytes = bytes.len() as u64;
        let options = PutOptions::from(mode);
        let put = self.store.put_opts(&location, bytes.into(), options);
        bounded(path, payload_bytes, put).await?;
        Ok(())
    }
}

impl fmt::Display for RemoteBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

#[async_trait]
impl Backend for RemoteBackend {
    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        // In one request, whatever the length: of the ways to upload in parts,
        // none is refused when the object exists.
        self.put_with(path, bytes, PutMode::Create).await
    }

    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.put_with(path, bytes, PutMode::Overwrite).await
    }

    async fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        let location = self.locate(path)?;
        let found = bounded(path, 0, self.store.get(&location)).await?;
        let len = found.meta.size;
        if len > OBJECT_READ_BYTES_MAX {
            let reason = format!("object of {len} bytes is too long to be read whole");
            return Err(StoreError::other(path, reason));
        }
        let collect = async {
            let mut stream = found.into_stream();
            let mut bytes = BytesMut::with_capacity(len as usize);
            while let Some(piece) = stream.next().await {
                bytes.extend_from_slice(&piece?);
            }
            Ok(bytes.freeze())
        };
        let bytes = bounded(path, len, collect).await?;
        if bytes.len() as u64 != len {
            let reason = format!("object of {len} bytes gave {}", bytes.len());
            return Err(StoreError::unavailable(path, reason));
        }
        Ok(bytes)
    }

    async fn get_ranges(
        &self,
        path: &str,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, StoreError> {
        let location = self.locate(path)?;
        let payload_bytes = ranges.iter().map(|range| range.end - range.start).sum();
        bounded(path, payload_bytes, self.store.get_ranges(&location, ranges)).await
    }

    async fn head(&self, path: &str) -> Result<u64, StoreError> {
        let location = self.locate(path)?;
        Ok(bounded(path, 0, self.store.head(&location)).await?.size)
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let location = self.locate(path)?;
        match bounded(path, 0, self.store.delete(&location)).await {
            Err(error) if error.kind == super::StoreErrorKind::NotFound => Ok(()),
            deleted => deleted,
        }
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<StoreEntry, StoreError>> {
        let location = match self.locate(folder) {
            Ok(location) => location,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let root = match self.root.as_ref() {
            "" => String::new(),
            root => format!("{root}/"),
        };
        let folder = match folder {
            "" => self.address.clone(),
            folder => folder.to_owned(),
        };
        let listed = self.store.list(Some(&location));
        let bounded_list = stream::try_unfold(listed, move |mut listed| {
            let folder = folder.clone();
            let root = root.clone();
            async move {
                let next = async { listed.next().await.transpose() };
                let Some(found) = bounded(&folder, 0, next).await? else {
                    return Ok(None);
                };
                let path = found.location.as_ref();
                let path = path.strip_prefix(root.as_str()).unwrap_or(path).to_owned();
                let entry = StoreEntry { path, bytes: found.size };
                Ok(Some((entry, listed)))
            }
        });
        bounded_list.boxed()
    }
}

async fn bounded<T>(
    path: &str,
    payload_bytes: u64,
    call: impl Future<Output = object_store::Result<T>>,
) -> Result<T, StoreError> {
    let limit = Duration::from_millis(CALL_MS_MAX + payload_bytes / BYTES_PER_MS_MIN);
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result.map_err(|error| StoreError::from_remote(path, error)),
        Err(_) => {
            let reason = format!("no answer within {} s", limit.as_secs());
            Err(StoreError::unavailable(path, reason))
        }
    }
}

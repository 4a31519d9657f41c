//! Objects of others beside the chunks: what layers above keep in tier 2, in
//! folders of their own.
//!
//! They are put, read, listed and deleted as long as this server owns tier 2,
//! and nothing here looks into them. A put is whole or absent after a crash;
//! who puts several objects decides in which order they count.

use bytes::Bytes;
use futures::TryStreamExt;

use super::StreamStore;
use crate::Error;
use crate::tier::{from_store, put_once};

/// The folders, each with one owner: that of open tables.
const FOLDERS: [&str; 1] = ["_iceberg"];
/// Somebody has looked for a newer owner within this time before a put or a
/// delete.
const OWNER_CHECK_MS: u64 = 1_000;

impl StreamStore {
    /// Puts an object under a path that was never used before. The same object
    /// again is fine.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a path outside of those folders,
    /// [`Error::Fenced`], [`Error::Tier2`].
    pub async fn put_beside(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        check(path)?;
        self.inner.tier.owner.check_lately(OWNER_CHECK_MS).await?;
        put_once(&self.inner.reader.store, path, bytes).await
    }

    /// Reads an object.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Tier2`].
    pub async fn get_beside(&self, path: &str) -> Result<Bytes, Error> {
        check(path)?;
        self.inner.reader.store.get(path).await.map_err(from_store)
    }

    /// Deletes an object; that it is absent is fine.
    ///
    /// # Errors
    /// As [`StreamStore::put_beside`].
    pub async fn delete_beside(&self, path: &str) -> Result<(), Error> {
        check(path)?;
        self.inner.tier.owner.check_lately(OWNER_CHECK_MS).await?;
        self.inner.reader.store.delete(path).await.map_err(from_store)
    }

    /// The paths of the objects below `folder` that are `wanted`, in no order
    /// and at most `count_max` of them.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Tier2`].
    pub async fn list_beside(
        &self,
        folder: &str,
        wanted: impl Fn(&str) -> bool + Send,
        count_max: usize,
    ) -> Result<Vec<String>, Error> {
        check(folder)?;
        let mut entries = self.inner.reader.store.list_stream(folder);
        let mut found = Vec::new();
        while found.len() < count_max {
            let Some(entry) = entries.try_next().await.map_err(from_store)? else { break };
            if wanted(&entry.path) {
                found.push(entry.path);
            }
        }
        Ok(found)
    }
}

fn check(path: &str) -> Result<(), Error> {
    let folder = path.split_once('/').map_or(path, |(folder, _)| folder);
    match FOLDERS.contains(&folder) {
        true => Ok(()),
        false => Err(Error::Invalid(format!("{path} does not lie beside the chunks"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_folders_of_others_are_open() {
        for path in ["_iceberg", "_iceberg/a/b"] {
            assert!(check(path).is_ok(), "{path}");
        }
        for path in
            ["", "_meta/a", "_owner/1", "_iceberg2/a", "default/a-b/p0/c.parquet", "/_iceberg"]
        {
            assert!(matches!(check(path), Err(Error::Invalid(_))), "{path}");
        }
    }
}

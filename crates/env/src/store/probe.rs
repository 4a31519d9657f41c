//! The check at start-up that a store keeps what the rest relies on.

use bytes::Bytes;

use super::{StoreError, StoreErrorKind, TierStore};
use crate::random::{Random, uuid_v4};

const FOLDER: &str = "_meta";

pub(super) async fn probe(store: &TierStore, random: &dyn Random) -> Result<(), StoreError> {
    let path = format!("{FOLDER}/probe-{}", uuid_v4(random));
    let checked = check(store, &path).await;
    let deleted = store.delete(&path).await;
    checked?;
    deleted?;
    match store.head(&path).await {
        Err(error) if error.kind == StoreErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(broken(&path, "an object was found after its deletion")),
    }
}

async fn check(store: &TierStore, path: &str) -> Result<(), StoreError> {
    let first = Bytes::from_static(b"first");
    let second = Bytes::from_static(b"second");
    store.put_new(path, first.clone()).await?;
    match store.put_new(path, second.clone()).await {
        Err(error) if error.kind == StoreErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
        Ok(()) => {
            let lack = "the store does not refuse to create an object twice (If-None-Match)";
            return Err(broken(path, lack));
        }
    }
    if store.get(path).await? != first || store.head(path).await? != first.len() as u64 {
        return Err(broken(path, "an object was not read as it was put"));
    }
    if store.get_range(path, 1..4).await? != first.slice(1..4) {
        return Err(broken(path, "a range was not read as it was put"));
    }
    store.put(path, second.clone()).await?;
    if store.get(path).await? != second {
        return Err(broken(path, "an object was not read as it was replaced"));
    }
    let listed = store.list(FOLDER).await?;
    if !listed.iter().any(|entry| entry.path == path) {
        return Err(broken(path, "an object was put and is not listed"));
    }
    Ok(())
}

fn broken(path: &str, lack: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Precondition, path, lack)
}

//! What is known of the objects that were imported into a stream: how far one
//! is, and which versions are whole.
//!
//! | document (kind `ImportedObject`) | content |
//! |---|---|
//! | `<stream id>/at/<digest of the address>` | JSON of [`Progress`]: an object that is not whole yet |
//! | `<stream id>/done/<00 to ff>` | version 1: entries of 28 characters, each with a line end: the digests of an address (16) and of the version that was imported (12), in no order |
//!
//! Digests are the beginnings of SHA-256, in base64 for URLs: 96 bits of an
//! address, 72 of a version. Both documents change in the very commit that
//! appends an object's records. So after a crash at any point the records that
//! are there and what is known of them agree, and a record is imported once for
//! each version of its object: not twice because an answer was lost, and not at
//! all because the position was ahead.

use std::sync::Arc;

use aquifer_stream::{
    Document, DocumentExpectation, DocumentKey, DocumentKind, Operation, StreamStore,
};
use aquifer_types::{StreamId, TenantName};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::{Error, ObjectOptions};

const ADDRESS_DIGEST_BYTES: usize = 12;
const VERSION_DIGEST_BYTES: usize = 9;
const ADDRESS_CHARACTERS: usize = 16;
const ENTRY_CHARACTERS: usize = 28;
/// With the line end.
const ENTRY_BYTES: usize = ENTRY_CHARACTERS + 1;

/// How far an object is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Its address.
    pub(crate) url: String,
    /// The version that is being imported.
    pub(crate) version: String,
    /// How many of its rows were dealt with.
    pub(crate) rows: u64,
    /// The records that they became.
    pub(crate) records: u64,
    /// Bytes of those.
    pub(crate) bytes: u64,
    /// The rows that are no records.
    pub(crate) bad: u64,
}

/// An object as a source of a stream.
#[derive(Debug, Clone)]
pub(crate) struct ObjectKey {
    tenant: TenantName,
    stream: StreamId,
    address: String,
    bucket: u8,
}

/// What the documents say of an object.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// This version was imported.
    Done,
    /// It is to be imported from here on, as the document is in this version.
    From(Progress, DocumentExpectation),
}

/// The beginning of a text's digest.
pub(crate) fn beginning(text: &str, bytes: usize) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    URL_SAFE_NO_PAD.encode(digest.as_ref().get(..bytes).unwrap_or_default())
}

impl ObjectKey {
    pub(crate) fn new(tenant: &TenantName, stream: StreamId, url: &str) -> Self {
        let first = digest(&SHA256, url.as_bytes()).as_ref().first().copied();
        Self {
            tenant: tenant.clone(),
            stream,
            address: beginning(url, ADDRESS_DIGEST_BYTES),
            bucket: first.unwrap_or_default(),
        }
    }

    /// What tells objects of all streams apart.
    pub(crate) fn name(&self) -> String {
        format!("{}/at/{}", self.stream, self.address)
    }

    /// A number that stays the same for an address.
    pub(crate) fn home(&self) -> u32 {
        let bytes = self.address.as_bytes().iter();
        bytes.fold(0, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)))
    }

    fn progress_key(&self) -> DocumentKey {
        DocumentKey::new(self.tenant.clone(), DocumentKind::ImportedObject, self.name())
    }

    fn done_key(&self, bucket: u8) -> DocumentKey {
        let name = format!("{}/done/{bucket:02x}", self.stream);
        DocumentKey::new(self.tenant.clone(), DocumentKind::ImportedObject, name)
    }

    /// Whether this version was imported.
    pub(crate) fn is_done(&self, store: &StreamStore, version: &str) -> bool {
        let version = beginning(version, VERSION_DIGEST_BYTES);
        let document = store.document(&self.done_key(self.bucket));
        document.is_some_and(|document| {
            find(&document.value, &self.address).is_some_and(|found| found == version)
        })
    }

    /// What is known of a version.
    pub(crate) fn known(
        &self,
        store: &StreamStore,
        url: &str,
        version: &str,
    ) -> Result<Known, Error> {
        if self.is_done(store, version) {
            return Ok(Known::Done);
        }
        let begun =
            Progress { url: url.to_owned(), version: version.to_owned(), ..Progress::default() };
        let Some(document) = store.document(&self.progress_key()) else {
            return Ok(Known::From(begun, DocumentExpectation::Absent));
        };
        let expected = DocumentExpectation::Version(document.version);
        let found: Progress = serde_json::from_str(&document.value).map_err(Error::internal)?;
        // What was imported of an older version stays; the newer one is another
        // object.
        let progress = if found.version == version { found } else { begun };
        Ok(Known::From(progress, expected))
    }

    /// How the document of the progress is now.
    pub(crate) fn expectation(&self, store: &StreamStore) -> DocumentExpectation {
        match store.document(&self.progress_key()) {
            Some(document) => DocumentExpectation::Version(document.version),
            None => DocumentExpectation::Absent,
        }
    }

    /// Keeps how far an object is.
    pub(crate) fn keep(
        &self,
        progress: &Progress,
        expected: DocumentExpectation,
    ) -> Result<Operation, Error> {
        let value = serde_json::to_string(progress).map_err(Error::internal)?;
        Ok(Operation::PutDocument { key: self.progress_key(), value, expected })
    }

    /// Notes that a version is whole.
    pub(crate) fn finish(
        &self,
        store: &StreamStore,
        version: &str,
        expected: DocumentExpectation,
        options: &ObjectOptions,
    ) -> Result<Vec<Operation>, Error> {
        let mut operations = vec![Operation::DeleteDocument { key: self.progress_key(), expected }];
        let key = self.done_key(self.bucket);
        let before = store.document(&key);
        let old = before.as_ref().map_or("", |document| &document.value);
        let is_new = find(old, &self.address).is_none();
        if is_new && self.remembered(store) >= options.remembered_max {
            return Err(Error::Limit {
                what: "the objects that are remembered as imported into the stream",
                limit: options.remembered_max as u64,
                limit_name: "objects.remembered_max",
            });
        }
        let value = noted(old, &self.address, &beginning(version, VERSION_DIGEST_BYTES));
        let expected = expectation(before.as_ref());
        operations.push(Operation::PutDocument { key, value, expected });
        Ok(operations)
    }

    /// How many objects of the stream are remembered.
    fn remembered(&self, store: &StreamStore) -> usize {
        let documents = (0..=u8::MAX).filter_map(|bucket| store.document(&self.done_key(bucket)));
        documents.map(|document| document.value.len() / ENTRY_BYTES).sum()
    }
}

fn expectation(document: Option<&Arc<Document>>) -> DocumentExpectation {
    match document {
        Some(document) => DocumentExpectation::Version(document.version),
        None => DocumentExpectation::Absent,
    }
}

/// The version of an address among entries.
fn find<'v>(entries: &'v str, address: &str) -> Option<&'v str> {
    // All entries are of one length: a walk that looks at no more than the address.
    let mut each = entries.as_bytes().chunks_exact(ENTRY_BYTES);
    let begin = each.position(|entry| entry.starts_with(address.as_bytes()))? * ENTRY_BYTES;
    entries.get(begin + ADDRESS_CHARACTERS..begin + ENTRY_CHARACTERS)
}

/// Entries with one that is new or has another version.
fn noted(entries: &str, address: &str, version: &str) -> String {
    let mut noted = String::with_capacity(entries.len() + ENTRY_BYTES);
    for entry in entries.lines().filter(|entry| !entry.starts_with(address)) {
        noted.push_str(entry);
        noted.push('\n');
    }
    noted.push_str(address);
    noted.push_str(version);
    noted.push('\n');
    noted
}

/// Forgets what was imported into streams that are gone.
pub(crate) async fn forget_deleted(store: &StreamStore) -> Result<(), Error> {
    for (key, _) in store.all_documents(DocumentKind::ImportedObject) {
        let stream = key.name.split('/').next().and_then(|id| uuid::Uuid::parse_str(id).ok());
        let is_gone = stream.is_none_or(|id| store.stream_by_id(StreamId(id)).is_none());
        if is_gone {
            store.delete_document(key, DocumentExpectation::Any).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_one_version() {
        let address = |url| beginning(url, ADDRESS_DIGEST_BYTES);
        let version = |text| beginning(text, VERSION_DIGEST_BYTES);
        let (a, b) = (address("s3://b/a"), address("s3://b/b"));
        assert_eq!(a.len(), ADDRESS_CHARACTERS);
        assert_eq!(a.len() + version("1").len(), ENTRY_CHARACTERS);
        let entries = noted("", &a, &version("1"));
        let entries = noted(&entries, &b, &version("1"));
        let entries = noted(&entries, &a, &version("2"));
        assert_eq!(entries.len(), 2 * ENTRY_BYTES);
        assert_eq!(find(&entries, &a), Some(version("2").as_str()));
        assert_eq!(find(&entries, &b), Some(version("1").as_str()));
        assert_eq!(find(&entries, &address("s3://b/c")), None);
        assert_eq!(find("", &a), None);
        // What ends early is no entry.
        assert_eq!(find(&entries[..ENTRY_BYTES - 1], &b), None);
    }

    #[test]
    fn entries_are_as_they_were_written() {
        // The format of what is stored: it does not change under version 1.
        let entries = noted("", &beginning("file:///a", 12), &beginning("3@1", 9));
        assert_eq!(entries, "SfkWAyClULVTZ02P2yELW6EKAIJy\n");
        let key =
            ObjectKey::new(&TenantName::default_tenant(), StreamId(uuid::Uuid::nil()), "file:///a");
        assert!(entries.starts_with(&key.address));
        assert_eq!(key.name(), format!("{}/at/{}", uuid::Uuid::nil(), key.address));
    }
}

//! Documents: small named things that belong to a tenant and are not records,
//! such as users, quotas and the members of a group.
//!
//! They are put and deleted through the ledger like everything else, live in
//! its snapshots and in manifests, and come back with `recover`. The ledger
//! does not look into them: whoever puts one says what it means.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aquifer_types::{StreamId, StreamName, StreamPath, TenantName};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::options::Options;

/// The longest name of a document, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// What a document is. Each kind has names of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    /// One fact about the whole server, such as its Kafka cluster's id.
    Server,
    /// A user and how a login is verified.
    User,
    /// A consumer group's generation, members and assignment.
    Group,
    /// Limits of a user's or a client's rates.
    ClientQuota,
    /// A named query. Statements name it as they name a stream, so no stream of
    /// the tenant has the same name.
    View,
    /// The schema of a live stream's values, under the stream's id. It goes with
    /// the stream.
    Schema,
    /// An import of objects, and how far it is.
    Import,
    /// How far an object was imported, and which were.
    ImportedObject,
    /// A place that is watched for objects to import.
    Watch,
    /// An export of records, and how far it is.
    Export,
}

impl DocumentKind {
    pub(crate) const ALL: [Self; 10] = [
        Self::Server,
        Self::User,
        Self::Group,
        Self::ClientQuota,
        Self::View,
        Self::Schema,
        Self::Import,
        Self::ImportedObject,
        Self::Watch,
        Self::Export,
    ];
}

/// The name of a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DocumentKey {
    /// Whose it is.
    pub tenant: TenantName,
    /// What it is.
    pub kind: DocumentKind,
    /// 1 to 512 bytes, no control characters.
    pub name: String,
}

/// A document as it was put.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Its text; JSON by custom.
    pub value: String,
    /// Greater than that of any document put before, on the whole server.
    pub version: u64,
}

/// What has to hold for a document to be put or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentExpectation {
    /// Nothing.
    Any,
    /// It does not exist.
    Absent,
    /// It is in this version.
    Version(u64),
}

/// All documents, and what they take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Documents {
    by_key: BTreeMap<DocumentKey, Arc<Document>>,
    bytes: usize,
    /// The highest version that was given.
    version: u64,
}

/// How to take [`Documents::put`] or [`Documents::delete`] back.
#[derive(Debug)]
pub(crate) struct DocumentUndo {
    key: DocumentKey,
    old: Option<Arc<Document>>,
    version: u64,
}

// A document may hold what proves a user: it does not go into logs.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document(version {}, {} bytes)", self.version, self.value.len())
    }
}

impl DocumentKey {
    /// The document `name` of a kind and a tenant.
    #[must_use]
    pub fn new(tenant: TenantName, kind: DocumentKind, name: impl Into<String>) -> Self {
        Self { tenant, kind, name: name.into() }
    }

    /// The view that would have the name of this stream.
    pub(crate) fn of_view(path: &StreamPath) -> Self {
        Self::new(path.tenant.clone(), DocumentKind::View, path.name.as_str())
    }

    /// The stream that would have the name of this view; none where no stream
    /// can, or it is no view.
    pub(crate) fn stream_of_view(&self) -> Option<StreamPath> {
        if self.kind != DocumentKind::View {
            return None;
        }
        let name = StreamName::new(&self.name).ok()?;
        Some(StreamPath::new(self.tenant.clone(), name))
    }

    /// The schema of a stream.
    #[must_use]
    pub fn of_schema(tenant: &TenantName, stream: StreamId) -> Self {
        Self::new(tenant.clone(), DocumentKind::Schema, stream.0.to_string())
    }

    /// The stream whose schema this is; `None` where it is none.
    pub(crate) fn stream_of_schema(&self) -> Option<StreamId> {
        if self.kind != DocumentKind::Schema {
            return None;
        }
        self.name.parse().ok().map(StreamId)
    }

    fn bytes(&self) -> usize {
        self.tenant.as_str().len() + self.name.len()
    }

    fn check(&self) -> Result<(), Error> {
        let is_sound = !self.name.is_empty()
            && self.name.len() <= NAME_BYTES_MAX
            && !self.name.chars().any(char::is_control);
        if is_sound {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "a name has 1 to {NAME_BYTES_MAX} bytes and no control characters, not {:?}",
            self.name.chars().take(80).collect::<String>()
        )))
    }
}

/// Leaves what was never used out of what is stored.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
pub(crate) fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Documents {
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// No version through this one is given again.
    pub(crate) fn raise_version(&mut self, version: u64) {
        self.version = self.version.max(version);
    }

    pub(crate) fn get(&self, key: &DocumentKey) -> Option<&Arc<Document>> {
        self.by_key.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&DocumentKey, &Arc<Document>)> {
        self.by_key.iter()
    }

    pub(crate) fn of_kind<'a>(
        &'a self,
        tenant: &TenantName,
        kind: DocumentKind,
    ) -> impl Iterator<Item = (&'a DocumentKey, &'a Arc<Document>)> + use<'a> {
        let from = DocumentKey::new(tenant.clone(), kind, "");
        let tenant = tenant.clone();
        self.by_key
            .range(from..)
            .take_while(move |(key, _)| key.tenant == tenant && key.kind == kind)
    }

    /// Decides a put: the version that the document gets.
    pub(crate) fn check_put(
        &self,
        key: &DocumentKey,
        value: &str,
        expected: DocumentExpectation,
        options: &Options,
    ) -> Result<u64, Error> {
        key.check()?;
        self.check_expected(key, expected)?;
        if value.len() > options.document_bytes_max {
            return Err(Error::TooLarge {
                what: format!("{:?} {}", key.kind, key.name),
                size: value.len() as u64,
                limit: options.document_bytes_max as u64,
                limit_name: "document_bytes_max",
            });
        }
        let old = self.get(key).map_or(0, |old| key.bytes() + old.value.len());
        let bytes = self.bytes - old + key.bytes() + value.len();
        if bytes > options.documents_bytes_max && bytes > self.bytes {
            return Err(Error::Throttled {
                what: "the bytes of users, groups and other documents",
                limit: options.documents_bytes_max as u64,
                limit_name: "documents_bytes_max",
            });
        }
        Ok(self.version + 1)
    }

    /// Decides whether a document may be changed.
    pub(crate) fn check_expected(
        &self,
        key: &DocumentKey,
        expected: DocumentExpectation,
    ) -> Result<(), Error> {
        let actual = self.get(key).map(|document| document.version);
        match expected {
            DocumentExpectation::Any => Ok(()),
            DocumentExpectation::Absent if actual.is_none() => Ok(()),
            DocumentExpectation::Version(version) if actual == Some(version) => Ok(()),
            _ => Err(Error::DocumentChanged { kind: key.kind, name: key.name.clone(), actual }),
        }
    }

    pub(crate) fn put(&mut self, key: &DocumentKey, document: Arc<Document>) -> DocumentUndo {
        let version = self.version;
        self.version = self.version.max(document.version);
        self.bytes += key.bytes() + document.value.len();
        let old = self.by_key.insert(key.clone(), document);
        self.bytes -= old.as_ref().map_or(0, |old| key.bytes() + old.value.len());
        DocumentUndo { key: key.clone(), old, version }
    }

    pub(crate) fn delete(&mut self, key: &DocumentKey) -> DocumentUndo {
        let old = self.by_key.remove(key);
        self.bytes -= old.as_ref().map_or(0, |old| key.bytes() + old.value.len());
        DocumentUndo { key: key.clone(), old, version: self.version }
    }

    pub(crate) fn undo(&mut self, undo: DocumentUndo) {
        let DocumentUndo { key, old, version } = undo;
        match old {
            Some(old) => drop(self.put(&key, old)),
            None => drop(self.delete(&key)),
        }
        self.version = version;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: DocumentKind, name: &str) -> DocumentKey {
        DocumentKey::new(TenantName::default_tenant(), kind, name)
    }

    fn put(documents: &mut Documents, name: &str, value: &str) -> DocumentUndo {
        let key = key(DocumentKind::User, name);
        let options = Options::default();
        let version = documents.check_put(&key, value, DocumentExpectation::Any, &options).unwrap();
        documents.put(&key, Arc::new(Document { value: value.into(), version }))
    }

    #[test]
    fn what_is_expected_is_checked_and_taken_back() {
        let mut documents = Documents::default();
        let _ = put(&mut documents, "ann", "1");
        let before = documents.clone();
        let undo = put(&mut documents, "ann", "22");
        assert_eq!(documents.get(&key(DocumentKind::User, "ann")).unwrap().version, 2);
        let check = |expected| documents.check_expected(&key(DocumentKind::User, "ann"), expected);
        assert!(check(DocumentExpectation::Version(2)).is_ok());
        assert!(check(DocumentExpectation::Version(1)).is_err());
        assert!(check(DocumentExpectation::Absent).is_err());
        documents.undo(undo);
        assert_eq!(documents, before);
        let undo = documents.delete(&key(DocumentKind::User, "ann"));
        assert_eq!(documents.bytes, 0);
        documents.undo(undo);
        assert_eq!(documents, before);
    }

    #[test]
    fn kinds_and_tenants_do_not_mix() {
        let mut documents = Documents::default();
        let _ = put(&mut documents, "ann", "1");
        let _ = put(&mut documents, "bob", "1");
        let group = Arc::new(Document { value: "g".into(), version: 9 });
        let _ = documents.put(&key(DocumentKind::Group, "ann"), group);
        let tenant = TenantName::default_tenant();
        let names: Vec<_> = documents
            .of_kind(&tenant, DocumentKind::User)
            .map(|(key, _)| key.name.as_str())
            .collect();
        assert_eq!(names, ["ann", "bob"]);
        let other = TenantName::new("other").unwrap();
        assert_eq!(documents.of_kind(&other, DocumentKind::User).count(), 0);
    }

    #[test]
    fn limits_are_named() {
        let documents = Documents::default();
        let check = |name: &str, value: &str, options: &Options, part: &str| {
            let key = key(DocumentKind::User, name);
            let result = documents.check_put(&key, value, DocumentExpectation::Any, options);
            let why = result.unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        };
        let small = Options { document_bytes_max: 4, documents_bytes_max: 8, ..Options::default() };
        check("", "1", &small, "1 to 512 bytes");
        check("a\nb", "1", &small, "control characters");
        check("ann", "12345", &small, "document_bytes_max");
        check("annabel", "1234", &small, "documents_bytes_max");
    }
}

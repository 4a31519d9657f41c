//! An import, a watch or an export as a document: what it is to do, how far it
//! is, and how it ended.

use std::collections::BTreeMap;

use aquifer_env::{Random, uuid_v4};
use aquifer_stream::{DocumentExpectation, DocumentKey, DocumentKind, Operation, StreamStore};
use aquifer_types::{Offset, PartitionIndex, TenantName};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::address::shown;
use crate::export::ExportSpec;
use crate::rows::BadRow;
use crate::spec::ImportSpec;
use crate::{Error, ObjectOptions};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Import what is there, once.
    Import(ImportSpec),
    /// Import what is there and what comes.
    Watch(ImportSpec),
    /// Write records as objects.
    Export(ExportSpec),
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It goes on, also after a restart of the server.
    Running,
    /// A watch does nothing until it is resumed.
    Paused,
    /// All is done.
    Done,
    /// It was given up. A watch goes on when it is resumed.
    Failed,
}

/// A row that is no record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowError {
    /// The object's address.
    pub object: String,
    /// Its row, from 1.
    pub row: u64,
    /// What is wrong with it.
    pub why: String,
}

/// The first bad rows of an object, as they are named.
#[derive(Debug)]
pub(crate) struct BadRows {
    count_max: usize,
    errors: Mutex<Vec<RowError>>,
}

impl BadRows {
    pub(crate) fn new(options: &ObjectOptions) -> Self {
        Self { count_max: options.errors_max, errors: Mutex::default() }
    }

    pub(crate) fn note(&self, url: &str, rows: &[BadRow]) {
        let mut errors = self.errors.lock();
        let room = self.count_max.saturating_sub(errors.len());
        errors.extend(rows.iter().take(room).map(|bad| RowError {
            object: url.to_owned(),
            row: bad.row,
            why: bad.why.clone(),
        }));
    }

    /// Names them among others, as far as there is room.
    pub(crate) fn name(&self, named: &mut Vec<RowError>) {
        let room = self.count_max.saturating_sub(named.len());
        named.extend(self.errors.lock().iter().take(room).cloned());
    }

    pub(crate) fn into_errors(self) -> Vec<RowError> {
        self.errors.into_inner()
    }
}

/// A version of an object that cannot be read to its end.
#[derive(Debug, Clone)]
pub(crate) struct BrokenObject {
    pub(crate) version: String,
    pub(crate) error: Error,
}

/// What an export has still to write of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportCut {
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset that is not written yet.
    pub next: Offset,
    /// The end.
    pub end: Offset,
}

/// A job as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDocument {
    /// What is to be done.
    pub work: Work,
    /// How it stands.
    pub state: JobState,
    /// When it was asked for, in ms.
    pub created: i64,
    /// When it ended, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<i64>,
    /// Objects that it has imported or written whole.
    #[serde(default)]
    pub objects: u64,
    /// Records of those.
    #[serde(default)]
    pub records: u64,
    /// Bytes of those records, or of the objects that were written.
    #[serde(default)]
    pub bytes: u64,
    /// Rows of those objects that are no records.
    #[serde(default)]
    pub bad_rows: u64,
    /// The first of those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<RowError>,
    /// Why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What an export has still to write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<ExportCut>,
}

/// What is known of a running job beside its document; a restart forgets it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Live {
    /// The objects that the last look found.
    pub found: u64,
    /// Those of them that are not imported yet.
    pub behind: u64,
    /// The object that is being imported, and how many of its rows are dealt with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// How many of its rows are dealt with.
    pub rows: u64,
    /// Why it waits, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// What failed last and is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When a watch looked last, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looked: Option<i64>,
}

/// A job as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobStatus {
    /// Its id.
    pub id: String,
    /// Its document, but for what may be secret in its addresses.
    #[serde(flatten)]
    pub document: JobDocument,
    /// What it does now.
    pub now: Live,
}

impl Work {
    pub(crate) const fn kind(&self) -> DocumentKind {
        match self {
            Self::Import(_) => DocumentKind::Import,
            Self::Watch(_) => DocumentKind::Watch,
            Self::Export(_) => DocumentKind::Export,
        }
    }

    pub(crate) const fn is_watch(&self) -> bool {
        matches!(self, Self::Watch(_))
    }

    /// As others may see it: passwords and signatures of addresses are nobody
    /// else's.
    fn shown(mut self) -> Self {
        match &mut self {
            Self::Import(spec) | Self::Watch(spec) => {
                spec.urls.iter_mut().for_each(|url| *url = shown(url));
            }
            Self::Export(spec) => spec.url = shown(&spec.url),
        }
        self
    }
}

/// The word for a kind of jobs.
pub(crate) const fn noun(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Watch => "watch",
        DocumentKind::Export => "export",
        _ => "import",
    }
}

/// How often a change is tried anew where somebody else changed the same job.
const CHANGES_MAX: usize = 64;

/// A job that is known to this server. Its document is in the store alone, and
/// each change of it expects the version that it was made of: so no change is
/// lost.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) key: DocumentKey,
    store: StreamStore,
    pub(crate) live: Mutex<Live>,
    /// Objects by address that are not tried again before they change, or
    /// somebody asks: as many as the last look found at most.
    pub(crate) broken: Mutex<BTreeMap<String, BrokenObject>>,
    /// True when it was deleted, or the server stops.
    pub(crate) stopping: watch::Sender<bool>,
    /// Told when it is resumed.
    pub(crate) resumed: Notify,
}

impl Job {
    pub(crate) fn new(store: &StreamStore, key: DocumentKey) -> Self {
        Self {
            key,
            store: store.clone(),
            live: Mutex::default(),
            broken: Mutex::default(),
            stopping: watch::Sender::new(false),
            resumed: Notify::new(),
        }
    }

    pub(crate) fn new_key(tenant: &TenantName, work: &Work, random: &dyn Random) -> DocumentKey {
        DocumentKey::new(tenant.clone(), work.kind(), uuid_v4(random).to_string())
    }

    /// The document as it is now.
    ///
    /// # Errors
    /// [`Error::Stopped`] where the job was deleted.
    pub(crate) fn document(&self) -> Result<JobDocument, Error> {
        Ok(self.versioned()?.0)
    }

    fn versioned(&self) -> Result<(JobDocument, DocumentExpectation), Error> {
        let document = self.store.document(&self.key).ok_or(Error::Stopped)?;
        let expected = DocumentExpectation::Version(document.version);
        Ok((serde_json::from_str(&document.value).map_err(Error::internal)?, expected))
    }

    pub(crate) fn status(&self) -> Result<JobStatus, Error> {
        let document = self.document()?;
        Ok(JobStatus {
            id: self.key.name.clone(),
            document: JobDocument { work: document.work.shown(), ..document },
            now: self.live.lock().clone(),
        })
    }

    /// Stores the document of a new job.
    pub(crate) async fn create(&self, document: &JobDocument) -> Result<(), Error> {
        let value = serde_json::to_string(document).map_err(Error::internal)?;
        let expected = DocumentExpectation::Absent;
        self.store.put_document(self.key.clone(), value, expected).await?;
        Ok(())
    }

    /// What changes the document, as it is now, in a commit of the caller's.
    pub(crate) fn changing(
        &self,
        change: impl FnOnce(&mut JobDocument),
    ) -> Result<Operation, Error> {
        let (mut document, expected) = self.versioned()?;
        change(&mut document);
        let value = serde_json::to_string(&document).map_err(Error::internal)?;
        Ok(Operation::PutDocument { key: self.key.clone(), value, expected })
    }

    /// Changes the document.
    pub(crate) async fn change(&self, change: impl Fn(&mut JobDocument)) -> Result<(), Error> {
        for _ in 0..CHANGES_MAX {
            match self.store.commit(vec![self.changing(&change)?]).await {
                Err(aquifer_stream::Error::DocumentChanged { .. }) => {}
                other => return Ok(other.map(drop)?),
            }
        }
        Err(Error::Busy(self.key.name.clone()))
    }

    /// Forgets it and stops it.
    pub(crate) async fn delete(&self) -> Result<(), Error> {
        // Not before it is forgotten: where that fails the job goes on, as its
        // document says.
        self.store.delete_document(self.key.clone(), DocumentExpectation::Any).await?;
        self.stopping.send_replace(true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aquifer_types::StreamName;

    use super::*;

    #[test]
    fn secrets_of_addresses_are_not_shown() {
        let stream = StreamName::new("s").unwrap();
        let urls = vec![
            "https://ann:secret@host/a.json?X-Sig=secret#secret".to_owned(),
            "s3://bucket/in/".to_owned(),
        ];
        let plain = ["https://host/a.json", "s3://bucket/in/"].map(str::to_owned).to_vec();
        let expected = ImportSpec::new(stream.clone(), plain);
        let spec = ImportSpec::new(stream, urls);
        assert_eq!(Work::Watch(spec.clone()).shown(), Work::Watch(expected.clone()));
        assert_eq!(Work::Import(spec).shown(), Work::Import(expected));
    }
}

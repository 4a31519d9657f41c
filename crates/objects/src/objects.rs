//! All imports, watches and exports, as the doors use them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::source::{READ_MS_MAX, blocking_body};
use aquifer_env::store::StoreError;
use aquifer_env::{Clock, Random};
use aquifer_stream::{DocumentKey, DocumentKind, Operation, StreamStore};
use aquifer_types::TenantName;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::export::ExportSpec;
use crate::format;
use crate::import::{Content, Imported, Input, Target, Watcher, import};
use crate::imported::{Progress, forget_deleted};
use crate::job::{BadRows, Job, JobDocument, JobState, JobStatus, RowError, Work, noun};
use crate::rows::BadRow;
use crate::spec::{Format, ImportSpec};
use crate::{Error, ObjectMetrics, ObjectOptions, export, run};

/// What imports and exports need besides the store.
#[derive(Debug)]
pub struct ObjectEnvironment {
    /// The time of records that have none, and of jobs.
    pub clock: Arc<dyn Clock>,
    /// For ids.
    pub random: Arc<dyn Random>,
    /// Where imports and exports count.
    pub metrics: ObjectMetrics,
}

/// The imports, watches and exports of a server; cheap to clone.
#[derive(Debug, Clone)]
pub struct Objects {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: StreamStore,
    pub(crate) options: ObjectOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) metrics: ObjectMetrics,
    /// Objects at the same time.
    pub(crate) running: Semaphore,
    uploads: Semaphore,
    jobs: Mutex<BTreeMap<DocumentKey, Arc<Job>>>,
    /// Objects that are being imported, with their streams.
    claimed: Mutex<HashSet<String>>,
    tasks: Mutex<JoinSet<()>>,
    stopping: watch::Sender<bool>,
}

/// An object that a client sends.
#[derive(Debug)]
pub struct Upload {
    /// How it becomes records.
    pub spec: ImportSpec,
    /// What names it: with the version, the same object is imported once.
    pub name: String,
    /// What changes when it does.
    pub version: String,
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UploadAnswer {
    /// Whether this version had been imported before; then nothing was read.
    pub before: bool,
    /// The object's rows, with those of earlier tries.
    pub rows: u64,
    /// The records that they became.
    pub records: u64,
    /// The rows that are no records.
    pub bad_rows: u64,
    /// The first of those that this try met.
    pub errors: Vec<RowError>,
}

/// An object that is being imported; given up when dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    shared: Arc<Shared>,
    name: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.claimed.lock().remove(&self.name);
    }
}

impl Shared {
    /// Takes an object, if nobody else has it.
    pub(crate) fn claim(self: &Arc<Self>, name: &str) -> Option<Claim> {
        let is_new = self.claimed.lock().insert(name.to_owned());
        is_new.then(|| Claim { shared: self.clone(), name: name.to_owned() })
    }
}

impl Objects {
    /// Goes on with what was running when the server stopped. Must be called in
    /// a Tokio runtime.
    #[must_use]
    pub fn start(
        store: StreamStore,
        options: ObjectOptions,
        environment: ObjectEnvironment,
    ) -> Self {
        let ObjectEnvironment { clock, random, metrics } = environment;
        let shared = Arc::new(Shared {
            running: Semaphore::new(options.concurrency),
            uploads: Semaphore::new(options.uploads_max),
            store,
            options,
            clock,
            random,
            metrics,
            jobs: Mutex::default(),
            claimed: Mutex::default(),
            tasks: Mutex::default(),
            stopping: watch::Sender::new(false),
        });
        let objects = Self { shared };
        objects.resume_all();
        objects
    }

    fn resume_all(&self) {
        let shared = self.shared.clone();
        let swept = self.shared.clone();
        self.shared.tasks.lock().spawn(async move {
            if let Err(error) = forget_deleted(&swept.store).await {
                tracing::warn!(%error, "imports of deleted streams could not be forgotten");
            }
        });
        for kind in [DocumentKind::Import, DocumentKind::Watch, DocumentKind::Export] {
            for (key, document) in shared.store.all_documents(kind) {
                match serde_json::from_str::<JobDocument>(&document.value) {
                    Ok(document) => self.add(Arc::new(Job::new(&shared.store, key)), &document),
                    Err(error) => {
                        tracing::error!(id = key.name, %error, "a {} cannot be read", noun(kind));
                    }
                }
            }
        }
    }

    /// Lets a job be known, and run if there is something to do.
    fn add(&self, job: Arc<Job>, document: &JobDocument) {
        self.shared.jobs.lock().insert(job.key.clone(), job.clone());
        if document.state == JobState::Running || document.work.is_watch() {
            let shared = self.shared.clone();
            let mut tasks = self.shared.tasks.lock();
            // Those that ended are let go of, so that they do not pile up.
            while tasks.try_join_next().is_some() {}
            tasks.spawn(run::run(shared, job));
        }
    }

    /// Begins an import, a watch or an export; it goes on until it is done, also
    /// over restarts.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotAllowed`], [`Error::Limit`];
    /// [`Error::Store`] where there is no such stream.
    pub async fn create(&self, tenant: &TenantName, work: Work) -> Result<JobStatus, Error> {
        let shared = &self.shared;
        let cut = match &work {
            Work::Import(spec) | Work::Watch(spec) => {
                spec.check()?;
                spec.check_urls(&shared.options)?;
                for url in &spec.urls {
                    crate::address::open_source(url, &shared.options)?;
                }
                Target::new(shared, tenant, Arc::new(spec.clone()))?;
                Vec::new()
            }
            Work::Export(spec) => export::prepare(shared, tenant, spec).await?,
        };
        self.make_room(tenant, &work).await?;
        let document = JobDocument {
            work,
            state: JobState::Running,
            created: shared.clock.now_ms(),
            ended: None,
            objects: 0,
            records: 0,
            bytes: 0,
            bad_rows: 0,
            errors: Vec::new(),
            failure: None,
            cut,
        };
        let key = Job::new_key(tenant, &document.work, &*shared.random);
        let job = Arc::new(Job::new(&shared.store, key));
        job.create(&document).await?;
        let status = job.status()?;
        self.add(job, &document);
        Ok(status)
    }

    /// Forgets the oldest jobs that have ended, where there are too many.
    async fn make_room(&self, tenant: &TenantName, work: &Work) -> Result<(), Error> {
        let kind = work.kind();
        let (limit, limit_name) = match work {
            Work::Watch(_) => (self.shared.options.watches_max, "objects.watches_max"),
            _ => (self.shared.options.jobs_max, "objects.jobs_max"),
        };
        loop {
            let jobs = self.jobs_of(tenant, kind);
            if jobs.len() < limit {
                return Ok(());
            }
            let ended = jobs.iter().filter_map(|job| {
                let document = job.document().ok()?;
                let is_ended = !document.work.is_watch() && document.state != JobState::Running;
                is_ended.then_some((document.created, job))
            });
            let Some((_, oldest)) = ended.min_by_key(|(created, _)| *created) else {
                let what = match kind {
                    DocumentKind::Watch => "watches",
                    DocumentKind::Export => "exports that are running",
                    _ => "imports that are running",
                };
                return Err(Error::Limit { what, limit: limit as u64, limit_name });
            };
            self.forget(oldest).await?;
        }
    }

    fn jobs_of(&self, tenant: &TenantName, kind: DocumentKind) -> Vec<Arc<Job>> {
        let jobs = self.shared.jobs.lock();
        let of_kind = jobs.values().filter(|job| job.key.kind == kind && job.key.tenant == *tenant);
        of_kind.cloned().collect()
    }

    fn job(&self, tenant: &TenantName, kind: DocumentKind, id: &str) -> Result<Arc<Job>, Error> {
        let key = DocumentKey::new(tenant.clone(), kind, id);
        let job = self.shared.jobs.lock().get(&key).cloned();
        job.ok_or_else(|| Error::NotFound { what: noun(kind), id: id.chars().take(80).collect() })
    }

    /// The jobs of a kind, the newest first.
    #[must_use]
    pub fn list(&self, tenant: &TenantName, kind: DocumentKind) -> Vec<JobStatus> {
        let mut jobs: Vec<_> =
            self.jobs_of(tenant, kind).iter().filter_map(|job| job.status().ok()).collect();
        jobs.sort_by(|a, b| (b.document.created, &b.id).cmp(&(a.document.created, &a.id)));
        jobs
    }

    /// One job.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn get(
        &self,
        tenant: &TenantName,
        kind: DocumentKind,
        id: &str,
    ) -> Result<JobStatus, Error> {
        self.job(tenant, kind, id)?.status()
    }

    /// Stops a job and forgets it. What it imported or wrote stays, and is still
    /// known: the same import again goes on where this one stood.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn delete(
        &self,
        tenant: &TenantName,
        kind: DocumentKind,
        id: &str,
    ) -> Result<(), Error> {
        let job = self.job(tenant, kind, id)?;
        self.forget(&job).await
    }

    async fn forget(&self, job: &Job) -> Result<(), Error> {
        job.delete().await?;
        self.shared.jobs.lock().remove(&job.key);
        Ok(())
    }

    /// Lets a watch rest, or go on; one that was given up as well.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn pause_watch(
        &self,
        tenant: &TenantName,
        id: &str,
        is_paused: bool,
    ) -> Result<JobStatus, Error> {
        let job = self.job(tenant, DocumentKind::Watch, id)?;
        let changed = |document: &mut JobDocument| {
            document.failure = None;
            document.state = if is_paused { JobState::Paused } else { JobState::Running };
        };
        job.change(changed).await?;
        // Who resumes it may have mended what a version cannot tell of.
        job.broken.lock().clear();
        job.resumed.notify_one();
        job.status()
    }

    /// Begins an export: a shorter [`Objects::create`].
    ///
    /// # Errors
    /// As there.
    pub async fn export(&self, tenant: &TenantName, spec: ExportSpec) -> Result<JobStatus, Error> {
        self.create(tenant, Work::Export(spec)).await
    }

    /// Imports an object whose bytes a client sends. The same name and version
    /// again imports nothing, and after a failure only what is missing.
    ///
    /// # Errors
    /// [`Error::Row`], [`Error::Broken`], [`Error::Store`], [`Error::Invalid`];
    /// [`Error::Busy`] where the same object is being sent; [`Error::Limit`];
    /// [`Error::Objects`] where nothing comes for [`READ_MS_MAX`].
    pub async fn upload(
        &self,
        tenant: &TenantName,
        upload: Upload,
        body: BoxStream<'static, Result<Bytes, String>>,
    ) -> Result<UploadAnswer, Error> {
        let shared = &self.shared;
        let Upload { spec, name, version } = upload;
        spec.check()?;
        crate::spec::check_url(&name)?;
        crate::spec::check_url(&version)?;
        let _permit = shared.uploads.try_acquire().map_err(|_| Error::Limit {
            what: "the uploads at the same time",
            limit: shared.options.uploads_max as u64,
            limit_name: "objects.uploads_max",
        })?;
        let target = Target::new(shared, tenant, Arc::new(spec))?;
        let url = format!("upload:{name}");
        let mut stopping = shared.stopping.subscribe();
        if target.key(&url).is_done(&shared.store, &version) {
            // A client that is still sending does not look for an answer: one that
            // came before the end would be a broken connection to it.
            let mut rest = body;
            while let Ok(Some(Ok(_))) = next(&mut rest, &url, &mut stopping).await {}
            let (rows, records, bad_rows, errors) = (0, 0, 0, Vec::new());
            return Ok(UploadAnswer { before: true, rows, records, bad_rows, errors });
        }
        let address = url.clone();
        let body = body
            .map(move |piece| piece.map_err(|why| StoreError::broken_off(address.as_str(), why)))
            .boxed();
        let content = match format::told(&target.spec, &name) {
            Some(Format::Parquet) => {
                Content::Memory(whole(shared, body, &url, &mut stopping).await?)
            }
            _ => Content::Body(blocking_body(&url, None, body)),
        };
        let input = Input { url, name, version, content };
        let watcher = Uploading { bad: BadRows::new(&shared.options) };
        let imported = import(shared, &target, input, &watcher, &mut stopping).await?;
        let errors = watcher.bad.into_errors();
        // Somebody else may have finished it meanwhile.
        let before = matches!(imported, Imported::Before);
        let progress = match imported {
            Imported::Before => Progress::default(),
            Imported::Whole(progress) => progress,
        };
        let Progress { rows, records, bad, .. } = progress;
        Ok(UploadAnswer { before, rows, records, bad_rows: bad, errors })
    }

    /// Ends what is running at its next commit; the next start goes on with it.
    pub async fn stop(&self) {
        self.shared.stopping.send_replace(true);
        let jobs: Vec<_> = self.shared.jobs.lock().values().cloned().collect();
        for job in jobs {
            job.stopping.send_replace(true);
        }
        let mut tasks = std::mem::take(&mut *self.shared.tasks.lock());
        while tasks.join_next().await.is_some() {}
    }
}

/// The next piece of what a client sends: waited for no longer than in any other
/// read, and not beyond the server's end.
async fn next<T>(
    body: &mut BoxStream<'static, T>,
    url: &str,
    stopping: &mut watch::Receiver<bool>,
) -> Result<Option<T>, Error> {
    let limit = Duration::from_millis(READ_MS_MAX);
    tokio::select! {
        piece = tokio::time::timeout(limit, body.next()) => piece.map_err(|_| {
            let why = format!("nothing came for {} s", limit.as_secs());
            Error::from(StoreError::broken_off(url, why))
        }),
        _ = stopping.wait_for(|is_stopping| *is_stopping) => Err(Error::Stopped),
    }
}

/// A body that has to be there as a whole.
async fn whole(
    shared: &Shared,
    mut body: BoxStream<'static, Result<Bytes, StoreError>>,
    url: &str,
    stopping: &mut watch::Receiver<bool>,
) -> Result<Bytes, Error> {
    let limit = shared.options.upload_bytes_max;
    let mut bytes = BytesMut::new();
    while let Some(piece) = next(&mut body, url, stopping).await? {
        let piece = piece?;
        if bytes.len() + piece.len() > limit {
            return Err(Error::Invalid(format!(
                "a Parquet file that is uploaded has {limit} bytes at most \
                 (objects.upload_bytes_max); let the server read it from a store"
            )));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}

/// Collects the bad rows of an upload.
#[derive(Debug)]
struct Uploading {
    bad: BadRows,
}

impl Watcher for Uploading {
    fn at(&self, _: &Progress, _: Option<&str>) {}

    fn bad(&self, url: &str, rows: &[BadRow]) {
        self.bad.note(url, rows);
    }

    fn finishing(&self, _: &Progress) -> Result<Vec<Operation>, Error> {
        Ok(Vec::new())
    }
}

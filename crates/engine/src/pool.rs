//! Memory and disk for operators: one limit for the whole process, a smaller one
//! for each question, and files where both are not enough.
//!
//! Within a question, operators that can spill share what those that cannot have
//! left. A question that meets the process's limit spills as one that meets its
//! own does; where nothing can be spilled it fails, and the others go on.
//!
//! Only what operators declare is counted. What is decoded but not yet handed
//! on, the caches of footers and of the tail are not; the last two have limits
//! of their own.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::DataFusionError;
use datafusion::error::Result;
use datafusion::execution::TempFileFactory;
use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::object_store::ObjectStore;
use datafusion::object_store::memory::InMemory;
use url::Url;

use crate::chunk_scan::STORE_URL;
use crate::spill::SpillFiles;

/// What the operators of all questions share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Resources {
    shared: Arc<Shared>,
    files: Arc<SpillFiles>,
    disk: Arc<DiskManager>,
}

#[derive(Debug)]
struct Shared {
    bytes_max: usize,
    used: AtomicUsize,
}

impl Shared {
    fn try_take(&self, bytes: usize) -> bool {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max)
        });
        taken.is_ok()
    }

    fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Resources {
    /// Memory of `memory_bytes_max` for all operators together, and files of
    /// `spill_bytes_max` in `spill_directory`, which is the process's own.
    ///
    /// # Errors
    /// What the directory refuses.
    pub fn new(
        memory_bytes_max: u64,
        spill_directory: PathBuf,
        spill_bytes_max: u64,
    ) -> Result<Self> {
        let bytes_max = usize::try_from(memory_bytes_max).unwrap_or(usize::MAX);
        let files = Arc::new(SpillFiles::new(spill_directory, spill_bytes_max)?);
        let factory = Arc::clone(&files) as Arc<dyn TempFileFactory>;
        let disk = DiskManagerBuilder::default().with_temp_file_factory(factory).build()?;
        let shared = Shared { bytes_max, used: AtomicUsize::new(0) };
        Ok(Self { shared: Arc::new(shared), files, disk: Arc::new(disk) })
    }

    /// What one question runs in, with at most `memory_bytes_max` of the
    /// process's memory. Nothing but tables that are registered can be read in
    /// it: there are no local files and no other stores.
    ///
    /// # Errors
    /// What DataFusion refuses.
    pub fn question(&self, memory_bytes_max: u64) -> Result<Arc<RuntimeEnv>> {
        let bytes_max = usize::try_from(memory_bytes_max).unwrap_or(usize::MAX);
        let pool = QuestionPool {
            fair: FairSpillPool::new(bytes_max.min(self.shared.bytes_max)),
            shared: self.shared.clone(),
        };
        let mut environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(
                DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
            )
            .with_object_store_registry(Arc::new(NoStores))
            .build()?;
        environment.disk_manager = self.disk.clone();
        Ok(Arc::new(environment))
    }

    /// The bytes that operators hold at present.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed) as u64
    }

    /// The bytes of spilled files at present.
    #[must_use]
    pub fn spilled_bytes(&self) -> u64 {
        self.files.bytes()
    }
}

/// The pool of one question, within that of all.
#[derive(Debug)]
struct QuestionPool {
    fair: FairSpillPool,
    shared: Arc<Shared>,
}

impl fmt::Display for QuestionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.fair, f)
    }
}

impl MemoryPool for QuestionPool {
    fn name(&self) -> &str {
        "question"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.fair.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.fair.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.shared.take(additional);
        self.fair.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.fair.shrink(reservation, shrink);
        self.shared.give_back(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if !self.shared.try_take(additional) {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{additional} bytes of memory are not left in the engine, which has {} for all \
                 questions",
                self.shared.bytes_max
            )));
        }
        self.fair.try_grow(reservation, additional).inspect_err(|_| {
            self.shared.give_back(additional);
        })
    }

    fn reserved(&self) -> usize {
        self.fair.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.fair.memory_limit()
    }
}

/// There is one store, and nothing is read through it: scans have readers of
/// their own.
#[derive(Debug)]
struct NoStores;

impl ObjectStoreRegistry for NoStores {
    fn register_store(&self, _: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        match url.as_str() == STORE_URL {
            true => Ok(Arc::new(InMemory::new())),
            false => Err(DataFusionError::Plan(
                "files and stores cannot be read by a statement; streams can".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(bytes: u64) -> (Resources, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        (Resources::new(bytes, directory.path().to_owned(), 1 << 20).unwrap(), directory)
    }

    #[test]
    fn questions_share_one_limit_and_have_their_own() {
        let (resources, _directory) = resources(1000);
        let reserve = |bytes: u64| {
            let environment = resources.question(bytes).unwrap();
            MemoryConsumer::new("test").register(&environment.memory_pool)
        };
        let (one, two) = (reserve(600), reserve(600));
        one.try_grow(601).unwrap_err();
        assert_eq!(resources.memory_bytes(), 0);
        one.try_grow(600).unwrap();
        two.try_grow(401).unwrap_err();
        two.try_grow(400).unwrap();
        assert_eq!(resources.memory_bytes(), 1000);
        one.shrink(100);
        two.try_grow(100).unwrap();
        drop((one, two));
        assert_eq!(resources.memory_bytes(), 0);
    }

    #[test]
    fn only_the_scans_own_store_is_there() {
        let (resources, _directory) = resources(1000);
        let environment = resources.question(1000).unwrap();
        for (url, is_there) in
            [(STORE_URL, true), ("file:///", false), ("s3://bucket/", false), ("http://h/", false)]
        {
            let found = environment.object_store_registry.get_store(&Url::parse(url).unwrap());
            assert_eq!(found.is_ok(), is_there, "{url}");
        }
    }
}

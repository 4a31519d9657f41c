//! Reading chunks: their footers, kept for every question of the process, and
//! their bytes, verified and counted for the question that wants them.
//!
//! A chunk's name is never used again, so a footer in the cache is always right.
//! Rows are not cached here: the system's page cache has what lies in files, and
//! what comes from an object store is read once a question.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use aquifer_chunk::{ChunkReader, Expected, Footer, RangeRead};
use aquifer_env::{StoreErrorKind, TierStore};
use aquifer_stream::ChunkMeta;
use aquifer_types::ChunkId;
use bytes::Bytes;
use datafusion::common::internal_datafusion_err;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::Result as ParquetResult;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::BoxFuture;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::usage::ScanCounts;
use crate::{Error, Usage};

/// About how many footers are expected in the cache; a hint, not a limit.
const FOOTERS_EXPECTED: usize = 1024;

#[derive(Debug, Clone)]
struct FooterWeight;

impl Weighter<ChunkId, Arc<Footer>> for FooterWeight {
    fn weight(&self, _: &ChunkId, footer: &Arc<Footer>) -> u64 {
        footer.memory_bytes().max(1) as u64
    }
}

/// Tier 2, as all questions of the process read it.
pub struct ChunkAccess {
    store: TierStore,
    footers: Cache<ChunkId, Arc<Footer>, FooterWeight>,
}

impl fmt::Debug for ChunkAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkAccess").field("store", &self.store).finish_non_exhaustive()
    }
}

impl ChunkAccess {
    /// Reads `store`, and keeps footers and page indexes of at most
    /// `footer_cache_bytes_max`.
    #[must_use]
    pub fn new(store: TierStore, footer_cache_bytes_max: u64) -> Arc<Self> {
        let footers =
            Cache::with_weighter(FOOTERS_EXPECTED, footer_cache_bytes_max.max(1), FooterWeight);
        Arc::new(Self { store, footers })
    }

    /// Opens a chunk of the cut. What is read through it is counted in `usage`.
    ///
    /// # Errors
    /// [`Error::Chunk`].
    pub async fn open(&self, chunk: &ChunkMeta, usage: &Arc<Usage>) -> Result<ChunkReader, Error> {
        self.open_counted(chunk, usage, None).await
    }

    async fn open_counted(
        &self,
        chunk: &ChunkMeta,
        usage: &Arc<Usage>,
        counts: Option<ScanCounts>,
    ) -> Result<ChunkReader, Error> {
        usage.opened(chunk.id);
        let object = Arc::new(Object {
            store: self.store.clone(),
            path: chunk.object_path.clone(),
            size: chunk.object_bytes,
            usage: usage.clone(),
            counts,
        });
        let load = async {
            let footer = Footer::load(&*object, chunk.object_path.as_str()).await?;
            footer.check(&Expected {
                stream_id: chunk.partition.stream,
                partition: chunk.partition.index,
                base: chunk.base,
                next: chunk.next,
            })?;
            Ok::<_, Error>(Arc::new(footer))
        };
        // Those who want the same footer at once wait for one of them.
        let footer = self.footers.get_or_insert_async(&chunk.id, load).await?;
        Ok(ChunkReader::with_footer(object, footer))
    }
}

/// The object of a chunk.
struct Object {
    store: TierStore,
    path: String,
    size: u64,
    usage: Arc<Usage>,
    counts: Option<ScanCounts>,
}

impl RangeRead for Object {
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(async move {
            let bytes = range.end.saturating_sub(range.start);
            let read = self.store.get_range(&self.path, range).await.map_err(|error| {
                let kind = match error.kind {
                    StoreErrorKind::NotFound => io::ErrorKind::NotFound,
                    _ => io::ErrorKind::Other,
                };
                io::Error::new(kind, error)
            })?;
            self.usage.add_bytes(bytes);
            if let Some(counts) = &self.counts {
                counts.bytes_read.add(usize::try_from(bytes).unwrap_or(usize::MAX));
            }
            Ok(read)
        })
    }

    fn size(&self) -> u64 {
        self.size
    }
}

/// Opens chunks for DataFusion's Parquet scan.
#[derive(Debug)]
pub(crate) struct ChunkReaders {
    pub(crate) access: Arc<ChunkAccess>,
    pub(crate) usage: Arc<Usage>,
    pub(crate) counts: ScanCounts,
}

impl ParquetFileReaderFactory for ChunkReaders {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let chunk = file
            .extension::<Arc<ChunkMeta>>()
            .cloned()
            .ok_or_else(|| internal_datafusion_err!("a file of the scan is no chunk"))?;
        let metrics = ParquetFileMetrics::new(partition_index, file.path().as_ref(), metrics);
        Ok(Box::new(PlannedReader {
            access: self.access.clone(),
            usage: self.usage.clone(),
            counts: self.counts.clone(),
            chunk,
            metrics,
            open: None,
        }))
    }
}

/// One chunk under one scan.
struct PlannedReader {
    access: Arc<ChunkAccess>,
    usage: Arc<Usage>,
    counts: ScanCounts,
    chunk: Arc<ChunkMeta>,
    metrics: ParquetFileMetrics,
    open: Option<ChunkReader>,
}

impl PlannedReader {
    async fn open(&mut self) -> Result<&ChunkReader, Error> {
        let reader = match self.open.take() {
            Some(reader) => reader,
            None => {
                let counts = Some(self.counts.clone());
                self.access.open_counted(&self.chunk, &self.usage, counts).await?
            }
        };
        Ok(self.open.insert(reader))
    }

    async fn read(&mut self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, Error> {
        let bytes: u64 = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        self.metrics.bytes_scanned.add(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(self.open().await?.read_ranges(&ranges).await?)
    }
}

impl AsyncFileReader for PlannedReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        Box::pin(async move {
            let mut read = self.read(vec![range]).await?;
            Ok(read.pop().unwrap_or_default())
        })
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        Box::pin(async move { Ok(self.read(ranges).await?) })
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        // With the page index, which the footer's read has brought along.
        Box::pin(async move { Ok(self.open().await?.footer().parquet().clone()) })
    }
}

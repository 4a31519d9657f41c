//! A stream for tests: its records as chunks in a store, as a tail that is
//! asked for, and as plain rows to compare with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aquifer_chunk::{ChunkEncoder, ChunkSpec, EncodeOptions, Rows};
use aquifer_env::TierStore;
use aquifer_query::wire::{Table, TablePartition, TailForm, TailPart};
use aquifer_stream::ChunkMeta;
use aquifer_testkit::rand::RngExt;
use aquifer_testkit::rand::rngs::StdRng;
use aquifer_types::{
    Batch, BatchBuilder, ChunkId, Epoch, ErrorKind, Header, Offset, Partition, PartitionIndex,
    StreamConfig, StreamId, StreamName, TenantName, Timestamp, TimestampType,
};
use arrow_array::RecordBatch;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::tail::as_table;
use crate::tail_cache::within;
use crate::{ChunkAccess, Error, Reads, ScanOptions, StreamTable, TailCache, TailSource, Usage};

/// How records are laid out.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) partitions: u32,
    /// Batches of a partition.
    pub(crate) batches: usize,
    /// The most records of a batch.
    pub(crate) batch_rows_max: usize,
    pub(crate) value_bytes_max: usize,
    /// One batch in so many begins behind a gap; 0 for none.
    pub(crate) gap_every: u32,
    /// How many batches a chunk has.
    pub(crate) chunk_batches: usize,
    /// How many chunks each partition has.
    pub(crate) chunks: usize,
    pub(crate) encode: EncodeOptions,
}

impl Default for Shape {
    fn default() -> Self {
        let encode = EncodeOptions {
            row_group_bytes_max: 8 << 10,
            page_bytes: 1 << 10,
            page_rows_max: 16,
            ..EncodeOptions::default()
        };
        Self {
            partitions: 3,
            batches: 30,
            batch_rows_max: 12,
            value_bytes_max: 120,
            gap_every: 4,
            chunk_batches: 6,
            chunks: 3,
            encode,
        }
    }
}

/// One partition, whole.
#[derive(Debug)]
struct Stored {
    batches: Vec<(Batch, Timestamp)>,
    chunks: Vec<ChunkMeta>,
    /// The end of its chunks.
    tiered: Offset,
    /// Where cuts may end: behind each batch.
    ends: Vec<Offset>,
    rows: RecordBatch,
}

/// A stream, whole.
#[derive(Debug)]
pub(crate) struct TestStream {
    pub(crate) store: TierStore,
    pub(crate) id: StreamId,
    partitions: Vec<Stored>,
    /// How often the tail was asked for.
    pub(crate) tail_reads: Arc<AtomicUsize>,
}

/// A cut through it, for each partition `(start, end)`.
pub(crate) type Cut = Vec<(Offset, Offset)>;

impl TestStream {
    pub(crate) async fn new(store: TierStore, shape: &Shape, random: &mut StdRng) -> Self {
        let id = StreamId::from_bytes(random.random());
        let mut partitions = Vec::new();
        for index in 0..shape.partitions {
            let partition = Partition::new(id, PartitionIndex(index));
            partitions.push(Stored::new(&store, partition, shape, random).await);
        }
        Self { store, id, partitions, tail_reads: Arc::default() }
    }

    /// Everything.
    pub(crate) fn whole(&self) -> Cut {
        let end = |stored: &Stored| stored.ends.last().copied().unwrap_or(Offset::ZERO);
        self.partitions.iter().map(|stored| (Offset::ZERO, end(stored))).collect()
    }

    /// Chunks only.
    pub(crate) fn tiered(&self) -> Cut {
        self.partitions.iter().map(|stored| (Offset::ZERO, stored.tiered)).collect()
    }

    /// From anywhere to behind any batch.
    pub(crate) fn random_cut(&self, random: &mut StdRng) -> Cut {
        let each = self.partitions.iter().map(|stored| {
            let end = stored.ends[random.random_range(0..stored.ends.len())];
            let start = match random.random_bool(0.4) {
                true => Offset(random.random_range(0..=end.0)),
                false => Offset::ZERO,
            };
            (start, end)
        });
        each.collect()
    }

    /// What the server would answer for the cut.
    pub(crate) fn describe(&self, cut: &Cut) -> Table {
        let partitions =
            self.partitions.iter().zip(cut).enumerate().map(|(index, (stored, cut))| {
                let (start, end) = *cut;
                TablePartition {
                    partition: Partition::new(self.id, PartitionIndex(index as u32)),
                    start,
                    tiered: stored.tiered.min(end),
                    end,
                    tail_bytes: 1000,
                    chunks: stored.chunks.clone(),
                }
            });
        Table {
            name: StreamName::new("s").unwrap(),
            id: self.id,
            config: StreamConfig::default(),
            partitions: partitions.collect(),
        }
    }

    /// What a question reads through, with caches of its own.
    pub(crate) fn reads(&self, cut: &Cut) -> Reads {
        Reads {
            chunks: ChunkAccess::new(self.store.clone(), 8 << 20),
            tail_cache: TailCache::new(8 << 20),
            tail: self.tail(cut),
            usage: Arc::default(),
        }
    }

    /// The tail of a cut, as its question asks for it.
    pub(crate) fn tail(&self, cut: &Cut) -> Arc<dyn TailSource> {
        let batches = self.partitions.iter().map(|stored| stored.batches.clone()).collect();
        Arc::new(TestTail { batches, cut: cut.clone(), reads: self.tail_reads.clone() })
    }

    pub(crate) fn table(&self, cut: &Cut, reads: Reads) -> Arc<StreamTable> {
        let options = ScanOptions { tail_read_bytes: 700, ..ScanOptions::default() };
        Arc::new(StreamTable::new(&self.describe(cut), reads, options))
    }

    /// The records of a cut, plain.
    pub(crate) fn rows(&self, cut: &Cut) -> Vec<RecordBatch> {
        let each = self.partitions.iter().zip(cut);
        each.map(|(stored, (start, end))| within(&stored.rows, *start, *end)).collect()
    }

    pub(crate) fn usage(&self) -> Arc<Usage> {
        Arc::default()
    }
}

impl Stored {
    async fn new(
        store: &TierStore,
        partition: Partition,
        shape: &Shape,
        random: &mut StdRng,
    ) -> Self {
        let batches = batches(shape, random);
        let ends: Vec<Offset> =
            batches.iter().map(|(batch, _)| batch.header().next_offset()).collect();
        let mut chunks = Vec::new();
        let mut tiered = Offset::ZERO;
        for number in 0..shape.chunks {
            let from = number * shape.chunk_batches;
            let part: Vec<_> = batches.iter().skip(from).take(shape.chunk_batches).collect();
            let Some((last, _)) = part.last() else { break };
            let next = last.header().next_offset();
            chunks.push(chunk(store, partition, tiered..next, &part, shape, random).await);
            tiered = next;
        }
        let each = batches.iter().map(|(batch, appended)| (batch, *appended));
        let rows = Rows::from_batches(partition.index, each, 1 << 30).unwrap();
        let rows = as_table(rows.record_batch()).unwrap();
        Self { batches, chunks, tiered, ends, rows }
    }
}

fn batches(shape: &Shape, random: &mut StdRng) -> Vec<(Batch, Timestamp)> {
    let mut at = Offset::ZERO;
    let mut time = 1_700_000_000_000;
    let mut all = Vec::new();
    for _ in 0..shape.batches {
        if shape.gap_every > 0 && random.random_ratio(1, shape.gap_every) {
            at = at.plus(random.random_range(1..20));
        }
        let mut builder = BatchBuilder::new(at, Epoch(1));
        for _ in 0..random.random_range(1..=shape.batch_rows_max) {
            time += random.random_range(0..1000);
            let key = format!("key-{}", random.random_range(0..8));
            let key = random.random_bool(0.8).then_some(key);
            let mut value = format!("{{\"n\":{}}}", random.random_range(0..100)).into_bytes();
            value.extend(
                (0..random.random_range(0..=shape.value_bytes_max))
                    .map(|_| random.random_range(b'a'..=b'z')),
            );
            let header = Header { key: Bytes::from_static(b"h"), value: None };
            let headers = if random.random_bool(0.2) { vec![header] } else { Vec::new() };
            let value = random.random_bool(0.9).then_some(value);
            let timestamp = Timestamp(time - random.random_range(0..3000));
            builder.push(
                timestamp,
                key.as_ref().map(|key| key.as_bytes()),
                &headers,
                value.as_deref(),
            );
        }
        let batch = builder.finish();
        at = batch.header().next_offset();
        all.push((batch, Timestamp(time)));
    }
    all
}

async fn chunk(
    store: &TierStore,
    partition: Partition,
    range: std::ops::Range<Offset>,
    batches: &[&(Batch, Timestamp)],
    shape: &Shape,
    random: &mut StdRng,
) -> ChunkMeta {
    let spec = ChunkSpec {
        tenant: TenantName::default_tenant(),
        stream: StreamName::new("s").unwrap(),
        stream_id: partition.stream,
        partition: partition.index,
        base: range.start,
        next: range.end,
        epochs: vec![(Epoch(1), range.start)],
        generation: 0,
        replaces: Vec::new(),
        schema_version: 0,
        chunk_id: ChunkId::from_bytes(random.random()),
        timestamp_type: TimestampType::Create,
        compacted: Vec::new(),
    };
    let mut encoder = ChunkEncoder::new(spec.clone(), shape.encode.clone()).unwrap();
    for (batch, appended) in batches {
        encoder.push_batch(batch, *appended).unwrap();
    }
    let encoded = encoder.finish().unwrap();
    let object_path = spec.object_path();
    store.put_new(&object_path, encoded.bytes.clone()).await.unwrap();
    ChunkMeta {
        id: spec.chunk_id,
        partition,
        base: range.start,
        next: range.end,
        object_path,
        object_bytes: encoded.bytes.len() as u64,
        checksum: encoded.checksum.to_string(),
        records: encoded.stats.records,
        raw_bytes: encoded.stats.raw_bytes,
        min_timestamp: encoded.stats.min_timestamp,
        max_timestamp: encoded.stats.max_timestamp,
        max_appended: encoded.stats.max_appended,
        epochs: spec.epochs,
        generation: 0,
        index_bytes: None,
        schema_version: 0,
        unfit: None,
        timestamp_type: TimestampType::Create,
        index_path: None,
        key_id: None,
    }
}

/// Answers as the server does, from memory.
#[derive(Debug)]
struct TestTail {
    batches: Vec<Vec<(Batch, Timestamp)>>,
    cut: Cut,
    reads: Arc<AtomicUsize>,
}

#[async_trait]
impl TailSource for TestTail {
    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        bytes_max: u64,
    ) -> Result<(TailPart, Bytes), Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let index = partition.index.0 as usize;
        let (Some(batches), Some((_, end))) = (self.batches.get(index), self.cut.get(index)) else {
            let why = "no such partition".to_owned();
            return Err(Error::Tail { partition, from, kind: ErrorKind::NotFound, why });
        };
        let mut bytes = BytesMut::new();
        let mut appended = Vec::new();
        let mut next = *end;
        for (batch, time) in batches {
            let header = batch.header();
            if header.next_offset() <= from || header.base_offset >= *end {
                continue;
            }
            if !bytes.is_empty() && bytes.len() + batch.bytes().len() > bytes_max as usize {
                next = header.base_offset;
                break;
            }
            bytes.extend_from_slice(batch.bytes());
            appended.push(*time);
        }
        Ok((TailPart { form: TailForm::Batches, appended, next }, bytes.freeze()))
    }
}

//! A stream for tests: its records as chunks in a store, as a tail that is
//! asked for, and as plain rows to compare with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aquifer_chunk::{ChunkEncoder, ChunkSpec, EncodeOptions, FieldWalk, Rows};
use aquifer_env::TierStore;
use aquifer_query::wire::{Table, TablePartition, TailForm, TailPart};
use aquifer_stream::ChunkMeta;
use aquifer_testkit::rand::RngExt;
use aquifer_testkit::rand::rngs::StdRng;
use aquifer_types::{
    Batch, BatchBuilder, ChunkId, Epoch, ErrorKind, Header, Offset, Partition, PartitionIndex,
    StreamConfig, StreamId, StreamName, StreamSchema, TenantName, Timestamp, TimestampType,
};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::fields::{Columns, shred};
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
    /// What the records are.
    pub(crate) values: Values,
}

/// What a stream's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// Not JSON; chunks have no columns of fields.
    Words,
    /// JSON of all kinds, and what is none. The first chunk of a partition has
    /// no columns of fields, each of the others those that were found until
    /// then.
    Any,
    /// Text, and what begins as an object and is no JSON, in chunks that follow a
    /// schema without fields.
    Broken,
    /// JSON objects in which everything fits, in chunks that have columns, with
    /// a number that grows within an object.
    Regular,
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
            values: Values::Words,
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
    pub(crate) schema: StreamSchema,
    partitions: Vec<Stored>,
    /// How often the tail was asked for.
    pub(crate) tail_reads: Arc<AtomicUsize>,
}

/// A cut through it, for each partition `(start, end)`.
pub(crate) type Cut = Vec<(Offset, Offset)>;

impl TestStream {
    pub(crate) async fn new(store: TierStore, shape: &Shape, random: &mut StdRng) -> Self {
        let id = StreamId::from_bytes(random.random());
        let mut schema = StreamSchema::default();
        let mut partitions = Vec::new();
        for index in 0..shape.partitions {
            let partition = Partition::new(id, PartitionIndex(index));
            partitions.push(Stored::new(&store, partition, shape, &mut schema, random).await);
        }
        Self { store, id, schema, partitions, tail_reads: Arc::default() }
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
            schema: self.schema.clone(),
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

    /// The columns of its table.
    pub(crate) fn columns(&self) -> SchemaRef {
        Columns::new(self.schema.clone()).schema().clone()
    }

    /// The records of a cut, plain.
    pub(crate) fn rows(&self, cut: &Cut) -> Vec<RecordBatch> {
        let each = self.partitions.iter().zip(cut);
        each.map(|(stored, (start, end))| within(&stored.rows, *start, *end))
            .map(|rows| self.with_fields(&rows))
            .collect()
    }

    fn with_fields(&self, rows: &RecordBatch) -> RecordBatch {
        let fields = shred(&self.schema, rows.column_by_name("_value").unwrap()).unwrap();
        let columns = self.columns();
        let each = columns.fields().iter().map(|field| {
            let of_value = fields.iter().find(|(of, _)| of.name() == field.name());
            let fixed = || rows.column_by_name(field.name()).unwrap();
            of_value.map_or_else(fixed, |(_, column)| column).clone()
        });
        RecordBatch::try_new(columns.clone(), each.collect()).unwrap()
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
        schema: &mut StreamSchema,
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
            let is_shredded = match shape.values {
                Values::Words => false,
                Values::Any => number > 0,
                Values::Broken | Values::Regular => true,
            };
            if is_shredded {
                *schema = extended(schema, &part);
            }
            let under = is_shredded.then_some(&*schema);
            chunks.push(chunk(store, partition, tiered..next, &part, shape, under, random).await);
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
            let value = value(shape, time - 1_700_000_000_000, random);
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

/// The schema with what these batches have.
fn extended(schema: &StreamSchema, batches: &[&(Batch, Timestamp)]) -> StreamSchema {
    let mut walk = FieldWalk::under(schema);
    for (batch, _) in batches {
        for record in batch.to_records(1 << 30).unwrap() {
            walk.look(record.value.as_deref());
        }
    }
    walk.extend(schema)
}

fn value(shape: &Shape, time: i64, random: &mut StdRng) -> Vec<u8> {
    let filler = |random: &mut StdRng| -> String {
        let count = random.random_range(0..=shape.value_bytes_max);
        (0..count).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect()
    };
    match shape.values {
        Values::Words => {
            format!("{{\"n\":{}}}{}", random.random_range(0..100), filler(random)).into_bytes()
        }
        Values::Any => any_value(random),
        Values::Broken => {
            let all = ["{\"n\":1", "{\"name\":\"ann\",\"n\":7} and more", "no json", "[{\"n\":1}]"];
            all[random.random_range(0..all.len())].into()
        }
        Values::Regular => {
            let (verb, filler) = (["get", "put"][random.random_range(0..2)], filler(random));
            let login = random.random_range(0..50);
            format!(
                r#"{{"verb":"{verb}","size":{time},"actor":{{"at":{time},"login":"user-{login}",
                "about":"{filler}"}},"filler":"{filler}"}}"#
            )
            .into_bytes()
        }
    }
}

/// An object with a few fields, most of them of the kind that they mostly are;
/// or something else.
fn any_value(random: &mut StdRng) -> Vec<u8> {
    const ODD: &[&str] = &[
        "no json",
        "[1,{\"n\":2}]",
        "12",
        "\"text\"",
        "{",
        "{\"n\":1",
        "{\"n\":1} and more",
        "{\"n\":01}",
        "{\"n\":1,}",
        "{}",
        "null",
        "",
        " \n{\"n\": 7 }\t",
        "{\"\\u006e\":5,\"name\":\"by another spelling\"}",
        "{\"user\":{\"id\":1},\"user\":{\"id\":2,\"login\":\"b\"}}",
        "{\"N\":1,\"Name\":\"x\",\"user\":{\"ID\":3}}",
    ];
    if random.random_bool(0.1) {
        return ODD[random.random_range(0..ODD.len())].into();
    }
    if random.random_bool(0.02) {
        return b"{\"name\":\"\xff\",\"n\":1}".to_vec();
    }
    let mut fields = Vec::new();
    for (name, usual) in [
        ("n", &["1", "-5", "0", "42", "9007199254740993", "-9223372036854775808"][..]),
        ("f", &["1.5", "-0.25", "3", "1e3", "-0", "0.1"]),
        (
            "name",
            &["\"ann\"", "\"\"", "\"5\"", "\"a\\\"b\\u00e4\"", "\"\\ud83d\\ude00\"", "\"true\""],
        ),
        ("ok", &["true", "false"]),
        ("user", &[]),
        ("late", &["7", "8"]),
    ] {
        if random.random_bool(0.2) || (name == "late" && random.random_bool(0.8)) {
            continue;
        }
        let mut written = match usual {
            [] => user(random),
            usual => usual[random.random_range(0..usual.len())].to_owned(),
        };
        if random.random_bool(0.08) {
            written = unusual(random);
        }
        fields.push(format!("\"{name}\":{written}"));
        if random.random_bool(0.02) {
            fields.push(format!("\"{name}\":{}", unusual(random)));
        }
    }
    format!("{{{}}}", fields.join(",")).into_bytes()
}

fn user(random: &mut StdRng) -> String {
    let id = random.random_range(0..9);
    let deep = match random.random_range(0..4) {
        0 => String::new(),
        1 => ",\"deep\":null".to_owned(),
        2 => format!(",\"deep\":{{\"x\":{id}}}"),
        _ => ",\"deep\":{\"x\":\"many\",\"y\":[1]}".to_owned(),
    };
    format!("{{\"id\":{id},\"login\":\"user-{id}\"{deep}}}")
}

/// What a field does not expect.
fn unusual(random: &mut StdRng) -> String {
    const UNUSUAL: &[&str] = &[
        "null",
        "\"many\"",
        "\"12\"",
        "2.0",
        "2e2",
        "-0",
        "12345678901234567890",
        "1e400",
        "[1,2]",
        "{\"id\":\"x\"}",
        "{}",
        "true",
    ];
    UNUSUAL[random.random_range(0..UNUSUAL.len())].to_owned()
}

async fn chunk(
    store: &TierStore,
    partition: Partition,
    range: std::ops::Range<Offset>,
    batches: &[&(Batch, Timestamp)],
    shape: &Shape,
    under: Option<&StreamSchema>,
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
    let options = shape.encode.clone();
    let mut encoder = match under {
        None => ChunkEncoder::new(spec.clone(), options).unwrap(),
        Some(schema) => ChunkEncoder::shredding(spec.clone(), options, schema).unwrap(),
    };
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
        schema_version: under.map_or(0, StreamSchema::version),
        unfit: encoded.stats.unfit,
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

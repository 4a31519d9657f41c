//! Small chunks for tests.
#![allow(dead_code, clippy::unwrap_used, reason = "test code, of which each binary uses a part")]

use aquifer_chunk::{
    ChunkEncoder, ChunkReader, ChunkSpec, EncodeOptions, EncodedChunk, Error, FieldWalk,
    ReadOptions, Rows, TimestampType,
};
use aquifer_types::{
    Batch, BatchBuilder, ChunkId, Compression, Epoch, Header, Offset, PartitionIndex, Record,
    StreamId, StreamName, StreamSchema, TenantName, Timestamp,
};
use bytes::Bytes;
use futures::StreamExt;
use futures::executor::block_on;
use std::sync::Arc;

/// A chunk of `base` to `next` of a stream that does not matter.
pub(crate) fn spec(base: i64, next: i64) -> ChunkSpec {
    ChunkSpec {
        tenant: TenantName::default_tenant(),
        stream: StreamName::new("audit").unwrap(),
        stream_id: StreamId::from_bytes([7; 16]),
        partition: PartitionIndex(3),
        base: Offset(base),
        next: Offset(next),
        epochs: vec![(Epoch(2), Offset(base)), (Epoch(5), Offset(base + 4))],
        generation: 1,
        replaces: vec![ChunkId::from_bytes([8; 16]), ChunkId::from_bytes([9; 16])],
        schema_version: 1,
        chunk_id: ChunkId::from_bytes([10; 16]),
        timestamp_type: TimestampType::Create,
        compacted: Vec::new(),
    }
}

/// Small pages and row groups, so that few records cross all borders.
pub(crate) fn small_pages() -> EncodeOptions {
    EncodeOptions {
        row_group_bytes_max: 2048,
        page_bytes: 256,
        page_rows_max: 5,
        dictionary_bytes_max: 64,
        ..EncodeOptions::default()
    }
}

/// Batches of the records, one a run of `per_batch`.
pub(crate) fn batches(records: &[Record], per_batch: usize) -> Vec<Batch> {
    let codecs = [Compression::None, Compression::Zstd, Compression::Lz4];
    records
        .chunks(per_batch)
        .enumerate()
        .map(|(index, records)| {
            let base = records[0].offset;
            let mut builder =
                BatchBuilder::new(base, Epoch(1)).compression(codecs[index % codecs.len()]);
            for record in records {
                builder.push_at(
                    u32::try_from(record.offset.since(base)).unwrap(),
                    record.timestamp,
                    record.key.as_deref(),
                    &record.headers,
                    record.value.as_deref(),
                );
            }
            builder.finish()
        })
        .collect()
}

/// The records, encoded; batch `n` was appended at 1000 + `n`.
pub(crate) fn encode(
    spec: ChunkSpec,
    options: EncodeOptions,
    records: &[Record],
) -> Result<EncodedChunk, Error> {
    let mut encoder = ChunkEncoder::new(spec, options)?;
    for (index, batch) in batches(records, 7).iter().enumerate() {
        encoder.push_batch(batch, Timestamp(1000 + index as i64))?;
    }
    encoder.finish()
}

/// Records whose values are JSON of many kinds, with much that does not fit.
pub(crate) fn varied_json(count: i64) -> Vec<Record> {
    let mut records = varied(count);
    for (n, record) in records.iter_mut().enumerate() {
        let value = match n % 11 {
            0 => None,
            1 => Some(String::new()),
            2 => Some("no JSON at all".to_owned()),
            3 => Some(format!("{{\"n\":{n},\"cut\":")),
            4 => Some(format!("{{\"n\":\"{n}\",\"user\":{n}}}")),
            5 => Some(format!("{{\"n\":{n},\"n\":{n},\"user\":{{\"name\":\"\\u00e9{n}\"}}}}")),
            6 => Some(format!("[{{\"n\":{n}}}]")),
            _ => Some(format!(
                "{{\"n\":{n},\"ratio\":{n}.5,\"ok\":{},\"tags\":[{n}],\"user\":{{\"name\":\"user-{}\",\"id\":{n}}}}}",
                n % 2 == 0,
                n % 3
            )),
        };
        record.value = value.map(Bytes::from);
    }
    records
}

/// The schema that these records have.
pub(crate) fn schema_of(records: &[Record]) -> StreamSchema {
    let mut walk = FieldWalk::new();
    records.iter().for_each(|record| walk.look(record.value.as_deref()));
    walk.extend(&StreamSchema::default())
}

/// The records with the columns of a schema.
pub(crate) fn encode_with(
    spec: ChunkSpec,
    options: EncodeOptions,
    records: &[Record],
    schema: &StreamSchema,
) -> Result<EncodedChunk, Error> {
    let mut encoder = ChunkEncoder::shredding(spec, options, schema)?;
    for (index, batch) in batches(records, 7).iter().enumerate() {
        encoder.push_batch(batch, Timestamp(1000 + index as i64))?;
    }
    encoder.finish()
}

/// Opens the chunk.
pub(crate) fn open(bytes: &Bytes) -> Result<ChunkReader, Error> {
    block_on(ChunkReader::open(Arc::new(bytes.clone()), "test", None))
}

/// All rows from `from` on.
pub(crate) fn read_rows(
    reader: &ChunkReader,
    from: i64,
    options: ReadOptions,
) -> Result<Vec<Rows>, Error> {
    let rows: Vec<Result<Rows, Error>> = block_on(reader.read(Offset(from), options).collect());
    rows.into_iter().collect()
}

/// All records from `from` on.
pub(crate) fn read(
    reader: &ChunkReader,
    from: i64,
    options: ReadOptions,
) -> Result<Vec<Record>, Error> {
    Ok(read_rows(reader, from, options)?.iter().flat_map(Rows::records).collect())
}

/// Records with every kind of null and empty, and gaps between offsets.
pub(crate) fn varied(count: i64) -> Vec<Record> {
    let bytes = |text: String| Some(Bytes::from(text));
    (0..count)
        .map(|n| Record {
            offset: Offset(100 + n + n / 5 * 3),
            timestamp: Timestamp(match n % 6 {
                0 => -1,
                1 => 1_700_000_000_000 + n * 7,
                2 => i64::MAX / 1000,
                3 => -62_135_596_800_000,
                _ => 1_700_000_000_000 - n * 13,
            }),
            key: match n % 4 {
                0 => None,
                1 => Some(Bytes::new()),
                2 => bytes(format!("key-{n}")),
                _ => Some(Bytes::from(vec![0xff, n as u8])),
            },
            headers: (0..n % 3)
                .map(|at| Header {
                    key: Bytes::from(format!("h{at}")),
                    value: [None, Some(Bytes::new()), bytes(format!("v{n}"))][(n % 7 % 3) as usize]
                        .clone(),
                })
                .collect(),
            value: match n % 5 {
                0 => None,
                1 => Some(Bytes::new()),
                _ => bytes(format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat((n % 40) as usize))),
            },
        })
        .collect()
}

//! What the measuring programs beside this have in common: chunks of real data.

use aquifer_chunk::{ChunkEncoder, ChunkSpec, EncodeOptions, EncodedChunk, TimestampType};
use aquifer_testkit::rand::rngs::StdRng;
use aquifer_testkit::rand::{RngExt, SeedableRng};
use aquifer_testkit::{Multiplied, load_records};
use aquifer_types::{
    Batch, BatchBuilder, ChunkId, Epoch, Offset, PartitionIndex, StreamId, StreamName, TenantName,
    Timestamp,
};

/// Chunks of this many bytes of records, as tiering makes them by default.
const CHUNK_BYTES: usize = 64 << 20;
const BATCH_BYTES: usize = 256 << 10;

/// The data sets in a folder that have records, by name.
pub(crate) fn sets(folder: &str) -> Vec<(String, Vec<Vec<u8>>)> {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let of = |path: std::path::PathBuf| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), load_records(&path).unwrap())
    };
    entries.into_iter().map(of).filter(|(_, records)| !records.is_empty()).collect()
}

/// How long this thread has run: what others do on the machine counts less.
pub(crate) fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// Records of one data set, multiplied.
pub(crate) struct Volume {
    pub(crate) batches: Vec<Batch>,
    /// Their values, a line each.
    pub(crate) ndjson: Vec<u8>,
    pub(crate) records: usize,
    pub(crate) raw_bytes: usize,
}

/// About so many bytes of records.
pub(crate) fn multiply(records: &[Vec<u8>], bytes: usize) -> Volume {
    let mut random = StdRng::seed_from_u64(7);
    let mut volume = Volume { batches: Vec::new(), ndjson: Vec::new(), records: 0, raw_bytes: 0 };
    let mut builder = BatchBuilder::new(Offset(0), Epoch(1));
    let mut ms = 1_760_000_000_000_i64;
    for value in Multiplied::new(records, 7) {
        ms += random.random_range(0..20);
        let key = (volume.records.is_multiple_of(3))
            .then(|| format!("node-{}", random.random_range(0..200)));
        builder.push(Timestamp(ms), key.as_deref().map(str::as_bytes), &[], Some(&value));
        volume.ndjson.extend_from_slice(&value);
        volume.ndjson.push(b'\n');
        volume.records += 1;
        volume.raw_bytes += value.len() + key.map_or(0, |key| key.len());
        if builder.bytes() >= BATCH_BYTES {
            let next = volume.records as i64;
            let full = std::mem::replace(&mut builder, BatchBuilder::new(Offset(next), Epoch(1)));
            volume.batches.push(full.finish());
            if volume.raw_bytes >= bytes {
                break;
            }
        }
    }
    volume
}

/// The chunks that tiering would make of them, without columns of fields.
pub(crate) fn encode(volume: &Volume, options: &EncodeOptions) -> Vec<EncodedChunk> {
    encode_by(volume, |spec| ChunkEncoder::new(spec, options.clone()).unwrap())
}

/// The chunks that tiering would make of them by encoders of these.
pub(crate) fn encode_by(
    volume: &Volume,
    encoder: impl Fn(ChunkSpec) -> ChunkEncoder,
) -> Vec<EncodedChunk> {
    let mut chunks = Vec::new();
    let mut batches = volume.batches.iter().peekable();
    while let Some(first) = batches.peek() {
        let base = first.header().base_offset;
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(batch) = batches.next_if(|_| bytes < CHUNK_BYTES) {
            bytes += batch.bytes().len();
            taken.push(batch);
        }
        let next = taken.last().map_or(base, |batch| batch.header().next_offset());
        let spec = ChunkSpec {
            tenant: TenantName::default_tenant(),
            stream: StreamName::new("bench").unwrap(),
            stream_id: StreamId::from_bytes([1; 16]),
            partition: PartitionIndex(0),
            base,
            next,
            epochs: vec![(Epoch(1), base)],
            generation: 0,
            replaces: Vec::new(),
            schema_version: 0,
            chunk_id: ChunkId::from_bytes([2; 16]),
            timestamp_type: TimestampType::Create,
            compacted: Vec::new(),
        };
        let mut encoder = encoder(spec);
        for batch in taken {
            encoder.push_batch(batch, batch.header().max_timestamp).unwrap();
        }
        chunks.push(encoder.finish().unwrap());
    }
    chunks
}

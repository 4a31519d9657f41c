//! The key-value metadata: what a chunk says about itself, as text.

use std::collections::BTreeMap;
use std::str::FromStr;

use aquifer_types::{
    ChunkId, Epoch, Offset, PartitionIndex, StreamId, StreamName, StreamSchema, TenantName,
    Timestamp,
};
use parquet::file::metadata::KeyValue;
use uuid::Uuid;

use crate::{ChunkSpec, ChunkStats, TimestampType};

/// The version of the format that is written, and the only one that is read.
pub(crate) const FORMAT_VERSION: u32 = 1;

const FORMAT: &str = "aquifer.format_version";
const TENANT: &str = "aquifer.tenant";
const STREAM: &str = "aquifer.stream";
const STREAM_ID: &str = "aquifer.stream_id";
const PARTITION: &str = "aquifer.partition";
const CHUNK_ID: &str = "aquifer.chunk_id";
const BASE: &str = "aquifer.base_offset";
const NEXT: &str = "aquifer.next_offset";
const EPOCHS: &str = "aquifer.epochs";
const GENERATION: &str = "aquifer.generation";
const REPLACES: &str = "aquifer.replaces";
const SCHEMA_VERSION: &str = "aquifer.schema_version";
const TIMESTAMP_TYPE: &str = "aquifer.timestamp_type";
const RECORDS: &str = "aquifer.records";
const RAW_BYTES: &str = "aquifer.raw_bytes";
const MIN_TIMESTAMP: &str = "aquifer.min_timestamp";
const MAX_TIMESTAMP: &str = "aquifer.max_timestamp";
const MAX_APPENDED: &str = "aquifer.max_appended";
/// Absent where nothing was compacted by key.
const COMPACTED: &str = "aquifer.compacted";
/// Absent where values were not looked at.
const SCHEMA: &str = "aquifer.schema";
const UNFIT: &str = "aquifer.unfit";
const KEY_ID: &str = "aquifer.key_id";

/// No schema has more bytes.
const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// The metadata of a chunk, but for the checksums.
pub(crate) fn encode(
    spec: &ChunkSpec,
    stats: &ChunkStats,
    schema: Option<&StreamSchema>,
) -> Vec<KeyValue> {
    let list = |items: Vec<String>| items.join(",");
    let mut pairs = vec![
        (FORMAT, FORMAT_VERSION.to_string()),
        (TENANT, spec.tenant.to_string()),
        (STREAM, spec.stream.to_string()),
        (STREAM_ID, spec.stream_id.to_string()),
        (PARTITION, spec.partition.to_string()),
        (CHUNK_ID, spec.chunk_id.to_string()),
        (BASE, spec.base.to_string()),
        (NEXT, spec.next.to_string()),
        (EPOCHS, list(spec.epochs.iter().map(|(epoch, from)| format!("{epoch}:{from}")).collect())),
        (GENERATION, spec.generation.to_string()),
        (REPLACES, list(spec.replaces.iter().map(ChunkId::to_string).collect())),
        (SCHEMA_VERSION, spec.schema_version.to_string()),
        (
            TIMESTAMP_TYPE,
            match spec.timestamp_type {
                TimestampType::Create => "create",
                TimestampType::Append => "append",
            }
            .to_owned(),
        ),
        (RECORDS, stats.records.to_string()),
        (RAW_BYTES, stats.raw_bytes.to_string()),
    ];
    if !spec.compacted.is_empty() {
        let items = spec.compacted.iter().map(|(next, at)| format!("{next}:{at}"));
        pairs.push((COMPACTED, list(items.collect())));
    }
    for (key, time) in [
        (MIN_TIMESTAMP, stats.min_timestamp),
        (MAX_TIMESTAMP, stats.max_timestamp),
        (MAX_APPENDED, stats.max_appended),
    ] {
        pairs.extend(time.map(|time| (key, time.to_string())));
    }
    pairs.extend(stats.unfit.map(|unfit| (UNFIT, unfit.to_string())));
    pairs.extend(schema.map(|schema| (SCHEMA, schema.to_json())));
    pairs.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect()
}

/// Why metadata cannot be used.
pub(crate) enum Refusal {
    /// Another version wrote it.
    Unsupported(String),
    /// It is not what any version writes.
    Damaged(String),
}

/// The metadata of a chunk.
pub(crate) struct Metadata<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Metadata<'a> {
    pub(crate) fn new(pairs: &'a [KeyValue]) -> Self {
        Self(
            pairs
                .iter()
                .filter_map(|pair| Some((pair.key.as_str(), pair.value.as_deref()?)))
                .collect(),
        )
    }

    pub(crate) fn get(&self, key: &str) -> Result<&'a str, Refusal> {
        self.0
            .get(key)
            .copied()
            .ok_or_else(|| Refusal::Damaged(format!("its metadata has no {key}")))
    }

    fn parse<T: FromStr>(&self, key: &str) -> Result<T, Refusal> {
        let text = self.get(key)?;
        text.parse().map_err(|_| Refusal::Damaged(format!("its metadata has {key} = '{text}'")))
    }

    fn parse_list<T>(
        &self,
        key: &str,
        item: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        let text = self.get(key)?;
        if text.is_empty() {
            return Ok(Vec::new());
        }
        text.split(',').map(item).collect::<Option<_>>().ok_or_else(|| {
            let shown: String = text.chars().take(200).collect();
            Refusal::Damaged(format!("its metadata has {key} = '{shown}'"))
        })
    }

    fn parse_time(&self, key: &str) -> Result<Option<Timestamp>, Refusal> {
        if !self.0.contains_key(key) {
            return Ok(None);
        }
        self.parse(key).map(|ms| Some(Timestamp(ms)))
    }

    pub(crate) fn decode(&self) -> Result<(ChunkSpec, ChunkStats), Refusal> {
        let version: u32 = self.parse(FORMAT)?;
        if version != FORMAT_VERSION {
            return Err(Refusal::Unsupported(format!(
                "it has format version {version}, this program knows {FORMAT_VERSION}"
            )));
        }
        if self.0.get(KEY_ID).is_some_and(|id| !id.is_empty()) {
            return Err(Refusal::Unsupported("it is encrypted".to_owned()));
        }
        let spec = ChunkSpec {
            tenant: self.parse::<TenantName>(TENANT)?,
            stream: self.parse::<StreamName>(STREAM)?,
            stream_id: StreamId(self.parse::<Uuid>(STREAM_ID)?),
            partition: PartitionIndex(self.parse(PARTITION)?),
            base: Offset(self.parse(BASE)?),
            next: Offset(self.parse(NEXT)?),
            epochs: self.parse_list(EPOCHS, |item| {
                let (epoch, from) = item.split_once(':')?;
                Some((Epoch(epoch.parse().ok()?), Offset(from.parse().ok()?)))
            })?,
            generation: self.parse(GENERATION)?,
            replaces: self.parse_list(REPLACES, |item| item.parse().map(ChunkId).ok())?,
            schema_version: self.parse(SCHEMA_VERSION)?,
            chunk_id: ChunkId(self.parse::<Uuid>(CHUNK_ID)?),
            timestamp_type: match self.get(TIMESTAMP_TYPE)? {
                "create" => TimestampType::Create,
                "append" => TimestampType::Append,
                other => {
                    return Err(Refusal::Unsupported(format!("its timestamp type is '{other}'")));
                }
            },
            compacted: match self.0.contains_key(COMPACTED) {
                false => Vec::new(),
                true => self.parse_list(COMPACTED, |item| {
                    let (next, at) = item.split_once(':')?;
                    Some((Offset(next.parse().ok()?), Timestamp(at.parse().ok()?)))
                })?,
            },
        };
        let is_within = |(next, _): &(Offset, Timestamp)| (spec.base..=spec.next).contains(next);
        if !spec.compacted.iter().all(is_within)
            || !spec.compacted.is_sorted_by_key(|(next, _)| *next)
        {
            return Err(Refusal::Damaged(format!(
                "its metadata has {COMPACTED} = '{}'",
                self.get(COMPACTED)?.chars().take(200).collect::<String>()
            )));
        }
        if spec.base < Offset::ZERO || spec.next < spec.base {
            return Err(Refusal::Damaged(format!(
                "its covered range is {} to {}",
                spec.base, spec.next
            )));
        }
        let stats = ChunkStats {
            records: self.parse(RECORDS)?,
            raw_bytes: self.parse(RAW_BYTES)?,
            min_timestamp: self.parse_time(MIN_TIMESTAMP)?,
            max_timestamp: self.parse_time(MAX_TIMESTAMP)?,
            max_appended: self.parse_time(MAX_APPENDED)?,
            unfit: match self.0.contains_key(UNFIT) {
                false => None,
                true => Some(self.parse(UNFIT)?),
            },
        };
        Ok((spec, stats))
    }

    /// The schema whose columns the chunk has, where it has any.
    pub(crate) fn schema(&self, spec: &ChunkSpec) -> Result<Option<StreamSchema>, Refusal> {
        let Some(text) = self.0.get(SCHEMA) else { return Ok(None) };
        let wrong = |why: String| Refusal::Damaged(format!("its metadata has an {SCHEMA}: {why}"));
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(wrong(format!("it has {} bytes", text.len())));
        }
        let schema = StreamSchema::from_json(text).map_err(|error| wrong(error.to_string()))?;
        if schema.version() != spec.schema_version {
            let (is, should) = (schema.version(), spec.schema_version);
            return Err(wrong(format!("it is version {is}, the chunk says {should}")));
        }
        Ok(Some(schema))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(compacted: Vec<(Offset, Timestamp)>) -> Option<ChunkSpec> {
        Some(ChunkSpec {
            tenant: TenantName::default_tenant(),
            stream: StreamName::new("s").ok()?,
            stream_id: StreamId::from_bytes([1; 16]),
            partition: PartitionIndex(0),
            base: Offset(10),
            next: Offset(20),
            epochs: vec![(Epoch(1), Offset(10))],
            generation: 1,
            replaces: vec![ChunkId::from_bytes([2; 16])],
            schema_version: 0,
            chunk_id: ChunkId::from_bytes([3; 16]),
            timestamp_type: TimestampType::Create,
            compacted,
        })
    }

    #[test]
    fn how_far_a_chunk_is_compacted_is_read_back_or_refused() {
        let check = |compacted: &[(i64, i64)], is_sound: bool| {
            let marks = compacted.iter().map(|(next, at)| (Offset(*next), Timestamp(*at)));
            let spec = spec(marks.collect()).unwrap();
            let pairs = encode(&spec, &ChunkStats::default(), None);
            match Metadata::new(&pairs).decode() {
                Ok((decoded, _)) => assert!(is_sound && decoded == spec, "{compacted:?}"),
                Err(Refusal::Damaged(why)) => assert!(!is_sound, "{compacted:?}: {why}"),
                Err(Refusal::Unsupported(why)) => panic!("{compacted:?}: {why}"),
            }
        };
        check(&[], true);
        check(&[(20, 5)], true);
        check(&[(12, 5), (15, 4)], true);
        check(&[(15, 5), (12, 6)], false);
        check(&[(21, 5)], false);
        check(&[(9, 5)], false);
    }
}

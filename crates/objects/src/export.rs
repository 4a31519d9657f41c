//! Records as objects: a range of each partition, cut into objects of bounded
//! size, under names that say what they hold.
//!
//! `<address>/<stream>/p<partition>/<first offset>-<next offset>.<format>`, the
//! offsets in 20 digits. An object is put whole, under a name that was not used
//! before, and then noted in the job. After a crash between the two the same
//! records become the same bytes under the same name, which are found to be
//! there. What already lies under the name and is something else is not touched:
//! the export fails.

use std::sync::Arc;
use std::time::Duration;

use aquifer_env::store::{StoreErrorKind, TierStore};
use aquifer_env::tasks;
use aquifer_stream::{Form, Isolation, Position, ReadRequest};
use aquifer_types::{
    Offset, PartitionIndex, Record, StreamName, StreamPath, TenantName, Timestamp,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::address::{is_within, open_destination, shown};
use crate::format::write::{ExportFormat, encode};
use crate::job::{ExportCut, Job, JobDocument, JobState};
use crate::objects::Shared;

/// Bytes of records that are read at a time.
const READ_BYTES: usize = 4 << 20;
/// The most records of an object: their bookkeeping takes memory too.
const RECORDS_MAX: usize = 1_000_000;
const OBJECT_BYTES_DEFAULT: usize = 64 << 20;
const OBJECT_BYTES_MIN: usize = 4 << 10;

/// How an object is compressed as a whole; Parquet and Avro compress inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportCompression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// A place in a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportBound {
    /// In every partition, this offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// In every partition, the first record with this time or a later one: in ms,
    /// given as such or in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "time_of")]
    pub time: Option<i64>,
}

fn time_of<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a time is a number of ms or an RFC 3339 text")]
    enum Given {
        Ms(i64),
        Text(String),
    }
    match Option::<Given>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Given::Ms(ms)) => Ok(Some(ms)),
        Some(Given::Text(text)) => match chrono::DateTime::parse_from_rfc3339(&text) {
            Ok(time) => Ok(Some(time.timestamp_millis())),
            Err(_) => Err(serde::de::Error::custom(
                "a time is a number of ms or RFC 3339, such as 2026-03-01T12:00:00Z",
            )),
        },
    }
}

/// Which records become which objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportSpec {
    /// The stream.
    pub stream: StreamName,
    /// Where the objects go: a folder.
    pub url: String,
    /// What they are.
    pub format: ExportFormat,
    /// How they are compressed.
    #[serde(default)]
    pub compression: ExportCompression,
    /// The partitions; all where none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<u32>,
    /// Where to begin; with what is earliest where that is not said.
    #[serde(default)]
    pub from: ExportBound,
    /// Where to end, exclusive; with what is there now where that is not said.
    #[serde(default)]
    pub to: ExportBound,
    /// About how many bytes of records an object holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_bytes: Option<usize>,
}

impl ExportSpec {
    fn object_bytes(&self, shared: &Shared) -> usize {
        let wanted = self.object_bytes.unwrap_or(OBJECT_BYTES_DEFAULT);
        wanted.min(shared.options.export_bytes_max)
    }

    fn path(&self, tenant: &TenantName) -> StreamPath {
        StreamPath::new(tenant.clone(), self.stream.clone())
    }

    fn name(&self, partition: PartitionIndex, from: Offset, to: Offset) -> String {
        let compression = match (self.format, self.compression) {
            (ExportFormat::Parquet | ExportFormat::Avro, _) | (_, ExportCompression::None) => "",
            (_, ExportCompression::Gzip) => ".gz",
            (_, ExportCompression::Zstd) => ".zst",
        };
        format!(
            "{}/p{}/{:020}-{:020}.{}{compression}",
            self.stream,
            partition.get(),
            from.get(),
            to.get(),
            self.format.name()
        )
    }
}

/// Checks an export and says what it is to write: the range is that of now.
///
/// # Errors
/// [`Error::Invalid`], [`Error::NotAllowed`], [`Error::Store`].
pub(crate) async fn prepare(
    shared: &Shared,
    tenant: &TenantName,
    spec: &ExportSpec,
) -> Result<Vec<ExportCut>, Error> {
    for bound in [&spec.from, &spec.to] {
        if bound.offset.is_some() && bound.time.is_some() {
            return Err(Error::Invalid("a bound is an offset or a time, not both".into()));
        }
        if bound.offset.is_some_and(|offset| offset < 0) {
            return Err(Error::Invalid("an offset is negative, offsets begin at 0".into()));
        }
    }
    let limit = shared.options.export_bytes_max;
    if spec.object_bytes.is_some_and(|bytes| !(OBJECT_BYTES_MIN..=limit).contains(&bytes)) {
        return Err(Error::Invalid(format!(
            "object_bytes lies between {OBJECT_BYTES_MIN} and {limit} (objects.export_bytes_max)"
        )));
    }
    let (url, tier2) = (spec.url.clone(), shared.store.options().tier2_url());
    if tasks::run_blocking(move || is_within(&url, &tier2)).await {
        return Err(Error::Invalid(format!(
            "{} lies in tier 2, where only the server's own objects are",
            shown(&spec.url)
        )));
    }
    let path = spec.path(tenant);
    let stream = shared.store.stream(&path)?;
    let count = shared.store.stream_shape(&path)?.partitions;
    // This makes a directory: not for a stream that does not exist.
    open(shared, spec).await?;
    let partitions: Vec<PartitionIndex> = match spec.partitions.is_empty() {
        true => (0..count).map(PartitionIndex).collect(),
        false => spec.partitions.iter().copied().map(PartitionIndex).collect(),
    };
    let mut cut = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let offsets = stream.partition(partition)?.offsets();
        // An open transaction may begin below what is kept.
        let stable = offsets.stable.max(offsets.start);
        let resolve = async |bound: &ExportBound, otherwise: Offset| {
            let offset = match (bound.offset, bound.time) {
                (Some(offset), _) => Offset(offset),
                (None, Some(time)) => {
                    let at = Position::Time(Timestamp(time));
                    shared.store.resolve_position(&path, partition, at).await?
                }
                (None, None) => otherwise,
            };
            Ok::<Offset, Error>(offset.clamp(offsets.start, stable))
        };
        let next = resolve(&spec.from, offsets.start).await?;
        let end = resolve(&spec.to, stable).await?;
        if cut.iter().any(|before: &ExportCut| before.partition == partition) {
            return Err(Error::Invalid(format!("partition {partition} is named twice")));
        }
        if next < end {
            cut.push(ExportCut { partition, next, end });
        }
    }
    Ok(cut)
}

async fn open(shared: &Shared, spec: &ExportSpec) -> Result<TierStore, Error> {
    let (url, options) = (spec.url.clone(), shared.options.clone());
    tasks::run_blocking(move || open_destination(&url, &options)).await
}

/// Writes what is not written yet.
///
/// # Errors
/// [`Error::Objects`], [`Error::Store`]; [`Error::Stopped`].
pub(crate) async fn run(shared: &Arc<Shared>, job: &Job, spec: &ExportSpec) -> Result<(), Error> {
    let store = open(shared, spec).await?;
    loop {
        let document = job.document()?;
        let Some(cut) = document.cut.first().copied() else { return Ok(()) };
        if document.state != JobState::Running {
            return Ok(());
        }
        // The semaphore is never closed.
        let _permit = shared.running.acquire().await;
        let piece = read(shared, &job.key.tenant, spec, cut).await?;
        job.live.lock().object = Some(spec.name(cut.partition, cut.next, piece.next));
        let (records, next) = (piece.records.len() as u64, piece.next);
        let bytes = match piece.records.is_empty() {
            true => 0,
            false => write(&store, spec, cut, piece).await?,
        };
        let change = |document: &mut JobDocument| {
            let Some(first) = document.cut.first_mut() else { return };
            first.next = next;
            if first.next >= first.end {
                document.cut.remove(0);
            }
            document.objects += u64::from(records > 0);
            document.records += records;
            document.bytes += bytes;
        };
        job.change(change).await?;
        if records > 0 {
            shared.metrics.objects_exported.inc();
            shared.metrics.records_exported.inc_by(records);
        }
    }
}

/// The records of one object.
struct Piece {
    records: Vec<Record>,
    next: Offset,
}

/// Reads from the cut's next offset until an object is full. Where the object
/// ends depends on the records alone.
async fn read(
    shared: &Shared,
    tenant: &TenantName,
    spec: &ExportSpec,
    cut: ExportCut,
) -> Result<Piece, Error> {
    let object_bytes = spec.object_bytes(shared);
    let mut piece = Piece { records: Vec::new(), next: cut.next };
    let mut bytes = 0;
    let mut position = cut.next;
    while position < cut.end {
        let request = ReadRequest {
            path: spec.path(tenant),
            partition: cut.partition,
            from: Position::Offset(position),
            bytes_max: READ_BYTES.min(object_bytes),
            wait: Duration::ZERO,
            isolation: Isolation::Committed,
            form: Form::Records,
        };
        let answer = match shared.store.read(request).await {
            Ok(answer) => answer,
            Err(error) => match error.earliest() {
                // Retention was faster: what is gone cannot be written.
                Some(earliest) if earliest > position => {
                    position = earliest;
                    continue;
                }
                _ => return Err(error.into()),
            },
        };
        for record in answer.records()? {
            if record.offset >= cut.end {
                break;
            }
            let of_record = record.payload_bytes() + 32;
            let is_full = bytes + of_record > object_bytes || piece.records.len() >= RECORDS_MAX;
            if is_full && !piece.records.is_empty() {
                return Ok(piece);
            }
            bytes += of_record;
            piece.next = record.offset.plus(1);
            piece.records.push(record);
        }
        if answer.next_offset <= position {
            break;
        }
        position = answer.next_offset;
    }
    piece.next = cut.end;
    Ok(piece)
}

/// Puts one object; answers its length.
async fn write(
    store: &TierStore,
    spec: &ExportSpec,
    cut: ExportCut,
    piece: Piece,
) -> Result<u64, Error> {
    let name = spec.name(cut.partition, cut.next, piece.next);
    let (format, compression) = (spec.format, spec.compression);
    let partition = cut.partition;
    let encoded =
        tasks::run_blocking(move || encode(format, compression, partition, &piece.records)).await;
    let bytes = Bytes::from(encoded.map_err(Error::Invalid)?);
    let length = bytes.len() as u64;
    match store.put_new(&name, bytes.clone()).await {
        Ok(()) => Ok(length),
        Err(error) if error.kind == StoreErrorKind::AlreadyExists => {
            // An earlier try may have put it.
            let is_same = store.head(&name).await? == length && store.get(&name).await? == bytes;
            match is_same {
                true => Ok(length),
                false => Err(Error::Invalid(format!(
                    "{}/{name} exists and is something else",
                    shown(spec.url.trim_end_matches('/'))
                ))),
            }
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_objects_hold() {
        let check = |format, compression, expected: &str| {
            let spec = ExportSpec {
                stream: StreamName::new("audit").unwrap(),
                url: "file:///a".into(),
                format,
                compression,
                partitions: Vec::new(),
                from: ExportBound::default(),
                to: ExportBound::default(),
                object_bytes: None,
            };
            let name = spec.name(PartitionIndex(3), Offset(0), Offset(12));
            let (folder, file) = name.rsplit_once('/').unwrap();
            assert_eq!(folder, "audit/p3");
            assert_eq!(file, format!("{:020}-{:020}.{expected}", 0, 12));
        };
        check(ExportFormat::Records, ExportCompression::Zstd, "records.zst");
        check(ExportFormat::Ndjson, ExportCompression::Gzip, "ndjson.gz");
        check(ExportFormat::Csv, ExportCompression::None, "csv");
        check(ExportFormat::Parquet, ExportCompression::Gzip, "parquet");
        check(ExportFormat::Avro, ExportCompression::Zstd, "avro");
    }
}

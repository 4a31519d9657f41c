//! The names of chunks in tier 2.

use std::fmt;
use std::str::FromStr;

use aquifer_types::{ChunkId, Offset, PartitionIndex, StreamId, StreamName, TenantName};
use uuid::Uuid;

use crate::Error;

/// The name of a chunk below tier 2's root:
/// `<tenant>/<stream>-<stream id>/p<partition>/<base offset, 20 digits>-<chunk id>.parquet`.
/// Written by `Display`, read by `FromStr`, which accepts exactly what is
/// written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectName {
    /// The tenant that owns the stream.
    pub tenant: TenantName,
    /// The stream's name.
    pub stream: StreamName,
    /// The stream.
    pub stream_id: StreamId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset of the covered range.
    pub base: Offset,
    /// The chunk.
    pub chunk_id: ChunkId,
}

const UUID_CHARACTERS: usize = 36;
const OFFSET_DIGITS: usize = 20;

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, stream, stream_id, partition, base, chunk_id } = self;
        write!(f, "{tenant}/{stream}-{stream_id}/p{partition}/{:020}-{chunk_id}.parquet", base.0)
    }
}

impl FromStr for ObjectName {
    type Err = Error;

    fn from_str(path: &str) -> Result<Self, Error> {
        let wrong = |why| Error::Path { path: path.chars().take(200).collect(), why };
        let mut parts = path.split('/');
        let (Some(tenant), Some(stream), Some(partition), Some(file), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong("it does not have four parts"));
        };
        let tenant = TenantName::new(tenant).map_err(|_| wrong("its tenant is no tenant name"))?;
        let (stream, stream_id) =
            split_id(stream).ok_or_else(|| wrong("its stream has no stream id"))?;
        let stream = StreamName::new(stream).map_err(|_| wrong("its stream is no stream name"))?;
        let partition = partition
            .strip_prefix('p')
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| wrong("its partition is no number"))?;
        let (base, chunk_id) = file
            .strip_suffix(".parquet")
            .and_then(split_id)
            .ok_or_else(|| wrong("its file has no chunk id"))?;
        let base = (base.len() == OFFSET_DIGITS && base.bytes().all(|b| b.is_ascii_digit()))
            .then(|| base.parse().ok())
            .flatten()
            .ok_or_else(|| wrong("its base offset is no number of 20 digits"))?;
        let name = Self {
            tenant,
            stream,
            stream_id: StreamId(stream_id),
            partition: PartitionIndex(partition),
            base: Offset(base),
            chunk_id: ChunkId(chunk_id),
        };
        // Numbers and ids have other spellings, which nothing here writes.
        if name.to_string() != path {
            return Err(wrong("it is spelled otherwise than chunks are"));
        }
        Ok(name)
    }
}

/// The name of a chunk's search index: that of the chunk, with an id of its own and
/// `.index` in the place of `.parquet`:
/// `…/<base offset, 20 digits>-<chunk id>-<index id>.index`. So an index that is
/// built anew has a name that was never used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IndexName {
    /// The chunk.
    pub chunk: ObjectName,
    /// The index.
    pub id: Uuid,
}

const INDEX_SUFFIX: &str = ".index";
const CHUNK_SUFFIX: &str = ".parquet";

impl fmt::Display for IndexName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chunk = self.chunk.to_string();
        let stem = chunk.strip_suffix(CHUNK_SUFFIX).unwrap_or(&chunk);
        write!(f, "{stem}-{}{INDEX_SUFFIX}", self.id)
    }
}

impl FromStr for IndexName {
    type Err = Error;

    fn from_str(path: &str) -> Result<Self, Error> {
        let wrong = |why| Error::Path { path: path.chars().take(200).collect(), why };
        let (stem, id) = path
            .strip_suffix(INDEX_SUFFIX)
            .and_then(split_id)
            .ok_or_else(|| wrong("its file has no index id"))?;
        let name = Self { chunk: format!("{stem}{CHUNK_SUFFIX}").parse()?, id };
        if name.to_string() != path {
            return Err(wrong("it is spelled otherwise than indexes are"));
        }
        Ok(name)
    }
}

/// `<text>-<uuid>`.
fn split_id(part: &str) -> Option<(&str, Uuid)> {
    let at = part.len().checked_sub(UUID_CHARACTERS)?;
    let text = part.get(..at)?.strip_suffix('-')?;
    Some((text, Uuid::try_parse(part.get(at..)?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        let name = ObjectName {
            tenant: TenantName::default_tenant(),
            stream: StreamName::new("audit-k8s.1").unwrap(),
            stream_id: StreamId::from_bytes([0xab; 16]),
            partition: PartitionIndex(17),
            base: Offset(123),
            chunk_id: ChunkId::from_bytes([0x1c; 16]),
        };
        let path = "default/audit-k8s.1-abababab-abab-abab-abab-abababababab/p17/\
                    00000000000000000123-1c1c1c1c-1c1c-1c1c-1c1c-1c1c1c1c1c1c.parquet";
        assert_eq!(name.to_string(), path);
        assert_eq!(path.parse::<ObjectName>().unwrap(), name);
        let index = IndexName { chunk: name.clone(), id: Uuid::from_bytes([0x2d; 16]) };
        let index_path = path.replace(".parquet", "-2d2d2d2d-2d2d-2d2d-2d2d-2d2d2d2d2d2d.index");
        assert_eq!(index.to_string(), index_path);
        assert_eq!(index_path.parse::<IndexName>().unwrap(), index);
        assert!(index_path.parse::<ObjectName>().is_err());
        for wrong in [path, &index_path.replace("2d2d", "2D2D"), &path.replace("parquet", "index")]
        {
            assert!(wrong.parse::<IndexName>().is_err(), "{wrong}");
        }
        for wrong in [
            path.replace("p17", "p017"),
            path.replace("p17", "p+7"),
            path.replace("p17", "17"),
            path.replace("abab", "ABAB"),
            path.replace("00000000000000000123", "123"),
            path.replace("00000000000000000123", "99999999999999999999"),
            path.replace("00000000000000000123", "-0000000000000000123"),
            path.replace(".parquet", ".index"),
            path.replace("default/", ""),
            format!("x/{path}"),
            format!("{path}/"),
            "ä".repeat(40),
            String::new(),
        ] {
            assert!(wrong.parse::<ObjectName>().is_err(), "{wrong}");
        }
    }
}

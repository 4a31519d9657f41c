//! The codecs of Kafka's record batches.

use std::io::{Read, Write};

use bytes::Bytes;

use super::BatchError;

/// How a batch's records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, bare or in the framing of the Java library.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// RFC 8878.
    Zstd,
}

/// The header of the Java snappy library's framing: magic, version, lowest
/// compatible version.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;

impl Compression {
    pub(super) fn from_attributes(attributes: i16) -> Result<Self, BatchError> {
        Ok(match attributes & 7 {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            other => {
                return Err(BatchError::Field {
                    field: "compression",
                    value: other.into(),
                    why: "no such codec is known",
                });
            }
        })
    }

    pub(super) const fn attributes(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The codec's name as Kafka's configuration spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    pub(super) fn compress(self, raw: Bytes) -> std::io::Result<Bytes> {
        Ok(match self {
            Self::None => raw,
            Self::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(&raw)?;
                encoder.finish()?.into()
            }
            Self::Snappy => {
                snap::raw::Encoder::new().compress_vec(&raw).map_err(std::io::Error::other)?.into()
            }
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(&raw)?;
                encoder.finish().map_err(std::io::Error::other)?.into()
            }
            Self::Zstd => zstd::stream::encode_all(&raw[..], 3)?.into(),
        })
    }

    pub(super) fn decompress(self, raw: Bytes, bytes_max: usize) -> Result<Bytes, BatchError> {
        let failed = |error: std::io::Error| BatchError::Decompression {
            codec: self.name(),
            why: error.to_string(),
        };
        match self {
            Self::None if raw.len() > bytes_max => Err(BatchError::TooLarge { limit: bytes_max }),
            Self::None => Ok(raw),
            Self::Gzip => {
                read_bounded(flate2::read::MultiGzDecoder::new(&raw[..]), bytes_max, failed)
            }
            Self::Snappy => decompress_snappy(&raw, bytes_max),
            Self::Lz4 => {
                read_bounded(lz4_flex::frame::FrameDecoder::new(&raw[..]), bytes_max, failed)
            }
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(&raw[..]).map_err(failed)?;
                read_bounded(decoder, bytes_max, failed)
            }
        }
    }
}

fn read_bounded(
    reader: impl Read,
    bytes_max: usize,
    failed: impl FnOnce(std::io::Error) -> BatchError,
) -> Result<Bytes, BatchError> {
    let mut out = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(limit).read_to_end(&mut out).map_err(failed)?;
    if out.len() > bytes_max {
        return Err(BatchError::TooLarge { limit: bytes_max });
    }
    Ok(out.into())
}

fn decompress_snappy(raw: &[u8], bytes_max: usize) -> Result<Bytes, BatchError> {
    let mut out = Vec::new();
    if !raw.starts_with(XERIAL_MAGIC) {
        snappy_block(raw, bytes_max, &mut out)?;
        return Ok(out.into());
    }
    let mut rest = raw.get(XERIAL_HEADER_BYTES..).unwrap_or_default();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((block, next)) = behind.split_at_checked(length) else {
            return Err(snappy_failed("a block is cut off"));
        };
        snappy_block(block, bytes_max, &mut out)?;
        rest = next;
    }
    if !rest.is_empty() {
        return Err(snappy_failed("bytes follow the last block"));
    }
    Ok(out.into())
}

fn snappy_block(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let length =
        snap::raw::decompress_len(block).map_err(|error| snappy_failed(&error.to_string()))?;
    let start = out.len();
    if length > bytes_max.saturating_sub(start) {
        return Err(BatchError::TooLarge { limit: bytes_max });
    }
    out.resize(start + length, 0);
    snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(|error| snappy_failed(&error.to_string()))?;
    Ok(())
}

fn snappy_failed(why: &str) -> BatchError {
    BatchError::Decompression { codec: Compression::Snappy.name(), why: why.to_owned() }
}

//! The records within a batch.

use bytes::{Buf, Bytes};

use super::{BatchError, BatchHeader};
use crate::{Header, Offset, Record, Timestamp};

/// The records of one batch, decoded one by one; the bytes are shared with the
/// batch where it is not compressed.
#[derive(Debug)]
pub struct Records {
    base_offset: Offset,
    base_timestamp: Timestamp,
    append_time: Option<Timestamp>,
    last_offset_delta: u32,
    index: u32,
    count: u32,
    rest: Bytes,
}

/// Decodes what follows a batch's header.
///
/// # Errors
/// [`BatchError`] where the bytes cannot be decompressed within
/// `decompressed_bytes_max`.
pub fn decode_records(
    header: &BatchHeader,
    raw: Bytes,
    decompressed_bytes_max: usize,
) -> Result<Records, BatchError> {
    Ok(Records {
        base_offset: header.base_offset,
        base_timestamp: header.base_timestamp,
        append_time: header.is_append_time.then_some(header.max_timestamp),
        last_offset_delta: header.last_offset_delta,
        index: 0,
        count: header.record_count,
        rest: header.compression.decompress(raw, decompressed_bytes_max)?,
    })
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.count {
            if self.rest.is_empty() {
                return None;
            }
            self.rest = Bytes::new();
            return Some(self.malformed("bytes follow the last record"));
        }
        let record = self.decode();
        if record.is_err() {
            self.count = self.index;
            self.rest = Bytes::new();
        } else {
            self.index += 1;
        }
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // The count comes from outside; a record has at least 7 bytes.
        let possible = self.rest.len() / 7 + 1;
        (0, Some(possible.min((self.count - self.index) as usize + 1)))
    }
}

impl Records {
    fn malformed<T>(&self, why: &'static str) -> Result<T, BatchError> {
        Err(BatchError::Record { index: self.index, why })
    }

    fn decode(&mut self) -> Result<Record, BatchError> {
        let index = self.index;
        let malformed = |why| BatchError::Record { index, why };
        let length = read_varint(&mut self.rest).ok_or(malformed("its length is no varint"))?;
        let Some(length) = usize::try_from(length).ok().filter(|n| *n <= self.rest.len()) else {
            return self.malformed("its length is beyond the batch");
        };
        let mut body = self.rest.split_to(length);
        if body.is_empty() {
            return self.malformed("it is empty");
        }
        body.advance(1); // attributes, unused
        let timestamp_delta =
            read_varlong(&mut body).ok_or(malformed("its timestamp is no varint"))?;
        let offset_delta = read_varint(&mut body).ok_or(malformed("its offset is no varint"))?;
        let Some(offset_delta) =
            u32::try_from(offset_delta).ok().filter(|d| *d <= self.last_offset_delta)
        else {
            return self.malformed("its offset lies outside the batch");
        };
        let key = read_bytes(&mut body).ok_or(malformed("its key is cut off"))?;
        let value = read_bytes(&mut body).ok_or(malformed("its value is cut off"))?;
        let headers = read_headers(&mut body).ok_or(malformed("its headers are cut off"))?;
        if !body.is_empty() {
            return self.malformed("bytes follow its headers");
        }
        let timestamp = self
            .append_time
            .unwrap_or(Timestamp(self.base_timestamp.0.wrapping_add(timestamp_delta)));
        Ok(Record {
            offset: self.base_offset.plus(offset_delta.into()),
            timestamp,
            key,
            headers,
            value,
        })
    }
}

fn read_headers(body: &mut Bytes) -> Option<Vec<Header>> {
    let count = usize::try_from(read_varint(body)?).ok()?;
    // A header has at least two bytes: what cannot be there is not allocated.
    if count > body.len() / 2 {
        return None;
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        headers.push(Header { key: read_bytes(body)??, value: read_bytes(body)? });
    }
    Some(headers)
}

/// Bytes behind their length; the inner `None` is null.
fn read_bytes(body: &mut Bytes) -> Option<Option<Bytes>> {
    let mut rest = &body[..];
    let found = take_bytes(&mut rest)?.map(<[u8]>::len);
    let end = body.len() - rest.len();
    let head = body.split_to(end);
    Some(found.map(|length| head.slice(end - length..)))
}

/// A zigzag varint of at most 32 bits.
fn read_varint(bytes: &mut Bytes) -> Option<i32> {
    i32::try_from(read_varlong(bytes)?).ok()
}

/// A zigzag varint of at most 64 bits.
fn read_varlong(bytes: &mut Bytes) -> Option<i64> {
    let mut rest = &bytes[..];
    let value = take_varlong(&mut rest)?;
    bytes.advance(bytes.len() - rest.len());
    Some(value)
}

/// As [`read_bytes`], off a slice.
pub(super) fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = take_varint(rest)?;
    if length < 0 {
        return Some(None);
    }
    let (bytes, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = behind;
    Some(Some(bytes))
}

/// As [`read_varint`], off a slice.
pub(super) fn take_varint(rest: &mut &[u8]) -> Option<i32> {
    i32::try_from(take_varlong(rest)?).ok()
}

/// As [`read_varlong`], off a slice.
pub(super) fn take_varlong(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for (place, byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * place as u32)?;
        if byte & 0x80 == 0 {
            *rest = &rest[place + 1..];
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

pub(super) fn write_varlong(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

/// The bytes that [`write_varlong`] takes for `value`.
pub(super) const fn varlong_bytes(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (zigzag | 1).leading_zeros() as usize).div_ceil(7)
}

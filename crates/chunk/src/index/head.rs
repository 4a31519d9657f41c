//! The head of an index: what is read once, and all that opening it takes. It
//! lies at the file's end, as [`super`] has it.

use std::sync::Arc;

use aquifer_types::{ChunkId, Offset, Timestamp};
use bytes::{BufMut, Bytes, BytesMut};

use super::range::RangeShape;
use crate::Error;

pub(super) const MAGIC: [u8; 4] = *b"AQIX";
pub(super) const VERSION: u8 = 1;
/// What the file begins with.
pub(super) const START: [u8; 8] = [b'A', b'Q', b'I', b'X', VERSION, 0, 0, 0];
pub(super) const TRAILER_BYTES: usize = 32;
/// A head beyond this is none.
pub(super) const HEAD_BYTES_MAX: u64 = 32 << 20;
/// The most blocks of a chunk: their numbers have 16 bits.
pub(super) const BLOCKS_MAX: usize = 1 << 16;
/// The most bits of a term that are kept.
pub(super) const TERM_BITS_MAX: u32 = 48;

const HAS_TERMS: u8 = 1;
const HAS_ALL_FIELDS: u8 = 2;

/// A run of rows of the chunk that is read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its rows, counted from the chunk's first.
    pub rows: std::ops::Range<u64>,
    /// The bytes of their keys, headers and values.
    pub raw_bytes: u64,
    /// The offset of its first row.
    pub first_offset: Offset,
    /// The offset of its last row.
    pub last_offset: Offset,
    /// The lowest timestamp of a row.
    pub min_timestamp: Timestamp,
    /// The highest timestamp of a row.
    pub max_timestamp: Timestamp,
    /// Some of its values begin as JSON objects do and are none: whatever field
    /// is asked for, it may be in them.
    pub(super) is_opaque: bool,
}

/// Where a range of terms lies, and its CRC-32C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RangePlace {
    pub(super) start: u64,
    pub(super) bytes: u32,
    pub(super) checksum: u32,
}

/// An index's head, verified. Worth caching.
#[derive(Debug, PartialEq, Eq)]
pub struct IndexHead {
    pub(super) object: Arc<str>,
    pub(super) size: u64,
    pub(super) chunk: ChunkId,
    pub(super) base: Offset,
    pub(super) next: Offset,
    pub(super) blocks: Vec<Block>,
    /// Absent where the chunk has more terms than the index may have.
    pub(super) terms: Option<Terms>,
    /// The fields that there are, in order; whether terms of each are there.
    pub(super) fields: Vec<(u64, bool)>,
    /// Whether these are all.
    pub(super) has_all_fields: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) count: u64,
    /// The high bits of a term that are kept.
    pub(super) term_bits: u32,
    /// The high bits of those that are the number of its range.
    pub(super) range_bits: u32,
    pub(super) gap_bits: u32,
    pub(super) ranges: Vec<RangePlace>,
}

impl Terms {
    /// The range of a term, and its number there.
    pub(super) fn place(&self, term: u64) -> (usize, u64) {
        let kept = term >> (64 - self.term_bits);
        let low = self.term_bits - self.range_bits;
        ((kept >> low) as usize, kept & ((1 << low) - 1))
    }
}

impl IndexHead {
    /// The runs of rows that the index tells apart, in the order of offsets.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The chunk that it is the index of.
    #[must_use]
    pub const fn chunk(&self) -> ChunkId {
        self.chunk
    }

    /// The bytes of the whole index.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// How many different terms it has; `None` where there were too many for it
    /// to have any.
    #[must_use]
    pub fn term_count(&self) -> Option<u64> {
        self.terms.as_ref().map(|terms| terms.count)
    }

    /// The memory that it takes, about; for a cache's budget.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let ranges = self.terms.as_ref().map_or(0, |terms| terms.ranges.len());
        size_of::<Self>()
            + self.blocks.len() * size_of::<Block>()
            + ranges * size_of::<RangePlace>()
            + self.fields.len() * size_of::<(u64, bool)>()
    }

    pub(super) fn shape(&self) -> RangeShape {
        let gap_bits = self.terms.as_ref().map_or(0, |terms| terms.gap_bits);
        RangeShape { blocks: self.blocks.len(), gap_bits }
    }

    /// The head and the trailer, which follow `start` bytes of the file.
    pub(super) fn encode(&self, start: u64) -> Vec<u8> {
        let mut head = BytesMut::new();
        head.put_slice(self.chunk.as_bytes());
        head.put_i64_le(self.base.0);
        head.put_i64_le(self.next.0);
        let has_terms = if self.terms.is_some() { HAS_TERMS } else { 0 };
        let has_all_fields = if self.has_all_fields { HAS_ALL_FIELDS } else { 0 };
        head.put_u8(has_terms | has_all_fields);
        put_varint(&mut head, self.blocks.len() as u64);
        let (mut offset, mut timestamp) = (self.base, Timestamp(0));
        for block in &self.blocks {
            let rows = block.rows.end - block.rows.start;
            put_varint(&mut head, rows << 1 | u64::from(block.is_opaque));
            put_varint(&mut head, block.raw_bytes);
            put_varint(&mut head, block.first_offset.since(offset));
            put_varint(&mut head, block.last_offset.since(block.first_offset));
            put_varint(&mut head, zigzag(block.min_timestamp.0.wrapping_sub(timestamp.0)));
            let span = block.max_timestamp.0.wrapping_sub(block.min_timestamp.0);
            put_varint(&mut head, span as u64);
            (offset, timestamp) = (block.last_offset, block.min_timestamp);
        }
        if let Some(terms) = &self.terms {
            put_varint(&mut head, terms.count);
            let widths = [terms.term_bits, terms.range_bits, terms.gap_bits];
            widths.iter().for_each(|width| head.put_u8(*width as u8));
            for range in &terms.ranges {
                put_varint(&mut head, range.bytes.into());
                head.put_u32_le(range.checksum);
            }
        }
        put_varint(&mut head, self.fields.len() as u64);
        for (field, has_terms) in &self.fields {
            head.put_u64_le(field | u64::from(*has_terms));
        }
        let mut trailer = Vec::with_capacity(TRAILER_BYTES);
        trailer.put_u64_le(start);
        trailer.put_u32_le(head.len() as u32);
        trailer.put_u32_le(crc32c::crc32c(&head));
        trailer.put_slice(&[0; 7]);
        trailer.put_u8(VERSION);
        let checksum = crc32c::crc32c(&trailer);
        trailer.put_u32_le(checksum);
        trailer.put_slice(&MAGIC);
        let mut bytes = Vec::from(head);
        bytes.extend_from_slice(&trailer);
        bytes
    }

    /// The head in its verified bytes, which begin at `start` of a file of `size`.
    pub(super) fn decode(
        object: &Arc<str>,
        size: u64,
        start: u64,
        bytes: &[u8],
    ) -> Result<Self, Error> {
        let mut from = Input(bytes);
        let head = from.head(object, size, start).filter(|_| from.0.is_empty());
        head.ok_or_else(|| Error::damaged(object, "the index's head is not what it should be"))
    }
}

/// What the trailer says of the head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trailer {
    pub(super) start: u64,
    pub(super) bytes: u32,
    pub(super) checksum: u32,
}

impl Trailer {
    /// The trailer of a file of `size` bytes, in its last ones.
    pub(super) fn read(object: &Arc<str>, size: u64, last: &[u8]) -> Result<Self, Error> {
        let damaged = |why: &str| Error::damaged(object, format!("as an index, {why}"));
        let trailer: &[u8; TRAILER_BYTES] =
            last.last_chunk().ok_or_else(|| damaged("it is too short"))?;
        let (signed, rest) = trailer.split_at(TRAILER_BYTES - 8);
        if !rest.ends_with(&MAGIC) || !rest.starts_with(&crc32c::crc32c(signed).to_le_bytes()) {
            return Err(damaged("its trailer does not match its CRC-32C"));
        }
        let mut from = Input(signed);
        let parts = (|| {
            let found = (from.u64()?, from.u32()?, from.u32()?);
            Some((found, from.take(7)?, from.u8()?))
        })();
        let ((start, bytes, checksum), key, version) =
            parts.ok_or_else(|| damaged("it is too short"))?;
        if version != VERSION || key.iter().any(|byte| *byte != 0) {
            let what = if version == VERSION { "it is sealed" } else { "its version is not known" };
            return Err(Error::Unsupported { object: object.clone(), why: what.into() });
        }
        let end = start.checked_add(u64::from(bytes));
        if start < START.len() as u64
            || u64::from(bytes) > HEAD_BYTES_MAX
            || end.and_then(|end| end.checked_add(TRAILER_BYTES as u64)) != Some(size)
        {
            return Err(damaged("its head is not where its trailer says"));
        }
        Ok(Self { start, bytes, checksum })
    }

    /// Checks the bytes of the head.
    pub(super) fn verify(&self, object: &Arc<str>, head: &Bytes) -> Result<(), Error> {
        if head.len() as u64 == u64::from(self.bytes) && crc32c::crc32c(head) == self.checksum {
            return Ok(());
        }
        let end = self.start + u64::from(self.bytes);
        let why =
            format!("bytes {} to {end}, the index's head, do not match their CRC-32C", self.start);
        Err(Error::damaged(object, why))
    }
}

/// Bytes that are taken from the front; `None` where there are too few.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return None;
            }
            value |= part << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// How many things of `bytes_min` bytes at least follow.
    fn count(&mut self, bytes_min: usize, count_max: usize) -> Option<usize> {
        let count = usize::try_from(self.varint()?).ok()?;
        (count <= count_max && count.checked_mul(bytes_min)? <= self.0.len()).then_some(count)
    }

    fn head(&mut self, object: &Arc<str>, size: u64, start: u64) -> Option<IndexHead> {
        let chunk = ChunkId::from_bytes(self.take(16)?.try_into().ok()?);
        let base = Offset(self.u64()? as i64);
        let next = Offset(self.u64()? as i64);
        let flags = self.u8()?;
        let blocks = self.blocks(base, next)?;
        let terms = match flags & HAS_TERMS {
            0 => None,
            _ => Some(self.terms(start)?),
        };
        let count = self.count(8, usize::MAX)?;
        let mut fields = Vec::with_capacity(count);
        for _ in 0..count {
            let field = self.u64()?;
            fields.push((field & !1, field & 1 == 1));
        }
        let is_sound = base <= next && flags & !(HAS_TERMS | HAS_ALL_FIELDS) == 0;
        (is_sound && fields.is_sorted_by(|(a, _), (b, _)| a < b)).then(|| IndexHead {
            object: object.clone(),
            size,
            chunk,
            base,
            next,
            blocks,
            terms,
            fields,
            has_all_fields: flags & HAS_ALL_FIELDS != 0,
        })
    }

    fn blocks(&mut self, base: Offset, next: Offset) -> Option<Vec<Block>> {
        let count = self.count(6, BLOCKS_MAX)?;
        let mut blocks = Vec::with_capacity(count);
        let (mut row, mut offset, mut timestamp) = (0_u64, base.0, 0_i64);
        for at in 0..count {
            let rows = self.varint()?;
            let raw_bytes = self.varint()?;
            let first = offset.checked_add_unsigned(self.varint()?)?;
            let last = first.checked_add_unsigned(self.varint()?)?;
            timestamp = timestamp.wrapping_add(unzigzag(self.varint()?));
            let highest = timestamp.wrapping_add(self.varint()? as i64);
            let end = row.checked_add(rows >> 1)?;
            let is_behind = at == 0 || first > offset;
            if end == row || !is_behind || last >= next.0 || highest < timestamp {
                return None;
            }
            blocks.push(Block {
                rows: row..end,
                raw_bytes,
                first_offset: Offset(first),
                last_offset: Offset(last),
                min_timestamp: Timestamp(timestamp),
                max_timestamp: Timestamp(highest),
                is_opaque: rows & 1 == 1,
            });
            (row, offset) = (end, last);
        }
        Some(blocks)
    }

    fn terms(&mut self, head_start: u64) -> Option<Terms> {
        let count = self.varint()?;
        let (term_bits, range_bits) = (u32::from(self.u8()?), u32::from(self.u8()?));
        let gap_bits = u32::from(self.u8()?);
        let are_sound = (1..=TERM_BITS_MAX).contains(&term_bits)
            && range_bits < term_bits.min(32)
            && gap_bits <= TERM_BITS_MAX;
        // Each range has a length and a checksum.
        if !are_sound || 5_usize.checked_mul(1 << range_bits)? > self.0.len() {
            return None;
        }
        let mut ranges = Vec::with_capacity(1 << range_bits);
        let mut start = START.len() as u64;
        for _ in 0..1_usize << range_bits {
            let bytes = u32::try_from(self.varint()?).ok()?;
            ranges.push(RangePlace { start, bytes, checksum: self.u32()? });
            start = start.checked_add(u64::from(bytes))?;
        }
        (start == head_start).then_some(Terms { count, term_bits, range_bits, gap_bits, ranges })
    }
}

fn put_varint(to: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        to.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

const fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

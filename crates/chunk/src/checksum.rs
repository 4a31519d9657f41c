//! The checksums over every byte of a chunk: a grid of blocks over the row
//! groups' bytes, and one over the rest, the tail.
//!
//! The tail's checksum lies within what it covers, in the last of the key-value
//! metadata, where it is found without parsing anything: damaged bytes never
//! reach the Parquet library.

use std::ops::Range;

/// The bytes that one checksum of the grid covers.
pub(crate) const BLOCK_BYTES: u64 = 64 << 10;
/// The metadata key of the grid.
pub(crate) const KEY_GRID: &str = "aquifer.crc32c";
/// The metadata key of the tail.
pub(crate) const KEY_TAIL: &str = "aquifer.tail";

const END_DIGITS: usize = 16;
const CRC_DIGITS: usize = 8;
/// Thrift's compact protocol writes the key, then `0x18` for "the next field,
/// of bytes", and the value's length.
const MARKER: &[u8] = b"aquifer.tail\x18\x18";

/// The checksums of `body`, block by block.
pub(crate) fn grid_of(body: &[u8]) -> String {
    let mut text = String::with_capacity(body.len().div_ceil(BLOCK_BYTES as usize) * CRC_DIGITS);
    for block in body.chunks(BLOCK_BYTES as usize) {
        text.push_str(&format!("{:08x}", crc32c::crc32c(block)));
    }
    text
}

/// The value of [`KEY_TAIL`] before the checksum is known.
pub(crate) fn tail_placeholder(body_end: u64) -> String {
    format!("{body_end:016x}{:08x}", 0)
}

/// Writes the tail's checksum over its placeholder. `None`: there is none.
pub(crate) fn seal_tail(file: &mut [u8], body_end: u64) -> Option<()> {
    let tail = file.get_mut(usize::try_from(body_end).ok()?..)?;
    let digits = digits_in(tail)?;
    let crc = format!("{:08x}", tail_crc(tail, &digits));
    tail.get_mut(digits)?.copy_from_slice(crc.as_bytes());
    Some(())
}

/// Where the row groups' bytes end, as the file's last bytes say; not verified.
pub(crate) fn body_end(last: &[u8]) -> Option<u64> {
    let digits = digits_in(last)?;
    parse_hex(last.get(digits.start - END_DIGITS..digits.start)?)
}

/// Whether `tail`, all that lies behind the row groups' bytes, is as written.
pub(crate) fn tail_holds(tail: &[u8]) -> bool {
    digits_in(tail).is_some_and(|digits| {
        let stored = tail.get(digits.clone()).and_then(parse_hex);
        stored == Some(tail_crc(tail, &digits).into())
    })
}

/// Where the checksum's digits are. The last marker counts: what resembles one
/// may lie before it, in the statistics of keys that a client chose.
fn digits_in(bytes: &[u8]) -> Option<Range<usize>> {
    let at = bytes.windows(MARKER.len()).rposition(|window| window == MARKER)?;
    let start = at + MARKER.len() + END_DIGITS;
    (start + CRC_DIGITS <= bytes.len()).then_some(start..start + CRC_DIGITS)
}

fn tail_crc(tail: &[u8], digits: &Range<usize>) -> u32 {
    let (before, rest) = tail.split_at(digits.start);
    let after = rest.get(CRC_DIGITS..).unwrap_or_default();
    let crc = crc32c::crc32c_append(crc32c::crc32c(before), &[b'0'; CRC_DIGITS]);
    crc32c::crc32c_append(crc, after)
}

/// Lower-case hexadecimal digits only, so that no flipped bit goes unnoticed.
fn parse_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        value.checked_mul(16)?.checked_add(digit.into())
    })
}

/// The parsed grid.
#[derive(Debug, Clone)]
pub(crate) struct Grid {
    body_end: u64,
    blocks: Vec<u32>,
}

impl Grid {
    /// Reads the value of [`KEY_GRID`]; `None` where it does not cover
    /// `body_end` bytes.
    pub(crate) fn parse(text: &str, body_end: u64) -> Option<Self> {
        let count = usize::try_from(body_end.div_ceil(BLOCK_BYTES)).ok()?;
        if text.len() != count.checked_mul(CRC_DIGITS)? {
            return None;
        }
        let blocks = text
            .as_bytes()
            .chunks(CRC_DIGITS)
            .map(|digits| parse_hex(digits).and_then(|crc| u32::try_from(crc).ok()))
            .collect::<Option<_>>()?;
        Some(Self { body_end, blocks })
    }

    pub(crate) const fn body_end(&self) -> u64 {
        self.body_end
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.blocks.len() * size_of::<u32>()
    }

    /// The whole blocks that hold `range`; `None` where it leaves the body.
    pub(crate) fn align(&self, range: &Range<u64>) -> Option<Range<u64>> {
        if range.start > range.end || range.end > self.body_end {
            return None;
        }
        let start = range.start / BLOCK_BYTES * BLOCK_BYTES;
        let end = range.end.checked_next_multiple_of(BLOCK_BYTES)?.min(self.body_end);
        Some(start..end.max(start))
    }

    /// Checks whole blocks that begin at `start`; `Err` is the first damaged
    /// byte range.
    pub(crate) fn verify(&self, start: u64, bytes: &[u8]) -> Result<(), Range<u64>> {
        let mut at = start;
        for block in bytes.chunks(BLOCK_BYTES as usize) {
            let end = at + block.len() as u64;
            let stored = usize::try_from(at / BLOCK_BYTES).ok().and_then(|i| self.blocks.get(i));
            if stored != Some(&crc32c::crc32c(block)) {
                return Err(at..end);
            }
            at = end;
        }
        Ok(())
    }
}

//! The bytes of a journal file, version 1. Numbers are little endian.
//!
//! A file is a whole number of 4,096-byte blocks. Block 0 is the file's header,
//! each group begins at the start of a later block, and the rest of a group's
//! last block means nothing, so that a write never touches a block in which
//! acknowledged bytes lie.
//!
//! **File header**
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic `AQJF` |
//! | 4 | 1 | version, 1 |
//! | 5 | 3 | zero |
//! | 8 | 8 | file id; a file with another name is a recycled one, not yet in use |
//! | 16 | 4 | epoch of the server that wrote it |
//! | 20 | 4 | zero |
//! | 24 | 8 | created, milliseconds since 1970 (signed) |
//! | 32 | 8 | sequence of its first group |
//! | 40 | 8 | id of the previous file, 0 for none |
//! | 48 | 8 | where the previous file's valid groups end |
//! | 56 | 8 | `synced_through` when this was written |
//! | 64 | 8 | length of the file |
//! | 72 | 2 | length of the key id, 0 while files are not sealed |
//! | 74 | 2 | length of the sealed data key, 0 likewise |
//! | 76 | 4 | zero |
//! | 80 | 512 | key id, then sealed data key |
//! | 592 | 3500 | zero |
//! | 4092 | 4 | CRC-32C of the 4,092 bytes before |
//!
//! **Group header**, 64 bytes
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic `AQJG` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | flags: 1 sync mark, 2 clean shutdown, 4 relaxed, 8 file header synced |
//! | 6 | 2 | zero |
//! | 8 | 4 | length of header and frames, without what fills the last block |
//! | 12 | 4 | number of frames |
//! | 16 | 8 | sequence, one more than the group before, across files |
//! | 24 | 8 | `synced_through`: groups up to this one are durable |
//! | 32 | 4 | epoch of the file |
//! | 36 | 4 | CRC-32C of the frames |
//! | 40 | 20 | zero (for a sealed group's nonce) |
//! | 60 | 4 | CRC-32C of file id (8), epoch (4), position of the group in the file (8), then the 60 bytes before |
//!
//! **Frame**, beginning at a multiple of 8 in its group
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 1 | kind, not known here |
//! | 1 | 1 | flags, 0 |
//! | 2 | 2 | zero |
//! | 4 | 4 | length of the meta bytes |
//! | 8 | 4 | length of the payload |
//! | 12 | | meta bytes, zeros up to a multiple of 8 in the group |
//! | | | payload, zeros up to a multiple of 8 in the group |
//!
//! **Why recycled bytes never look alive.** The CRC of the frames carries no
//! seed, so that whoever assembles a group can compute it before file and
//! position are known. That is enough: a group counts only if its header's CRC
//! holds, which is seeded with the file's id, epoch and the position, and each
//! file id is given to one file only, which is written at each position once.
//! So the header of a group that counts was written by this file's writer for
//! this very place, and so was the CRC of the frames that it carries. If the
//! frames then match that CRC, they are the frames that were written with this
//! header (up to the 2^-32 that a CRC leaves), whether or not some of their
//! bytes happen to be older equal ones.
//!
//! **Why a torn tail and damage can be told apart.** Writes that are not synced
//! can be lost in any order; those before a returned sync cannot. Each group
//! says through `synced_through` what was synced before it was written, and
//! through flag 8 that its file's header was. So an invalid place is proved
//! damaged when a later group vouches for it; without one, it was at the end of
//! what was written, and nothing after it was acknowledged as durable.

use aquifer_types::{Epoch, GroupSequence};

use crate::FileId;

/// What a file's positions are multiples of.
pub(crate) const BLOCK_BYTES: u64 = 4096;
pub(crate) const GROUP_HEADER_BYTES: usize = 64;
pub(crate) const FRAME_HEADER_BYTES: usize = 12;
/// The only version so far.
pub(crate) const VERSION: u8 = 1;

const FILE_MAGIC: &[u8; 4] = b"AQJF";
const GROUP_MAGIC: &[u8; 4] = b"AQJG";

/// Bits of a group header's flags.
pub(crate) mod flag {
    pub(crate) const SYNC_MARK: u8 = 1;
    pub(crate) const CLEAN: u8 = 2;
    pub(crate) const RELAXED: u8 = 4;
    pub(crate) const HEADER_SYNCED: u8 = 8;
}

/// The next multiple of the block size.
pub(crate) fn padded(len: u64) -> u64 {
    len.next_multiple_of(BLOCK_BYTES)
}

/// Where a file goes on from: a predecessor, and the end of its valid groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) file: FileId,
    pub(crate) end: u64,
}

/// A file's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) file: FileId,
    pub(crate) epoch: Epoch,
    pub(crate) created_ms: i64,
    pub(crate) first_sequence: GroupSequence,
    pub(crate) previous: Option<Link>,
    pub(crate) synced_through: GroupSequence,
    pub(crate) file_bytes: u64,
}

/// Why a header block cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// Not a header of this file: zeros, an older life's header, or damage.
    Invalid,
    /// A sound header of a version that is not known.
    Version(u8),
}

impl FileHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0u8; BLOCK_BYTES as usize];
        let previous = self.previous.unwrap_or(Link { file: FileId(0), end: 0 });
        block[0..4].copy_from_slice(FILE_MAGIC);
        block[4] = VERSION;
        block[8..16].copy_from_slice(&self.file.0.to_le_bytes());
        block[16..20].copy_from_slice(&self.epoch.0.to_le_bytes());
        block[24..32].copy_from_slice(&self.created_ms.to_le_bytes());
        block[32..40].copy_from_slice(&self.first_sequence.0.to_le_bytes());
        block[40..48].copy_from_slice(&previous.file.0.to_le_bytes());
        block[48..56].copy_from_slice(&previous.end.to_le_bytes());
        block[56..64].copy_from_slice(&self.synced_through.0.to_le_bytes());
        block[64..72].copy_from_slice(&self.file_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&block[..4092]);
        block[4092..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Reads a header block that was found in the file called `file`.
    pub(crate) fn decode(block: &[u8], file: FileId) -> Result<FileHeader, HeaderFault> {
        let (Some(body), Some(crc)) = (block.get(..4092), u32_at(block, 4092)) else {
            return Err(HeaderFault::Invalid);
        };
        if body.get(..4) != Some(FILE_MAGIC) || crc32c::crc32c(body) != crc {
            return Err(HeaderFault::Invalid);
        }
        let header = FileHeader::fields(body).ok_or(HeaderFault::Invalid)?;
        if header.file != file {
            return Err(HeaderFault::Invalid);
        }
        match body.get(4) {
            Some(&VERSION) => Ok(header),
            version => Err(HeaderFault::Version(version.copied().unwrap_or(0))),
        }
    }

    fn fields(body: &[u8]) -> Option<FileHeader> {
        let previous = FileId(u64_at(body, 40)?);
        Some(FileHeader {
            file: FileId(u64_at(body, 8)?),
            epoch: Epoch(u32_at(body, 16)?),
            created_ms: u64_at(body, 24)?.cast_signed(),
            first_sequence: GroupSequence(u64_at(body, 32)?),
            previous: match previous {
                FileId(0) => None,
                file => Some(Link { file, end: u64_at(body, 48)? }),
            },
            synced_through: GroupSequence(u64_at(body, 56)?),
            file_bytes: u64_at(body, 64)?,
        })
    }
}

/// A group's header, without the CRC that seals it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) flags: u8,
    /// Length of header and frames.
    pub(crate) len: u32,
    pub(crate) frames: u32,
    pub(crate) sequence: GroupSequence,
    pub(crate) synced_through: GroupSequence,
    pub(crate) epoch: Epoch,
    pub(crate) frames_crc: u32,
}

impl GroupHeader {
    pub(crate) fn encode(&self, file: FileId, position: u64) -> [u8; GROUP_HEADER_BYTES] {
        let mut bytes = [0u8; GROUP_HEADER_BYTES];
        bytes[0..4].copy_from_slice(GROUP_MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.flags;
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.frames.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced_through.0.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.frames_crc.to_le_bytes());
        let crc = header_crc(&bytes[..60], file, self.epoch, position);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, if one was written for this place.
    pub(crate) fn decode(bytes: &[u8], file: FileId, position: u64) -> Option<GroupHeader> {
        let body = bytes.get(..60)?;
        if body.get(..4)? != GROUP_MAGIC || *body.get(4)? != VERSION {
            return None;
        }
        let epoch = Epoch(u32_at(body, 32)?);
        if u32_at(bytes, 60)? != header_crc(body, file, epoch, position) {
            return None;
        }
        Some(GroupHeader {
            flags: *body.get(5)?,
            len: u32_at(body, 8)?,
            frames: u32_at(body, 12)?,
            sequence: GroupSequence(u64_at(body, 16)?),
            synced_through: GroupSequence(u64_at(body, 24)?),
            epoch,
            frames_crc: u32_at(body, 36)?,
        })
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

fn header_crc(body: &[u8], file: FileId, epoch: Epoch, position: u64) -> u32 {
    let mut seed = [0u8; 20];
    seed[..8].copy_from_slice(&file.0.to_le_bytes());
    seed[8..12].copy_from_slice(&epoch.0.to_le_bytes());
    seed[12..].copy_from_slice(&position.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&seed), body)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_header() -> FileHeader {
        FileHeader {
            file: FileId(7),
            epoch: Epoch(3),
            created_ms: 1_700_000_000_000,
            first_sequence: GroupSequence(41),
            previous: Some(Link { file: FileId(5), end: 8192 }),
            synced_through: GroupSequence(40),
            file_bytes: 1 << 20,
        }
    }

    fn group_header() -> GroupHeader {
        GroupHeader {
            flags: flag::RELAXED,
            len: 200,
            frames: 2,
            sequence: GroupSequence(41),
            synced_through: GroupSequence(40),
            epoch: Epoch(3),
            frames_crc: 99,
        }
    }

    #[test]
    fn headers_read_back_and_every_flipped_bit_shows() {
        let block = file_header().encode();
        assert_eq!(FileHeader::decode(&block, FileId(7)), Ok(file_header()));
        let bytes = group_header().encode(FileId(7), 4096);
        assert_eq!(GroupHeader::decode(&bytes, FileId(7), 4096), Some(group_header()));
        for bit in 0..block.len() * 8 {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::decode(&flipped, FileId(7)).is_err(), "bit {bit}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(GroupHeader::decode(&flipped, FileId(7), 4096), None, "bit {bit}");
        }
    }

    #[test]
    fn a_group_lives_only_in_its_file_and_place() {
        let bytes = group_header().encode(FileId(7), 4096);
        assert_eq!(GroupHeader::decode(&bytes, FileId(8), 4096), None);
        assert_eq!(GroupHeader::decode(&bytes, FileId(7), 8192), None);
        assert_eq!(
            FileHeader::decode(&file_header().encode(), FileId(8)),
            Err(HeaderFault::Invalid)
        );
    }

    #[test]
    fn a_later_version_is_named() {
        let mut block = file_header().encode();
        block[4] = 2;
        let crc = crc32c::crc32c(&block[..4092]);
        block[4092..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(FileHeader::decode(&block, FileId(7)), Err(HeaderFault::Version(2)));
    }

    #[test]
    fn short_bytes_are_no_header() {
        for len in 0..64 {
            assert_eq!(GroupHeader::decode(&vec![0u8; len], FileId(1), 0), None);
            assert!(FileHeader::decode(&vec![0u8; len], FileId(1)).is_err());
        }
    }
}

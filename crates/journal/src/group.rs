//! A group of frames: assembled in memory without any I/O, and read back.

use aquifer_types::{Epoch, GroupSequence};

use crate::error::Error;
use crate::format::{FRAME_HEADER_BYTES, GROUP_HEADER_BYTES, GroupHeader, flag, padded, u32_at};
use crate::{Durability, FileId};

/// No group may be longer than this, whatever the options say: lengths are
/// 32-bit numbers on disk.
pub(crate) const GROUP_BYTES_LIMIT: u64 = 1 << 30;

/// Assembles a group: what is pushed becomes durable together or not at all.
///
/// It computes the frames' CRC while they are in the processor's cache and
/// knows neither file nor sequence; [`Journal::write`](crate::Journal::write)
/// adds those.
#[derive(Debug)]
pub struct GroupBuilder {
    /// Header (zeros until written), frames, then what fills the last block.
    bytes: Vec<u8>,
    /// Where the frames end.
    len: usize,
    frames: u32,
    frames_crc: u32,
}

/// Where a pushed payload lies in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameAt {
    /// From the start of the group, so that the payload's place in the file is
    /// [`Written::position`](crate::Written::position) plus this. A multiple
    /// of 8.
    pub payload_offset_in_group: u32,
    /// Length of the payload in bytes.
    pub len: u32,
}

impl GroupBuilder {
    /// An empty group with room for `capacity` bytes before it must grow.
    #[must_use]
    pub fn new(capacity: usize) -> GroupBuilder {
        let mut bytes = Vec::with_capacity(padded((capacity + GROUP_HEADER_BYTES) as u64) as usize);
        bytes.resize(GROUP_HEADER_BYTES, 0);
        GroupBuilder { bytes, len: GROUP_HEADER_BYTES, frames: 0, frames_crc: 0 }
    }

    /// An empty group in the memory of `buffer`, whose content does not matter.
    #[must_use]
    pub fn reusing(mut buffer: Vec<u8>) -> GroupBuilder {
        buffer.clear();
        buffer.resize(GROUP_HEADER_BYTES, 0);
        GroupBuilder { bytes: buffer, len: GROUP_HEADER_BYTES, frames: 0, frames_crc: 0 }
    }

    /// Bytes of memory that it holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Adds a frame; the pieces of `payload` are joined. `kind` and the bytes
    /// mean nothing to the journal.
    ///
    /// # Errors
    /// [`Error::GroupTooLarge`] if the group would exceed 1 GiB; it is left as
    /// it was.
    pub fn push(&mut self, kind: u8, meta: &[u8], payload: &[&[u8]]) -> Result<FrameAt, Error> {
        let payload_len: usize = payload.iter().map(|piece| piece.len()).sum();
        let start = self.len;
        let payload_start = (start + FRAME_HEADER_BYTES + meta.len()).next_multiple_of(8);
        let end = (payload_start + payload_len).next_multiple_of(8);
        if end as u64 > GROUP_BYTES_LIMIT {
            return Err(Error::GroupTooLarge { bytes: end as u64, bytes_max: GROUP_BYTES_LIMIT });
        }
        // Both fit, they are parts of what is below the limit.
        let (meta_len, payload_len) = (meta.len() as u32, payload_len as u32);
        self.bytes.truncate(start);
        self.bytes.extend_from_slice(&[kind, 0, 0, 0]);
        self.bytes.extend_from_slice(&meta_len.to_le_bytes());
        self.bytes.extend_from_slice(&payload_len.to_le_bytes());
        self.bytes.extend_from_slice(meta);
        self.bytes.resize(payload_start, 0);
        for piece in payload {
            self.bytes.extend_from_slice(piece);
        }
        self.bytes.resize(end, 0);
        self.frames_crc = crc32c::crc32c_append(self.frames_crc, &self.bytes[start..]);
        self.frames += 1;
        self.len = end;
        Ok(FrameAt { payload_offset_in_group: payload_start as u32, len: payload_len })
    }

    /// Length of header and frames so far, before padding to a block.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len as u64
    }

    /// Whether no frame was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// The number of frames.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Empties the group, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(GROUP_HEADER_BYTES);
        self.len = GROUP_HEADER_BYTES;
        self.frames = 0;
        self.frames_crc = 0;
    }

    /// Header and frames as they were last written.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Header and frames as they were last written, without a copy.
    #[must_use]
    pub fn into_bytes(mut self) -> bytes::Bytes {
        self.bytes.truncate(self.len);
        bytes::Bytes::from(self.bytes)
    }

    /// Takes on the frames of a group that was read.
    pub(crate) fn copy_from(&mut self, group: &Group<'_>) {
        self.bytes.clear();
        self.bytes.extend_from_slice(group.bytes());
        self.len = self.bytes.len();
        self.frames = group.header.frames;
        self.frames_crc = group.header.frames_crc;
    }

    /// The bytes to write at `place`, a whole number of blocks. Can be called
    /// again with another place.
    pub(crate) fn finish(&mut self, place: Place) -> &[u8] {
        let header = GroupHeader {
            flags: place.flags,
            len: self.len as u32,
            frames: self.frames,
            sequence: place.sequence,
            synced_through: place.synced_through,
            epoch: place.epoch,
            frames_crc: self.frames_crc,
        };
        self.bytes.truncate(self.len);
        self.bytes.resize(padded(self.len as u64) as usize, 0);
        self.bytes[..GROUP_HEADER_BYTES]
            .copy_from_slice(&header.encode(place.file, place.position));
        &self.bytes
    }
}

/// What only the writer knows about a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) file: FileId,
    pub(crate) epoch: Epoch,
    pub(crate) position: u64,
    pub(crate) sequence: GroupSequence,
    pub(crate) synced_through: GroupSequence,
    pub(crate) flags: u8,
}

/// A group that was read back and proved sound.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    header: GroupHeader,
    file: FileId,
    position: u64,
    bytes: &'a [u8],
}

impl<'a> Group<'a> {
    /// Checks the frames of the group at the start of `bytes`, whose header
    /// was read already.
    pub(crate) fn check(
        header: GroupHeader,
        bytes: &'a [u8],
        file: FileId,
        position: u64,
    ) -> Result<Group<'a>, &'static str> {
        let bytes = bytes.get(..header.len as usize).ok_or("the group is cut short")?;
        let frames = bytes.get(GROUP_HEADER_BYTES..).ok_or("the group is shorter than a header")?;
        if crc32c::crc32c(frames) != header.frames_crc {
            return Err("the frames do not match their checksum");
        }
        let group = Group { header, file, position, bytes };
        let mut walk = group.frames();
        for _ in 0..header.frames {
            walk.next().ok_or("the frames do not fill the group")?;
        }
        match walk.at == bytes.len() {
            true => Ok(group),
            false => Err("the frames do not fill the group"),
        }
    }

    /// The same group as it will lie elsewhere.
    pub(crate) fn moved(self, file: FileId, position: u64) -> Group<'a> {
        Group { file, position, ..self }
    }

    pub(crate) fn header(&self) -> &GroupHeader {
        &self.header
    }

    /// Header and frames, without padding.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// One more than that of the group before.
    #[must_use]
    pub fn sequence(&self) -> GroupSequence {
        self.header.sequence
    }

    /// The file that it lies in.
    #[must_use]
    pub fn file(&self) -> FileId {
        self.file
    }

    /// Where in the file it begins, in bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Length of header and frames in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        u64::from(self.header.len)
    }

    /// Groups up to this one were durable when this one was written.
    #[must_use]
    pub fn synced_through(&self) -> GroupSequence {
        self.header.synced_through
    }

    /// Whether it was acknowledged before it was synced.
    #[must_use]
    pub fn durability(&self) -> Durability {
        match self.header.has(flag::RELAXED) {
            true => Durability::Relaxed,
            false => Durability::Sync,
        }
    }

    /// Whether it only says what was synced; it has no frames then.
    #[must_use]
    pub fn is_sync_mark(&self) -> bool {
        self.header.has(flag::SYNC_MARK)
    }

    /// Whether it is the sync mark of an orderly shutdown.
    #[must_use]
    pub fn is_clean_shutdown(&self) -> bool {
        self.header.has(flag::CLEAN)
    }

    /// The number of frames.
    #[must_use]
    pub fn frame_count(&self) -> u32 {
        self.header.frames
    }

    /// The frames, in the order in which they were pushed.
    #[must_use]
    pub fn frames(&self) -> Frames<'a> {
        Frames { bytes: self.bytes, at: GROUP_HEADER_BYTES, left: self.header.frames }
    }
}

/// One frame of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// As it was pushed.
    pub kind: u8,
    /// Always 0 in version 1.
    pub flags: u8,
    /// As it was pushed.
    pub meta: &'a [u8],
    /// As it was pushed, in one piece.
    pub payload: &'a [u8],
    /// Where the payload lies from the start of the group.
    pub payload_offset_in_group: u32,
}

/// The frames of a group.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u32,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        self.left = self.left.checked_sub(1)?;
        let start = self.at;
        let kind = *self.bytes.get(start)?;
        let flags = *self.bytes.get(start.checked_add(1)?)?;
        let meta_len = u32_at(self.bytes, start.checked_add(4)?)? as usize;
        let payload_len = u32_at(self.bytes, start.checked_add(8)?)? as usize;
        let meta_start = start.checked_add(FRAME_HEADER_BYTES)?;
        let meta_end = meta_start.checked_add(meta_len)?;
        let payload_start = meta_end.checked_next_multiple_of(8)?;
        let payload_end = payload_start.checked_add(payload_len)?;
        let end = payload_end.checked_next_multiple_of(8)?;
        if end > self.bytes.len() {
            return None;
        }
        let frame = Frame {
            kind,
            flags,
            meta: self.bytes.get(meta_start..meta_end)?,
            payload: self.bytes.get(payload_start..payload_end)?,
            payload_offset_in_group: u32::try_from(payload_start).ok()?,
        };
        self.at = end;
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            file: FileId(1),
            epoch: Epoch(1),
            position: 4096,
            sequence: GroupSequence(1),
            synced_through: GroupSequence(0),
            flags: 0,
        }
    }

    fn read(bytes: &[u8]) -> Result<Group<'_>, &'static str> {
        let header = GroupHeader::decode(bytes, FileId(1), 4096).ok_or("no header")?;
        Group::check(header, bytes, FileId(1), 4096)
    }

    #[test]
    fn frames_of_every_small_shape_read_back() {
        for meta in 0..17usize {
            for payload in 0..17usize {
                let (meta, payload) = (vec![7u8; meta], vec![9u8; payload]);
                let mut builder = GroupBuilder::new(0);
                let (head, tail) = payload.split_at(payload.len() / 2);
                let first = builder.push(1, &meta, &[head, tail]).unwrap();
                let second = builder.push(2, &payload, &[&meta]).unwrap();
                assert_eq!(first.payload_offset_in_group % 8, 0);
                let bytes = builder.finish(place()).to_vec();
                assert_eq!(bytes.len() % 4096, 0);
                let group = read(&bytes).unwrap();
                let frames: Vec<Frame<'_>> = group.frames().collect();
                assert_eq!(frames.len(), 2);
                assert_eq!((frames[0].kind, frames[0].meta), (1, &meta[..]));
                assert_eq!(frames[0].payload, &payload[..]);
                assert_eq!((frames[1].kind, frames[1].meta), (2, &payload[..]));
                assert_eq!(frames[1].payload, &meta[..]);
                let at = second.payload_offset_in_group as usize;
                assert_eq!(&bytes[at..at + second.len as usize], &meta[..]);
            }
        }
    }

    #[test]
    fn a_finished_group_can_grow_and_be_finished_again() {
        let mut builder = GroupBuilder::new(100);
        assert!(builder.is_empty());
        builder.push(1, b"a", &[b"first"]).unwrap();
        builder.finish(place());
        builder.push(2, b"b", &[b"second"]).unwrap();
        let bytes = builder.finish(place()).to_vec();
        assert_eq!(read(&bytes).unwrap().frames().count(), 2);
        builder.clear();
        assert!(builder.is_empty());
        let bytes = builder.finish(place()).to_vec();
        assert_eq!(read(&bytes).unwrap().frames().count(), 0);
    }

    #[test]
    fn frames_that_lie_about_their_length_are_refused() {
        for (at, value) in [(64 + 4, 1u32 << 31), (64 + 8, u32::MAX), (64 + 8, 0), (64 + 4, 9)] {
            let mut builder = GroupBuilder::new(100);
            builder.push(1, b"meta", &[&[5u8; 64]]).unwrap();
            let len = builder.len;
            let mut bytes = builder.finish(place()).to_vec();
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let header = GroupHeader {
                frames_crc: crc32c::crc32c(&bytes[64..len]),
                ..*read(builder.finish(place())).unwrap().header()
            };
            assert!(Group::check(header, &bytes, FileId(1), 4096).is_err(), "{at} {value}");
        }
    }
}

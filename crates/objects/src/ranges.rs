//! An object as a file that is read in places, for Parquet: a few blocks of it
//! are kept, so that pages of many columns do not cost a request each.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use aquifer_env::source::{SourceObject, SourceStore};
use aquifer_env::store::StoreError;
use bytes::{Buf as _, Bytes, BytesMut};
use parking_lot::Mutex;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;

/// What is asked for at a time, and kept.
const BLOCK_BYTES: u64 = 1 << 20;
/// How many blocks are kept: about as many as a wide table has columns.
const BLOCKS_MAX: usize = 64;
/// The most bytes of one page.
const PAGE_BYTES_MAX: usize = 512 << 20;

/// An object; cheap to clone. Reading it blocks.
#[derive(Debug, Clone)]
pub(crate) struct Ranges(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    content: Content,
    length: u64,
    blocks: Mutex<VecDeque<(u64, Bytes)>>,
    failure: Arc<Mutex<Option<StoreError>>>,
}

#[derive(Debug)]
enum Content {
    Memory(Bytes),
    Source { runtime: Handle, store: SourceStore, object: Box<SourceObject> },
}

impl Ranges {
    pub(crate) fn of_bytes(bytes: Bytes) -> Self {
        let length = bytes.len() as u64;
        Self::of(Content::Memory(bytes), length)
    }

    /// # Panics
    /// Outside a Tokio runtime.
    pub(crate) fn of_source(store: SourceStore, object: SourceObject) -> Self {
        let length = object.bytes;
        let (runtime, object) = (Handle::current(), Box::new(object));
        Self::of(Content::Source { runtime, store, object }, length)
    }

    fn of(content: Content, length: u64) -> Self {
        let (blocks, failure) = (Mutex::default(), Arc::default());
        Self(Arc::new(Inner { content, length, blocks, failure }))
    }

    /// Where the store's error is left when a read fails.
    pub(crate) fn failure(&self) -> Arc<Mutex<Option<StoreError>>> {
        self.0.failure.clone()
    }

    fn fetch(&self, from: u64, to: u64) -> Result<Bytes, String> {
        match &self.0.content {
            Content::Memory(bytes) => {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                let range = place(from)..place(to);
                match bytes.get(range.clone()) {
                    Some(_) => Ok(bytes.slice(range)),
                    None => Err(OUTSIDE.to_owned()),
                }
            }
            Content::Source { runtime, store, object } => {
                let read = runtime.block_on(store.read_range(object, from..to));
                read.map_err(|error| {
                    let text = error.to_string();
                    *self.0.failure.lock() = Some(error);
                    text
                })
            }
        }
    }

    /// The rest of the block that `at` lies in.
    fn block_at(&self, at: u64) -> Result<Bytes, String> {
        let number = at / BLOCK_BYTES;
        let begin = number * BLOCK_BYTES;
        let skip = usize::try_from(at - begin).map_err(|_| OUTSIDE)?;
        let known = self.0.blocks.lock().iter().find(|(known, _)| *known == number).cloned();
        let block = match known {
            Some((_, block)) => block,
            None => {
                let end = (begin + BLOCK_BYTES).min(self.0.length);
                if begin >= end {
                    return Ok(Bytes::new());
                }
                let block = self.fetch(begin, end)?;
                let mut blocks = self.0.blocks.lock();
                if blocks.len() >= BLOCKS_MAX {
                    blocks.pop_front();
                }
                blocks.push_back((number, block.clone()));
                block
            }
        };
        Ok(block.slice(skip.min(block.len())..))
    }
}

const OUTSIDE: &str = "it names bytes outside of the file";

impl Length for Ranges {
    fn len(&self) -> u64 {
        self.0.length
    }
}

impl ChunkReader for Ranges {
    type T = RangesRead;

    fn get_read(&self, start: u64) -> Result<RangesRead, ParquetError> {
        Ok(RangesRead { ranges: self.clone(), at: start, block: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start.checked_add(length as u64).filter(|end| *end <= self.0.length);
        let failed = |why: String| ParquetError::General(why);
        let end = end.ok_or_else(|| failed(OUTSIDE.to_owned()))?;
        if length > PAGE_BYTES_MAX {
            return Err(failed(format!("a page has {length} bytes, {PAGE_BYTES_MAX} may be")));
        }
        if length as u64 > BLOCK_BYTES {
            return self.fetch(start, end).map_err(failed);
        }
        let first = self.block_at(start).map_err(failed)?;
        if first.len() >= length {
            return Ok(first.slice(..length));
        }
        let mut bytes = BytesMut::with_capacity(length);
        bytes.extend_from_slice(&first);
        while bytes.len() < length {
            let more = self.block_at(start + bytes.len() as u64).map_err(failed)?;
            if more.is_empty() {
                return Err(failed(OUTSIDE.to_owned()));
            }
            let wanted = more.len().min(length - bytes.len());
            bytes.extend_from_slice(&more.slice(..wanted));
        }
        Ok(bytes.freeze())
    }
}

/// The bytes of an object from a place on.
#[derive(Debug)]
pub(crate) struct RangesRead {
    ranges: Ranges,
    at: u64,
    block: Bytes,
}

impl Read for RangesRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() {
            self.block = self.ranges.block_at(self.at).map_err(io::Error::other)?;
        }
        let bytes = buffer.len().min(self.block.len());
        if let Some(buffer) = buffer.get_mut(..bytes) {
            self.block.copy_to_slice(buffer);
        }
        self.at += bytes as u64;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_is_read() {
        let bytes: Vec<u8> = (0..(5 << 20) / 2).map(|n: u32| (n % 251) as u8).collect();
        let ranges = Ranges::of_bytes(Bytes::from(bytes.clone()));
        for (start, length) in
            [(0, 4), (1 << 20, 1), ((1 << 20) - 2, 5), (5, 2 << 20), (bytes.len() - 4, 4), (7, 0)]
        {
            let found = ranges.get_bytes(start as u64, length).unwrap();
            assert_eq!(found, bytes[start..start + length]);
        }
        let mut rest = Vec::new();
        ranges.get_read(3).unwrap().read_to_end(&mut rest).unwrap();
        assert_eq!(rest, bytes[3..]);
        for (start, length) in [(bytes.len() as u64, 1), (u64::MAX, 2), (0, usize::MAX / 2)] {
            assert!(ranges.get_bytes(start, length).is_err());
        }
    }
}

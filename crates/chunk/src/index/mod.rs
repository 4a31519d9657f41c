//! The search index of a chunk: a file beside it that says in which of its blocks
//! of rows a word, the start of a word or a value of a JSON field may be. Losing it
//! costs speed and never an answer.
//!
//! It never misses: every record that answers a [`TermQuery`] is in one of the
//! blocks that [`IndexReader::find`] gives. It may name blocks in vain, since it
//! keeps hashes of terms only as long as that takes ([`IndexOptions::fingerprint_bits`]):
//! one word in a thousand that a chunk does not have costs a block of about
//! 1 MiB. What it cannot tell it says so: words shorter than
//! [`term::PREFIX_CHARACTERS`] as starts, fields further down than
//! [`FIELD_DEPTH_MAX`](crate::FIELD_DEPTH_MAX), and, of a field with many
//! different values, only where the field is. Their values are words as well.
//!
//! Why hashes: logs are full of ids that occur once, and a dictionary of them
//! takes more than the index may. Of a term that is in one block the index keeps
//! some 19 bits. Blocks begin where pages of the chunk's `_value` do, so that
//! reading one decodes little else.
//!
//! A pure format: building fills memory, reading goes through
//! [`RangeRead`](crate::RangeRead). A crash leaves nothing behind.
//!
//! # Format, version 1
//!
//! Numbers are little endian, `varint` is LEB128.
//!
//! | what | bytes |
//! |---|---|
//! | `AQIX`, version (1), three zeros | 8 |
//! | the ranges of terms, one behind the other: [`range`] | |
//! | the head, below | |
//! | where the head begins, u64; its length, u32; its CRC-32C, u32 | 16 |
//! | kept for where the id of the data key is: zeros | 7 |
//! | version (1) | 1 |
//! | CRC-32C of the 24 bytes before | 4 |
//! | `AQIX` | 4 |
//!
//! So one read of the last 16 KiB opens most, and a word costs another of about
//! 3 KiB, wherever it is: the high bits of a term are the number of its range.
//!
//! The head:
//!
//! | what | bytes |
//! |---|---|
//! | id of the chunk | 16 |
//! | its covered range, two i64 | 16 |
//! | 1: has terms; 2: the fields named below are all there are | 1 |
//! | how many blocks | varint |
//! | of each block: twice its rows, plus 1 where a value begins as a JSON object and is none; bytes of records; its first offset behind the last one of the block before (the base); its last behind its first; the lowest timestamp in ms behind that of the block before (0), zigzag; the highest behind the lowest | varints |
//! | where it has terms: how many | varint |
//! | bits of a term that are kept; of those, bits that number the range; low bits of a gap | 3 |
//! | of each range: its length, and its CRC-32C | varint, 4 |
//! | how many fields | varint |
//! | of each, growing: its hash, whose lowest bit says whether its terms are in the index | 8 |
//!
//! Hashes: [`term`]. The hash of a field is itself a term: where the field is.

mod bits;
mod block_set;
mod builder;
mod head;
mod range;
mod reader;
mod term;

pub use block_set::BlockSet;
pub use builder::{EncodedIndex, IndexBuilder, IndexOptions, build_index};
pub use head::{Block, IndexHead};
pub use reader::{Candidates, IndexReader, IndexReport, verify_index};
pub use term::{PREFIX_CHARACTERS, TermQuery};

use head::START;

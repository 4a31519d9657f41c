//! Records ⇄ Parquet: the format of a chunk, the immutable file that tier 2
//! keeps of a run of one partition's records. Any Parquet reader opens it.
//!
//! A pure format: no policy, no scheduling of I/O, no clock. Encoding fills
//! memory, reading goes through [`RangeRead`], which the caller stands over its
//! object store and cache. Nothing is written here, so a crash leaves nothing
//! behind; whoever stores [`EncodedChunk::bytes`] stores all or nothing.
//!
//! # Format, version 1
//!
//! | id | column | type | encoding | statistics |
//! |---|---|---|---|---|
//! | 1 | `_partition` | int32 | dictionary | none |
//! | 2 | `_offset` | int64, grows strictly | delta | row group, page |
//! | 3 | `_timestamp` | timestamp(µs, UTC), whole milliseconds | delta | row group, page |
//! | 4 | `_appended` | timestamp(µs, UTC), whole milliseconds | delta | row group, page |
//! | 5 | `_key` | binary, null where absent | dictionary, else delta length | row group, page, cut to 64 bytes |
//! | 6 | `_headers` | list, never null | | |
//! | 7 | `_headers.element` | struct, never null | | |
//! | 8 | `_headers.element.key` | utf8 | dictionary, else delta length | none |
//! | 9 | `_headers.element.value` | binary, null where absent | dictionary, else delta length | none |
//! | 10 | `_value` | binary, null where absent | delta length | none |
//! | 11 | `_unfit` | list, null where everything fits | | |
//! | 12 | `_unfit.element` | utf8, never null | dictionary, else delta length | row group, page, cut to 64 bytes |
//! | 13–999 | kept for further columns of this crate | | | |
//! | 1000– | the fields of JSON values, as the stream's schema numbers them | boolean, int64, double, utf8, timestamp(µs, UTC), date, struct; nullable | dictionary, else delta | row group, page, cut to 64 bytes |
//!
//! From `_unfit` on, columns are there where the chunk was written under a
//! schema of version 1 or later that has fields with a column: exactly those of
//! its version, also where all of it is null. What is in them says `shred`.
//!
//! Null and empty differ in keys, values and header values. A header key that
//! is not UTF-8 has its wrong bytes replaced. A timestamp beyond ±292 thousand
//! years does not fit into microseconds: it is stored as the nearest that does;
//! negative ones (−1: none was given) are kept.
//!
//! zstd; an offset index for every column; row groups end at a bound of record
//! bytes; `sorting_columns` names `_offset`. A chunk may hold no rows at all.
//!
//! ## Key-value metadata
//!
//! | key | value |
//! |---|---|
//! | `aquifer.format_version` | `1` |
//! | `aquifer.tenant`, `aquifer.stream`, `aquifer.stream_id`, `aquifer.partition`, `aquifer.chunk_id` | whose records these are |
//! | `aquifer.base_offset`, `aquifer.next_offset` | the covered range, `[base, next)` |
//! | `aquifer.epochs` | `epoch:first offset`, by commas |
//! | `aquifer.generation` | 0 from the journal, else one more than the highest replaced |
//! | `aquifer.replaces` | chunk ids, by commas |
//! | `aquifer.schema_version` | version of the stream's schema |
//! | `aquifer.timestamp_type` | `create` or `append` |
//! | `aquifer.records`, `aquifer.raw_bytes` | rows; bytes of keys, headers and values |
//! | `aquifer.min_timestamp`, `aquifer.max_timestamp`, `aquifer.max_appended` | ms; absent without rows |
//! | `aquifer.schema` | the stream's schema that the columns of fields follow, as JSON; absent where values were not looked at |
//! | `aquifer.unfit` | rows with something in `_unfit`; absent with the schema, and where that has no column and a value begins as an object and is no JSON |
//! | `aquifer.key_id` | kept for the id of the data key; absent: not encrypted |
//! | `aquifer.crc32c` | CRC-32C of each 64 KiB of the row groups' bytes, from the file's start, 8 hex digits each |
//! | `aquifer.tail` | last; where the row groups' bytes end (16 hex digits), and the CRC-32C (8) of all that follows them, counted with these 8 digits as `0` |
//!
//! So every byte of the file lies under a checksum: bytes of row groups are
//! read and verified in whole 64 KiB blocks, everything else when the footer is
//! opened. Parquet's own page checksums are not written by the library in use,
//! and would leave page headers and the footer uncovered.
//!
//! Checksums tell damage, not forgery: who may write to tier 2 is trusted with
//! what a chunk holds, and could also stop its readers with a file that the
//! Parquet library does not end on. Encryption is what excludes that.

mod blocks;
mod checksum;
mod encode;
mod error;
mod fields;
mod footer;
mod index;
mod metadata;
mod name;
mod reader;
mod rows;
mod rows_builder;
mod schema;
mod shred;
mod spec;
mod tokens;
mod verify;
mod window;

pub use aquifer_types::TimestampType;
pub use blocks::RowBlock;
pub use encode::{ChunkEncoder, EncodeOptions, EncodedChunk, FieldCosts};
pub use error::Error;
pub use fields::{FIELD_DEPTH_MAX, FIELD_PATH_BYTES_MAX, unescaped};
pub use footer::{Expected, Footer};
pub use index::{
    Block, BlockSet, Candidates, EncodedIndex, IndexBuilder, IndexHead, IndexOptions, IndexReader,
    IndexReport, PREFIX_CHARACTERS, TermQuery, build_index, verify_index,
};
pub use name::{IndexName, ObjectName};
pub use reader::{ChunkReader, RangeRead, ReadOptions};
pub use rows::{Records, Row, Rows};
pub use schema::{FIELD_ID_SHREDDED_MIN, schema};
pub use shred::{FieldWalk, Shredder, field_columns, schema_with};
pub use spec::{ChunkSpec, ChunkStats};
pub use tokens::{
    TOKEN_BYTES_MAX, Token, looks_like_json, tokens, tokens_of_json_string, tokens_of_text,
};
pub use verify::{Report, verify};

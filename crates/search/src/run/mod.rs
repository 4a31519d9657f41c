//! Answering: which parts of a stream are read, in which order, and when it is
//! enough.
//!
//! A part (a chunk, or a partition's tail) is first *opened*: its index or its
//! page index says which runs of rows, *units*, may have what is asked for, and
//! between which times they lie. Units are then read and put to the
//! [`Matcher`], the newest first. [`search`] stops where nothing that is left
//! can be newer than the hits it has; [`histogram`] reads them all, but counts
//! without reading where a unit lies whole within a bar.
//!
//! It reads through a [`Source`], so that it knows neither stores nor sockets.
//! A few units are read beside each other, each a task of its own; dropping the
//! future ends them at their next pause.

mod answer;
mod bars;
mod cursor;
mod failure;
mod histogram;
mod newest;
mod options;
mod source;
#[cfg(test)]
mod tests;
mod top;
mod unit;
mod worker;

pub use cursor::Cursor;
pub use failure::Failure;
pub use histogram::{Bar, Bars, HistogramRequest, TopValue, TopValues, histogram};
pub use newest::{Hit, Hits, SearchRequest, Total, search};
pub use options::RunOptions;
pub use source::{ChunkPart, PartitionRows, Parts, RowSet, Source, TailBlock, TailRange};

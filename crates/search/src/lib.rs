//! Search: what a query means, and how it is answered over chunks and tail.
//!
//! [`Query::parse`] understands the language (docs/search.md), [`Matcher`]
//! decides a record by it, and [`Query::need`] says what an index can leave out.
//! It never decides what is visible or who may ask, keeps nothing, and speaks
//! no protocol.

mod json;
mod lexer;
mod literal;
mod matcher;
mod need;
mod number;
mod parse;
mod pattern;
mod query;
pub mod run;
#[cfg(test)]
mod tests;
mod time;

pub use matcher::{EachHeader, Marks, Matcher, Part, Scratch, Searchable};
pub use parse::{CONDITIONS_MAX, DEPTH_MAX, QUERY_BYTES_MAX, SyntaxError};
pub use query::Query;

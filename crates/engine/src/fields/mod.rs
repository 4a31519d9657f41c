//! Columns that a stream's values have beside the value itself, and the JSON
//! access that they answer.
//!
//! Each part of a scan has them in a way of its own, and [`Part`] says which.
//! `columns` knows what there is; `derived` is a column that one statement adds
//! to its table: a field within an object, or an access to `_value` that a field
//! answers; `rewrite` puts it into the statement's plan; `adapter` tells the
//! scan of chunks what it is there, and `shred` makes columns out of values
//! where there are none yet. `leaves` leaves out what the statistics of nested
//! fields rule out, and `known` tells joins what those of fields say. Nothing
//! here decides what fits: that is `aquifer_chunk`'s.

mod access;
mod adapter;
mod columns;
mod derived;
mod known;
mod leaves;
mod rewrite;
mod shred;

pub(crate) use access::Access;
pub(crate) use adapter::Adapters;
pub(crate) use columns::{Columns, Part, Place};
use derived::Leaf;
pub(crate) use derived::{Computed, Derived};
pub(crate) use known::{HasJoins, Known};
pub(crate) use leaves::Leaves;
pub(crate) use rewrite::FieldsAsColumns;
pub(crate) use shred::shred;

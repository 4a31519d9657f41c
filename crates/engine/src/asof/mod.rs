//! As-of joins: each row on the left with the one row on the right that is
//! nearest in time, among those with the same keys.
//!
//! [`syntax`] brings the words that people know into a form that parses and
//! plans as a plain join with a marked condition; [`node`] makes a node of its
//! own of that; [`exec`] and [`merge`] run it, over inputs that are sorted by
//! key and time and, where there are keys, partitioned by them. The sorts are
//! DataFusion's and spill; the join itself holds a batch of either side.

mod exec;
mod merge;
mod node;
mod plan;
mod syntax;

pub(crate) use exec::AsOfJoinExec;
pub(crate) use node::{FilterBeneath, unmarked};
pub(crate) use plan::AsOfPlanner;
pub(crate) use syntax::{condition, mark, mark_tokens, written};

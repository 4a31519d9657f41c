//! The catalog: cold metadata in relational tables.
//!
//! Duty: keep what the ledger has committed about streams, partitions, chunks,
//! uploads under way, objects to delete, deleted streams and schemas, together
//! with the position of the journal up to which it was applied, and give all of
//! it back when the ledger starts. SQLite is embedded; every statement is
//! written in the subset that PostgreSQL shares and rendered by [`Dialect`].
//!
//! It never decides order, validity or identity: the ledger does, and what
//! arrives here is already history. It never touches an object; [`GarbageRow`]
//! only remembers which ones are to go.
//!
//! A crash leaves the rows and the applied position of some earlier
//! [`Catalog::apply`], whole: both are written in one transaction
//! (`journal_mode=WAL`, `synchronous=FULL`). The ledger applies the rest again.
//! Each change is a write of one key (a removed stream takes the keys of its
//! partitions and fields along), so a replay from any earlier position ends in
//! the same rows.
//!
//! # Versions
//! | version | file | what |
//! |---|---|---|
//! | 1 | `migrations/0001_catalog.sql` | all tables |
//!
//! The table `schema_version` names each migration that the file has seen, and
//! SQLite's `application_id` ([`APPLICATION_ID`]) says that it is a catalog. A
//! file with a newer version than [`SCHEMA_VERSION`] is refused. Every row ends
//! with `row_crc`, a CRC-32C over the table's name and the row's values
//! (seeded so that a row of one table never passes for one of another), which
//! is checked whenever the row is read.

mod catalog;
mod cell;
mod dialect;
mod error;
mod integrity;
mod migration;
mod row;
mod statement;
#[cfg(test)]
mod tests;

pub use catalog::{Applied, Catalog, Options};
pub use dialect::Dialect;
pub use error::{Error, Result};
pub use integrity::{Check, Finding};
pub use migration::{APPLICATION_ID, SCHEMA_VERSION};
pub use row::{
    Change, ChunkRow, FieldRow, GarbageRow, IntentRow, MetaRow, PartitionRow, Snapshot, StreamRow,
    TombstoneRow, garbage_reason,
};

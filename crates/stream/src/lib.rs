//! Streams: the ledger, the read path, tiering and retention.
//!
//! [`StreamStore`] is the whole of it for the doors above: create streams,
//! append to them, read them back. Below it, [`ledger`] is the only way in to
//! state that changes, [`read`] the only way out to the bytes, [`tier`] moves
//! them from the journal into Parquet. It knows no protocol.

mod api;
mod believed_clock;
mod chunk_meta;
mod error;
mod group_lag;
mod index;
mod ledger;
mod metrics;
mod options;
mod read;
mod recover;
mod retention;
mod steady;
mod store;
mod tier;
mod verify;

pub use api::{
    AbortedTransaction, AppendAnswer, AppendRequest, Appended, Block, ChunkDescription, Form,
    GroupDescription, GroupPosition, Health, Isolation, NewStream, NewTransactional,
    PartitionAppend, PartitionDescription, Position, PositionNote, ProducerDescription, ReadAnswer,
    ReadRequest, StreamDescription, StreamShape, StreamSummary, StreamUpdate,
    TransactionDescription, TransactionState, Truncation,
};
pub use chunk_meta::ChunkMeta;
pub use error::Error;
pub use index::{PartitionsWatch, Waker};
pub use ledger::{
    Commit, Committed, Document, DocumentExpectation, DocumentKey, DocumentKind, Idempotency,
    Operation, Outcome, Precondition, RecoveryReport, Resolution,
};
pub use options::Options;
pub use read::{Cursor, Cut, HotRead, View};
pub use recover::{Gap, RecoverReport, recover_from};
pub use store::{
    EachAppend, EachAppended, Environment, Lease, POSITION_METADATA_BYTES_MAX, PartitionHandle,
    PartitionOffsets, StreamHandle, StreamStore, SubmittedAppends,
};
pub use verify::{Finding, OnProgress, VerifyProgress, VerifyReport, verify};

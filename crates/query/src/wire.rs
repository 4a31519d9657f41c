//! What server and engine say to each other.
//!
//! A question has a connection of its own over a local socket; closing it ends
//! the question. Both sides write frames:
//!
//! | bytes | |
//! |---|---|
//! | 0..4 | length of what follows, little-endian, at most [`FRAME_BYTES_MAX`] |
//! | 4 | kind: 0 a message in JSON, 1 bytes that belong to the message before |
//! | 5.. | the message, or the bytes |
//!
//! The server begins with [`ToEngine::Ask`]. The engine names the streams that
//! it needs with [`FromEngine::Resolve`], *all of them at once*, since they are
//! read at one cut, and gets [`ToEngine::Tables`]. It reads the chunks of the
//! cut by itself, and asks for what lies behind them with
//! [`FromEngine::ReadTail`], any number of times, each answered in turn by
//! [`ToEngine::Tail`]. The answer is one [`FromEngine::Begin`], any number of
//! [`FromEngine::Data`] and [`FromEngine::Progress`], and one
//! [`FromEngine::Done`] or [`FromEngine::Failed`].
//!
//! The engine's first connection is not for a question: over it the server
//! sends [`StartEngine`], and gets it answered with [`EngineReady`]. It stays
//! open for as long as the server lives; when it closes, the engine ends.
//!
//! Both sides are of one binary, so there is no version; neither believes the
//! other's lengths.

use aquifer_stream::ChunkMeta;
use aquifer_types::{
    ErrorKind, Offset, Partition, StreamConfig, StreamId, StreamName, StreamSchema, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{EngineOptions, Question};

/// The longest frame in bytes.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// The most streams whose schemas are asked for at once.
pub const DESCRIBED_STREAMS_MAX: usize = 64;

/// What an engine is started with. It goes over the socket and not over the
/// command line, which everybody on the machine can read: the options of tier 2
/// may hold what opens it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartEngine {
    /// Its limits and places.
    pub options: EngineOptions,
    /// What it logs, as the server's own filter says.
    pub log_filter: String,
}

/// The engine takes questions from here on.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct EngineReady {}

/// From the server to the engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToEngine {
    /// The question; first of all.
    Ask(Question),
    /// The cut, in answer to [`FromEngine::Resolve`].
    Tables(Vec<Table>),
    /// A name could not be resolved, or may not be read.
    Refused(Refusal),
    /// All streams and views of the tenant, in answer to [`FromEngine::List`].
    Listed {
        /// By name.
        streams: Vec<StreamName>,
        /// By name, with their SQL.
        views: Vec<(String, String)>,
    },
    /// What the values of streams have, in answer to [`FromEngine::Describe`]
    /// and in its order.
    Described(Vec<StreamSchema>),
    /// What was asked of the journal; `bytes` of data follow.
    Tail(TailPart),
    /// A view was stored or dropped.
    Stored,
}

/// From the engine to the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromEngine {
    /// Which streams and views are there?
    List,
    /// What do the values of these streams have, as of now? No cut is needed to
    /// say so.
    Describe {
        /// At most [`DESCRIBED_STREAMS_MAX`], by their names as stored.
        streams: Vec<StreamName>,
    },
    /// A cut over these streams, please; once in a question.
    Resolve {
        /// Their names as stored.
        streams: Vec<StreamName>,
    },
    /// Records of the cut at and behind `from`, which is not below the cut's
    /// tiered offset.
    ReadTail {
        /// The partition.
        partition: Partition,
        /// The first offset wanted.
        from: Offset,
        /// About how many bytes of batches.
        bytes_max: u64,
    },
    /// Stores a view in the place of any of its name, if `replace`.
    PutView {
        /// Its name.
        name: String,
        /// What it stands for.
        sql: String,
        /// Whether one of that name may be there.
        replace: bool,
    },
    /// Drops a view.
    DropView {
        /// Its name.
        name: String,
        /// Whether it is no error that there is none.
        if_exists: bool,
    },
    /// The answer begins.
    Begin {
        /// Its columns; their Arrow schema follows as bytes of an IPC message.
        columns: Vec<Column>,
        /// The types of the statement's placeholders.
        parameters: Vec<String>,
        /// The statement's first words, such as `SELECT` or `CREATE VIEW`.
        command: String,
    },
    /// A part of the answer; its bytes follow.
    Data {
        /// The rows in it.
        rows: u64,
    },
    /// How far it is.
    Progress(Progress),
    /// The answer is whole.
    Done(Spent),
    /// There is no answer, or it ends here unfinished.
    Failed(Refusal),
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, in SQL's words.
    #[serde(rename = "type")]
    pub sql_type: String,
    /// Whether it can be null.
    pub nullable: bool,
}

/// One stream of a cut.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: StreamName,
    /// Its identity.
    pub id: StreamId,
    /// Its configuration at the time of the cut.
    pub config: StreamConfig,
    /// What its values have; never older than what a chunk of the cut was
    /// written under.
    pub schema: StreamSchema,
    /// All its partitions.
    pub partitions: Vec<TablePartition>,
}

/// One partition of a cut.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TablePartition {
    /// Which it is.
    pub partition: Partition,
    /// The earliest offset that counts.
    pub start: Offset,
    /// Below it, records are in chunks; at and above it, in the journal.
    pub tiered: Offset,
    /// The first offset that does not count.
    pub end: Offset,
    /// About how many bytes of batches lie between `tiered` and `end`.
    pub tail_bytes: u64,
    /// In order of their offsets; kept in tier 2 while the question runs.
    pub chunks: Vec<ChunkMeta>,
}

/// A piece of the tail. Its bytes follow: batches as they lie in the journal,
/// one behind the other, or, where tiering has overtaken the question, an Arrow
/// IPC stream of a chunk's rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TailPart {
    /// The form of the bytes.
    pub form: TailForm,
    /// For batches: when each of them was appended, in their order. Rows have
    /// that as a column.
    pub appended: Vec<Timestamp>,
    /// Everything below it was given or is a gap; the cut's end when it is done.
    pub next: Offset,
}

/// The form of a piece of the tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TailForm {
    /// Record batches, v2. Those of aborted transactions and control batches
    /// are not among them; the first may begin before the offset asked for.
    Batches,
    /// An Arrow IPC stream with the chunk's fixed columns.
    Rows,
}

/// How far a question is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes of chunks and tail that were read.
    pub bytes_read: u64,
    /// The bytes that are to be read as far as is known.
    pub bytes_total: u64,
    /// Rows that were looked at.
    pub rows_read: u64,
}

/// What a question took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Rows of the answer.
    pub rows: u64,
    /// Chunks of the cut.
    pub chunks: u64,
    /// Chunks of which nothing but statistics was needed.
    pub chunks_pruned: u64,
    /// Bytes that were read from tier 2.
    pub bytes_read: u64,
    /// Bytes of the journal's batches that were read.
    pub tail_bytes_read: u64,
    /// Bytes that were spilled to disk.
    pub spilled_bytes: u64,
    /// How long it ran in the engine, in ms.
    pub elapsed_ms: u64,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What the caller can do.
    pub kind: ErrorKind,
    /// A stable name, such as `sql-syntax`, `unknown-table`, `query-memory`,
    /// `query-time`, `rows-max`, `statement-refused`.
    pub code: String,
    /// PostgreSQL's five characters for it.
    pub sqlstate: String,
    /// What is wrong, and the mend.
    pub message: String,
    /// Where in the statement, in characters from 1.
    pub position: Option<u64>,
}

//! What can be asked.

use std::collections::BTreeMap;

use aquifer_types::{StreamName, TenantName, Timestamp};
use serde::{Deserialize, Serialize};

/// A question, as a door hands it on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Question {
    /// Whose streams it can see.
    pub tenant: TenantName,
    /// What is asked.
    pub ask: Ask,
    /// How the answer's bytes are to be written.
    pub form: AnswerForm,
    /// What it may take.
    pub limits: Limits,
    /// Whether progress is to be told while it runs.
    pub wants_progress: bool,
}

/// The kinds of questions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// A SQL statement.
    Sql(SqlQuestion),
    /// A SQL statement of a client that believes to speak with PostgreSQL: its
    /// catalogs are there, and what it asks of them is rewritten to what there
    /// is.
    Postgres(PostgresQuestion),
    /// A search in one stream.
    Search(SearchQuestion),
    /// How many records match over time.
    Histogram(HistogramQuestion),
}

/// A SQL statement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SqlQuestion {
    /// One statement.
    pub sql: String,
    /// The values of `$1`, `$2` and so on.
    pub parameters: Vec<Parameter>,
    /// Answer with the types of parameters and columns, and do not run it.
    pub describe_only: bool,
}

/// A SQL statement, and what PostgreSQL's functions say of its session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PostgresQuestion {
    /// The statement.
    pub sql: SqlQuestion,
    /// Whose it is.
    pub session: PostgresSession,
}

/// A session of PostgreSQL's protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresSession {
    /// `current_user`.
    pub user: String,
    /// `pg_backend_pid()`.
    pub process: u32,
    /// `current_setting(…)`, by names in lower case.
    pub settings: BTreeMap<String, String>,
}

/// A value for a placeholder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Parameter {
    /// Unknown.
    Null,
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A floating-point number.
    Float(f64),
    /// Text; takes the type that the statement needs where it can be read as one.
    Text(String),
}

/// How the bytes of an answer are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerForm {
    /// A JSON object a row and line.
    Ndjson,
    /// A JSON array a row and line, with a value for each column in their order:
    /// names may repeat.
    Rows,
    /// One JSON document, `{"columns":[{"name","type"}],"rows":[[…]]}`.
    Json,
    /// Comma-separated values with a line of names (RFC 4180).
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

/// From `from` (included) to `to` (left out); open where absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeRange {
    /// The first time.
    pub from: Option<Timestamp>,
    /// The first time behind the range.
    pub to: Option<Timestamp>,
}

/// Which end of a stream is searched first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchOrder {
    /// By (`_timestamp`, partition, offset), descending.
    #[default]
    NewestFirst,
}

/// A search in one stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SearchQuestion {
    /// The stream.
    pub stream: StreamName,
    /// The query's text; empty matches everything.
    pub query: String,
    /// Which records count.
    pub range: TimeRange,
    /// In which order.
    pub order: SearchOrder,
    /// The most hits.
    pub hits_max: u64,
    /// Where the page before ended, as its `next` said.
    pub after: Option<String>,
    /// Whether to count all that matches, beyond the hits.
    pub wants_total: bool,
    /// Whether to mark what matched.
    pub wants_highlights: bool,
}

/// How many records match over time, and the most frequent values of fields
/// among them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HistogramQuestion {
    /// The stream.
    pub stream: StreamName,
    /// The query's text.
    pub query: String,
    /// Which records count.
    pub range: TimeRange,
    /// The most bars.
    pub buckets_max: u32,
    /// The fields whose most frequent values are wanted.
    pub top_of: Vec<String>,
    /// How many values of each.
    pub top_max: u32,
}

/// What one question may take. The server's own limits bound these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The most rows of an answer; beyond them it fails.
    pub rows_max: u64,
    /// The most bytes of an answer; beyond them it fails.
    pub bytes_max: u64,
    /// How long it may run, in ms.
    pub time_ms_max: u64,
    /// The memory that its operators may hold, in bytes; beyond it they spill.
    pub memory_bytes_max: u64,
}

impl Limits {
    /// None of its own: the server's count.
    pub const NONE: Self = Self {
        rows_max: u64::MAX,
        bytes_max: u64::MAX,
        time_ms_max: u64::MAX,
        memory_bytes_max: u64::MAX,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::NONE
    }
}

//! What an engine's process is started with.
//!
//! The server sends it over their socket to the child that it starts; both are
//! of one binary. It is never on a command line and in no log: the options of
//! tier 2 may hold what opens it. What else does is inherited with the
//! environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The engine's limits and places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineOptions {
    /// The URL of tier 2, as the server opened it.
    pub tier2: String,
    /// The options that the server opened it with, as `store.tier2_options`.
    pub tier2_options: BTreeMap<String, String>,
    /// Where operators put what does not fit into memory. The engine owns the
    /// directory: what it finds there at its start is removed.
    pub spill_directory: PathBuf,
    /// The memory that the operators of all questions may hold, in bytes.
    /// Beyond it they spill, and fail where they cannot.
    pub memory_bytes_max: u64,
    /// The bytes of all spilled files.
    pub spill_bytes_max: u64,
    /// The bytes of tails that are kept as columns for questions to come.
    pub tail_cache_bytes_max: u64,
    /// The bytes of footers and page indexes of chunks that are kept.
    pub footer_cache_bytes_max: u64,
    /// The bytes of heads of search indexes that are kept.
    pub index_cache_bytes_max: u64,
    /// How many parts of one question run beside each other.
    pub target_partitions: usize,
    /// How many questions run beside each other; more wait for their turn
    /// before their first frame is read.
    pub questions_max: usize,
    /// How long a connection may take to send its question, in ms.
    pub ask_ms_max: u64,
    /// About how many rows the columns of one batch have.
    pub batch_rows: usize,
    /// The longest statement in bytes, views that it names left out.
    pub statement_bytes_max: usize,
    /// How deep the parentheses and operators of a statement may be nested.
    pub statement_depth_max: usize,
    /// How many words, signs and values a statement may have.
    pub statement_tokens_max: usize,
    /// How deep views may stand on views.
    pub view_depth_max: usize,
    /// How many views one statement may stand on.
    pub views_max: usize,
    /// The bytes that one call of a function may make out of one batch, such as
    /// `repeat`.
    pub function_bytes_max: u64,
    /// About the bytes of one part of an answer.
    pub part_bytes: usize,
    /// How often a question that wants it is told how far it is, in ms.
    pub progress_ms: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            tier2: String::new(),
            tier2_options: BTreeMap::new(),
            spill_directory: PathBuf::new(),
            memory_bytes_max: 512 << 20,
            spill_bytes_max: 10 << 30,
            tail_cache_bytes_max: 256 << 20,
            footer_cache_bytes_max: 64 << 20,
            index_cache_bytes_max: 64 << 20,
            target_partitions: 2,
            questions_max: 16,
            ask_ms_max: 10_000,
            batch_rows: 8192,
            statement_bytes_max: 1 << 20,
            statement_depth_max: 128,
            statement_tokens_max: 100_000,
            view_depth_max: 16,
            views_max: 256,
            function_bytes_max: 256 << 20,
            part_bytes: 128 << 10,
            progress_ms: 200,
        }
    }
}

//! What questions may take.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{EngineOptions, Limits};

/// Limits of questions and of the engine. Field names are the names in the
/// configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueryOptions {
    /// Questions that run at a time.
    pub questions_max: usize,
    /// Questions that wait for their turn; beyond them they are refused.
    pub questions_waiting_max: usize,
    /// A question that waits for its turn for longer is refused, in ms.
    pub waiting_ms_max: u64,
    /// The longest that a question may run, its answer's way to the client
    /// included, in ms. It ends before `store.view_lease_ms` in any case.
    pub time_ms_max: u64,
    /// The most rows of an answer.
    pub rows_max: u64,
    /// The most bytes of an answer.
    pub answer_bytes_max: u64,
    /// The most memory that the operators of one question may hold.
    pub question_memory_bytes_max: u64,
    /// The same of all questions together; beyond it they spill to disk.
    pub memory_bytes_max: u64,
    /// The most memory that the engine's process may hold. Beyond it the newest
    /// questions are ended, and then the engine.
    pub engine_memory_bytes_max: u64,
    /// How often that is looked at, in ms.
    pub memory_check_ms: u64,
    /// Where operators put what does not fit into memory; absent, a directory
    /// in the data directory.
    pub spill_directory: Option<PathBuf>,
    /// The most bytes of such files.
    pub spill_bytes_max: u64,
    /// How many parts of one question run beside each other; 0 takes as many as
    /// there are processors.
    pub target_partitions: usize,
    /// The longest statement, with its parameters.
    pub statement_bytes_max: usize,
    /// How deep parentheses and operators of a statement may be nested.
    pub statement_depth_max: usize,
    /// How many words, signs and values a statement may have.
    pub statement_tokens_max: usize,
    /// How deep views may stand on views.
    pub view_depth_max: usize,
    /// The most views of one tenant.
    pub views_max: usize,
    /// The longest statement of a view.
    pub view_bytes_max: usize,
    /// All views of one tenant together, names included, in bytes.
    pub views_bytes_max: usize,
    /// How often a question whose engine crashed is asked again, if nothing of
    /// its answer has left.
    pub question_retries_max: u32,
    /// The most streams in one statement.
    pub streams_max: usize,
    /// Bytes that one call of a function may make out of one batch of rows.
    pub function_bytes_max: u64,
    /// Recent records that the engine keeps as columns, in bytes.
    pub tail_cache_bytes_max: u64,
    /// Footers of chunks that the engine keeps, in bytes.
    pub footer_cache_bytes_max: u64,
    /// Heads of search indexes that the engine keeps, in bytes.
    pub index_cache_bytes_max: u64,
    /// Batches of the journal that are on their way to the engine at a time, in
    /// bytes.
    pub tail_bytes_max: u64,
    /// Of these, the most in one piece; a batch that is larger goes alone.
    pub tail_piece_bytes_max: u64,
    /// How long the engine may take to start, in ms.
    pub start_ms_max: u64,
    /// The longest pause before it is started again after it failed, in ms; the
    /// first one is a hundredth of it.
    pub restart_pause_ms_max: u64,
    /// An engine that nobody asks for this long is ended, in ms.
    pub idle_ms_max: u64,
    /// How often a question that wants it is told how far it is, in ms.
    pub progress_ms: u64,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            questions_max: 8,
            questions_waiting_max: 64,
            waiting_ms_max: 30_000,
            time_ms_max: 300_000,
            rows_max: 100_000_000,
            answer_bytes_max: 16 << 30,
            question_memory_bytes_max: 512 << 20,
            memory_bytes_max: 512 << 20,
            engine_memory_bytes_max: 2 << 30,
            memory_check_ms: 250,
            spill_directory: None,
            spill_bytes_max: 10 << 30,
            target_partitions: 0,
            statement_bytes_max: 1 << 20,
            statement_depth_max: 128,
            statement_tokens_max: 100_000,
            view_depth_max: 16,
            views_max: 1_000,
            view_bytes_max: 64 << 10,
            views_bytes_max: 8 << 20,
            question_retries_max: 1,
            streams_max: 256,
            function_bytes_max: 256 << 20,
            tail_cache_bytes_max: 256 << 20,
            footer_cache_bytes_max: 64 << 20,
            index_cache_bytes_max: 64 << 20,
            tail_bytes_max: 64 << 20,
            tail_piece_bytes_max: 4 << 20,
            start_ms_max: 10_000,
            restart_pause_ms_max: 10_000,
            idle_ms_max: 300_000,
            progress_ms: 200,
        }
    }
}

impl QueryOptions {
    /// Checks the bounds of every field.
    ///
    /// # Errors
    /// The first field outside its bounds, and a sentence that says them.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let bounds: [(&'static str, u64, u64, u64); 18] = [
            ("questions_max", self.questions_max as u64, 1, 1_000),
            ("questions_waiting_max", self.questions_waiting_max as u64, 0, 100_000),
            ("time_ms_max", self.time_ms_max, 1, 24 * 3600 * 1000),
            ("memory_bytes_max", self.memory_bytes_max, 16 << 20, 1 << 50),
            ("question_memory_bytes_max", self.question_memory_bytes_max, 1 << 20, 1 << 50),
            ("engine_memory_bytes_max", self.engine_memory_bytes_max, 64 << 20, 1 << 50),
            ("memory_check_ms", self.memory_check_ms, 10, 60_000),
            ("target_partitions", self.target_partitions as u64, 0, 1_024),
            ("statement_bytes_max", self.statement_bytes_max as u64, 1 << 10, 16 << 20),
            ("view_bytes_max", self.view_bytes_max as u64, 1 << 10, 1 << 20),
            // Half of what one message holds: names of streams are listed with them.
            ("views_bytes_max", self.views_bytes_max as u64, 1 << 10, 32 << 20),
            ("question_retries_max", u64::from(self.question_retries_max), 0, 10),
            ("streams_max", self.streams_max as u64, 1, 10_000),
            ("tail_piece_bytes_max", self.tail_piece_bytes_max, 64 << 10, 32 << 20),
            ("tail_bytes_max", self.tail_bytes_max, self.tail_piece_bytes_max, 1 << 40),
            ("start_ms_max", self.start_ms_max, 100, 600_000),
            ("idle_ms_max", self.idle_ms_max, 10, u64::MAX),
            ("progress_ms", self.progress_ms, 10, 60_000),
        ];
        for (name, value, low, high) in bounds {
            if !(low..=high).contains(&value) {
                return Err((name, format!("is {value}, it must lie between {low} and {high}")));
            }
        }
        Ok(())
    }

    /// What one question may take at most.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            rows_max: self.rows_max,
            bytes_max: self.answer_bytes_max,
            time_ms_max: self.time_ms_max,
            memory_bytes_max: self.question_memory_bytes_max,
        }
    }

    /// The engine's share, without its places.
    pub(crate) fn engine(&self) -> EngineOptions {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let target_partitions = match self.target_partitions {
            0 => processors,
            some => some,
        };
        EngineOptions {
            memory_bytes_max: self.memory_bytes_max,
            spill_bytes_max: self.spill_bytes_max,
            tail_cache_bytes_max: self.tail_cache_bytes_max,
            footer_cache_bytes_max: self.footer_cache_bytes_max,
            index_cache_bytes_max: self.index_cache_bytes_max,
            target_partitions,
            // The server's queue comes first; a question that it gave up may
            // take a moment to end.
            questions_max: self.questions_max.saturating_mul(2),
            statement_bytes_max: self.statement_bytes_max,
            statement_depth_max: self.statement_depth_max,
            statement_tokens_max: self.statement_tokens_max,
            view_depth_max: self.view_depth_max,
            function_bytes_max: self.function_bytes_max,
            progress_ms: self.progress_ms,
            ..EngineOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_kept() {
        QueryOptions::default().validate().unwrap();
        let check = |options: QueryOptions, field: &str| {
            assert_eq!(options.validate().unwrap_err().0, field);
        };
        let of = QueryOptions::default;
        check(QueryOptions { questions_max: 0, ..of() }, "questions_max");
        check(QueryOptions { tail_bytes_max: 1, ..of() }, "tail_bytes_max");
        check(QueryOptions { view_bytes_max: 2 << 20, ..of() }, "view_bytes_max");
    }
}

//! Statements and searches over the read path: what the doors call.
//!
//! Nothing is computed here. A statement goes to the *engine*, a process of its
//! own that is started when it is first needed, is niced, and may be killed at
//! any time without harm to what is appended; this crate starts it and looks
//! after it, takes the cut that a statement reads, serves the engine the part
//! of it that lies in the journal, and hands the answer on. The engine reads
//! chunks by itself.
//!
//! It never decides who may ask.

mod admission;
mod answer;
mod cut;
mod engine_log;
mod engine_options;
mod engine_process;
mod engine_start;
mod frames;
mod metrics;
mod options;
mod queries;
mod question;
mod refusals;
mod running;
mod statement;
mod tail;
mod views;
pub mod wire;

pub use answer::{Answer, Part};
pub use cut::StreamCut;
pub use engine_options::EngineOptions;
pub use engine_process::EngineCommand;
pub use engine_start::Lifeline;
pub use frames::{FrameReader, FrameWriter};
pub use metrics::QueryMetrics;
pub use options::QueryOptions;
pub use queries::{Queries, QueryEnvironment};
pub use statement::{
    AnswerForm, Ask, HistogramQuestion, Limits, Parameter, PostgresQuestion, PostgresSession,
    Question, SearchOrder, SearchQuestion, SqlQuestion, TimeRange,
};

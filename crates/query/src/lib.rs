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

mod frames;
mod statement;
pub mod wire;

pub use frames::{FrameReader, FrameWriter};
pub use statement::{
    AnswerForm, Ask, HistogramQuestion, Limits, Parameter, PostgresQuestion, PostgresSession, Question,
    SearchOrder, SearchQuestion, SqlQuestion, TimeRange,
};

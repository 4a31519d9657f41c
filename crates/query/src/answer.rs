//! The answer to a question, part by part.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::cut::StreamCut;
use crate::wire::{Column, Progress, Refusal, Spent};

/// An answer that has begun. Its parts come as fast as they are taken; dropping
/// it ends the question.
#[derive(Debug)]
pub struct Answer {
    /// The answer's columns.
    pub columns: Vec<Column>,
    /// Their Arrow schema, as the IPC message of it.
    pub schema: Bytes,
    /// The types of the statement's placeholders, in SQL's words.
    pub parameters: Vec<String>,
    /// The statement's first words, such as `SELECT` or `CREATE VIEW`.
    pub command: String,
    /// What it is read of: one cut for all of the statement's streams.
    pub cut: Vec<StreamCut>,
    pub(crate) parts: mpsc::Receiver<Result<Part, Refusal>>,
    pub(crate) is_over: bool,
    pub(crate) question: EndOnDrop,
}

/// A part of an answer.
#[derive(Debug)]
pub enum Part {
    /// Bytes in the form that was asked for.
    Data {
        /// The rows in them.
        rows: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// How far the question is.
    Progress(Progress),
    /// The answer is whole; nothing follows.
    Done(Spent),
}

/// Ends a question's task when it is dropped, and with it the question.
#[derive(Debug)]
pub(crate) struct EndOnDrop(pub(crate) AbortHandle);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Answer {
    /// The next part; none behind [`Part::Done`].
    ///
    /// # Errors
    /// Why the answer ends unfinished: what came before is not the whole of it.
    /// Nothing follows.
    pub async fn next(&mut self) -> Result<Option<Part>, Refusal> {
        if self.is_over {
            return Ok(None);
        }
        let part = match self.parts.recv().await {
            Some(part) => part,
            None => Err(Refusal::protocol("left its question without an end")),
        };
        self.is_over = matches!(part, Ok(Part::Done(_)) | Err(_));
        if self.is_over {
            self.question.0.abort();
        }
        part.map(Some)
    }
}

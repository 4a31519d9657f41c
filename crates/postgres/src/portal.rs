//! Portals and cursors: statements with their values, and answers of which a
//! part was taken.

use std::sync::Arc;

use aquifer_query::{Answer, Parameter, Part};

use crate::error::Fault;
use crate::request::Format;
use crate::rows::Rows;
use crate::statements::Prepared;

/// A statement with values.
pub(crate) struct Portal {
    pub(crate) prepared: Arc<Prepared>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) formats: Vec<Format>,
    /// The answer, from when it was asked for.
    pub(crate) running: Option<Running>,
    /// It was executed to its end.
    pub(crate) is_over: bool,
    /// It stays when the transaction ends.
    pub(crate) is_held: bool,
}

/// An answer on its way.
pub(crate) struct Running {
    answer: Answer,
    pub(crate) rows: Rows,
    is_whole: bool,
}

impl Running {
    /// An answer that has begun.
    ///
    /// # Errors
    /// Columns that cannot be read.
    pub(crate) fn new(answer: Answer, formats: &[Format]) -> Result<Self, Fault> {
        let rows = Rows::new(&answer.schema, formats)?;
        Ok(Self { answer, rows, is_whole: false })
    }

    /// Whether it has columns at all, unlike that of `CREATE VIEW`.
    pub(crate) fn has_columns(&self) -> bool {
        !self.rows.heads().is_empty()
    }

    /// Waits until a row is there; false where none is left.
    pub(crate) async fn fill(&mut self) -> Result<bool, Fault> {
        while !self.rows.has_row() {
            if self.is_whole {
                return Ok(false);
            }
            match self.answer.next().await? {
                Some(Part::Data { bytes, .. }) => self.rows.feed(bytes)?,
                Some(Part::Progress(_)) => {}
                Some(Part::Done(_)) | None => self.is_whole = true,
            }
        }
        Ok(true)
    }

    /// What a client is told when `rows` of it were sent.
    pub(crate) fn tag(&self, rows: u64) -> String {
        match self.answer.command.to_ascii_uppercase().as_str() {
            "SELECT" | "WITH" | "VALUES" | "TABLE" | "" => format!("SELECT {rows}"),
            other => other.to_owned(),
        }
    }
}

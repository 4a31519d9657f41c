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
    /// What it holds of what the client sent.
    pub(crate) bytes: usize,
    /// The answer, from when it was asked for.
    pub(crate) running: Option<Running>,
    /// It was executed to its end.
    pub(crate) is_over: bool,
    /// It stays when the transaction ends.
    pub(crate) is_held: bool,
}

impl Portal {
    /// Takes its values, which are held no longer then.
    pub(crate) fn take_parameters(&mut self) -> Vec<Parameter> {
        let parameters = std::mem::take(&mut self.parameters);
        self.bytes = self.bytes.saturating_sub(bytes_of(&parameters));
        parameters
    }
}

/// What values take.
pub(crate) fn bytes_of(parameters: &[Parameter]) -> usize {
    let text = |parameter: &Parameter| match parameter {
        Parameter::Text(text) => text.len(),
        _ => 0,
    };
    size_of_val(parameters) + parameters.iter().map(text).sum::<usize>()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_were_taken_are_not_counted() {
        let parameters = vec![Parameter::Text("abc".to_owned()), Parameter::Null];
        assert_eq!(bytes_of(&parameters), 3 + 2 * size_of::<Parameter>());
        let sql = "select $1, $2";
        let mut portal = Portal {
            prepared: Arc::new(Prepared::new(sql.to_owned(), Vec::new()).unwrap()),
            bytes: sql.len() + bytes_of(&parameters),
            parameters,
            formats: Vec::new(),
            running: None,
            is_over: false,
            is_held: false,
        };
        assert_eq!(portal.take_parameters().len(), 2);
        assert_eq!(portal.bytes, sql.len());
    }
}

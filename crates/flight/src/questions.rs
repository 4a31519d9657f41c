//! Questions of the door, as `aquifer_query` takes them.

use std::sync::Arc;
use std::time::Duration;

use aquifer_query::{Answer, AnswerForm, Ask, Limits, Parameter, Part, Question, SqlQuestion};
use tonic::{Request, Status};

use crate::calls::TimeLimit;
use crate::login::Caller;
use crate::problem::Problem;
use crate::server::Door;

/// The most bytes of a list of streams and views.
const LISTING_BYTES_MAX: u64 = 32 << 20;

/// Who asks, and what it may take.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(crate) door: Arc<Door>,
    pub(crate) caller: Caller,
    limit: Duration,
}

impl Asker {
    /// The one who makes this call.
    ///
    /// # Errors
    /// A call that did not go through the door.
    pub(crate) fn of<T>(door: &Arc<Door>, request: &Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let limit = request.extensions().get::<TimeLimit>().copied();
        match (caller, limit) {
            (Some(caller), Some(TimeLimit(limit))) => {
                Ok(Self { door: door.clone(), caller, limit })
            }
            _ => Err(Problem::internal("nobody was let in for this call").into()),
        }
    }

    /// Asks for rows, as an Arrow stream.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn ask(
        &self,
        sql: &str,
        parameters: Vec<Parameter>,
    ) -> Result<Answer, Problem> {
        let sql = SqlQuestion { sql: sql.to_owned(), parameters, describe_only: false };
        self.put(sql, AnswerForm::Arrow, u64::MAX).await
    }

    /// Asks what a statement would answer with.
    ///
    /// # Errors
    /// Why it would not.
    pub(crate) async fn describe(&self, sql: &str) -> Result<Answer, Problem> {
        let (sql, parameters) = (sql.to_owned(), Vec::new());
        let sql = SqlQuestion { sql, parameters, describe_only: true };
        self.put(sql, AnswerForm::Arrow, u64::MAX).await
    }

    /// Asks for lines of JSON arrays, all of them.
    ///
    /// # Errors
    /// Why there is no whole answer.
    pub(crate) async fn lines(&self, sql: &str) -> Result<Vec<u8>, Problem> {
        let (sql, parameters) = (sql.to_owned(), Vec::new());
        let sql = SqlQuestion { sql, parameters, describe_only: false };
        let mut answer = self.put(sql, AnswerForm::Rows, LISTING_BYTES_MAX).await?;
        let mut lines = Vec::new();
        while let Some(part) = answer.next().await? {
            if let Part::Data { bytes, .. } = part {
                lines.extend_from_slice(&bytes);
            }
        }
        Ok(lines)
    }

    async fn put(
        &self,
        sql: SqlQuestion,
        form: AnswerForm,
        bytes_max: u64,
    ) -> Result<Answer, Problem> {
        let question = Question {
            tenant: self.caller.tenant.clone(),
            ask: Ask::Sql(sql),
            form,
            limits: Limits {
                rows_max: u64::MAX,
                bytes_max,
                time_ms_max: u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX).max(1),
                memory_bytes_max: self.door.options.statement_memory_bytes_max,
            },
            wants_progress: false,
        };
        Ok(self.door.queries.ask(question).await?)
    }
}

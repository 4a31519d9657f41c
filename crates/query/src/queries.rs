//! What doors call: questions in, answers out.

use std::sync::Arc;
use std::time::Duration;

use aquifer_env::{Clock, Random};
use aquifer_stream::StreamStore;
use aquifer_types::ErrorKind;
use tokio::sync::{mpsc, oneshot};

use crate::admission::{Admission, Turn};
use crate::answer::{Answer, EndOnDrop, Part};
use crate::engine_process::{EngineCommand, EngineProcess};
use crate::question::{Begun, Conversation, Outlet, PARTS_AHEAD_MAX, Shared, Stop, Told};
use crate::running::{RunningQuestion, RunningQuestions};
use crate::tail::TailBudget;
use crate::wire::{Refusal, Spent};
use crate::{Ask, Limits, Parameter, PostgresQuestion, QueryMetrics, QueryOptions, Question};

/// The engine keeps a question's time by itself, and says more when it is over;
/// the server steps in this much later.
const TIME_GRACE: Duration = Duration::from_secs(1);
/// A question ends this much before the lease on its chunks does.
const LEASE_MARGIN: Duration = Duration::from_secs(2);

/// What questions need besides the store and their options.
#[derive(Debug)]
pub struct QueryEnvironment {
    /// For ages and measurements.
    pub clock: Arc<dyn Clock>,
    /// For names.
    pub random: Arc<dyn Random>,
    /// Where questions are counted.
    pub metrics: QueryMetrics,
    /// How the engine is started.
    pub engine: EngineCommand,
}

/// Answers questions; cheap to clone. The engine is started by the first one.
#[derive(Debug, Clone)]
pub struct Queries {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Shared,
    clock: Arc<dyn Clock>,
    admission: Admission,
    running: RunningQuestions,
    engine: EngineProcess,
}

impl Queries {
    /// Questions over `store`. Nothing is started yet.
    #[must_use]
    pub fn new(store: StreamStore, options: QueryOptions, environment: QueryEnvironment) -> Self {
        let QueryEnvironment { clock, random, metrics, engine } = environment;
        let options = Arc::new(options);
        let running = RunningQuestions::default();
        let engine = EngineProcess::new(
            engine,
            store.options(),
            options.clone(),
            clock.clone(),
            random,
            metrics.clone(),
            running.clone(),
        );
        let admission = Admission::new(&options, metrics.clone());
        let tail_budget = TailBudget::new(&options);
        let shared = Shared { store, options, metrics, tail_budget };
        Self { inner: Arc::new(Inner { shared, clock, admission, running, engine }) }
    }

    /// The options in force.
    #[must_use]
    pub fn options(&self) -> &QueryOptions {
        &self.inner.shared.options
    }

    /// Asks; returns when the answer begins. Its limits are lowered to the
    /// server's. Dropping the call, or the answer, ends the question.
    ///
    /// # Errors
    /// A refusal that says what the caller can do; nothing was answered then.
    pub async fn ask(&self, question: Question) -> Result<Answer, Refusal> {
        let entered = self.enter(&question).await;
        let (turn, running) = entered.inspect_err(|refusal| {
            self.inner.shared.metrics.ended(outcome_of(refusal));
        })?;
        self.begin(question, turn, running).await
    }

    /// Ends all questions and the engine; what is asked afterwards is refused.
    pub async fn stop(&self) {
        self.inner.admission.close();
        self.inner.running.close();
        self.inner.engine.stop().await;
    }

    async fn enter(&self, question: &Question) -> Result<(Turn, RunningQuestion), Refusal> {
        self.check_size(question)?;
        let turn = self.inner.admission.enter().await?;
        Ok((turn, self.inner.running.enter()?))
    }

    async fn begin(
        &self,
        mut question: Question,
        turn: Turn,
        running: RunningQuestion,
    ) -> Result<Answer, Refusal> {
        question.limits = self.clamp(question.limits);
        let (begun_sender, begun) = oneshot::channel();
        let (parts_sender, mut parts) = mpsc::channel(PARTS_AHEAD_MAX);
        let outlet = Outlet { begun: Some(begun_sender), parts: parts_sender };
        let counted = Counted::new(&self.inner);
        let drive = drive(self.inner.clone(), question, counted, (turn, running), outlet);
        let question = EndOnDrop(tokio::spawn(drive).abort_handle());
        match begun.await {
            Ok(Begun { columns, schema, parameters, command, cut }) => {
                let is_over = false;
                Ok(Answer { columns, schema, parameters, command, cut, parts, is_over, question })
            }
            // It ended before it began, and says why where parts would be.
            Err(_) => match parts.recv().await {
                Some(Err(refusal)) => Err(refusal),
                _ => Err(Refusal::protocol("left its question without an answer")),
            },
        }
    }

    fn check_size(&self, question: &Question) -> Result<(), Refusal> {
        let text = |parameter: &Parameter| match parameter {
            Parameter::Text(text) => text.len(),
            _ => size_of::<Parameter>(),
        };
        let bytes = match &question.ask {
            Ask::Sql(sql) | Ask::Postgres(PostgresQuestion { sql, .. }) => {
                sql.sql.len() + sql.parameters.iter().map(text).sum::<usize>()
            }
            Ask::Search(search) => search.query.len(),
            Ask::Histogram(histogram) => {
                histogram.query.len() + histogram.top_of.iter().map(String::len).sum::<usize>()
            }
        };
        let limit = self.inner.shared.options.statement_bytes_max;
        match bytes > limit {
            true => Err(Refusal::too_large(
                "the statement with its parameters",
                limit as u64,
                "query.statement_bytes_max",
            )),
            false => Ok(()),
        }
    }

    /// The server's limits, where they are lower. A question ends before its
    /// chunks may be deleted.
    fn clamp(&self, asked: Limits) -> Limits {
        let own = self.inner.shared.options.limits();
        let lease = Duration::from_millis(self.inner.shared.store.options().view_lease_ms);
        let lease = lease.saturating_sub(TIME_GRACE + LEASE_MARGIN);
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1);
        Limits {
            rows_max: asked.rows_max.min(own.rows_max),
            bytes_max: asked.bytes_max.min(own.bytes_max),
            time_ms_max: asked.time_ms_max.min(own.time_ms_max).min(lease_ms),
            memory_bytes_max: asked.memory_bytes_max.min(own.memory_bytes_max),
        }
    }
}

/// Drives a question to its end and says to whom it matters how that was.
async fn drive(
    inner: Arc<Inner>,
    question: Question,
    mut counted: Counted,
    (turn, mut running): (Turn, RunningQuestion),
    mut outlet: Outlet,
) {
    let time_ms_max = question.limits.time_ms_max;
    let limit = Duration::from_millis(time_ms_max) + TIME_GRACE;
    let end = tokio::select! {
        why = running.ended() => Err(Some(why)),
        end = tokio::time::timeout(limit, converse(&inner, question, &mut outlet)) => {
            end.unwrap_or_else(|_| Err(Some(Refusal::out_of_time(time_ms_max))))
        }
    };
    let last = match end {
        Ok(spent) => {
            counted.note(&spent);
            Ok(Part::Done(spent))
        }
        Err(Some(refusal)) => {
            counted.outcome = outcome_of(&refusal);
            Err(refusal)
        }
        Err(None) => return,
    };
    drop(counted);
    // The next one's turn comes before a door that is slow has heard of it.
    drop((running, turn));
    drop(outlet.begun.take());
    // A door that is gone does not want to know.
    let _ = outlet.parts.send(last).await;
}

/// Talks with the engine; why there is no whole answer, unless nobody wants it.
async fn converse(
    inner: &Inner,
    question: Question,
    outlet: &mut Outlet,
) -> Result<Spent, Option<Refusal>> {
    let mut retries = inner.shared.options.question_retries_max;
    let mut told = Told::default();
    loop {
        let (connection, engine) = inner.engine.connect().await.map_err(Some)?;
        let talk = Conversation::new(inner.shared.clone(), question.clone(), connection);
        match talk.run(outlet, &mut told).await {
            Ok(spent) => {
                inner.engine.worked();
                return Ok(spent);
            }
            Err(Stop::Refused(refusal)) => return Err(Some(refusal)),
            Err(Stop::Unwanted) => return Err(None),
            Err(Stop::EngineGone) => {
                let gone = engine.gone().await;
                // Most often it was another question that ended it.
                if !gone.may_repeat || !told.may_repeat() || retries == 0 {
                    return Err(Some(gone.refusal));
                }
                retries -= 1;
            }
        }
    }
}

/// Counts a question when it is dropped.
struct Counted {
    inner: Arc<Inner>,
    started_ns: u64,
    outcome: &'static str,
}

impl Counted {
    /// One that is cut off from here on was cancelled.
    fn new(inner: &Arc<Inner>) -> Self {
        let started_ns = inner.clock.monotonic_ns();
        Self { inner: inner.clone(), started_ns, outcome: "cancelled" }
    }

    fn note(&mut self, spent: &Spent) {
        self.outcome = "ok";
        let metrics = &self.inner.shared.metrics;
        metrics.chunks_pruned.inc_by(spent.chunks_pruned);
        metrics.chunk_bytes.inc_by(spent.bytes_read);
        metrics.spilled_bytes.inc_by(spent.spilled_bytes);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let metrics = &self.inner.shared.metrics;
        let ns = self.inner.clock.monotonic_ns().saturating_sub(self.started_ns);
        metrics.seconds.observe(ns as f64 / 1e9);
        metrics.ended(self.outcome);
    }
}

/// Whose fault it is: the question's, or the server's.
fn outcome_of(refusal: &Refusal) -> &'static str {
    match refusal.kind {
        ErrorKind::Unavailable
        | ErrorKind::Internal
        | ErrorKind::Damaged
        | ErrorKind::StorageFull
        | ErrorKind::Indefinite => "failed",
        _ => "refused",
    }
}

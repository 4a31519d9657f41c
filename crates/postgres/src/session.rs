//! One connection that is logged in: messages in, answers out, in their order.
//!
//! While a statement runs, the session watches for its client: who goes, or
//! cancels, ends the statement. An error in the extended protocol passes over
//! everything up to the next `Sync`.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use aquifer_query::{
    Answer, AnswerForm, Ask, Limits, Parameter, PostgresQuestion, PostgresSession, Question,
    SqlQuestion,
};
use aquifer_types::TenantName;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::cancels::Cancellable;
use crate::error::{Fault, Problem, sqlstate};
use crate::frames::{FrameLimits, FrameReader};
use crate::metrics::result;
use crate::outbox::Outbox;
use crate::portal::{Portal, Running};
use crate::reply::{self, Transaction};
use crate::request::Request;
use crate::server::Door;
use crate::settings::{Settings, shown};
use crate::statements::Statements;

/// Who is logged in.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) user: String,
    pub(crate) tenant: TenantName,
}

/// What settings become when a transaction ends.
#[derive(Debug, Clone)]
pub(crate) struct SettingsBehind {
    /// With what was set in it, but for what was set for it alone.
    pub(crate) commit: Settings,
    /// As they were before it.
    pub(crate) rollback: Settings,
}

impl SettingsBehind {
    pub(crate) fn new(now: &Settings) -> Self {
        Self { commit: now.clone(), rollback: now.clone() }
    }
}

/// The state of a session.
pub(crate) struct Session<R, W> {
    pub(crate) door: Arc<Door>,
    pub(crate) identity: Identity,
    pub(crate) cancellable: Cancellable,
    pub(crate) reader: FrameReader<R>,
    pub(crate) outbox: Outbox<W>,
    pub(crate) settings: Settings,
    /// What settings become at the end of the transaction that is open.
    pub(crate) settings_behind: Option<SettingsBehind>,
    pub(crate) transaction: Transaction,
    pub(crate) statements: Statements,
    pub(crate) portals: HashMap<String, Portal>,
    /// Everything up to the next `Sync` is passed over.
    pub(crate) is_skipping: bool,
}

/// Whether the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    On,
    End,
}

impl<R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Session<R, W> {
    /// Says that the session is ready, and serves it to its end.
    pub(crate) async fn run(&mut self) -> io::Result<()> {
        let ended = match self.greet().await {
            Ok(()) => self.serve().await,
            Err(error) => Err(Fault::Broken(error)),
        };
        let ended = match ended {
            Ok(()) => Ok(()),
            Err(Fault::Broken(error)) => Err(error),
            Err(Fault::Problem(problem)) => {
                reply::error(self.outbox.buffer(), &problem);
                self.outbox.flush().await
            }
        };
        self.outbox.shut_down().await;
        ended
    }

    async fn greet(&mut self) -> io::Result<()> {
        let to = self.outbox.buffer();
        for (name, value) in self.settings.told() {
            reply::parameter_status(to, &name, &value);
        }
        reply::backend_key(to, self.cancellable.process, self.cancellable.secret);
        reply::ready(to, self.transaction);
        self.outbox.flush().await
    }

    async fn serve(&mut self) -> Result<(), Fault> {
        loop {
            match self.turn().await {
                Ok(Next::On) => {}
                Ok(Next::End) => return Ok(()),
                Err(Fault::Problem(problem)) if !problem.is_fatal => {
                    self.fail(&problem);
                    self.is_skipping = true;
                }
                Err(fault) => {
                    let is_protocol = matches!(&fault, Fault::Problem(problem)
                        if problem.sqlstate == sqlstate::PROTOCOL_VIOLATION);
                    if is_protocol {
                        self.door.metrics.malformed.inc();
                    }
                    return Err(fault);
                }
            }
        }
    }

    /// One message.
    async fn turn(&mut self) -> Result<Next, Fault> {
        if self.reader.has_begun() {
            // Whoever sends on without an end is not answered without one.
            self.outbox.flush_if_full().await?;
        } else {
            // Whoever waits for answers sees them all.
            self.outbox.flush().await?;
            let idle = Duration::from_millis(self.door.options.idle_ms_max);
            let mut stopping = self.door.stopping.clone();
            let waited = tokio::select! {
                waited = tokio::time::timeout(idle, self.reader.wait()) => waited,
                _ = stopping.wait_for(|is_stopping| *is_stopping) => {
                    let message = "the server is stopping";
                    return Err(Problem::fatal(sqlstate::SHUTDOWN, message).into());
                }
            };
            match waited {
                Ok(is_there) => {
                    if !is_there? {
                        return Ok(Next::End);
                    }
                }
                Err(_) => {
                    let message = format!("nothing was asked for {idle:?}");
                    return Err(Problem::fatal(sqlstate::IDLE, message).into());
                }
            }
        }
        let limits = FrameLimits {
            bytes_max: self.door.options.message_bytes_max,
            arrival_max: Duration::from_millis(self.door.options.message_ms_max),
        };
        let frame = self.reader.next(&limits).await?;
        // What was cancelled before it is over.
        self.cancellable.begin();
        let request = match Request::decode(frame.kind, frame.body.clone()) {
            Ok(request) => request,
            // A simple query's error is followed by readiness at once.
            Err(problem) if frame.kind == b'Q' && !problem.is_fatal => {
                if !self.is_skipping {
                    self.fail(&problem);
                    self.ready().await?;
                }
                return Ok(Next::On);
            }
            Err(problem) => return Err(problem.into()),
        };
        match request {
            Request::Terminate => return Ok(Next::End),
            Request::Sync => self.sync().await?,
            _ if self.is_skipping => {}
            Request::Query(sql) => self.simple(&sql).await?,
            extended => self.extended(extended).await?,
        }
        Ok(Next::On)
    }

    /// Tells of a problem; a transaction that is open has failed with it.
    pub(crate) fn fail(&mut self, problem: &Problem) {
        self.door.metrics.statements.get_or_create(&result(false)).inc();
        reply::error(self.outbox.buffer(), problem);
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::Failed;
        }
    }

    /// The end of what belongs together in the extended protocol.
    async fn sync(&mut self) -> Result<(), Fault> {
        self.is_skipping = false;
        self.ready().await
    }

    /// Says that the next statement may come. Outside of a transaction, what is
    /// not held ends here.
    pub(crate) async fn ready(&mut self) -> Result<(), Fault> {
        if self.transaction == Transaction::Idle {
            self.end_portals();
        }
        reply::ready(self.outbox.buffer(), self.transaction);
        Ok(self.outbox.flush().await?)
    }

    /// Ends all portals that are not held.
    pub(crate) fn end_portals(&mut self) {
        self.portals.retain(|_, portal| portal.is_held);
    }

    /// Refuses what cannot run in a transaction that has failed.
    pub(crate) fn check_transaction(&self, may_run: bool) -> Result<(), Problem> {
        if self.transaction != Transaction::Failed || may_run {
            return Ok(());
        }
        let message = "the transaction has failed: nothing runs until it ends";
        Err(Problem::new(sqlstate::TRANSACTION_FAILED, message).hint("send ROLLBACK"))
    }

    /// Room for `bytes` more of what the client sent.
    pub(crate) fn check_held(&self, bytes: usize) -> Result<(), Problem> {
        let held: usize = self.portals.values().map(|portal| portal.bytes).sum();
        if held.saturating_add(bytes) <= self.door.options.statements_bytes_max {
            return Ok(());
        }
        let message = "the statements and values of a connection's portals are too large together";
        Err(Problem::new(sqlstate::LIMIT_EXCEEDED, message)
            .hint("close some; postgres.statements_bytes_max is the limit"))
    }

    /// Room for one more portal.
    pub(crate) fn check_portals(&self) -> Result<(), Problem> {
        let portals_max = self.door.options.portals_max;
        let open = self.portals.values().filter(|portal| portal.running.is_some()).count();
        if open < portals_max {
            return Ok(());
        }
        let message = format!("a connection has at most {portals_max} portals with rows left");
        Err(Problem::new(sqlstate::LIMIT_EXCEEDED, message)
            .hint("close cursors; postgres.portals_max is the limit"))
    }

    /// Asks the engine.
    pub(crate) async fn ask(
        &mut self,
        sql: &str,
        parameters: Vec<Parameter>,
        describe_only: bool,
    ) -> Result<Answer, Fault> {
        let options = &self.door.options;
        let statement = Duration::from_millis(options.statement_ms_max);
        let limit = self.settings.statement_timeout().map_or(statement, |own| own.min(statement));
        let settings = self.settings.all().into_iter();
        let session = PostgresSession {
            user: self.identity.user.clone(),
            process: self.cancellable.process,
            settings: settings.map(|(name, value)| (name.to_lowercase(), value)).collect(),
        };
        let sql = SqlQuestion { sql: sql.to_owned(), parameters, describe_only };
        let question = Question {
            tenant: self.identity.tenant.clone(),
            ask: Ask::Postgres(PostgresQuestion { sql, session }),
            form: AnswerForm::Arrow,
            limits: Limits {
                rows_max: u64::MAX,
                bytes_max: u64::MAX,
                time_ms_max: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1),
                memory_bytes_max: options.statement_memory_bytes_max,
            },
            wants_progress: false,
        };
        let queries = self.door.queries.clone();
        let asked = async { Ok(queries.ask(question).await?) };
        watched(&mut self.reader, &mut self.cancellable, asked).await
    }

    /// Asks the engine for rows.
    pub(crate) async fn start(
        &mut self,
        sql: &str,
        parameters: Vec<Parameter>,
        formats: &[crate::request::Format],
    ) -> Result<Running, Fault> {
        let answer = self.ask(sql, parameters, false).await?;
        Running::new(answer, formats)
    }

    /// Waits for a row; false where none is left.
    pub(crate) async fn fill(&mut self, running: &mut Running) -> Result<bool, Fault> {
        if running.rows.has_row() {
            return Ok(true);
        }
        watched(&mut self.reader, &mut self.cancellable, running.fill()).await
    }

    /// Sends rows, `rows_max` at most; how many, and whether any may be left.
    pub(crate) async fn send_rows(
        &mut self,
        running: &mut Running,
        rows_max: Option<u64>,
    ) -> Result<(u64, bool), Fault> {
        let mut sent = 0;
        loop {
            if rows_max.is_some_and(|max| sent >= max) {
                return Ok((sent, true));
            }
            if !self.fill(running).await? {
                return Ok((sent, false));
            }
            if running.rows.put(self.outbox.buffer()) {
                sent += 1;
                self.door.metrics.rows.inc();
            }
            self.outbox.flush_if_full().await?;
        }
    }

    /// Sets a setting and tells of it; where it is local, to the end of the
    /// transaction.
    pub(crate) fn set(
        &mut self,
        name: &str,
        value: Option<&str>,
        is_local: bool,
    ) -> Result<(), Problem> {
        let is_told = self.settings.set(name, value)?;
        if let Some(behind) = self.settings_behind.as_mut().filter(|_| !is_local) {
            behind.commit.set(name, value)?;
        }
        if is_told {
            let value = self.settings.get(name)?;
            reply::parameter_status(self.outbox.buffer(), &shown(name), &value);
        }
        Ok(())
    }

    /// Sets one back, or all, and tells of it.
    pub(crate) fn reset(&mut self, name: Option<&str>) -> Result<(), Problem> {
        let is_told = self.settings.reset(name)?;
        if let Some(behind) = &mut self.settings_behind {
            behind.commit.reset(name)?;
        }
        if is_told {
            self.tell_settings();
        }
        Ok(())
    }

    /// Tells of all settings anew.
    pub(crate) fn tell_settings(&mut self) {
        let told = self.settings.told();
        let to = self.outbox.buffer();
        told.iter().for_each(|(name, value)| reply::parameter_status(to, name, value));
    }
}

/// Waits for something while looking whether the client cancels, or goes.
async fn watched<R: AsyncRead + Unpin, T>(
    reader: &mut FrameReader<R>,
    cancellable: &mut Cancellable,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    tokio::select! {
        biased;
        // In front of the work, which may be there whenever it is looked at.
        () = cancellable.cancelled() => {
            let message = "the statement was cancelled on its client's request";
            Err(Problem::new(sqlstate::CANCELED, message).into())
        }
        done = work => done,
        () = reader.gone() => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

#[cfg(test)]
mod tests {
    use aquifer_env::SeededRandom;

    use super::*;
    use crate::cancels::Cancels;
    use crate::frames::Budget;

    #[tokio::test]
    async fn a_cancel_is_seen_though_the_work_is_done() {
        let cancels = Cancels::default();
        let mut cancellable = cancels.enter(&SeededRandom::new(1));
        let mut reader = FrameReader::new(tokio::io::empty(), Budget::new(1 << 20));
        watched(&mut reader, &mut cancellable, async { Ok(()) }).await.unwrap();
        assert!(cancels.cancel(cancellable.process, cancellable.secret));
        let done = watched(&mut reader, &mut cancellable, async { Ok(()) }).await;
        assert!(matches!(done, Err(Fault::Problem(problem))
            if problem.sqlstate == sqlstate::CANCELED));
    }
}

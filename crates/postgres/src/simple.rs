//! The simple query protocol, and the session's own statements in either.

use std::sync::Arc;

use aquifer_query::Parameter;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::command::Command;
use crate::error::{Fault, Problem, sqlstate};
use crate::metrics::result;
use crate::portal::Portal;
use crate::reply::{self, ColumnHead, Transaction};
use crate::request::Format;
use crate::session::{Session, SettingsBehind};
use crate::settings::shown;
use crate::statements::{Kind, Prepared};
use crate::types::TEXT;

/// Where a command's rows go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outlet<'a> {
    /// Whether its columns are described in front of them, as the simple
    /// protocol does.
    pub(crate) describes: bool,
    pub(crate) formats: &'a [Format],
}

impl<R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Session<R, W> {
    /// `Query`: any number of statements, up to the first that fails.
    pub(crate) async fn simple(&mut self, text: &str) -> Result<(), Fault> {
        let statements = crate::lexer::statements(text);
        if statements.is_empty() {
            reply::empty_query(self.outbox.buffer());
        }
        for (start, sql) in statements {
            match self.one(sql).await {
                Ok(()) => self.door.metrics.statements.get_or_create(&result(true)).inc(),
                Err(Fault::Problem(problem)) if !problem.is_fatal => {
                    let before = text.get(..start).unwrap_or_default().chars().count();
                    self.fail(&problem.moved(before as u64));
                    break;
                }
                Err(fault) => return Err(fault),
            };
            self.outbox.flush_if_full().await?;
        }
        self.ready().await
    }

    async fn one(&mut self, sql: &str) -> Result<(), Fault> {
        if let Some(command) = Command::parse(sql)? {
            let outlet = Outlet { describes: true, formats: &[] };
            return self.command(&command, Vec::new(), outlet).await;
        }
        self.check_transaction(false)?;
        let mut running = self.start(sql, Vec::new(), &[]).await?;
        if running.has_columns() {
            reply::row_description(self.outbox.buffer(), running.rows.heads());
        }
        let (sent, _) = self.send_rows(&mut running, None).await?;
        reply::command_complete(self.outbox.buffer(), &running.tag(sent));
        Ok(())
    }

    /// Runs a statement of the session.
    pub(crate) async fn command(
        &mut self,
        command: &Command,
        parameters: Vec<Parameter>,
        outlet: Outlet<'_>,
    ) -> Result<(), Fault> {
        let may_run = command.ends_transaction() || *command == Command::Savepoint("ROLLBACK");
        self.check_transaction(may_run)?;
        let tag = match command {
            Command::Begin => self.begin(),
            Command::Commit => self.end_transaction(true),
            Command::Rollback => self.end_transaction(false),
            Command::Savepoint(tag) => self.savepoint(tag)?,
            Command::Set { is_local: true, .. } if self.transaction == Transaction::Idle => {
                let message = "SET LOCAL can only be used in a transaction";
                self.warn(sqlstate::NO_TRANSACTION, message);
                "SET".to_owned()
            }
            Command::Set { name, value, is_local } => {
                self.set(name, value.as_deref(), *is_local)?;
                "SET".to_owned()
            }
            Command::Reset { name } => {
                self.reset(name.as_deref())?;
                "RESET".to_owned()
            }
            Command::Show { name } => {
                let value = self.settings.get(name)?;
                self.table(&[&shown(name)], &[vec![value]], outlet).await?;
                "SHOW".to_owned()
            }
            Command::ShowAll => {
                let all = self.settings.all().into_iter();
                let rows: Vec<_> = all.map(|(name, value)| vec![name, value]).collect();
                self.table(&["name", "setting"], &rows, outlet).await?;
                "SHOW".to_owned()
            }
            Command::Nothing(tag) => (*tag).to_owned(),
            Command::DiscardAll => self.discard_all()?,
            Command::Deallocate { name } => self.deallocate(name.as_deref())?,
            Command::Declare { name, sql, is_held } => {
                self.declare(name, sql, *is_held, parameters).await?
            }
            Command::Fetch { name, count, is_move } => {
                self.fetch(name, *count, *is_move, outlet).await?
            }
            Command::CloseCursor { name } => self.close_cursor(name.as_deref())?,
            Command::CopyOut { sql, form } => self.copy_out(sql, form, parameters).await?,
        };
        reply::command_complete(self.outbox.buffer(), &tag);
        Ok(())
    }

    /// The columns that a command's rows have; none where it has no rows.
    pub(crate) fn columns_of(&self, command: &Command, formats: &[Format]) -> Vec<ColumnHead> {
        let names: Vec<String> = match command {
            Command::Show { name } => vec![shown(name)],
            Command::ShowAll => vec!["name".to_owned(), "setting".to_owned()],
            Command::Fetch { name, is_move: false, .. } => {
                let running = self.portals.get(name).and_then(|portal| portal.running.as_ref());
                let heads = running.map(|running| running.rows.heads().to_vec());
                let mut heads = heads.unwrap_or_default();
                for (at, head) in heads.iter_mut().enumerate() {
                    head.format = match formats {
                        [] => Format::Text,
                        [one] => *one,
                        each => each.get(at).copied().unwrap_or(Format::Text),
                    };
                }
                return heads;
            }
            _ => Vec::new(),
        };
        let head = |name| ColumnHead { name, pg_type: TEXT, format: Format::Text };
        names.into_iter().map(head).collect()
    }

    /// Puts rows of text, which is written alike in both formats.
    async fn table(
        &mut self,
        names: &[&str],
        rows: &[Vec<String>],
        outlet: Outlet<'_>,
    ) -> Result<(), Fault> {
        if outlet.describes {
            let head = |name: &&str| ColumnHead {
                name: (*name).to_owned(),
                pg_type: TEXT,
                format: Format::Text,
            };
            let heads: Vec<_> = names.iter().map(head).collect();
            reply::row_description(self.outbox.buffer(), &heads);
        }
        for row in rows {
            reply::data_row(self.outbox.buffer(), row.len(), |to| {
                for value in row {
                    reply::value(to, |to| to.extend_from_slice(value.as_bytes()));
                }
            });
            self.outbox.flush_if_full().await?;
        }
        Ok(())
    }

    fn warn(&mut self, sqlstate: &str, message: &str) {
        reply::warning(self.outbox.buffer(), &Problem::new(sqlstate, message));
    }

    fn begin(&mut self) -> String {
        if self.transaction == Transaction::Idle {
            self.transaction = Transaction::Open;
            self.settings_behind = Some(SettingsBehind::new(&self.settings));
        } else {
            self.warn("25001", "there is a transaction in progress already");
        }
        "BEGIN".to_owned()
    }

    fn end_transaction(&mut self, is_commit: bool) -> String {
        let before = std::mem::replace(&mut self.transaction, Transaction::Idle);
        if before == Transaction::Idle {
            self.warn(sqlstate::NO_TRANSACTION, "there is no transaction in progress");
        }
        let is_kept = is_commit && before != Transaction::Failed;
        if let Some(SettingsBehind { commit, rollback }) = self.settings_behind.take() {
            let behind = if is_kept { commit } else { rollback };
            if behind != self.settings {
                self.settings = behind;
                self.tell_settings();
            }
        }
        self.end_portals();
        if is_kept { "COMMIT" } else { "ROLLBACK" }.to_owned()
    }

    fn savepoint(&mut self, tag: &str) -> Result<String, Problem> {
        if self.transaction == Transaction::Idle {
            let message = "savepoints are of transactions";
            return Err(Problem::new(sqlstate::NO_TRANSACTION, message));
        }
        // Only reads lie behind it: there is nothing else to undo.
        self.transaction = Transaction::Open;
        Ok(tag.to_owned())
    }

    fn discard_all(&mut self) -> Result<String, Problem> {
        if self.transaction != Transaction::Idle {
            let message = "DISCARD ALL cannot run in a transaction";
            return Err(Problem::new("25001", message));
        }
        self.portals.clear();
        self.statements.clear();
        self.settings.reset(None)?;
        self.tell_settings();
        Ok("DISCARD ALL".to_owned())
    }

    fn deallocate(&mut self, name: Option<&str>) -> Result<String, Problem> {
        let Some(name) = name else {
            self.statements.clear();
            return Ok("DEALLOCATE ALL".to_owned());
        };
        self.statements.get(name)?;
        self.statements.remove(name);
        Ok("DEALLOCATE".to_owned())
    }

    async fn declare(
        &mut self,
        name: &str,
        sql: &str,
        is_held: bool,
        parameters: Vec<Parameter>,
    ) -> Result<String, Fault> {
        if self.transaction == Transaction::Idle && !is_held {
            let message = "DECLARE CURSOR can only be used in a transaction";
            return Err(Problem::new(sqlstate::NO_TRANSACTION, message)
                .hint("send BEGIN before it, or declare it WITH HOLD")
                .into());
        }
        if self.portals.contains_key(name) {
            let message = format!("there is a cursor \"{name}\" already");
            return Err(Problem::new(sqlstate::DUPLICATE_CURSOR, message).into());
        }
        self.check_portals()?;
        let bytes = name.len() + sql.len();
        self.check_held(bytes)?;
        let running = self.start(sql, parameters, &[]).await?;
        let prepared = Prepared::new(sql.to_owned(), Vec::new())?;
        let portal = Portal {
            prepared: Arc::new(Prepared { kind: Kind::Question, ..prepared }),
            parameters: Vec::new(),
            formats: Vec::new(),
            bytes,
            running: Some(running),
            is_over: false,
            is_held,
        };
        self.portals.insert(name.to_owned(), portal);
        Ok("DECLARE CURSOR".to_owned())
    }

    async fn fetch(
        &mut self,
        name: &str,
        count: Option<u64>,
        is_move: bool,
        outlet: Outlet<'_>,
    ) -> Result<String, Fault> {
        let mut portal = self.portals.remove(name).ok_or_else(|| no_cursor(name))?;
        let Some(running) = &mut portal.running else { return Err(no_cursor(name).into()) };
        let moved = if is_move {
            let mut moved = 0;
            while count.is_none_or(|max| moved < max) && self.fill(running).await? {
                running.rows.pass();
                moved += 1;
            }
            format!("MOVE {moved}")
        } else {
            running.rows.set_formats(outlet.formats)?;
            if outlet.describes {
                reply::row_description(self.outbox.buffer(), running.rows.heads());
            }
            let (sent, _) = self.send_rows(running, count).await?;
            format!("FETCH {sent}")
        };
        // One that failed is gone; its question has ended.
        self.portals.insert(name.to_owned(), portal);
        Ok(moved)
    }

    fn close_cursor(&mut self, name: Option<&str>) -> Result<String, Problem> {
        match name {
            None => {
                self.portals.clear();
                Ok("CLOSE CURSOR ALL".to_owned())
            }
            Some(name) => match self.portals.remove(name) {
                Some(_) => Ok("CLOSE CURSOR".to_owned()),
                None => Err(no_cursor(name)),
            },
        }
    }
}

pub(crate) fn no_cursor(name: &str) -> Problem {
    Problem::new(sqlstate::NO_CURSOR, format!("there is no cursor \"{name}\""))
}

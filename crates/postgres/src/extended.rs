//! The extended query protocol: parse, bind, describe, execute, close.

use aquifer_query::Parameter;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{Fault, Problem, sqlstate};
use crate::metrics::result;
use crate::parameters;
use crate::portal::{Portal, bytes_of};
use crate::reply;
use crate::request::{Bind, Format, Request, Target};
use crate::session::Session;
use crate::simple::{Outlet, no_cursor};
use crate::statements::{Kind, Prepared};
use crate::types;

impl<R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Session<R, W> {
    /// A message of the extended protocol other than `Sync`.
    pub(crate) async fn extended(&mut self, request: Request) -> Result<(), Fault> {
        match request {
            Request::Parse { name, sql, types } => self.parse(name, sql, types),
            Request::Bind(bind) => self.bind(bind).await,
            Request::Describe(Target::Statement(name)) => self.describe_statement(&name).await,
            Request::Describe(Target::Portal(name)) => self.describe_portal(&name).await,
            Request::Execute { portal, rows_max } => {
                self.execute(&portal, (rows_max > 0).then_some(rows_max)).await
            }
            Request::Close(target) => {
                match &target {
                    Target::Statement(name) => drop(self.statements.remove(name)),
                    Target::Portal(name) => drop(self.portals.remove(name)),
                }
                reply::close_complete(self.outbox.buffer());
                Ok(())
            }
            Request::Flush => Ok(self.outbox.flush().await?),
            // What is left of a `COPY FROM` that was refused is passed over, as
            // PostgreSQL does; the others do not come here.
            Request::Copy | Request::Query(_) | Request::Sync | Request::Terminate => Ok(()),
        }
    }

    fn parse(&mut self, name: String, sql: String, types: Vec<u32>) -> Result<(), Fault> {
        let prepared = Prepared::new(sql, types)?;
        let may_run = match &prepared.kind {
            Kind::Empty => true,
            Kind::Command(command) => command.ends_transaction(),
            Kind::Question => false,
        };
        self.check_transaction(may_run)?;
        self.statements.put(name, prepared)?;
        reply::parse_complete(self.outbox.buffer());
        Ok(())
    }

    async fn bind(&mut self, bind: Bind) -> Result<(), Fault> {
        let prepared = self.statements.get(&bind.statement)?;
        if !bind.portal.is_empty() && self.portals.contains_key(&bind.portal) {
            let message = format!("there is a portal \"{}\" already", bind.portal);
            return Err(Problem::new(sqlstate::DUPLICATE_CURSOR, message).into());
        }
        let (formats, values) = (&bind.formats, &bind.values);
        if formats.len() > 1 && formats.len() != values.len() {
            let message = format!("{} formats for {} values", formats.len(), values.len());
            return Err(Problem::new(sqlstate::PROTOCOL_VIOLATION, message).into());
        }
        let format_of = |at: usize| match formats.as_slice() {
            [] => Format::Text,
            [one] => *one,
            each => each.get(at).copied().unwrap_or(Format::Text),
        };
        let is_binary = |at: usize| format_of(at) == Format::Binary && prepared.type_of(at) == 0;
        let needs_types = (0..values.len()).any(is_binary);
        if needs_types && prepared.described.get().is_none() && prepared.kind == Kind::Question {
            self.describe(&prepared).await?;
        }
        let read = |(at, value): (usize, &Option<bytes::Bytes>)| {
            parameters::read(at + 1, prepared.type_of(at), format_of(at), value.as_ref())
        };
        let parameters: Vec<Parameter> =
            values.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        // An unnamed one makes room for the next.
        self.portals.remove(&bind.portal);
        let portals_max = self.door.options.statements_max;
        if self.portals.len() >= portals_max {
            let message = format!("a connection has at most {portals_max} portals");
            return Err(Problem::new(sqlstate::LIMIT_EXCEEDED, message).into());
        }
        let own = bind.portal.len() + size_of_val(bind.result_formats.as_slice());
        let bytes = own + prepared.sql.len() + bytes_of(&parameters);
        self.check_held(bytes)?;
        let portal = Portal {
            prepared,
            parameters,
            bytes,
            formats: bind.result_formats,
            running: None,
            is_over: false,
            is_held: false,
        };
        self.portals.insert(bind.portal, portal);
        reply::bind_complete(self.outbox.buffer());
        Ok(())
    }

    /// Asks the engine what a statement's placeholders and columns are.
    async fn describe(&mut self, prepared: &Prepared) -> Result<Vec<reply::ColumnHead>, Fault> {
        let answer = self.ask(&prepared.sql, Vec::new(), true).await?;
        let described = answer.parameters.iter().map(|words| types::of_words(words).oid);
        // Somebody may have asked before; it says the same.
        let _ = prepared.described.set(described.collect());
        Ok(crate::rows::Rows::new(&answer.schema, &[])?.heads().to_vec())
    }

    async fn describe_statement(&mut self, name: &str) -> Result<(), Fault> {
        let prepared = self.statements.get(name)?;
        let columns = match &prepared.kind {
            Kind::Empty => Vec::new(),
            Kind::Command(command) => self.columns_of(command, &[]),
            Kind::Question => {
                self.check_transaction(false)?;
                self.describe(&prepared).await?
            }
        };
        let described = prepared.described.get().map_or(0, Vec::len);
        let count = described.max(prepared.declared.len());
        let type_of = |at| match prepared.type_of(at) {
            0 => types::TEXT.oid,
            oid => oid,
        };
        let types: Vec<u32> = (0..count).map(type_of).collect();
        let to = self.outbox.buffer();
        reply::parameter_description(to, &types);
        describe_columns(to, &columns);
        Ok(())
    }

    async fn describe_portal(&mut self, name: &str) -> Result<(), Fault> {
        let mut portal = self.portals.remove(name).ok_or_else(|| no_cursor(name))?;
        let described = self.columns_of_portal(&mut portal).await;
        self.portals.insert(name.to_owned(), portal);
        let columns = described?;
        describe_columns(self.outbox.buffer(), &columns);
        Ok(())
    }

    async fn columns_of_portal(
        &mut self,
        portal: &mut Portal,
    ) -> Result<Vec<reply::ColumnHead>, Fault> {
        let prepared = portal.prepared.clone();
        match &prepared.kind {
            Kind::Empty => Ok(Vec::new()),
            Kind::Command(command) => Ok(self.columns_of(command, &portal.formats)),
            // To describe is not to execute.
            Kind::Question if prepared.changes() => Ok(Vec::new()),
            Kind::Question => {
                self.begin_portal(portal).await?;
                let heads = portal.running.as_ref().map(|running| running.rows.heads().to_vec());
                Ok(heads.unwrap_or_default())
            }
        }
    }

    /// Asks for the answer, of which then both the columns and the rows come.
    async fn begin_portal(&mut self, portal: &mut Portal) -> Result<(), Fault> {
        if portal.running.is_some() || portal.is_over {
            return Ok(());
        }
        self.check_transaction(false)?;
        self.check_portals()?;
        let parameters = portal.take_parameters();
        let sql = &portal.prepared.sql;
        portal.running = Some(self.start(sql, parameters, &portal.formats).await?);
        Ok(())
    }

    async fn execute(&mut self, name: &str, rows_max: Option<u64>) -> Result<(), Fault> {
        let mut portal = self.portals.remove(name).ok_or_else(|| no_cursor(name))?;
        // A portal that fails is gone, and its question has ended.
        self.execute_portal(&mut portal, rows_max).await?;
        self.door.metrics.statements.get_or_create(&result(true)).inc();
        let ended = self.transaction == reply::Transaction::Idle
            && matches!(&portal.prepared.kind, Kind::Command(command) if command.ends_transaction());
        if !ended {
            self.portals.insert(name.to_owned(), portal);
        }
        Ok(())
    }

    async fn execute_portal(
        &mut self,
        portal: &mut Portal,
        rows_max: Option<u64>,
    ) -> Result<(), Fault> {
        let prepared = portal.prepared.clone();
        match &prepared.kind {
            Kind::Empty => {
                reply::empty_query(self.outbox.buffer());
                Ok(())
            }
            Kind::Command(command) => {
                let parameters = portal.take_parameters();
                let outlet = Outlet { describes: false, formats: &portal.formats };
                self.command(command, parameters, outlet).await
            }
            Kind::Question if portal.is_over => {
                let message = "the portal was executed to its end";
                Err(Problem::new(sqlstate::NOT_IN_STATE, message).into())
            }
            Kind::Question => {
                self.begin_portal(portal).await?;
                let Some(running) = &mut portal.running else { return Ok(()) };
                let (sent, has_more) = self.send_rows(running, rows_max).await?;
                if has_more {
                    reply::portal_suspended(self.outbox.buffer());
                    return Ok(());
                }
                reply::command_complete(self.outbox.buffer(), &running.tag(sent));
                portal.running = None;
                portal.is_over = true;
                Ok(())
            }
        }
    }
}

fn describe_columns(to: &mut bytes::BytesMut, columns: &[reply::ColumnHead]) {
    if columns.is_empty() {
        reply::no_data(to);
    } else {
        reply::row_description(to, columns);
    }
}

//! From a statement to a plan.

use std::collections::BTreeSet;
use std::sync::Arc;

use aquifer_query::wire::Refusal;
use aquifer_query::{EngineOptions, PostgresSession, SqlQuestion};
use aquifer_types::{ErrorKind, StreamName};
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{ObjectName, Statement};

use super::command::Command;
use super::describe::{self, Described};
use super::dialect;
use super::names::{Listing, Named, PUBLIC, names_any, parts, resolve_all, title_columns};
use super::parameters;
use super::repeated::{Chosen, Titles, tell_apart};
use super::server::Server;
use super::session::{Session, Sessions};
use super::source::Source;
use super::types::names_in;
use super::views::{Expansion, View, within};
use crate::asof;
use crate::pg_catalog;
use crate::refusal::{internal, invalid, of, refusal};

/// What a statement comes to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Rows, once the plan is run.
    Rows(Box<Plan>),
    /// What was asked for is done.
    Done {
        /// What PostgreSQL calls it.
        tag: &'static str,
    },
}

/// A statement that can be run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What it is run in.
    pub(crate) session: Session,
    /// What is run; without placeholders, unless it was only to be described.
    pub(crate) plan: LogicalPlan,
    /// What PostgreSQL calls the statement.
    pub(crate) tag: &'static str,
    /// The types of its placeholders.
    pub(crate) parameters: Vec<String>,
    /// What its columns are called in the answer.
    pub(crate) titles: Titles,
}

/// Plans the statements of one question.
pub(crate) struct Planner<'a> {
    /// The limits.
    pub(crate) options: &'a EngineOptions,
    /// Makes sessions.
    pub(crate) sessions: &'a Sessions,
    /// Whom to ask for names and the cut.
    pub(crate) server: &'a dyn Server,
    /// Where memory comes from.
    pub(crate) runtime: Arc<RuntimeEnv>,
    /// Whose streams are seen.
    pub(crate) tenant: &'a str,
    /// The session of a client that believes to speak with PostgreSQL.
    pub(crate) postgres: Option<&'a PostgresSession>,
}

impl Planner<'_> {
    /// Plans what is asked; what stores or drops a view is done.
    pub(crate) async fn plan(&self, question: &SqlQuestion) -> Result<Outcome, Refusal> {
        match self.rewritten(question).await? {
            (Some(question), places) => {
                let planned = self.plan_as_is(&question, places).await;
                // Places in it are not those of what was sent.
                planned.map_err(|refusal| Refusal { position: None, ..refusal })
            }
            (None, places) => self.plan_as_is(question, places).await,
        }
    }

    /// What is asked in words that are known here, if it was in PostgreSQL's, and
    /// how many parameters it has in those.
    async fn rewritten(
        &self,
        question: &SqlQuestion,
    ) -> Result<(Option<SqlQuestion>, usize), Refusal> {
        if self.postgres.is_none() {
            return Ok((None, 0));
        }
        let mut statement = Source::read(&question.sql, self.options)?.parse()?;
        let places = parameters::places(&statement);
        let is_changed = match pg_catalog::may_need_rewriting(&question.sql) {
            true => pg_catalog::rewrite(&mut statement, &self.listing().await?)?,
            false => pg_catalog::name_calls(&mut statement),
        };
        let written = || SqlQuestion { sql: asof::written(&statement), ..question.clone() };
        Ok((is_changed.then(written), places))
    }

    /// Plans a statement that had `places` parameters before it was rewritten.
    async fn plan_as_is(&self, question: &SqlQuestion, places: usize) -> Result<Outcome, Refusal> {
        let source = Source::read(&question.sql, self.options)?;
        let statement = source.parse()?;
        match Command::of(&statement)? {
            Command::Rows { tag } => {
                self.rows(source, statement, tag, Some((question, places))).await
            }
            Command::ShowTables { like } => {
                self.written(&show_tables(like.as_deref()), "SHOW").await
            }
            Command::Describe { name } => {
                let sql = self.describe(&name).await?;
                self.written(&sql, "SHOW").await
            }
            Command::ShowSetting { name } => {
                let sql = self.show_setting(&name)?;
                self.written(&sql, "SHOW").await
            }
            Command::CreateView { name, replace, query } => {
                self.create_view(&name, replace, asof::written(&query), question).await
            }
            Command::DropView { name, if_exists } => {
                self.drop_view(&name, if_exists, question).await
            }
        }
    }

    /// Rows of a statement that is written here.
    async fn written(&self, sql: &str, tag: &'static str) -> Result<Outcome, Refusal> {
        let source = Source::read(sql, self.options)?;
        let statement = source.parse()?;
        self.rows(source, statement, tag, None).await
    }

    async fn rows(
        &self,
        source: Source,
        statement: Statement,
        tag: &'static str,
        question: Option<(&SqlQuestion, usize)>,
    ) -> Result<Outcome, Refusal> {
        // PostgreSQL's functions tell of streams and views that no FROM names.
        let is_listed = names_any(&statement)
            || self.postgres.is_some() && pg_catalog::may_need_rewriting(source.text());
        let listing = if is_listed { self.listing().await? } else { self.empty_listing() };
        let (session, plan, titles) = self.logical(source, statement, &listing).await?;
        let values = question.map_or(&[][..], |(question, _)| &question.parameters);
        let mut types = parameters::types(&plan)?;
        // What was rewritten may have left out the places of some.
        types.resize(types.len().max(question.map_or(0, |(_, places)| places)), None);
        let describe_only = question.is_some_and(|(question, _)| question.describe_only);
        let plan = if describe_only { plan } else { parameters::bind(plan, &types, values)? };
        Ok(Outcome::Rows(Box::new(Plan {
            session,
            plan,
            tag,
            parameters: parameters::words(&types),
            titles,
        })))
    }

    /// The plan of a statement over one cut of all that it names.
    async fn logical(
        &self,
        mut source: Source,
        mut statement: Statement,
        listing: &Listing,
    ) -> Result<(Session, LogicalPlan, Titles), Refusal> {
        let used = resolve_all(&mut statement, listing)?;
        let mut expansion = Expansion::new(listing, self.options);
        expansion.add(&used)?;
        let views = expansion.views;
        let mut session = self.sessions.open(self.tenant, Arc::clone(&self.runtime))?;
        if let Some(postgres) = self.postgres {
            pg_catalog::register_functions(&mut session, postgres, listing)?;
        }
        let mut known = self.register_streams(&session, &used, &views).await?;
        let mut all = used.iter().chain(views.iter().flat_map(|view| &view.uses));
        if all.any(|named| matches!(named, Named::System(..))) {
            self.register_system(&session, listing, &mut known).await?;
        }
        self.register_views(&session, views, listing, &mut known).await?;
        source.spell(known.iter().map(String::as_str));
        let (plan, titles) = Box::pin(titled_plan(&session, &source, listing)).await?;
        Ok((session, plan, titles))
    }

    /// Asks for the cut and registers its streams; the names that they know.
    async fn register_streams(
        &self,
        session: &Session,
        used: &[Named],
        views: &[View],
    ) -> Result<Vec<String>, Refusal> {
        let streams: BTreeSet<StreamName> = used
            .iter()
            .chain(views.iter().flat_map(|view| &view.uses))
            .filter_map(|named| match named {
                Named::Stream(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let mut known = Vec::new();
        if streams.is_empty() {
            return Ok(known);
        }
        for (name, table) in self.server.resolve(streams.into_iter().collect()).await? {
            register(session, name.as_str(), table, &mut known)?;
        }
        Ok(known)
    }

    async fn register_views(
        &self,
        session: &Session,
        views: Vec<View>,
        listing: &Listing,
        known: &mut Vec<String>,
    ) -> Result<(), Refusal> {
        for View { name, mut source, .. } in views {
            source.spell(known.iter().map(String::as_str));
            let plan =
                plan(session, &source, listing).await.map_err(|error| within(&name, error))?;
            if parameters::types(&plan).is_ok_and(|types| !types.is_empty()) {
                return Err(within(
                    &name,
                    invalid("view-invalid", "42P16", "a view has no parameters"),
                ));
            }
            let view = ViewTable::new(plan, Some(source.text().to_owned()));
            register(session, &name, Arc::new(view), known)?;
        }
        Ok(())
    }

    /// Registers the schemas that describe streams and views. Views that cannot
    /// be planned any more have no columns there.
    async fn register_system(
        &self,
        session: &Session,
        listing: &Listing,
        known: &mut Vec<String>,
    ) -> Result<(), Refusal> {
        let mut all = Vec::new();
        // What is not in the cut is described by a table without rows, in a
        // session of its own, so that the statement cannot read it by mistake.
        let aside = self.sessions.open(self.tenant, Arc::clone(&self.runtime))?;
        let mut names = Vec::new();
        let schemas = match listing.streams.is_empty() {
            true => Vec::new(),
            false => self.server.columns(&listing.streams).await?,
        };
        for (stream, columns) in listing.streams.iter().zip(schemas) {
            let table = Arc::new(EmptyTable::new(columns.clone()));
            register(&aside, stream.as_str(), table, &mut names)?;
            all.push(Described { name: stream.to_string(), columns, sql: None });
        }
        for (name, sql) in &listing.views {
            let columns = self.columns_of_view(&aside, name, listing, &mut names).await;
            let columns =
                columns.unwrap_or_else(|_| Arc::new(datafusion::arrow::datatypes::Schema::empty()));
            all.push(Described { name: name.clone(), columns, sql: Some(sql.clone()) });
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        match self.postgres {
            Some(postgres) => {
                known.extend(pg_catalog::register_tables(session, postgres, listing, &all)?);
            }
            None => {
                describe::register(session, self.tenant, &all)?;
                known.extend(describe::NAMES.iter().map(|name| (*name).to_owned()));
            }
        }
        Ok(())
    }

    async fn columns_of_view(
        &self,
        aside: &Session,
        name: &str,
        listing: &Listing,
        names: &mut Vec<String>,
    ) -> Result<datafusion::arrow::datatypes::SchemaRef, Refusal> {
        let mut expansion = Expansion::new(listing, self.options);
        expansion.add(&[Named::View(name.to_owned())])?;
        let views: Vec<View> = expansion
            .views
            .into_iter()
            .filter(|view| !aside.public.table_exist(&view.name))
            .collect();
        self.register_views(aside, views, listing, names).await?;
        let table = aside.public.table(name).await.map_err(|error| of(&error, ""))?;
        table.map(|table| table.schema()).ok_or_else(|| listing.unknown(name))
    }

    async fn create_view(
        &self,
        name: &ObjectName,
        replace: bool,
        sql: String,
        question: &SqlQuestion,
    ) -> Result<Outcome, Refusal> {
        let name = self.view_name(name)?;
        let mut listing = self.listing().await?;
        if listing.streams.iter().any(|stream| stream.as_str().eq_ignore_ascii_case(&name)) {
            return Err(refusal(
                ErrorKind::AlreadyExists,
                "name-taken",
                "42P07",
                format!("{name} is a stream; give the view another name"),
            ));
        }
        // Planned as if it were there already, so that it cannot stand on itself.
        listing.views.retain(|(view, _)| *view != name);
        listing.views.push((name.clone(), sql.clone()));
        let source = Source::read(&format!("SELECT * FROM {}", quote(&name)), self.options)?;
        let statement = source.parse()?;
        self.logical(source, statement, &listing).await?;
        if !question.describe_only {
            self.server.put_view(name, sql, replace).await?;
        }
        Ok(Outcome::Done { tag: "CREATE VIEW" })
    }

    async fn drop_view(
        &self,
        name: &ObjectName,
        if_exists: bool,
        question: &SqlQuestion,
    ) -> Result<Outcome, Refusal> {
        let listing = self.listing().await?;
        let name = match listing.resolve(name) {
            Ok(Named::View(view)) => view,
            Ok(Named::Stream(stream)) => {
                return Err(invalid(
                    "not-a-view",
                    "42809",
                    format!("{stream} is a stream, not a view"),
                ));
            }
            Ok(Named::System(..)) => {
                return Err(invalid("not-a-view", "42809", "a table of the system is not a view"));
            }
            Err(_) if if_exists => self.view_name(name)?,
            Err(refusal) => return Err(refusal),
        };
        if !question.describe_only {
            self.server.drop_view(name, if_exists).await?;
        }
        Ok(Outcome::Done { tag: "DROP VIEW" })
    }

    /// The name of a view that is created; as a stream's may be.
    fn view_name(&self, name: &ObjectName) -> Result<String, Refusal> {
        let parts = parts(name)?;
        let mut rest = parts.as_slice();
        for schema in [self.tenant, PUBLIC] {
            if let [first, more @ ..] = rest
                && !more.is_empty()
                && first.eq_ignore_ascii_case(schema)
            {
                rest = more;
            }
        }
        let name = rest.join(".");
        StreamName::new(&name)
            .map(|name| name.to_string())
            .map_err(|error| invalid("view-name", "42602", error.to_string()))
    }

    async fn describe(&self, name: &ObjectName) -> Result<String, Refusal> {
        let listing = self.listing().await?;
        let (schema, name) = match listing.resolve(name)? {
            Named::System(schema, name) => (schema, name),
            named => (PUBLIC, named.name().to_owned()),
        };
        Ok(format!(
            "SELECT column_name, data_type, is_nullable FROM information_schema.columns \
             WHERE table_schema = {} AND table_name = {} ORDER BY ordinal_position",
            literal(schema),
            literal(&name)
        ))
    }

    fn show_setting(&self, name: &str) -> Result<String, Refusal> {
        let session = self.sessions.open(self.tenant, Arc::clone(&self.runtime))?;
        let mut settings = session.state.config_options().entries();
        settings.sort_by(|a, b| a.key.cmp(&b.key));
        if name == "all" {
            let rows: Vec<String> = settings
                .iter()
                .map(|setting| {
                    let value = setting.value.as_deref().unwrap_or("");
                    format!("({}, {})", literal(&setting.key), literal(value))
                })
                .collect();
            return Ok(format!("SELECT * FROM (VALUES {}) AS s (name, setting)", rows.join(", ")));
        }
        match settings.iter().find(|setting| setting.key == name) {
            Some(setting) => {
                let value = setting.value.as_deref().unwrap_or("");
                Ok(format!("SELECT {} AS {}", literal(value), quote(name)))
            }
            None => Err(refusal(
                ErrorKind::NotFound,
                "sql-setting",
                "42704",
                format!("there is no setting {name}; SHOW ALL lists them"),
            )),
        }
    }

    async fn listing(&self) -> Result<Listing, Refusal> {
        let (streams, views) = self.server.list().await?;
        Ok(Listing { streams, views, ..self.empty_listing() })
    }

    fn empty_listing(&self) -> Listing {
        let system = match self.postgres {
            Some(_) => pg_catalog::TABLES.names().map(str::to_owned).collect(),
            None => Vec::new(),
        };
        Listing { tenant: self.tenant.to_owned(), system, ..Listing::default() }
    }
}

fn register(
    session: &Session,
    name: &str,
    table: Arc<dyn TableProvider>,
    known: &mut Vec<String>,
) -> Result<(), Refusal> {
    known.push(name.to_owned());
    names_in(table.schema().fields(), known);
    session
        .public
        .register_table(name.to_owned(), table)
        .map(|_| ())
        .map_err(|error| internal(error.to_string()))
}

/// The plan of `source` over what is registered, and what its columns are called.
async fn titled_plan(
    session: &Session,
    source: &Source,
    listing: &Listing,
) -> Result<(LogicalPlan, Titles), Refusal> {
    let refused = match plan(session, source, listing).await {
        Ok(plan) => return Ok((plan, Titles::default())),
        Err(refused) => refused,
    };
    for chosen in [Chosen::Columns, Chosen::Named] {
        let mut statement = titled(source)?;
        let titles = tell_apart(&mut statement, source.text(), chosen);
        if titles.is_empty() {
            continue;
        }
        if let Ok(plan) = planned(session, source, statement, listing).await {
            return Ok((plan, titles));
        }
    }
    Err(refused)
}

/// The plan of `source` over what is registered.
async fn plan(
    session: &Session,
    source: &Source,
    listing: &Listing,
) -> Result<LogicalPlan, Refusal> {
    planned(session, source, titled(source)?, listing).await
}

/// The statement, with names for columns that have none.
fn titled(source: &Source) -> Result<Statement, Refusal> {
    let mut statement = source.parse()?;
    title_columns(&mut statement);
    Ok(statement)
}

async fn planned(
    session: &Session,
    source: &Source,
    mut statement: Statement,
    listing: &Listing,
) -> Result<LogicalPlan, Refusal> {
    resolve_all(&mut statement, listing)?;
    dialect::adopt(&mut statement)?;
    asof::mark(&mut statement)?;
    let plan = session
        .state
        .statement_to_plan(DfStatement::Statement(Box::new(statement)))
        .await
        .and_then(|plan| Session::allowed().verify_plan(&plan).map(|()| plan))
        .and_then(asof::unmarked);
    plan.map_err(|error| of(&error, source.text()))
}

fn show_tables(like: Option<&str>) -> String {
    let like =
        like.map_or_else(String::new, |like| format!(" AND table_name LIKE {}", literal(like)));
    format!(
        "SELECT table_name AS name, \
         CASE table_type WHEN 'VIEW' THEN 'view' ELSE 'stream' END AS type \
         FROM information_schema.tables WHERE table_schema = '{PUBLIC}'{like} ORDER BY table_name"
    )
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

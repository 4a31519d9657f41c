//! What all questions of the process share, and the answer to one of SQL.

use std::fmt;
use std::io;
use std::sync::Arc;

use aquifer_env::{Clock as _, RealClock, TierStore};
use aquifer_query::wire::{FromEngine, Refusal, Spent};
use aquifer_query::{Ask, EngineOptions, Question, SqlQuestion};
use aquifer_types::{StreamName, Timestamp};
use arrow_schema::SchemaRef;
use async_trait::async_trait;

use crate::answer::{self, Manner, Sink};
use crate::fields::Columns;
use crate::link::Link;
use crate::pool::Resources;
use crate::refusal::{internal, of};
use crate::search::{IndexAccess, Searches};
use crate::sql::{Outcome, Planner, Resolved, Server, Sessions};
use crate::{ChunkAccess, Reads, ScanOptions, StreamTable, TailCache, Usage};

/// What questions share.
pub(crate) struct Engine {
    options: EngineOptions,
    clock: RealClock,
    sessions: Sessions,
    resources: Resources,
    chunks: Arc<ChunkAccess>,
    tail_cache: Arc<TailCache>,
    indexes: Arc<IndexAccess>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Engine {
    /// With the chunks in `store`.
    pub(crate) fn new(options: EngineOptions, store: TierStore) -> io::Result<Self> {
        let failed = |refusal: Refusal| io::Error::other(refusal.message);
        // The engine before this one was ended without a chance to clean up.
        aquifer_env::empty_private_directory(&options.spill_directory)?;
        let resources = Resources::new(
            options.memory_bytes_max,
            options.spill_directory.clone(),
            options.spill_bytes_max,
        )
        .map_err(|error| failed(of(&error, "")))?;
        Ok(Self {
            clock: RealClock::new(),
            sessions: Sessions::new(&options).map_err(failed)?,
            resources,
            indexes: IndexAccess::new(store.clone(), options.index_cache_bytes_max),
            chunks: ChunkAccess::new(store, options.footer_cache_bytes_max),
            tail_cache: TailCache::new(options.tail_cache_bytes_max),
            options,
        })
    }

    pub(crate) fn options(&self) -> &EngineOptions {
        &self.options
    }

    #[cfg(test)]
    pub(crate) fn resources(&self) -> &Resources {
        &self.resources
    }

    pub(crate) fn clock(&self) -> &RealClock {
        &self.clock
    }

    /// What answers searches of one question.
    pub(crate) fn searches(&self, link: Arc<Link>) -> Searches<'_> {
        let reads = Reads {
            chunks: Arc::clone(&self.chunks),
            tail_cache: Arc::clone(&self.tail_cache),
            tail: Arc::clone(&link) as _,
            usage: Arc::default(),
        };
        let now = Timestamp(self.clock.now_ms());
        Searches { options: &self.options, reads, indexes: Arc::clone(&self.indexes), link, now }
    }

    /// Answers a statement.
    pub(crate) async fn sql(
        &self,
        question: &Question,
        sql: &SqlQuestion,
        link: Arc<Link>,
        usage: Arc<Usage>,
    ) -> Result<Spent, Refusal> {
        let server =
            LinkedServer { engine: self, link: Arc::clone(&link), usage: Arc::clone(&usage) };
        self.sql_with(question, sql, &server, link.as_ref(), &usage).await
    }

    /// Answers a statement over what `server` has.
    pub(crate) async fn sql_with(
        &self,
        question: &Question,
        sql: &SqlQuestion,
        server: &dyn Server,
        sink: &dyn Sink,
        usage: &Usage,
    ) -> Result<Spent, Refusal> {
        let runtime = self
            .resources
            .question(question.limits.memory_bytes_max)
            .map_err(|error| internal(error.to_string()))?;
        let planner = Planner {
            options: &self.options,
            sessions: &self.sessions,
            server,
            runtime,
            tenant: question.tenant.as_str(),
            postgres: match &question.ask {
                Ask::Postgres(postgres) => Some(&postgres.session),
                _ => None,
            },
        };
        let manner = Manner {
            form: question.form,
            limits: question.limits,
            describe_only: sql.describe_only,
        };
        // What planning goes through is large; callers need not hold it.
        match Box::pin(planner.plan(sql)).await? {
            Outcome::Rows(plan) => {
                answer::run(*plan, &sql.sql, sink, manner, usage, &self.options).await
            }
            Outcome::Done { tag } => answer::nothing(sink, manner, tag).await,
        }
    }
}

/// The server at the other end of a question's connection.
struct LinkedServer<'a> {
    engine: &'a Engine,
    link: Arc<Link>,
    usage: Arc<Usage>,
}

#[async_trait]
impl Server for LinkedServer<'_> {
    async fn list(&self) -> Result<(Vec<StreamName>, Vec<(String, String)>), Refusal> {
        self.link.list().await
    }

    async fn columns(&self, streams: &[StreamName]) -> Result<Vec<SchemaRef>, Refusal> {
        let schemas = self.link.schemas(streams).await?;
        Ok(schemas.into_iter().map(|schema| Columns::new(schema).schema().clone()).collect())
    }

    async fn resolve(&self, streams: Vec<StreamName>) -> Result<Vec<Resolved>, Refusal> {
        let tables = self.link.resolve(streams).await?;
        let reads = Reads {
            chunks: Arc::clone(&self.engine.chunks),
            tail_cache: Arc::clone(&self.engine.tail_cache),
            tail: Arc::clone(&self.link) as _,
            usage: Arc::clone(&self.usage),
        };
        let resolved = tables.iter().map(|table| {
            let stream = StreamTable::new(table, reads.clone(), ScanOptions::default());
            (table.name.clone(), Arc::new(stream) as _)
        });
        Ok(resolved.collect())
    }

    async fn put_view(&self, name: String, sql: String, replace: bool) -> Result<(), Refusal> {
        self.link.store(FromEngine::PutView { name, sql, replace }).await
    }

    async fn drop_view(&self, name: String, if_exists: bool) -> Result<(), Refusal> {
        self.link.store(FromEngine::DropView { name, if_exists }).await
    }
}

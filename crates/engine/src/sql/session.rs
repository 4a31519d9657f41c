//! What a statement is planned in: DataFusion, with what it may do and what
//! functions there are. It has no file formats, no table factories and no
//! object stores, so that no statement reaches a file.

use std::sync::Arc;

use aquifer_query::EngineOptions;
use aquifer_query::wire::Refusal;
use datafusion::catalog::memory::{
    MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
};
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider};
use datafusion::common::config::{Dialect, SpillCompression};
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{SessionStateDefaults, TaskContext};
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::optimizer::{Optimizer, OptimizerRule};
use datafusion::prelude::{SQLOptions, SessionConfig};

use super::names::PUBLIC;
use crate::asof::{AsOfPlanner, FilterBeneath};
use crate::fields::FieldsAsColumns;
use crate::functions::{self, BytesAsText, Operators};
use crate::joins::physical_rules;
use crate::refusal::internal;

/// Functions that tell of files.
const LEFT_OUT: &[&str] = &["input_file_name", "file_row_index"];

/// Makes sessions.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    template: SessionState,
}

impl Sessions {
    /// Sessions with these limits.
    pub(crate) fn new(options: &EngineOptions) -> Result<Self, Refusal> {
        let mut config = SessionConfig::new()
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(false)
            .with_target_partitions(options.target_partitions.max(1))
            .with_batch_size(options.batch_rows.max(1));
        let settings = config.options_mut();
        settings.sql_parser.enable_ident_normalization = false;
        settings.sql_parser.dialect = Dialect::PostgreSQL;
        settings.sql_parser.collect_spans = true;
        settings.execution.time_zone = Some("UTC".to_owned());
        settings.execution.spill_compression = SpillCompression::Lz4Frame;
        settings.optimizer.skip_failed_rules = false;
        let mut template = SessionStateBuilder::new()
            .with_config(config)
            .with_expr_planners(expr_planners(options.function_bytes_max))
            .with_optimizer_rules(optimizer_rules())
            .with_scalar_functions(
                SessionStateDefaults::default_scalar_functions()
                    .into_iter()
                    .filter(|function| !LEFT_OUT.contains(&function.name()))
                    .collect(),
            )
            .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
            .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
            .with_window_functions(SessionStateDefaults::default_window_functions())
            .with_table_function_list(SessionStateDefaults::default_table_functions())
            .with_analyzer_rule(Arc::new(BytesAsText::new(options.function_bytes_max)))
            .with_query_planner(Arc::new(AsOfPlanner))
            .build();
        functions::register(&mut template, options.function_bytes_max)
            .map_err(|error| internal(error.to_string()))?;
        Ok(Self { template })
    }

    /// A session for one statement of `tenant`, that takes memory from `runtime`.
    pub(crate) fn open(&self, tenant: &str, runtime: Arc<RuntimeEnv>) -> Result<Session, Refusal> {
        let catalogs = Arc::new(MemoryCatalogProviderList::new());
        let catalog = Arc::new(MemoryCatalogProvider::new());
        let public = Arc::new(MemorySchemaProvider::new());
        catalog
            .register_schema(PUBLIC, Arc::clone(&public) as Arc<dyn SchemaProvider>)
            .map_err(|error| internal(error.to_string()))?;
        catalogs
            .register_catalog(tenant.to_owned(), Arc::clone(&catalog) as Arc<dyn CatalogProvider>);
        let config = self.template.config().clone().with_default_catalog_and_schema(tenant, PUBLIC);
        let merging_bytes = for_merging(&config, &runtime);
        let rows = rows_at_once(&config, &runtime);
        let config = config.with_sort_spill_reservation_bytes(merging_bytes).with_batch_size(rows);
        let mut state = SessionStateBuilder::new_from_existing(self.template.clone())
            .with_session_id(String::new())
            .with_config(config)
            .with_physical_optimizer_rules(physical_rules(&runtime))
            .with_runtime_env(runtime)
            .with_catalog_list(catalogs)
            .build();
        state.mark_start_execution();
        Ok(Session { state, catalog, public })
    }
}

/// What each stream of a sort keeps free from its start, to merge what it spills.
/// DataFusion's own is for gigabytes: a few sorts with it are refused what a
/// question has before they have seen a row.
fn for_merging(config: &SessionConfig, runtime: &RuntimeEnv) -> usize {
    /// The sorts of a statement that all keep it together have half of its memory.
    const SORTS: usize = 16;
    const BYTES_MIN: usize = 64 << 10;
    const BYTES_MAX: usize = 10 << 20;
    match runtime.memory_pool.memory_limit() {
        MemoryLimit::Finite(bytes) => {
            (bytes / (2 * SORTS * config.target_partitions())).clamp(BYTES_MIN, BYTES_MAX)
        }
        _ => BYTES_MAX,
    }
}

/// The rows of a batch. What spills holds some batches before it does, in each of
/// its streams, and a batch is of so many rows however wide they are: with little
/// memory they are fewer.
fn rows_at_once(config: &SessionConfig, runtime: &RuntimeEnv) -> usize {
    /// As many batches of such rows as a stream can hold.
    const BATCHES: usize = 64;
    const ROW_BYTES: usize = 512;
    const ROWS_MIN: usize = 1024;
    let rows_max = config.batch_size();
    match runtime.memory_pool.memory_limit() {
        MemoryLimit::Finite(bytes) => {
            let rows = bytes / (BATCHES * ROW_BYTES * config.target_partitions());
            rows.max(ROWS_MIN).min(rows_max)
        }
        _ => rows_max,
    }
}

/// DataFusion's, behind those that change what they are given.
fn expr_planners(bytes_max: u64) -> Vec<Arc<dyn ExprPlanner>> {
    let own: Arc<dyn ExprPlanner> = Arc::new(Operators { bytes_max });
    std::iter::once(own).chain(SessionStateDefaults::default_expr_planners()).collect()
}

/// DataFusion's, behind the one that makes columns of reads. What it pushes down
/// to an as-of join goes on beneath it, before anything comes in between.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![Arc::new(FieldsAsColumns)];
    for rule in Optimizer::new().rules {
        let is_push_down = rule.name() == "push_down_filter";
        rules.push(rule);
        if is_push_down {
            rules.push(Arc::new(FilterBeneath));
        }
    }
    rules
}

/// What one statement is planned and run in.
#[derive(Debug)]
pub(crate) struct Session {
    /// DataFusion's part.
    pub(crate) state: SessionState,
    /// The tenant.
    pub(crate) catalog: Arc<MemoryCatalogProvider>,
    /// Its streams and views.
    pub(crate) public: Arc<MemorySchemaProvider>,
}

impl Session {
    /// What operators run in.
    pub(crate) fn task(&self) -> Arc<TaskContext> {
        self.state.task_ctx()
    }

    /// What a plan may do: nothing but read.
    pub(crate) fn allowed() -> SQLOptions {
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
    }
}

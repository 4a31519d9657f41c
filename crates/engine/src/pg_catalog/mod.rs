//! PostgreSQL's catalogs, for clients that believe to speak with PostgreSQL.
//!
//! What `psql`'s commands, JDBC's metadata and the like read: tables of
//! `pg_catalog` that are filled when a statement names one of them, functions
//! that tell of the session, and rewriting of what PostgreSQL's SQL has and
//! DataFusion's has not. A catalog of what there is nothing of here (indexes,
//! triggers, rules …) is a table without rows. `information_schema` has more
//! tables and columns here than for other doors.
//!
//! Object ids are derived from names, so that what one statement has read
//! another can ask after: each statement has a session of its own.

mod functions;
mod information;
mod names;
mod rewrite;
mod tables;
mod titles;
mod wildcards;
mod words;

use aquifer_query::PostgresSession;
use aquifer_query::wire::Refusal;
use datafusion::common::DataFusionError;
use datafusion::execution::FunctionRegistry as _;
use datafusion::sql::sqlparser::ast::Statement;

pub(crate) use tables::TABLES;

use crate::refusal::internal;
use crate::sql::{Described, Listing, Session};

/// Registers PostgreSQL's functions with a session.
pub(crate) fn register_functions(
    session: &mut Session,
    postgres: &PostgresSession,
    listing: &Listing,
) -> Result<(), Refusal> {
    let oids = names::Oids::new(listing);
    for function in functions::all(postgres, listing, oids) {
        session
            .state
            .register_udf(std::sync::Arc::new(function))
            .map_err(|error| internal(error.to_string()))?;
    }
    Ok(())
}

/// Registers the catalogs and `information_schema`; the names of their tables
/// and columns.
pub(crate) fn register_tables(
    session: &Session,
    postgres: &PostgresSession,
    listing: &Listing,
    all: &[Described],
) -> Result<Vec<String>, Refusal> {
    let failed = |error: DataFusionError| internal(error.to_string());
    let mut names = tables::register(session, postgres, listing, all).map_err(failed)?;
    let more = information::register(session, postgres, listing, all).map_err(failed)?;
    names.extend(more);
    Ok(names)
}

/// Whether a statement may have anything for [`rewrite`]; most have not, and
/// need no listing for it.
pub(crate) fn may_need_rewriting(sql: &str) -> bool {
    let sql = sql.to_ascii_lowercase();
    let signs = [
        "pg_",
        "information_schema",
        "::",
        "cast",
        "reg",
        "any",
        "all",
        "collate",
        "operator",
        "current_",
        "session_user",
        "array",
        "generate_series",
        "version",
    ];
    signs.iter().any(|sign| sql.contains(sign))
}

/// Names the columns of a statement that only calls functions; whether there were
/// any.
pub(crate) fn name_calls(statement: &mut Statement) -> bool {
    titles::name_calls(statement)
}

/// Rewrites what DataFusion does not know; whether anything was.
///
/// # Errors
/// A name that is cast to an object and that nothing has.
pub(crate) fn rewrite(statement: &mut Statement, listing: &Listing) -> Result<bool, Refusal> {
    rewrite::rewrite(statement, listing)
}

//! The schema, as numbered migrations that only ever go up.
//!
//! All missing migrations run in the transaction that records them, so a crash
//! leaves the file at its old version or at the new one.

use std::borrow::Cow;
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::statement::Statement;

/// SQLite's `application_id` of a catalog: "Aqfc".
pub const APPLICATION_ID: i32 = 0x4171_6663;

/// The highest schema version that this program knows, and writes.
pub const SCHEMA_VERSION: i64 = 1;

/// A step from one schema version to the next.
pub(crate) struct Migration {
    pub(crate) version: i64,
    pub(crate) name: &'static str,
    template: &'static str,
}

/// Every migration, oldest first. A released one is never edited.
pub(crate) const MIGRATIONS: [Migration; SCHEMA_VERSION as usize] = [Migration {
    version: 1,
    name: "catalog",
    template: include_str!("../migrations/0001_catalog.sql"),
}];

/// The table that names the migrations that a file has seen.
const VERSION_TABLE: &str = "CREATE TABLE schema_version (
  version {bigint} NOT NULL PRIMARY KEY,
  name TEXT NOT NULL
){table};
";

impl Migration {
    fn sql(&self, dialect: Dialect) -> Cow<'static, str> {
        dialect.render(self.template)
    }
}

impl Dialect {
    /// The whole schema at [`SCHEMA_VERSION`], as one script for an empty
    /// database. The rows of `schema_version` are not in it.
    pub fn schema(self) -> String {
        let mut script = self.render(VERSION_TABLE).into_owned();
        for migration in &MIGRATIONS {
            script
                .push_str(&format!("\n-- Migration {}: {}\n\n", migration.version, migration.name));
            script.push_str(&migration.sql(self));
        }
        script
    }
}

/// Brings the file to [`SCHEMA_VERSION`].
///
/// # Errors
/// `Missing` if the file is empty and `create` is false, `Version` if it is
/// newer than this program, `Corrupt` if it is no catalog.
pub(crate) fn migrate(connection: &mut Connection, path: &Path, create: bool) -> Result<()> {
    let sqlite = |source| Error::from_sqlite(path, source);
    let found = version(connection, path)?;
    match found {
        Some(SCHEMA_VERSION) => return Ok(()),
        Some(found) if found > SCHEMA_VERSION => {
            return Err(Error::Version { path: path.to_owned(), found, known: SCHEMA_VERSION });
        }
        None if !create => {
            return Err(Error::Missing { path: path.to_owned() });
        }
        _ => {}
    }

    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
    if found.is_none() {
        transaction
            .execute_batch(&Dialect::Sqlite.render(VERSION_TABLE))
            .and_then(|()| transaction.pragma_update(None, "application_id", APPLICATION_ID))
            .map_err(sqlite)?;
    }
    for migration in &MIGRATIONS {
        if found.is_some_and(|found| migration.version <= found) {
            continue;
        }
        transaction.execute_batch(&migration.sql(Dialect::Sqlite)).map_err(sqlite)?;
        transaction
            .execute(
                &Dialect::Sqlite.statement(Statement::PutVersion),
                (migration.version, migration.name),
            )
            .map_err(sqlite)?;
    }
    transaction.commit().map_err(sqlite)
}

/// The file's schema version, or none if it is empty.
fn version(connection: &Connection, path: &Path) -> Result<Option<i64>> {
    let sqlite = |source| Error::from_sqlite(path, source);
    let application: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(sqlite)?;
    if application != APPLICATION_ID {
        let objects: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_master", (), |row| row.get(0))
            .map_err(sqlite)?;
        if application == 0 && objects == 0 {
            return Ok(None);
        }
        return Err(Error::corrupt(
            path,
            format!("it is not a catalog (application id {application:#010x})"),
        ));
    }
    let found: Option<i64> = connection
        .query_row(&Dialect::Sqlite.statement(Statement::GetVersion), (), |row| row.get(0))
        .map_err(sqlite)?;
    match found {
        Some(found) if found >= 1 => Ok(Some(found)),
        _ => Err(Error::corrupt(path, "it has no schema version")),
    }
}

//! The catalog on SQLite: opened, applied to, loaded.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, ToSql, Transaction, TransactionBehavior, ffi,
};
use uuid::Uuid;

use crate::cell::{self, Cell, Record};
use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::integrity::Check;
use crate::migration;
use crate::row::{
    Change, ChunkRow, FieldRow, GarbageRow, IntentRow, MetaRow, PartitionRow, Snapshot, StreamRow,
    TombstoneRow,
};
use crate::statement::Statement;

/// Names in `meta` that begin so are the catalog's own.
const RESERVED_PREFIX: &str = "catalog.";
/// Where the applied position is kept, as a decimal number.
const APPLIED_POSITION: &str = "catalog.applied_position";
/// The write-ahead log is cut back to this after a checkpoint.
const WAL_BYTES_KEPT: i64 = 16 * 1024 * 1024;
/// More than there are statements, so that none is prepared twice.
const STATEMENTS_CACHED: usize = 64;

/// How a catalog is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Create the file if it is missing or empty. A server that knows that it
    /// had a catalog says no, so that a lost one is not taken for a new one.
    pub create: bool,
    /// How long to wait for another holder of the file, in milliseconds.
    pub busy_timeout_ms: u32,
    /// Memory for pages of the file, in KiB.
    pub cache_kib: u32,
    /// The most pages of the file; beyond it changes are refused as on a full
    /// disk. `None` leaves it to the disk.
    pub pages_max: Option<u32>,
    /// What to check before the first use; `None` leaves it at what each
    /// read checks.
    pub check: Option<Check>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: true,
            busy_timeout_ms: 5_000,
            cache_kib: 8 * 1024,
            pages_max: None,
            check: Some(Check::Quick),
        }
    }
}

/// What became of the changes given to [`Catalog::apply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// They and the position are durable.
    Written,
    /// The position was applied before; nothing was done.
    Already,
}

/// The catalog. It is synchronous and belongs to one thread at a time.
#[derive(Debug)]
pub struct Catalog {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
}

impl Catalog {
    /// Opens the catalog at `path`, creates it if it may, and brings its schema
    /// up to date. The file is locked until the catalog is dropped.
    ///
    /// # Errors
    /// `Busy` if somebody else holds it, `Version` if a newer program wrote it,
    /// `Corrupt` if it is damaged or something else, `Missing` if it is not
    /// there and not to be created, `Full` and `Other`.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let path = path.as_ref();
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if options.create {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let connection = Connection::open_with_flags(path, flags).map_err(|source| match source
            .sqlite_error_code()
        {
            Some(ErrorCode::CannotOpen) if !options.create => {
                Error::Missing { path: path.to_owned() }
            }
            _ => Error::from_sqlite(path, source),
        })?;
        Self::set_up(connection, path, &options)
    }

    /// An empty catalog that lives in memory, for tests.
    ///
    /// # Errors
    /// `Other` if SQLite has no memory.
    pub fn open_in_memory() -> Result<Self> {
        let path = Path::new(":memory:");
        let connection =
            Connection::open_in_memory().map_err(|source| Error::from_sqlite(path, source))?;
        Self::set_up(connection, path, &Options::default())
    }

    fn set_up(mut connection: Connection, path: &Path, options: &Options) -> Result<Self> {
        configure(&connection, options).map_err(|source| Error::from_sqlite(path, source))?;
        migration::migrate(&mut connection, path, options.create)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        if let Some(pages_max) = options.pages_max {
            connection
                .pragma_update_and_check(None, "max_page_count", pages_max, |_| Ok(()))
                .map_err(|source| Error::from_sqlite(path, source))?;
        }
        let catalog = Self { connection, path: path.to_owned() };
        if let Some(check) = options.check
            && let Some(finding) = catalog.integrity_check(check)?.into_iter().next()
        {
            return Err(Error::corrupt(path, finding.to_string()));
        }
        Ok(catalog)
    }

    /// Applies changes, in their order, and the position of the journal that
    /// they come from, durably and all or none. A position at or below the
    /// applied one does nothing. No changes only move the position.
    ///
    /// # Errors
    /// `Full`, `Corrupt`, `Other`; `Invalid` for a row that its table cannot
    /// hold, a reserved name in `meta`, or a position above `i64::MAX`.
    pub fn apply(&mut self, position: u64, changes: &[Change]) -> Result<Applied> {
        if i64::try_from(position).is_err() {
            return Err(Error::invalid(format!("position {position}")));
        }
        let path = &self.path;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| Error::from_sqlite(path, source))?;
        let writer = Writer { transaction, path };
        if read_position(&writer.transaction, path)?.is_some_and(|applied| position <= applied) {
            return Ok(Applied::Already);
        }
        for change in changes {
            writer.change(change)?;
        }
        writer.put(&MetaRow { key: APPLIED_POSITION.to_owned(), value: position.to_string() })?;
        writer.transaction.commit().map_err(|source| Error::from_sqlite(path, source))?;
        Ok(Applied::Written)
    }

    /// The position of the journal up to which changes are in the rows; none
    /// if nothing was ever applied.
    ///
    /// # Errors
    /// `Corrupt`, `Other`.
    pub fn applied_position(&self) -> Result<Option<u64>> {
        read_position(&self.connection, &self.path)
    }

    /// Every row.
    ///
    /// # Errors
    /// `Corrupt` names the row; `Other`.
    pub fn load(&self) -> Result<Snapshot> {
        let mut meta: Vec<MetaRow> = self.all()?;
        meta.retain(|row| !row.key.starts_with(RESERVED_PREFIX));
        Ok(Snapshot {
            position: self.applied_position()?,
            streams: self.all()?,
            partitions: self.all()?,
            chunks: self.all()?,
            garbage: self.all()?,
            intents: self.all()?,
            tombstones: self.all()?,
            meta,
            fields: self.all()?,
        })
    }

    /// Gives every live chunk to `visit`, by stream, partition and base offset.
    ///
    /// # Errors
    /// As [`Catalog::load`]; chunks before the damaged one were given.
    pub fn for_each_chunk(&self, mut visit: impl FnMut(ChunkRow)) -> Result<()> {
        self.for_each(ChunkRow::ALL, &[], |row| {
            visit(row.map_err(|what| Error::corrupt(&self.path, what))?);
            Ok(())
        })
    }

    /// The fields of a stream's schema, by id.
    ///
    /// # Errors
    /// As [`Catalog::load`].
    pub fn fields(&self, stream_id: Uuid) -> Result<Vec<FieldRow>> {
        self.rows(Statement::StreamFields, &[&Cell::Id(stream_id)])
    }

    /// A named value.
    ///
    /// # Errors
    /// As [`Catalog::load`].
    pub fn meta(&self, key: &str) -> Result<Option<String>> {
        let rows: Vec<MetaRow> = self.rows(Statement::GetMeta, &[&key])?;
        Ok(rows.into_iter().next().map(|row| row.value))
    }

    /// Writes everything from the write-ahead log into the file, synced, and
    /// empties the log.
    ///
    /// What is only in the log hangs on it: SQLite takes a damaged place in the
    /// log for its end, and the catalog then opens, whole, at an earlier
    /// position. Whoever discards what could be applied again (journal files)
    /// calls this first, and discards nothing above the position that was
    /// applied by then.
    ///
    /// # Errors
    /// `Full`, `Other`; the log stays and nothing is lost.
    pub fn checkpoint(&mut self) -> Result<()> {
        let busy: bool = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0))
            .map_err(|source| Error::from_sqlite(&self.path, source))?;
        if busy {
            let code = ffi::Error::new(ffi::SQLITE_BUSY);
            let source = rusqlite::Error::SqliteFailure(code, None);
            return Err(Error::from_sqlite(&self.path, source));
        }
        Ok(())
    }

    /// Writes everything from the write-ahead log into the file and closes it.
    /// Dropping the catalog does the same, but says nothing when it fails;
    /// nothing that was applied is lost in either case.
    ///
    /// # Errors
    /// `Full`, `Other`.
    pub fn close(self) -> Result<()> {
        self.connection.flush_prepared_statement_cache();
        self.connection.close().map_err(|(_, source)| Error::from_sqlite(&self.path, source))
    }

    fn all<R: Record>(&self) -> Result<Vec<R>> {
        self.rows(R::ALL, &[])
    }

    fn rows<R: Record>(&self, statement: Statement, params: &[&dyn ToSql]) -> Result<Vec<R>> {
        let mut rows = Vec::new();
        self.for_each(statement, params, |row: Result<R, String>| {
            rows.push(row.map_err(|what| Error::corrupt(&self.path, what))?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// Gives every row of a statement to `visit`, or what is wrong with it.
    pub(crate) fn for_each<R: Record>(
        &self,
        statement: Statement,
        params: &[&dyn ToSql],
        visit: impl FnMut(Result<R, String>) -> Result<()>,
    ) -> Result<()> {
        for_each(&self.connection, &self.path, statement, params, visit)
    }
}

/// Says how SQLite is to work on this connection.
fn configure(connection: &Connection, options: &Options) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_millis(options.busy_timeout_ms.into()))?;
    // One process owns the file. Exclusive locking also keeps the index of the
    // write-ahead log in plain memory: a mapped one dies by a signal, not by an
    // error, when the disk is full.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    // SQLite answers with the mode that it is in, and does not fail if it is
    // another. A catalog in memory has no log.
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" && mode != "memory" {
        let code = ffi::Error::new(ffi::SQLITE_IOERR);
        let what = format!("journal mode stays {mode}");
        return Err(rusqlite::Error::SqliteFailure(code, Some(what)));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    connection.pragma_update(None, "cache_size", -i64::from(options.cache_kib))
}

fn for_each<R: Record>(
    connection: &Connection,
    path: &Path,
    statement: Statement,
    params: &[&dyn ToSql],
    mut visit: impl FnMut(Result<R, String>) -> Result<()>,
) -> Result<()> {
    let sqlite = |source| Error::from_sqlite(path, source);
    let mut prepared =
        connection.prepare_cached(&Dialect::Sqlite.statement(statement)).map_err(sqlite)?;
    let mut rows = prepared.query(params).map_err(sqlite)?;
    while let Some(row) = rows.next().map_err(sqlite)? {
        visit(cell::decode(row))?;
    }
    Ok(())
}

fn read_position(connection: &Connection, path: &Path) -> Result<Option<u64>> {
    let mut value = None;
    for_each(
        connection,
        path,
        Statement::GetMeta,
        &[&APPLIED_POSITION],
        |row: Result<MetaRow, String>| {
            value = Some(row.map_err(|what| Error::corrupt(path, what))?.value);
            Ok(())
        },
    )?;
    value
        .map(|text| {
            text.parse().map_err(|_| Error::corrupt(path, format!("applied position {text:?}")))
        })
        .transpose()
}

/// One transaction's changes.
struct Writer<'a> {
    transaction: Transaction<'a>,
    path: &'a Path,
}

impl Writer<'_> {
    fn change(&self, change: &Change) -> Result<()> {
        match change {
            Change::PutStream(row) => {
                self.execute(
                    Statement::EvictStream,
                    &[&row.tenant, &row.name, &Cell::Id(row.stream_id)],
                )?;
                self.put::<StreamRow>(row)
            }
            Change::RemoveStream(id) => {
                self.remove(Statement::RemoveStreamFields, *id)?;
                self.remove(Statement::RemoveStreamPartitions, *id)?;
                self.remove(Statement::RemoveStream, *id)
            }
            Change::PutPartition(row) => self.put::<PartitionRow>(row),
            Change::PutChunk(row) => self.put::<ChunkRow>(row),
            Change::RemoveChunk(id) => self.remove(Statement::RemoveChunk, *id),
            Change::AddGarbage(row) => self.put::<GarbageRow>(row),
            Change::RemoveGarbage(object_path) => {
                self.execute(Statement::RemoveGarbage, &[object_path])
            }
            Change::PutIntent(row) => self.put::<IntentRow>(row),
            Change::RemoveIntent(id) => self.remove(Statement::RemoveIntent, *id),
            Change::PutTombstone(row) => self.put::<TombstoneRow>(row),
            Change::RemoveTombstone(id) => self.remove(Statement::RemoveTombstone, *id),
            Change::PutMeta(row) if row.key.starts_with(RESERVED_PREFIX) => {
                Err(Error::invalid(format!("a value named {:?}, which is its own", row.key)))
            }
            Change::PutMeta(row) => self.put::<MetaRow>(row),
            Change::PutField(row) => self.put::<FieldRow>(row),
        }
    }

    fn put<R: Record>(&self, row: &R) -> Result<()> {
        let mut statement = self.prepare(R::PUT)?;
        cell::bind(&mut statement, row, self.path)?;
        statement.raw_execute().map(|_| ()).map_err(|source| Error::from_sqlite(self.path, source))
    }

    fn remove(&self, statement: Statement, id: Uuid) -> Result<()> {
        self.execute(statement, &[&Cell::Id(id)])
    }

    fn execute(&self, statement: Statement, params: &[&dyn ToSql]) -> Result<()> {
        self.prepare(statement)?
            .execute(params)
            .map(|_| ())
            .map_err(|source| Error::from_sqlite(self.path, source))
    }

    fn prepare(&self, statement: Statement) -> Result<CachedStatement<'_>> {
        self.transaction
            .prepare_cached(&Dialect::Sqlite.statement(statement))
            .map_err(|source| Error::from_sqlite(self.path, source))
    }
}

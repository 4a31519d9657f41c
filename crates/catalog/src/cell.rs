//! Rows as cells: how a row is bound, checksummed, read and checked.

use std::path::Path;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Row, ToSql};
use uuid::Uuid;

use crate::error::Error;
use crate::statement::Statement;

/// The most bytes that a text may have, written or read.
pub(crate) const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One value of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cell<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
    Id(Uuid),
}

/// A row of one table, in the order of the table's columns.
pub(crate) trait Record: Sized {
    /// The table's name.
    const TABLE: &'static str;
    /// How many of the first columns make the key.
    const KEY_COLUMNS: usize;
    /// Inserts or replaces a row.
    const PUT: Statement;
    /// Reads every row, in a fixed order.
    const ALL: Statement;

    /// The row's values.
    ///
    /// # Errors
    /// What the table cannot hold, in words.
    fn cells(&self) -> Result<Vec<Cell<'_>>, String>;

    /// The row from its values.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    fn from_cells(cells: &mut Cells<'_, '_>) -> Result<Self, String>;
}

/// Binds a row and its checksum to the parameters of a statement.
///
/// # Errors
/// `Invalid` if the table cannot hold it, or what SQLite says.
pub(crate) fn bind<R: Record>(
    statement: &mut CachedStatement<'_>,
    record: &R,
    path: &Path,
) -> crate::Result<()> {
    let sqlite = |source| Error::from_sqlite(path, source);
    let cells = record.cells().map_err(Error::invalid)?;
    let mut checksum = Checksum::of_table(R::TABLE);
    for (index, cell) in cells.iter().enumerate() {
        if let Cell::Text(text) = cell
            && text.len() > TEXT_BYTES_MAX
        {
            let (table, bytes) = (R::TABLE, text.len());
            return Err(Error::invalid(format!(
                "a text of {bytes} bytes in table {table}, the most is {TEXT_BYTES_MAX}"
            )));
        }
        checksum.add(cell);
        statement.raw_bind_parameter(index + 1, cell).map_err(sqlite)?;
    }
    statement.raw_bind_parameter(cells.len() + 1, checksum.value()).map_err(sqlite)
}

/// Checks a row that was read, and decodes it.
///
/// # Errors
/// What is wrong with it and which row it is, in words.
pub(crate) fn decode<R: Record>(row: &Row<'_>) -> Result<R, String> {
    let columns = row.as_ref().column_count();
    let mut cells = Cells { row, next: 0 };
    let decoded = (|| {
        let mut checksum = Checksum::of_table(R::TABLE);
        for _ in 1..columns {
            checksum.add_value(&cells.value()?)?;
        }
        if cells.integer()? != checksum.value() {
            return Err("checksum does not match".to_owned());
        }
        cells.next = 0;
        R::from_cells(&mut cells)
    })();
    decoded.map_err(|what| format!("table {}, row {}: {what}", R::TABLE, key::<R>(row)))
}

/// Names a row by its key, whatever is in it.
fn key<R: Record>(row: &Row<'_>) -> String {
    let parts: Vec<String> = (0..R::KEY_COLUMNS)
        .map(|column| match row.get_ref(column) {
            Ok(ValueRef::Integer(value)) => value.to_string(),
            Ok(ValueRef::Text(value)) => {
                String::from_utf8_lossy(value.get(..200).unwrap_or(value)).into_owned()
            }
            Ok(ValueRef::Blob(value)) => {
                Uuid::from_slice(value).map_or_else(|_| "?".to_owned(), |id| id.to_string())
            }
            _ => "?".to_owned(),
        })
        .collect();
    parts.join("/")
}

/// The values of a row, taken one after the other.
pub(crate) struct Cells<'row, 'statement> {
    row: &'row Row<'statement>,
    next: usize,
}

impl<'row> Cells<'row, '_> {
    fn value(&mut self) -> Result<ValueRef<'row>, String> {
        let value = self.row.get_ref(self.next).map_err(|error| error.to_string())?;
        self.next += 1;
        Ok(value)
    }

    fn wrong<T>(&self, wanted: &str) -> Result<T, String> {
        Err(format!("column {} is not {wanted}", self.next))
    }

    pub(crate) fn id(&mut self) -> Result<Uuid, String> {
        match self.value()? {
            ValueRef::Blob(bytes) => Uuid::from_slice(bytes).or_else(|_| self.wrong("an id")),
            _ => self.wrong("an id"),
        }
    }

    pub(crate) fn text(&mut self) -> Result<String, String> {
        match self.text_or_null()? {
            Some(text) => Ok(text),
            None => self.wrong("a text"),
        }
    }

    pub(crate) fn text_or_null(&mut self) -> Result<Option<String>, String> {
        match self.value()? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(bytes) if bytes.len() <= TEXT_BYTES_MAX => {
                match std::str::from_utf8(bytes) {
                    Ok(text) => Ok(Some(text.to_owned())),
                    Err(_) => self.wrong("UTF-8"),
                }
            }
            _ => self.wrong("a text"),
        }
    }

    pub(crate) fn integer_or_null(&mut self) -> Result<Option<i64>, String> {
        match self.value()? {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(value) => Ok(Some(value)),
            _ => self.wrong("an integer"),
        }
    }

    /// An integer of a narrower type.
    pub(crate) fn number<T: TryFrom<i64>>(&mut self) -> Result<T, String> {
        match self.number_or_null()? {
            Some(value) => Ok(value),
            None => self.wrong("a number"),
        }
    }

    /// An integer of a narrower type, or null.
    pub(crate) fn number_or_null<T: TryFrom<i64>>(&mut self) -> Result<Option<T>, String> {
        match self.integer_or_null()?.map(T::try_from) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => self.wrong("within its range"),
        }
    }

    pub(crate) fn integer(&mut self) -> Result<i64, String> {
        match self.integer_or_null()? {
            Some(value) => Ok(value),
            None => self.wrong("an integer"),
        }
    }
}

/// The CRC-32C of a row: of its table's name and, for each value, a byte for
/// its type, its length where that varies, and its bytes (integers big-endian).
struct Checksum(u32);

impl Checksum {
    fn of_table(table: &str) -> Self {
        Self(crc32c::crc32c(table.as_bytes()))
    }

    fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, &[tag]);
        if tag != INTEGER {
            let length = bytes.len() as u64;
            self.0 = crc32c::crc32c_append(self.0, &length.to_be_bytes());
        }
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    fn add(&mut self, cell: &Cell<'_>) {
        match cell {
            Cell::Null => self.bytes(NULL, &[]),
            Cell::Integer(value) => self.bytes(INTEGER, &value.to_be_bytes()),
            Cell::Text(text) => self.bytes(TEXT, text.as_bytes()),
            Cell::Id(id) => self.bytes(ID, id.as_bytes()),
        }
    }

    fn add_value(&mut self, value: &ValueRef<'_>) -> Result<(), String> {
        match value {
            ValueRef::Null => self.bytes(NULL, &[]),
            ValueRef::Integer(value) => self.bytes(INTEGER, &value.to_be_bytes()),
            ValueRef::Text(bytes) => self.bytes(TEXT, bytes),
            ValueRef::Blob(bytes) => self.bytes(ID, bytes),
            ValueRef::Real(_) => return Err("a value of no known type".to_owned()),
        }
        Ok(())
    }

    fn value(&self) -> i64 {
        i64::from(self.0)
    }
}

const NULL: u8 = 0;
const INTEGER: u8 = 1;
const TEXT: u8 = 2;
const ID: u8 = 3;

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Cell::Null => ToSqlOutput::Owned(Value::Null),
            Cell::Integer(value) => ToSqlOutput::Owned(Value::Integer(*value)),
            Cell::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Cell::Id(id) => ToSqlOutput::Borrowed(ValueRef::Blob(id.as_bytes())),
        })
    }
}

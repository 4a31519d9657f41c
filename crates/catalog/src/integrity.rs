//! Whether the catalog is whole: pages, schema, rows and what they refer to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use rusqlite::Connection;
use uuid::Uuid;

use crate::catalog::Catalog;
use crate::cell::Record;
use crate::dialect::Dialect;
use crate::error::{Error, Result};
use crate::row::{
    ChunkRow, FieldRow, GarbageRow, IntentRow, MetaRow, PartitionRow, StreamRow, TombstoneRow,
};

/// Findings beyond this many are left out.
const FINDINGS_MAX: usize = 100;

/// How much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The pages and the schema; reads the file once.
    Quick,
    /// Also that indexes agree with their tables, every row's checksum, and
    /// what rows refer to.
    Full,
}

/// Something that is wrong with a catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The table, or `pages`, or `schema`.
    pub place: &'static str,
    /// What is wrong, with the ids.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.what)
    }
}

impl Catalog {
    /// Looks for damage and returns what it found, at most 100 findings. An
    /// intact catalog has none.
    ///
    /// # Errors
    /// `Corrupt` if the damage keeps SQLite from going on, `Other`.
    pub fn integrity_check(&self, check: Check) -> Result<Vec<Finding>> {
        let mut findings = Findings(Vec::new());
        self.check_pages(check, &mut findings)?;
        self.check_schema(&mut findings)?;
        if check == Check::Full && findings.0.is_empty() {
            self.check_rows(&mut findings)?;
        }
        Ok(findings.0)
    }

    fn check_pages(&self, check: Check, findings: &mut Findings) -> Result<()> {
        let pragma = match check {
            Check::Quick => "quick_check",
            Check::Full => "integrity_check",
        };
        self.connection
            .pragma_query(None, pragma, |row| {
                let line: String = row.get(0)?;
                if line != "ok" {
                    findings.add("pages", line);
                }
                Ok(())
            })
            .map_err(|source| Error::from_sqlite(&self.path, source))
    }

    /// Compares the schema with the one that the migrations make.
    fn check_schema(&self, findings: &mut Findings) -> Result<()> {
        let sqlite = |source| Error::from_sqlite(&self.path, source);
        let model = Connection::open_in_memory().map_err(sqlite)?;
        model.execute_batch(&Dialect::Sqlite.schema()).map_err(sqlite)?;
        let wanted = objects(&model).map_err(sqlite)?;
        let found = objects(&self.connection).map_err(sqlite)?;
        for name in wanted.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
            if wanted.get(name) != found.get(name) {
                findings.add("schema", format!("{name} is not what it should be"));
            }
        }
        Ok(())
    }

    fn check_rows(&self, findings: &mut Findings) -> Result<()> {
        let mut streams = HashMap::new();
        self.each::<StreamRow>(findings, |row, _| {
            streams.insert(row.stream_id, row.partitions);
        })?;
        let mut deleted = HashSet::new();
        self.each::<TombstoneRow>(findings, |row, findings| {
            if streams.contains_key(&row.stream_id) {
                findings.add("tombstones", format!("stream {} lives", row.stream_id));
            }
            deleted.insert(row.stream_id);
        })?;
        let mut tiered = HashMap::new();
        self.each::<PartitionRow>(findings, |row, findings| {
            let at = (row.stream_id, row.partition);
            match streams.get(&row.stream_id) {
                Some(partitions) if row.partition < *partitions => {}
                _ => findings.add("partitions", format!("{} is of no stream", place(at))),
            }
            tiered.insert(at, row.tiered_offset);
        })?;
        self.each::<FieldRow>(findings, |row, findings| {
            if !streams.contains_key(&row.stream_id) {
                let what = format!("field {} of no stream {}", row.field_id, row.stream_id);
                findings.add("fields", what);
            }
        })?;
        self.each::<IntentRow>(findings, |row, findings| {
            let at = (row.stream_id, row.partition);
            if !tiered.contains_key(&at) && !deleted.contains(&row.stream_id) {
                let what = format!("intent {} of no partition {}", row.chunk_id, place(at));
                findings.add("intents", what);
            }
        })?;
        self.each::<MetaRow>(findings, |_, _| {})?;
        let objects = self.check_chunks(&tiered, &deleted, findings)?;
        self.each::<GarbageRow>(findings, |row, findings| {
            if objects.contains(&row.object_path) {
                findings.add("garbage", format!("{} is in use", row.object_path));
            }
        })
    }

    /// Follows the chunks of each partition, which cover its offsets without
    /// gap or overlap up to the tiered offset. Returns the objects in use.
    fn check_chunks(
        &self,
        tiered: &HashMap<(Uuid, i32), i64>,
        deleted: &HashSet<Uuid>,
        findings: &mut Findings,
    ) -> Result<HashSet<String>> {
        let mut objects = HashSet::new();
        let mut previous: Option<ChunkRow> = None;
        self.each::<ChunkRow>(findings, |row, findings| {
            let at = (row.stream_id, row.partition);
            for object in std::iter::once(&row.object_path).chain(&row.index_path) {
                if !objects.insert(object.clone()) {
                    findings.add("chunks", format!("{object} is named twice"));
                }
            }
            if !tiered.contains_key(&at) && !deleted.contains(&row.stream_id) {
                let what = format!("chunk {} of no partition {}", row.chunk_id, place(at));
                findings.add("chunks", what);
            }
            if let Some(last) = &previous {
                if (last.stream_id, last.partition) != at {
                    check_end(last, tiered, findings);
                } else if tiered.contains_key(&at) && last.next_offset != row.base_offset {
                    let what = format!(
                        "{}: chunk {} ends at {} and chunk {} begins at {}",
                        place(at),
                        last.chunk_id,
                        last.next_offset,
                        row.chunk_id,
                        row.base_offset
                    );
                    findings.add("chunks", what);
                }
            }
            previous = Some(row);
        })?;
        if let Some(last) = &previous {
            check_end(last, tiered, findings);
        }
        Ok(objects)
    }

    /// Gives every sound row to `visit`, and notes the others.
    fn each<R: Record>(
        &self,
        findings: &mut Findings,
        mut visit: impl FnMut(R, &mut Findings),
    ) -> Result<()> {
        self.for_each(R::ALL, &[], |row| {
            match row {
                Ok(row) => visit(row, findings),
                Err(what) => findings.add(R::TABLE, what),
            }
            Ok(())
        })
    }
}

/// A partition's last chunk ends where its tiered offset is.
fn check_end(last: &ChunkRow, tiered: &HashMap<(Uuid, i32), i64>, findings: &mut Findings) {
    let at = (last.stream_id, last.partition);
    if let Some(tiered) = tiered.get(&at)
        && *tiered != last.next_offset
    {
        let what = format!(
            "{}: tiered offset {tiered}, but chunk {} ends at {}",
            place(at),
            last.chunk_id,
            last.next_offset
        );
        findings.add("partitions", what);
    }
}

fn place((stream_id, partition): (Uuid, i32)) -> String {
    format!("{stream_id}/p{partition}")
}

/// The definitions of a database's tables and indexes, by name. Only SQLite
/// keeps them as text, so the query is here and not among the statements.
pub(crate) fn objects(connection: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    connection
        .prepare("SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_master")?
        .query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, place: &'static str, what: String) {
        if self.0.len() < FINDINGS_MAX {
            self.0.push(Finding { place, what });
        }
    }
}

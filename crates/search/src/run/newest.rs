//! The newest records that match.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use aquifer_types::{PartitionIndex, Record};
use tokio::task::JoinSet;

use super::source::{Parts, RowSet, Source};
use super::unit::{Shared, Unit};
use super::worker::{Visitor, visit};
use super::{Cursor, Failure, RunOptions};
use crate::query::{Query, Span};
use crate::{Marks, Matcher, Scratch, Searchable};

/// What is searched for.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// What records must be, their times included.
    pub query: Query,
    /// The most hits.
    pub hits_max: usize,
    /// Hits are only what comes behind this in their order.
    pub after: Option<Cursor>,
    /// Whether to count all that match.
    pub wants_total: bool,
    /// Whether to mark what matched.
    pub wants_marks: bool,
}

/// A record that matches.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Its partition.
    pub partition: PartitionIndex,
    /// The record.
    pub record: Record,
    /// What in it matched, if that was asked for.
    pub marks: Vec<Marks>,
}

/// How many records match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Total {
    /// So many, or at least so many.
    pub value: u64,
    /// Whether there are no more.
    pub is_exact: bool,
}

/// A page of hits.
#[derive(Debug, Clone, PartialEq)]
pub struct Hits {
    /// By (timestamp, partition, offset), descending.
    pub hits: Vec<Hit>,
    /// How many there are on all pages.
    pub total: Total,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
    /// Records that were read.
    pub rows_read: u64,
}

/// Searches `parts`.
///
/// # Errors
/// What the source fails of; hits that are too large.
pub async fn search<S: Source>(
    source: Arc<S>,
    parts: Parts,
    request: SearchRequest,
    options: RunOptions,
) -> Result<Hits, Failure> {
    if request.hits_max == 0 && !request.wants_total {
        let total = Total { value: 0, is_exact: false };
        return Ok(Hits { hits: Vec::new(), total, next: None, rows_read: 0 });
    }
    let mut run = Run::new(source, parts, request, options);
    run.advance().await?;
    Ok(run.finish())
}

/// A search under way.
struct Run<S> {
    shared: Arc<Shared<S>>,
    matcher: Arc<Matcher>,
    request: Arc<SearchRequest>,
    /// What is left, the newest first.
    left: BinaryHeap<Ranked>,
    tasks: JoinSet<Result<(Cursor, Outcome), Failure>>,
    /// The newest that each task can find; `true` for what is being opened.
    under_way: Vec<(Cursor, bool)>,
    opened: usize,
    /// One more than the page has, so that it is known whether there is more.
    hits: BTreeMap<Cursor, Record>,
    hits_bytes: u64,
    matched: u64,
    rows_read: u64,
}

/// A unit, ordered by the newest that it can have.
struct Ranked(Unit);

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.0.newest() == other.0.newest()
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.newest().cmp(&other.0.newest())
    }
}

enum Outcome {
    Opened(Vec<Unit>),
    Read(Collected),
}

impl<S: Source> Run<S> {
    fn new(source: Arc<S>, parts: Parts, request: SearchRequest, options: RunOptions) -> Self {
        let envelope = request.query.envelope();
        let left = Unit::of_parts(&parts).into_iter().filter(|unit| unit.meets(&envelope));
        let left = left.map(Ranked).collect();
        let need = request.query.need();
        Self {
            matcher: Arc::new(Matcher::new(&request.query)),
            shared: Arc::new(Shared { source, parts, need, envelope, options }),
            request: Arc::new(request),
            left,
            tasks: JoinSet::new(),
            under_way: Vec::new(),
            opened: 0,
            hits: BTreeMap::new(),
            hits_bytes: 0,
            matched: 0,
            rows_read: 0,
        }
    }

    async fn advance(&mut self) -> Result<(), Failure> {
        loop {
            self.start_tasks();
            // What is left now is needed, and waits for room.
            let is_over = self.left.is_empty()
                && !self.under_way.iter().any(|(newest, _)| self.can_give_hits(*newest));
            if is_over {
                return Ok(());
            }
            let Some(done) = self.tasks.join_next().await else { return Ok(()) };
            let (newest, outcome) = match done {
                Ok(outcome) => outcome?,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return Err(Failure::Lost),
                },
            };
            let is_opening = matches!(outcome, Outcome::Opened(_));
            let at = self.under_way.iter().position(|task| *task == (newest, is_opening));
            at.map(|at| self.under_way.swap_remove(at));
            match outcome {
                Outcome::Opened(units) => {
                    self.opened += 1;
                    self.left.extend(units.into_iter().map(Ranked));
                }
                Outcome::Read(collected) => self.take(collected)?,
            }
        }
    }

    fn start_tasks(&mut self) {
        let options = &self.shared.options;
        // The first parts may be enough: more are opened the longer it takes.
        let opens_max = options.opens_max.min(2 + self.opened).max(1);
        let reads_max = options.reads_max.max(1);
        while let Some(Ranked(unit)) = self.left.peek() {
            let newest = unit.newest();
            let opening = self.under_way.iter().filter(|(_, is_opening)| *is_opening).count();
            let room = if unit.is_open() {
                self.under_way.len() - opening < reads_max
            } else {
                opening < opens_max
            };
            let is_needed = self.is_needed(unit);
            if is_needed && !room {
                return;
            }
            let Some(Ranked(unit)) = self.left.pop() else { return };
            if !is_needed {
                if !self.request.wants_total {
                    // Nothing that is left is newer.
                    if !self.can_give_hits(newest) {
                        self.left.clear();
                    }
                    continue;
                }
                self.matched += unit.count.unwrap_or(0);
                continue;
            }
            self.under_way.push((newest, !unit.is_open()));
            self.start(unit, newest);
        }
    }

    fn start(&mut self, unit: Unit, newest: Cursor) {
        let shared = self.shared.clone();
        if !unit.is_open() {
            self.tasks.spawn(async move {
                let units = shared.open(&unit).await?;
                Ok((newest, Outcome::Opened(units)))
            });
            return;
        }
        let mut collected = Collected {
            matcher: self.matcher.clone(),
            request: self.request.clone(),
            scratch: Scratch::default(),
            beyond: self.worst().copied(),
            hits: BinaryHeap::new(),
            matched: 0,
            rows: 0,
        };
        self.tasks.spawn(async move {
            visit(&shared, &unit, &mut collected).await?;
            Ok((newest, Outcome::Read(collected)))
        });
    }

    /// The last hit, where there are as many as are wanted.
    fn worst(&self) -> Option<&Cursor> {
        if self.hits.len() <= self.request.hits_max { None } else { self.hits.keys().next() }
    }

    /// Whether what is at `newest` or behind it can still change the answer.
    fn can_give_hits(&self, newest: Cursor) -> bool {
        self.request.wants_total || self.worst().is_none_or(|worst| newest > *worst)
    }

    /// Whether a unit has to be read.
    fn is_needed(&self, unit: &Unit) -> bool {
        let is_behind = self.request.after.is_none_or(|after| unit.oldest() < after);
        let has_hits = is_behind
            && self.request.hits_max > 0
            && self.worst().is_none_or(|worst| unit.newest() > *worst);
        if has_hits || !self.request.wants_total {
            return has_hits;
        }
        // Where every record matches, their number is enough.
        let is_known = self.request.query.is_place_range()
            && unit.is_within(&self.shared.envelope)
            && unit.count.is_some();
        !is_known
    }

    fn take(&mut self, collected: Collected) -> Result<(), Failure> {
        self.matched += collected.matched;
        self.rows_read += collected.rows;
        for Reverse((cursor, Owned(record))) in collected.hits {
            self.hits_bytes += held_bytes(&record);
            self.hits.insert(cursor, record);
            if self.hits.len() > self.request.hits_max + 1 {
                let removed = self.hits.pop_first();
                self.hits_bytes -= removed.map_or(0, |(_, record)| held_bytes(&record));
            }
        }
        let bytes_max = self.shared.options.hits_bytes_max;
        if self.hits_bytes > bytes_max {
            return Err(Failure::HitsTooLarge { bytes_max });
        }
        Ok(())
    }

    fn finish(mut self) -> Hits {
        let is_last = self.hits.len() <= self.request.hits_max;
        // Without a count of all, everything was counted only where everything
        // was wanted.
        let is_exact = self.request.wants_total
            || (is_last && self.request.after.is_none() && self.request.hits_max > 0);
        if !is_last {
            self.hits.pop_first();
        }
        let next = if is_last { None } else { self.hits.keys().next().copied() };
        let mut scratch = Scratch::default();
        let hits = self.hits.into_iter().rev().map(|(cursor, record)| {
            let partition = PartitionIndex(cursor.partition as _);
            let marks = match self.request.wants_marks {
                true => self.matcher.marks(&(partition, &record), &mut scratch),
                false => Vec::new(),
            };
            Hit { partition, record, marks }
        });
        Hits {
            hits: hits.collect(),
            total: Total { value: self.matched, is_exact },
            next,
            rows_read: self.rows_read,
        }
    }
}

/// The newest hits of one unit.
struct Collected {
    matcher: Arc<Matcher>,
    request: Arc<SearchRequest>,
    scratch: Scratch,
    /// Only what is newer can be among the hits.
    beyond: Option<Cursor>,
    hits: BinaryHeap<Reverse<(Cursor, Owned)>>,
    matched: u64,
    rows: u64,
}

/// A record that the order of hits does not look at.
struct Owned(Record);

/// What a hit holds: its bytes, and about what its parts take beside them.
fn held_bytes(record: &Record) -> u64 {
    const PART_BYTES: usize = 128;
    (record.payload_bytes() + PART_BYTES * (1 + record.headers.len())) as u64
}

impl PartialEq for Owned {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Owned {}

impl PartialOrd for Owned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Owned {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl Collected {
    fn can_be_hit(&self, cursor: Cursor) -> bool {
        if self.request.after.is_some_and(|after| cursor >= after)
            || self.beyond.is_some_and(|beyond| cursor <= beyond)
        {
            return false;
        }
        let is_full = self.hits.len() > self.request.hits_max;
        !is_full || self.hits.peek().is_none_or(|Reverse((worst, _))| cursor > *worst)
    }
}

impl Visitor for Collected {
    fn rows<R: RowSet>(&mut self, rows: &R, counted: Span) {
        self.rows += rows.len() as u64;
        // From behind, where the newest are: the rest is then seldom one of them.
        for place in (0..rows.len()).rev() {
            let Some(row) = rows.row(place) else { continue };
            let cursor = Cursor::new(row.place());
            if !counted.contains(cursor.offset) {
                continue;
            }
            let can_be_hit = self.can_be_hit(cursor);
            if !can_be_hit && !self.request.wants_total {
                continue;
            }
            if !self.matcher.matches(&row, &mut self.scratch) {
                continue;
            }
            self.matched += 1;
            if can_be_hit && let Some(record) = rows.record(place) {
                self.hits.push(Reverse((cursor, Owned(record))));
                if self.hits.len() > self.request.hits_max + 1 {
                    self.hits.pop();
                }
            }
        }
    }
}

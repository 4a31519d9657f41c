//! How many records match over time, and which values they have.

use std::collections::BinaryHeap;
use std::sync::Arc;

use aquifer_types::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::bars::Grid;
use super::source::{Parts, RowSet, Source};
use super::top::TopCounter;
use super::unit::{Shared, Unit};
use super::worker::{Visitor, times, visit};
use super::{Failure, RunOptions};
use crate::query::{Query, Span};
use crate::{Matcher, Scratch, Searchable};

/// What is counted.
#[derive(Debug, Clone)]
pub struct HistogramRequest {
    /// What records must be, their times included.
    pub query: Query,
    /// The most bars.
    pub bars_max: usize,
    /// The fields whose most frequent values are wanted.
    pub top_of: Vec<String>,
    /// How many values of each.
    pub top_max: usize,
}

/// A histogram.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bars {
    /// How wide each bar is, in ms.
    pub width_ms: u64,
    /// All bars from the first record to the last, side by side.
    pub bars: Vec<Bar>,
    /// The sum of all bars.
    pub total: u64,
    /// A field each, in the order asked for.
    pub top: Vec<TopValues>,
    /// Records that were read.
    pub rows_read: u64,
    /// Whether everything was counted.
    pub is_complete: bool,
}

/// One bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Where it begins.
    pub start: Timestamp,
    /// How many records lie in it.
    pub count: u64,
}

/// The most frequent values of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopValues {
    /// The field.
    pub field: String,
    /// The most frequent first.
    pub values: Vec<TopValue>,
    /// No count is too low by more than this.
    pub error_max: u64,
    /// Values that were too long to be counted.
    pub too_long: u64,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopValue {
    /// As JSON writes it.
    pub json: String,
    /// How many records have it.
    pub count: u64,
}

/// Counts in `parts`. What is counted so far is put into `progress` from time
/// to time, the newest first.
///
/// # Errors
/// What the source fails of.
pub async fn histogram<S: Source>(
    source: Arc<S>,
    parts: Parts,
    request: HistogramRequest,
    options: RunOptions,
    progress: Option<watch::Sender<Bars>>,
) -> Result<Bars, Failure> {
    let envelope = request.query.envelope();
    let need = request.query.need();
    let shared = Arc::new(Shared { source, parts, need, envelope, options });
    let units = Unit::of_parts(&shared.parts).into_iter().filter(|unit| unit.meets(&envelope));
    let units = bounded(&shared, units.collect()).await?;
    let span = units.iter().fold(Span::NONE, |span, unit| span.cover(unit.timestamps));
    let counter = Arc::new(Counter {
        matcher: Matcher::new(&request.query),
        grid: Grid::new(span.intersect(envelope.timestamps), request.bars_max),
        request,
    });
    let mut run = Run {
        counted: Counted::new(counter.clone(), &shared.options),
        counter,
        shared,
        left: units.into_iter().map(ByTime).collect(),
        tasks: JoinSet::new(),
        opening: 0,
        reading: 0,
    };
    let mut ticks = tokio::time::interval(run.shared.options.progress_interval);
    ticks.tick().await;
    loop {
        run.start_tasks();
        if run.tasks.is_empty() {
            return Ok(run.counted.bars(true));
        }
        tokio::select! {
            done = run.tasks.join_next() => run.take(done)?,
            _ = ticks.tick(), if progress.is_some() => {
                if let Some(progress) = &progress {
                    progress.send_replace(run.counted.bars(false));
                }
            }
        }
    }
}

/// The units, opened as far as it takes to know between which times all lie.
async fn bounded<S: Source>(
    shared: &Arc<Shared<S>>,
    units: Vec<Unit>,
) -> Result<Vec<Unit>, Failure> {
    let mut known = Vec::with_capacity(units.len());
    let mut tasks = JoinSet::new();
    for unit in units {
        if unit.timestamps != Span::ALL {
            known.push(unit);
            continue;
        }
        if tasks.len() >= shared.options.opens_max.max(1)
            && let Some(opened) = tasks.join_next().await
        {
            known.extend(finished(opened)?);
        }
        let shared = shared.clone();
        tasks.spawn(async move { shared.open(&unit).await });
    }
    while let Some(opened) = tasks.join_next().await {
        known.extend(finished(opened)?);
    }
    Ok(known)
}

fn finished<T>(done: Result<Result<T, Failure>, tokio::task::JoinError>) -> Result<T, Failure> {
    match done {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Failure::Lost),
        },
    }
}

/// What all tasks of a histogram share.
struct Counter {
    request: HistogramRequest,
    matcher: Matcher,
    grid: Grid,
}

struct Run<S> {
    shared: Arc<Shared<S>>,
    counter: Arc<Counter>,
    counted: Counted,
    left: BinaryHeap<ByTime>,
    tasks: JoinSet<Result<Outcome, Failure>>,
    opening: usize,
    reading: usize,
}

/// A unit; the newest are counted first.
struct ByTime(Unit);

impl PartialEq for ByTime {
    fn eq(&self, other: &Self) -> bool {
        self.0.timestamps.last == other.0.timestamps.last
    }
}

impl Eq for ByTime {}

impl PartialOrd for ByTime {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByTime {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.timestamps.last.cmp(&other.0.timestamps.last)
    }
}

enum Outcome {
    Opened(Vec<Unit>),
    Counted(Counted),
}

impl<S: Source> Run<S> {
    fn start_tasks(&mut self) {
        while let Some(ByTime(unit)) = self.left.peek() {
            if let Some((bar, count)) = self.known(unit) {
                self.counted.add(bar, count);
                self.left.pop();
                continue;
            }
            let options = &self.shared.options;
            let has_room = match unit.is_open() {
                true => self.reading < options.reads_max.max(1),
                false => self.opening < options.opens_max.max(1),
            };
            if !has_room {
                return;
            }
            let Some(ByTime(unit)) = self.left.pop() else { return };
            let shared = self.shared.clone();
            if !unit.is_open() {
                self.opening += 1;
                self.tasks.spawn(async move { Ok(Outcome::Opened(shared.open(&unit).await?)) });
                continue;
            }
            self.reading += 1;
            let mut counted = Counted::new(self.counter.clone(), options);
            self.tasks.spawn(async move {
                counted.read(&shared, &unit).await?;
                Ok(Outcome::Counted(counted))
            });
        }
    }

    /// The bar of all records of a unit, where all match, and their number.
    fn known(&self, unit: &Unit) -> Option<(usize, u64)> {
        let is_enough = self.counter.request.top_of.is_empty()
            && self.counter.request.query.is_place_range()
            && unit.is_within(&self.shared.envelope);
        let bar = self.counter.grid.bar_around(unit.timestamps)?;
        if is_enough { Some((bar, unit.count?)) } else { None }
    }

    fn take(
        &mut self,
        done: Option<Result<Result<Outcome, Failure>, tokio::task::JoinError>>,
    ) -> Result<(), Failure> {
        let Some(done) = done else { return Ok(()) };
        match finished(done)? {
            Outcome::Opened(units) => {
                self.opening -= 1;
                self.left.extend(units.into_iter().map(ByTime));
            }
            Outcome::Counted(counted) => {
                self.reading -= 1;
                self.counted.merge(counted);
            }
        }
        Ok(())
    }
}

/// What was counted.
struct Counted {
    counter: Arc<Counter>,
    scratch: Scratch,
    bars: Vec<u64>,
    top: Vec<TopCounter>,
    rows: u64,
}

impl Counted {
    fn new(counter: Arc<Counter>, options: &RunOptions) -> Self {
        let fields = counter.request.top_of.len().max(1);
        // Each read has counters of its own, one that has ended keeps its until
        // they are merged, and there are those of all.
        let counters = fields.saturating_mul(options.reads_max.max(1).saturating_mul(2) + 1);
        let bytes_max = usize::try_from(options.top_bytes_max).unwrap_or(usize::MAX) / counters;
        let top = counter.request.top_of.iter().map(|field| {
            let (values_max, value_bytes_max) =
                (options.top_values_max, options.top_value_bytes_max);
            TopCounter::new(field, values_max, value_bytes_max, bytes_max)
        });
        Self {
            scratch: Scratch::default(),
            bars: vec![0; counter.grid.count],
            top: top.collect(),
            rows: 0,
            counter,
        }
    }

    async fn read<S: Source>(
        &mut self,
        shared: &Arc<Shared<S>>,
        unit: &Unit,
    ) -> Result<(), Failure> {
        // Where only places decide, the rest of a record is not read.
        if self.top.is_empty()
            && self.counter.request.query.root.is_of_place()
            && let Some(times) = times(shared, unit).await?
        {
            self.rows += times.len() as u64;
            let partition = i64::from(unit.partition.get());
            for (offset, time) in times {
                let place = Bare { place: (time.0, partition, offset) };
                if self.counter.matcher.matches(&place, &mut self.scratch) {
                    let bar = self.counter.grid.bar_of(time.0);
                    self.add(bar, 1);
                }
            }
            return Ok(());
        }
        visit(shared, unit, self).await
    }

    fn add(&mut self, bar: usize, count: u64) {
        if let Some(bar) = self.bars.get_mut(bar) {
            *bar += count;
        }
    }

    fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        for (bar, more) in self.bars.iter_mut().zip(other.bars) {
            *bar += more;
        }
        for (top, more) in self.top.iter_mut().zip(other.top) {
            top.merge(more);
        }
    }

    fn bars(&self, is_complete: bool) -> Bars {
        let grid = &self.counter.grid;
        let start = |bar| Timestamp(grid.start_of(bar));
        let bars = self.bars.iter().enumerate();
        let bars = bars.map(|(bar, count)| Bar { start: start(bar), count: *count });
        let request = &self.counter.request;
        let top = self.top.iter().zip(&request.top_of).map(|(top, field)| TopValues {
            field: field.clone(),
            values: top
                .top(request.top_max)
                .into_iter()
                .map(|(value, count)| TopValue {
                    json: String::from_utf8_lossy(&value).into_owned(),
                    count,
                })
                .collect(),
            error_max: top.error_max,
            too_long: top.too_long,
        });
        Bars {
            width_ms: grid.width_ms(),
            total: self.bars.iter().sum(),
            bars: bars.collect(),
            top: top.collect(),
            rows_read: self.rows,
            is_complete,
        }
    }
}

impl Visitor for Counted {
    fn rows<R: RowSet>(&mut self, rows: &R, counted: Span) {
        self.rows += rows.len() as u64;
        for place in 0..rows.len() {
            let Some(row) = rows.row(place) else { continue };
            let (time, _, offset) = row.place();
            if counted.contains(offset) && self.counter.matcher.matches(&row, &mut self.scratch) {
                let bar = self.counter.grid.bar_of(time);
                self.add(bar, 1);
                for top in &mut self.top {
                    top.add(&row);
                }
            }
        }
    }
}

/// A record of which only the place is known.
struct Bare {
    place: (i64, i64, i64),
}

impl Searchable for Bare {
    fn place(&self) -> (i64, i64, i64) {
        self.place
    }

    fn key(&self) -> Option<&[u8]> {
        None
    }

    fn value(&self) -> Option<&[u8]> {
        None
    }

    fn each_header(&self, _: &mut dyn FnMut(&[u8], Option<&[u8]>) -> bool) {}
}

//! The merge of an as-of join: each side is walked once.
//!
//! Of either side one batch is held at a time, and of the right one the batch
//! before too, for its last row. Rows that were matched leave as soon as one of the
//! batches goes, so that nothing holds more than these.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::{BatchCoalescer, take};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::row::{OwnedRow, RowConverter, Rows};
use datafusion::common::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::metrics::Time;
use futures::StreamExt as _;

use super::exec::Nearest;
use crate::size::held_bytes;

/// Make rows of both sides comparable.
pub(super) struct Converters {
    /// None where there are no keys.
    pub(super) keys: Option<RowConverter>,
    pub(super) times: RowConverter,
}

/// One input, and the batch of it that is walked.
pub(super) struct Side {
    input: SendableRecordBatchStream,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    time: Arc<dyn PhysicalExpr>,
    batch: Option<Sorted>,
    /// The next row.
    at: usize,
    is_over: bool,
}

/// A batch, and what its rows are compared by.
struct Sorted {
    batch: RecordBatch,
    keys: Option<Rows>,
    times: Rows,
    /// Rows with a null among keys and time: they have no partner.
    nulls: Option<NullBuffer>,
    bytes: usize,
}

/// The last row of the batch before, which may still be the nearest.
struct Carried {
    row: RecordBatch,
    key: Option<OwnedRow>,
    is_null: bool,
    /// Of the whole batch: the row is a slice of it.
    bytes: usize,
}

/// Where matched rows of the right side lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Carried,
    Batch,
}

/// What the merge cannot go on without.
enum Wanted {
    Left,
    Right,
}

/// Rows that were matched and have not left yet, of one batch on the left.
#[derive(Default)]
struct Matched {
    left: Vec<u32>,
    right: Vec<Option<u32>>,
    place: Option<Place>,
}

/// The join of one part.
pub(super) struct Merge {
    left: Side,
    right: Side,
    carried: Option<Carried>,
    converters: Converters,
    nearest: Nearest,
    is_outer: bool,
    schema: SchemaRef,
    matched: Matched,
    out: BatchCoalescer,
    memory: MemoryReservation,
    is_over: bool,
}

impl Side {
    pub(super) fn new(
        input: SendableRecordBatchStream,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        time: Arc<dyn PhysicalExpr>,
    ) -> Self {
        Self { input, keys, time, batch: None, at: 0, is_over: false }
    }

    fn len(&self) -> usize {
        self.batch.as_ref().map_or(0, |sorted| sorted.batch.num_rows())
    }

    /// The next batch that has rows; none at the end.
    async fn fetch(&mut self, converters: &Converters) -> Result<Option<Sorted>> {
        loop {
            // An input that is always there must not keep the thread.
            tokio::task::coop::consume_budget().await;
            let Some(batch) = self.input.next().await.transpose()? else {
                self.is_over = true;
                return Ok(None);
            };
            if batch.num_rows() > 0 {
                return self.sorted(batch, converters).map(Some);
            }
        }
    }

    fn sorted(&self, batch: RecordBatch, converters: &Converters) -> Result<Sorted> {
        let rows = batch.num_rows();
        let values = |expr: &Arc<dyn PhysicalExpr>| -> Result<ArrayRef> {
            expr.evaluate(&batch)?.into_array(rows)
        };
        let keys: Vec<ArrayRef> = self.keys.iter().map(values).collect::<Result<_>>()?;
        let time = values(&self.time)?;
        let nulls = keys.iter().chain([&time]).fold(None, |nulls, column| {
            NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref())
        });
        let times = converters.times.convert_columns(&[time])?;
        let keys = converters.keys.as_ref().map(|keys_of| keys_of.convert_columns(&keys));
        let keys = keys.transpose()?;
        let bytes = held_bytes(&batch) + times.size() + keys.as_ref().map_or(0, Rows::size);
        Ok(Sorted { batch, keys, times, nulls, bytes })
    }
}

impl Sorted {
    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    fn has_key_of(&self, row: usize, other: &Self, other_row: usize) -> bool {
        match (&self.keys, &other.keys) {
            (Some(keys), Some(others)) => keys.row(row) == others.row(other_row),
            _ => true,
        }
    }
}

impl Merge {
    #[expect(clippy::too_many_arguments, reason = "it is called once, by the operator it is of")]
    pub(super) fn new(
        left: Side,
        right: Side,
        converters: Converters,
        nearest: Nearest,
        is_outer: bool,
        schema: SchemaRef,
        batch_rows: usize,
        memory: MemoryReservation,
    ) -> Self {
        Self {
            left,
            right,
            carried: None,
            converters,
            nearest,
            is_outer,
            out: BatchCoalescer::new(schema.clone(), batch_rows.max(1)),
            schema,
            matched: Matched::default(),
            memory,
            is_over: false,
        }
    }

    /// The next rows of the join; none at its end.
    pub(super) async fn next(&mut self, time: &Time) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.out.next_completed_batch() {
                return Ok(Some(batch));
            }
            if self.is_over {
                return Ok(None);
            }
            let wanted = {
                let _timer = time.timer();
                let wanted = self.advance()?;
                // What was matched refers to the batches that go now.
                self.leave()?;
                wanted
            };
            match wanted {
                Wanted::Left => {
                    self.left.batch = None;
                    self.left.batch = self.left.fetch(&self.converters).await?;
                    self.left.at = 0;
                }
                Wanted::Right => {
                    if let Some(next) = self.right.fetch(&self.converters).await? {
                        let before = self.right.batch.replace(next);
                        self.right.at = 0;
                        self.carry(before);
                    }
                }
            }
            if self.left.batch.is_none() {
                self.is_over = true;
                self.out.finish_buffered_batch()?;
            }
            self.account()?;
        }
    }

    /// Keeps the last row of a batch that goes, where it may be the nearest.
    fn carry(&mut self, before: Option<Sorted>) {
        let Some(before) = before.filter(|_| self.nearest.is_before) else { return };
        let Some(last) = before.batch.num_rows().checked_sub(1) else { return };
        self.carried = Some(Carried {
            key: before.keys.as_ref().map(|keys| keys.row(last).owned()),
            is_null: before.is_null(last),
            bytes: held_bytes(&before.batch),
            row: before.batch.slice(last, 1),
        });
    }

    /// Finds partners until one of the batches is used up.
    fn advance(&mut self) -> Result<Wanted> {
        while self.left.at < self.left.len() {
            let Some(left) = &self.left.batch else { break };
            let row = self.left.at;
            if left.is_null(row) {
                self.take(row, None)?;
                continue;
            }
            while self.right.at < self.right.len() && self.is_passed(row) {
                self.right.at += 1;
            }
            if self.right.at >= self.right.len() && !self.right.is_over {
                return Ok(Wanted::Right);
            }
            let found = if self.nearest.is_before { self.before(row) } else { self.behind(row) };
            self.take(row, found)?;
        }
        Ok(Wanted::Left)
    }

    /// Whether the next row on the right lies before all that can be the first
    /// behind the row on the left.
    fn is_passed(&self, row: usize) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let (Some(left), Some(right)) = (&self.left.batch, &self.right.batch) else { return false };
        let at = self.right.at;
        let by_key = match (&right.keys, &left.keys) {
            (Some(right), Some(left)) => right.row(at).cmp(&left.row(row)),
            _ => Equal,
        };
        match by_key {
            Less => true,
            Greater => false,
            Equal => match right.times.row(at).cmp(&left.times.row(row)) {
                Less => true,
                Greater => false,
                // One of the same time is the nearest before where that counts,
                // and cannot be the first behind where it does not.
                Equal => self.nearest.is_before == self.nearest.takes_equal,
            },
        }
    }

    /// The last row that was passed, if it is of the same key.
    fn before(&self, row: usize) -> Option<(Place, u32)> {
        let left = self.left.batch.as_ref()?;
        if let Some(at) = self.right.at.checked_sub(1) {
            let right = self.right.batch.as_ref()?;
            let is_partner = !right.is_null(at) && right.has_key_of(at, left, row);
            return is_partner.then_some((Place::Batch, u32::try_from(at).ok()?));
        }
        let carried = self.carried.as_ref()?;
        let has_key = match (&carried.key, &left.keys) {
            (Some(key), Some(keys)) => key.row() == keys.row(row),
            _ => true,
        };
        (!carried.is_null && has_key).then_some((Place::Carried, 0))
    }

    /// The first row that was not passed, if it is of the same key.
    fn behind(&self, row: usize) -> Option<(Place, u32)> {
        let at = self.right.at;
        let (left, right) = (self.left.batch.as_ref()?, self.right.batch.as_ref()?);
        let is_there = at < right.batch.num_rows() && !right.is_null(at);
        let is_partner = is_there && right.has_key_of(at, left, row);
        is_partner.then_some((Place::Batch, u32::try_from(at).ok()?))
    }

    /// Goes over a row on the left and what was found for it.
    fn take(&mut self, row: usize, found: Option<(Place, u32)>) -> Result<()> {
        self.left.at += 1;
        if found.is_none() && !self.is_outer {
            return Ok(());
        }
        if let Some((place, _)) = found {
            if self.matched.place.is_some_and(|before| before != place) {
                self.leave()?;
            }
            self.matched.place = Some(place);
        }
        // Batches have less than 2³² rows.
        self.matched.left.push(u32::try_from(row).unwrap_or(u32::MAX));
        self.matched.right.push(found.map(|(_, at)| at));
        Ok(())
    }

    /// Hands on the rows that were matched.
    fn leave(&mut self) -> Result<()> {
        let Matched { left, right, place } = std::mem::take(&mut self.matched);
        let (Some(first), Some(last)) = (left.first(), left.last()) else { return Ok(()) };
        let Some(sorted) = &self.left.batch else { return Ok(()) };
        let (first, count) = (*first as usize, left.len());
        let is_run = (*last as usize) + 1 - first == count;
        let mut columns: Vec<ArrayRef> = if is_run {
            sorted.batch.slice(first, count).columns().to_vec()
        } else {
            let rows = UInt32Array::from(left);
            let columns = sorted.batch.columns().iter();
            columns.map(|column| take(column, &rows, None)).collect::<Result<_, _>>()?
        };
        let partners = match place {
            Some(Place::Batch) => self.right.batch.as_ref().map(|sorted| &sorted.batch),
            Some(Place::Carried) => self.carried.as_ref().map(|carried| &carried.row),
            None => None,
        };
        let width = columns.len();
        match partners {
            Some(partners) => {
                let rows = UInt32Array::from(right);
                for column in partners.columns() {
                    columns.push(take(column, &rows, None)?);
                }
            }
            None => {
                let of_right = self.schema.fields().iter().skip(width);
                columns.extend(of_right.map(|field| new_null_array(field.data_type(), count)));
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        self.out.push_batch(batch)?;
        Ok(())
    }

    /// Counts what is held.
    fn account(&mut self) -> Result<()> {
        let of = |side: &Side| side.batch.as_ref().map_or(0, |sorted| sorted.bytes);
        let carried = self.carried.as_ref().map_or(0, |carried| carried.bytes);
        let bytes = of(&self.left) + of(&self.right) + carried + self.out.size();
        self.memory.try_resize(bytes)
    }
}

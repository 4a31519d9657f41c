//! The tail in columns: what was read of the journal is parsed once, and kept
//! within a budget for the questions to come.
//!
//! An offset names one record for ever, and what is below a cut's end no longer
//! changes, so a block is right for as long as it is kept. Blocks may overlap
//! and may be dropped at any time; what is missing is asked for again.
//!
//! Once somebody wants fields of its values, a block keeps those as columns too,
//! and grows by them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use aquifer_types::{Offset, Partition};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use datafusion::arrow::compute::{concat, concat_batches};
use datafusion::arrow::error::ArrowError;
use parking_lot::{Mutex, MutexGuard};

use crate::Error;
use crate::fields::{Columns, shred};
use crate::prune::Bounds;
use crate::schema::{APPENDED, OFFSET, TIMESTAMP, UNFIT, VALUE, table_schema};
use crate::zones::Zones;

/// Blocks that lie side by side are joined up to this size, so that a tail that
/// was read record by record is not kept record by record.
const BLOCK_BYTES_MAX: usize = 4 << 20;
/// What a block takes beside its columns.
const BLOCK_OVERHEAD_BYTES: usize = 1024;

/// The records of a range of one partition.
#[derive(Debug)]
pub(crate) struct Block {
    /// The first offset that it speaks for.
    pub(crate) from: Offset,
    /// The first behind it that it does not.
    pub(crate) next: Offset,
    /// The records, in the columns of a table; fewer than offsets where there
    /// are gaps.
    pub(crate) rows: RecordBatch,
    /// What is known of them.
    pub(crate) bounds: Bounds,
    /// Changed under the cache's lock only, once it is in there.
    bytes: AtomicUsize,
    used: AtomicU64,
    /// Fields at the top, by name; `_unfit` of all fields is one of them.
    fields: Mutex<BTreeMap<String, FieldColumn>>,
    zones: Mutex<Zones>,
}

/// A field of a block's values.
#[derive(Debug, Clone)]
pub(crate) struct FieldColumn {
    /// The version of the schema that it was read under.
    version: u32,
    pub(crate) column: ArrayRef,
    /// Where it is null, everything within the field fits.
    pub(crate) unfit: ArrayRef,
}

impl FieldColumn {
    fn bytes(&self) -> usize {
        self.column.get_array_memory_size() + self.unfit.get_array_memory_size()
    }
}

impl Block {
    /// A block for `[from, next)` of a partition. Rows outside are left out.
    pub(crate) fn new(partition: Partition, from: Offset, next: Offset, rows: RecordBatch) -> Self {
        let rows = within(&rows, from, next);
        let micros = |name: &str| {
            let column = rows.column_by_name(name)?;
            let values = column.as_primitive_opt::<TimestampMicrosecondType>()?.values();
            Some((values.iter().copied().min()?, values.iter().copied().max()?))
        };
        let bounds = Bounds {
            partition: partition.index,
            base: from,
            next,
            timestamps: micros(TIMESTAMP),
            appended_max: micros(APPENDED).map(|(_, max)| max),
        };
        let bytes = AtomicUsize::new(rows.get_array_memory_size() + BLOCK_OVERHEAD_BYTES);
        let used = AtomicU64::new(0);
        let (fields, zones) = (Mutex::default(), Mutex::default());
        Self { from, next, rows, bounds, bytes, used, fields, zones }
    }

    /// The fields `roots` of its values, and by how many bytes it has grown for
    /// them: each is read once, for as long as the schema stays as it is.
    pub(crate) fn fields(
        &self,
        columns: &Columns,
        roots: &BTreeSet<String>,
    ) -> Result<(BTreeMap<String, FieldColumn>, usize), Error> {
        let version = columns.stream().version();
        let mut known = self.fields.lock();
        let is_there = |root: &&String| known.get(*root).is_some_and(|of| of.version == version);
        let missing: BTreeSet<String> =
            roots.iter().filter(|root| !is_there(root)).cloned().collect();
        let mut grown = 0;
        if !missing.is_empty() {
            let values = self.rows.column_by_name(VALUE);
            let values = values.ok_or_else(|| Error::Plan("a block has no values".to_owned()))?;
            let read = shred(&columns.narrowed(&missing), values)?;
            let unfit = read.iter().find(|(field, _)| field.name() == UNFIT);
            let unfit = unfit.map(|(_, column)| column.clone());
            let unfit = unfit.ok_or_else(|| Error::Plan("no field was read".to_owned()))?;
            for (field, column) in read {
                // That of some fields is not that of all.
                if field.name() == UNFIT && !missing.contains(UNFIT) {
                    continue;
                }
                let new = FieldColumn { version, column, unfit: unfit.clone() };
                grown += new.bytes();
                if let Some(old) = known.insert(field.name().clone(), new) {
                    grown = grown.saturating_sub(old.bytes());
                }
            }
        }
        let wanted = roots.iter().filter_map(|root| known.get_key_value(root));
        Ok((wanted.map(|(root, field)| (root.clone(), field.clone())).collect(), grown))
    }

    /// Counts bytes that it has grown by before it is kept.
    pub(crate) fn grow(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The field `root` of its values, if it was read under this version.
    pub(crate) fn known_field(&self, version: u32, root: &str) -> Option<FieldColumn> {
        self.fields.lock().get(root).filter(|field| field.version == version).cloned()
    }

    /// What is known of its columns of fields, and of what is derived from them.
    pub(crate) fn zones(&self) -> MutexGuard<'_, Zones> {
        self.zones.lock()
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// The rows of `[from, next)` among rows in the order of their offsets.
pub(crate) fn within(rows: &RecordBatch, from: Offset, next: Offset) -> RecordBatch {
    let range = range_within(rows, from, next);
    rows.slice(range.start, range.len())
}

/// Where the rows of `[from, next)` are among rows in the order of their offsets.
pub(crate) fn range_within(rows: &RecordBatch, from: Offset, next: Offset) -> Range<usize> {
    let offsets = rows.column_by_name(OFFSET).and_then(|c| c.as_primitive_opt::<Int64Type>());
    let Some(offsets) = offsets.map(|offsets| offsets.values()) else { return 0..0 };
    let start = offsets.partition_point(|offset| *offset < from.0);
    let end = offsets.partition_point(|offset| *offset < next.0);
    start..end.max(start)
}

/// Blocks of tails, for all questions of the process.
#[derive(Debug)]
pub struct TailCache {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    partitions: HashMap<Partition, BTreeMap<Offset, Arc<Block>>>,
    bytes: usize,
    clock: u64,
}

impl TailCache {
    /// Keeps blocks of at most `bytes_max` bytes together.
    #[must_use]
    pub fn new(bytes_max: u64) -> Arc<Self> {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Arc::new(Self { bytes_max, state: Mutex::default() })
    }

    /// The bytes that are kept.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.state.lock().bytes as u64
    }

    /// A block that speaks for `at`.
    pub(crate) fn get(&self, partition: Partition, at: Offset) -> Option<Arc<Block>> {
        let mut state = self.state.lock();
        state.clock += 1;
        let (_, block) = state.partitions.get(&partition)?.range(..=at).next_back()?;
        if block.next <= at {
            return None;
        }
        block.used.store(state.clock, Ordering::Relaxed);
        Some(block.clone())
    }

    /// Keeps a block, if there is room for one of its size at all.
    pub(crate) fn put(&self, partition: Partition, block: Arc<Block>) {
        let mut state = self.state.lock();
        state.clock += 1;
        block.used.store(state.clock, Ordering::Relaxed);
        let mut block = block;
        // Each record is copied a few times at most: a block takes in only
        // neighbours that are not much larger than itself.
        while let Some(before) = state.neighbour_before(partition, &block) {
            let Ok(joined) = join(partition, &before, &block) else { break };
            state.remove(partition, before.from);
            joined.used.store(state.clock, Ordering::Relaxed);
            block = Arc::new(joined);
        }
        if block.bytes() > self.bytes_max {
            return;
        }
        state.insert(partition, block);
        state.keep_within(self.bytes_max);
    }

    /// Counts by how much a block has grown, if it is still kept.
    pub(crate) fn grown(&self, partition: Partition, block: &Arc<Block>, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut state = self.state.lock();
        let kept = state.partitions.get(&partition).and_then(|blocks| blocks.get(&block.from));
        if kept.is_some_and(|kept| Arc::ptr_eq(kept, block)) {
            block.bytes.fetch_add(bytes, Ordering::Relaxed);
            state.bytes += bytes;
            state.keep_within(self.bytes_max);
        }
    }

    /// Drops what lies below `tiered` of a partition: it is read from chunks.
    pub(crate) fn forget_below(&self, partition: Partition, tiered: Offset) {
        let mut state = self.state.lock();
        let Some(blocks) = state.partitions.get(&partition) else { return };
        let gone: Vec<Offset> = blocks
            .range(..tiered)
            .filter(|(_, block)| block.next <= tiered)
            .map(|(from, _)| *from)
            .collect();
        for from in gone {
            state.remove(partition, from);
        }
    }
}

impl State {
    fn neighbour_before(&self, partition: Partition, block: &Block) -> Option<Arc<Block>> {
        let blocks = self.partitions.get(&partition)?;
        let (_, before) = blocks.range(..block.from).next_back()?;
        let is_small = before.bytes() <= block.bytes().saturating_mul(2)
            && before.bytes() + block.bytes() <= BLOCK_BYTES_MAX;
        (before.next == block.from && is_small).then(|| before.clone())
    }

    fn insert(&mut self, partition: Partition, block: Arc<Block>) {
        self.remove(partition, block.from);
        self.bytes += block.bytes();
        self.partitions.entry(partition).or_default().insert(block.from, block);
    }

    fn remove(&mut self, partition: Partition, from: Offset) {
        let Some(blocks) = self.partitions.get_mut(&partition) else { return };
        if let Some(block) = blocks.remove(&from) {
            self.bytes -= block.bytes();
        }
        if blocks.is_empty() {
            self.partitions.remove(&partition);
        }
    }

    fn keep_within(&mut self, bytes_max: usize) {
        if self.bytes > bytes_max {
            // A little more than needed, so that not every block has to look
            // for the oldest one.
            self.shrink(bytes_max - bytes_max / 8);
        }
    }

    /// Drops what was not used for longest.
    fn shrink(&mut self, bytes_max: usize) {
        let mut all: Vec<(u64, Partition, Offset)> = Vec::new();
        for (partition, blocks) in &self.partitions {
            let each = blocks.values();
            all.extend(each.map(|b| (b.used.load(Ordering::Relaxed), *partition, b.from)));
        }
        all.sort_unstable();
        for (_, partition, from) in all {
            if self.bytes <= bytes_max {
                return;
            }
            self.remove(partition, from);
        }
    }
}

/// One block out of two that lie side by side.
fn join(partition: Partition, before: &Block, behind: &Block) -> Result<Block, ArrowError> {
    let rows = concat_batches(&table_schema(), [&before.rows, &behind.rows])?;
    // Views would go on pointing into the buffers of both.
    let compact = |column: &ArrayRef| -> ArrayRef {
        match column.as_binary_view_opt() {
            Some(views) => Arc::new(views.gc()),
            None => column.clone(),
        }
    };
    let rows = RecordBatch::try_new(rows.schema(), rows.columns().iter().map(compact).collect())?;
    let joined = Block::new(partition, before.from, behind.next, rows);
    let fields = join_fields(before, behind)?;
    joined.grow(fields.values().map(FieldColumn::bytes).sum());
    *joined.fields.lock() = fields;
    Ok(joined)
}

/// The fields that both blocks have. None where somebody is reading some just now:
/// the cache does not wait for that.
fn join_fields(
    before: &Block,
    behind: &Block,
) -> Result<BTreeMap<String, FieldColumn>, ArrowError> {
    let (Some(before), Some(behind)) = (before.fields.try_lock(), behind.fields.try_lock()) else {
        return Ok(BTreeMap::new());
    };
    let both = before.iter().filter_map(|(root, one)| {
        let other = behind.get(root).filter(|other| other.version == one.version)?;
        Some((root, one, other))
    });
    let joined = both.map(|(root, one, other)| {
        let column = concat(&[one.column.as_ref(), other.column.as_ref()])?;
        let unfit = concat(&[one.unfit.as_ref(), other.unfit.as_ref()])?;
        Ok((root.clone(), FieldColumn { version: one.version, column, unfit }))
    });
    joined.collect()
}

#[cfg(test)]
mod tests {
    use aquifer_types::{PartitionIndex, StreamId};

    use super::*;
    use crate::tail::tests::rows_of;

    fn partition(index: u32) -> Partition {
        Partition::new(StreamId::from_bytes([7; 16]), PartitionIndex(index))
    }

    fn block(index: u32, from: i64, next: i64) -> Arc<Block> {
        let at = partition(index);
        Arc::new(Block::new(at, Offset(from), Offset(next), rows_of(index, from..next, 100)))
    }

    #[test]
    fn a_block_answers_for_its_range_only() {
        let cache = TailCache::new(1 << 20);
        cache.put(partition(0), block(0, 10, 20));
        let check = |index: u32, at: i64, is_there: bool| {
            assert_eq!(cache.get(partition(index), Offset(at)).is_some(), is_there, "{index}/{at}");
        };
        check(0, 9, false);
        check(0, 10, true);
        check(0, 19, true);
        check(0, 20, false);
        check(1, 10, false);
        cache.forget_below(partition(0), Offset(19));
        check(0, 19, true);
        cache.forget_below(partition(0), Offset(20));
        check(0, 19, false);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn small_neighbours_become_one_block_with_the_same_rows() {
        let cache = TailCache::new(64 << 20);
        let at = partition(0);
        for from in 0..256 {
            cache.put(at, block(0, from, from + 1));
        }
        let blocks = cache.state.lock().partitions.get(&at).map_or(0, BTreeMap::len);
        assert!(blocks <= 16, "{blocks} blocks");
        let mut offsets = Vec::new();
        let mut next = Offset(0);
        while let Some(block) = cache.get(at, next) {
            let column = block.rows.column_by_name(OFFSET).unwrap();
            offsets.extend_from_slice(column.as_primitive::<Int64Type>().values());
            next = block.next;
        }
        assert_eq!(offsets, (0..256).collect::<Vec<_>>());
    }

    #[test]
    fn the_budget_is_kept_and_what_is_used_stays() {
        let one = block(0, 0, 10).bytes() as u64;
        let cache = TailCache::new(one * 8);
        cache.put(partition(0), block(0, 0, 10));
        for index in 1..100 {
            assert!(cache.get(partition(0), Offset(5)).is_some(), "before {index}");
            cache.put(partition(index), block(index, 0, 10));
            assert!(cache.bytes() <= one * 8);
        }
        assert!(cache.get(partition(1), Offset(5)).is_none());
        cache.put(partition(200), block(200, 0, 10_000));
        assert!(cache.get(partition(200), Offset(0)).is_none(), "larger than the whole cache");
    }
}

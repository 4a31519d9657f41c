//! Serves the engine the part of a cut that was not in chunks.
//!
//! Batches go as they lie in the journal. Where tiering has overtaken the
//! question meanwhile, the same records are read out of the chunk that has them
//! now, and go as rows; the engine has leased the chunks of its cut only. What
//! is under way is bounded over all questions, and large work leaves the
//! runtime, since appends are answered there.

use std::collections::VecDeque;
use std::sync::Arc;

use aquifer_chunk::Rows;
use aquifer_env::tasks;
use aquifer_stream::{Block, Cursor, View};
use aquifer_types::{ErrorKind, Offset, Partition, StreamId, Timestamp};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::QueryOptions;
use crate::cut::CleanupAtCut;
use crate::wire::{FRAME_BYTES_MAX, Refusal, TailForm, TailPart};

/// Walks that are kept for the next piece: a question reads a few partitions
/// beside each other, each from its beginning to its end.
const CURSORS_MAX: usize = 8;
/// What a permit of the budget stands for.
const PERMIT_BYTES: u64 = 1 << 10;
/// A batch was let in under `store.batch_decompressed_bytes_max`, whose bound
/// this is.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

/// The bytes of tails that are on their way, over all questions.
#[derive(Debug, Clone)]
pub(crate) struct TailBudget {
    permits: Arc<Semaphore>,
    piece_bytes_max: u64,
}

/// A piece that holds its share of the budget until it is dropped.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) part: TailPart,
    /// One behind the other.
    pub(crate) bytes: Vec<Bytes>,
    _budget: OwnedSemaphorePermit,
}

/// The tails of one cut.
#[derive(Debug)]
pub(crate) struct Tails {
    view: View,
    budget: TailBudget,
    /// Of some streams a record may have been compacted away since the cut.
    policies: Vec<CleanupAtCut>,
    /// The one that was used last is at the back.
    cursors: VecDeque<(Partition, Cursor)>,
}

impl TailBudget {
    pub(crate) fn new(options: &QueryOptions) -> Self {
        let permits = (options.tail_bytes_max / PERMIT_BYTES).clamp(1, u64::from(u32::MAX));
        let permits = (permits as usize).min(Semaphore::MAX_PERMITS);
        let piece_bytes_max = options.tail_piece_bytes_max;
        Self { permits: Arc::new(Semaphore::new(permits)), piece_bytes_max }
    }

    async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Refusal> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let taken = self.permits.clone().acquire_many_owned(permits).await;
        taken.map_err(|_closed| Refusal::stopping())
    }
}

impl Tails {
    pub(crate) fn new(view: View, budget: TailBudget, policies: Vec<CleanupAtCut>) -> Self {
        Self { view, budget, policies, cursors: VecDeque::new() }
    }

    /// About `bytes_max` bytes of a partition from `from` on.
    ///
    /// # Errors
    /// `cut-overtaken` where the records are not kept any more; what reading
    /// them can fail of.
    pub(crate) async fn read(
        &mut self,
        partition: Partition,
        from: Offset,
        bytes_max: u64,
    ) -> Result<Piece, Refusal> {
        let bytes_max = bytes_max.clamp(1, self.budget.piece_bytes_max);
        let permit = self.budget.take(bytes_max).await?;
        let mut cursor = self.cursor(partition, from)?;
        let blocks = cursor.next(bytes_max as usize).await.map_err(|error| of_read(&error))?;
        if cursor.has_opened_compacted() && self.may_have_lost(partition.stream) {
            return Err(Refusal::overtaken("records were compacted away"));
        }
        let appended = cursor.appended().to_vec();
        let next = cursor.position().max(from);
        let (part, bytes) = match rows_of(&blocks) {
            Some(rows) => as_rows(rows, from, next).await?,
            None => match as_batches(blocks, appended, next) {
                Framed::Whole(part, bytes) => (part, bytes),
                Framed::TooLong(batch, appended) => {
                    let next = batch.header().next_offset();
                    let rows = rows_of_batch(partition, batch, appended).await?;
                    as_rows(rows, from, next).await?
                }
            },
        };
        // What did not fit is asked for next, by its offset.
        if part.next == next {
            if self.cursors.len() >= CURSORS_MAX {
                self.cursors.pop_front();
            }
            self.cursors.push_back((partition, cursor));
        }
        Ok(Piece { part, bytes, _budget: permit })
    }

    fn may_have_lost(&self, stream: StreamId) -> bool {
        let of_stream = self.policies.iter().find(|policy| policy.stream() == stream);
        of_stream.is_some_and(CleanupAtCut::may_have_lost)
    }

    /// The walk that stands there, or a new one.
    fn cursor(&mut self, partition: Partition, from: Offset) -> Result<Cursor, Refusal> {
        let stands_there =
            |(of, cursor): &(Partition, Cursor)| *of == partition && cursor.position() == from;
        if let Some((_, cursor)) =
            self.cursors.iter().position(stands_there).and_then(|at| self.cursors.remove(at))
        {
            return Ok(cursor);
        }
        self.view.read(partition, from).map_err(|error| Refusal::of_store(&error))
    }
}

/// Batches that fit into one frame, or one that fits into none.
enum Framed {
    Whole(TailPart, Vec<Bytes>),
    TooLong(aquifer_types::Batch, Timestamp),
}

fn rows_of(blocks: &[Block]) -> Option<Rows> {
    match blocks.first() {
        Some(Block::Rows(rows)) => Some(rows.clone()),
        _ => None,
    }
}

fn as_batches(blocks: Vec<Block>, appended: Vec<Timestamp>, next: Offset) -> Framed {
    let mut part = TailPart { form: TailForm::Batches, appended: Vec::new(), next };
    let mut bytes = Vec::with_capacity(blocks.len());
    let mut len = 0;
    for (block, appended) in blocks.into_iter().zip(appended) {
        let Block::Batch(batch) = block else { continue };
        let is_first = bytes.is_empty();
        if len + batch.bytes().len() >= FRAME_BYTES_MAX {
            if is_first {
                return Framed::TooLong(batch, appended);
            }
            part.next = batch.header().base_offset;
            break;
        }
        len += batch.bytes().len();
        part.appended.push(appended);
        bytes.push(batch.bytes().clone());
    }
    Framed::Whole(part, bytes)
}

async fn rows_of_batch(
    partition: Partition,
    batch: aquifer_types::Batch,
    appended: Timestamp,
) -> Result<Rows, Refusal> {
    let rows =
        move || Rows::from_batches(partition.index, [(&batch, appended)], DECOMPRESSED_BYTES_MAX);
    tasks::run_blocking(rows)
        .await
        .map_err(|error| Refusal::new(ErrorKind::Damaged, "damaged", "XX001", error.to_string()))
}

/// As many of the rows from `from` on as a frame holds; `next` is where to go on
/// behind all of them.
async fn as_rows(
    rows: Rows,
    from: Offset,
    next: Offset,
) -> Result<(TailPart, Vec<Bytes>), Refusal> {
    tasks::run_blocking(move || {
        let rows = rows.starting_at(from);
        let mut taken = rows.len();
        loop {
            let bytes = to_ipc(&rows.slice(0, taken))?;
            if bytes.len() < FRAME_BYTES_MAX {
                let next = rows.slice(taken, 1).first_offset().unwrap_or(next);
                let part = TailPart { form: TailForm::Rows, appended: Vec::new(), next };
                return Ok((part, vec![bytes]));
            }
            if taken <= 1 {
                let what = format!("the record at offset {}", rows.first_offset().unwrap_or(from));
                return Err(Refusal::too_large(&what, FRAME_BYTES_MAX as u64, "a frame"));
            }
            taken /= 2;
        }
    })
    .await
}

fn to_ipc(rows: &Rows) -> Result<Bytes, Refusal> {
    let failed = |error: arrow_schema::ArrowError| {
        Refusal::new(ErrorKind::Internal, "internal", "XX000", error.to_string())
    };
    let batch = rows.record_batch();
    let mut bytes = Vec::with_capacity(rows.raw_bytes() as usize + 4096);
    let mut writer =
        arrow_ipc::writer::StreamWriter::try_new(&mut bytes, &batch.schema()).map_err(failed)?;
    writer.write(batch).map_err(failed)?;
    writer.finish().map_err(failed)?;
    drop(writer);
    Ok(bytes.into())
}

fn of_read(error: &aquifer_stream::Error) -> Refusal {
    match error {
        aquifer_stream::Error::OutOfRange { .. } => Refusal::overtaken("records were truncated"),
        aquifer_stream::Error::StreamDeleted(_) => Refusal::overtaken("a stream was deleted"),
        error => Refusal::of_store(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aquifer_stream::{
        AppendRequest, Environment, NewStream, Options, PartitionAppend, StreamStore, StreamUpdate,
        Truncation,
    };
    use aquifer_types::{
        Batch, BatchBuilder, BatchHeader, CleanupPolicy, PartitionIndex, StreamClass, StreamConfig,
        StreamConfigChange, StreamName, StreamPath, TenantName,
    };
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::cut::QuestionCut;

    const BATCHES: i64 = 20;
    const RECORDS: i64 = 50;

    fn path() -> StreamPath {
        StreamPath::new(TenantName::default_tenant(), StreamName::new("s").unwrap())
    }

    /// A store with one stream, whose records are tiered when `age_ms` have
    /// passed, and a cut of it.
    async fn cut(data: &std::path::Path, config: StreamConfig) -> (StreamStore, QuestionCut) {
        let options = Options {
            data: data.to_owned(),
            journal_file_bytes: 1 << 20,
            journal_bytes_max: 64 << 20,
            disk_reserve_bytes: 0,
            tier_interval_ms: 10,
            compaction_interval_ms: 10,
            compaction_chunks_min: 2,
            chunk_grace_ms: 0,
            ..Options::default()
        };
        let mut registry = Registry::default();
        let store = StreamStore::open(options, Environment::real(), &mut registry).await.unwrap();
        let new = NewStream { path: path(), partitions: 1, class: StreamClass::Durable, config };
        store.create_stream(new).await.unwrap();
        append(&store).await;
        let names = vec![path().name];
        let cut = QuestionCut::take(&store, &TenantName::default_tenant(), names).unwrap();
        (store, cut)
    }

    async fn append(store: &StreamStore) {
        for batch in 0..BATCHES {
            let mut builder = BatchBuilder::default();
            for record in 0..RECORDS {
                let value = format!("{batch} {record} {}", "x".repeat(100));
                builder.push(Timestamp(batch), Some(b"key"), &[], Some(value.as_bytes()));
            }
            let partition = PartitionIndex(0);
            let append =
                PartitionAppend { partition, batch: builder.finish(), expected_offset: None };
            let (path, appends) = (path(), vec![append]);
            let request = AppendRequest { path, appends, idempotency_key: None };
            store.append(request).await.unwrap();
        }
    }

    async fn until(mut condition: impl FnMut() -> bool) {
        for _ in 0..6_000 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it did not come true within a minute");
    }

    fn tails(cut: &QuestionCut) -> (Tails, Partition, Offset) {
        let partition = cut.tables()[0].partitions[0].clone();
        let tails = cut.tails(TailBudget::new(&QueryOptions::default()));
        (tails, partition.partition, partition.end)
    }

    fn offsets(piece: &Piece) -> Vec<i64> {
        let mut bytes = bytes::BytesMut::new();
        piece.bytes.iter().for_each(|part| bytes.extend_from_slice(part));
        let mut bytes = bytes.freeze();
        let mut offsets = Vec::new();
        match piece.part.form {
            TailForm::Batches => {
                for _ in &piece.part.appended {
                    let len = BatchHeader::peek_total_bytes(&bytes).unwrap();
                    let batch = Batch::read(bytes.split_to(len)).unwrap();
                    let records = batch.to_records(1 << 20).unwrap();
                    offsets.extend(records.iter().map(|record| record.offset.get()));
                }
                assert!(bytes.is_empty(), "a time for each batch");
            }
            TailForm::Rows => {
                let reader = arrow_ipc::reader::StreamReader::try_new(&*bytes, None).unwrap();
                for rows in reader {
                    let rows = Rows::try_new(rows.unwrap()).unwrap();
                    offsets.extend(rows.offsets().map(Offset::get));
                }
            }
        }
        offsets
    }

    /// Reads from `from` on in pieces of about `bytes_max`.
    async fn read(cut: &QuestionCut, from: i64, bytes_max: u64) -> (Vec<i64>, Vec<TailForm>) {
        let (mut tails, partition, end) = tails(cut);
        let (mut found, mut forms) = (Vec::new(), Vec::new());
        let mut at = Offset(from);
        while at < end {
            let piece = tails.read(partition, at, bytes_max).await.unwrap();
            found.extend(offsets(&piece).into_iter().filter(|offset| *offset >= at.get()));
            forms.push(piece.part.form);
            assert!(piece.part.next > at);
            at = piece.part.next;
        }
        assert_eq!(at, end);
        (found, forms)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_tail_is_read_whole_before_and_after_tiering_overtook_it() {
        let directory = tempfile::tempdir().unwrap();
        let config = StreamConfig { chunk_max_age_ms: 500, ..StreamConfig::default() };
        let (store, cut) = cut(directory.path(), config).await;
        // What comes behind the cut is not of it.
        append(&store).await;
        let all = BATCHES * RECORDS;
        let check = async |form: Option<TailForm>| {
            for (from, bytes_max) in [(0, 1), (0, 20_000), (0, u64::MAX), (all / 2 + 7, 20_000)] {
                let (found, forms) = read(&cut, from, bytes_max).await;
                assert_eq!(found, (from..all).collect::<Vec<_>>(), "from {from}, {bytes_max}");
                assert!(form.is_none_or(|form| forms.iter().all(|of| *of == form)), "{forms:?}");
            }
        };
        check(None).await;
        until(|| !store.list_chunks(&path()).unwrap().is_empty()).await;
        let tiered = || store.describe_stream(&path()).unwrap().partitions[0].tiered_offset;
        until(|| tiered() >= Offset(all)).await;
        check(Some(TailForm::Rows)).await;
        let (mut tails, partition, _) = tails(&cut);
        let elsewhere = Partition::new(partition.stream, PartitionIndex(9));
        assert!(tails.read(elsewhere, Offset(0), 1).await.is_err());
        store.truncate_stream(&path(), Truncation::All).await.unwrap();
        let overtaken = tails.read(partition, Offset(0), 1).await.unwrap_err();
        assert_eq!(overtaken.code, "cut-overtaken");
        assert!(overtaken.is_retriable());
        store.shutdown().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_compacted_away_is_not_left_out_in_silence() {
        compacted_away(CleanupPolicy::Compact).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nor_where_the_stream_was_altered_meanwhile() {
        compacted_away(CleanupPolicy::Delete).await;
    }

    /// Reads a cut while the stream, whose policy it is, is compacted.
    async fn compacted_away(cleanup_policy: CleanupPolicy) {
        let directory = tempfile::tempdir().unwrap();
        let config =
            StreamConfig { chunk_max_age_ms: 100, cleanup_policy, ..StreamConfig::default() };
        let (store, cut) = cut(directory.path(), config).await;
        if cleanup_policy != CleanupPolicy::Compact {
            let change = StreamConfigChange {
                cleanup_policy: Some(CleanupPolicy::Compact),
                ..StreamConfigChange::default()
            };
            let update = StreamUpdate { config: Some(change), partitions: None };
            store.update_stream(&path(), update).await.unwrap();
        }
        // All records have one key: what the cut has goes for what comes later.
        append(&store).await;
        let (mut tails, partition, _) = tails(&cut);
        for _ in 0..6_000 {
            match tails.read(partition, Offset(0), 1).await {
                Ok(piece) => assert_eq!(offsets(&piece)[0], 0),
                Err(refusal) => {
                    assert_eq!(refusal.code, "cut-overtaken");
                    store.shutdown().await.unwrap();
                    return;
                }
            }
            append(&store).await;
        }
        panic!("nothing was compacted");
    }
}

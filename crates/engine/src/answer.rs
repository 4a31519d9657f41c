//! Running a plan, and handing its rows on.
//!
//! Rows leave as they come: the first at once, later ones in parts. What an
//! answer may take is held here in rows and bytes; its time is held by
//! `connection`, its memory by the pool that the plan runs in.

use std::sync::Arc;
use std::time::Duration;

use aquifer_query::wire::{Column, Progress, Refusal, Spent};
use aquifer_query::{AnswerForm, EngineOptions, Limits};
use aquifer_types::ErrorKind;
use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream, execute_stream};
use futures::StreamExt as _;

use crate::interrupt::interruptible;
use crate::refusal::{of, refusal};
use crate::render::{Renderer, columns, schema_message};
use crate::sql::Plan;
use crate::usage::{Usage, spilled_bytes};

/// What was rendered leaves after this time even if it is little and the next
/// rows are not there yet.
const LINGER: Duration = Duration::from_millis(50);
/// Rows that are looked into at once: columns are looked into anew for each
/// part. Arrow's parts are slices, whose size is reckoned.
const ROWS_AT_ONCE: usize = 512;
/// The most bytes of one message; a single row may be longer.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Where an answer goes.
#[async_trait]
pub(crate) trait Sink: Send + Sync {
    /// The answer begins.
    async fn begin(
        &self,
        columns: Vec<Column>,
        schema: Vec<u8>,
        parameters: Vec<String>,
        command: String,
    ) -> Result<(), Refusal>;
    /// A part of it.
    async fn data(&self, rows: u64, bytes: &[u8]) -> Result<(), Refusal>;
    /// How far it is.
    async fn progress(&self, progress: Progress) -> Result<(), Refusal>;
}

/// How an answer is to be given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// The form of its bytes.
    pub(crate) form: AnswerForm,
    /// What it may take.
    pub(crate) limits: Limits,
    /// Whether columns and parameters are all that is wanted.
    pub(crate) describe_only: bool,
}

/// An answer of no columns and no rows, to a statement that is done.
pub(crate) async fn nothing(sink: &dyn Sink, manner: Manner, tag: &str) -> Result<Spent, Refusal> {
    let schema: SchemaRef = Arc::new(Schema::empty());
    sink.begin(Vec::new(), schema_message(&schema)?, Vec::new(), tag.to_owned()).await?;
    if !manner.describe_only && manner.form == AnswerForm::Arrow {
        let mut out = Vec::new();
        let mut renderer = Renderer::new(manner.form, &schema)?;
        renderer.begin(&mut out);
        renderer.end(&mut out)?;
        sink.data(0, &out).await?;
    }
    Ok(Spent::default())
}

/// Runs `plan` and gives its rows to `sink`; what it took, but for its time.
pub(crate) async fn run(
    plan: Plan,
    sql: &str,
    sink: &dyn Sink,
    manner: Manner,
    usage: &Usage,
    options: &EngineOptions,
) -> Result<Spent, Refusal> {
    let failed = |error| of(&error, sql);
    let Plan { session, plan, tag, parameters, titles } = plan;
    if manner.describe_only {
        let schema = titles.of(plan.schema().inner());
        sink.begin(columns(&schema), schema_message(&schema)?, parameters, tag.to_owned()).await?;
        return Ok(Spent::default());
    }
    let physical = session.state.create_physical_plan(&plan).await.map_err(failed)?;
    let physical = interruptible(physical, usage.given_up()).map_err(failed)?;
    let schema = titles.of(&physical.schema());
    sink.begin(columns(&schema), schema_message(&schema)?, parameters, tag.to_owned()).await?;
    let stream = execute_stream(Arc::clone(&physical), session.task()).map_err(failed)?;
    let mut writer = Writer {
        renderer: Renderer::new(manner.form, &schema)?,
        sink,
        out: Vec::new(),
        out_rows: 0,
        rows: 0,
        bytes: 0,
        rows_at_once: if manner.form == AnswerForm::Arrow { usize::MAX } else { ROWS_AT_ONCE },
        part_bytes: options.part_bytes.max(1),
        limits: manner.limits,
    };
    writer.renderer.begin(&mut writer.out);
    rows(stream, &mut writer, sql).await?;
    writer.renderer.end(&mut writer.out)?;
    writer.flush().await?;
    Ok(spent(&writer, usage, physical.as_ref()))
}

fn spent(writer: &Writer<'_>, usage: &Usage, physical: &dyn ExecutionPlan) -> Spent {
    Spent { rows: writer.rows, spilled_bytes: spilled_bytes(physical), ..usage.spent() }
}

/// Hands the rows of `stream` to `writer`.
async fn rows(
    mut stream: SendableRecordBatchStream,
    writer: &mut Writer<'_>,
    sql: &str,
) -> Result<(), Refusal> {
    loop {
        // The timer comes first: a stream that is busy leaves nothing of the turn
        // that a task has for what stands behind it.
        let next = tokio::select! {
            biased;
            () = tokio::time::sleep(LINGER), if !writer.out.is_empty() => {
                writer.flush().await?;
                continue;
            }
            next = stream.next() => next,
        };
        match next {
            Some(batch) => writer.batch(&batch.map_err(|error| of(&error, sql))?).await?,
            None => return Ok(()),
        }
    }
}

/// Rows on their way out.
struct Writer<'a> {
    renderer: Renderer,
    sink: &'a dyn Sink,
    out: Vec<u8>,
    out_rows: u64,
    rows: u64,
    bytes: u64,
    rows_at_once: usize,
    part_bytes: usize,
    limits: Limits,
}

impl Writer<'_> {
    async fn batch(&mut self, batch: &RecordBatch) -> Result<(), Refusal> {
        let is_first = self.rows == 0;
        let mut start = 0;
        while start < batch.num_rows() {
            let slice = batch.slice(start, self.rows_at_once.min(batch.num_rows() - start));
            let mut row = 0;
            while row < slice.num_rows() {
                let left = self.limits.rows_max.saturating_sub(self.rows);
                if left == 0 {
                    self.flush().await?;
                    return Err(rows_max(self.limits.rows_max));
                }
                let left = usize::try_from(left).unwrap_or(usize::MAX);
                let end = slice.num_rows().min(row.saturating_add(left));
                let next = self.renderer.rows(&slice, row..end, self.part_bytes, &mut self.out)?;
                let count = (next - row) as u64;
                self.rows += count;
                self.out_rows += count;
                row = next;
                if self.out.len() >= self.part_bytes {
                    self.flush().await?;
                }
            }
            start += slice.num_rows();
        }
        if is_first {
            self.flush().await?;
        }
        Ok(())
    }

    /// Sends what was rendered.
    async fn flush(&mut self) -> Result<(), Refusal> {
        self.bytes += self.out.len() as u64;
        if self.bytes > self.limits.bytes_max {
            return Err(bytes_max(self.limits.bytes_max));
        }
        let mut rows = std::mem::take(&mut self.out_rows);
        for part in self.out.chunks(MESSAGE_BYTES_MAX) {
            self.sink.data(std::mem::take(&mut rows), part).await?;
        }
        self.out.clear();
        // A single long row must not keep its memory for the rest of the answer.
        self.out.shrink_to(2 * self.part_bytes);
        Ok(())
    }
}

fn rows_max(max: u64) -> Refusal {
    refusal(
        ErrorKind::TooLarge,
        "rows-max",
        "54000",
        format!(
            "the answer has more than {max} rows; ask for fewer with LIMIT or WHERE, or raise \
             `limits.rows_max` (at most `query.rows_max`)"
        ),
    )
}

fn bytes_max(max: u64) -> Refusal {
    refusal(
        ErrorKind::TooLarge,
        "bytes-max",
        "54000",
        format!(
            "the answer has more than {max} bytes; ask for fewer columns or rows, or raise \
             `limits.bytes_max` (at most `query.bytes_max`)"
        ),
    )
}

/// The time is over.
pub(crate) fn time_max(ms: u64) -> Refusal {
    refusal(
        ErrorKind::TooLarge,
        "query-time",
        "57014",
        format!(
            "the question took longer than {ms} ms; ask for less (a time range helps most) or \
             raise `limits.time_ms_max` (at most `query.time_ms_max`)"
        ),
    )
}

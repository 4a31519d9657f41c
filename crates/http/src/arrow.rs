//! Records in Arrow's IPC stream format, in the columns of a chunk.

use aquifer_chunk::Rows;
use aquifer_stream::{Block, ReadAnswer};
use aquifer_types::{ErrorKind, Offset, PartitionIndex, Timestamp};
use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{Schema, SchemaRef};

use crate::Problem;

/// A batch's records may be this large decompressed; it was accepted with a
/// limit of its own before.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

/// The columns that are answered: `_appended` is known of chunks only.
const COLUMNS: [&str; 6] = ["_partition", "_offset", "_timestamp", "_key", "_headers", "_value"];

fn internal(error: impl std::fmt::Display) -> Problem {
    Problem::new(ErrorKind::Internal, format!("the records cannot be written as Arrow: {error}"))
}

fn schema() -> Result<SchemaRef, Problem> {
    let all = aquifer_chunk::schema();
    let fields = COLUMNS.iter().map(|name| all.field_with_name(name).cloned());
    let fields: Vec<_> = fields.collect::<Result<_, _>>().map_err(internal)?;
    Ok(SchemaRef::new(Schema::new(fields)))
}

/// Renders up to `limit` records and returns where to go on.
pub(crate) fn render(
    out: &mut Vec<u8>,
    partition: PartitionIndex,
    answer: &ReadAnswer,
    limit: usize,
) -> Result<Offset, Problem> {
    let schema = schema()?;
    let mut writer = StreamWriter::try_new(&mut *out, &schema).map_err(internal)?;
    let mut next = answer.next_offset;
    let mut left = limit;
    for block in &answer.blocks {
        let rows = rows(partition, block)?.starting_at(answer.from);
        let taken = rows.slice(0, left);
        if !taken.is_empty() {
            let columns = COLUMNS.iter().map(|name| taken.record_batch().column_by_name(name));
            let columns: Option<Vec<_>> = columns.map(|column| column.cloned()).collect();
            let columns = columns.ok_or_else(|| internal("a column is missing"))?;
            let batch = RecordBatch::try_new(schema.clone(), columns).map_err(internal)?;
            writer.write(&batch).map_err(internal)?;
        }
        if let Some(first_left_out) = rows.slice(left, 1).first_offset() {
            next = first_left_out;
            break;
        }
        left -= taken.len();
    }
    writer.finish().map_err(internal)?;
    Ok(next)
}

fn rows(partition: PartitionIndex, block: &Block) -> Result<Rows, Problem> {
    match block {
        Block::Rows(rows) => Ok(rows.clone()),
        Block::Batch(batch) => {
            // The time of the append is not answered.
            let batches = [(batch, Timestamp(0))];
            Rows::from_batches(partition, batches, DECOMPRESSED_BYTES_MAX)
                .map_err(|error| Problem::new(ErrorKind::Damaged, error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use aquifer_types::{BatchBuilder, Epoch};
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::Int64Type;
    use arrow_ipc::reader::StreamReader;

    use super::*;

    #[test]
    fn limits_and_positions_hold_across_blocks() {
        let block = |base: i64, count: u32| {
            let mut builder = BatchBuilder::new(Offset(base), Epoch(1));
            for _ in 0..count {
                builder.push(Timestamp(1), None, &[], Some(b"v"));
            }
            Block::Batch(builder.finish())
        };
        let answer = ReadAnswer {
            blocks: vec![block(10, 5), block(15, 5)],
            from: Offset(12),
            next_offset: Offset(20),
            start_offset: Offset(0),
            stable_offset: Offset(20),
            end_offset: Offset(20),
            aborted: Vec::new(),
        };
        for (limit, expected, next) in
            [(2, 12..14, 14), (3, 12..15, 15), (5, 12..17, 17), (8, 12..20, 20), (100, 12..20, 20)]
        {
            let mut out = Vec::new();
            let found = render(&mut out, PartitionIndex(0), &answer, limit).unwrap();
            assert_eq!(found, Offset(next), "limit {limit}");
            let mut offsets = Vec::new();
            for batch in StreamReader::try_new(out.as_slice(), None).unwrap() {
                let batch = batch.unwrap();
                let column = batch.column_by_name("_offset").unwrap();
                offsets.extend(column.as_primitive::<Int64Type>().values().iter().copied());
            }
            assert_eq!(offsets, expected.collect::<Vec<_>>(), "limit {limit}");
        }
    }
}

//! Files of deleted positions, for chunks that a truncation cut through.
//!
//! A truncation hides the rows below the start at once; their chunk stays until
//! compaction or retention comes by. Iceberg's way to say so is a Parquet file
//! of positions in the chunk.

use std::sync::Arc;

use aquifer_stream::View;
use aquifer_types::Offset;
use arrow_array::{Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use crate::Error;
use crate::data_file::{FILE_PATH_ID, POS_ID};
use crate::live::LiveFile;

/// Rows that are encoded at once.
const ROWS_AT_ONCE: u64 = 64 << 10;

/// How many of a chunk's rows lie below `start`.
pub(crate) async fn count_below(view: &View, file: &LiveFile, start: Offset) -> Result<u64, Error> {
    let chunk = &file.chunk;
    let covered = u64::try_from(chunk.next.0.saturating_sub(chunk.base.0)).unwrap_or(0);
    if chunk.records == covered {
        // No gaps: the rows are the offsets.
        return Ok(u64::try_from(start.0.saturating_sub(chunk.base.0)).unwrap_or(0));
    }
    let above = view.count_from(chunk, start).await?;
    Ok(chunk.records.saturating_sub(above))
}

/// The file that says that the first `count` rows of the data file at `url` are
/// deleted.
pub(crate) fn encode(url: &str, count: u64) -> Result<Vec<u8>, Error> {
    let field = |name: &str, data_type: DataType, id: i32| {
        let id = [(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())].into();
        Field::new(name, data_type, false).with_metadata(id)
    };
    let schema = Arc::new(Schema::new(vec![
        field("file_path", DataType::Utf8, FILE_PATH_ID),
        field("pos", DataType::Int64, POS_ID),
    ]));
    let level = ZstdLevel::try_new(1).map_err(Error::internal)?;
    let position = ColumnPath::from("pos");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_column_dictionary_enabled(position.clone(), false)
        .set_column_encoding(position, Encoding::DELTA_BINARY_PACKED)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties))
        .map_err(Error::internal)?;
    let mut from = 0;
    while from < count {
        let to = count.min(from + ROWS_AT_ONCE);
        let paths = StringArray::from_iter_values((from..to).map(|_| url));
        let positions = Int64Array::from_iter_values((from..to).map(crate::data_file::signed));
        let columns: Vec<arrow_array::ArrayRef> = vec![Arc::new(paths), Arc::new(positions)];
        let batch = RecordBatch::try_new(schema.clone(), columns).map_err(Error::internal)?;
        writer.write(&batch).map_err(Error::internal)?;
        from = to;
    }
    writer.into_inner().map_err(Error::internal)
}

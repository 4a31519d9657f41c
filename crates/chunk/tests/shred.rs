//! Chunks with columns for the fields of their values: the records come back as
//! from any chunk, and the columns are what the values have.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use aquifer_chunk::{ChunkEncoder, EncodeOptions, ReadOptions, Shredder, schema_with, verify};
use aquifer_types::{FieldKind, NewField, Record, StreamSchema, Timestamp};
use arrow_array::{Array, RecordBatch};
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::PageIndexPolicy;
use support::{
    batches, encode, encode_with, open, read, schema_of, small_pages, spec, varied, varied_json,
};

const SMALL: ReadOptions = ReadOptions { window_bytes: 600, rows_max: 13 };

/// All columns, as any reader of Parquet sees them.
fn table(bytes: &Bytes) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

#[test]
fn records_and_fields_come_back() {
    let records = varied_json(150);
    let schema = schema_of(&records);
    for options in [small_pages(), EncodeOptions::default()] {
        let chunk = encode_with(spec(90, 400), options, &records, &schema).unwrap();
        let reader = open(&chunk.bytes).unwrap();
        assert_eq!(reader.footer().schema(), Some(&schema));
        assert_eq!(reader.footer().spec().schema_version, 1);
        assert_eq!(read(&reader, 0, SMALL).unwrap(), records);
        let report = verify("test", &chunk.bytes).unwrap();
        assert_eq!(report.stats, chunk.stats);
        let table = table(&chunk.bytes);
        assert_eq!(table.schema().fields(), schema_with(&schema).fields());
        let values = table.column_by_name("_value").unwrap();
        let fields = Shredder::new(&schema).shred(values).unwrap();
        assert_eq!(table.columns()[7..], fields);
        let unfit = (fields[0].len() - fields[0].null_count()) as u64;
        assert_eq!(chunk.stats.unfit, Some(unfit));
        assert!(unfit > 30, "{unfit}");
    }
}

#[test]
fn columns_that_no_value_has_are_there() {
    let records = varied(40);
    let schema = schema_of(&records).extended(&[NewField {
        path: vec!["later".into(), "x".into()],
        kind: FieldKind::Text,
        is_declared: false,
    }]);
    let chunk = encode_with(spec(90, 400), small_pages(), &records, &schema).unwrap();
    let table = table(&chunk.bytes);
    assert_eq!(table.schema().fields(), schema_with(&schema).fields());
    assert_eq!(table.column_by_name("later").unwrap().null_count(), 40);
    verify("test", &chunk.bytes).unwrap();
    let bare = StreamSchema::default().extended(&[]);
    let chunk = encode_with(spec(90, 400), small_pages(), &records, &bare).unwrap();
    let reader = open(&chunk.bytes).unwrap();
    assert_eq!(reader.footer().schema(), Some(&bare));
    assert_eq!(chunk.stats.unfit, Some(0));
    assert_eq!(read(&reader, 0, SMALL).unwrap(), records);
    // Where nothing has a column, no value can say that it is broken.
    let mut broken = records.clone();
    broken[7].value = Some(Bytes::from_static(b"{\"n\":1"));
    let chunk = encode_with(spec(90, 400), small_pages(), &broken, &bare).unwrap();
    assert_eq!(chunk.stats.unfit, None);
    assert_eq!(verify("test", &chunk.bytes).unwrap().stats, chunk.stats);
    let empty = encode_with(spec(90, 400), small_pages(), &[], &schema).unwrap();
    verify("test", &empty.bytes).unwrap();
}

#[test]
fn an_encoder_tells_that_a_schema_does_not_do() {
    let records = varied_json(60);
    let schema = schema_of(&records);
    let check = |schema: &StreamSchema, records: &[Record]| {
        let mut encoder =
            ChunkEncoder::looking(spec(90, 400), EncodeOptions::default(), schema).unwrap();
        for batch in batches(records, 7) {
            encoder.push_batch(&batch, Timestamp(0)).unwrap();
        }
        encoder.flush().unwrap();
        let next = encoder.take_outgrown().map(|walk| walk.extend(schema));
        (next, encoder.finish())
    };
    assert_eq!(check(&StreamSchema::default(), &records).0, Some(schema.clone()));
    let (next, chunk) = check(&schema, &records);
    assert_eq!(next, None);
    let again = encode_with(spec(90, 400), EncodeOptions::default(), &records, &schema).unwrap();
    let same = encode(spec(90, 400), EncodeOptions::default(), &records).unwrap();
    assert!(same.bytes.len() < again.bytes.len());
    assert_eq!(table(&chunk.unwrap().bytes).columns()[7..], table(&again.bytes).columns()[7..]);
    let mut more = varied_json(60);
    more[59].value = Some(Bytes::from_static(b"{\"more\":{\"x\":1}}"));
    let (next, _) = check(&schema, &more);
    let next = next.unwrap();
    assert_eq!((next.version(), next.fields().len()), (2, schema.fields().len() + 2));
    // A name that never has a place is no reason to begin again.
    more[59].value = Some(Bytes::from_static(b"{\"N\":1,\"_x\":2}"));
    assert_eq!(check(&schema, &more).0, None);
}

#[test]
fn fields_can_be_pruned_by() {
    let records = varied_json(150);
    let schema = schema_of(&records);
    let chunk = encode_with(spec(90, 400), small_pages(), &records, &schema).unwrap();
    let footer = open(&chunk.bytes).unwrap().footer().clone();
    assert_eq!(
        footer.parquet().offset_index().map(Vec::len),
        Some(footer.parquet().num_row_groups())
    );
    let options = parquet::arrow::arrow_reader::ArrowReaderOptions::new()
        .with_page_index_policy(PageIndexPolicy::Required);
    ParquetRecordBatchReaderBuilder::try_new_with_options(chunk.bytes.clone(), options).unwrap();
    for group in footer.parquet().row_groups() {
        for column in group.columns() {
            let path = column.column_path().string();
            let is_field = !path.starts_with('_') || path.starts_with("_unfit");
            assert!(!is_field || column.statistics().is_some(), "{path}");
        }
    }
}

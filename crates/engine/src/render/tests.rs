//! What rows look like in each form.

use std::sync::Arc;

use aquifer_query::AnswerForm;
use arrow_ipc::reader::StreamReader;
use datafusion::arrow::array::{
    ArrayRef, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, Float64Array,
    Int64Array, ListArray, NullArray, RecordBatch, StringArray, StringViewArray, StructArray,
    TimestampMicrosecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type};

use super::Renderer;

fn columns() -> Vec<(&'static str, ArrayRef)> {
    let list =
        ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), None]);
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None]));
    let object =
        StructArray::from(vec![(Arc::new(Field::new("n\"", DataType::Utf8, true)), names)]);
    let times = TimestampMicrosecondArray::from(vec![Some(1_500_000), Some(-1)]);
    vec![
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("int", Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX]))),
        ("uint", Arc::new(UInt64Array::from(vec![0, u64::MAX]))),
        ("float", Arc::new(Float64Array::from(vec![0.1, f64::NAN]))),
        ("big", Arc::new(Float64Array::from(vec![1e300, f64::NEG_INFINITY]))),
        (
            "decimal",
            Arc::new(
                Decimal128Array::from(vec![Some(12_345_678_901_234_567_890_123), Some(-5)])
                    .with_precision_and_scale(38, 2)
                    .expect("a decimal"),
            ),
        ),
        ("text", Arc::new(StringArray::from(vec![Some("a,\"b\"\nä"), Some("")]))),
        ("bytes", Arc::new(BinaryViewArray::from(vec![Some(&b"plain"[..]), Some(b"\xff\x00")]))),
        ("time", Arc::new(times.clone().with_timezone("UTC"))),
        ("naive", Arc::new(times)),
        ("date", Arc::new(Date32Array::from(vec![Some(0), None]))),
        ("list", Arc::new(list)),
        ("object", Arc::new(object)),
        ("nothing", Arc::new(NullArray::new(2))),
    ]
}

/// Renders row by row, so that every seam between parts is crossed.
fn render(form: AnswerForm, batch: &RecordBatch) -> Vec<u8> {
    let mut renderer = Renderer::new(form, &batch.schema()).expect("it can be rendered");
    let mut all = Vec::new();
    renderer.begin(&mut all);
    let mut row = 0;
    while row < batch.num_rows() {
        let mut part = Vec::new();
        row = renderer.rows(batch, row..batch.num_rows(), 1, &mut part).expect("rows");
        all.append(&mut part);
    }
    renderer.end(&mut all).expect("an end");
    all
}

#[test]
fn values_look_as_the_table_says() {
    let json: &[(&str, &str, &str)] = &[
        ("bool", "true", "null"),
        ("int", "-9223372036854775808", "9223372036854775807"),
        ("uint", "0", "18446744073709551615"),
        ("float", "0.1", "null"),
        ("big", "1e+300", "null"),
        ("decimal", "123456789012345678901.23", "-0.05"),
        ("text", "\"a,\\\"b\\\"\\nä\"", "\"\""),
        ("bytes", "\"plain\"", "{\"base64\":\"/wA=\"}"),
        ("time", "\"1970-01-01T00:00:01.5Z\"", "\"1969-12-31T23:59:59.999999Z\""),
        ("naive", "\"1970-01-01T00:00:01.5\"", "\"1969-12-31T23:59:59.999999\""),
        ("date", "\"1970-01-01\"", "null"),
        ("list", "[1,null]", "null"),
        ("object", "{\"n\\\"\":\"x\"}", "{\"n\\\"\":null}"),
        ("nothing", "null", "null"),
    ];
    let csv: &[(&str, &str, &str)] = &[
        ("bool", "true", ""),
        ("float", "0.1", "NaN"),
        ("big", "1e+300", "-Infinity"),
        ("text", "\"a,\"\"b\"\"\nä\"", "\"\""),
        ("bytes", "plain", "base64:/wA="),
        ("time", "1970-01-01T00:00:01.5Z", "1969-12-31T23:59:59.999999Z"),
        ("list", "\"[1,null]\"", ""),
        ("object", "\"{\"\"n\\\"\"\"\":\"\"x\"\"}\"", "\"{\"\"n\\\"\"\"\":null}\""),
        ("nothing", "", ""),
    ];
    for (name, column) in columns() {
        let batch = RecordBatch::try_from_iter([(name, column)]).expect("a batch");
        let (_, first, second) = json.iter().find(|(of, _, _)| *of == name).expect("expected");
        let text = String::from_utf8(render(AnswerForm::Ndjson, &batch)).expect("text");
        assert_eq!(text, format!("{{\"{name}\":{first}}}\n{{\"{name}\":{second}}}\n"));
        let text = String::from_utf8(render(AnswerForm::Json, &batch)).expect("text");
        assert!(text.ends_with(&format!("\"rows\":[\n[{first}],\n[{second}]\n]}}\n")), "{text}");
        let _: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        if let Some((_, first, second)) = csv.iter().find(|(of, _, _)| *of == name) {
            let text = String::from_utf8(render(AnswerForm::Csv, &batch)).expect("text");
            assert_eq!(text, format!("{name}\r\n{first}\r\n{second}\r\n"));
        }
    }
}

#[test]
fn all_columns_together_are_whole_in_every_form() {
    let batch = RecordBatch::try_from_iter(columns()).expect("a batch");
    let lines = render(AnswerForm::Ndjson, &batch);
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let object: serde_json::Value = serde_json::from_slice(line).expect("an object a line");
        assert_eq!(object.as_object().map(serde_json::Map::len), Some(batch.num_columns()));
    }
    let bytes = render(AnswerForm::Arrow, &batch);
    let reader = StreamReader::try_new(bytes.as_slice(), None).expect("a stream");
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().expect("batches");
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    assert_eq!(batches[0].column(0).as_ref(), batch.slice(0, 1).column(0).as_ref());
    assert_eq!(batches[0].schema().field(7).data_type(), &DataType::Binary);
}

#[test]
fn messages_of_slices_are_as_large_as_what_they_hold() {
    let texts = StringViewArray::from_iter_values((0..20_000).map(|n| format!("{n:0100}")));
    let whole = RecordBatch::try_from_iter([("t", Arc::new(texts) as ArrayRef)]).expect("a batch");
    let slice = whole.slice(10_000, 1_000);
    let mut renderer = Renderer::new(AnswerForm::Arrow, &slice.schema()).expect("a renderer");
    let (mut row, mut sizes) = (0, Vec::new());
    while row < slice.num_rows() {
        let mut part = Vec::new();
        row = renderer.rows(&slice, row..1_000, 64 << 10, &mut part).expect("rows");
        sizes.push(part.len());
    }
    assert!(sizes.len() <= 3 && sizes.iter().all(|size| *size <= 80 << 10), "{sizes:?}");
}

#[test]
fn an_answer_without_rows_is_whole_too() {
    let batch =
        RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
    let batch = batch.expect("a batch").slice(0, 0);
    let check = |form, expected: &str| {
        assert_eq!(String::from_utf8_lossy(&render(form, &batch)), expected);
    };
    check(AnswerForm::Ndjson, "");
    check(AnswerForm::Rows, "");
    check(AnswerForm::Json, "{\"columns\":[{\"name\":\"a\",\"type\":\"bigint\"}],\"rows\":[]}\n");
    check(AnswerForm::Csv, "a\r\n");
    let bytes = render(AnswerForm::Arrow, &batch);
    assert_eq!(StreamReader::try_new(bytes.as_slice(), None).expect("a stream").count(), 0);
}

#[test]
fn names_that_repeat_are_told_apart_in_objects() {
    let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let schema = datafusion::arrow::datatypes::Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("a", DataType::Int64, true),
    ]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![one.clone(), one]).expect("a batch");
    assert_eq!(render(AnswerForm::Ndjson, &batch), b"{\"a\":1,\"a_2\":1}\n");
    assert_eq!(render(AnswerForm::Rows, &batch), b"[1,1]\n");
}

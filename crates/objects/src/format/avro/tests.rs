//! Container files, written by the Avro library and by hand.

use apache_avro::types::Value;
use apache_avro::{Codec as Theirs, DeflateSettings, Writer};
use aquifer_types::Offset;

use super::*;
use crate::rows::tests::{LIMITS, collect, spec, values};

const SCHEMA: &str = r#"{"type":"record","name":"Row","fields":[
    {"name":"b","type":"boolean"},
    {"name":"i","type":"int"},
    {"name":"l","type":"long"},
    {"name":"d","type":"double"},
    {"name":"s","type":["null","string"]},
    {"name":"y","type":"bytes"},
    {"name":"e","type":{"type":"enum","name":"E","symbols":["X","Y"]}},
    {"name":"a","type":{"type":"array","items":"int"}},
    {"name":"m","type":{"type":"map","values":"long"}},
    {"name":"t","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"day","type":{"type":"int","logicalType":"date"}}]}"#;

fn file(codec: Theirs, rows: usize) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(SCHEMA).unwrap();
    let mut writer = Writer::with_codec(&schema, Vec::new(), codec);
    for number in 0..rows {
        let text = match number % 2 {
            0 => Value::Union(0, Box::new(Value::Null)),
            _ => Value::Union(1, Box::new(Value::String("ä\"".into()))),
        };
        let map = [("k".to_owned(), Value::Long(-7))].into();
        let row = vec![
            ("b".into(), Value::Boolean(true)),
            ("i".into(), Value::Int(-3)),
            ("l".into(), Value::Long(i64::MIN)),
            ("d".into(), Value::Double(1.5)),
            ("s".into(), text),
            ("y".into(), Value::Bytes(vec![0, 255])),
            ("e".into(), Value::Enum(1, "Y".into())),
            ("a".into(), Value::Array(vec![Value::Int(1), Value::Int(2)])),
            ("m".into(), Value::Map(map)),
            ("t".into(), Value::TimestampMillis(-1)),
            ("day".into(), Value::Date(1)),
        ];
        writer.append(Value::Record(row)).unwrap();
    }
    writer.into_inner().unwrap()
}

fn run(bytes: &[u8], skip: u64) -> (Vec<String>, Result<(), Halt>) {
    let (parts, result) = collect(&spec(), LIMITS, skip, |rows| decode(bytes, rows));
    (values(&parts), result)
}

#[test]
fn files_of_the_library_are_read() {
    let expected = [
        r#"{"b":true,"i":-3,"l":-9223372036854775808,"d":1.5,"s":null,"y":"00ff","e":"Y","a":[1,2],"m":{"k":-7},"t":"1969-12-31T23:59:59.999Z","day":"1970-01-02"}"#,
        r#"{"b":true,"i":-3,"l":-9223372036854775808,"d":1.5,"s":"ä\"","y":"00ff","e":"Y","a":[1,2],"m":{"k":-7},"t":"1969-12-31T23:59:59.999Z","day":"1970-01-02"}"#,
    ];
    for codec in [Theirs::Null, Theirs::Deflate(DeflateSettings::default())] {
        let (found, result) = run(&file(codec, 2), 0);
        assert_eq!(result, Ok(()));
        assert_eq!(found, expected);
    }
    let (found, _) = run(&file(Theirs::Null, 2000), 1999);
    assert_eq!(found, &expected[1..]);
}

fn records() -> Vec<Record> {
    let record = |offset, key: Option<&'static [u8]>, value: Option<&'static [u8]>| Record {
        offset: Offset(offset),
        timestamp: Timestamp(offset - 5),
        key: key.map(Bytes::from_static),
        headers: match offset {
            1 => vec![
                Header { key: "h".into(), value: None },
                Header { key: "h".into(), value: Some("v".into()) },
            ],
            _ => Vec::new(),
        },
        value: value.map(Bytes::from_static),
    };
    vec![
        record(0, None, Some(b"\xff")),
        record(1, Some(b""), None),
        record(9, Some(b"k"), Some(b"")),
    ]
}

#[test]
fn what_is_written_is_read() {
    let bytes = encode(3, &records(), [7; 16]).unwrap();
    let (parts, result) = collect(&spec(), LIMITS, 0, |rows| decode(&bytes[..], rows));
    assert_eq!(result, Ok(()));
    let found: Vec<_> = parts.into_iter().flat_map(|part| part.records).collect();
    let expected: Vec<_> = records()
        .into_iter()
        .map(|record| NewRecord {
            timestamp: Some(record.timestamp),
            key: record.key,
            headers: record.headers,
            value: record.value,
        })
        .collect();
    assert_eq!(found, expected);
    // The schema and the numbers are those of the library too; it knows no zstd
    // here, so the header alone is held against it.
    apache_avro::Schema::parse_str(OWN_SCHEMA).unwrap();
}

#[test]
fn decimals_are_exact() {
    for (bytes, scale, expected) in [
        (&[0x04, 0xd2][..], 2, Some("12.34")),
        (&[0xff], 2, Some("-0.01")),
        (&[0xff], 0, Some("-1")),
        (&[], 1, Some("0.0")),
        (&[1; 17], 0, None),
    ] {
        assert_eq!(decimal(bytes, scale).as_deref(), expected);
    }
}

#[test]
fn what_has_no_end_is_refused() {
    let header = |schema: &str| {
        let mut out = MAGIC.to_vec();
        put_long(&mut out, 1);
        put_sized(&mut out, b"avro.schema");
        put_sized(&mut out, schema.as_bytes());
        put_long(&mut out, 0);
        out.extend_from_slice(&[0; 16]);
        out
    };
    let check = |schema: &str, count: i64, block: &[u8], part: &str| {
        let mut bytes = header(schema);
        put_long(&mut bytes, count);
        put_sized(&mut bytes, block);
        bytes.extend_from_slice(&[0; 16]);
        let (_, result) = run(&bytes, 0);
        let Err(Halt::Broken(bad)) = result else { panic!("{schema}: {result:?}") };
        assert!(bad.why.contains(part), "{schema}: {bad:?}");
    };
    check("\"null\"", 1 << 40, b"", "more values than bytes");
    let mut items = Vec::new();
    put_long(&mut items, 1 << 40);
    check(r#"{"type":"array","items":"null"}"#, 1, &items, "more items than bytes");
    let list = r#"{"type":"record","name":"N","fields":[{"name":"n","type":["null","N"]}]}"#;
    check(list, 1, &[2; 4096], "deep");
    check("\"string\"", 1, &[0x80; 20], "64 bits");
    check("\"int\"", 1, &[0, 0], "behind its last value");
    check("\"int\"", -1, &[0], "less than empty");
}

#[test]
fn fuzz_avro() {
    let corpus = [
        file(Theirs::Null, 3),
        file(Theirs::Deflate(DeflateSettings::default()), 3),
        encode(0, &records(), [1; 16]).unwrap(),
    ];
    aquifer_testkit::fuzz("avro", 0.3, &corpus, |bytes| {
        let _ = run(bytes, 0);
    });
}

//! Columns against what another reader of JSON says of every value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aquifer_testkit::rand::RngExt;
use aquifer_testkit::rand::rngs::StdRng;
use aquifer_types::{FieldKind, NewField, SCHEMA_DEPTH_MAX, StreamSchema};
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, BinaryArray, BinaryViewArray, LargeBinaryArray};
use arrow_schema::{DataType, Field};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{FieldWalk, Shredder, field_columns, schema_with, with_column};

/// What a row has in the columns: by field id, and what did not fit.
#[derive(Debug, Default, PartialEq, Eq)]
struct Row {
    cells: BTreeMap<i32, String>,
    unfit: Option<Vec<String>>,
}

/// The names and values of an object, twice where they are.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// The row that the rules give.
fn expected(schema: &StreamSchema, value: Option<&[u8]>) -> Row {
    let mut row = Row::default();
    let Some(bytes) = value.filter(|bytes| crate::fields::is_object(bytes)) else {
        return row;
    };
    let text = std::str::from_utf8(bytes).ok();
    let is_json = text.is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    let members = text.filter(|_| is_json).and_then(|text| serde_json::from_str(text).ok());
    let columns = with_column(schema);
    let Some(Members(members)) = members else {
        row.unfit = Some(vec![String::new()]).filter(|_| !columns.is_empty());
        return row;
    };
    let mut unfit = BTreeSet::new();
    expected_below(schema, &columns, None, &members, &mut row.cells, &mut unfit);
    let paths = unfit.into_iter().map(|id| schema.path(id).join(".")).collect::<Vec<_>>();
    row.unfit = (!paths.is_empty()).then_some(paths);
    row
}

fn expected_below(
    schema: &StreamSchema,
    columns: &BTreeSet<i32>,
    parent: Option<i32>,
    members: &[(String, Box<RawValue>)],
    cells: &mut BTreeMap<i32, String>,
    unfit: &mut BTreeSet<i32>,
) {
    for field in schema.children(parent).filter(|field| columns.contains(&field.id)) {
        let found: Vec<&str> = members
            .iter()
            .filter(|(name, _)| *name == field.name)
            .map(|(_, value)| value.get())
            .collect();
        let value = match found.as_slice() {
            [] | ["null"] => continue,
            [value] => *value,
            _ => {
                unfit.insert(field.id);
                continue;
            }
        };
        let is_whole = !value.contains(['.', 'e', 'E']) && value != "-0";
        let cell = match field.kind {
            FieldKind::Boolean => {
                Some(value).filter(|v| ["true", "false"].contains(v)).map(Into::into)
            }
            FieldKind::Int64 => {
                value.parse::<i64>().ok().filter(|_| is_whole).map(|n| n.to_string())
            }
            FieldKind::Float64 if is_whole => value
                .parse::<i64>()
                .ok()
                .filter(|n| n.unsigned_abs() <= 1 << 53)
                .map(|n| format!("{:?}", n as f64)),
            FieldKind::Float64 => value
                .parse::<f64>()
                .ok()
                .filter(|n| {
                    n.is_finite()
                        && value
                            .starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
                })
                .map(|n| format!("{n:?}")),
            FieldKind::Text => serde_json::from_str::<String>(value).ok(),
            FieldKind::Object => serde_json::from_str(value).ok().map(|Members(below)| {
                expected_below(schema, columns, Some(field.id), &below, cells, unfit);
                "{}".to_owned()
            }),
            other => panic!("{other:?} is not in these tests"),
        };
        if cell.is_none() {
            unfit.insert(field.id);
        }
        cells.extend(cell.map(|cell| (field.id, cell)));
    }
}

/// The rows that columns have.
fn rows(columns: &[Field], arrays: &[ArrayRef], count: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = (0..count).map(|_| Row::default()).collect();
    let (Some(unfit), Some(columns)) = (arrays.first(), columns.get(1..)) else { return rows };
    assert_eq!(columns.len() + 1, arrays.len());
    for (at, row) in rows.iter_mut().enumerate() {
        let unfit = unfit.as_list::<i32>();
        row.unfit = unfit.is_valid(at).then(|| {
            let paths = unfit.value(at);
            paths.as_string::<i32>().iter().map(|path| path.unwrap().to_owned()).collect()
        });
        for (column, array) in columns.iter().zip(&arrays[1..]) {
            assert_eq!((column.data_type(), array.len()), (array.data_type(), count));
            read_cell(column, array, at, &mut row.cells);
        }
    }
    rows
}

fn read_cell(column: &Field, array: &ArrayRef, at: usize, cells: &mut BTreeMap<i32, String>) {
    if let DataType::Struct(fields) = column.data_type() {
        for (field, array) in fields.iter().zip(array.as_struct().columns()) {
            read_cell(field, array, at, cells);
        }
    }
    if array.is_null(at) {
        return;
    }
    let cell = match array.data_type() {
        DataType::Boolean => array.as_boolean().value(at).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(at).to_string(),
        DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(at)),
        DataType::Utf8 => array.as_string::<i32>().value(at).to_owned(),
        DataType::Timestamp(..) => {
            array.as_primitive::<TimestampMicrosecondType>().value(at).to_string()
        }
        DataType::Date32 => array.as_primitive::<Date32Type>().value(at).to_string(),
        DataType::Struct(_) => "{}".to_owned(),
        other => panic!("{other}"),
    };
    let id = column.metadata()[PARQUET_FIELD_ID_META_KEY].parse().unwrap();
    cells.insert(id, cell);
}

fn shredded(
    schema: &StreamSchema,
    shredder: &mut Shredder,
    values: &[Option<Vec<u8>>],
) -> Vec<Row> {
    let values: BinaryArray = values.iter().map(Option::as_deref).collect();
    let arrays = shredder.shred(&values).unwrap();
    rows(&field_columns(schema), &arrays, values.len())
}

fn walked(schema: &StreamSchema, values: &[Option<Vec<u8>>]) -> StreamSchema {
    let mut walk = FieldWalk::under(schema);
    values.iter().for_each(|value| walk.look(value.as_deref()));
    walk.extend(schema)
}

/// A schema of `path kind` lines.
fn schema_of(fields: &[(&str, FieldKind)]) -> StreamSchema {
    let new = fields.iter().map(|(path, kind)| NewField {
        path: path.split('/').map(str::to_owned).collect(),
        kind: *kind,
        is_declared: false,
    });
    StreamSchema::default().extended(&new.collect::<Vec<_>>())
}

#[test]
fn what_fits_is_in_its_column_and_the_rest_is_told() {
    let schema = schema_of(&[
        ("b", FieldKind::Boolean),
        ("i", FieldKind::Int64),
        ("f", FieldKind::Float64),
        ("t", FieldKind::Text),
        ("o/x", FieldKind::Int64),
        ("o/p/y", FieldKind::Text),
        ("when", FieldKind::Timestamp),
        ("day", FieldKind::Date),
        ("list", FieldKind::Opaque),
        ("empty", FieldKind::Object),
    ]);
    let mut shredder = Shredder::new(&schema);
    let mut check = |value: &str, cells: &[(&str, &str)], unfit: Option<&[&str]>| {
        let found = shredded(&schema, &mut shredder, &[Some(value.as_bytes().to_vec())]);
        let id = |path: &str| schema.find(&path.split('/').collect::<Vec<_>>()).unwrap().id;
        let row = Row {
            cells: cells.iter().map(|(path, cell)| (id(path), (*cell).to_owned())).collect(),
            unfit: unfit.map(|paths| paths.iter().map(|path| (*path).to_owned()).collect()),
        };
        assert_eq!(found, [row], "{value}");
    };
    check("{}", &[], None);
    check("", &[], None);
    check("[{\"i\":1}]", &[], None);
    check("17", &[], None);
    check(
        r#" {"b":true,"i":-5,"f":2.5,"t":"x\n","o":{"x":1,"p":{"y":"z"}},"list":[1],"new":2} "#,
        &[
            ("b", "true"),
            ("i", "-5"),
            ("f", "2.5"),
            ("t", "x\n"),
            ("o", "{}"),
            ("o/x", "1"),
            ("o/p", "{}"),
            ("o/p/y", "z"),
        ],
        None,
    );
    check(r#"{"b":null,"i":null,"f":null,"t":null,"o":null,"day":null}"#, &[], None);
    check(
        r#"{"b":1,"i":"1","f":true,"t":1,"o":[],"list":{},"empty":5}"#,
        &[],
        Some(&["b", "i", "f", "t", "o"]),
    );
    check(r#"{"i":1.0}"#, &[], Some(&["i"]));
    check(r#"{"i":1e3}"#, &[], Some(&["i"]));
    check(r#"{"i":-0}"#, &[], Some(&["i"]));
    check(r#"{"i":9223372036854775808}"#, &[], Some(&["i"]));
    check(r#"{"f":9007199254740993}"#, &[], Some(&["f"]));
    check(r#"{"f":-9007199254740992}"#, &[("f", "-9007199254740992.0")], None);
    check(r#"{"f":1e999,"t":"\ud800"}"#, &[], Some(&["f", "t"]));
    check(r#"{"t":"\ud83d\ude00"}"#, &[("t", "😀")], None);
    check(r#"{"\u0069":1,"\ud800":2}"#, &[("i", "1")], None);
    check(
        r#"{"when":"1970-01-01T00:00:01.5Z","day":"1970-01-02"}"#,
        &[("when", "1500000"), ("day", "1")],
        None,
    );
    check(r#"{"when":"1970-01-01","day":"1970-02-30"}"#, &[], Some(&["when", "day"]));
    // Twice is not at all, whatever it was, and nothing below it is told.
    check(r#"{"i":1,"i":1,"t":"x"}"#, &[("t", "x")], Some(&["i"]));
    check(r#"{"i":null,"i":1,"i":2}"#, &[], Some(&["i"]));
    let often = format!("{{{}\"t\":\"x\"}}", "\"i\":1,".repeat(5000));
    check(&often, &[("t", "x")], Some(&["i"]));
    check(r#"{"o":{"x":"no","p":{"y":"z"}},"t":"x","o":{"x":1}}"#, &[("t", "x")], Some(&["o"]));
    check(
        r#"{"o":{"x":1,"p":{"y":1},"x":2}}"#,
        &[("o", "{}"), ("o/p", "{}")],
        Some(&["o.x", "o.p.y"]),
    );
    // No JSON.
    for value in [r#"{"i":1"#, r#"{"i":1}}"#, r#"{"i":01}"#, "{\"t\":\"\n\"}", "{", "{\"i\":1,}"] {
        check(value, &[], Some(&[""]));
    }
    let deep =
        |levels: usize| format!("{{\"i\":1,\"d\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    check(&deep(127), &[("i", "1")], None);
    check(&deep(128), &[], Some(&[""]));
    let deep = format!("{}1{}", "{\"o\":".repeat(129), "}".repeat(129));
    check(&deep, &[], Some(&[""]));
}

#[test]
fn bytes_that_are_no_text_are_no_json() {
    let schema = schema_of(&[("t", FieldKind::Text)]);
    let values = [Some(b"{\"t\":\"\xff\"}".to_vec()), Some(b"\xff".to_vec()), None];
    let found = shredded(&schema, &mut Shredder::new(&schema), &values);
    assert_eq!(found[0].unfit.as_deref(), Some(&[String::new()][..]));
    assert_eq!(found[1..], [Row::default(), Row::default()]);
}

#[test]
fn what_does_not_fit_is_told_in_few_bytes() {
    let long = "n".repeat(120);
    let paths: Vec<String> = (0..60).map(|at| format!("{long}/x{at}")).collect();
    let fields: Vec<(&str, FieldKind)> =
        paths.iter().map(|path| (path.as_str(), FieldKind::Int64)).collect();
    let schema = schema_of(&fields);
    let value = |count: usize| {
        let below: Vec<String> = (0..count).map(|at| format!("\"x{at}\":\"no\"")).collect();
        Some(format!("{{\"{long}\":{{{}}}}}", below.join(",")).into_bytes())
    };
    let found = shredded(&schema, &mut Shredder::new(&schema), &[value(20), value(60)]);
    assert_eq!(found[0].unfit.as_ref().map(Vec::len), Some(20));
    assert_eq!(found[0].cells.len(), 1);
    assert_eq!(found[1], Row { cells: BTreeMap::new(), unfit: Some(vec![String::new()]) });
}

#[test]
fn all_kinds_of_binary_are_taken_and_nothing_else() {
    let schema = schema_of(&[("a", FieldKind::Int64)]);
    let values = [Some(&b"{\"a\":1}"[..]), None, Some(b"{\"a\":2}")];
    let mut shredder = Shredder::new(&schema);
    let expected = shredder.shred(&BinaryArray::from_iter(values)).unwrap();
    let large: LargeBinaryArray = values.into_iter().collect();
    let views: BinaryViewArray = values.into_iter().collect();
    assert_eq!(shredder.shred(&large).unwrap(), expected);
    assert_eq!(shredder.shred(&views).unwrap(), expected);
    let numbers = arrow_array::Int64Array::from(vec![1]);
    assert!(shredder.shred(&numbers).is_err());
    let none = Shredder::new(&StreamSchema::default()).shred(&numbers).unwrap();
    assert!(none.is_empty());
}

#[test]
fn columns_have_the_ids_of_their_fields() {
    let schema = schema_of(&[
        ("a", FieldKind::Text),
        ("none", FieldKind::Opaque),
        ("o/empty", FieldKind::Object),
        ("o/p/x", FieldKind::Int64),
    ]);
    let shown: Vec<String> = field_columns(&schema).iter().map(shown).collect();
    assert_eq!(
        shown,
        ["11 _unfit[12 element]", "1000 a", "1002 o{1004 p{1005 x}}"].map(str::to_owned)
    );
    assert_eq!(schema_with(&schema).fields().len(), 10);
    let bare = schema_of(&[("none", FieldKind::Opaque), ("o/p", FieldKind::Object)]);
    assert!(field_columns(&bare).is_empty());
    assert_eq!(schema_with(&bare), crate::schema());
}

fn shown(field: &Field) -> String {
    let id = &field.metadata()[PARQUET_FIELD_ID_META_KEY];
    let below = match field.data_type() {
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields.iter().map(|field| shown(field)).collect();
            format!("{{{}}}", fields.join(","))
        }
        DataType::List(element) => format!("[{}]", shown(element)),
        _ => String::new(),
    };
    format!("{id} {}{below}", field.name())
}

#[test]
fn a_walk_finds_fields_and_their_kinds() {
    let check = |values: &[&str], expected: &[&str]| {
        let values: Vec<_> = values.iter().map(|value| Some(value.as_bytes().to_vec())).collect();
        let schema = walked(&StreamSchema::default(), &values);
        let shown: Vec<String> = schema
            .fields()
            .iter()
            .map(|field| format!("{} {:?}", schema.path(field.id).join("/"), field.kind))
            .collect();
        assert_eq!(shown, expected, "{values:?}");
        assert_eq!((schema.version(), schema.is_closed()), (1, false));
    };
    check(&["text", "[{\"a\":1}]", "{\"a\":1", "7"], &[]);
    check(&[r#"{"a":1}"#, r#"{"a":1.5}"#, r#"{"b":true}"#], &["a Float64", "b Boolean"]);
    check(&[r#"{"b":1,"a":2,"c":null}"#, r#"{"c":null}"#], &["a Int64", "b Int64"]);
    check(&[r#"{"a":18446744073709551615}"#], &["a Float64"]);
    check(&[r#"{"a":1}"#, r#"{"a":"x"}"#, r#"{"a":"y","z":[1]}"#], &["a Text", "z Opaque"]);
    check(
        &[r#"{"o":{"x":1,"y":{}},"z":1}"#, r#"{"o":{"x":1}}"#, r#"{"o":5,"z":1}"#],
        &["o Object", "o/x Int64", "z Int64", "o/y Object"],
    );
    check(&[r#"{"a":5}"#, r#"{"a":6}"#, r#"{"a":{"b":1}}"#], &["a Int64"]);
    check(&[r#"{"a":[{"b":1}],"_x":1,"c.d":1,"":1}"#], &["a Opaque"]);
    check(&[r#"{"Type":1}"#, r#"{"type":1}"#, r#"{"type":1}"#], &["type Int64"]);
    let deep = format!("{}1{}", "{\"d\":".repeat(10), "}".repeat(10));
    let paths: Vec<String> = (1..=SCHEMA_DEPTH_MAX)
        .map(|depth| format!("{} Object", vec!["d"; depth].join("/")))
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    check(&[&deep], &paths);
}

#[test]
fn names_that_are_data_are_no_fields() {
    let values = |count: usize, per_value: usize| -> Vec<Option<Vec<u8>>> {
        let value = |at: usize| {
            let names: Vec<String> = (0..per_value)
                .map(|name| format!("\"id{}\":{{\"n\":1}}", at * per_value + name))
                .collect();
            Some(format!("{{\"by_id\":{{{}}},\"a\":1}}", names.join(",")).into_bytes())
        };
        (0..count).map(value).collect()
    };
    let check = |values: &[Option<Vec<u8>>]| {
        let schema = walked(&StreamSchema::default(), values);
        assert!(!schema.is_closed());
        let kinds: Vec<_> = schema.fields().iter().map(|f| (f.name.as_str(), f.kind)).collect();
        assert_eq!(kinds, [("a", FieldKind::Int64), ("by_id", FieldKind::Opaque)]);
    };
    check(&values(100, 1));
    check(&values(2000, 1));
    check(&values(20_000, 3));
    check(&values(50, 100));
    // Where they take all room at first, there is some again.
    let value = |record: usize| {
        let ids: Vec<String> = (0..700).map(|id| format!("\"id{record}_{id}\":1")).collect();
        let late = if record < 6 { "" } else { ",\"late\":1" };
        Some(format!("{{\"by_id\":{{{}}}{late}}}", ids.join(",")).into_bytes())
    };
    let late: Vec<_> = (1..=10).map(value).collect();
    let schema = walked(&StreamSchema::default(), &late);
    let kinds: Vec<_> = schema.fields().iter().map(|f| (f.name.as_str(), f.kind)).collect();
    assert_eq!(kinds, [("by_id", FieldKind::Opaque), ("late", FieldKind::Int64)]);
    assert!(!schema.is_closed());
    // Few objects with many names each are what they are.
    let schema = walked(&StreamSchema::default(), &values(2, 40));
    assert_eq!(schema.fields().len(), 2 + 2 * 80);
}

#[test]
fn what_is_passed_over_closes_the_schema() {
    let names: Vec<String> = (0..5000).map(|at| format!("\"f{at}\":1")).collect();
    let value = format!("{{{}}}", names.join(","));
    let mut walk = FieldWalk::new();
    walk.look(Some(value.as_bytes()));
    let schema = walk.extend(&StreamSchema::default());
    assert!(schema.is_closed());
    assert_eq!(walked(&schema, &[Some(b"{\"other\":1}".to_vec())]), schema);
    // What is no JSON has nothing that could be passed over.
    let broken = value.trim_end_matches('}').as_bytes().to_vec();
    let schema = walked(&StreamSchema::default(), &[Some(broken), Some(b"{\"a\":1}".to_vec())]);
    assert_eq!((schema.fields().len(), schema.is_closed()), (1, false));
    // Another walk had the same object for one with fields.
    let data: Vec<_> =
        (0..500).map(|at| Some(format!("{{\"o\":{{\"n{at}\":1}}}}").into_bytes())).collect();
    let mut walk = FieldWalk::new();
    data.iter().for_each(|value| walk.look(value.as_deref()));
    assert!(!walk.extend(&StreamSchema::default()).is_closed());
    assert!(walk.extend(&schema_of(&[("o/x", FieldKind::Int64)])).is_closed());
}

const NAMES: [&str; 9] = ["a", "b", "c", "A", "long name", "é", "q\\\"", "_no", "x.y"];
const SCALARS: [&str; 26] = [
    "1",
    "0",
    "-7",
    "-0",
    "1.0",
    "1e3",
    "2.5E-3",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "123456789012345678901234567890",
    "1e999",
    "true",
    "false",
    "null",
    "null",
    "\"\"",
    "\"text\"",
    "\"\\u00e9\\n\"",
    "\"a longer text, of more than one word\"",
    "[]",
    "[1,{\"a\":2}]",
    "{}",
    "\"1970-01-01\"",
    "\"\\ud83d\\ude00\"",
    "12",
];

fn pick<'a>(random: &mut StdRng, of: &[&'a str]) -> &'a str {
    of[random.random_range(0..of.len())]
}

fn any_object(random: &mut StdRng, depth: usize) -> String {
    let mut members = Vec::new();
    for _ in 0..random.random_range(0..6) {
        let name = pick(random, &NAMES);
        let value = if depth < 3 && random.random_range(0..3) == 0 {
            any_object(random, depth + 1)
        } else {
            pick(random, &SCALARS).to_owned()
        };
        let space = pick(random, &["", "", " ", "\n\t"]);
        members.push(format!("{space}\"{name}\"{space}:{space}{value}{space}"));
    }
    format!("{{{}}}", members.join(","))
}

/// Whatever has something at a path has a field there, unless it never can.
fn assert_known(schema: &StreamSchema, parent: Option<i32>, depth: usize, object: &str) {
    let Ok(Members(members)) = serde_json::from_str(object) else { return };
    for (name, value) in members {
        if value.get() == "null" || !StreamSchema::is_name(&name) || depth > SCHEMA_DEPTH_MAX {
            continue;
        }
        let lower = name.to_lowercase();
        let mut beside = schema.children(parent);
        let field = beside.find(|field| field.name.to_lowercase() == lower);
        let field = field.unwrap_or_else(|| panic!("{name} of {object} is not in {schema:?}"));
        if field.name == name && field.kind == FieldKind::Object {
            assert_known(schema, Some(field.id), depth + 1, value.get());
        }
    }
}

#[test]
fn columns_are_what_another_reader_says() {
    let mut random = aquifer_testkit::rng_from_env();
    let rounds = if aquifer_testkit::is_full_test() { 3000 } else { 300 };
    for _ in 0..rounds {
        let mut schema = StreamSchema::default();
        for _ in 0..3 {
            let count = random.random_range(0..20);
            let values: Vec<Option<Vec<u8>>> = (0..count)
                .map(|_| match random.random_range(0..12) {
                    0 => None,
                    1 => Some(pick(&mut random, &SCALARS).into()),
                    _ => Some(any_object(&mut random, 0).into()),
                })
                .collect();
            schema = walked(&schema, &values);
            let mut shredder = Shredder::new(&schema);
            for value in values.iter().flatten() {
                assert_known(&schema, None, 1, std::str::from_utf8(value).unwrap());
            }
            let expected: Vec<Row> =
                values.iter().map(|value| expected(&schema, value.as_deref())).collect();
            for _ in 0..2 {
                assert_eq!(shredded(&schema, &mut shredder, &values), expected, "{schema:?}");
            }
        }
    }
}

#[test]
fn fuzz_shred() {
    let mut random = aquifer_testkit::rng_from_env();
    let corpus: Vec<Vec<u8>> = (0..40).map(|_| any_object(&mut random, 0).into()).collect();
    let values: Vec<_> = corpus.iter().cloned().map(Some).collect();
    let schema = walked(&StreamSchema::default(), &values);
    aquifer_testkit::fuzz("shred", 0.3, &corpus, |bytes| {
        let value = [Some(bytes.to_vec())];
        let mut shredder = Shredder::new(&schema);
        let found = shredded(&schema, &mut shredder, &value);
        let text = String::from_utf8_lossy(bytes).to_lowercase();
        // Halves of pairs of surrogates are no JSON to the other reader, and
        // it goes further down.
        if !text.contains("\\ud") && text.matches(['[', '{']).count() < 100 {
            assert_eq!(found, [expected(&schema, Some(bytes))]);
        }
        let extended = walked(&schema, &value);
        assert!(extended.fields().starts_with(schema.fields()));
        if let Ok(text) = std::str::from_utf8(bytes)
            && !extended.is_closed()
            && found[0].unfit.as_deref() != Some(&[String::new()])
            && text.trim_ascii_start().starts_with('{')
        {
            assert_known(&extended, None, 1, text);
        }
    });
}

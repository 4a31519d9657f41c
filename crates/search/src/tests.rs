//! The language, held against records: what matches, what is marked, and what
//! is refused where.

use aquifer_types::{Header, Offset, PartitionIndex, Record, Timestamp};
use bytes::Bytes;

use crate::{Matcher, Part, Query, Scratch};

const NOW: Timestamp = Timestamp(1_000_000);

fn record(value: &str) -> Record {
    Record {
        offset: Offset(7),
        timestamp: Timestamp(900_000),
        key: Some(Bytes::from_static(b"user-42")),
        headers: vec![
            Header { key: Bytes::from_static(b"trace"), value: Some(Bytes::from_static(b"Ab:12")) },
            Header { key: Bytes::from_static(b"empty"), value: None },
        ],
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
    }
}

fn matches(query: &str, value: &str) -> bool {
    let query = Query::parse(query, NOW).unwrap_or_else(|error| panic!("{query}: {error}"));
    let record = record(value);
    Matcher::new(&query).matches(&(PartitionIndex(3), &record), &mut Scratch::default())
}

fn check(value: &str, yes: &[&str], no: &[&str]) {
    for query in yes {
        assert!(matches(query, value), "{query} in {value}");
        assert!(!matches(&format!("NOT ({query})"), value), "NOT {query} in {value}");
    }
    for query in no {
        assert!(!matches(query, value), "{query} in {value}");
        assert!(matches(&format!("-({query})"), value), "-{query} in {value}");
    }
}

#[test]
fn words_and_phrases() {
    check(
        "GET /index.html 500 took=12ms Größe",
        &[
            "*",
            "get",
            "GET",
            "index.html",
            "\"html 500\"",
            "user",
            "user-42",
            "trace",
            "ab 12",
            "\"AB 12\"",
            "took=12ms",
            "größe",
            "GRÖSSE OR GRÖßE",
            "in*",
            "*dex",
            "i*x",
            "*nde*",
            "html-5*",
            "+get +500",
            "get AND 500",
            "get OR nothing",
            "get -put",
            "(get put) OR 500",
            "NOT put",
            "\"html, 500!\"",
            "\\g\\e\\t",
            "emp*",
            "12:30 OR get",
        ],
        &[
            "put",
            "inde",
            "dex",
            "\"500 html\"",
            "\"42 trace\"",
            "get put",
            "get -500",
            "NOT get",
            "\"get 500\"",
            "\"in*\"",
            "i*y",
            "get AND (put OR post)",
            "500 put OR post",
            "http://get",
            "in\\*",
        ],
    );
}

#[test]
fn and_binds_more_than_or_and_not_most() {
    check(
        "a b",
        &["a OR x y", "x y OR a", "a b OR x", "-x a", "NOT x AND a", "NOT (x OR y)", "a -(x OR y)"],
        &["(a OR b) x", "NOT a OR x", "-a OR x", "NOT NOT x"],
    );
}

#[test]
fn fields_of_json() {
    check(
        r#"{"verb":"delete","user":{"name":"Ada Lovelace","id":42,"tags":["x","Y z"]},
            "flat.path":"here","ok":true,"gone":null,"code":500.50,"neg":-0.5,"big":9007199254740993,
            "e":5e2,"esc":"a\nerror\u0041","num":"700","a b":1,"empty":"","list":[{"k":1},{"k":2}]}"#,
        &[
            "verb:delete",
            "verb:DELETE",
            "verb:del*",
            "user.name:ada",
            "user.name:\"ada lovelace\"",
            "user.name:lovelace",
            "user.id:42",
            "user.id:42.0",
            "user.tags:x",
            "user.tags:\"y z\"",
            "flat.path:here",
            "ok:true",
            "gone:null",
            "code:500.5",
            "code:500.500",
            "neg:-0.5",
            "big:9007199254740993",
            "big:>9007199254740992",
            "e:[500 TO 500]",
            "esc:error*",
            "esc:errora",
            "num:700",
            "\"a b\":1",
            "user:*",
            "ok:*",
            "empty:*",
            "list.k:2",
            "verb:(get OR delete)",
            "user.name:(ada lovelace)",
            "verb:(-get)",
            "user.id:>=42",
            "user.id:<43",
            "user.id:[40 TO 42]",
            "user.id:{41 TO 43}",
            "user.id:[* TO 42]",
            "user.id:[42 TO *}",
            "verb:[a TO e]",
            "verb:>d",
            "verb:=delete",
            "user.id:=42",
            "user.name:=\"Ada Lovelace\"",
            "empty:=\"\"",
            "num:=700",
            "\"verb delete\"",
            "\"delete user name\"",
            "delete",
            "4*",
            "big:[9007199254740993 TO 9007199254740993]",
            "list.k:>1 list.k:<2",
            "num:[\"7\" TO \"8\"]",
            "user.*:x OR ok:true",
            "esc:a",
        ],
        &[
            "verb:get",
            "Verb:delete",
            "name:ada",
            "user.name:\"lovelace ada\"",
            "user.id:43",
            "user.id:4",
            "ok:false",
            "gone:*",
            "gone:true",
            "missing:*",
            "missing:null",
            "code:500",
            "code:501",
            "big:9007199254740992",
            "big:>9007199254740993",
            "e:500",
            "user.id:>42",
            "user.id:{42 TO 43}",
            "user.id:[50 TO 40]",
            "verb:[a TO d]",
            "verb:=Delete",
            "verb:=delet",
            "user.name:=Ada",
            "user.id:\"42\"",
            "num:[699 TO 701]",
            "verb:>5",
            "verb:(get OR put)",
            "verb:(delete -delete)",
            "user.id:[41 TO 42}",
            "esc:nerror",
            "nerror",
        ],
    );
}

#[test]
fn parts_of_the_record() {
    check(
        "value text",
        &[
            "_key:user",
            "_key:user-42",
            "_key:us*",
            "_key:=user-42",
            "_key:*",
            "_value:text",
            "_value:\"value text\"",
            "_headers:trace",
            "_headers:ab",
            "_headers.trace:12",
            "_headers.trace:\"ab 12\"",
            "_headers.trace:=\"Ab:12\"",
            "_partition:3",
            "_partition:>=3",
            "_partition:[0 TO 3]",
            "_offset:7",
            "_offset:{6 TO 8}",
            "_timestamp:900000",
            "_timestamp:[now-2m TO now]",
            "_timestamp:1970-01-01",
            "_timestamp:[1970-01-01 TO 1970-01-01]",
            "_timestamp:<1970-01-01T00:16:00Z",
            "_timestamp:*",
            "_headers.trace:*",
            "_key:[user TO userz]",
        ],
        &[
            "_key:text",
            "_key:=user",
            "_value:user",
            "_headers:text",
            "_headers.empty:*",
            "_headers.Trace:12",
            "_headers.other:12",
            "_partition:2",
            "_partition:<3",
            "_offset:>7",
            "_timestamp:>900000",
            "_timestamp:[now-1m TO now]",
            "_timestamp:>1970-01-01",
            "_timestamp:[* TO 1970-01-01}",
            "_offset:[8 TO 6]",
            "text:value",
            "value:*",
        ],
    );
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let check = |query: &str, position: u64, part: &str| {
        let error = Query::parse(query, NOW).expect_err(query);
        assert!(error.message.contains(part), "{query}: {error}");
        assert_eq!(error.position, position, "{query}: {error}");
    };
    check("a (b", 3, "this '(' is not closed");
    check("a) b", 2, "closes nothing");
    check("ä \"b", 3, "this quote is not closed");
    check("a AND", 6, "missing");
    check("AND a", 1, "AND needs something on both sides");
    check("a OR OR b", 6, "OR needs something on both sides");
    check("NOT", 4, "missing");
    check("a -", 3, "no letter or digit");
    check("()", 2, "missing");
    check("--", 2, "no letter or digit");
    check("\"...\"", 1, "no letter or digit");
    check("f: x", 3, "must follow the ':' directly");
    check("f:[1 2]", 6, "TO is missing");
    check("f:[1 TO 2", 3, "not closed by ']' or '}'");
    check("f:[ TO 2]", 8, "TO is missing");
    check("f:>", 4, "a value is missing");
    check("a \\", 3, "nothing behind this backslash");
    check("f:(a g:b)", 6, "stands within another field's group");
    check("_timestamp:soon", 12, "'soon' is no time");
    check("_timestamp:[1 TO x]", 18, "'x' is no time");
    check("_partition:a", 12, "'a' is no number");
    check("_partition:(1 OR 2)", 12, "takes one value or range");
    check("_appended:5", 1, "cannot be searched");
    check(&"(".repeat(100), 33, "nested deeper than 32");
    check(&"NOT ".repeat(100), 129, "nested deeper than 32");
    check(&"a ".repeat(300), 513, "more than 256 conditions");
    check(&"a".repeat(10_000), 1, "it may have 8192");
}

#[test]
fn what_matches_is_marked() {
    let marked = |query: &str, value: &str| {
        let query = Query::parse(query, NOW).unwrap();
        let record = record(value);
        let marks =
            Matcher::new(&query).marks(&(PartitionIndex(3), &record), &mut Scratch::default());
        let mut shown = Vec::new();
        for marks in marks {
            let bytes: &[u8] = match marks.part {
                Part::Key => record.key.as_deref().unwrap(),
                Part::HeaderKey(place) => &record.headers[place].key,
                Part::HeaderValue(place) => record.headers[place].value.as_deref().unwrap(),
                Part::Value => record.value.as_deref().unwrap(),
            };
            for range in marks.ranges {
                shown.push(String::from_utf8_lossy(&bytes[range]).into_owned());
            }
        }
        shown
    };
    let check = |query: &str, value: &str, expected: &[&str]| {
        assert_eq!(marked(query, value), expected, "{query} in {value}");
    };
    check("error", "An Error, an ERROR", &["Error", "ERROR"]);
    check("\"an error\"", "An Error, an ERROR", &["An Error", "an ERROR"]);
    check("err* an", "An Error", &["An", "Error"]);
    check("user ab get", "get", &["user", "Ab", "get"]);
    check("error -warn NOT (x -y)", "error y x", &["error", "y"]);
    check("a:b", r#"{"a":"b c b","b":"b"}"#, &["b", "b"]);
    check("a:5", r#"{"a":5,"b":5}"#, &["5"]);
    check("a:>4", r#"{"a":5}"#, &["5"]);
    check("a:=\"b c\"", r#"{"a":"b c"}"#, &["b c"]);
    check("name:jörg", r#"{"name":"J\u00f6rg Z"}"#, &["J\\u00f6rg"]);
    check("*", "x", &[]);
}

#[test]
fn what_borders_a_range_can_be_narrowed_by_place() {
    let check = |query: &str, timestamps: (i64, i64), partitions: (i64, i64)| {
        let envelope = Query::parse(query, NOW).unwrap().envelope();
        let found = (envelope.timestamps.first, envelope.timestamps.last);
        assert_eq!(found, timestamps, "{query}");
        assert_eq!((envelope.partitions.first, envelope.partitions.last), partitions, "{query}");
    };
    let all = (i64::MIN, i64::MAX);
    check("a", all, all);
    check("a _timestamp:[5 TO 7}", (5, 6), all);
    check("_timestamp:>5 _timestamp:<9 _partition:2", (6, 8), (2, 2));
    check("_partition:2 OR _partition:5", all, (2, 5));
    check("_partition:2 OR a", all, all);
    check("NOT _partition:2", all, all);
}

#[test]
fn fuzz_search_query() {
    let seeds = [
        &b"a:\"b c\" -d OR (e* _timestamp:[now-5m TO *})"[..],
        b"f.g:>=5 x:{a TO b] NOT y:=z \\* _headers.t:q",
        "größe:* AND +\"ä\":é".as_bytes(),
    ]
    .map(<[u8]>::to_vec);
    let record = record(r#"{"a":"b c","f":{"g":5},"x":"aa","e":[1,"\u00e9"]}"#);
    aquifer_testkit::fuzz("search_query", 0.3, &seeds, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        match Query::parse(text, NOW) {
            Err(error) => {
                assert!(error.position >= 1 && error.position <= text.chars().count() as u64 + 1);
            }
            Ok(query) => {
                let item = (PartitionIndex(3), &record);
                let matcher = Matcher::new(&query);
                let mut scratch = Scratch::default();
                // What is decided quickly is decided as when all is looked at.
                assert_eq!(
                    matcher.matches(&item, &mut scratch),
                    matcher.matches_slowly(&item, &mut scratch),
                    "{text}"
                );
                matcher.marks(&item, &mut scratch);
                let _ = query.need();
                query.envelope();
            }
        }
    });
}

//! Statements over real records, held against what a plain loop finds in them.

use std::collections::BTreeMap;
use std::path::Path;

use aquifer_types::StreamName;
use datafusion::catalog::MemTable;
use serde_json::Value;
use std::sync::Arc;

use super::{Fixture, events};

/// The records of a sample, if the samples are there.
fn sample(name: &str) -> Option<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let records = aquifer_testkit::load_records(&folder.join(name)).ok();
    if records.is_none() {
        println!("could not run: the sample {name} is not in {}", folder.display());
    }
    records
}

fn add(fixture: &mut Fixture, name: &str, records: &[Vec<u8>]) {
    let values: Vec<Option<&[u8]>> = records.iter().map(|record| Some(record.as_slice())).collect();
    let batch = events(&values);
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).expect("a table");
    fixture.server.streams.insert(StreamName::new(name).expect("a name"), Arc::new(table));
}

fn parsed(records: &[Vec<u8>]) -> Vec<Value> {
    records.iter().filter_map(|record| serde_json::from_slice(record).ok()).collect()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

#[tokio::test]
async fn github_events_are_counted_right() {
    let Some(records) = sample("github_events.ndjson") else { return };
    let values = parsed(&records);
    let mut fixture = Fixture::new();
    add(&mut fixture, "github", &records);
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for value in &values {
        if let Some(kind) = value["type"].as_str() {
            *kinds.entry(kind).or_default() += 1;
        }
    }
    let found = fixture
        .ask("SELECT _value->>'type' AS type, count(*) AS c FROM github GROUP BY 1 ORDER BY 1")
        .await
        .expect("rows");
    let found: BTreeMap<String, u64> = lines(&found.text())
        .iter()
        .map(|row| (row["type"].as_str().unwrap_or("").to_owned(), row["c"].as_u64().unwrap_or(0)))
        .collect();
    let expected: BTreeMap<String, u64> =
        kinds.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
    assert_eq!(found, expected);
    let sum: i64 = values.iter().filter_map(|value| value["actor"]["id"].as_i64()).sum();
    for sql in [
        "SELECT sum((_value->'actor'->>'id')::bigint) AS s FROM github",
        "SELECT sum((_value->'actor'->'id')::bigint) AS s FROM github",
        "SELECT sum(json_get_int(_value, 'actor', 'id')) AS s FROM github",
        "SELECT sum(try_cast(_value#>>array['actor','id'] AS bigint)) AS s FROM github",
    ] {
        let found = fixture.ask(sql).await.unwrap_or_else(|refusal| panic!("{sql}: {refusal:?}"));
        assert_eq!(lines(&found.text())[0]["s"].as_i64(), Some(sum), "{sql}");
    }
    let like = values.iter().filter(|value| {
        value["repo"]["name"].as_str().is_some_and(|name| name.to_lowercase().contains("rust"))
    });
    let found = fixture
        .ask("SELECT count(*) AS c FROM github WHERE _value->'repo'->>'name' ILIKE '%rust%'")
        .await
        .expect("rows");
    assert_eq!(lines(&found.text())[0]["c"].as_u64(), Some(like.count() as u64));
    let bytes: usize = records.iter().map(Vec::len).sum();
    let found =
        fixture.ask("SELECT sum(octet_length(_value)) AS s FROM github").await.expect("rows");
    assert_eq!(lines(&found.text())[0]["s"].as_u64(), Some(bytes as u64));
}

#[tokio::test]
async fn audit_events_are_read_to_the_last_field() {
    let Some(records) = sample("k8s_audit") else { return };
    // Notes lie beside the records.
    let is_json = |record: &Vec<u8>| serde_json::from_slice::<Value>(record).is_ok();
    let records: Vec<Vec<u8>> = records.into_iter().filter(is_json).collect();
    let values = parsed(&records);
    let mut fixture = Fixture::new();
    add(&mut fixture, "audit", &records);
    let found = fixture
        .ask(
            "SELECT _value->>'verb' AS verb, _value->'user'->>'username' AS name, \
             _value->'objectRef' AS object, (_value->'responseStatus'->>'code')::int AS code \
             FROM audit WHERE _value->>'kind' = 'Event' ORDER BY _offset",
        )
        .await
        .expect("rows");
    let expected: Vec<&Value> = values.iter().filter(|value| value["kind"] == "Event").collect();
    let found = lines(&found.text());
    assert_eq!(found.len(), expected.len());
    for (row, value) in found.iter().zip(expected) {
        assert_eq!(row["verb"], value["verb"]);
        assert_eq!(row["name"], value["user"]["username"]);
        assert_eq!(row["code"], value["responseStatus"]["code"]);
        match row["object"].as_str() {
            Some(text) => {
                let object: Value = serde_json::from_str(text).expect("JSON text");
                assert_eq!(object, value["objectRef"]);
            }
            None => assert!(value["objectRef"].is_null()),
        }
    }
}

#[tokio::test]
async fn lines_of_logs_are_searched_as_text() {
    let Some(records) = sample("auth.log") else { return };
    let mut fixture = Fixture::new();
    add(&mut fixture, "auth", &records);
    let text: Vec<String> =
        records.iter().map(|record| String::from_utf8_lossy(record).into_owned()).collect();
    let count = |is: &dyn Fn(&str) -> bool| text.iter().filter(|line| is(line)).count() as u64;
    for (filter, expected) in [
        ("_value LIKE '%Failed password%'", count(&|line| line.contains("Failed password"))),
        (
            "_value ~ 'sshd.*Failed'",
            count(&|line| line.find("sshd").is_some_and(|at| line[at..].contains("Failed"))),
        ),
        ("contains(_value, 'root')", count(&|line| line.contains("root"))),
        ("_value->>'x' IS NOT NULL", 0),
    ] {
        let found = fixture.ask(&format!("SELECT count(*) AS c FROM auth WHERE {filter}")).await;
        let found = found.unwrap_or_else(|refusal| panic!("{filter}: {refusal:?}"));
        assert_eq!(lines(&found.text())[0]["c"].as_u64(), Some(expected), "{filter}");
    }
}

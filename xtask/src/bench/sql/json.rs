//! Figure `json`: questions in the manner of JSONBench about documents, held
//! against DuckDB over the same chunks and over the JSON as it was sent.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Result;
use aquifer_testkit::{Multiplied, load_records};
use serde_json::json;

use super::contest::{Goal, Question, Side, contest};
use super::fields::{Dialect, Fields, Texts, fill};
use super::{Bench, about_fields, about_sides};
use crate::bench::Context;
use crate::bench::feed::{Fed, Lane, feed};
use crate::bench::http::NDJSON;
use crate::bench::measure::figure;
use crate::e2e::client::Client;

const PARTITIONS: u32 = 2;
const SAMPLE: &str = "github_events.ndjson";
const GOAL: Goal = Goal { mean_max: 1.5, each_max: None };

/// What the JSON has, as DuckDB is told: it need not find out, nor read more.
const COLUMNS: &str = "{id: 'VARCHAR', type: 'VARCHAR', actor: 'STRUCT(login VARCHAR)', \
                       created_at: 'VARCHAR'}";

const QUESTIONS: [(&str, &str); 5] = [
    (
        "events by type",
        "SELECT {type} AS type, count(*) AS n FROM {table=} GROUP BY 1 ORDER BY 2 DESC, 1",
    ),
    (
        "events and actors by type, without pushes",
        "SELECT {type} AS type, count(*) AS n, count(DISTINCT {actor.login}) AS actors \
         FROM {table=} WHERE {type} <> 'PushEvent' GROUP BY 1 ORDER BY 2 DESC, 1",
    ),
    (
        "three types by hour of the day",
        "SELECT {type} AS type, substr({created_at}, 12, 2) AS hour, count(*) AS n \
         FROM {table=} WHERE {type} IN ('PushEvent', 'CreateEvent', 'WatchEvent') \
         GROUP BY 1, 2 ORDER BY 2, 1",
    ),
    (
        "the first three to push",
        "SELECT {actor.login} AS login, min({created_at}) AS first FROM {table=} \
         WHERE {type} = 'PushEvent' GROUP BY 1 ORDER BY 2, 1 LIMIT 3",
    ),
    (
        "the three with the longest activity",
        "SELECT login, max(id) - min(id) AS span FROM (SELECT {actor.login} AS login, \
         CAST({id} AS BIGINT) AS id FROM {table=} WHERE {type} = 'PushEvent') e \
         GROUP BY login ORDER BY 2 DESC, 1 LIMIT 3",
    ),
];

pub(in crate::bench) fn run(context: &Context) -> Result<String> {
    let documents = context.pick(40_000, 1_000_000, 1_000_000);
    let bench = Bench::start(context, "json")?;
    let raw = bench.directory.path().join("raw");
    std::fs::create_dir_all(&raw)?;
    let fed = documents_into(context, &bench.client(), documents, &raw)?;
    let chunks = bench.share(&["github"])?;
    let mut duckdb = bench.peer("duckdb")?;
    let version = duckdb.version()?;
    duckdb.table("github", &bench.folder("github"))?;
    let mut on_json = bench.peer("duckdb")?;
    on_json.run(&format!(
        "CREATE VIEW raw AS SELECT * FROM read_json('{}/*.ndjson', \
         format = 'newline_delimited', columns = {COLUMNS})",
        raw.display()
    ))?;
    let fields = bench.fields(&mut duckdb, "github", "type");
    let questions = QUESTIONS.map(|(name, template)| question(name, template, fields));
    let mut sides = [
        Side { name: "Aquifer".to_owned(), engine: Box::new(bench.ours()) },
        Side { name: "DuckDB on the chunks".to_owned(), engine: Box::new(duckdb) },
        Side { name: "DuckDB on JSON".to_owned(), engine: Box::new(on_json) },
    ];
    let table = contest(&mut sides, &questions, context.pairs(), &[None, Some(GOAL), None])?;
    let size: u64 = chunks.iter().map(|of| of.bytes).sum();
    Ok(format!(
        "{table}\n{} documents of {SAMPLE}, multiplied: {} GB of JSON, {} GB of chunks. DuckDB \
         reads the JSON uncompressed, from files, and is told which fields it has. {} {} DuckDB \
         {version} for Python.\n",
        fed.records,
        figure(fed.bytes as f64 / 1e9),
        figure(size as f64 / 1e9),
        about_fields(fields),
        about_sides(),
    ))
}

/// For our chunks twice, then for the JSON, which has columns in any case.
fn question(name: &str, template: &str, fields: Fields) -> Question {
    let text = |dialect, fields, table: &str| {
        fill(template, dialect, fields, &Texts::from([("table", table.to_owned())]))
    };
    let texts = vec![
        text(Dialect::Aquifer, fields, "github"),
        text(Dialect::DuckDb, fields, "github"),
        text(Dialect::DuckDb, Fields::Columns, "raw"),
    ];
    Question { name: name.to_owned(), texts }
}

/// Sends documents, and writes each as it is sent below `raw`.
fn documents_into(context: &Context, client: &Client, count: usize, raw: &Path) -> Result<Fed> {
    let sample = load_records(&context.sample(SAMPLE)?)?;
    client.create_stream("github", PARTITIONS, json!({}))?;
    let mut lanes = Vec::new();
    for partition in 0..PARTITIONS {
        let mut file = BufWriter::new(File::create(raw.join(format!("{partition}.ndjson")))?);
        let records = Multiplied::new(&sample, u64::from(partition));
        lanes.push(Lane {
            stream: "github",
            partition,
            kind: NDJSON,
            records: Box::new(records.take(count / PARTITIONS as usize)),
            bytes_max: u64::MAX,
            seen: Some(Box::new(move |record| {
                file.write_all(record)?;
                Ok(file.write_all(b"\n")?)
            })),
        });
    }
    feed(client.url(), lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_can_be_asked_everything() {
        for (name, template) in QUESTIONS {
            for fields in [Fields::Columns, Fields::Json] {
                let question = question(name, template, fields);
                assert!(question.texts.iter().all(Option::is_some), "{question:?}");
            }
        }
    }
}

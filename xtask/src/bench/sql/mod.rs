//! Figures `sql`, `tpch` and `json`: statements over streams, held against
//! DataFusion and DuckDB over the same chunk files, with as much memory and as
//! many threads.

mod answer;
mod contest;
mod engines;
mod fields;
mod json;
mod questions;
mod tpch;

pub(super) use json::run as json;
pub(super) use tpch::run as tpch;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use aquifer_testkit::{Multiplied, load_records};
use contest::{Goal, Side, contest};
use engines::{Allowance, Engine, Ours, Peer};
use fields::{Dialect, Fields, Texts};
use questions::QUESTIONS;
use serde_json::{Value, json};

use super::Context;
use super::feed::{Chunks, Fed, Lane, feed, settle};
use super::http::{NDJSON, TEXT};
use super::measure::figure;
use crate::e2e::client::Client;
use crate::e2e::server::Server;
use crate::python;

/// What every side may hold, and how many threads it may run.
const ALLOWANCE: Allowance = Allowance { memory_bytes: 2 << 30, threads: 2 };
/// The streams, their data and their parts of the volume in percent.
const STREAMS: [(&str, &str, u64); 3] = [
    ("github", "github_events.ndjson", 45),
    ("nginx", "nginx_plus.ndjson", 20),
    ("access", "apache_access.log", 35),
];
/// Of each stream, written beside each other.
const PARTITIONS: u32 = 2;
/// What the second side of a join has for each actor.
const PLANS: [&str; 3] = ["free", "team", "enterprise"];

/// What is held against DataFusion.
const DATAFUSION_GOAL: Goal = Goal { mean_max: 1.1, each_max: Some(1.25) };
/// What is held against DuckDB.
const DUCKDB_GOAL: Goal = Goal { mean_max: 1.5, each_max: None };

/// A server with streams whose chunks the others read too.
struct Bench {
    server: Server,
    data: PathBuf,
    directory: tempfile::TempDir,
    python: PathBuf,
}

impl Bench {
    fn start(context: &Context, name: &str) -> Result<Self> {
        let python = python::interpreter_with(&context.workspace, "requirements-bench.txt")
            .map_err(|reason| anyhow!(reason))?;
        let directory = context.temporary(name)?;
        let memory = ALLOWANCE.memory_bytes;
        let options = context.server(directory.path())?.with_settings(&[
            &format!("query.memory_bytes_max={memory}"),
            &format!("query.question_memory_bytes_max={memory}"),
            // Beyond what operators count; nobody else has such a limit.
            &format!("query.engine_memory_bytes_max={}", 3 * memory),
            &format!("query.target_partitions={}", ALLOWANCE.threads),
        ]);
        let data = options.data().to_owned();
        Ok(Self { server: Server::start(&options)?, data, directory, python })
    }

    fn client(&self) -> Client {
        self.server.client()
    }

    fn ours(&self) -> Ours {
        Ours::new(self.server.url())
    }

    fn peer(&self, engine: &str) -> Result<Peer> {
        Peer::start(&self.python, self.directory.path(), engine, ALLOWANCE)
    }

    /// Where the chunks of a stream are linked for the others.
    fn folder(&self, stream: &str) -> PathBuf {
        self.directory.path().join("chunks").join(stream)
    }

    /// All streams are in chunks, and the others have them as tables.
    fn share(&self, streams: &[&str]) -> Result<Vec<Chunks>> {
        settle(&self.client(), streams)?;
        let mut shared = Vec::new();
        for stream in streams {
            let chunks = Chunks::of(&self.client(), &self.data, stream)?;
            chunks.link_into(&self.folder(stream))?;
            shared.push(chunks);
        }
        Ok(shared)
    }

    /// Whether a field of a stream is a column, here and in the chunks.
    fn fields(&self, duckdb: &mut Peer, stream: &str, field: &str) -> Fields {
        let sql = format!("SELECT {field} FROM {stream} LIMIT 1");
        match (self.ours().ask(&sql), duckdb.ask(&sql)) {
            (Ok(_), Ok(_)) => Fields::Columns,
            _ => Fields::Json,
        }
    }
}

pub(super) fn run(context: &Context) -> Result<String> {
    let bytes = context.bytes(200_000_000, 10_000_000_000, 10_000_000_000);
    let bench = Bench::start(context, "sql")?;
    let fed = fill_streams(context, &bench.client(), bytes)?;
    let streams = ["github", "nginx", "access", "users"];
    let chunks = bench.share(&streams)?;
    let (mut datafusion, mut duckdb) = (bench.peer("datafusion")?, bench.peer("duckdb")?);
    for stream in streams {
        datafusion.table(stream, &bench.folder(stream))?;
        duckdb.table(stream, &bench.folder(stream))?;
    }
    let fields = bench.fields(&mut duckdb, "github", "type");
    let access = chunks.get(2).context("no chunks of access")?;
    let texts = moments(&mut bench.ours(), access.times)?;
    let dialects = [Dialect::Aquifer, Dialect::DataFusion, Dialect::DuckDb];
    let questions: Vec<_> =
        QUESTIONS.iter().map(|of| of.question(&dialects, fields, &texts)).collect();
    let versions = [datafusion.version()?, duckdb.version()?];
    let mut sides = [
        Side { name: "Aquifer".to_owned(), engine: Box::new(bench.ours()) },
        Side { name: "DataFusion".to_owned(), engine: Box::new(datafusion) },
        Side { name: "DuckDB".to_owned(), engine: Box::new(duckdb) },
    ];
    let goals = [None, Some(DATAFUSION_GOAL), Some(DUCKDB_GOAL)];
    let table = contest(&mut sides, &questions, context.pairs(), &goals)?;
    let files: usize = chunks.iter().map(|of| of.files.len()).sum();
    let size: u64 = chunks.iter().map(|of| of.bytes).sum();
    Ok(format!(
        "{table}\n{} GB of records ({} million) in {files} chunks of {} GB together: {}. {} {} {}\n",
        figure(fed.bytes as f64 / 1e9),
        figure(fed.records as f64 / 1e6),
        figure(size as f64 / 1e9),
        STREAMS
            .map(|(name, sample, percent)| format!("`{name}` {percent} % of {sample}"))
            .join(", "),
        about_fields(fields),
        about_sides(),
        about_versions(&versions),
    ))
}

fn about_fields(fields: Fields) -> &'static str {
    match fields {
        Fields::Columns => "Fields of JSON are asked for as the columns that the chunks have.",
        Fields::Json => {
            "Fields of JSON are read out of the value (the chunks have no columns for them); \
             DataFusion has no functions for that and is not asked."
        }
    }
}

fn about_sides() -> String {
    format!(
        "All answers were compared first. Each side has {} GiB for its operators and {} threads; \
         ours is asked over HTTP and answers in JSON, the others in a Python process of theirs \
         that has all rows; the files are in the system's page cache. The medians of the rounds, \
         another side first in each; ratios are the medians of the rounds' ratios, below 1: \
         Aquifer is faster.",
        ALLOWANCE.memory_bytes >> 30,
        ALLOWANCE.threads,
    )
}

fn about_versions([datafusion, duckdb]: &[String; 2]) -> String {
    format!("DataFusion {datafusion} and DuckDB {duckdb} for Python.")
}

/// The multiplied data, and one record for each actor of the first round.
fn fill_streams(context: &Context, client: &Client, bytes: u64) -> Result<Fed> {
    let mut samples = Vec::new();
    for (stream, sample, percent) in STREAMS {
        client.create_stream(stream, PARTITIONS, json!({}))?;
        samples.push((stream, sample, percent, load_records(&context.sample(sample)?)?));
    }
    client.create_stream("users", 1, json!({}))?;
    let mut lanes = Vec::new();
    for (stream, sample, percent, records) in &samples {
        for partition in 0..PARTITIONS {
            lanes.push(Lane {
                stream,
                partition,
                kind: kind_of(sample),
                records: Box::new(Multiplied::new(records, u64::from(partition))),
                bytes_max: bytes * percent / 100 / u64::from(PARTITIONS),
                seen: None,
            });
        }
    }
    let events = &samples.first().context("no streams")?.3;
    lanes.push(Lane {
        stream: "users",
        partition: 0,
        kind: NDJSON,
        records: Box::new(users(events).into_iter()),
        bytes_max: u64::MAX,
        seen: None,
    });
    feed(client.url(), lanes)
}

fn kind_of(sample: &str) -> &'static str {
    if Path::new(sample).extension().is_some_and(|of| of == "ndjson") { NDJSON } else { TEXT }
}

/// A record for each different actor of the events.
fn users(events: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let login = |event: &Vec<u8>| {
        let event: Value = serde_json::from_slice(event).ok()?;
        Some(event.pointer("/actor/login")?.as_str()?.to_owned())
    };
    let logins: std::collections::BTreeSet<String> = events.iter().filter_map(login).collect();
    let user = |(number, login): (usize, String)| {
        let plan = PLANS[number % PLANS.len()];
        json!({ "login": login, "plan": plan, "seats": number % 40 }).to_string().into_bytes()
    };
    logins.into_iter().enumerate().map(user).collect()
}

/// The middle twentieth of the time, as all sides read it.
fn moments(ours: &mut Ours, (first, last): (i64, i64)) -> Result<Texts> {
    let length = (last - first).max(20);
    let from = first + length / 2;
    let mut texts = Texts::new();
    for (name, ms) in [("from", from), ("to", from + length / 20)] {
        let answer = ours.ask(&format!("SELECT to_timestamp_millis({ms}) AS moment"))?;
        let text = answer.rows.first().and_then(|row| row.first()).and_then(Value::as_str);
        let text = text.context("no moment")?;
        texts.insert(name, format!("{}Z", text.trim_end_matches('Z')));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_is_one_user() {
        let events = [
            br#"{"actor":{"login":"b"}}"#.to_vec(),
            br#"{"actor":{"login":"a"}}"#.to_vec(),
            br#"{"actor":{"login":"b"}}"#.to_vec(),
            b"no event".to_vec(),
        ];
        let users = users(&events).concat();
        let expected =
            r#"{"login":"a","plan":"free","seats":0}{"login":"b","plan":"team","seats":1}"#;
        assert_eq!(String::from_utf8(users).unwrap(), expected);
    }
}

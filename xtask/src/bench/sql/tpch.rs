//! Figure `tpch`: the 22 queries of TPC-H over rows that came in as JSON
//! records through streams, the last of them only in the journal.
//!
//! The others read the same chunks, and the journal's part as one more file,
//! since they cannot read it from us.

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::contest::{Question, Side, contest};
use super::engines::{Engine as _, Peer};
use super::fields::{Dialect, Fields, Texts, fill};
use super::{Bench, DATAFUSION_GOAL, DUCKDB_GOAL, about_fields, about_sides, about_versions};
use crate::bench::Context;
use crate::bench::feed::{Fed, Lane, feed, set_age};
use crate::bench::http::NDJSON;
use crate::bench::measure::figure;
use crate::e2e::client::Client;
use crate::workspace::run_quietly;

const QUERIES: &str = include_str!("tpch.sql");
const ROWS: &str = include_str!("tpch_rows.py");
const TAIL: &str = include_str!("tail.py");
/// Longer than the figure takes: the tail stays in the journal.
const TAIL_AGE_MS: u64 = 24 * 3_600_000;

/// What a column is declared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole,
    Number,
    Text,
    Date,
}

use Kind::{Date, Number, Text, Whole};

type Columns = &'static [(&'static str, Kind)];

const TABLES: [(&str, Columns); 8] = [
    ("region", &[("r_regionkey", Whole), ("r_name", Text), ("r_comment", Text)]),
    (
        "nation",
        &[("n_nationkey", Whole), ("n_name", Text), ("n_regionkey", Whole), ("n_comment", Text)],
    ),
    (
        "supplier",
        &[
            ("s_suppkey", Whole),
            ("s_name", Text),
            ("s_address", Text),
            ("s_nationkey", Whole),
            ("s_phone", Text),
            ("s_acctbal", Number),
            ("s_comment", Text),
        ],
    ),
    (
        "customer",
        &[
            ("c_custkey", Whole),
            ("c_name", Text),
            ("c_address", Text),
            ("c_nationkey", Whole),
            ("c_phone", Text),
            ("c_acctbal", Number),
            ("c_mktsegment", Text),
            ("c_comment", Text),
        ],
    ),
    (
        "part",
        &[
            ("p_partkey", Whole),
            ("p_name", Text),
            ("p_mfgr", Text),
            ("p_brand", Text),
            ("p_type", Text),
            ("p_size", Whole),
            ("p_container", Text),
            ("p_retailprice", Number),
            ("p_comment", Text),
        ],
    ),
    (
        "partsupp",
        &[
            ("ps_partkey", Whole),
            ("ps_suppkey", Whole),
            ("ps_availqty", Whole),
            ("ps_supplycost", Number),
            ("ps_comment", Text),
        ],
    ),
    (
        "orders",
        &[
            ("o_orderkey", Whole),
            ("o_custkey", Whole),
            ("o_orderstatus", Text),
            ("o_totalprice", Number),
            ("o_orderdate", Date),
            ("o_orderpriority", Text),
            ("o_clerk", Text),
            ("o_shippriority", Whole),
            ("o_comment", Text),
        ],
    ),
    (
        "lineitem",
        &[
            ("l_orderkey", Whole),
            ("l_partkey", Whole),
            ("l_suppkey", Whole),
            ("l_linenumber", Whole),
            ("l_quantity", Number),
            ("l_extendedprice", Number),
            ("l_discount", Number),
            ("l_tax", Number),
            ("l_returnflag", Text),
            ("l_linestatus", Text),
            ("l_shipdate", Date),
            ("l_commitdate", Date),
            ("l_receiptdate", Date),
            ("l_shipinstruct", Text),
            ("l_shipmode", Text),
            ("l_comment", Text),
        ],
    ),
];

pub(in crate::bench) fn run(context: &Context) -> Result<String> {
    let scale = context.pick(0.05, 1.0, 1.0);
    let bench = Bench::start(context, "tpch")?;
    let generated = bench.directory.path().join("generated");
    generate(&bench.python, &generated, scale)?;
    let client = bench.client();
    let is_declared = create(&client)?;
    let script = bench.directory.path().join("tpch_rows.py");
    std::fs::write(&script, ROWS)?;
    let (mut fed, mut tails) = (Fed::default(), Vec::new());
    for (table, _) in TABLES {
        let mut rows = Rows::start(&bench.python, &script, &generated, table)?;
        let early = rows.count - (rows.count / 100).max(1);
        add(&mut fed, rows.send(&client, table, early)?);
        tails.push((table, rows));
    }
    let streams = TABLES.map(|(table, _)| stream_of(table));
    let streams = streams.each_ref().map(String::as_str);
    let chunks = bench.share(&streams)?;
    let mut late = Fed::default();
    for (table, mut rows) in tails {
        set_age(&client, &stream_of(table), TAIL_AGE_MS)?;
        add(&mut late, rows.send(&client, table, u64::MAX)?);
        rows.end()?;
    }
    let (mut datafusion, mut duckdb) = (bench.peer("datafusion")?, bench.peer("duckdb")?);
    duckdb.table(&stream_of("lineitem"), &bench.folder(&stream_of("lineitem")))?;
    let fields = bench.fields(&mut duckdb, &stream_of("lineitem"), "l_shipdate");
    give_tails(&bench, fields)?;
    let asks_datafusion = views(&bench, &mut datafusion, &mut duckdb, fields)?;
    let questions = questions(scale, asks_datafusion)?;
    let versions = [datafusion.version()?, duckdb.version()?];
    let mut sides = [
        Side { name: "Aquifer".to_owned(), engine: Box::new(bench.ours()) },
        Side { name: "DataFusion".to_owned(), engine: Box::new(datafusion) },
        Side { name: "DuckDB".to_owned(), engine: Box::new(duckdb) },
    ];
    let goals = [None, Some(DATAFUSION_GOAL), Some(DUCKDB_GOAL)];
    let table = contest(&mut sides, &questions, context.pairs(), &goals)?;
    let files: usize = chunks.iter().map(|of| of.files.len()).sum();
    let declared =
        if is_declared { "declared when the streams were created" } else { "not declared" };
    Ok(format!(
        "{table}\nTPC-H with scale factor {scale}: {} million rows, sent as JSON records, {} GB; \
         {files} chunks, and {} rows ({} %) only in the journal, which the others have as one more \
         file of each table. Types are {declared}; decimals are 64-bit floating point on all \
         sides. {} {} {}\n",
        figure((fed.records + late.records) as f64 / 1e6),
        figure((fed.bytes + late.bytes) as f64 / 1e9),
        late.records,
        figure(100.0 * late.records as f64 / (fed.records + late.records) as f64),
        about_fields(fields),
        about_sides(),
        about_versions(&versions),
    ))
}

fn add(sum: &mut Fed, more: Fed) {
    sum.records += more.records;
    sum.bytes += more.bytes;
}

/// A view has the table's name, and its stream this one.
fn stream_of(table: &str) -> String {
    format!("tpch_{table}")
}

/// A Parquet file of each table.
fn generate(python: &Path, directory: &Path, scale: f64) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let program = python.with_file_name("tpchgen-cli");
    let mut command = Command::new(program);
    command.args(["parquet", "--scale-factor", &scale.to_string(), "--output-dir"]);
    run_quietly(command.arg(directory)).map(drop)
}

/// Creates the streams; whether their types could be declared.
fn create(client: &Client) -> Result<bool> {
    let mut is_declared = true;
    for (table, columns) in TABLES {
        let mut body = json!({ "name": stream_of(table), "partitions": 1 });
        let plain = body.clone();
        body["schema"] = schema(columns);
        if !is_declared {
            client.create(&plain)?;
        } else if let Err(error) = client.create(&body) {
            // A server that knows no schemas refuses the field by its name.
            ensure!(format!("{error:#}").contains("schema"), "{error:#}");
            is_declared = false;
            client.create(&plain)?;
        }
    }
    Ok(is_declared)
}

/// The JSON Schema of a table's rows.
fn schema(columns: Columns) -> Value {
    let property = |kind: Kind| match kind {
        Whole => json!({ "type": "integer" }),
        Number => json!({ "type": "number" }),
        Text => json!({ "type": "string" }),
        Date => json!({ "type": "string", "format": "date" }),
    };
    let properties = columns.iter().map(|(name, kind)| ((*name).to_owned(), property(*kind)));
    json!({ "type": "object", "properties": properties.collect::<serde_json::Map<_, _>>() })
}

/// The rows of a table as they come out of a process, ended when dropped.
struct Rows {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    count: u64,
}

impl Rows {
    fn start(python: &Path, script: &Path, generated: &Path, table: &str) -> Result<Self> {
        let file = file_of(generated, table)?;
        let mut child = Command::new(python)
            .arg(script)
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let output = child.stdout.take().context("a process without its pipe")?;
        let mut lines = BufReader::with_capacity(1 << 20, output).lines();
        let count = lines.next().context("no rows")??;
        Ok(Self { child, lines, count: count.parse().with_context(|| count.clone())? })
    }

    /// Sends the next rows of the table.
    fn send(&mut self, client: &Client, table: &str, count: u64) -> Result<Fed> {
        let stream = stream_of(table);
        let lines = self.lines.by_ref().map_while(Result::ok).map(String::into_bytes);
        let records = lines.take(usize::try_from(count).unwrap_or(usize::MAX));
        let lane = Lane {
            stream: &stream,
            partition: 0,
            kind: NDJSON,
            records: Box::new(records),
            bytes_max: u64::MAX,
            seen: None,
        };
        feed(client.url(), vec![lane])
    }

    fn end(mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "reading rows ended with {status}");
        Ok(())
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        // Already ended, or nobody is left to hear of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The generator names a file after its table, or a folder with one file in it.
fn file_of(generated: &Path, table: &str) -> Result<PathBuf> {
    let file = generated.join(format!("{table}.parquet"));
    if file.is_file() {
        return Ok(file);
    }
    let folder = generated.join(table);
    let entries = std::fs::read_dir(&folder)
        .with_context(|| format!("neither {} nor {}", file.display(), folder.display()))?;
    let files: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    match files.as_slice() {
        [one] => Ok(one.clone()),
        _ => bail!("{} files in {}", files.len(), folder.display()),
    }
}

/// What is only in the journal, as a file beside the chunks of each table.
fn give_tails(bench: &Bench, fields: Fields) -> Result<()> {
    let script = bench.directory.path().join("tail.py");
    std::fs::write(&script, TAIL)?;
    for (table, columns) in TABLES {
        let stream = stream_of(table);
        let partitions = bench.client().partitions(&stream)?;
        let tiered = partitions.first().context("no partition")?.tiered_offset;
        let mut command = Command::new(&bench.python);
        command.arg(&script).args([bench.server.url(), &stream, &tiered.to_string()]);
        command.arg(bench.folder(&stream));
        match fields {
            Fields::Columns => command.args(columns.iter().map(|(name, _)| name)),
            Fields::Json => command.arg("_value"),
        };
        let rows = run_quietly(&mut command)?;
        ensure!(rows.trim() != "0", "{stream} has nothing in its tail");
    }
    Ok(())
}

/// The tables as views of their own names on every side; whether DataFusion can
/// have them.
fn views(bench: &Bench, datafusion: &mut Peer, duckdb: &mut Peer, fields: Fields) -> Result<bool> {
    let mut asks_datafusion = true;
    for (table, columns) in TABLES {
        let stream = stream_of(table);
        datafusion.table(&stream, &bench.folder(&stream))?;
        duckdb.table(&stream, &bench.folder(&stream))?;
        let view = |dialect| view(table, columns, dialect, fields);
        bench.ours().ask(&view(Dialect::Aquifer).context("no view")?)?;
        duckdb.run(&view(Dialect::DuckDb).context("no view")?)?;
        match view(Dialect::DataFusion) {
            Some(text) => datafusion.run(&text)?,
            None => asks_datafusion = false,
        }
    }
    Ok(asks_datafusion)
}

fn view(table: &str, columns: Columns, dialect: Dialect, fields: Fields) -> Option<String> {
    let column = |(name, kind): &(&str, Kind)| {
        let field = fill(&format!("{{{name}}}"), dialect, fields, &Texts::new())?;
        let cast = match kind {
            Whole => "BIGINT",
            Number => "DOUBLE",
            Date => "DATE",
            Text => return Some(format!("{field} AS {name}")),
        };
        Some(format!("CAST({field} AS {cast}) AS {name}"))
    };
    let columns: Option<Vec<String>> = columns.iter().map(column).collect();
    Some(format!("CREATE VIEW {table} AS SELECT {} FROM {}", columns?.join(", "), stream_of(table)))
}

fn questions(scale: f64, asks_datafusion: bool) -> Result<Vec<Question>> {
    // Of all values in stock; the specification makes it smaller with the volume.
    let texts = Texts::from([("fraction", format!("{:.10}", 0.0001 / scale))]);
    let mut questions = Vec::new();
    for section in QUERIES.split("-- query ").skip(1) {
        let (number, template) = section.split_once('\n').context("a query without a text")?;
        let text = fill(template.trim(), Dialect::DuckDb, Fields::Columns, &texts);
        let text = text.with_context(|| format!("query {number} has an unknown place"))?;
        let of_datafusion = asks_datafusion.then(|| text.clone());
        questions.push(Question {
            name: format!("query {number}"),
            texts: vec![Some(text.clone()), of_datafusion, Some(text)],
        });
    }
    Ok(questions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_22_queries() {
        let questions = questions(1.0, true).unwrap();
        assert_eq!(questions.len(), 22);
        assert_eq!(questions[21].name, "query 22");
        let eleventh = questions[10].texts[0].as_deref().unwrap();
        assert!(eleventh.contains("* 0.0001000000"), "{eleventh}");
    }

    #[test]
    fn views_have_the_types() {
        let columns: Columns = &[("a", Whole), ("b", Text)];
        let check = |dialect, fields, expected: Option<&str>| {
            assert_eq!(view("t", columns, dialect, fields).as_deref(), expected);
        };
        check(
            Dialect::Aquifer,
            Fields::Json,
            Some(
                "CREATE VIEW t AS SELECT CAST((_value->>'a') AS BIGINT) AS a, (_value->>'b') AS b FROM tpch_t",
            ),
        );
        check(
            Dialect::DataFusion,
            Fields::Columns,
            Some("CREATE VIEW t AS SELECT CAST(\"a\" AS BIGINT) AS a, \"b\" AS b FROM tpch_t"),
        );
        check(Dialect::DataFusion, Fields::Json, None);
    }
}

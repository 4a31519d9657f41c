//! Scenario `command_line`: what the binary's own client commands do to a
//! server, and the demo.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::run_quietly;

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("command_line")?;
    let server = Server::start(&context.options(directory.path()))?;
    let url = server.client().url().to_owned();
    let aquifer = |line: &str| {
        let mut command = Command::new(&context.binary);
        command.args(line.split_whitespace()).env("AQUIFER_URL", &url);
        run_quietly(&mut command)
    };
    aquifer("stream create logs --partitions 2 --set retention_ms=86400000")?;
    let lines: String = (0..1000).map(|number| format!("line {number} with words\n")).collect();
    let file = directory.path().join("lines.txt");
    std::fs::write(&file, &lines)?;
    aquifer(&format!("append logs {} --partition 1", file.display()))?;

    let read = aquifer("read logs --from earliest --output json")?;
    let values: String = read
        .lines()
        .map(|line| {
            let record: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            Ok(format!("{}\n", record["value"].as_str().unwrap_or_default()))
        })
        .collect::<Result<_>>()?;
    ensure!(values == lines, "other lines are read than were appended");
    let some = aquifer("read logs --partition 1 --from 990 --limit 5 --output json")?;
    ensure!(some.lines().count() == 5, "5 records of 1 line each were asked for:\n{some}");

    let described = aquifer("stream describe logs --output json")?;
    let described: Value = serde_json::from_str(&described).context("a description")?;
    ensure!(described["config"]["retention_ms"] == 86_400_000, "configured as {described}");
    ensure!(aquifer("stream list")?.contains("logs"), "the stream is not listed");
    aquifer("stream truncate logs --partition 1 --offset 10")?;
    let first = aquifer("read logs --limit 1")?;
    ensure!(first.contains("line 10 "), "after the truncation the first line is {first}");
    aquifer("stream delete logs")?;
    fields(directory.path(), &aquifer)?;
    let error = aquifer("read logs").err().context("a deleted stream is read")?.to_string();
    ensure!(!error.contains("panicked"), "{error}");
    server.stop()?;

    let mut demo = Command::new(&context.binary);
    let shown = run_quietly(demo.args(["demo", "--exit"])).context("aquifer demo")?;
    ensure!(shown.contains(".parquet"), "the demo shows no Parquet file:\n{shown}");
    Ok(Report::passed(""))
}

/// Fields that are declared with a file, and more of them later.
fn fields(directory: &Path, aquifer: &impl Fn(&str) -> Result<String>) -> Result<()> {
    let file = |name: &str, text: &str| -> Result<String> {
        let path = directory.join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let first =
        r#"{"properties":{"verb":{"type":"string"},"at":{"type":"string","format":"date-time"}}}"#;
    let first = file("first.json", first)?;
    aquifer(&format!("stream create audit --schema {first}"))?;
    let more = file("more.json", r#"{"properties":{"bytes":{"type":"integer"}}}"#)?;
    aquifer(&format!("stream schema audit --add {more}"))?;
    let shown = aquifer("stream schema audit")?;
    let rows: Vec<String> = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| line.starts_with("100"))
        .collect();
    let expected = ["1000 verb text 1 yes", "1001 at timestamp 1 yes", "1002 bytes int64 2 yes"];
    ensure!(rows == expected, "the fields are\n{shown}");
    let other = file("other.json", r#"{"properties":{"bytes":{"type":"string"}}}"#)?;
    let refused = aquifer(&format!("stream schema audit --add {other}"));
    let error = refused.err().context("a field changes its kind")?.to_string();
    ensure!(error.contains("the field bytes is of kind int64"), "{error}");
    Ok(())
}

//! Scenario `sql_shell`: `aquifer sql` with an argument, in a pipe, and as a
//! shell on a terminal.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::e2e::Context;
use crate::e2e::client::Outcome;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::run_quietly;

const DRIVE: &str = include_str!("sql_shell.py");
const RECORDS: u64 = 2000;

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("sql_shell")?;
    let server = Server::start(&context.options(directory.path()))?;
    let client = server.client();
    client.create_stream("events", 2, json!({}))?;
    for partition in [0, 1] {
        let lines: Vec<String> =
            (0..RECORDS / 2).map(|at| json!({ "at": at }).to_string()).collect();
        match client.append("events", partition, &lines) {
            Outcome::Acked { .. } => {}
            other => bail!("{other:?}"),
        }
    }
    arguments(context, &server)?;
    pipe(context, &server)?;
    let python = match context.python() {
        Ok(python) => python,
        Err(reason) => return Ok(Report::passed("commands").with_gap(format!("shell: {reason}"))),
    };
    let script = directory.path().join("sql_shell.py");
    std::fs::write(&script, DRIVE)?;
    let home = directory.path().join("home");
    std::fs::create_dir(&home)?;
    let mut command = Command::new(python);
    command.arg(&script).arg(&context.binary).arg(server.url()).arg(&home);
    run_quietly(&mut command).with_context(|| server.log_tail())?;
    server.stop()?;
    Ok(Report::passed("commands, a pipe, and a shell on a terminal"))
}

fn arguments(context: &Context, server: &Server) -> Result<()> {
    let aquifer = |arguments: &[&str]| {
        let mut command = Command::new(&context.binary);
        command.arg("sql").args(arguments).env("AQUIFER_URL", server.url());
        run_quietly(&mut command)
    };
    let sum = "SELECT count(*) AS n FROM events WHERE (_value->>'at')::bigint < $1";
    ensure!(aquifer(&[sum, "--param", "10"])?.trim() == "{\"n\":20}", "ndjson in a pipe");
    let csv = aquifer(&[sum, "-p", "10", "--output", "csv"])?;
    ensure!(csv.lines().collect::<Vec<_>>() == ["n", "20"], "{csv}");
    let table = aquifer(&[sum, "-p", "10", "--output", "table"])?;
    ensure!(table.contains(" n\n") && table.contains("(1 row)"), "{table}");
    let whole = aquifer(&[sum, "-p", "10", "--output", "json"])?;
    let whole: serde_json::Value = serde_json::from_str(&whole)?;
    ensure!(whole["rows"] == json!([[20]]), "{whole}");
    for arguments in [
        &["SELECT * FORM events"][..],
        &["SELECT * FROM no_such_stream"],
        &["SELECT * FROM events", "--rows-max", "5"],
    ] {
        let error = aquifer(arguments).err().with_context(|| format!("{arguments:?}"))?;
        ensure!(!format!("{error:#}").contains("panicked"), "{error:#}");
    }
    Ok(())
}

fn pipe(context: &Context, server: &Server) -> Result<()> {
    let mut child = Command::new(&context.binary)
        .args(["sql", "--url", server.url(), "--output", "csv"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("no standard input")?;
    input.write_all(b"SELECT 1 AS a; -- one; two\nSELECT ';' AS b;\nSELEKT; SELECT 3;")?;
    drop(input);
    let output = child.wait_with_output()?;
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(out.lines().collect::<Vec<_>>() == ["a", "1", "b", ";"], "{out}");
    ensure!(output.status.code() == Some(1), "{:?}: {err}", output.status);
    ensure!(err.contains("error:") && err.contains('^'), "{err}");
    Ok(())
}

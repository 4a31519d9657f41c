//! Scenario `kafka_kcat`: kcat produces from a pipe and consumes into one.

use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use super::scripts::SCRIPT_MAX;
use crate::debian::Tool;
use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::run_within;

const COMPRESSIONS: &[&str] = &["none", "gzip", "snappy", "lz4", "zstd"];
const RECORDS: usize = 500;

pub(crate) fn run(context: &Context) -> Result<Report> {
    let kcat = match Tool::find(&context.workspace.target, "kcat", "kcat") {
        Ok(kcat) => kcat,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let directory = context.directory("kafka_kcat")?;
    let server = Server::start(&context.options(directory.path()))?;
    let bootstrap = server.kafka()?;
    for compression in COMPRESSIONS {
        let topic = format!("kcat-{compression}");
        let sent: Vec<String> =
            (0..RECORDS).map(|at| format!("key-{}\tvalue {at} of {topic}", at % 7)).collect();
        produce(&kcat, &bootstrap, &topic, compression, &sent).with_context(|| topic.clone())?;
        let mut consume = kcat.command();
        consume.args(["-C", "-q", "-e", "-b", &bootstrap, "-t", &topic, "-p", "0"]);
        consume.args(["-o", "beginning", "-f", "%o\t%k\t%s\n"]);
        let found = run_within(&mut consume, SCRIPT_MAX)?;
        let expected: String =
            sent.iter().enumerate().map(|(at, line)| format!("{at}\t{line}\n")).collect();
        ensure!(found == expected, "{topic}: what came back is\n{found}");
    }
    let mut list = kcat.command();
    let listed = run_within(list.args(["-L", "-b", &bootstrap]), SCRIPT_MAX)?;
    ensure!(listed.contains("kcat-zstd"), "{listed}");
    server.stop()?;
    Ok(Report::passed(format!("{} compressions, {RECORDS} records each", COMPRESSIONS.len())))
}

fn produce(
    kcat: &Tool,
    bootstrap: &str,
    topic: &str,
    compression: &str,
    lines: &[String],
) -> Result<()> {
    let mut child = kcat
        .command()
        .args(["-P", "-b", bootstrap, "-t", topic, "-p", "0", "-K", "\t", "-z", compression])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("no standard input")?;
    for line in lines {
        writeln!(input, "{line}")?;
    }
    drop(input);
    let status = child.wait()?;
    ensure!(status.success(), "kcat ended with {status}");
    Ok(())
}

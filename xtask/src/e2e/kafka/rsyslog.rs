//! Scenario `kafka_rsyslog`: rsyslog follows a log file and sends its lines with
//! its module omkafka. rsyslog is stopped and started, the server is killed.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::program::Program;
use crate::debian::Unpacked;
use crate::e2e::Context;
use crate::e2e::client::Client;
use crate::e2e::server::Server;
use crate::steps::Report;

const STREAM: &str = "auth";

/// Real lines, in the folder beside the repository that other tests share.
const SAMPLE: &str = "../shared/data/auth.log";

/// Lines of our own where the sample is absent.
const LINES: usize = 5_000;

/// Debian's package of the module, and those that may be installed already and
/// are to be here all the same.
const PACKAGE: &str = "rsyslog-kafka";
const OTHERS: &[&str] = &["rsyslog", "libestr0", "libfastjson4", "liblognorm5", "librdkafka1"];

/// Lines are through, and rsyslog has ended, within this.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// What rsyslog sends again each time that the server was away: its module takes
/// the line with which it notices that for lost, though it is on its way.
const REPEATS_MAX: usize = 1;

pub(crate) fn run(context: &Context) -> Result<Report> {
    let rsyslog = match Rsyslog::fetch(&context.workspace.target) {
        Ok(rsyslog) => rsyslog,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let (lines, gap) = lines(&context.workspace.root.join(SAMPLE))?;
    let directory = context.directory("kafka_rsyslog")?;
    let mut random = context.random(1);
    let options = context.options(directory.path()).with_fixed_kafka_port(&mut random)?;
    let mut server = Server::start(&options)?;
    let bootstrap = server.kafka()?;
    server.client().create_stream(STREAM, 1, json!({ "chunk_max_age_ms": 250 }))?;

    let followed = directory.path().join("auth.log");
    let mut file = File::create(&followed)?;
    let (first, rest) = lines.split_at(lines.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    append(&mut file, first)?;
    let configuration = configuration(&bootstrap, &followed, directory.path());
    let start = || rsyslog.start(&configuration, directory.path());

    let mut running = start()?;
    arrive(&mut running, &server, first.len())?;
    running.stop(WAIT_MAX)?;
    let mut running = start()?;
    append(&mut file, second)?;
    arrive(&mut running, &server, first.len() + second.len())?;
    let found = stored(&server.client())?;
    let again = repeats(&lines[..first.len() + second.len()], &found)?;
    ensure!(again == 0, "{again} lines are there twice");

    server.crash()?;
    append(&mut file, third)?;
    arrive(&mut running, &server, lines.len())?;
    running.stop(WAIT_MAX)?;
    let found = stored(&server.client())?;
    let again = repeats(&lines, &found)?;
    ensure!(again <= REPEATS_MAX, "{again} lines are there twice behind the kill");
    server.stop()?;
    options.run(&["verify"]).context("aquifer verify")?;
    let report = Report::passed(format!(
        "{} lines, {again} sent again behind a kill of the server",
        lines.len()
    ));
    Ok(match gap {
        Some(gap) => report.with_gap(gap),
        None => report,
    })
}

/// The sample's lines, or others and what to say about it.
fn lines(sample: &Path) -> Result<(Vec<String>, Option<String>)> {
    if sample.is_file() {
        let text = std::fs::read_to_string(sample)?;
        return Ok((text.lines().map(str::to_owned).collect(), None));
    }
    let line = |at| format!("Mar 27 13:06:56 host sshd[{at}]: Server listening on :: port 22.");
    let gap = format!("there is no {SAMPLE}, lines of our own were sent");
    Ok(((0..LINES).map(line).collect(), Some(gap)))
}

fn append(file: &mut File, lines: &[String]) -> Result<()> {
    file.write_all((lines.join("\n") + "\n").as_bytes())?;
    Ok(())
}

/// What docs/kafka.md shows.
fn configuration(bootstrap: &str, followed: &Path, directory: &Path) -> String {
    let (followed, directory) = (followed.display(), directory.display());
    format!(
        r#"global(workDirectory="{directory}" net.enableDNS="off")
module(load="imfile")
module(load="omkafka")
template(name="line" type="string" string="%msg%")
input(type="imfile" file="{followed}" tag="auth" ruleset="aquifer")
ruleset(name="aquifer") {{
  action(
    type="omkafka"
    broker=["{bootstrap}"]
    topic="{STREAM}"
    template="line"
    partitions.auto="on"
    confParam=["enable.idempotence=true", "compression.codec=zstd"]
    resubmitOnFailure="on"
    action.resumeRetryCount="-1"
    action.resumeInterval="1"
  )
}}
"#
    )
}

/// Where rsyslog is, outside of the system.
struct Rsyslog {
    unpacked: Unpacked,
    program: PathBuf,
    modules: PathBuf,
}

impl Rsyslog {
    /// Debian's packages below `target`; else one sentence why they are not there.
    fn fetch(target: &Path) -> Result<Self, String> {
        let unpacked = Unpacked::packages(target, PACKAGE, OTHERS)?;
        let found = |name| unpacked.find(name).ok_or_else(|| format!("there is no {name}"));
        let program = found("rsyslogd")?;
        let modules = found("omkafka.so")?;
        let modules = modules.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self { unpacked, program, modules })
    }

    /// Starts it with `configuration`; all that it writes is in `directory`.
    fn start(&self, configuration: &str, directory: &Path) -> Result<Program> {
        let file = directory.join("rsyslog.conf");
        std::fs::write(&file, configuration)?;
        let mut command = Command::new(&self.program);
        command.env("LD_LIBRARY_PATH", self.unpacked.libraries());
        command.arg("-n").arg("-f").arg(&file).arg("-M").arg(&self.modules);
        command.arg("-i").arg(directory.join("rsyslog.pid"));
        Program::start(&mut command, &directory.join("rsyslog.log"))
    }
}

/// Until at least `count` lines are in the stream.
fn arrive(running: &mut Program, server: &Server, count: usize) -> Result<()> {
    let client = server.client();
    let done = running.until(WAIT_MAX, || {
        let end: u64 = client.partitions(STREAM)?.iter().map(|of| of.end_offset).sum();
        ensure!(end >= count as u64, "{end} of {count} lines are in the stream");
        Ok(())
    });
    done.with_context(|| server.log_tail())
}

/// The lines in the stream.
fn stored(client: &Client) -> Result<Vec<String>> {
    let end = client.partitions(STREAM)?.iter().map(|of| of.end_offset).sum();
    let records = client.read_to(STREAM, 0, 0, end)?;
    Ok(records.iter().map(|record| record.text().to_owned()).collect())
}

/// How many lines stand there twice; an error unless all are there, in order.
fn repeats(expected: &[String], found: &[String]) -> Result<usize> {
    let (mut next, mut repeats) = (0, 0);
    for line in found {
        if expected.get(next) == Some(line) {
            next += 1;
        } else if next > 0 && expected.get(next - 1) == Some(line) {
            repeats += 1;
        } else {
            bail!("'{line}' is where {:?} should be", expected.get(next));
        }
    }
    ensure!(next == expected.len(), "{next} of {} lines are there", expected.len());
    Ok(repeats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compared() {
        let check = |found: &[&str], repeated: Option<usize>| {
            let owned = |lines: &[&str]| lines.iter().map(|&of| of.to_owned()).collect::<Vec<_>>();
            let result = repeats(&owned(&["a", "a", "b", "c"]), &owned(found)).ok();
            assert_eq!(result, repeated, "{found:?}");
        };
        check(&["a", "a", "b", "c"], Some(0));
        check(&["a", "a", "b", "b", "c"], Some(1));
        check(&["a", "b", "c"], None);
        check(&["a", "a", "b"], None);
        check(&["a", "a", "b", "c", "a"], None);
    }
}

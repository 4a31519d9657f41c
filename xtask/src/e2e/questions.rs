//! Questions over HTTP, as the scenarios ask them.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use ureq::Agent;

/// Longer than any question may take where the server keeps its limits.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// The most of an answer that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// What became of a question.
#[derive(Debug)]
pub(crate) enum Answered {
    /// All rows.
    Rows(Vec<Value>),
    /// A problem, with its status.
    Refused { status: u16, problem: Value },
    /// The answer began and did not come to its end.
    BrokenOff(String),
}

impl Answered {
    /// The name of the problem, without its prefix.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { problem, .. } => {
                let name = problem["type"].as_str()?;
                Some(name.rsplit(':').next().unwrap_or(name))
            }
            _ => None,
        }
    }
}

/// Asks one question; an error is an answer that no client can make sense of.
pub(crate) fn ask(url: &str, sql: &str) -> Result<Answered> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(ANSWER_MAX))
        .build()
        .into();
    let request = agent.post(format!("{url}/v1/sql"));
    let mut answer =
        request.send_json(json!({ "sql": sql })).with_context(|| format!("no answer to {sql}"))?;
    let status = answer.status().as_u16();
    let read = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    let text = match read {
        Ok(text) => text,
        Err(error) if status == 200 => return Ok(Answered::BrokenOff(error.to_string())),
        Err(error) => return Err(error).with_context(|| format!("half a problem for {sql}")),
    };
    if status == 200 {
        let rows = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        return rows.map(Answered::Rows).with_context(|| format!("rows of {sql}"));
    }
    let problem: Value =
        serde_json::from_str(&text).with_context(|| format!("{status} for {sql}: {text}"))?;
    if problem["type"].as_str().is_none() {
        bail!("{status} for {sql} without a type: {text}");
    }
    Ok(Answered::Refused { status, problem })
}

/// The rows of a question that must be answered.
pub(crate) fn rows(url: &str, sql: &str) -> Result<Vec<Value>> {
    match ask(url, sql)? {
        Answered::Rows(rows) => Ok(rows),
        other => bail!("{sql}: {other:?}"),
    }
}

/// A whole number of a row.
pub(crate) fn number(row: &Value, column: &str) -> Result<i64> {
    row[column].as_i64().with_context(|| format!("no number {column} in {row}"))
}

/// The process that answers the questions of the server `server`: its only child.
pub(crate) fn engine_of(server: u32) -> Result<Option<u32>> {
    for entry in std::fs::read_dir("/proc").context("the processes cannot be listed")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have ended since it was listed.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        let mut fields = fields(&stat);
        let (state, parent) = (fields.next(), fields.next());
        if state != Some("Z") && parent.and_then(|of| of.parse().ok()) == Some(server) {
            return Ok(Some(process));
        }
    }
    Ok(None)
}

/// The processor time that a process has used, in ticks: hundredths of a second.
pub(crate) fn ticks_of(process: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    fields(&stat).skip(11).take(2).try_fold(0, |sum, ticks| Ok(sum + ticks.parse::<u64>()?))
}

/// The fields of a process's `stat` behind its name, which may hold anything.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ')
}

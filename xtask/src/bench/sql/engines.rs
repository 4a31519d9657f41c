//! Who is asked: this server over HTTP, and others in processes of their own.

use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use ureq::Agent;

use super::answer::Answer;

/// Longer than a statement may run anywhere.
const ANSWER_MAX: Duration = Duration::from_secs(1000);
const ANSWER_BYTES_MAX: u64 = 1 << 30;
const PEER: &str = include_str!("peer.py");

/// Someone who answers statements.
pub(super) trait Engine {
    /// All rows, or why there are none.
    fn ask(&mut self, sql: &str) -> Result<Answer>;
}

/// This server, through its HTTP door.
#[derive(Debug)]
pub(super) struct Ours {
    agent: Agent,
    url: String,
}

impl Ours {
    pub(super) fn new(url: &str) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_MAX))
            .build()
            .into();
        Self { agent, url: format!("{url}/v1/sql") }
    }
}

impl Engine for Ours {
    fn ask(&mut self, sql: &str) -> Result<Answer> {
        let started = Instant::now();
        let request = self.agent.post(&self.url).header("accept", "application/json");
        let mut answer = request.send_json(json!({ "sql": sql }))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
        let seconds = started.elapsed().as_secs_f64();
        ensure!((200..300).contains(&status), "{status}: {text}");
        // A statement such as CREATE VIEW has none, and no body either.
        if text.is_empty() {
            return Ok(Answer { seconds, rows: Vec::new() });
        }
        let mut answer: Value = serde_json::from_str(&text)?;
        ensure!(answer["error"].is_null(), "{}", answer["error"]);
        Ok(Answer { seconds, rows: serde_json::from_value(answer["rows"].take())? })
    }
}

/// What every engine may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    pub(super) memory_bytes: u64,
    pub(super) threads: usize,
}

/// DuckDB or DataFusion in a Python process, ended when dropped.
#[derive(Debug)]
pub(super) struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Peer {
    /// `engine` is the name of its Python package.
    pub(super) fn start(
        python: &Path,
        directory: &Path,
        engine: &str,
        allowance: Allowance,
    ) -> Result<Self> {
        let script = directory.join("peer.py");
        std::fs::write(&script, PEER)?;
        let log = directory.join(format!("{engine}.log"));
        let mut child = Command::new(python)
            .arg(&script)
            .args([engine, &allowance.memory_bytes.to_string(), &allowance.threads.to_string()])
            .arg(directory.join(format!("{engine}-spill")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("a process without its pipes");
        };
        Ok(Self { child, input, output: BufReader::new(output), log })
    }

    pub(super) fn version(&mut self) -> Result<String> {
        let about = self.call(&json!({ "do": "about" }))?;
        Ok(about["version"].as_str().context("no version")?.to_owned())
    }

    /// Makes a table of all Parquet files in a folder.
    pub(super) fn table(&mut self, name: &str, folder: &Path) -> Result<()> {
        self.call(&json!({ "do": "table", "name": name, "folder": folder })).map(drop)
    }

    /// A statement without an answer.
    pub(super) fn run(&mut self, sql: &str) -> Result<()> {
        self.call(&json!({ "do": "run", "sql": sql })).map(drop)
    }

    fn call(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.input, "{request}").with_context(|| self.end())?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "{}", self.end());
        let answer: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        match answer["error"].as_str() {
            Some(error) => bail!("{error}"),
            None => Ok(answer),
        }
    }

    /// That it has ended, and what it said last.
    fn end(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        format!("the process has ended: {}", log.lines().last().unwrap_or("it said nothing"))
    }
}

impl Engine for Peer {
    fn ask(&mut self, sql: &str) -> Result<Answer> {
        let mut answer = self.call(&json!({ "do": "ask", "sql": sql }))?;
        let seconds = answer["seconds"].as_f64().context("no seconds")?;
        Ok(Answer { seconds, rows: serde_json::from_value(answer["rows"].take())? })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Already ended, or nobody is left to hear of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

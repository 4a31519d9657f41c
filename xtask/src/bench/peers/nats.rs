//! NATS JetStream over its text protocol: publishes with a reply subject, each
//! acknowledged; or an atomic batch, acknowledged once (ADR-50).

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{PARTITIONS, Peer};
use crate::bench::load::{Connection, Shape, Socket, value};
use crate::bench::process::{Process, find, free_address};

/// Ends each message.
const CRLF: &[u8] = b"\r\n";

pub(super) struct Server {
    address: SocketAddr,
    _process: Process,
}

impl Server {
    pub(super) fn start(tools: &Path, directory: &Path) -> Result<Self> {
        let binary = find("nats-server", &tools.join("bin")).context(
            "nats-server is not installed (GOBIN=$PWD/target/tools/bin go install \
             github.com/nats-io/nats-server/v2@latest)",
        )?;
        let address = free_address()?;
        let data = directory.join("nats");
        std::fs::create_dir_all(&data)?;
        let configuration = directory.join("nats.conf");
        std::fs::write(
            &configuration,
            format!(
                "listen: \"{address}\"\njetstream {{ store_dir: \"{}\", sync_interval: always, \
                 max_file_store: 100GB }}\n",
                data.display()
            ),
        )?;
        let mut command = Command::new(binary);
        command.arg("-c").arg(configuration);
        let mut process = Process::start(&mut command, &directory.join("nats.log"))?;
        process.wait_for(address)?;
        let server = Self { address, _process: process };
        server.create_streams()?;
        Ok(server)
    }

    fn create_streams(&self) -> Result<()> {
        let mut client = Client::connect(self.address, "setup")?;
        for number in 0..PARTITIONS {
            let name = format!("S{number}");
            let configuration = json!({
                "name": name, "subjects": [format!("s.{number}")], "storage": "file",
                "retention": "limits", "num_replicas": 1, "allow_atomic": true,
            });
            let subject = format!("$JS.API.STREAM.CREATE.{name}");
            let request = client.message(&subject, true, &[], configuration.to_string().as_bytes());
            client.socket.send(&request)?;
            client.answer().with_context(|| format!("creating {name}"))?;
        }
        Ok(())
    }
}

/// Publishes to a server in one of two ways.
pub(super) struct Nats<'a> {
    pub(super) server: &'a Server,
    pub(super) is_atomic: bool,
}

impl Peer for Nats<'_> {
    fn name(&self) -> &'static str {
        if self.is_atomic {
            "NATS JetStream, `sync_interval: always`, atomic batches"
        } else {
            "NATS JetStream, `sync_interval: always`"
        }
    }

    fn takes(&self, shape: Shape) -> bool {
        !self.is_atomic || shape.batch_records > 1
    }

    fn connect(&self, shape: Shape, number: usize) -> Result<Box<dyn Connection + Send>> {
        let client = Client::connect(self.server.address, &number.to_string())?;
        let subject = format!("s.{}", number as u32 % PARTITIONS);
        let values = (0..shape.batch_records)
            .map(|n| value(shape.record_bytes, ((number << 16) + n) as u64));
        let values = values.collect();
        Ok(Box::new(Publisher { client, subject, values, is_atomic: self.is_atomic, batches: 0 }))
    }
}

struct Publisher {
    client: Client,
    subject: String,
    values: Vec<Vec<u8>>,
    is_atomic: bool,
    batches: u64,
}

impl Connection for Publisher {
    fn append(&mut self) -> Result<()> {
        self.batches += 1;
        let batch = format!("{}-{}", self.client.inbox, self.batches);
        let mut request = Vec::new();
        for (index, value) in self.values.iter().enumerate() {
            let sequence = (index + 1).to_string();
            let is_last = index + 1 == self.values.len();
            let mut headers: Vec<(&str, &str)> = Vec::new();
            if self.is_atomic {
                headers.extend([
                    ("Nats-Batch-Id", batch.as_str()),
                    ("Nats-Batch-Sequence", sequence.as_str()),
                ]);
                if is_last {
                    headers.push(("Nats-Batch-Commit", "1"));
                }
            }
            let wants_answer = !self.is_atomic || is_last;
            request.extend(self.client.message(&self.subject, wants_answer, &headers, value));
        }
        self.client.socket.send(&request)?;
        let answers = if self.is_atomic { 1 } else { self.values.len() };
        for _ in 0..answers {
            let answer = self.client.answer()?;
            if self.is_atomic {
                let stored = answer["count"].as_u64().unwrap_or(0);
                ensure!(stored == self.values.len() as u64, "a part of a batch: {answer}");
            }
        }
        Ok(())
    }
}

struct Client {
    socket: Socket,
    inbox: String,
}

impl Client {
    fn connect(address: SocketAddr, name: &str) -> Result<Self> {
        let mut socket = Socket::connect(address)?;
        let greeting = socket.line()?;
        ensure!(greeting.starts_with("INFO "), "nats greets with {greeting}");
        let inbox = format!("_INBOX.{name}");
        let options = json!({
            "verbose": false, "pedantic": false, "headers": true, "no_responders": true,
            "lang": "rust", "version": "1", "name": name,
        });
        socket.send(format!("CONNECT {options}\r\nSUB {inbox} 1\r\n").as_bytes())?;
        Ok(Self { socket, inbox })
    }

    /// A publish; with an answer if it `wants_answer`.
    fn message(
        &self,
        subject: &str,
        wants_answer: bool,
        headers: &[(&str, &str)],
        value: &[u8],
    ) -> Vec<u8> {
        let reply = if wants_answer { format!("{} ", self.inbox) } else { String::new() };
        let mut block = String::new();
        if !headers.is_empty() {
            block.push_str("NATS/1.0\r\n");
            for (name, content) in headers {
                block.push_str(&format!("{name}: {content}\r\n"));
            }
            block.push_str("\r\n");
        }
        let line = if headers.is_empty() {
            format!("PUB {subject} {reply}{}\r\n", value.len())
        } else {
            let total = block.len() + value.len();
            format!("HPUB {subject} {reply}{} {total}\r\n", block.len())
        };
        [line.as_bytes(), block.as_bytes(), value, CRLF].concat()
    }

    /// The next acknowledgement.
    fn answer(&mut self) -> Result<Value> {
        loop {
            let line = self.socket.line()?.to_owned();
            let words: Vec<&str> = line.split(' ').collect();
            match (words.first().copied().unwrap_or_default(), words.last()) {
                ("MSG", Some(length)) => {
                    let length: usize = length.parse()?;
                    let answer: Value = serde_json::from_slice(self.socket.take(length)?)?;
                    self.socket.take(CRLF.len())?;
                    if !answer["error"].is_null() {
                        bail!("nats answers {answer}");
                    }
                    return Ok(answer);
                }
                ("PING", _) => self.socket.send(b"PONG\r\n")?,
                ("INFO" | "+OK" | "PONG", _) => {}
                _ => bail!("nats says {line}"),
            }
        }
    }
}

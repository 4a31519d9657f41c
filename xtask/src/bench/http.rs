//! Appends over HTTP/1.1 with as little work on this side as a socket allows.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};

use super::load::{Connection, Shape, Socket, value};

/// Requests take turns among this many bodies, so that nothing compresses well.
const BODIES: u64 = 8;

/// A connection that appends NDJSON.
#[derive(Debug)]
pub(super) struct Http {
    socket: Socket,
    requests: Vec<Vec<u8>>,
    next: usize,
}

impl Http {
    /// Appends JSON strings of random letters to a partition of its own.
    pub(super) fn connect(
        url: &str,
        stream: &str,
        partitions: u32,
        shape: Shape,
        number: usize,
    ) -> Result<Self> {
        let bodies = (0..BODIES).map(|seed| {
            let mut body = Vec::new();
            for record in 0..shape.batch_records as u64 {
                body.push(b'"');
                let seed = (seed << 32) + ((number as u64) << 16) + record;
                body.extend(value(shape.record_bytes - 2, seed));
                body.extend(b"\"\n");
            }
            body
        });
        let partition = number as u32 % partitions;
        let requests = bodies.map(|body| request(stream, partition, &body)).collect();
        Self::with_requests(url, requests)
    }

    /// Sends these requests in turn.
    pub(super) fn with_requests(url: &str, requests: Vec<Vec<u8>>) -> Result<Self> {
        Ok(Self { socket: Socket::connect(address(url)?)?, requests, next: 0 })
    }

    /// Sends one request and waits for its answer.
    pub(super) fn send(&mut self, request: &[u8]) -> Result<()> {
        self.socket.send(request)?;
        let status = self.socket.line()?.to_owned();
        let mut length = None;
        loop {
            let line = self.socket.line()?;
            if line.is_empty() {
                break;
            }
            if let Some((name, content)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(content.trim().parse::<usize>()?);
            }
        }
        let body = self.socket.take(length.context("an answer without a length")?)?;
        if !status.starts_with("HTTP/1.1 2") {
            bail!("{status}: {}", String::from_utf8_lossy(body));
        }
        Ok(())
    }
}

impl Connection for Http {
    fn append(&mut self) -> Result<()> {
        let request = std::mem::take(&mut self.requests[self.next]);
        let sent = self.send(&request);
        self.requests[self.next] = request;
        self.next = (self.next + 1) % self.requests.len();
        sent
    }
}

/// An append of `body` to a partition.
pub(super) fn request(stream: &str, partition: u32, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /v1/streams/{stream}/records?partition={partition} HTTP/1.1\r\nHost: bench\r\n\
         Content-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

pub(super) fn address(url: &str) -> Result<SocketAddr> {
    let address = url.strip_prefix("http://");
    ensure!(address.is_some(), "{url} does not begin with http://");
    let address = address.unwrap_or_default().trim_end_matches('/');
    address.parse().with_context(|| format!("{url} has no address"))
}

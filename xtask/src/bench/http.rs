//! Appends over HTTP/1.1 with as little work on this side as a socket allows.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};

use super::load::{Connection, Shape, Socket, value};

/// Requests take turns among this many bodies, so that nothing compresses well.
const BODIES: u64 = 8;

/// A line of JSON, a record.
pub(super) const NDJSON: &str = "application/x-ndjson";
/// A line of anything, a record.
pub(super) const TEXT: &str = "text/plain";

/// A connection that appends NDJSON.
#[derive(Debug)]
pub(super) struct Http {
    socket: Socket,
    requests: Vec<Vec<u8>>,
    next: usize,
}

impl Http {
    /// All connections of a load on the stream `bench`.
    pub(super) fn of_shape(url: &str, partitions: u32, shape: Shape) -> Result<Vec<Self>> {
        let connect = |number| Self::connect(url, "bench", partitions, shape, number);
        (0..shape.connections).map(connect).collect()
    }

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
        let requests = bodies.map(|body| request(stream, partition, NDJSON, &body)).collect();
        Self::with_requests(url, requests)
    }

    /// Sends these requests in turn.
    pub(super) fn with_requests(url: &str, requests: Vec<Vec<u8>>) -> Result<Self> {
        Ok(Self { socket: Socket::connect(address(url)?)?, requests, next: 0 })
    }

    /// The bytes of the next request.
    pub(super) fn next_bytes(&self) -> usize {
        self.requests[self.next].len()
    }

    /// Sends the next request and gives the status of its answer, and its body
    /// unless that is a success.
    pub(super) fn send(&mut self) -> Result<(u16, String)> {
        let answer = exchange(&mut self.socket, &self.requests[self.next]);
        self.next = (self.next + 1) % self.requests.len();
        answer
    }
}

/// Sends a request and gives the status of its answer, and its body unless that
/// is a success.
pub(super) fn exchange(socket: &mut Socket, request: &[u8]) -> Result<(u16, String)> {
    socket.send(request)?;
    let line = socket.line()?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
    let status = status.with_context(|| format!("{line} is not of HTTP"))?;
    let mut length = None;
    loop {
        let line = socket.line()?;
        if line.is_empty() {
            break;
        }
        if let Some((name, content)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = Some(content.trim().parse::<usize>()?);
        }
    }
    let body = socket.take(length.context("an answer without a length")?)?;
    let is_good = (200..300).contains(&status);
    Ok((status, if is_good { String::new() } else { String::from_utf8_lossy(body).into() }))
}

impl Connection for Http {
    fn append(&mut self) -> Result<()> {
        match self.send()? {
            (200..300, _) => Ok(()),
            (status, body) => bail!("{status}: {body}"),
        }
    }
}

/// An append of `body` to a partition.
pub(super) fn request(stream: &str, partition: u32, kind: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /v1/streams/{stream}/records?partition={partition} HTTP/1.1\r\nHost: 127.0.0.1\r\n\
         Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
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

//! Load from many connections, the same for every server that is measured:
//! a thread a connection, blocking sockets, requests made beforehand.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::measure::Latencies;

/// An answer that takes longer is a failure.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// One connection to a server under load.
pub(super) trait Connection {
    /// Sends one request and waits until all of it is acknowledged.
    fn append(&mut self) -> Result<()>;
}

/// What is sent, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) connections: usize,
    /// Records that a connection sends before it waits for the answer.
    pub(super) batch_records: usize,
    pub(super) record_bytes: usize,
    pub(super) duration: Duration,
}

/// What a run gave.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) latencies: Latencies,
}

impl Run {
    /// Acknowledged MB of values a second.
    pub(super) fn rate(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e6
    }

    pub(super) fn p50_ms(&mut self) -> f64 {
        self.latencies.quantile_ms(0.5)
    }

    pub(super) fn p99_ms(&mut self) -> f64 {
        self.latencies.quantile_ms(0.99)
    }
}

/// Sends requests in closed loops, one a connection.
pub(super) fn closed_loops<C: Connection + Send>(shape: Shape, connections: Vec<C>) -> Result<Run> {
    let (is_over, begin) = (AtomicBool::new(false), Barrier::new(connections.len() + 1));
    let (seconds, results) = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for mut connection in connections {
            let (is_over, begin) = (&is_over, &begin);
            threads.push(scope.spawn(move || {
                let mut latencies = Latencies::default();
                begin.wait();
                while !is_over.load(Ordering::Relaxed) {
                    let sent = Instant::now();
                    if let Err(error) = connection.append() {
                        is_over.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                    latencies.push(sent.elapsed());
                }
                Ok(latencies)
            }));
        }
        begin.wait();
        let started = Instant::now();
        while started.elapsed() < shape.duration && !is_over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        is_over.store(true, Ordering::Relaxed);
        let results: Vec<_> =
            threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        (started.elapsed().as_secs_f64(), results)
    });
    let mut latencies = Latencies::default();
    for result in results {
        latencies.extend(result.map_err(|_| anyhow!("a connection's thread panicked"))??);
    }
    let bytes = (latencies.len() * shape.batch_records * shape.record_bytes) as u64;
    Ok(Run { bytes, seconds, latencies })
}

/// A socket with a buffer for what is read.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What was read and not yet taken.
    start: usize,
    end: usize,
}

impl Socket {
    pub(super) fn connect(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream, buffer: vec![0; 64 << 10], start: 0, end: 0 })
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// The next line without its CR LF.
    pub(super) fn line(&mut self) -> Result<&str> {
        let mut searched = self.start;
        loop {
            let unread = &self.buffer[searched..self.end];
            if let Some(at) = unread.iter().position(|byte| *byte == b'\n') {
                let line = &self.buffer[self.start..searched + at];
                self.start = searched + at + 1;
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                return std::str::from_utf8(line).context("a line that is not text");
            }
            let unread = self.end - self.start;
            self.fill()?;
            searched = self.start + unread;
        }
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&[u8]> {
        while self.end - self.start < count {
            self.fill()?;
        }
        let taken = &self.buffer[self.start..self.start + count];
        self.start += count;
        Ok(taken)
    }

    /// Reads more behind what is there.
    fn fill(&mut self) -> Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.buffer.len(), 0);
        }
        match self.stream.read(&mut self.buffer[self.end..])? {
            0 => bail!("the server closed the connection"),
            count => self.end += count,
        }
        Ok(())
    }
}

/// A value of `bytes` bytes of letters that a compressor gets little out of.
pub(super) fn value(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letter = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b"0123456789abcdef"[(state >> 32) as usize % 16]
    };
    (0..bytes).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn lines_and_bytes_come_through_in_any_pieces() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sent = [b"one\r\ntwo\n".to_vec(), vec![7; 200_000], b"end\r\n".to_vec()].concat();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for piece in sent.chunks(999) {
                stream.write_all(piece).unwrap();
            }
        });
        let mut socket = Socket::connect(address).unwrap();
        assert_eq!(socket.line().unwrap(), "one");
        assert_eq!(socket.line().unwrap(), "two");
        assert_eq!(socket.take(200_000).unwrap(), vec![7; 200_000]);
        assert_eq!(socket.line().unwrap(), "end");
        assert!(socket.line().is_err());
        server.join().unwrap();
    }

    #[test]
    fn a_failing_connection_ends_the_run() {
        struct Broken;
        impl Connection for Broken {
            fn append(&mut self) -> Result<()> {
                bail!("planted")
            }
        }
        let shape = Shape {
            connections: 2,
            batch_records: 1,
            record_bytes: 1,
            duration: Duration::from_secs(3600),
        };
        let error = closed_loops(shape, vec![Broken, Broken]).unwrap_err();
        assert_eq!(error.to_string(), "planted");
    }
}

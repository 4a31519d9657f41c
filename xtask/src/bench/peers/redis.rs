//! Redis Streams over RESP: `XADD`s in one pipeline, acknowledged after the
//! append-only file is synced.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{PARTITIONS, Peer};
use crate::bench::load::{Connection, Shape, Socket, value};
use crate::bench::process::{Process, find, free_address};

pub(super) struct Redis {
    address: SocketAddr,
    _process: Process,
}

impl Redis {
    pub(super) fn start(tools: &Path, directory: &Path) -> Result<Self> {
        let binary = find("redis-server", &tools.join("bin"))
            .context("redis-server is not installed (Debian: apt install redis-server)")?;
        let address = free_address()?;
        let data = directory.join("redis");
        std::fs::create_dir_all(&data)?;
        let mut command = Command::new(binary);
        command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--dir"]);
        command.arg(&data);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        // Rewriting the file in the middle of a run would be held against it.
        command.args(["--auto-aof-rewrite-percentage", "0"]);
        let mut process = Process::start(&mut command, &directory.join("redis.log"))?;
        process.wait_for(address)?;
        Ok(Self { address, _process: process })
    }
}

impl Peer for Redis {
    fn name(&self) -> &'static str {
        "Redis Streams, `appendfsync always`"
    }

    fn reset(&self) -> Result<()> {
        // It keeps everything in memory.
        let mut socket = Socket::connect(self.address)?;
        socket.send(b"*1\r\n$8\r\nFLUSHALL\r\n")?;
        expect(socket.line()?, '+').map(drop)
    }

    fn connect(&self, shape: Shape, number: usize) -> Result<Box<dyn Connection + Send>> {
        let stream = format!("s{}", number as u32 % PARTITIONS);
        let mut request = Vec::new();
        for record in 0..shape.batch_records {
            let value = value(shape.record_bytes, ((number << 16) + record) as u64);
            let words: [&[u8]; 5] = [b"XADD", stream.as_bytes(), b"*", b"v", &value];
            request.extend(format!("*{}\r\n", words.len()).into_bytes());
            for word in words {
                request.extend(format!("${}\r\n", word.len()).into_bytes());
                request.extend(word);
                request.extend(b"\r\n");
            }
        }
        let socket = Socket::connect(self.address)?;
        Ok(Box::new(Pipeline { socket, request, answers: shape.batch_records }))
    }
}

struct Pipeline {
    socket: Socket,
    request: Vec<u8>,
    answers: usize,
}

impl Connection for Pipeline {
    fn append(&mut self) -> Result<()> {
        self.socket.send(&self.request)?;
        for _ in 0..self.answers {
            expect(self.socket.line()?, '$')?;
            self.socket.line()?;
        }
        Ok(())
    }
}

fn expect(line: &str, first: char) -> Result<&str> {
    match line.strip_prefix(first) {
        Some(rest) => Ok(rest),
        None => bail!("redis answers {line}"),
    }
}

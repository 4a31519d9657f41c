//! Messages as they come from a client: a kind, a length, a body, each bounded
//! before anything is allocated for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Fault, Problem, sqlstate};

/// Kind and length.
const HEAD_BYTES: usize = 5;
/// A message that is not longer needs no share of what all may hold.
const SMALL_BYTES: usize = 64 << 10;
/// The most that is read of a client that sends while its statement runs.
const AHEAD_BYTES_MAX: usize = 64 << 10;
const READ_BYTES: usize = 8 << 10;
/// The unit of the budget, so that it fits a semaphore.
const BUDGET_UNIT_BYTES: usize = 1 << 10;

/// What large messages may hold together.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / BUDGET_UNIT_BYTES).min(Semaphore::MAX_PERMITS))))
    }
}

/// What bounds a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameLimits {
    pub(crate) bytes_max: usize,
    /// From its first byte to its last.
    pub(crate) arrival_max: Duration,
}

/// One message.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) body: Bytes,
    _held: Option<OwnedSemaphorePermit>,
}

/// Reads messages.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    source: R,
    buffer: BytesMut,
    budget: Budget,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(source: R, budget: Budget) -> Self {
        Self { source, buffer: BytesMut::new(), budget }
    }

    /// Waits until there is something of a message; false at the end.
    pub(crate) async fn wait(&mut self) -> io::Result<bool> {
        Ok(!self.buffer.is_empty() || self.read(READ_BYTES).await? > 0)
    }

    /// Whether a message, or a part of one, is here already.
    pub(crate) fn has_begun(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next message, of which there is something.
    pub(crate) async fn next(&mut self, limits: &FrameLimits) -> Result<Frame, Fault> {
        let arrived = tokio::time::timeout(limits.arrival_max, self.arrive(limits.bytes_max)).await;
        arrived.unwrap_or_else(|_| {
            let message = format!("a message did not arrive within {:?}", limits.arrival_max);
            Err(Problem::fatal(sqlstate::PROTOCOL_VIOLATION, message).into())
        })
    }

    async fn arrive(&mut self, bytes_max: usize) -> Result<Frame, Fault> {
        while self.buffer.len() < HEAD_BYTES {
            self.more(READ_BYTES).await?;
        }
        let mut head = self.buffer.get(..HEAD_BYTES).unwrap_or_default();
        let (kind, length) = (head.get_u8(), head.get_u32() as usize);
        let Some(bytes) = length.checked_sub(4) else {
            let message = format!("a message says that it has {length} bytes");
            return Err(Problem::fatal(sqlstate::PROTOCOL_VIOLATION, message).into());
        };
        if bytes > bytes_max {
            let message = format!("a message has {bytes} bytes, at most {bytes_max} are taken");
            let hint = "postgres.message_bytes_max is the limit";
            return Err(Problem::fatal(sqlstate::PROGRAM_LIMIT, message).hint(hint).into());
        }
        let held = if bytes > SMALL_BYTES {
            let units = u32::try_from(bytes.div_ceil(BUDGET_UNIT_BYTES)).unwrap_or(u32::MAX);
            let held = self.budget.0.clone().acquire_many_owned(units).await;
            Some(held.map_err(io::Error::other)?)
        } else {
            None
        };
        self.buffer.advance(HEAD_BYTES);
        while self.buffer.len() < bytes {
            // Grows with what arrives, not with what was announced.
            self.more((bytes - self.buffer.len()).clamp(READ_BYTES, SMALL_BYTES)).await?;
        }
        let body = self.buffer.split_to(bytes).freeze();
        Ok(Frame { kind, body, _held: held })
    }

    /// Reads on while nothing is awaited of the client, as far as that is
    /// bounded, and returns when it has gone.
    pub(crate) async fn gone(&mut self) {
        loop {
            if self.buffer.len() >= AHEAD_BYTES_MAX {
                std::future::pending::<()>().await;
            }
            match self.read(READ_BYTES).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    async fn more(&mut self, bytes: usize) -> io::Result<()> {
        match self.read(bytes).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn read(&mut self, bytes: usize) -> io::Result<usize> {
        self.buffer.reserve(bytes);
        self.source.read_buf(&mut self.buffer).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FrameLimits =
        FrameLimits { bytes_max: 100_000, arrival_max: Duration::from_secs(10) };

    fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[tokio::test]
    async fn messages_come_one_behind_the_other() {
        let large = vec![b'x'; 90_000];
        let stored = [framed(b'Q', b"one\0"), framed(b'X', b""), framed(b'd', &large)].concat();
        let mut reader = FrameReader::new(stored.as_slice(), Budget::new(1 << 20));
        for (kind, body) in [(b'Q', &b"one\0"[..]), (b'X', b""), (b'd', &large)] {
            assert!(reader.wait().await.unwrap());
            let frame = reader.next(&LIMITS).await.unwrap();
            assert_eq!((frame.kind, &frame.body[..]), (kind, body));
        }
        assert!(!reader.wait().await.unwrap());
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let check = async |bytes: &[u8], expected: Option<&str>| {
            let mut reader = FrameReader::new(bytes, Budget::new(1 << 20));
            let found = match reader.next(&LIMITS).await.unwrap_err() {
                Fault::Problem(problem) => {
                    assert!(problem.is_fatal);
                    Some(problem.sqlstate)
                }
                Fault::Broken(_) => None,
            };
            assert_eq!(found.as_deref(), expected);
        };
        check(b"Q\0\0\0\x03", Some(sqlstate::PROTOCOL_VIOLATION)).await;
        check(b"Q\x7f\xff\xff\xff", Some(sqlstate::PROGRAM_LIMIT)).await;
        check(b"Q\xff\xff\xff\xff", Some(sqlstate::PROGRAM_LIMIT)).await;
        check(b"Q\0\0\0\x09abc", None).await;
        check(b"Q\0", None).await;
    }
}

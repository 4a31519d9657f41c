//! What is sent: gathered, and written when there is enough or a client waits.
//!
//! A client that takes nothing holds at most one buffer, and is given up after
//! a while.

use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// From here on what was gathered is written.
const FLUSH_BYTES: usize = 32 << 10;
/// A buffer that one large row has blown up beyond it is not kept.
const KEEP_BYTES: usize = 256 << 10;

/// Messages on their way to a client.
#[derive(Debug)]
pub(crate) struct Outbox<W> {
    sink: W,
    buffer: BytesMut,
    patience: Duration,
    sent: Counter,
}

impl<W: AsyncWrite + Unpin> Outbox<W> {
    pub(crate) fn new(sink: W, patience: Duration, sent: Counter) -> Self {
        Self { sink, buffer: BytesMut::new(), patience, sent }
    }

    /// Where messages are put behind what waits already.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Writes if enough has gathered.
    pub(crate) async fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() < FLUSH_BYTES { Ok(()) } else { self.flush().await }
    }

    /// Writes everything.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.sent.inc_by(self.buffer.len() as u64);
        let stalled = |_| io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing");
        while self.buffer.has_remaining() {
            let written = self.sink.write_buf(&mut self.buffer);
            if tokio::time::timeout(self.patience, written).await.map_err(stalled)?? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        tokio::time::timeout(self.patience, self.sink.flush()).await.map_err(stalled)??;
        if self.buffer.capacity() > KEEP_BYTES {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// Says, under TLS, that nothing was cut off.
    pub(crate) async fn shut_down(&mut self) {
        // The connection is given up in any case.
        let _ = tokio::time::timeout(self.patience, self.sink.shutdown()).await;
    }
}

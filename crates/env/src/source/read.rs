//! The body of an object for a thread that blocks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::READ_MS_MAX;
use crate::store::{StoreError, StoreErrorKind};

/// An object's bytes, one piece after the other. Reading blocks: it is for a
/// thread of the blocking pool and panics on one of the runtime's.
pub struct SourceBody {
    runtime: Handle,
    pieces: BoxStream<'static, Result<Bytes, StoreError>>,
    current: Bytes,
    /// Bytes that are still to come, where that is known.
    left: Option<u64>,
    url: String,
    failure: Arc<Mutex<Option<StoreError>>>,
}

impl std::fmt::Debug for SourceBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SourceBody({})", self.url)
    }
}

/// A body out of pieces that arrive on the present runtime. One of another
/// length than `bytes` fails with [`StoreErrorKind::Precondition`].
///
/// # Panics
/// Outside a Tokio runtime.
#[must_use]
pub fn blocking_body(
    url: &str,
    bytes: Option<u64>,
    pieces: BoxStream<'static, Result<Bytes, StoreError>>,
) -> SourceBody {
    SourceBody {
        runtime: Handle::current(),
        pieces,
        current: Bytes::new(),
        left: bytes,
        url: url.to_owned(),
        failure: Arc::default(),
    }
}

impl SourceBody {
    /// Where the store's error is left when a read fails: what decodes hands on
    /// a text at most.
    #[must_use]
    pub fn failure(&self) -> Arc<Mutex<Option<StoreError>>> {
        self.failure.clone()
    }

    /// Counts what has come; an end has no bytes.
    fn count(&mut self, bytes: usize, is_end: bool) -> io::Result<()> {
        let Some(left) = &mut self.left else { return Ok(()) };
        match left.checked_sub(bytes as u64) {
            Some(rest) if !is_end || rest == 0 => {
                *left = rest;
                Ok(())
            }
            rest => {
                let which = if rest.is_some() { "fewer" } else { "more" };
                let why = format!("{which} bytes came than it had when it was listed");
                Err(self.fail(StoreError::new(StoreErrorKind::Precondition, &self.url, why)))
            }
        }
    }

    fn fail(&self, error: StoreError) -> io::Error {
        let text = error.to_string();
        *self.failure.lock() = Some(error);
        io::Error::other(text)
    }
}

impl io::Read for SourceBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let limit = Duration::from_millis(READ_MS_MAX);
            let pieces = &mut self.pieces;
            let next =
                self.runtime.block_on(async { tokio::time::timeout(limit, pieces.next()).await });
            match next {
                Ok(Some(Ok(piece))) => {
                    self.count(piece.len(), false)?;
                    self.current = piece;
                }
                Ok(Some(Err(error))) => return Err(self.fail(error)),
                Ok(None) => {
                    self.count(0, true)?;
                    return Ok(0);
                }
                Err(_) => {
                    let why = format!("nothing came for {} s", limit.as_secs());
                    return Err(self.fail(StoreError::unavailable(self.url.as_str(), why)));
                }
            }
        }
        let bytes = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..bytes]);
        Ok(bytes)
    }
}

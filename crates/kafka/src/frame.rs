//! Frames: a length, a header, a body.
//!
//! A frame's length is checked before a byte of it is kept, and its buffer
//! grows with the bytes that really arrive.

use std::io;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::{Decodable as _, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::shape;

/// Bytes that are read ahead at a time.
const READ_BYTES: usize = 64 << 10;
/// API key, version and correlation id.
const HEADER_BYTES_MIN: usize = 8;
const LENGTH_BYTES: usize = 4;
/// The most tagged fields of a header; none is known yet.
const HEADER_TAGS_MAX: usize = 16;
/// Stands for the version of a frame that has no header.
pub(crate) const BARE_VERSION: i16 = -1;

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("a request announces {length} bytes, the limit is {limit} ({limit_name})")]
    Length { length: i64, limit: usize, limit_name: &'static str },
    #[error("api key {0} is not known")]
    UnknownApi(i16),
    #[error("{api:?} version {version} is not supported")]
    UnsupportedVersion { api: ApiKey, version: i16 },
    #[error("a request of {api:?} version {version} is malformed: {why}")]
    Malformed { api: ApiKey, version: i16, why: String },
    #[error("{api:?} before a login")]
    NoLogin { api: ApiKey },
    #[error("{api:?} after the login had expired")]
    LoginExpired { api: ApiKey },
    #[error("an answer to {api:?} version {version} cannot be encoded: {why}")]
    Encoding { api: ApiKey, version: i16, why: String },
    #[error("the server is stopping")]
    Stopping,
}

/// A whole request as it arrived.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
    pub(crate) client_id: Option<StrBytes>,
    /// Behind the header.
    pub(crate) body: Bytes,
    /// Gives the frame's bytes back to the budget of all connections.
    pub(crate) held: OwnedSemaphorePermit,
}

/// Cuts a connection's bytes into frames. Cancelling a read loses nothing.
pub(crate) struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
    budget: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    /// The smallest frame.
    bytes_min: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(from: R, budget: Arc<Semaphore>) -> Self {
        Self { from, buffer: BytesMut::new(), budget, permit: None, bytes_min: HEADER_BYTES_MIN }
    }

    /// Whether the next frame may be so short that it has no header.
    pub(crate) fn takes_bare_messages(&mut self, takes: bool) {
        self.bytes_min = if takes { 0 } else { HEADER_BYTES_MIN };
    }

    /// The next frame; none where the peer closed the connection between two.
    pub(crate) async fn next(
        &mut self,
        limit: usize,
        limit_name: &'static str,
    ) -> Result<Option<Bytes>, FrameError> {
        if !self.fill(LENGTH_BYTES).await? {
            return if self.buffer.is_empty() { Ok(None) } else { Err(cut_off()) };
        }
        let mut announced = &self.buffer[..LENGTH_BYTES];
        let announced = i64::from(announced.get_i32());
        let length = usize::try_from(announced)
            .ok()
            .filter(|length| (self.bytes_min..=limit).contains(length))
            .ok_or(FrameError::Length { length: announced, limit, limit_name })?;
        if self.permit.is_none() {
            let weight = u32::try_from(length).unwrap_or(u32::MAX);
            let permit = self.budget.clone().acquire_many_owned(weight).await;
            self.permit = Some(permit.map_err(|_| FrameError::Stopping)?);
        }
        if !self.fill(LENGTH_BYTES + length).await? {
            return Err(cut_off());
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// The permit of the frame that was read last.
    pub(crate) fn take_permit(&mut self) -> Option<OwnedSemaphorePermit> {
        self.permit.take()
    }

    /// Reads until the buffer has `want` bytes; false where the peer closed
    /// before.
    async fn fill(&mut self, want: usize) -> Result<bool, FrameError> {
        while self.buffer.len() < want {
            // At most doubles: room is made for what came, not for what was
            // announced.
            let room = (want - self.buffer.len()).min(self.buffer.len().max(READ_BYTES));
            self.buffer.reserve(room.max(READ_BYTES));
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn cut_off() -> FrameError {
    FrameError::Io(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended within a request"))
}

impl Frame {
    /// A mechanism's message in a frame of its own, as those clients send it
    /// that shook hands in version 0 of `SaslHandshake`.
    pub(crate) fn bare(body: Bytes, held: OwnedSemaphorePermit) -> Self {
        let (api, version) = (ApiKey::SaslAuthenticate, BARE_VERSION);
        Self { api, version, correlation: 0, client_id: None, body, held }
    }

    /// Decodes the header.
    pub(crate) fn parse(mut bytes: Bytes, held: OwnedSemaphorePermit) -> Result<Self, FrameError> {
        let mut fixed = &bytes[..HEADER_BYTES_MIN];
        let (key, version, correlation) = (fixed.get_i16(), fixed.get_i16(), fixed.get_i32());
        let api = ApiKey::try_from(key).map_err(|_| FrameError::UnknownApi(key))?;
        // A version that is not known is answered with those that are, which
        // needs none of the rest.
        if api == ApiKey::ApiVersions && !crate::api::supports(api, version) {
            let body = Bytes::new();
            return Ok(Self { api, version, correlation, client_id: None, body, held });
        }
        if !crate::api::supports(api, version) {
            return Err(FrameError::UnsupportedVersion { api, version });
        }
        let header_version = api.request_header_version(version);
        shape::header(&bytes, header_version, HEADER_TAGS_MAX)
            .map_err(|error| FrameError::Malformed { api, version, why: error.to_string() })?;
        let header = RequestHeader::decode(&mut bytes, header_version)
            .map_err(|error| FrameError::Malformed { api, version, why: error.to_string() })?;
        Ok(Self { api, version, correlation, client_id: header.client_id, body: bytes, held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8], limit: usize) -> Result<Option<Bytes>, String> {
        let mut reader = FrameReader::new(bytes, Arc::new(Semaphore::new(1 << 20)));
        reader.next(limit, "request_bytes_max").await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn lengths_are_checked_before_anything_is_kept() {
        let frame = [&12i32.to_be_bytes()[..], &[7; 12]].concat();
        assert_eq!(read(&frame, 100).await.unwrap().unwrap().len(), 12);
        assert_eq!(read(&[], 100).await, Ok(None));
        let check = async |bytes: &[u8], part: &str| {
            let why = read(bytes, 100).await.unwrap_err();
            assert!(why.contains(part), "{why}");
        };
        check(&frame[..9], "ended within a request").await;
        check(&frame[..2], "ended within a request").await;
        check(&(-1i32).to_be_bytes(), "announces -1 bytes").await;
        check(&7i32.to_be_bytes(), "announces 7 bytes").await;
        check(&i32::MAX.to_be_bytes(), "announces 2147483647 bytes, the limit is 100").await;
        // An HTTP client that took the wrong port.
        check(b"GET / HTTP/1.1\r\n", "announces").await;
    }
}

//! Frames: a length, a header, a body.
//!
//! A frame's length is checked before a byte of it is kept, and its buffer
//! grows with the bytes that really arrive.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::{Decodable as _, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Sleep;

use crate::budget::{Budget, Held};
use crate::shape;

/// Bytes that are read where nothing is known of the next request; an idle
/// connection has so much of a buffer.
const FIRST_BYTES: usize = 1 << 10;
/// The least that is read of a request whose length is known.
const READ_BYTES: usize = 64 << 10;
/// Elements of lists take so many bytes at least when they are decoded, however
/// few they were; the first ones of a request are free.
const ELEMENT_BYTES: usize = 128;
const ELEMENTS_FREE: usize = 256;
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
    #[error("{0} is spoken to a listener of the Kafka protocol")]
    Foreign(&'static str),
    #[error("a request did not arrive within {0:?} (request_ms_max)")]
    Slow(Duration),
    #[error("nothing of an answer was taken within {0:?} (peer_ms_max)")]
    Stalled(Duration),
    #[error("an answer was not taken whole within {0:?} (answer_ms_max)")]
    Lingering(Duration),
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

impl FrameError {
    /// Whether the client sent what is no request.
    pub(crate) const fn is_malformed(&self) -> bool {
        matches!(
            self,
            Self::Length { .. }
                | Self::Foreign(_)
                | Self::UnknownApi(_)
                | Self::UnsupportedVersion { .. }
                | Self::Malformed { .. }
        )
    }
}

/// What a request may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameLimits {
    pub(crate) bytes_max: usize,
    pub(crate) bytes_name: &'static str,
    pub(crate) elements_max: usize,
    /// From the first byte to the last.
    pub(crate) arrival_max: Duration,
    /// The next frame is a mechanism's message, which has no header.
    pub(crate) is_bare: bool,
}

/// A whole request as it arrived.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation: i32,
    pub(crate) client_id: Option<StrBytes>,
    /// Behind the header; it has the shape of a request of that version.
    pub(crate) body: Bytes,
    /// All that arrived of it.
    pub(crate) bytes: usize,
    /// Gives the frame's bytes back to the budget of all connections.
    pub(crate) held: Held,
}

/// Cuts a connection's bytes into frames. Cancelling a read loses nothing.
pub(crate) struct FrameReader<R> {
    arriving: Arriving<R>,
    /// When the rest of a frame that has begun must be there.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// What has arrived of the next frame.
struct Arriving<R> {
    from: R,
    buffer: BytesMut,
    budget: Budget,
    held: Held,
    /// A frame that waits for the budget to hold its elements, and their number.
    whole: Option<(Frame, usize)>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(from: R, budget: Budget) -> Self {
        let (buffer, held) = (BytesMut::new(), Held::default());
        Self { arriving: Arriving { from, buffer, budget, held, whole: None }, deadline: None }
    }

    /// Holds what arrives from now on in another budget; false where something is
    /// held in the one before.
    pub(crate) fn charge(&mut self, budget: &Budget) -> bool {
        let is_free = self.arriving.held.is_empty();
        if is_free {
            self.arriving.budget = budget.clone();
        }
        is_free
    }

    /// The next frame; none where the peer closed the connection between two.
    pub(crate) async fn next(&mut self, limits: &FrameLimits) -> Result<Option<Frame>, FrameError> {
        let Self { arriving, deadline } = self;
        // Between two requests a client may take its time.
        if arriving.is_empty() && !arriving.read(FIRST_BYTES).await? {
            return Ok(None);
        }
        let frame = tokio::select! {
            biased;
            frame = arriving.frame(limits) => frame?,
            () = expired(deadline, limits.arrival_max) => {
                return Err(FrameError::Slow(limits.arrival_max));
            }
        };
        *deadline = None;
        Ok(Some(frame))
    }
}

/// Begins to count when it is first asked, which is when a frame is not there at
/// once.
async fn expired(deadline: &mut Option<Pin<Box<Sleep>>>, after: Duration) {
    deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(after))).as_mut().await;
}

impl<R: AsyncRead + Unpin> Arriving<R> {
    fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.whole.is_none()
    }

    async fn frame(&mut self, limits: &FrameLimits) -> Result<Frame, FrameError> {
        let (frame, elements) = match self.whole.take() {
            Some(whole) => whole,
            None => {
                self.fill(LENGTH_BYTES).await?;
                let length = self.length(limits)?;
                self.fill(LENGTH_BYTES + length).await?;
                self.buffer.advance(LENGTH_BYTES);
                let bytes = self.buffer.split_to(length).freeze();
                if self.buffer.is_empty() {
                    // Connections that are idle hold next to nothing.
                    self.buffer = BytesMut::new();
                }
                Frame::parse(bytes, limits)?
            }
        };
        let room = elements.saturating_sub(ELEMENTS_FREE) * ELEMENT_BYTES;
        let bytes = frame.bytes + room;
        let whole = self.whole.insert((frame, elements));
        self.budget.hold(&mut self.held, bytes).await?;
        whole.0.held = std::mem::take(&mut self.held);
        self.whole.take().map(|(frame, _)| frame).ok_or(FrameError::Stopping)
    }

    fn length(&self, limits: &FrameLimits) -> Result<usize, FrameError> {
        let announced = (&self.buffer[..LENGTH_BYTES]).get_i32();
        let min = if limits.is_bare { 0 } else { HEADER_BYTES_MIN };
        let length = usize::try_from(announced).ok();
        length.filter(|length| (min..=limits.bytes_max).contains(length)).ok_or_else(|| {
            match foreign(&self.buffer) {
                Some(other) => FrameError::Foreign(other),
                None => FrameError::Length {
                    length: announced.into(),
                    limit: limits.bytes_max,
                    limit_name: limits.bytes_name,
                },
            }
        })
    }

    /// Reads until the buffer has `want` bytes, and holds what arrives.
    async fn fill(&mut self, want: usize) -> Result<(), FrameError> {
        while self.buffer.len() < want {
            let (has, missing) = (self.buffer.len(), want - self.buffer.len());
            self.budget.hold(&mut self.held, has.saturating_sub(FIRST_BYTES)).await?;
            // At most doubles: room is made for what came, not for what was
            // announced. What follows a large frame is not read with it.
            let room = missing.min(has.max(READ_BYTES)).max(FIRST_BYTES.saturating_sub(has));
            if !self.read(room).await? {
                return Err(cut_off());
            }
        }
        Ok(())
    }

    /// Reads at most so many bytes; false where the peer closed the connection.
    async fn read(&mut self, bytes_max: usize) -> Result<bool, FrameError> {
        self.buffer.reserve(bytes_max);
        let mut limited = (&mut self.buffer).limit(bytes_max);
        Ok(self.from.read_buf(&mut limited).await? > 0)
    }
}

fn cut_off() -> FrameError {
    FrameError::Io(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended within a request"))
}

/// What is spoken instead of Kafka, by those that took the wrong port.
fn foreign(start: &[u8]) -> Option<&'static str> {
    const HTTP: [&[u8]; 7] = [b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PATC"];
    let start = start.get(..LENGTH_BYTES)?;
    match start {
        // A handshake record of any version.
        [0x16, 0x03, ..] => Some("TLS"),
        b"SSH-" => Some("SSH"),
        _ => HTTP.contains(&start).then_some("HTTP"),
    }
}

impl Frame {
    /// Decodes the header and walks the body; the number of its elements.
    fn parse(bytes: Bytes, limits: &FrameLimits) -> Result<(Self, usize), FrameError> {
        let size = LENGTH_BYTES + bytes.len();
        let frame = |api, version, correlation, client_id, body| Self {
            api,
            version,
            correlation,
            client_id,
            body,
            bytes: size,
            held: Held::default(),
        };
        if limits.is_bare {
            return Ok((frame(ApiKey::SaslAuthenticate, BARE_VERSION, 0, None, bytes), 0));
        }
        let mut fixed = &bytes[..HEADER_BYTES_MIN];
        let (key, version, correlation) = (fixed.get_i16(), fixed.get_i16(), fixed.get_i32());
        let api = ApiKey::try_from(key).map_err(|_| FrameError::UnknownApi(key))?;
        if !crate::api::supports(api, version) {
            // A version that is not known is answered with those that are,
            // which needs none of the rest.
            if api == ApiKey::ApiVersions {
                return Ok((frame(api, version, correlation, None, Bytes::new()), 0));
            }
            return Err(FrameError::UnsupportedVersion { api, version });
        }
        let malformed = |why: String| FrameError::Malformed { api, version, why };
        let header_version = api.request_header_version(version);
        shape::header(&bytes, header_version, HEADER_TAGS_MAX)
            .map_err(|error| malformed(error.to_string()))?;
        let mut body = bytes;
        let header = RequestHeader::decode(&mut body, header_version)
            .map_err(|error| malformed(error.to_string()))?;
        let elements = shape::check(api, version, &body, limits.elements_max)
            .map_err(|error| malformed(error.to_string()))?;
        Ok((frame(api, version, correlation, header.client_id, body), elements))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const LIMITS: FrameLimits = FrameLimits {
        bytes_max: 1 << 20,
        bytes_name: "request_bytes_max",
        elements_max: 10,
        arrival_max: Duration::from_secs(60),
        is_bare: false,
    };

    /// An ApiVersions request of version 0, with `more` bytes of a client id.
    fn request(more: usize) -> Vec<u8> {
        let id = i16::try_from(more).unwrap().to_be_bytes();
        let frame = [&[0, 18, 0, 0, 0, 0, 0, 9][..], &id, &vec![b'a'; more]].concat();
        [&i32::try_from(frame.len()).unwrap().to_be_bytes()[..], &frame].concat()
    }

    async fn read(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, String> {
        let mut reader = FrameReader::new(bytes, Budget::new(1 << 20));
        let limits = FrameLimits { bytes_max, ..LIMITS };
        let frame = reader.next(&limits).await.map_err(|error| error.to_string())?;
        Ok(frame.map(|frame| frame.bytes))
    }

    #[tokio::test]
    async fn lengths_are_checked_before_anything_is_kept() {
        let frame = request(2);
        assert_eq!(read(&frame, 100).await, Ok(Some(16)));
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
        check(&[&8i32.to_be_bytes()[..], &[0, 3, 0x7f, 0, 0, 0, 0, 0]].concat(), "version").await;
        // Clients that took the wrong port.
        check(b"GET / HTTP/1.1\r\n", "HTTP is spoken").await;
        check(&[0x16, 3, 1, 2, 0, 1], "TLS is spoken").await;
    }

    #[tokio::test]
    async fn frames_are_cut_wherever_the_bytes_are_split() {
        let sizes = [0, 900, 1, 30_000, 5, 1_100, 32_000, 2];
        let all: Vec<u8> = sizes.iter().flat_map(|size| request(*size)).collect();
        for step in [1, 7, 1023, 1024, 5_000, all.len()] {
            let (mut to, from) = tokio::io::duplex(step);
            let mut reader = FrameReader::new(from, Budget::new(1 << 20));
            let all = all.clone();
            let writing = tokio::spawn(async move { to.write_all(&all).await });
            for size in sizes {
                let frame = reader.next(&LIMITS).await.unwrap().unwrap();
                assert_eq!(frame.client_id.map_or(0, |id| id.len()), size, "{step}");
            }
            writing.await.unwrap().unwrap();
            assert!(reader.next(&LIMITS).await.unwrap().is_none());
            assert_eq!(reader.arriving.buffer.capacity(), FIRST_BYTES);
        }
    }

    #[tokio::test]
    async fn the_budget_holds_what_arrived_and_not_what_was_announced() {
        let budget = Budget::new(100_000);
        let start = |budget: &Budget| {
            let (to, from) = tokio::io::duplex(1 << 20);
            (to, FrameReader::new(from, budget.clone()))
        };
        // It announces all of the budget and sends a little of it.
        let (mut to, mut slow) = start(&budget);
        to.write_all(&[&100_000i32.to_be_bytes()[..], &[0; 2_000]].concat()).await.unwrap();
        assert!(slow.next(&LIMITS).now_or_never().is_none());
        let (mut other, mut reader) = start(&budget);
        other.write_all(&request(30_000)).await.unwrap();
        let frame = reader.next(&LIMITS).now_or_never().unwrap().unwrap().unwrap();
        // What arrived is held until its request is answered.
        let (mut third, mut waiting) = start(&budget);
        let body = [&30_000i32.to_be_bytes()[..], &request(29_990)[4..]].concat();
        let mut held = <[Held; 2]>::default();
        budget.hold(&mut held[0], 68_000).await.unwrap();
        // It may go beyond the budget, so that nobody else may.
        budget.hold(&mut held[1], 90_000).await.unwrap();
        third.write_all(&body).await.unwrap();
        assert!(waiting.next(&LIMITS).now_or_never().is_none());
        drop(frame);
        assert!(waiting.next(&LIMITS).now_or_never().unwrap().unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_has_begun_must_arrive() {
        let (mut to, from) = tokio::io::duplex(1 << 20);
        let mut reader = FrameReader::new(from, Budget::new(1 << 20));
        let idle = tokio::time::timeout(Duration::from_secs(3_600), reader.next(&LIMITS)).await;
        assert!(idle.is_err());
        let frame = request(100);
        to.write_all(&frame[..50]).await.unwrap();
        // Reads that are given up do not begin to count anew.
        for _ in 0..3 {
            let wait = tokio::time::timeout(Duration::from_secs(19), reader.next(&LIMITS)).await;
            assert!(wait.is_err());
        }
        to.write_all(&frame[50..]).await.unwrap();
        assert!(reader.next(&LIMITS).await.unwrap().is_some());
        to.write_all(&frame[..3]).await.unwrap();
        let slow = reader.next(&LIMITS).await;
        assert!(matches!(slow, Err(FrameError::Slow(_))), "{slow:?}");
    }

    #[test]
    fn fuzz_kafka_frames() {
        let bare = FrameLimits { is_bare: true, ..LIMITS };
        let tagged = [0, 0, 0, 18, 0, 18, 0, 3, 0, 0, 0, 1, 0, 1, b'c', 0, 2, b'n', 2, b'v', 0, 0];
        let corpus = [
            [request(0), request(300), request(2)].concat(),
            [&tagged[..], &request(9)].concat(),
            [&5_i32.to_be_bytes()[..], b"\0a\0bc", &request(1)].concat(),
        ];
        aquifer_testkit::fuzz("kafka_frames", 0.2, &corpus, |input| {
            for limits in [&LIMITS, &bare] {
                let mut reader = FrameReader::new(input, Budget::new(1 << 20));
                let mut bytes = 0;
                // It ends at the first that is no frame, or where the bytes end.
                while let Ok(Some(frame)) = reader.next(limits).now_or_never().unwrap() {
                    bytes += frame.bytes;
                    assert!(frame.body.len() < frame.bytes && bytes <= input.len());
                }
            }
        });
    }
}

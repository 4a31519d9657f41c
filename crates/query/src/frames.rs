//! Frames of [`crate::wire`] over any byte stream.

use std::io;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::wire::FRAME_BYTES_MAX;

/// Length and kind.
const HEAD_BYTES: usize = 5;
const MESSAGE: u8 = 0;
const BYTES: u8 = 1;

/// Reads frames. Dropping a call in the middle loses the stream's place: who
/// stops waiting for a frame closes the connection.
#[derive(Debug)]
pub struct FrameReader<R> {
    source: R,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `source`, which is to be buffered.
    pub const fn new(source: R) -> Self {
        Self { source }
    }

    /// The next message; none where the other side has closed.
    ///
    /// # Errors
    /// `InvalidData` for what is not a message, or longer than a frame may be;
    /// `UnexpectedEof` in the middle of one; what the source fails of.
    pub async fn message<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some((kind, len)) = self.head().await? else { return Ok(None) };
        if kind != MESSAGE {
            return Err(invalid(format!("a message was due, not a frame of kind {kind}")));
        }
        let body = self.body(len).await?;
        serde_json::from_slice(&body).map(Some).map_err(|error| invalid(error.to_string()))
    }

    /// The bytes that belong to the message before.
    ///
    /// # Errors
    /// As [`FrameReader::message`]; the end of the stream is one too.
    pub async fn bytes(&mut self) -> io::Result<Bytes> {
        match self.head().await? {
            Some((BYTES, len)) => self.body(len).await,
            Some((kind, _)) => Err(invalid(format!("bytes were due, not a frame of kind {kind}"))),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    async fn head(&mut self) -> io::Result<Option<(u8, usize)>> {
        let mut head = [0; HEAD_BYTES];
        let mut filled = 0;
        while filled < HEAD_BYTES {
            let Some(rest) = head.get_mut(filled..) else { break };
            match self.source.read(rest).await? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        let [a, b, c, d, kind] = head;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        match len.checked_sub(1) {
            Some(len) if len < FRAME_BYTES_MAX => Ok(Some((kind, len))),
            _ => Err(invalid(format!("a frame of {len} bytes; at most {FRAME_BYTES_MAX} can be"))),
        }
    }

    async fn body(&mut self, len: usize) -> io::Result<Bytes> {
        // Grows with what arrives, not with what was announced.
        let mut body = BytesMut::new();
        while body.len() < len {
            body.reserve((len - body.len()).min(1 << 20));
            let mut limited = (&mut self.source).take((len - body.len()) as u64);
            if limited.read_buf(&mut body).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(body.freeze())
    }
}

/// Writes frames.
#[derive(Debug)]
pub struct FrameWriter<W> {
    sink: W,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes to `sink`.
    pub const fn new(sink: W) -> Self {
        Self { sink }
    }

    /// Writes a message.
    ///
    /// # Errors
    /// `InvalidInput` for one that no frame holds; what the sink fails of.
    pub async fn message<T: Serialize + Sync>(&mut self, message: &T) -> io::Result<()> {
        self.json(&serde_json::to_vec(message)?).await
    }

    /// Writes a message that is in JSON already.
    ///
    /// # Errors
    /// As [`FrameWriter::message`].
    pub async fn json(&mut self, json: &[u8]) -> io::Result<()> {
        self.frame(MESSAGE, &[json]).await
    }

    /// Writes bytes that lie in several places, as [`FrameWriter::bytes`] does.
    ///
    /// # Errors
    /// As [`FrameWriter::message`].
    pub async fn byte_parts(&mut self, parts: &[Bytes]) -> io::Result<()> {
        let parts: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
        self.frame(BYTES, &parts).await
    }

    /// Writes the bytes that belong to the message before, which fit into a
    /// frame.
    ///
    /// # Errors
    /// As [`FrameWriter::message`].
    pub async fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.frame(BYTES, &[bytes]).await
    }

    async fn frame(&mut self, kind: u8, body: &[&[u8]]) -> io::Result<()> {
        let len = body.iter().map(|part| part.len()).sum::<usize>() + 1;
        let announced = u32::try_from(len).ok().filter(|_| len <= FRAME_BYTES_MAX);
        let Some(announced) = announced else {
            let message = format!("a frame of {len} bytes; at most {FRAME_BYTES_MAX} can be");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let [a, b, c, d] = announced.to_le_bytes();
        self.sink.write_all(&[a, b, c, d, kind]).await?;
        for part in body {
            self.sink.write_all(part).await?;
        }
        self.sink.flush().await
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FromEngine, Progress};

    #[tokio::test]
    async fn what_is_written_is_read_and_nothing_else_is() {
        let mut stored = Vec::new();
        let mut writer = FrameWriter::new(&mut stored);
        let progress = Progress { bytes_read: 7, ..Progress::default() };
        writer.message(&FromEngine::Progress(progress)).await.unwrap();
        writer.message(&FromEngine::Data { rows: 2 }).await.unwrap();
        writer.bytes(b"two rows").await.unwrap();
        let mut reader = FrameReader::new(stored.as_slice());
        let first: Option<FromEngine> = reader.message().await.unwrap();
        assert!(matches!(first, Some(FromEngine::Progress(found)) if found == progress));
        let second: Option<FromEngine> = reader.message().await.unwrap();
        assert!(matches!(second, Some(FromEngine::Data { rows: 2 })));
        assert_eq!(reader.bytes().await.unwrap(), "two rows");
        assert!(reader.message::<FromEngine>().await.unwrap().is_none());
    }

    #[test]
    fn fuzz_frames_of_an_engine() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut valid = Vec::new();
        runtime.block_on(async {
            let mut writer = FrameWriter::new(&mut valid);
            writer.message(&FromEngine::List).await.unwrap();
            writer.message(&FromEngine::Data { rows: 2 }).await.unwrap();
            writer.byte_parts(&[Bytes::from_static(b"two "), "rows".into()]).await.unwrap();
        });
        aquifer_testkit::fuzz("frames_of_an_engine", 0.2, &[valid], |bytes| {
            runtime.block_on(async {
                let mut reader = FrameReader::new(bytes);
                while let Ok(Some(message)) = reader.message::<FromEngine>().await {
                    if matches!(message, FromEngine::Data { .. }) && reader.bytes().await.is_err() {
                        return;
                    }
                }
            });
        });
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        for bytes in [
            &[0, 0, 0, 0, 0][..],
            &[255, 255, 255, 255, 0],
            &[9, 0, 0, 0, 0, b'{'],
            &[9, 0, 0],
            &[2, 0, 0, 0, 1, b'x'],
            &[2, 0, 0, 0, 0, b'x'],
        ] {
            FrameReader::new(bytes).message::<FromEngine>().await.unwrap_err();
        }
    }
}

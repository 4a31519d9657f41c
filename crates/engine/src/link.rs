//! The connection of one question: frames to the server, and its replies.
//!
//! Messages that belong together are written together, whoever writes. Replies
//! come in the order of what was asked, so that one asks at a time. What the
//! server sends unasked ends the question.

use std::fmt;
use std::io;

use aquifer_query::wire::{Column, FromEngine, Progress, Refusal, Table, TailPart, ToEngine};
use aquifer_query::{FrameReader, FrameWriter};
use aquifer_types::{ErrorKind, Offset, Partition, StreamName};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, mpsc};

use crate::answer::Sink;
use crate::refusal::{internal, refusal};
use crate::{Error, TailSource};

/// A reply, and the bytes that belong to it.
type Reply = (ToEngine, Bytes);

/// What a question says to the server.
pub(crate) struct Link {
    writer: Mutex<FrameWriter<Box<dyn AsyncWrite + Send + Unpin>>>,
    replies: Mutex<mpsc::Receiver<Reply>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

/// Where replies are put by [`pump`].
pub(crate) type Replies = mpsc::Sender<Reply>;

impl Link {
    /// Writes to `writer`; replies are to be put into what is returned.
    pub(crate) fn new(writer: impl AsyncWrite + Send + Unpin + 'static) -> (Self, Replies) {
        let (sender, replies) = mpsc::channel(1);
        let writer = FrameWriter::new(Box::new(writer) as Box<dyn AsyncWrite + Send + Unpin>);
        (Self { writer: Mutex::new(writer), replies: Mutex::new(replies) }, sender)
    }

    /// Tells the server something that wants no reply.
    pub(crate) async fn tell(&self, message: &FromEngine) -> Result<(), Refusal> {
        self.writer.lock().await.message(message).await.map_err(gone)
    }

    /// Tells the server something with bytes behind it.
    async fn tell_with(&self, message: &FromEngine, bytes: &[u8]) -> Result<(), Refusal> {
        let mut writer = self.writer.lock().await;
        writer.message(message).await.map_err(gone)?;
        writer.bytes(bytes).await.map_err(gone)
    }

    /// Asks the server; its reply.
    async fn ask(&self, message: &FromEngine) -> Result<Reply, Refusal> {
        let mut replies = self.replies.lock().await;
        self.tell(message).await?;
        replies.recv().await.ok_or_else(|| gone(io::ErrorKind::UnexpectedEof.into()))
    }

    /// All streams and views.
    pub(crate) async fn list(&self) -> Result<(Vec<StreamName>, Vec<(String, String)>), Refusal> {
        match self.ask(&FromEngine::List).await?.0 {
            ToEngine::Listed { streams, views } => Ok((streams, views)),
            other => Err(unexpected(other)),
        }
    }

    /// One cut over `streams`.
    pub(crate) async fn resolve(&self, streams: Vec<StreamName>) -> Result<Vec<Table>, Refusal> {
        match self.ask(&FromEngine::Resolve { streams }).await?.0 {
            ToEngine::Tables(tables) => Ok(tables),
            other => Err(unexpected(other)),
        }
    }

    /// Has the server change a view.
    pub(crate) async fn store(&self, message: FromEngine) -> Result<(), Refusal> {
        match self.ask(&message).await?.0 {
            ToEngine::Stored => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}

/// Reads what the server sends and puts it where it is waited for. Ends when
/// the connection does, or when the server says what nobody asked for.
pub(crate) async fn pump<R: AsyncRead + Unpin>(mut reader: FrameReader<R>, replies: Replies) {
    while let Ok(Some(message)) = reader.message::<ToEngine>().await {
        let bytes = match &message {
            ToEngine::Tail(_) => match reader.bytes().await {
                Ok(bytes) => bytes,
                Err(_) => return,
            },
            _ => Bytes::new(),
        };
        if replies.try_send((message, bytes)).is_err() {
            return;
        }
    }
}

#[async_trait]
impl TailSource for Link {
    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        bytes_max: u64,
    ) -> Result<(TailPart, Bytes), Error> {
        let asked = self.ask(&FromEngine::ReadTail { partition, from, bytes_max }).await;
        let refused =
            |Refusal { kind, message, .. }| Error::Tail { partition, from, kind, why: message };
        match asked.map_err(refused)? {
            (ToEngine::Tail(part), bytes) => Ok((part, bytes)),
            (other, _) => Err(refused(unexpected(other))),
        }
    }
}

#[async_trait]
impl Sink for Link {
    async fn begin(
        &self,
        columns: Vec<Column>,
        schema: Vec<u8>,
        parameters: Vec<String>,
        command: String,
    ) -> Result<(), Refusal> {
        self.tell_with(&FromEngine::Begin { columns, parameters, command }, &schema).await
    }

    async fn data(&self, rows: u64, bytes: &[u8]) -> Result<(), Refusal> {
        self.tell_with(&FromEngine::Data { rows }, bytes).await
    }

    async fn progress(&self, progress: Progress) -> Result<(), Refusal> {
        self.tell(&FromEngine::Progress(progress)).await
    }
}

fn unexpected(reply: ToEngine) -> Refusal {
    match reply {
        ToEngine::Refused(refusal) => refusal,
        _ => internal("the server answered what was not asked"),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn gone(error: io::Error) -> Refusal {
    refusal(
        ErrorKind::Unavailable,
        "connection-closed",
        "08006",
        format!("the connection to the server is gone: {error}"),
    )
}

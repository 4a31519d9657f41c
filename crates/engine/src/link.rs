//! The connection of one question: frames to the server, and its replies.
//!
//! Messages that belong together are written together, whoever writes. Replies
//! come in the order of what was asked, so that one asks at a time. What the
//! server sends unasked ends the question.
//!
//! Whoever speaks may be dropped in the middle, by a `LIMIT` that has enough or
//! by the time that is over. So frames are written by a task of their own, which
//! leaves none half-written, and a reply that nobody waits for any more is
//! passed over: the next one must not take it for the reply to his own question.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use aquifer_query::wire::{
    Column, DESCRIBED_STREAMS_MAX, FromEngine, Progress, Refusal, Table, TailPart, ToEngine,
};
use aquifer_query::{FrameReader, FrameWriter};
use aquifer_types::{ErrorKind, Offset, Partition, StreamName, StreamSchema};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, mpsc};

use crate::answer::Sink;
use crate::refusal::{internal, refusal};
use crate::{Error, TailSource};

/// A reply, and the bytes that belong to it.
type Reply = (ToEngine, Bytes);

/// A message that waits to be written, with the bytes that belong to it.
type Outgoing = (FromEngine, Option<Vec<u8>>);

/// Messages that wait to be written.
const OUTGOING_MAX: usize = 1;

/// What a question says to the server.
pub(crate) struct Link {
    outgoing: mpsc::Sender<Outgoing>,
    /// The answer's first frame was handed over.
    has_begun: AtomicBool,
    replies: Mutex<Awaited>,
}

/// Replies, and how many of them nobody has taken yet.
struct Awaited {
    replies: mpsc::Receiver<Reply>,
    owed: usize,
}

impl Awaited {
    async fn next(&mut self) -> Result<Reply, Refusal> {
        let reply = self.replies.recv().await;
        let reply = reply.ok_or_else(|| gone(io::ErrorKind::UnexpectedEof.into()))?;
        self.owed -= 1;
        Ok(reply)
    }
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
        let (outgoing, waiting) = mpsc::channel(OUTGOING_MAX);
        tokio::spawn(write(FrameWriter::new(writer), waiting));
        let replies = Mutex::new(Awaited { replies, owed: 0 });
        (Self { outgoing, has_begun: AtomicBool::new(false), replies }, sender)
    }

    /// Tells the server something that wants no reply.
    pub(crate) async fn tell(&self, message: &FromEngine) -> Result<(), Refusal> {
        self.room().await?.send((message.clone(), None));
        Ok(())
    }

    /// Says how far the question is, if its answer has begun and nothing waits to
    /// be written: whoever calls this is needed to read the connection.
    pub(crate) fn tell_progress(&self, progress: Progress) {
        if self.has_begun.load(Ordering::Relaxed)
            && let Ok(room) = self.outgoing.try_reserve()
        {
            room.send((FromEngine::Progress(progress), None));
        }
    }

    /// Tells the server something with bytes behind it.
    async fn tell_with(&self, message: &FromEngine, bytes: &[u8]) -> Result<(), Refusal> {
        self.room().await?.send((message.clone(), Some(bytes.to_vec())));
        Ok(())
    }

    async fn room(&self) -> Result<mpsc::Permit<'_, Outgoing>, Refusal> {
        self.outgoing.reserve().await.map_err(|_| gone(io::ErrorKind::BrokenPipe.into()))
    }

    /// Asks the server; its reply.
    async fn ask(&self, message: &FromEngine) -> Result<Reply, Refusal> {
        let mut awaited = self.replies.lock().await;
        while awaited.owed > 0 {
            awaited.next().await?;
        }
        let room = self.room().await?;
        // From here on a reply comes, whether or not anybody waits for it.
        awaited.owed += 1;
        room.send((message.clone(), None));
        awaited.next().await
    }

    /// All streams and views.
    pub(crate) async fn list(&self) -> Result<(Vec<StreamName>, Vec<(String, String)>), Refusal> {
        match self.ask(&FromEngine::List).await?.0 {
            ToEngine::Listed { streams, views } => Ok((streams, views)),
            other => Err(unexpected(other)),
        }
    }

    /// What the values of `streams` have, in their order.
    pub(crate) async fn schemas(
        &self,
        streams: &[StreamName],
    ) -> Result<Vec<StreamSchema>, Refusal> {
        let mut schemas = Vec::with_capacity(streams.len());
        for part in streams.chunks(DESCRIBED_STREAMS_MAX) {
            let asked = self.ask(&FromEngine::Describe { streams: part.to_vec() }).await?;
            match asked.0 {
                ToEngine::Described(part) => schemas.extend(part),
                other => return Err(unexpected(other)),
            }
        }
        Ok(schemas)
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

/// Writes what waits, until nobody is left who could say more.
async fn write<W: AsyncWrite + Unpin>(
    mut writer: FrameWriter<W>,
    mut waiting: mpsc::Receiver<Outgoing>,
) {
    while let Some((message, bytes)) = waiting.recv().await {
        let written = async {
            writer.message(&message).await?;
            match bytes {
                Some(bytes) => writer.bytes(&bytes).await,
                None => Ok(()),
            }
        };
        if let Err(error) = written.await {
            // Whoever speaks next is told; the server has gone, most likely.
            tracing::debug!(%error, "a question's connection cannot be written");
            return;
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
        match asked.map_err(Error::Refused)? {
            (ToEngine::Tail(part), bytes) => Ok((part, bytes)),
            (other, _) => Err(Error::Refused(unexpected(other))),
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
        self.tell_with(&FromEngine::Begin { columns, parameters, command }, &schema).await?;
        self.has_begun.store(true, Ordering::Relaxed);
        Ok(())
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

#[cfg(test)]
mod tests {
    use aquifer_query::wire::TailForm;
    use aquifer_types::{PartitionIndex, StreamId};

    use super::*;

    fn partition(index: u32) -> Partition {
        Partition::new(StreamId(Default::default()), PartitionIndex(index))
    }

    type Half<T> = (FrameReader<tokio::io::ReadHalf<T>>, FrameWriter<tokio::io::WriteHalf<T>>);
    struct Server(Half<tokio::io::DuplexStream>);

    /// Answers with the partition's number as the bytes.
    async fn answer(server: &mut Server) {
        let asked = server.0.0.message().await.unwrap().unwrap();
        let FromEngine::ReadTail { partition, .. } = asked else { panic!("{asked:?}") };
        let part = TailPart { form: TailForm::Rows, appended: Vec::new(), next: Offset(1) };
        server.0.1.message(&ToEngine::Tail(part)).await.unwrap();
        server.0.1.bytes(partition.index.get().to_string().as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn nobody_gets_the_reply_to_what_another_asked() {
        let (own, servers) = tokio::io::duplex(1 << 16);
        let (reader, writer) = tokio::io::split(own);
        let (link, replies) = Link::new(writer);
        let pumping = tokio::spawn(pump(FrameReader::new(reader), replies));
        let (reader, writer) = tokio::io::split(servers);
        let mut server = Server((FrameReader::new(reader), FrameWriter::new(writer)));
        for _ in 0..3 {
            {
                let dropped = link.read(partition(7), Offset(0), 1);
                tokio::pin!(dropped);
                assert!(futures::poll!(&mut dropped).is_pending());
            }
            let asking = link.read(partition(8), Offset(0), 1);
            let answering = async {
                answer(&mut server).await;
                answer(&mut server).await;
            };
            let (asked, ()) = tokio::join!(asking, answering);
            assert_eq!(asked.unwrap().1, "8");
        }
        drop(server);
        pumping.await.unwrap();
    }
}

//! One question on its way: what the engine asks for meanwhile, and its answer.
//!
//! A task of its own drives each question, so that the engine gets its tail
//! while a door is busy elsewhere. The answer's parts wait for the door in a
//! short queue; while that is full, nothing is read from the engine, which
//! stands still then.

use std::sync::Arc;

use aquifer_env::tasks;
use aquifer_stream::StreamStore;
use aquifer_types::{StreamName, StreamPath, TenantName};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};

use crate::answer::Part;
use crate::cut::{QuestionCut, StreamCut};
use crate::tail::{Piece, TailBudget, Tails};
use crate::wire::{Column, DESCRIBED_STREAMS_MAX, FromEngine, Refusal, Spent, ToEngine};
use crate::{FrameReader, FrameWriter, QueryMetrics, QueryOptions, Question, views};

/// Parts of an answer that wait for the door.
pub(crate) const PARTS_AHEAD_MAX: usize = 2;
/// The columns and parameters of one answer.
const COLUMNS_MAX: usize = 100_000;
/// A cut with more chunks is written down outside the runtime.
const CHUNKS_INLINE_MAX: usize = 256;

/// What all questions share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) store: StreamStore,
    pub(crate) options: Arc<QueryOptions>,
    pub(crate) metrics: QueryMetrics,
    pub(crate) tail_budget: TailBudget,
}

/// The answer's head.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) columns: Vec<Column>,
    pub(crate) schema: Bytes,
    pub(crate) parameters: Vec<String>,
    pub(crate) command: String,
    pub(crate) cut: Vec<StreamCut>,
}

/// Where an answer goes.
#[derive(Debug)]
pub(crate) struct Outlet {
    /// Taken when the answer begins.
    pub(crate) begun: Option<oneshot::Sender<Begun>>,
    pub(crate) parts: mpsc::Sender<Result<Part, Refusal>>,
}

/// Why a question did not get to its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// There is an answer to why.
    Refused(Refusal),
    /// The engine is not there any more; it is known elsewhere why.
    EngineGone,
    /// Nobody wants the answer.
    Unwanted,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What of a question outlives its engine: where nothing but the head of its
/// answer was told, another engine answers it of the same cut.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The streams of its cut.
    cut: Option<(Vec<StreamName>, Arc<QuestionCut>)>,
    head: Option<Head>,
    has_data: bool,
    has_stored: bool,
}

/// How an answer begins.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    columns: Vec<Column>,
    schema: Bytes,
    parameters: Vec<String>,
    command: String,
}

impl Told {
    /// Whether it can be asked again as if nothing had been.
    pub(crate) const fn may_repeat(&self) -> bool {
        !self.has_data && !self.has_stored
    }
}

/// A question and its connection.
pub(crate) struct Conversation<C> {
    shared: Shared,
    question: Question,
    reader: FrameReader<BufReader<ReadHalf<C>>>,
    writer: FrameWriter<WriteHalf<C>>,
    tails: Option<Tails>,
    has_begun: bool,
    rows: u64,
    bytes: u64,
}

impl<C: AsyncRead + AsyncWrite> Conversation<C> {
    pub(crate) fn new(shared: Shared, question: Question, connection: C) -> Self {
        let (read, write) = tokio::io::split(connection);
        let (reader, writer) = (FrameReader::new(BufReader::new(read)), FrameWriter::new(write));
        let (tails, has_begun) = (None, false);
        Self { shared, question, reader, writer, tails, has_begun, rows: 0, bytes: 0 }
    }

    /// Asks, and serves the engine until the answer has ended.
    ///
    /// # Errors
    /// Why it did not. What was handed on until then is not the whole answer.
    pub(crate) async fn run(mut self, outlet: &mut Outlet, told: &mut Told) -> Result<Spent, Stop> {
        let ask = ToEngine::Ask(self.question.clone());
        self.send(&ask).await?;
        loop {
            match self.receive().await? {
                FromEngine::Begin { columns, parameters, command } => {
                    let is_too_long = columns.len() + parameters.len() > COLUMNS_MAX;
                    if std::mem::replace(&mut self.has_begun, true) || is_too_long {
                        return Err(Refusal::protocol("began its answer twice").into());
                    }
                    let schema = self.receive_bytes().await?;
                    begin(outlet, told, Head { columns, schema, parameters, command })?;
                }
                FromEngine::Data { rows } => {
                    if !self.has_begun {
                        return Err(Refusal::protocol("answered before it began").into());
                    }
                    let bytes = self.receive_bytes().await?;
                    self.count(rows, bytes.len())?;
                    told.has_data = true;
                    outlet.hand_on(Part::Data { rows, bytes }).await?;
                }
                FromEngine::Progress(progress) => {
                    // Before the answer begins there is nobody to tell.
                    if self.has_begun {
                        outlet.hand_on(Part::Progress(progress)).await?;
                    }
                }
                FromEngine::Done(spent) => {
                    if !self.has_begun {
                        return Err(Refusal::protocol("ended before it began").into());
                    }
                    return Ok(spent);
                }
                FromEngine::Failed(refusal) => return Err(refusal.into()),
                other => self.serve(other, told).await?,
            }
        }
    }

    /// Answers what the engine asks for.
    async fn serve(&mut self, asked: FromEngine, told: &mut Told) -> Result<(), Stop> {
        let tenant = self.question.tenant.clone();
        let Shared { store, options, .. } = self.shared.clone();
        match asked {
            FromEngine::Resolve { streams } => self.resolve(&tenant, streams, told).await,
            FromEngine::ReadTail { partition, from, bytes_max } => {
                let Some(tails) = &mut self.tails else {
                    return Err(Refusal::protocol("read a cut that it had not taken").into());
                };
                match tails.read(partition, from, bytes_max).await {
                    Ok(piece) => self.send_piece(&piece).await,
                    Err(refusal) => self.send(&ToEngine::Refused(refusal)).await,
                }
            }
            FromEngine::List => {
                let streams = store.list_stream_shapes(&tenant);
                let streams = streams.into_iter().map(|(path, _)| path.name).collect();
                let views = views::list(&store, &tenant);
                self.send_list(&ToEngine::Listed { streams, views }).await
            }
            FromEngine::Describe { streams } => {
                if streams.len() > DESCRIBED_STREAMS_MAX {
                    return Err(Refusal::protocol("asked after too many streams").into());
                }
                // One that was deleted meanwhile has nothing.
                let schema = |name: StreamName| {
                    let stream = store.stream(&StreamPath::new(tenant.clone(), name));
                    stream.map(|stream| store.schema(&stream.id())).unwrap_or_default()
                };
                let schemas = streams.into_iter().map(schema).collect();
                self.send(&ToEngine::Described(schemas)).await
            }
            FromEngine::PutView { name, sql, replace } => {
                told.has_stored = true;
                let stored = views::put(&store, &options, &tenant, name, sql, replace).await;
                self.send_stored(stored).await
            }
            FromEngine::DropView { name, if_exists } => {
                told.has_stored = true;
                let dropped = views::drop_view(&store, &tenant, name, if_exists).await;
                self.send_stored(dropped).await
            }
            FromEngine::Begin { .. }
            | FromEngine::Data { .. }
            | FromEngine::Progress(_)
            | FromEngine::Done(_)
            | FromEngine::Failed(_) => Err(Refusal::protocol("answered out of turn").into()),
        }
    }

    /// Takes the question's cut, the only one.
    async fn resolve(
        &mut self,
        tenant: &TenantName,
        names: Vec<StreamName>,
        told: &mut Told,
    ) -> Result<(), Stop> {
        if self.tails.is_some() {
            return Err(Refusal::protocol("took two cuts for one question").into());
        }
        let Shared { store, options, metrics, tail_budget } = self.shared.clone();
        if names.len() > options.streams_max {
            let what = format!("the number of streams, {},", names.len());
            let limit = options.streams_max as u64;
            let refusal = Refusal::too_large(&what, limit, "query.streams_max");
            return self.send(&ToEngine::Refused(refusal)).await;
        }
        let cut = match &told.cut {
            Some((known, cut)) if *known == names => Ok(cut.clone()),
            Some(_) => Err(Refusal::overtaken("what its streams are changed")),
            None => QuestionCut::take(&store, tenant, names.clone()).map(Arc::new),
        };
        let cut = match cut {
            Ok(cut) => cut,
            Err(refusal) => return self.send(&ToEngine::Refused(refusal)).await,
        };
        told.cut = Some((names, cut.clone()));
        let chunks = cut.chunks();
        metrics.chunks.inc_by(chunks as u64);
        self.tails = Some(cut.tails(tail_budget));
        // Long lists of chunks take long to write down.
        let write_down = move || serde_json::to_vec(&ToEngine::Tables(cut.tables()));
        let json = match chunks > CHUNKS_INLINE_MAX {
            true => tasks::run_blocking(write_down).await,
            false => write_down(),
        };
        let json = json.map_err(|_| Refusal::protocol("asked for what cannot be written"))?;
        let what = format!("the list of the {chunks} chunks of the statement's streams");
        self.send_or_refuse(&json, &what).await
    }

    /// Sends what one frame may be too short for.
    async fn send_or_refuse(&mut self, json: &[u8], what: &str) -> Result<(), Stop> {
        match self.writer.json(json).await {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                let limit = crate::wire::FRAME_BYTES_MAX as u64;
                let refusal = Refusal::too_large(what, limit, "a frame");
                self.send(&ToEngine::Refused(refusal)).await
            }
            sent => sent.map_err(|_| Stop::EngineGone),
        }
    }

    async fn send_list(&mut self, list: &ToEngine) -> Result<(), Stop> {
        let json = serde_json::to_vec(list);
        let json = json.map_err(|_| Refusal::protocol("asked for what cannot be written"))?;
        self.send_or_refuse(&json, "the list of streams and views").await
    }

    async fn send_piece(&mut self, piece: &Piece) -> Result<(), Stop> {
        self.send(&ToEngine::Tail(piece.part.clone())).await?;
        let bytes = piece.bytes.iter().map(Bytes::len).sum::<usize>();
        self.shared.metrics.tail_bytes.inc_by(bytes as u64);
        self.writer.byte_parts(&piece.bytes).await.map_err(|_| Stop::EngineGone)
    }

    async fn send_stored(&mut self, stored: Result<(), Refusal>) -> Result<(), Stop> {
        let answer = match stored {
            Ok(()) => ToEngine::Stored,
            Err(refusal) => ToEngine::Refused(refusal),
        };
        self.send(&answer).await
    }

    async fn send(&mut self, message: &ToEngine) -> Result<(), Stop> {
        self.writer.message(message).await.map_err(|_| Stop::EngineGone)
    }

    async fn receive(&mut self) -> Result<FromEngine, Stop> {
        match self.reader.message().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(Stop::EngineGone),
            Err(error) => Err(broken(&error)),
        }
    }

    async fn receive_bytes(&mut self) -> Result<Bytes, Stop> {
        self.reader.bytes().await.map_err(|error| broken(&error))
    }

    /// The engine keeps the limits; that it does is not taken on trust.
    fn count(&mut self, rows: u64, bytes: usize) -> Result<(), Refusal> {
        self.rows = self.rows.saturating_add(rows);
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.shared.metrics.rows.inc_by(rows);
        self.shared.metrics.answer_bytes.inc_by(bytes as u64);
        let limits = &self.question.limits;
        if self.rows > limits.rows_max {
            return Err(Refusal::too_large("the answer", limits.rows_max, "rows_max"));
        }
        if self.bytes > limits.bytes_max {
            return Err(Refusal::too_large("the answer", limits.bytes_max, "bytes_max"));
        }
        Ok(())
    }
}

/// Tells how the answer begins, once. An engine that answers in another's place
/// has to begin alike.
fn begin(outlet: &mut Outlet, told: &mut Told, head: Head) -> Result<(), Stop> {
    let Some(waiting) = outlet.begun.take() else {
        return match &told.head {
            Some(known) if *known == head => Ok(()),
            _ => Err(Refusal::overtaken("what its columns are changed").into()),
        };
    };
    let cut = told.cut.as_ref().map(|(_, cut)| cut.told()).unwrap_or_default();
    told.head = Some(head.clone());
    let Head { columns, schema, parameters, command } = head;
    let begun = Begun { columns, schema, parameters, command, cut };
    waiting.send(begun).map_err(|_| Stop::Unwanted)
}

impl Outlet {
    async fn hand_on(&mut self, part: Part) -> Result<(), Stop> {
        self.parts.send(Ok(part)).await.map_err(|_| Stop::Unwanted)
    }
}

/// A connection that broke off in the middle is one whose engine has gone; what
/// is no frame is a fault of its own.
fn broken(error: &std::io::Error) -> Stop {
    match error.kind() {
        std::io::ErrorKind::InvalidData => {
            Stop::Refused(Refusal::protocol(&format!("sent what is no frame: {error}")))
        }
        _ => Stop::EngineGone,
    }
}

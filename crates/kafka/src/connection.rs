//! One connection: requests in, answers out, in their order.
//!
//! Requests begin one after the other. Those of a pipelined API run beside each
//! other, so that a producer's next batch is in the journal's next group while
//! the last one syncs; anything else waits for all before it. At most one
//! request is read ahead, and none while its client has to pause for a quota.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::api::{self, Order};
use crate::authorizer::Principal;
use crate::broker::Broker;
use crate::budget::{Budget, Budgets};
use crate::call::{Answer, Call};
use crate::frame::{BARE_VERSION, Frame, FrameError, FrameLimits, FrameReader};
use crate::metrics::ApiLabels;
use crate::session::Session;

/// How long the end of a connection may take to be sent.
const CLOSE_MAX: Duration = Duration::from_secs(1);

type Running = BoxFuture<'static, Result<Answer, FrameError>>;

/// The state of one connection's loop.
struct Connection<R, W> {
    broker: Arc<Broker>,
    session: Arc<Session>,
    reader: FrameReader<R>,
    writer: W,
    running: FuturesOrdered<Running>,
    /// The order of what is running; all of it is of one kind.
    order: Order,
    next: Option<Frame>,
    /// What requests are held in from the login on, until they are.
    after_login: Option<Budget>,
    /// On the monotonic clock.
    begun_ns: u64,
}

/// Serves a connection until its client goes, breaks the protocol or is idle
/// for too long, or the server stops.
pub(crate) async fn serve<S>(
    stream: S,
    broker: Arc<Broker>,
    session: Arc<Session>,
    budgets: Budgets,
) -> Result<(), FrameError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (reader, writer) = tokio::io::split(stream);
    let Budgets { before_login, after_login } = budgets;
    let (budget, after_login) = match session.principal() {
        Some(_) => (after_login, None),
        None => (before_login, Some(after_login)),
    };
    let reader = FrameReader::new(reader, budget);
    let begun_ns = broker.clock.monotonic_ns();
    let mut connection = Connection {
        broker,
        session,
        reader,
        writer,
        running: FuturesOrdered::new(),
        order: Order::Alone,
        next: None,
        after_login,
        begun_ns,
    };
    let ended = connection.run().await;
    // Under TLS this says that nothing was cut off. The connection is given up
    // in any case.
    let _ = tokio::time::timeout(CLOSE_MAX, connection.writer.shutdown()).await;
    ended
}

/// What a turn of the loop brought.
enum Turn {
    Answer(Result<Answer, FrameError>),
    Frame(Result<Option<Frame>, FrameError>),
    /// The pause of a client that took too much is over.
    Resumed,
    Idle,
    Stopping,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<R, W> {
    async fn run(&mut self) -> Result<(), FrameError> {
        loop {
            self.start_next()?;
            match self.turn().await {
                Turn::Answer(answer) => {
                    if !self.answer(answer?).await? {
                        return Ok(());
                    }
                }
                Turn::Frame(frame) => {
                    if frame.as_ref().is_err_and(FrameError::is_malformed) {
                        self.broker.metrics.malformed.inc();
                    }
                    let Some(frame) = frame? else { return self.finish().await };
                    self.take(frame)?;
                }
                Turn::Resumed => {}
                Turn::Idle => return Ok(()),
                Turn::Stopping => return self.finish().await,
            }
        }
    }

    async fn turn(&mut self) -> Turn {
        let options = &self.broker.options;
        let (bytes_max, bytes_name, idle) = if self.session.principal().is_some() {
            if self.after_login.as_ref().is_some_and(|budget| self.reader.charge(budget)) {
                self.after_login = None;
            }
            let idle = Duration::from_millis(options.idle_ms_max);
            (options.request_bytes_max, "request_bytes_max", idle)
        } else {
            let bytes_max = options.request_bytes_max_before_login;
            (bytes_max, "request_bytes_max_before_login", self.login_left())
        };
        let limits = FrameLimits {
            bytes_max,
            bytes_name,
            elements_max: options.request_elements_max,
            arrival_max: Duration::from_millis(options.request_ms_max),
            is_bare: self.session.expects_bare_message(),
        };
        let mut stopping = self.broker.stopping.clone();
        let is_running = !self.running.is_empty();
        let pause = self.pause_left();
        let reads = self.next.is_none() && pause.is_zero();
        tokio::select! {
            biased;
            Some(answer) = self.running.next(), if is_running => Turn::Answer(answer),
            frame = self.reader.next(&limits), if reads => Turn::Frame(frame),
            () = tokio::time::sleep(pause), if !pause.is_zero() => Turn::Resumed,
            () = tokio::time::sleep(idle), if !is_running && pause.is_zero() => Turn::Idle,
            _ = stopping.wait_for(|is_stopping| *is_stopping) => Turn::Stopping,
        }
    }

    /// How much longer the client may take to prove its user.
    fn login_left(&self) -> Duration {
        let elapsed = self.broker.clock.monotonic_ns().saturating_sub(self.begun_ns);
        let limit = Duration::from_millis(self.broker.options.request_ms_max);
        limit.saturating_sub(Duration::from_nanos(elapsed))
    }

    /// For how much longer its client has to wait, who took too much.
    fn pause_left(&self) -> Duration {
        self.session.pause_left(self.broker.clock.monotonic_ns())
    }

    /// Takes a frame in, to be begun when its turn comes.
    fn take(&mut self, frame: Frame) -> Result<(), FrameError> {
        self.broker.metrics.bytes_in.inc_by(frame.bytes as u64);
        let is_open = api::find(frame.api).is_some_and(|api| api.is_open);
        // Whoever talks and never logs in does not keep a place for ever.
        let may_ask = is_open && !self.login_left().is_zero();
        if !may_ask && self.session.principal().is_none() {
            return Err(FrameError::NoLogin { api: frame.api });
        }
        // Only a new login is answered then (KIP-368).
        let is_login = matches!(frame.api, ApiKey::SaslHandshake | ApiKey::SaslAuthenticate);
        if !is_login && self.session.is_expired(self.broker.clock.monotonic_ns()) {
            return Err(FrameError::LoginExpired { api: frame.api });
        }
        self.next = Some(frame);
        Ok(())
    }

    /// Begins the request that was read ahead, if nothing stands before it.
    fn start_next(&mut self) -> Result<(), FrameError> {
        let Some(frame) = &self.next else { return Ok(()) };
        let order = api::find(frame.api).map_or(Order::Alone, |api| api.order);
        if !self.pause_left().is_zero() {
            return Ok(());
        }
        let may_start = self.running.is_empty()
            || (order == Order::Pipelined
                && self.order == Order::Pipelined
                && self.running.len() < self.broker.options.pipeline_max);
        if !may_start {
            return Ok(());
        }
        let Some(frame) = self.next.take() else { return Ok(()) };
        self.order = order;
        let running = self.begin(frame);
        self.running.push_back(running);
        Ok(())
    }

    fn begin(&self, frame: Frame) -> Running {
        let Frame { api, version, correlation, client_id, body, bytes, held } = frame;
        let principal =
            self.session.principal().unwrap_or_else(|| Arc::new(Principal::anonymous()));
        let (broker, session) = (self.broker.clone(), self.session.clone());
        let counted = broker.clone();
        let request_bytes = bytes;
        let call = Call {
            broker,
            session,
            principal,
            api,
            version,
            correlation,
            client_id,
            request_bytes,
        };
        let labels = ApiLabels { api: api::name(api) };
        counted.metrics.requests.get_or_create(&labels).inc();
        let held_bytes = Held::count(counted.clone(), bytes as i64);
        let started = counted.clock.monotonic_ns();
        let running = match version {
            BARE_VERSION => crate::sasl::bare(call, body),
            _ => api::handle(call, body),
        };
        Box::pin(async move {
            let _held = (held, held_bytes);
            let answer = running.await;
            if matches!(answer, Err(FrameError::Malformed { .. })) {
                counted.metrics.malformed.inc();
            }
            let elapsed = counted.clock.monotonic_ns().saturating_sub(started);
            counted.metrics.seconds.get_or_create(&labels).observe(elapsed as f64 / 1e9);
            answer
        })
    }

    /// Writes an answer; false where the connection is to be closed.
    async fn answer(&mut self, answer: Answer) -> Result<bool, FrameError> {
        let pieces = match answer {
            Answer::Nothing => return Ok(true),
            Answer::Close => return Ok(false),
            Answer::Frame(pieces) => pieces,
        };
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        self.broker.metrics.bytes_out.inc_by(bytes as u64);
        // A client may take its answer slowly, but not for ever: it holds a part of
        // what all share.
        let limit = Duration::from_millis(self.broker.options.answer_ms_max);
        let written = tokio::time::timeout(limit, self.write(Pieces(pieces.into()))).await;
        written.map_err(|_| FrameError::Lingering(limit))??;
        Ok(!self.session.is_over())
    }

    /// Writes all pieces. A client that takes nothing is given up, and what it
    /// holds with it.
    async fn write(&mut self, mut pieces: Pieces) -> Result<(), FrameError> {
        let patience = Duration::from_millis(self.broker.options.peer_ms_max.into());
        let stalled = || FrameError::Stalled(patience);
        while pieces.has_remaining() {
            let written = self.writer.write_buf(&mut pieces);
            let count = tokio::time::timeout(patience, written).await.map_err(|_| stalled())??;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
        }
        tokio::time::timeout(patience, self.writer.flush()).await.map_err(|_| stalled())??;
        Ok(())
    }

    /// The client has sent its last, or the server stops: what changes
    /// something is finished, what only waits is given up.
    async fn finish(&mut self) -> Result<(), FrameError> {
        if self.order == Order::Waiting {
            return Ok(());
        }
        while let Some(answer) = self.running.next().await {
            if !self.answer(answer?).await? {
                break;
            }
        }
        Ok(())
    }
}

/// Counts a request's bytes for as long as it is under way.
struct Held(Arc<Broker>, i64);

impl Held {
    fn count(broker: Arc<Broker>, bytes: i64) -> Self {
        broker.metrics.request_bytes.inc_by(bytes);
        Self(broker, bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.metrics.request_bytes.dec_by(self.1);
    }
}

/// A frame in pieces, written together where the socket takes that.
struct Pieces(VecDeque<Bytes>);

impl bytes::Buf for Pieces {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |piece| &piece[..])
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(piece) = self.0.front_mut() {
            if count < piece.len() {
                piece.advance(count);
                return;
            }
            count -= piece.len();
            self.0.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [io::IoSlice<'a>]) -> usize {
        let pairs = slices.iter_mut().zip(&self.0);
        pairs.map(|(slice, piece)| *slice = io::IoSlice::new(piece)).count()
    }
}

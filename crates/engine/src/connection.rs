//! A connection, from its question to the last frame of the answer.
//!
//! A question runs in a task of its own, beside one that reads the connection:
//! when the server closes it, the question is dropped wherever it is. Dropping
//! it drops its operators, their memory and their spilled files.

use std::sync::Arc;
use std::time::Duration;

use aquifer_env::Clock as _;
use aquifer_query::wire::{FromEngine, Refusal, Spent, ToEngine};
use aquifer_query::{Ask, FrameReader, Question};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::answer::time_max;
use crate::engine::Engine;
use crate::interrupt::GivenUp;
use crate::link::{Link, pump};
use crate::refusal::internal;
use crate::usage::Usage;

/// A question that was ended has this long to let go of its thread. One that
/// does not would keep it for good, so the process is given up: the server starts
/// another.
const LETTING_GO_MAX: Duration = Duration::from_secs(8);

/// Answers the question of a connection, of which `reader` and `writer` are the
/// halves. Returns when it is answered or the server has closed it. The question
/// itself runs on `threads`: whatever it does to them, its connection is read
/// here and its time is kept.
pub(crate) async fn serve<R, W>(engine: Arc<Engine>, threads: &Handle, reader: R, writer: W)
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let mut reader = FrameReader::new(BufReader::new(reader));
    let (link, replies) = Link::new(writer);
    let link = Arc::new(link);
    let wait = Duration::from_millis(engine.options().ask_ms_max);
    let question = match tokio::time::timeout(wait, reader.message::<ToEngine>()).await {
        Ok(Ok(Some(ToEngine::Ask(question)))) => question,
        Ok(Ok(None)) => return,
        _ => {
            let _ = link.tell(&FromEngine::Failed(internal("no question came"))).await;
            return;
        }
    };
    let ms = question.limits.time_ms_max;
    // A search tells by itself how far it is.
    let tells = question.wants_progress && matches!(question.ask, Ask::Sql(_) | Ask::Postgres(_));
    let mut ticks =
        tokio::time::interval(Duration::from_millis(engine.options().progress_ms.max(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let usage = Arc::new(Usage::default());
    let started = engine.clock().monotonic_ns();
    let mut task = {
        let (engine, link, usage) = (Arc::clone(&engine), Arc::clone(&link), Arc::clone(&usage));
        let given_up = usage.given_up().clone();
        let work = async move { answer(&engine, question, link, usage).await };
        Aborting { task: threads.spawn(work), given_up }
    };
    let mut pumping = std::pin::pin!(pump(reader, replies));
    let mut late = std::pin::pin!(tokio::time::sleep(Duration::from_millis(ms)));
    let answered = loop {
        tokio::select! {
            biased;
            answered = &mut task.task => break answered,
            () = &mut pumping => return task.let_go().await,
            () = &mut late => {
                task.end();
                let last = FromEngine::Failed(time_max(ms));
                let _ = tokio::join!(link.tell(&last), pumping);
                return task.let_go().await;
            }
            _ = ticks.tick(), if tells => link.tell_progress(usage.progress()),
        }
    };
    let last = match answered {
        Ok(Ok(spent)) => {
            let elapsed_ms = engine.clock().monotonic_ns().saturating_sub(started) / 1_000_000;
            FromEngine::Done(Spent { elapsed_ms, ..spent })
        }
        Ok(Err(refusal)) => FromEngine::Failed(refusal),
        Err(error) => {
            tracing::error!(%error, "a question panicked");
            FromEngine::Failed(internal("the engine failed at this question; its log says where"))
        }
    };
    // The server may be writing what somebody asked for who was dropped since.
    // It is read until the server closes, which it does at the last word: were
    // this end closed before, that write would fail and the word be lost.
    let _ = tokio::join!(link.tell(&last), pumping);
}

/// A task that ends with its handle.
struct Aborting<T> {
    task: JoinHandle<T>,
    /// Tells what cannot be dropped before it pauses.
    given_up: GivenUp,
}

impl<T> Aborting<T> {
    /// Ends the task, and the process where it does not end.
    async fn let_go(mut self) {
        self.end();
        if tokio::time::timeout(LETTING_GO_MAX, &mut self.task).await.is_err() {
            tracing::error!("a question that was ended keeps its thread: the engine gives up");
            std::process::abort();
        }
    }
}

impl<T> Aborting<T> {
    fn end(&self) {
        self.given_up.set();
        self.task.abort();
    }
}

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Each kind of question has a module that answers it.
async fn answer(
    engine: &Engine,
    question: Question,
    link: Arc<Link>,
    usage: Arc<Usage>,
) -> Result<Spent, Refusal> {
    match &question.ask {
        Ask::Sql(sql) => engine.sql(&question, sql, link, usage).await,
        Ask::Postgres(postgres) => engine.sql(&question, &postgres.sql, link, usage).await,
        Ask::Search(search) => engine.searches(link).search(&question, search).await,
        Ask::Histogram(histogram) => engine.searches(link).histogram(&question, histogram).await,
    }
}

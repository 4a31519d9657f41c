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
use tokio::task::JoinHandle;

use crate::answer::time_max;
use crate::engine::Engine;
use crate::link::{Link, pump};
use crate::refusal::internal;

/// Answers the question of a connection, of which `reader` and `writer` are the
/// halves. Returns when it is answered or the server has closed it.
pub(crate) async fn serve<R, W>(engine: Arc<Engine>, reader: R, writer: W)
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
    let mut task = Aborting(tokio::spawn(within_time(engine, question, Arc::clone(&link))));
    let mut pumping = std::pin::pin!(pump(reader, replies));
    let answered = tokio::select! {
        () = &mut pumping => return,
        answered = &mut task.0 => answered,
    };
    let last = match answered {
        Ok(Ok(spent)) => FromEngine::Done(spent),
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
struct Aborting<T>(JoinHandle<T>);

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn within_time(
    engine: Arc<Engine>,
    question: Question,
    link: Arc<Link>,
) -> Result<Spent, Refusal> {
    let ms = question.limits.time_ms_max;
    let started = engine.clock().monotonic_ns();
    let answer = answer(&engine, question, link);
    let spent = tokio::time::timeout(Duration::from_millis(ms), answer)
        .await
        .unwrap_or_else(|_| Err(time_max(ms)))?;
    let elapsed_ms = engine.clock().monotonic_ns().saturating_sub(started) / 1_000_000;
    Ok(Spent { elapsed_ms, ..spent })
}

/// Each kind of question has a module that answers it.
async fn answer(engine: &Engine, question: Question, link: Arc<Link>) -> Result<Spent, Refusal> {
    match &question.ask {
        Ask::Sql(sql) => engine.sql(&question, sql, link).await,
        Ask::Postgres(postgres) => engine.sql(&question, &postgres.sql, link).await,
        Ask::Search(search) => engine.searches(link).search(&question, search).await,
        Ask::Histogram(histogram) => engine.searches(link).histogram(&question, histogram).await,
    }
}

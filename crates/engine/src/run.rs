//! The process's life: connections are taken, one question each.

use std::io;
use std::sync::Arc;

use aquifer_env::open_store_to_read;
use aquifer_query::EngineOptions;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::connection::serve;
use crate::engine::Engine;

/// Plans and expressions are trees, and what walks them calls itself. What a
/// statement may be is bounded so that this is enough by far; only what is used
/// of it takes memory.
const THREAD_STACK_BYTES: usize = 32 << 20;

/// Why the engine cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Tier 2 cannot be opened.
    #[error("tier 2 cannot be opened: {0}")]
    Tier2(String),
    /// What the process needs of the system is not there.
    #[error("the engine cannot run: {0}")]
    System(#[from] io::Error),
}

/// Answers the questions that come over `listener`, at most
/// `options.questions_max` at once, until that fails.
///
/// Questions run on threads of their own, with stacks that are deep enough for
/// them.
///
/// # Errors
/// [`RunError`].
pub async fn run(options: EngineOptions, listener: UnixListener) -> Result<(), RunError> {
    let opens: Vec<(String, String)> =
        options.tier2_options.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let store = open_store_to_read(&options.tier2, &opens)
        .map_err(|error| RunError::Tier2(error.to_string()))?;
    let turns = Arc::new(Semaphore::new(options.questions_max.max(1)));
    let threads = Threads::new(options.target_partitions)?;
    let engine = Arc::new(Engine::new(options, store)?);
    loop {
        // Those that wait are the listener's, whose queue the system bounds.
        let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return Ok(()) };
        let (connection, _) = listener.accept().await?;
        let engine = Arc::clone(&engine);
        let threads = threads.handle();
        tokio::spawn(async move {
            let (reader, writer) = connection.into_split();
            serve(engine, &threads, reader, writer).await;
            drop(turn);
        });
    }
}

/// The threads of questions.
struct Threads(Option<Runtime>);

impl Threads {
    fn new(target_partitions: usize) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(target_partitions.max(2))
            .thread_stack_size(THREAD_STACK_BYTES)
            .thread_name("question")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> tokio::runtime::Handle {
        match &self.0 {
            Some(runtime) => runtime.handle().clone(),
            None => tokio::runtime::Handle::current(),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // A runtime must not be waited for on a thread of another.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

//! `aquifer engine`: the process that answers questions, for the server that
//! started it. Nobody else calls it.
//!
//! What it inherits as standard input is the socket to listen on. It lets
//! everybody else have the processor, and it is the first that the system ends
//! when memory runs out: what is appended comes first. It ends with the server,
//! whatever ended that.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;

use aquifer_env::process::{die_with_parent, set_out_of_memory_score};
use aquifer_env::tasks::{Priority, set_priority, spawn_thread};
use aquifer_query::Lifeline;
use tokio::net::UnixListener;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::allocator;
use crate::failure::Failure;

/// Of 1000: ended before whatever did not ask for it.
const OUT_OF_MEMORY_SCORE: u16 = 900;

/// Makes the process what it is to be, before it has more than one thread: each
/// takes its priority from the one that starts it.
pub(crate) fn prepare() {
    // Where the system refuses these, the lifeline and the server's watch over
    // its memory are left.
    let _ = rustix::thread::set_name(c"aquifer-engine");
    let _ = die_with_parent();
    let _ = set_out_of_memory_score(OUT_OF_MEMORY_SCORE);
    set_priority(Priority::Low);
}

pub(crate) async fn run() -> Result<(), Failure> {
    let listener = inherited().map_err(|error| {
        Failure::with_next(
            format!("standard input is not a socket to listen on: {error}"),
            "`aquifer serve` starts this command; nobody else has to",
        )
    })?;
    let taken = Lifeline::take(&listener).await;
    let (start, mut lifeline) =
        taken.map_err(|error| Failure::failed(format!("no server asked for it: {error}")))?;
    start_log(&start.log_filter);
    lifeline.ready().await?;
    end_with(lifeline)?;
    tokio::select! {
        ended = aquifer_engine::run(start.options, listener) => {
            ended.map_err(|error| Failure::failed(error.to_string()))
        }
        () = allocator::give_back() => Ok(()),
    }
}

fn inherited() -> io::Result<UnixListener> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.local_addr()?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Lets a thread of its own wait for the server's end: all others may be busy.
fn end_with(lifeline: Lifeline) -> io::Result<()> {
    let mut connection = lifeline.into_std()?;
    spawn_thread("lifeline", move || {
        let mut byte = [0];
        loop {
            match connection.read(&mut byte) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(1) => {}
                // At once, with no handler run: others may hold any lock.
                _ => {
                    let _ = rustix::process::kill_process(
                        rustix::process::getpid(),
                        rustix::process::Signal::KILL,
                    );
                }
            }
        }
    })?;
    Ok(())
}

/// The server adds the time, and its own form.
fn start_log(filter: &str) {
    let info = Targets::new().with_default(LevelFilter::INFO);
    let filter = filter.parse().unwrap_or(info);
    let log = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(io::stderr);
    let log = log.without_time().with_ansi(false).with_level(true).finish();
    // Another one in its place would do as well.
    let _ = log.with(filter).try_init();
}

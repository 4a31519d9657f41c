//! The one place where work leaves the async runtime.
//!
//! Blocking calls run on the runtime's blocking pool; what lives as long as the
//! process gets a thread of its own, with a name that shows in `ps -L` and in a
//! debugger. Everywhere else the underlying calls are banned by `clippy.toml`.

use std::io;
use std::panic::resume_unwind;
use std::thread;

use tokio::runtime::RuntimeFlavor;

/// Runs blocking `work` on the runtime's blocking pool.
///
/// The work runs to its end even when the handle is dropped.
///
/// # Panics
/// Outside a Tokio runtime.
#[allow(clippy::disallowed_methods, reason = "this is the place that the ban points to")]
pub fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}

/// Runs blocking `work` on the blocking pool and waits for its result; a panic
/// in it goes on in the caller.
///
/// # Panics
/// Outside a Tokio runtime, while the runtime shuts down, and when `work` does.
pub async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(error) => panic!("blocking work was cancelled: {error}"),
        },
    }
}

/// Whether [`block_here`] may be called: on a runtime with several threads.
#[must_use]
pub fn can_block_here() -> bool {
    let runtime = tokio::runtime::Handle::try_current();
    runtime.is_ok_and(|runtime| {
        runtime.runtime_flavor() == RuntimeFlavor::MultiThread
            && runtime.metrics().num_workers() > 1
    })
}

/// Runs short blocking `work` on the present thread, while another thread of the
/// runtime looks after its sockets, timers and tasks. It saves the two changes
/// of thread that [`run_blocking`] costs; whatever else is in the same task
/// waits meanwhile. Only one task at a time may do this, or no thread is left.
pub fn block_here<T>(work: impl FnOnce() -> T) -> T {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        // A thread keeps the task that was woken last to itself and tells nobody
        // of it. The second one takes that place: whatever was there can be
        // taken over, and another thread is woken to do so.
        runtime.spawn(async {});
        runtime.spawn(async {});
    }
    work()
}

/// How willingly a thread lets others have the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Others wait for it. Needs a permission (`CAP_SYS_NICE`, or a limit of
    /// open niceness); without it nothing changes.
    High,
    /// It can wait.
    Low,
}

/// Sets the priority of the present thread, where the system lets it.
pub fn set_priority(priority: Priority) {
    let nice = match priority {
        Priority::High => -5,
        Priority::Low => 10,
    };
    // Linux takes the calling thread, not the process. A refusal costs speed.
    let _ = rustix::process::setpriority_process(None, nice);
}

/// Runs long `work` that can wait on a thread of its own called `name`, with low
/// priority, and waits for its result.
///
/// # Errors
/// When the system has no thread left; then `work` was not begun.
///
/// # Panics
/// When `work` does: its panic goes on in the caller.
pub async fn run_in_background<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread of the blocking pool would have to be given its priority back,
    // which needs a permission.
    spawn_thread(name, move || {
        set_priority(Priority::Low);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        let _ = sender.send(result);
    })?;
    match receiver.await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(io::Error::other(format!("the thread {name} ended without a result"))),
    }
}

/// Starts a thread called `name`; Linux shows its first 15 bytes. Fails when
/// the system has no thread left, or on a name with a NUL in it.
#[allow(clippy::disallowed_methods, reason = "this is the place that the ban points to")]
pub fn spawn_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    if name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_carries_its_name() {
        let thread = spawn_thread("aquifer-test", || thread::current().name().map(str::to_owned))
            .expect("a thread");
        let name = thread.join().expect("its result");
        assert_eq!(name.as_deref(), Some("aquifer-test"));
        assert!(spawn_thread("a\0b", || ()).is_err());
    }

    #[tokio::test]
    async fn background_work_runs_on_a_thread_of_its_own() {
        let name =
            run_in_background("aquifer-back", || thread::current().name().map(str::to_owned));
        assert_eq!(name.await.unwrap().as_deref(), Some("aquifer-back"));
        assert!(run_in_background("a\0b", || ()).await.is_err());
    }

    #[tokio::test]
    #[should_panic(expected = "told")]
    async fn a_panic_in_the_background_reaches_the_caller() {
        let _ = run_in_background("aquifer-back", || panic!("told")).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn other_tasks_go_on_while_one_blocks() {
        assert!(can_block_here());
        let (here, there) = std::sync::mpsc::sync_channel(1);
        let blocking = tokio::spawn(async move {
            // Woken last, so it would wait for this thread.
            tokio::spawn(async move { here.send(()).expect("somebody waits") });
            block_here(|| there.recv().expect("the other task runs"));
        });
        blocking.await.expect("an end");
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_may_not_block() {
        assert!(!can_block_here());
    }

    #[tokio::test]
    async fn blocking_work_runs_on_another_thread() {
        let here = thread::current().id();
        let there = run_blocking(|| thread::current().id()).await;
        assert_ne!(here, there);
    }

    #[tokio::test]
    #[should_panic(expected = "told")]
    async fn a_panic_reaches_the_caller() {
        run_blocking(|| panic!("told")).await
    }
}

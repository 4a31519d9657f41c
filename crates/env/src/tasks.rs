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
    runtime.is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// Runs short blocking `work` on the present thread, while another thread takes
/// over the runtime's other tasks. It saves the change of thread that
/// [`run_blocking`] costs; whatever else is in the same task waits meanwhile.
///
/// # Panics
/// Where [`can_block_here`] is false.
#[allow(clippy::disallowed_methods, reason = "this is the place that the ban points to")]
pub fn block_here<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
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

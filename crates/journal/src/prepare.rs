//! The thread beside the writer that makes files ready and gives files up.
//!
//! It never touches a file that holds groups which are needed, so a crash in
//! its middle costs a prepared file and nothing else.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use aquifer_env::tasks::spawn_thread;
use parking_lot::{Condvar, Mutex};

use crate::FileId;
use crate::journal::Maintenance;

/// Hands work to the thread. All calls return at once.
#[derive(Debug)]
pub(crate) struct Preparer {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    poked: bool,
    release_through: Option<FileId>,
    stopped: bool,
}

impl Preparer {
    /// Starts the thread.
    pub(crate) fn start(maintenance: Maintenance) -> io::Result<(Arc<Preparer>, JoinHandle<()>)> {
        let state = Mutex::new(State { poked: true, ..State::default() });
        let preparer = Arc::new(Preparer { state, changed: Condvar::new() });
        let its = preparer.clone();
        let thread = spawn_thread("journal-files", move || its.run(&maintenance))?;
        Ok((preparer, thread))
    }

    /// Lets it see whether a file is to be prepared.
    pub(crate) fn poke(&self) {
        self.state.lock().poked = true;
        self.changed.notify_one();
    }

    /// Lets it give up all files up to this one.
    pub(crate) fn release_through(&self, file: FileId) {
        let mut state = self.state.lock();
        state.release_through = state.release_through.max(Some(file));
        state.poked = true;
        self.changed.notify_one();
    }

    /// Ends the thread after what it is doing.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_one();
    }

    fn run(&self, maintenance: &Maintenance) {
        loop {
            let release = {
                let mut state = self.state.lock();
                while !state.poked && !state.stopped {
                    self.changed.wait(&mut state);
                }
                if state.stopped {
                    return;
                }
                state.poked = false;
                state.release_through.take()
            };
            if let Some(file) = release
                && let Err(error) = maintenance.release_through(file)
            {
                // Tried again with the next poke.
                tracing::warn!(%error, through = file.0, "journal files not released");
                let mut state = self.state.lock();
                state.release_through = state.release_through.max(Some(file));
            }
            if maintenance.missing_files() > 0 {
                self.prepare(maintenance);
            }
        }
    }

    /// Prepares one file, and lets the next round see to another, so that
    /// stopping waits for one at most.
    fn prepare(&self, maintenance: &Maintenance) {
        match maintenance.prepare_next() {
            Ok(true) => self.state.lock().poked = true,
            Ok(false) => {}
            // The writer tries for itself when it needs one, and says so.
            Err(error) => tracing::warn!(%error, "no journal file prepared ahead"),
        }
    }
}

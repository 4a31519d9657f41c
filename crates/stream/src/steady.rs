//! A time that never jumps.
//!
//! It begins at a stamp and goes on as the monotonic clock counts, whatever
//! becomes of the wall clock. It is not the time of day: while the process is
//! not running it stands still.

use std::sync::Arc;

use aquifer_env::Clock;
use aquifer_types::Timestamp;

#[derive(Debug, Clone)]
pub(crate) struct SteadyClock {
    clock: Arc<dyn Clock>,
    base: Timestamp,
    base_ns: u64,
}

impl SteadyClock {
    /// Begins at `base`; without one, at the wall clock's present time.
    pub(crate) fn new(clock: Arc<dyn Clock>, base: Option<Timestamp>) -> Self {
        let base = base.unwrap_or(Timestamp(clock.now_ms()));
        Self { base, base_ns: clock.monotonic_ns(), clock }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let elapsed_ms = self.clock.monotonic_ns().saturating_sub(self.base_ns) / 1_000_000;
        Timestamp(self.base.get().saturating_add_unsigned(elapsed_ms))
    }

    /// The lower of this and of the wall clock: whichever of them is ahead, what
    /// is aged by it is not old too early.
    pub(crate) fn believed(&self) -> Timestamp {
        self.now().min(Timestamp(self.clock.now_ms()))
    }
}

//! The seam to time: a wall clock that may jump, and one that only goes on.

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the time comes from.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Wall-clock milliseconds since 1970-01-01 UTC. May jump either way.
    fn now_ms(&self) -> i64;
    /// Nanoseconds since some fixed moment of this process; never goes back.
    fn monotonic_ns(&self) -> u64;
}

/// The machine's clocks.
#[derive(Debug, Clone)]
pub struct RealClock {
    started: Instant,
}

impl RealClock {
    /// A clock whose monotonic time starts at zero now.
    pub fn new() -> RealClock {
        RealClock { started: Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> RealClock {
        RealClock::new()
    }
}

impl Clock for RealClock {
    fn now_ms(&self) -> i64 {
        let saturate = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => saturate(since),
            Err(before) => -saturate(before.duration()),
        }
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct MockClock {
    now_ms: AtomicI64,
    monotonic_ns: AtomicU64,
}

impl MockClock {
    /// A clock that stands at `now_ms`, with monotonic time zero.
    pub fn new(now_ms: i64) -> MockClock {
        MockClock { now_ms: AtomicI64::new(now_ms), monotonic_ns: AtomicU64::new(0) }
    }

    /// Lets the wall clock jump, in either direction; monotonic time stays.
    pub fn set_now_ms(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }

    /// Lets `duration` pass on both clocks; the wall clock moves by its whole
    /// milliseconds.
    pub fn advance(&self, duration: Duration) {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
        self.monotonic_ns.fetch_add(ns, Ordering::SeqCst);
    }
}

impl Clock for MockClock {
    fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ns(&self) -> u64 {
        self.monotonic_ns.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_clock_is_past_2020_and_goes_on() {
        let clock = RealClock::new();
        assert!(clock.now_ms() > 1_577_836_800_000);
        let first = clock.monotonic_ns();
        assert!(clock.monotonic_ns() >= first);
    }

    #[test]
    fn a_mock_clock_moves_only_when_told() {
        let clock = MockClock::new(1_000);
        assert_eq!((clock.now_ms(), clock.monotonic_ns()), (1_000, 0));
        clock.advance(Duration::from_millis(5));
        assert_eq!((clock.now_ms(), clock.monotonic_ns()), (1_005, 5_000_000));
        clock.set_now_ms(-7);
        assert_eq!((clock.now_ms(), clock.monotonic_ns()), (-7, 5_000_000));
    }
}

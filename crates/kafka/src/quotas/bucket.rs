//! How much one client may still take.
//!
//! A bucket fills with its quota's rate up to what the windows hold, and what is
//! taken may go below zero: whoever took too much waits until that is paid back.
//! So over any time a client takes at most the rate for that time and a bucket
//! full, whatever the sizes of its requests. Without a clock of its own.

use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bucket {
    rate: f64,
    /// What is left; below zero, what is owed.
    left: f64,
    at_ns: u64,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(rate: f64, windows: Duration, now_ns: u64) -> Self {
        Self { rate, left: capacity(rate, windows), at_ns: now_ns }
    }

    /// Takes `amount` out at `rate` a second; how long it is until what is owed
    /// is paid back, which is for ever where nothing flows in.
    pub(super) fn take(
        &mut self,
        amount: f64,
        rate: f64,
        windows: Duration,
        now_ns: u64,
    ) -> Duration {
        self.fill(windows, now_ns);
        if rate != self.rate {
            // A new rate leaves the bucket as full as it was. What is owed stays.
            let share = self.left / capacity(self.rate, windows);
            if self.left > 0.0 && share.is_finite() {
                self.left = share * capacity(rate, windows);
            }
            self.rate = rate;
        }
        self.left -= amount;
        if self.left >= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(-self.left / rate.max(0.0)).unwrap_or(Duration::MAX)
    }

    /// Whether forgetting it changes nothing.
    pub(super) fn is_full(&mut self, windows: Duration, now_ns: u64) -> bool {
        self.fill(windows, now_ns);
        self.left >= capacity(self.rate, windows)
    }

    /// What is left, as a part of what it holds.
    pub(super) fn share(&self, windows: Duration) -> f64 {
        self.left / capacity(self.rate, windows).max(1.0)
    }

    fn fill(&mut self, windows: Duration, now_ns: u64) {
        let elapsed = Duration::from_nanos(now_ns.saturating_sub(self.at_ns));
        let inflow = elapsed.as_secs_f64() * self.rate.max(0.0);
        self.left = (self.left + inflow).min(capacity(self.rate, windows));
        self.at_ns = self.at_ns.max(now_ns);
    }
}

fn capacity(rate: f64, windows: Duration) -> f64 {
    rate.max(0.0) * windows.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: Duration = Duration::from_secs(10);
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_was_taken_too_much_is_paid_back() {
        let mut bucket = Bucket::new(100.0, WINDOWS, 0);
        let mut check = |at: u64, amount: f64, rate: f64, wait_s: f64| {
            let wait = bucket.take(amount, rate, WINDOWS, at).as_secs_f64();
            assert!((wait - wait_s).abs() < 1e-6, "at {at}: {wait}");
        };
        check(0, 1_000.0, 100.0, 0.0);
        check(0, 50.0, 100.0, 0.5);
        // What is owed does not go away by asking.
        check(SECOND / 4, 0.0, 100.0, 0.25);
        check(SECOND / 2, 0.0, 100.0, 0.0);
        check(2 * SECOND, 200.0, 100.0, 0.5);
        // Half of it is owed at a rate that is twice as high.
        check(2 * SECOND, 0.0, 200.0, 0.25);
        // It holds no more than its windows, however long nobody asks.
        check(5_000 * SECOND, 2_100.0, 200.0, 0.5);
        // A clock that stands still or goes back fills nothing.
        check(4_000 * SECOND, 0.0, 200.0, 0.5);
    }

    #[test]
    fn a_new_rate_leaves_it_as_full_as_it_was() {
        let mut bucket = Bucket::new(100.0, WINDOWS, 0);
        assert_eq!(bucket.take(500.0, 100.0, WINDOWS, 0), Duration::ZERO);
        assert_eq!(bucket.take(100.0, 20.0, WINDOWS, 0), Duration::ZERO);
        assert_eq!(bucket.take(20.0, 20.0, WINDOWS, 0), Duration::from_secs(1));
    }

    #[test]
    fn a_rate_of_nothing_lets_nothing_through() {
        for rate in [0.0, -5.0] {
            let mut bucket = Bucket::new(rate, WINDOWS, 0);
            assert_eq!(bucket.take(0.0, rate, WINDOWS, SECOND), Duration::ZERO);
            assert_eq!(bucket.take(1.0, rate, WINDOWS, SECOND), Duration::MAX);
            // Until there is one.
            assert!(bucket.take(0.0, 10.0, WINDOWS, SECOND) < Duration::from_secs(1));
        }
    }

    #[test]
    fn over_any_time_the_rate_holds() {
        for size in [1.0, 70.0, 900.0, 5_000.0] {
            let (mut bucket, mut now, mut taken) = (Bucket::new(100.0, WINDOWS, 0), 0, 0.0);
            while now < 1_000 * SECOND {
                let wait = bucket.take(size, 100.0, WINDOWS, now);
                taken += size;
                now += u64::try_from(wait.as_nanos()).unwrap() + SECOND / 1_000;
            }
            let seconds = now as f64 / SECOND as f64;
            assert!(taken <= 100.0 * (seconds + WINDOWS.as_secs_f64()) + 1.0, "{size}: {taken}");
            assert!(taken >= 100.0 * seconds * 0.9, "{size}: {taken} in {seconds} s");
        }
    }
}

//! How fast an address may try: each failure makes its next attempt wait
//! longer, up to a limit, and time forgives.
//!
//! The whole address is slowed down, not a user: nobody can lock another out
//! from elsewhere.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// The pause behind the first failure; it doubles with each.
const DELAY_MS_FIRST: u64 = 50;
/// One failure is forgiven each time that this passes.
const FORGIVEN_MS: u64 = 10_000;

/// The limits of [`Attempts`].
#[derive(Debug, Clone, Copy)]
pub struct AttemptLimits {
    /// The longest that an attempt waits.
    pub delay_max: Duration,
    /// Addresses that are remembered; the one forgiven first goes for a new one.
    pub addresses_max: usize,
}

/// The failures of each address.
#[derive(Debug)]
pub struct Attempts {
    limits: AttemptLimits,
    of: HashMap<IpAddr, Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    /// When `count` was right; one less for each `FORGIVEN_MS` since.
    counted_ms: u64,
    /// When the next attempt may begin.
    free_ms: u64,
}

impl Attempts {
    /// Nobody has failed yet.
    #[must_use]
    pub fn new(limits: AttemptLimits) -> Self {
        Self { limits, of: HashMap::new() }
    }

    /// How long an attempt from this address has to wait before it is looked
    /// at. Attempts side by side wait one behind the other, up to the limit.
    pub fn begin(&mut self, address: IpAddr, now: Duration) -> Duration {
        let now = millis(now);
        let delay_max = millis(self.limits.delay_max);
        let key = network(address);
        let Some(failures) = self.of.get_mut(&key) else { return Duration::ZERO };
        failures.forgive(now);
        if failures.count == 0 {
            self.of.remove(&key);
            return Duration::ZERO;
        }
        let begins = failures.free_ms.clamp(now, now.saturating_add(delay_max));
        failures.free_ms = begins + failures.delay_ms(delay_max);
        Duration::from_millis(begins - now)
    }

    /// An attempt from this address failed.
    pub fn failed(&mut self, address: IpAddr, now: Duration) {
        let now = millis(now);
        let delay_max = millis(self.limits.delay_max);
        let key = network(address);
        if !self.of.contains_key(&key) && self.of.len() >= self.limits.addresses_max {
            self.forget_one(now);
        }
        let failures =
            self.of.entry(key).or_insert(Failures { count: 0, counted_ms: now, free_ms: now });
        failures.forgive(now);
        failures.count = failures.count.saturating_add(1);
        failures.free_ms = failures.free_ms.max(now + failures.delay_ms(delay_max));
    }

    /// Makes room: those forgiven go, else the one with the fewest failures.
    fn forget_one(&mut self, now: u64) {
        self.of.retain(|_, failures| {
            failures.forgive(now);
            failures.count > 0
        });
        if self.of.len() < self.limits.addresses_max {
            return;
        }
        let fewest = self.of.iter().min_by_key(|(_, failures)| failures.count);
        if let Some(address) = fewest.map(|(address, _)| *address) {
            self.of.remove(&address);
        }
    }
}

impl Failures {
    fn forgive(&mut self, now: u64) {
        let forgiven = now.saturating_sub(self.counted_ms) / FORGIVEN_MS;
        self.count = self.count.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
        self.counted_ms += forgiven * FORGIVEN_MS;
    }

    fn delay_ms(&self, max: u64) -> u64 {
        let doublings = self.count.saturating_sub(1).min(20);
        (DELAY_MS_FIRST << doublings).min(max)
    }
}

/// Who shares a fate: an IPv4 address, or the /64 that one IPv6 host has.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AttemptLimits =
        AttemptLimits { delay_max: Duration::from_secs(2), addresses_max: 3 };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn failures_slow_their_own_address_down_and_are_forgiven() {
        let mut attempts = Attempts::new(LIMITS);
        assert_eq!(attempts.begin(address(1), at(0)), at(0));
        for _ in 0..3 {
            attempts.failed(address(1), at(0));
        }
        assert_eq!(attempts.begin(address(1), at(0)), at(200));
        assert_eq!(attempts.begin(address(2), at(0)), at(0));
        // Side by side they wait one behind the other, and no longer than the limit.
        assert_eq!(attempts.begin(address(1), at(0)), at(400));
        for _ in 0..50 {
            attempts.failed(address(1), at(0));
            assert!(attempts.begin(address(1), at(0)) <= LIMITS.delay_max);
        }
        assert_eq!(attempts.begin(address(1), at(0)), LIMITS.delay_max);
        let forgiven = at(54 * FORGIVEN_MS);
        assert_eq!(attempts.begin(address(1), forgiven), at(0));
        assert!(attempts.of.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut attempts = Attempts::new(LIMITS);
        for last in 0..3 {
            attempts.failed(address(last), at(0));
            attempts.failed(address(last), at(0));
        }
        for last in 3..200 {
            attempts.failed(address(last), at(1));
            assert!(attempts.of.len() <= 3);
        }
    }

    #[test]
    fn an_ipv6_host_is_its_network() {
        let mut attempts = Attempts::new(LIMITS);
        attempts.failed("2001:db8::1".parse().unwrap(), at(0));
        assert!(attempts.begin("2001:db8::ffff".parse().unwrap(), at(0)) > at(0));
        assert_eq!(attempts.begin("2001:db8:0:1::1".parse().unwrap(), at(0)), at(0));
        attempts.failed("::ffff:10.0.0.1".parse().unwrap(), at(0));
        assert!(attempts.begin(address(1), at(0)) > at(0));
    }
}

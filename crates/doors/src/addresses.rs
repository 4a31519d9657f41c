//! How many connections each address has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// The bits of an IPv6 address that one customer of a network usually has to
/// himself count as one address.
const V6_PREFIX_BITS: u32 = 64;

/// Connections by address. Cloning shares it; it has as many entries as there
/// are connections at most.
#[derive(Debug, Clone)]
pub struct Addresses {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    max: usize,
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub struct Counted {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    /// `max` connections for each address.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { counts: Arc::default(), max }
    }

    /// Counts a connection; none where its address has enough.
    #[must_use]
    pub fn enter(&self, address: IpAddr) -> Option<Counted> {
        let address = key(address);
        let mut counts = self.counts.lock();
        let count = counts.entry(address).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Counted { addresses: self.clone(), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let bits = v6.to_bits() >> V6_PREFIX_BITS << V6_PREFIX_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_no_more() {
        let addresses = Addresses::new(2);
        let enter = |text: &str| addresses.enter(text.parse().unwrap());
        let held = [enter("10.0.0.1"), enter("::ffff:10.0.0.1")];
        assert!(held.iter().all(Option::is_some));
        assert!(enter("10.0.0.1").is_none());
        let v6 = [enter("2001:db8::1"), enter("2001:db8::ffff:2")];
        assert!(v6.iter().all(Option::is_some) && enter("2001:db8::3").is_none());
        assert!(enter("2001:db8:0:1::1").is_some() && enter("10.0.0.2").is_some());
        drop(held);
        assert!(enter("10.0.0.1").is_some());
        drop(v6);
        assert!(addresses.counts.lock().is_empty());
    }
}

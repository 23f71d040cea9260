//! Failed logins, counted by where they come from. An address that has failed too often is told to wait, each time it
//! fails again; who knows a token is let in all the same, or one broken client would lock out its neighbours. (Tokens
//! are 256 random bits: it is load and noise that are limited here, not guessing.)

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::error::RequestError;

/// Addresses that are remembered; beyond it those that failed longest ago are forgotten.
const ADDRESSES_MAX: usize = 4096;
/// Failures that an address may make at once.
const BURST: u32 = 20;
/// And one more each time this has passed.
const REFILL: Duration = Duration::from_secs(3);

/// Of all listeners together.
#[derive(Debug, Default)]
pub struct Failures {
    by_address: Mutex<BTreeMap<IpAddr, Bucket>>,
    failed: AtomicU64,
    limited: AtomicU64,
}

#[derive(Debug)]
struct Bucket {
    left: u32,
    since: Duration,
}

impl Failures {
    /// What a failed login at `now` (any clock that goes on) is answered with: an address that fails too often is told
    /// to wait. Other errors stay as they are.
    pub(crate) fn answer(&self, error: RequestError, address: IpAddr, now: Duration) -> RequestError {
        match error {
            RequestError::Unauthenticated if self.note(address, now) => RequestError::TooManyFailures,
            error => error,
        }
    }

    /// Notes a failed login. True if the address should wait.
    fn note(&self, address: IpAddr, now: Duration) -> bool {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut buckets = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(address);
        if buckets.len() >= ADDRESSES_MAX && !buckets.contains_key(&address) {
            let oldest = buckets.iter().min_by_key(|(_, bucket)| bucket.since).map(|(address, _)| *address);
            oldest.map(|oldest| buckets.remove(&oldest));
        }
        let bucket = buckets.entry(address).or_insert(Bucket { left: BURST, since: now });
        let periods = now.saturating_sub(bucket.since).as_millis() / REFILL.as_millis();
        if periods > 0 {
            bucket.left = bucket.left.saturating_add(u32::try_from(periods).unwrap_or(BURST)).min(BURST);
            bucket.since = now;
        }
        match bucket.left.checked_sub(1) {
            Some(left) => {
                bucket.left = left;
                false
            }
            None => {
                self.limited.fetch_add(1, Ordering::Relaxed);
                true
            }
        }
    }

    /// For metrics.
    pub(crate) fn counters(&self) -> [(&'static str, u64); 2] {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("failed_logins", load(&self.failed)), ("limited_logins", load(&self.limited))]
    }
}

/// One subscriber has a whole /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_time_heals() {
        let failures = Failures::default();
        let (here, there): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let now = Duration::from_secs(1000);
        assert!((0..BURST).all(|_| !failures.note(here, now)));
        assert!(failures.note(here, now));
        assert!(!failures.note(there, now), "another address");
        assert!(!failures.note(here, now + REFILL));
        assert!(failures.note(here, now + REFILL));
        assert_eq!(failures.counters(), [("failed_logins", u64::from(BURST) + 4), ("limited_logins", 2)]);
    }

    #[test]
    fn memory_is_bounded() {
        let failures = Failures::default();
        for number in 0..2 * ADDRESSES_MAX as u128 {
            failures.note(IpAddr::V6((number << 64).into()), Duration::from_millis(number as u64));
        }
        assert_eq!(failures.by_address.lock().unwrap().len(), ADDRESSES_MAX);
    }
}

//! What a token and an account may ask of this node: how often, and how much an account may hold. Everything is off
//! unless the operator says otherwise.
//!
//! Rates are this node's own. What an account holds is counted here once a minute, over what is replicated from
//! everywhere; between two counts what is written here is added, and what goes elsewhere is not seen.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::error::RequestError;
use crate::kv::{AccountId, Kv, TokenId};

/// Tokens, or accounts, whose rates are remembered; beyond it those that asked longest ago are forgotten.
const ASKERS_MAX: usize = 16_384;
/// How long a count of what an account holds is good for.
const COUNT_GOOD: Duration = Duration::from_secs(60);
/// Before a write is refused it is counted anew, unless that was just done.
const COUNT_FRESH: Duration = Duration::from_secs(2);

/// The limits; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Requests a second with one token, and as many at once after a pause.
    pub token_rate: u64,
    /// Requests a second for one account, and as many at once after a pause.
    pub account_rate: u64,
    /// Keys that an account may hold.
    pub account_keys: u64,
    /// Bytes of values that an account may hold, as they are kept: sealed, without keys and metadata.
    pub account_bytes: u64,
}

/// Measures what is asked against the limits.
#[derive(Default)]
pub(crate) struct Meter {
    quotas: Quotas,
    tokens: Rates<TokenId>,
    accounts: Rates<AccountId>,
    held: Mutex<BTreeMap<AccountId, Held>>,
    /// One count at a time: it reads all keys.
    counting: tokio::sync::Mutex<()>,
}

/// What an account holds.
#[derive(Clone, Copy)]
struct Held {
    keys: u64,
    bytes: u64,
    counted: Duration,
}

impl Meter {
    pub(crate) fn new(quotas: Quotas) -> Self {
        Self { quotas, ..Self::default() }
    }

    /// A request at `now` (by any clock that goes on; it is looked at if there are limits).
    pub(crate) fn ask(
        &self,
        token: TokenId,
        account: AccountId,
        now: impl FnOnce() -> Duration,
    ) -> Result<(), RequestError> {
        if self.quotas.token_rate == 0 && self.quotas.account_rate == 0 {
            return Ok(());
        }
        let now = now();
        if !self.tokens.take(token, self.quotas.token_rate, now) {
            return Err(RequestError::TooOften { what: "this token", rate: self.quotas.token_rate });
        }
        if !self.accounts.take(account, self.quotas.account_rate, now) {
            return Err(RequestError::TooOften { what: "this account", rate: self.quotas.account_rate });
        }
        Ok(())
    }

    /// Whether how much accounts hold matters at all.
    pub(crate) fn bounds_holdings(&self) -> bool {
        self.quotas.account_keys > 0 || self.quotas.account_bytes > 0
    }

    /// So many keys with so many bytes are about to be written. What they overwrite goes with the next count.
    pub(crate) async fn admit(&self, kv: &Kv, account: AccountId, keys: u64, bytes: u64) -> Result<(), RequestError> {
        if !self.bounds_holdings() {
            return Ok(());
        }
        let mut patience = COUNT_GOOD;
        loop {
            let now = Duration::from_millis(kv.now_ms());
            let fresh = |held: &Held| now.saturating_sub(held.counted) < patience;
            let known = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&account).copied().filter(fresh);
            let Some(_) = known else {
                self.count(kv, account, patience).await?;
                patience = COUNT_GOOD;
                continue;
            };
            match self.add(account, keys, bytes) {
                Err(_) if patience == COUNT_GOOD && now.saturating_sub(self.counted(account)) >= COUNT_FRESH => {
                    patience = COUNT_FRESH;
                }
                outcome => return outcome,
            }
        }
    }

    fn counted(&self, account: AccountId) -> Duration {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(&account).map_or(Duration::ZERO, |held| held.counted)
    }

    fn add(&self, account: AccountId, keys: u64, bytes: u64) -> Result<(), RequestError> {
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = all.get_mut(&account) else { return Ok(()) };
        let over = |max: u64, held: u64, more: u64| max > 0 && held.saturating_add(more) > max;
        if over(self.quotas.account_keys, held.keys, keys) {
            return Err(RequestError::HoldsTooMuch { held: held.keys, max: self.quotas.account_keys, what: "keys" });
        }
        if over(self.quotas.account_bytes, held.bytes, bytes) {
            return Err(RequestError::HoldsTooMuch { held: held.bytes, max: self.quotas.account_bytes, what: "bytes" });
        }
        held.keys += keys;
        held.bytes += bytes;
        Ok(())
    }

    async fn count(&self, kv: &Kv, account: AccountId, patience: Duration) -> Result<(), RequestError> {
        let _turn = self.counting.lock().await;
        let now = Duration::from_millis(kv.now_ms());
        if now.saturating_sub(self.counted(account)) < patience {
            // Somebody else has just done it.
            return Ok(());
        }
        let (keys, bytes) = kv.holdings(account).await.map_err(RequestError::kv("count"))?;
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(account, Held { keys, bytes, counted: now });
        Ok(())
    }
}

/// Who has asked how often lately.
struct Rates<K>(Mutex<BTreeMap<K, Bucket>>);

struct Bucket {
    /// In thousandths of a request.
    left: u64,
    since: Duration,
}

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Copy> Rates<K> {
    fn take(&self, asker: K, rate: u64, now: Duration) -> bool {
        if rate == 0 {
            return true;
        }
        let full = rate.saturating_mul(1_000);
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= ASKERS_MAX && !buckets.contains_key(&asker) {
            // A full bucket says nothing; one that was not used for a second is full.
            buckets.retain(|_, bucket| now.saturating_sub(bucket.since) < Duration::from_secs(1));
            if buckets.len() >= ASKERS_MAX {
                buckets.pop_first();
            }
        }
        let bucket = buckets.entry(asker).or_insert(Bucket { left: full, since: now });
        let passed_ms = u64::try_from(now.saturating_sub(bucket.since).as_millis()).unwrap_or(u64::MAX);
        if passed_ms > 0 {
            bucket.left = bucket.left.saturating_add(passed_ms.saturating_mul(rate)).min(full);
            bucket.since = now;
        }
        let left = bucket.left.checked_sub(1_000);
        bucket.left = left.unwrap_or(bucket.left);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_and_a_pause_allows_a_burst() {
        let rates = Rates::default();
        let at = |ms: u64| Duration::from_secs(1_000) + Duration::from_millis(ms);
        assert_eq!((0..20).filter(|_| rates.take(1, 10, at(0))).count(), 10);
        assert!(rates.take(2, 10, at(0)), "another one's");
        assert!(!rates.take(1, 10, at(99)) && rates.take(1, 10, at(100)) && !rates.take(1, 10, at(100)));
        let spread = (0..1_000).filter(|n| rates.take(1, 10, at(200 + n * 10))).count();
        assert!((99..=102).contains(&spread), "{spread} in ten seconds");
        assert_eq!((0..50).filter(|_| rates.take(1, 10, at(3_600_000))).count(), 10, "no more than a second's");
        assert!((0..1_000).all(|_| rates.take(1, 0, at(0))), "no limit");
    }

    #[test]
    fn memory_is_bounded() {
        let rates = Rates::default();
        for asker in 0..2 * ASKERS_MAX {
            rates.take(asker, 1, Duration::from_secs(1));
        }
        assert_eq!(rates.0.lock().unwrap().len(), ASKERS_MAX);
    }
}

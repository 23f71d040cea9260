//! What a program reaches: its own namespaces at the node, and the network, each so often.
//!
//! What a program asks for can't be told by the requests that it is answering, so it is counted together: as much as all
//! that are being answered may ask for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::header::HeaderMap;
use tokio::time::Instant;

use crate::binding::{Authorize, NamespaceRefused, stated_namespace};
use crate::kv::{Kv, NamespaceId, Scope};
use crate::worker::hops::HOPS_MAX;
use crate::worker::{Binding, Program};

/// How often a request may use KV.
pub(super) const KV_OPERATIONS_MAX: u64 = 1_000;

/// What a program may do, for as long as it is deployed.
pub(super) struct Reach {
    namespaces: BTreeSet<NamespaceId>,
    /// Notes what the program has seen and written.
    pub(super) session: Kv,
    pub(super) allowance: Arc<Allowance>,
}

impl Reach {
    pub(super) fn new(program: &Program, kv: &Kv) -> Self {
        let namespaces = program.bindings.iter().filter_map(|(_, binding)| match binding {
            Binding::Kv(namespace) => Some(*namespace),
            _ => None,
        });
        Self { namespaces: namespaces.collect(), session: kv.session(), allowance: Arc::default() }
    }
}

/// How often a request may fetch, by how many scripts stand between it and its visitor. Each fetch may come back as a
/// request, so that one visitor causes a bounded number of them whatever scripts do to one another, or to themselves.
pub(super) const FETCHES_MAX: [u64; HOPS_MAX + 1] = [1_000, 50, 5, 0];
/// How long what goes on after an answer counts as being as far from its visitor as the answer was.
const LINGER_MAX: Duration = Duration::from_secs(30);

/// How often a program may still use KV, and fetch.
#[derive(Default)]
pub(super) struct Allowance(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// Requests that are being answered, by their hops.
    requests: [u64; HOPS_MAX + 1],
    /// When the last one with so many hops ended.
    ended: [Option<Instant>; HOPS_MAX + 1],
    operations_left: u64,
    fetches_left: u64,
}

impl Allowance {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins, that many scripts from a visitor, and brings its share. What is not used does not pile up.
    pub(super) fn begin(self: &Arc<Self>, hops: usize) -> Visit {
        let hops = hops.min(HOPS_MAX);
        let mut counts = self.counts();
        counts.requests[hops] += 1;
        let requests: u64 = counts.requests.iter().sum();
        let fetches: u64 = counts.requests.iter().zip(FETCHES_MAX).map(|(requests, each)| requests * each).sum();
        counts.operations_left = (counts.operations_left + KV_OPERATIONS_MAX).min(KV_OPERATIONS_MAX * requests);
        counts.fetches_left = (counts.fetches_left + FETCHES_MAX[hops]).min(fetches);
        Visit { allowance: Arc::clone(self), hops }
    }

    fn take_operation(&self) -> bool {
        let mut counts = self.counts();
        let left = counts.operations_left.checked_sub(1);
        counts.operations_left = left.unwrap_or(0);
        left.is_some()
    }

    /// How many scripts a fetch will have gone through, if it may be made: as many as it can be at most.
    pub(super) fn take_fetch(&self) -> Option<usize> {
        let mut counts = self.counts();
        counts.fetches_left = counts.fetches_left.checked_sub(1)?;
        let may_be = |hops: &usize| {
            counts.requests[*hops] > 0 || counts.ended[*hops].is_some_and(|ended| ended.elapsed() < LINGER_MAX)
        };
        Some((0..=HOPS_MAX).rev().find(may_be).unwrap_or(0) + 1)
    }
}

/// A request that is being answered. What goes on after the answer may use what is left.
pub(super) struct Visit {
    allowance: Arc<Allowance>,
    hops: usize,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut counts = self.allowance.counts();
        counts.requests[self.hops] -= 1;
        counts.ended[self.hops] = Some(Instant::now());
    }
}

impl Authorize for Reach {
    fn namespace(&self, kv: &Kv, headers: &HeaderMap, _: Scope) -> Result<NamespaceId, NamespaceRefused> {
        let namespace = stated_namespace(headers)?;
        if !self.namespaces.contains(&namespace) {
            return Err(NamespaceRefused::BindingNamespace("There is no such namespace among the script's bindings"));
        }
        if !self.allowance.take_operation() {
            return Err(NamespaceRefused::BindingNamespace("Too many API requests by single worker invocation"));
        }
        kv.check_namespace(namespace)
            .map_err(|_| NamespaceRefused::BindingNamespace("There is no namespace with the id of this binding"))?;
        Ok(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_brings_its_share_and_none_piles_up() {
        let allowance = Arc::new(Allowance::default());
        assert!(!allowance.take_operation() && allowance.take_fetch().is_none(), "nothing runs");
        let first = allowance.begin(0);
        assert!((0..KV_OPERATIONS_MAX).all(|_| allowance.take_operation()));
        assert!((0..FETCHES_MAX[0]).all(|_| allowance.take_fetch() == Some(1)));
        assert!(!allowance.take_operation() && allowance.take_fetch().is_none(), "that was all");
        let second = allowance.begin(0);
        assert_eq!(allowance.counts().operations_left, KV_OPERATIONS_MAX);
        drop((first, second));
        for _ in 0..5 {
            drop(allowance.begin(0));
        }
        assert_eq!(allowance.counts().operations_left, KV_OPERATIONS_MAX);
        assert_eq!(allowance.counts().fetches_left, FETCHES_MAX[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_farther_from_a_visitor_the_fewer_fetches() {
        let allowance = Arc::new(Allowance::default());
        let near = allowance.begin(0);
        let far = allowance.begin(2);
        assert_eq!(allowance.counts().fetches_left, FETCHES_MAX[0] + FETCHES_MAX[2]);
        assert_eq!(allowance.take_fetch(), Some(3), "it may be of either");
        drop(far);
        tokio::time::advance(LINGER_MAX - Duration::from_secs(1)).await;
        assert_eq!(allowance.take_fetch(), Some(3), "what was to go on after an answer");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(allowance.take_fetch(), Some(1));
        drop(near);
        let farthest = Arc::new(Allowance::default());
        let _visit = farthest.begin(usize::MAX);
        assert_eq!(farthest.take_fetch(), None, "here it ends");
    }

    /// A script that does nothing but ask itself, over all that a visitor can set off.
    #[test]
    fn a_visitor_sets_off_a_bounded_number_of_requests() {
        fn storm(hops: usize, requests: u64) -> u64 {
            let allowance = Arc::new(Allowance::default());
            let _visit = allowance.begin(hops);
            let taken: Vec<usize> = std::iter::from_fn(|| allowance.take_fetch()).collect();
            match taken.first() {
                Some(next) => requests + storm(*next, requests * taken.len() as u64),
                None => requests,
            }
        }
        assert_eq!(storm(0, 1), 1 + 1_000 + 1_000 * 50 + 1_000 * 50 * 5);
    }
}

//! What a program reaches at the node: its own namespaces, so often, and over so many connections.
//!
//! A request of a program that arrives here can't be told from its other requests, so what they may ask for is counted
//! together: as much as all that are being answered may ask for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::header::HeaderMap;

use crate::binding::{Authorize, NamespaceRefused, stated_namespace};
use crate::kv::{Kv, NamespaceId, Scope};
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

/// How often a program may still use KV.
#[derive(Default)]
pub(super) struct Allowance(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    requests: u64,
    left: u64,
}

impl Allowance {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins, and brings its share. What is not used does not pile up.
    pub(super) fn begin(self: &Arc<Self>) -> Visit {
        let mut counts = self.counts();
        counts.requests += 1;
        counts.left = (counts.left + KV_OPERATIONS_MAX).min(KV_OPERATIONS_MAX * counts.requests);
        Visit(Arc::clone(self))
    }

    fn take(&self) -> bool {
        let mut counts = self.counts();
        let left = counts.left.checked_sub(1);
        counts.left = left.unwrap_or(0);
        left.is_some()
    }
}

/// A request that is being answered. What goes on after the answer may use what is left.
pub(super) struct Visit(Arc<Allowance>);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.counts().requests -= 1;
    }
}

impl Authorize for Reach {
    fn namespace(&self, kv: &Kv, headers: &HeaderMap, _: Scope) -> Result<NamespaceId, NamespaceRefused> {
        let namespace = stated_namespace(headers)?;
        if !self.namespaces.contains(&namespace) {
            return Err(NamespaceRefused::BindingNamespace("There is no such namespace among the script's bindings"));
        }
        if !self.allowance.take() {
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
        assert!(!allowance.take(), "nothing runs");
        let first = allowance.begin();
        assert!((0..KV_OPERATIONS_MAX).all(|_| allowance.take()));
        assert!(!allowance.take(), "that was all");
        let second = allowance.begin();
        assert_eq!(allowance.counts().left, KV_OPERATIONS_MAX);
        drop((first, second));
        for _ in 0..5 {
            drop(allowance.begin());
        }
        assert_eq!(allowance.counts().left, KV_OPERATIONS_MAX);
    }
}

//! How many requests each script is answering: one that answers too many gets no more, and takes no one else's place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::routes::Deployed;
use crate::worker::ScriptId;

/// Requests that one script answers at a time; WebSockets count as long as they are open.
pub(super) const BUSY_MAX: usize = 1_000;

/// Those that are being answered, by script.
#[derive(Clone, Default)]
pub(super) struct Crowd(Arc<Mutex<BTreeMap<ScriptId, usize>>>);

/// A place in it.
pub(super) struct Busy {
    crowd: Crowd,
    deployed: Arc<Deployed>,
}

impl Crowd {
    /// A place among the requests that a script answers; `None` if all are taken.
    pub(super) fn enter(&self, deployed: &Arc<Deployed>) -> Option<Busy> {
        let mut scripts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match scripts.get_mut(&deployed.id) {
            Some(count) if *count >= BUSY_MAX => return None,
            Some(count) => *count += 1,
            None => drop(scripts.insert(deployed.id.clone(), 1)),
        }
        Some(Busy { crowd: self.clone(), deployed: Arc::clone(deployed) })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut scripts = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = scripts.get_mut(&self.deployed.id) {
            *count -= 1;
            if *count == 0 {
                scripts.remove(&self.deployed.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::AccountId;
    use crate::worker::Live;

    #[test]
    fn a_script_has_so_many_visitors_at_a_time_and_others_have_theirs() {
        let crowd = Crowd::default();
        let script = |name: &str| {
            let id = ScriptId { account: AccountId([1; 16]), script: name.into() };
            let (versions, crons, routes, subdomain) = Default::default();
            let live = Live { versions, workers_dev: true, crons, routes, subdomain };
            Arc::new(Deployed { id, live, name: None })
        };
        let mut inside: Vec<Busy> = (0..BUSY_MAX).map(|_| crowd.enter(&script("a")).expect("a place")).collect();
        assert!(crowd.enter(&script("a")).is_none());
        assert!(crowd.enter(&script("b")).is_some());
        inside.pop();
        assert!(crowd.enter(&script("a")).is_some(), "who leaves makes room");
        drop(inside);
        assert!(crowd.0.lock().expect("a lock").is_empty(), "nothing is kept of scripts that are idle");
    }
}

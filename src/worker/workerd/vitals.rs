//! How the processes are, for whoever measures.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::host::Host;
use super::pool::Incident;
use crate::worker::engine::{EngineError, Vitals};

/// How many processes came to harm, by why.
#[derive(Default)]
pub(super) struct Ends(Mutex<BTreeMap<&'static str, u64>>);

impl Ends {
    pub(super) fn count(&self, incident: &Incident) {
        let why = match incident {
            Incident::Stalled => return,
            Incident::Killed => "killed",
            Incident::Ended(EngineError::Cpu { .. }) => "cpu",
            Incident::Ended(EngineError::Memory) => "memory",
            Incident::Ended(_) => "crash",
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(why).or_default() += 1;
    }

    /// With what the processes that run take.
    pub(super) fn vitals<'a>(&self, hosts: impl Iterator<Item = &'a Host>) -> Vitals {
        let memory = hosts.filter_map(|host| Some(host.process.usage()?.1));
        let (processes, memory_bytes) = memory.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Vitals { processes, memory_bytes, ended, ..Vitals::default() }
    }
}

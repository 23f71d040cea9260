//! How Workers fare at a node: what visitors were answered, and what runs the scripts.
//!
//! Knows nothing of scripts but their names.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use super::{
    Histogram, Page, WORKER_DURATION, WORKER_ENDED, WORKER_MEMORY, WORKER_PROCESSES, WORKER_REQUESTS, WORKER_RUNTIMES,
    WORKER_SCRIPTS, WORKER_TIMERS,
};

/// Scripts that are counted each by itself; all others together are [`OTHERS`].
const NAMES_MAX: usize = 200;
/// Longest name shown, in characters.
const NAME_LEN_MAX: usize = 100;
/// No script's name: those have neither brackets nor spaces.
const OTHERS: &str = "(others)";
/// How a script answered, in whatever way.
pub const ANSWERED: &str = "answered";

/// What runs scripts, as it is now.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct EngineUsage {
    /// Scripts that are deployed.
    pub scripts: usize,
    /// Processes that run.
    pub processes: usize,
    /// Runtimes within the node.
    pub runtimes: usize,
    /// Memory that either have, in bytes.
    pub memory_bytes: u64,
    /// Those that ended before their time, by why.
    pub ended: BTreeMap<&'static str, u64>,
}

type AskEngine = Box<dyn Fn() -> EngineUsage + Send + Sync>;

/// What is measured of Workers.
#[derive(Default)]
pub struct WorkerMetrics {
    /// By script and outcome.
    requests: RwLock<BTreeMap<String, BTreeMap<&'static str, u64>>>,
    timers: RwLock<BTreeMap<&'static str, u64>>,
    durations: Histogram,
    engine: RwLock<Option<AskEngine>>,
}

impl WorkerMetrics {
    /// A visitor was answered, or told why not. `outcome` comes from a short list.
    pub fn answered(&self, script: &str, outcome: &'static str, took: Duration) {
        self.durations.observe(took);
        let mut requests = self.requests.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = requests.get_mut(script).and_then(|outcomes| outcomes.get_mut(outcome)) {
            *count += 1;
            return;
        }
        let name = match requests.contains_key(script) || requests.len() < NAMES_MAX {
            true => script.chars().take(NAME_LEN_MAX).collect(),
            false => OTHERS.to_owned(),
        };
        *requests.entry(name).or_default().entry(outcome).or_default() += 1;
    }

    /// A timer was handled here, or could not be.
    pub fn timed(&self, outcome: &'static str) {
        *self.timers.write().unwrap_or_else(PoisonError::into_inner).entry(outcome).or_default() += 1;
    }

    /// Whom to ask about what runs scripts.
    pub fn ask_engine(&self, ask: impl Fn() -> EngineUsage + Send + Sync + 'static) {
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(ask));
    }

    /// What runs scripts; `None` where Workers are off.
    pub fn engine(&self) -> Option<EngineUsage> {
        self.engine.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|ask| ask())
    }

    /// Requests that a script answered, and those that got another answer.
    pub fn requests(&self) -> (u64, u64) {
        let requests = self.requests.read().unwrap_or_else(PoisonError::into_inner);
        requests.values().flatten().fold((0, 0), |(answered, failed), (outcome, count)| match *outcome == ANSWERED {
            true => (answered + count, failed),
            false => (answered, failed + count),
        })
    }

    pub(super) fn show(&self, page: &mut Page) {
        let Some(engine) = self.engine() else { return };
        page.sample(&WORKER_SCRIPTS, &[], engine.scripts);
        page.sample(&WORKER_PROCESSES, &[], engine.processes);
        page.sample(&WORKER_RUNTIMES, &[], engine.runtimes);
        page.sample(&WORKER_MEMORY, &[], engine.memory_bytes);
        for (why, count) in &engine.ended {
            page.sample(&WORKER_ENDED, &[why], *count);
        }
        for (script, outcomes) in &*self.requests.read().unwrap_or_else(PoisonError::into_inner) {
            for (outcome, count) in outcomes {
                page.sample(&WORKER_REQUESTS, &[script, outcome], *count);
            }
        }
        for (outcome, count) in &*self.timers.read().unwrap_or_else(PoisonError::into_inner) {
            page.sample(&WORKER_TIMERS, &[outcome], *count);
        }
        page.histogram(&WORKER_DURATION, &[], &self.durations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_scripts_there_are_a_page_stays_short() {
        let metrics = WorkerMetrics::default();
        metrics.ask_engine(|| EngineUsage { scripts: 1_000, ended: [("cpu", 2)].into(), ..EngineUsage::default() });
        for number in 0..1_000 {
            metrics.answered(&format!("script-{number}"), ANSWERED, Duration::from_millis(1));
            metrics.answered("script-3", "exception", Duration::from_millis(1));
        }
        let mut page = Page::default();
        metrics.show(&mut page);
        let text = page.finish();
        assert_eq!(text.matches("starling_worker_requests_total{").count(), NAMES_MAX + 2);
        for line in [
            "starling_worker_requests_total{script=\"(others)\",outcome=\"answered\"} 800",
            "starling_worker_requests_total{script=\"script-3\",outcome=\"exception\"} 1000",
            "starling_worker_request_duration_seconds_count 2000",
            "starling_worker_ended_total{why=\"cpu\"} 2",
            "starling_worker_scripts 1000",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
        assert_eq!(metrics.requests(), (1_000, 1_000));
    }

    #[test]
    fn where_workers_are_off_nothing_is_said() {
        let mut page = Page::default();
        WorkerMetrics::default().show(&mut page);
        assert!(!page.finish().contains("\nstarling_worker_"));
    }
}

//! Watches one process: whether its event loop turns, how much it computes, how much memory it has.
//!
//! Time is counted in the process's own processor time, so that a busy machine convicts nobody. Decides nothing about
//! programs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::host::{Host, Kind};
use super::pool::Incident;
use crate::worker::engine::EngineError;

/// How often a process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longest that programs which share a process may compute without a pause; then the others move out.
const SHARED_CPU_MAX: Duration = Duration::from_secs(1);
/// Longest that a program may compute without a pause, unless its owner has set a limit.
pub(super) const CPU_MAX: Duration = Duration::from_secs(5);
/// How long a process may stand still, however little of that time it gets to compute.
const STILL_MAX: Duration = Duration::from_secs(15);

/// Watches until the process has ended, and tells what happens to it.
pub(super) async fn watch_over(host: &Arc<Host>, report: impl Fn(Incident)) {
    let mut probe: Option<Probe> = None;
    let mut has_stalled = false;
    let mut cpu_before = Duration::ZERO;
    loop {
        tokio::select! {
            () = host.process.ended() => return report(match host.process.was_ended_from_outside() {
                true => Incident::Killed,
                false => Incident::Ended(EngineError::Lost),
            }),
            () = sleep(LOOK_EVERY) => {}
        }
        let Some((cpu, memory)) = host.process.usage() else { continue };
        let is_active = host.house.is_busy() || cpu != cpu_before;
        cpu_before = cpu;
        if memory > host.memory_max() {
            return end(host, EngineError::Memory, report).await;
        }
        match &probe {
            Some(sent) if sent.answer.is_finished() => (probe, has_stalled) = (None, false),
            Some(sent) => {
                let spent = cpu.saturating_sub(sent.cpu);
                let limit = cpu_max(host);
                let is_still = sent.at.elapsed() > STILL_MAX.max(limit * 3);
                if is_still && spent < limit / 5 {
                    return end(host, EngineError::Lost, report).await;
                }
                if spent >= limit || is_still {
                    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                    return end(host, EngineError::Cpu { limit_ms }, report).await;
                }
                if !has_stalled && spent >= SHARED_CPU_MAX && host.kind == Kind::Shared {
                    has_stalled = true;
                    report(Incident::Stalled);
                }
            }
            None if is_active => {
                let asked = Arc::clone(host);
                // However it is answered, the loop has turned; or the process has ended, which is noticed anyway.
                let answer = tokio::spawn(async move { drop(asked.ping().await) });
                probe = Some(Probe { at: Instant::now(), cpu, answer });
            }
            None => {}
        }
    }
}

struct Probe {
    at: Instant,
    /// What the process had computed when it was sent.
    cpu: Duration,
    answer: tokio::task::JoinHandle<()>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

async fn end(host: &Host, why: EngineError, report: impl Fn(Incident)) {
    // First the verdict, while it can be seen who was answering.
    report(Incident::Ended(why));
    host.process.kill();
    host.process.ended().await;
}

/// The strictest limit of those that are answering.
fn cpu_max(host: &Host) -> Duration {
    let of = |ms: &u32| Duration::from_millis(u64::from(*ms).max(1));
    let busy = host.seats.values().filter(|seat| seat.is_busy());
    match host.seats.len() {
        1 => busy.filter_map(|seat| seat.program.cpu_ms.as_ref().map(of)).min().unwrap_or(CPU_MAX),
        _ => CPU_MAX,
    }
}

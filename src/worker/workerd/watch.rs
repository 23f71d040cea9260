//! Watches one process: whether its event loop turns, how much it computes, how much memory it has.
//!
//! Time is counted in the process's own processor time, so that a busy machine convicts nobody. Decides nothing about
//! programs.

use std::collections::VecDeque;
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
/// A turn of the event loop that computes for so long is long: whoever shares the process waits for it.
const LONG_TURN: Duration = Duration::from_millis(250);
/// How much a process may compute in long turns within [`TURNS_WINDOW`]; then those who were answering move out. Each
/// turn by itself may be short enough.
const LONG_TURNS_MAX: Duration = Duration::from_secs(2);
const TURNS_WINDOW: Duration = Duration::from_secs(10);
/// Longest that a program may compute without a pause, unless its owner has set a limit.
pub(super) const CPU_MAX: Duration = Duration::from_secs(5);
/// How long a process may stand still, however little of that time it gets to compute.
const STILL_MAX: Duration = Duration::from_secs(15);

/// Watches until the process has ended, and tells what happens to it.
pub(super) async fn watch_over(host: &Arc<Host>, report: impl Fn(Incident)) {
    let mut probe: Option<Probe> = None;
    let mut has_stalled = false;
    let mut cpu_before = Duration::ZERO;
    let mut turns = LongTurns::default();
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
            Some(sent) if sent.answer.is_finished() => {
                let is_hogged = turns.add(Instant::now(), cpu.saturating_sub(sent.cpu));
                if is_hogged && host.kind == Kind::Shared && host.seats.len() > 1 {
                    report(Incident::Stalled);
                }
                (probe, has_stalled) = (None, false);
            }
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

/// The long turns of the last moments.
#[derive(Default)]
struct LongTurns(VecDeque<(Instant, Duration)>);

impl LongTurns {
    /// Notes what a turn has computed. Whether that makes too much altogether; then it begins anew.
    fn add(&mut self, now: Instant, spent: Duration) -> bool {
        if spent < LONG_TURN {
            return false;
        }
        self.0.retain(|(at, _)| now < *at + TURNS_WINDOW);
        self.0.push_back((now, spent));
        let is_too_much = self.0.iter().map(|(_, spent)| *spent).sum::<Duration>() >= LONG_TURNS_MAX;
        if is_too_much {
            self.0.clear();
        }
        is_too_much
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_long_turns_are_too_much_and_many_short_ones_are_load() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let mut turns = LongTurns::default();
        assert!((0..1_000).all(|n| !turns.add(at(n * 10), Duration::from_millis(100))), "load");
        let hog: Vec<bool> = (0..8).map(|n| turns.add(at(n * 800), Duration::from_millis(800))).collect();
        assert_eq!(hog, [false, false, true, false, false, true, false, false]);
        let mut turns = LongTurns::default();
        assert!((0..50).all(|n| !turns.add(at(n * 6_000), Duration::from_millis(900))), "one now and then");
    }
}

//! Keeps one wanted node connected: when to dial, which address, how long to wait after a failure.
//! Refuses to know what a link is used for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::config::NetTuning;
use super::connection;
use super::counters::count;
use super::endpoint::Shared;
use super::identity::server_name;
use super::mesh::{Candidate, Wanted};
use crate::replica::NodeId;

/// A link that lived this long was a good one: its loss starts a new series of attempts.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// Runs until it is aborted.
pub(super) async fn keep_connected(shared: Arc<Shared>, node: NodeId, wanted: Arc<Wanted>) {
    let mut failures = 0;
    let mut last_good: Option<SocketAddr> = None;
    loop {
        let connected_since = Instant::now();
        while shared.mesh().is_connected(node) {
            wanted.lost.notified().await;
        }
        if connected_since.elapsed() >= STABLE_AFTER {
            failures = 0;
        }
        let higher = shared.own > node;
        tokio::select! {
            () = sleep(pause(&shared.tuning, failures, higher, random())) => {}
            () = wanted.moved.notified() => {}
        }
        if shared.mesh().is_connected(node) {
            continue;
        }
        let mut addresses = wanted.addresses();
        addresses.sort_by_key(|address| Some(*address) != last_good);
        let mut dialed = None;
        for address in addresses {
            match dial(&shared, node, address).await {
                Ok(candidate) => {
                    dialed = Some((address, candidate));
                    break;
                }
                Err(error) => {
                    count(&shared.counters.dials_failed);
                    tracing::debug!(%node, %address, error, "dial failed");
                }
            }
        }
        let Some((address, candidate)) = dialed else {
            failures += 1;
            continue;
        };
        last_good = Some(address);
        let since = Instant::now();
        // A task of its own, so that aborting this one can't cut off the link's last event.
        let link = tokio::spawn(connection::run(Arc::clone(&shared), candidate));
        let admitted = link.await.unwrap_or(false);
        failures = if admitted && since.elapsed() >= STABLE_AFTER { 0 } else { failures + 1 };
    }
}

async fn dial(shared: &Shared, node: NodeId, address: SocketAddr) -> Result<Candidate, String> {
    let attempt = async {
        let connecting = shared
            .endpoint
            .connect_with(shared.client_config(), address, &server_name(node))
            .map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| error.to_string())?;
        let boot = connection::meet(shared, node, &connection).await?;
        Ok(Candidate::new(node, connection, true, boot))
    };
    match timeout(shared.tuning.dial_timeout, attempt).await {
        Ok(result) => result,
        Err(_) => Err("timed out".into()),
    }
}

/// Exponential back-off with jitter; `random` is uniform.
fn pause(tuning: &NetTuning, failures: u32, higher: bool, random: u64) -> Duration {
    let unit = (random >> 11) as f64 / (1u64 << 53) as f64;
    let jitter = tuning.redial_jitter.mul_f64(unit);
    let base = if failures == 0 {
        jitter
    } else {
        let doubled = tuning.redial_min.saturating_mul(1u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
        doubled.min(tuning.redial_max).mul_f64(0.5 + unit / 2.0)
    };
    if higher { base.max(tuning.higher_id_delay + jitter) } else { base }
}

fn random() -> u64 {
    // Without entropy only the jitter is lost.
    getrandom::u64().unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_to_its_limit_and_the_higher_id_waits() {
        let tuning = NetTuning::default();
        assert!(pause(&tuning, 0, false, u64::MAX) <= tuning.redial_jitter);
        assert_eq!(pause(&tuning, 1, false, 0), tuning.redial_min / 2);
        for failures in [7, 8, 31, 32, 33, 1000, u32::MAX] {
            assert!(pause(&tuning, failures, false, u64::MAX) <= tuning.redial_max, "{failures}");
            assert!(pause(&tuning, failures, false, 0) >= tuning.redial_max / 4, "{failures}");
        }
        assert!(pause(&tuning, 0, true, 0) >= tuning.higher_id_delay);
    }
}

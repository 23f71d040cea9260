//! Timers: each one is handled at one PoP, chosen anew each time by rendezvous hashing over the nodes that are live. The
//! chosen one leaves a note when it begins and when it is done; the next in line take over if there is no note, or if the
//! one that began is gone. So a timer is handled at least once as long as any node is live, and twice where nodes don't
//! see one another.

mod expression;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::routes::Deployed;
use super::{Front, Runtime};
use crate::kv::{KvError, NamespaceId, NodeId};
use crate::worker::engine::EngineError;
use expression::Expression;

/// How many nodes look after a timer, the chosen one included.
const KEEPERS: usize = 3;
/// How long the next in line waits for a note.
const NOTE_PATIENCE: Duration = Duration::from_secs(10);
/// How long it looks whether the one that began is still there.
const KEEP_MAX: Duration = Duration::from_secs(15 * 60);
/// How long notes are kept, in seconds.
const NOTES_KEPT_SECS: u64 = 24 * 3600;
/// What begins their keys.
const NOTE: u8 = b'z';
const MINUTE_MS: u64 = 60_000;

/// One timer that is due.
#[derive(Clone)]
struct Due {
    deployed: Arc<Deployed>,
    cron: String,
    minute: u64,
}

/// What is known of a timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Note {
    minute: u64,
    node: u64,
    is_done: bool,
}

/// Handles what is due, minute by minute, for as long as it is polled.
pub(super) async fn run(front: Front) {
    let mut minute = front.0.kv.now_ms() / MINUTE_MS;
    loop {
        let now_ms = front.0.kv.now_ms();
        let next_ms = (minute + 1) * MINUTE_MS;
        if now_ms < next_ms {
            sleep(Duration::from_millis(next_ms - now_ms)).await;
            continue;
        }
        // What was missed because the machine slept is not made up for.
        minute = now_ms / MINUTE_MS;
        for due in due(&front, minute) {
            let front = front.clone();
            tokio::spawn(async move { keep(&front, &due).await });
        }
    }
}

fn due(front: &Front, minute: u64) -> Vec<Due> {
    let routes = front.routes();
    let timers = routes.all().iter().flat_map(|deployed| deployed.live.crons.iter().map(move |cron| (deployed, cron)));
    timers
        .filter(|(_, cron)| Expression::read(cron).is_some_and(|expression| expression.is_due(minute)))
        .map(|(deployed, cron)| Due { deployed: Arc::clone(deployed), cron: cron.clone(), minute })
        .collect()
}

/// Handles a timer if it is this node's turn, and takes over where others fail.
async fn keep(front: &Front, due: &Due) {
    let own = front.0.operator.node();
    let live = front.0.operator.live_nodes().await.unwrap_or_else(|_| vec![own]);
    let Some(place) = order(&live, due).iter().position(|node| *node == own).filter(|place| *place < KEEPERS) else {
        return;
    };
    if place == 0 {
        return handle(front, due, own).await;
    }
    let begun = front.0.kv.now_ms();
    sleep(NOTE_PATIENCE * u32::try_from(place).unwrap_or(1)).await;
    while front.0.kv.now_ms() < begun + u64::try_from(KEEP_MAX.as_millis()).unwrap_or(u64::MAX) {
        let live = front.0.operator.live_nodes().await.unwrap_or_default();
        match note(front, due).await.filter(|note| note.minute >= due.minute) {
            Some(Note { is_done: true, .. }) => return,
            Some(Note { node, .. }) if live.contains(&NodeId(node)) => sleep(NOTE_PATIENCE).await,
            _ => {
                tracing::info!(script = %due.deployed.id, cron = due.cron, "takes over a timer");
                return handle(front, due, own).await;
            }
        }
    }
}

/// The nodes in the order in which it is their turn.
fn order(live: &[NodeId], due: &Due) -> Vec<NodeId> {
    let weight = |node: &NodeId| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&node.0.to_be_bytes()).update(&due.minute.to_be_bytes()).update(&due.deployed.id.account.0);
        hasher.update(due.deployed.id.script.as_bytes()).update(b"\n").update(due.cron.as_bytes());
        *hasher.finalize().as_bytes()
    };
    let mut order = live.to_vec();
    order.sort_by_key(|node| std::cmp::Reverse(weight(node)));
    order.dedup();
    order
}

async fn handle(front: &Front, due: &Due, own: NodeId) {
    let script = &due.deployed.id;
    let Runtime::Ready(engine) = front.runtime() else {
        return tracing::warn!(%script, cron = due.cron, "a timer is due, but there is no engine here");
    };
    let Some(program) = due.deployed.version(front.draw()).filter(|program| !program.modules.is_empty()) else {
        return;
    };
    let note = Note { minute: due.minute, node: own.0, is_done: false };
    leave(front, due, note).await;
    match engine.scheduled(program, &due.cron, due.minute * MINUTE_MS).await {
        // It was handled, however that went.
        Ok(()) | Err(EngineError::Threw | EngineError::Cpu { .. } | EngineError::Memory) => {
            front.0.operator.metrics().workers().timed("handled");
            leave(front, due, Note { is_done: true, ..note }).await;
        }
        Err(error) => {
            tracing::warn!(%script, cron = due.cron, %error, "a timer was not handled here; another node takes over");
            front.0.operator.metrics().workers().timed("failed");
            leave(front, due, Note { node: 0, ..note }).await;
        }
    }
}

fn key(due: &Due) -> Vec<u8> {
    let id = &due.deployed.id;
    let cron = blake3::hash(due.cron.as_bytes());
    let (cron, _) = cron.as_bytes().split_at(8);
    [&[NOTE], &id.account.0[..], id.script.as_bytes(), b"\n", cron].concat()
}

async fn note(front: &Front, due: &Due) -> Option<Note> {
    let row = front.0.kv.system_row(NamespaceId::WORKERS, &key(due)).await.ok()??;
    Note::read(&row)
}

async fn leave(front: &Front, due: &Due, note: Note) {
    if front.0.operator.members_count() == 1 {
        return;
    }
    let until = front.0.kv.now_ms() / 1000 + NOTES_KEPT_SECS;
    let left: Result<(), KvError> =
        front.0.kv.set_system_row(NamespaceId::WORKERS, &key(due), note.write(), Some(until)).await;
    if let Err(error) = left {
        tracing::warn!(script = %due.deployed.id, %error, "a note of a timer could not be left; it may be handled twice");
    }
}

impl Note {
    fn write(self) -> Bytes {
        let mut bytes = vec![u8::from(self.is_done)];
        bytes.extend_from_slice(&self.minute.to_be_bytes());
        bytes.extend_from_slice(&self.node.to_be_bytes());
        bytes.into()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (is_done, rest) = bytes.split_first()?;
        let (minute, node) = rest.split_first_chunk::<8>()?;
        let node = node.try_into().ok()?;
        Some(Self { minute: u64::from_be_bytes(*minute), node: u64::from_be_bytes(node), is_done: *is_done == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::AccountId;
    use crate::worker::{Live, ScriptId};

    fn due(minute: u64) -> Due {
        let live = Live {
            versions: Vec::new(),
            workers_dev: true,
            crons: Vec::new(),
            routes: Vec::new(),
            subdomain: String::new(),
        };
        let id = ScriptId { account: AccountId([1; 16]), script: "s".into() };
        Due { deployed: Arc::new(Deployed { id, live, name: None }), cron: "* * * * *".into(), minute }
    }

    #[test]
    fn every_node_knows_whose_turn_it_is_and_turns_are_shared() {
        let nodes: Vec<NodeId> = (1..=5).map(NodeId).collect();
        let shuffled: Vec<NodeId> = [3, 1, 5, 2, 4].map(NodeId).to_vec();
        let mut turns = [0; 6];
        for minute in 0..1000 {
            let order = order(&nodes, &due(minute));
            assert_eq!(order, super::order(&shuffled, &due(minute)));
            turns[usize::try_from(order[0].0).expect("small")] += 1;
            // Without the first one it is the second one's turn: nobody else's changes.
            let rest: Vec<NodeId> = nodes.iter().copied().filter(|node| *node != order[0]).collect();
            assert_eq!(super::order(&rest, &due(minute)), order[1..]);
        }
        assert!(turns[1..].iter().all(|turns| (120..280).contains(turns)), "{turns:?}");
    }

    #[test]
    fn notes_are_read_as_written() {
        let note = Note { minute: 7, node: u64::MAX, is_done: true };
        assert_eq!(Note::read(&note.write()), Some(note));
        assert_eq!(Note::read(b"short"), None);
    }
}

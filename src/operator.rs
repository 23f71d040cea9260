//! What an operator asks of a node: how it is, an invitation, to leave. The API and the command line come here.
//! `observe` answers those who ask every few seconds: load balancers and Prometheus.

mod backup;
mod observe;

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::config::Durability;
use crate::kv::Kv;
use crate::metrics::Metrics;
use crate::net::Net;
use crate::node::{Alarms, Handle, Keys, Members, Node, invite};
use crate::replica::{AckLevel, NamespaceId, NodeId, PeerStatus, Reply, Request, Status};

pub use backup::BackupRefusal;

/// How long a node that leaves waits for another one to have its last write on disk, and those of its former lives.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks whether another one has them.
const DRAIN_PAUSE: Duration = Duration::from_millis(100);
/// Damaged places that an answer names.
const EXAMPLES_MAX: usize = 10;
/// How long a node that has left goes on, so that its peers hear of it.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why an operator's wish was not carried out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OperatorError(pub String);

/// One node's operator desk. Cheap to clone.
#[derive(Clone)]
pub struct Operator(Arc<Desk>);

struct Desk {
    handle: Handle,
    keys: Arc<Keys>,
    net: Net,
    node: NodeId,
    name: String,
    pop: Option<String>,
    account: String,
    advertised: String,
    durability: Durability,
    members: watch::Receiver<Members>,
    alarms: Alarms,
    metrics: Metrics,
    started: Duration,
    /// Whether this process has caught up once.
    caught_up: AtomicBool,
    left: Notify,
    backup: Mutex<backup::Slot>,
    unmended: Arc<AtomicUsize>,
}

impl Operator {
    /// The desk of a node.
    pub fn new(node: &Node, pop: Option<String>, durability: Durability) -> Self {
        Self(Arc::new(Desk {
            handle: node.handle().clone(),
            keys: Arc::clone(node.keys()),
            net: node.net().clone(),
            node: node.id(),
            name: node.name().to_owned(),
            pop,
            account: node.account().to_string(),
            advertised: node.advertised().to_owned(),
            durability,
            members: node.members().clone(),
            alarms: node.alarms().clone(),
            started: node.handle().clock().wall(),
            metrics: node.metrics().clone(),
            caught_up: AtomicBool::new(false),
            left: Notify::new(),
            backup: Mutex::default(),
            unmended: node.unmended(),
        }))
    }

    /// Completes when this node has left its cluster and should end.
    pub async fn left(&self) {
        self.0.left.notified().await;
    }

    /// How many nodes the roster has, this one included.
    pub fn members_count(&self) -> usize {
        self.0.members.borrow().len()
    }

    /// What people call a node: its name, or else its id.
    pub fn name_of(&self, node: NodeId) -> String {
        let name = self.0.members.borrow().get(&node).map(|info| info.name.clone());
        name.filter(|name| !name.is_empty()).unwrap_or_else(|| node.to_string())
    }

    async fn ask(&self, request: Request) -> Result<Reply, OperatorError> {
        self.0.handle.call(request).await.map_err(|gone| {
            OperatorError(
                self.0.handle.failure().map_or_else(|| gone.to_string(), |why| format!("storage failed: {why}")),
            )
        })
    }

    async fn replica_status(&self) -> Result<Status, OperatorError> {
        match self.ask(Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            reply => Err(OperatorError(format!("unexpected reply {reply:?}"))),
        }
    }

    /// How the node is: the JSON of `starling status --json`.
    pub async fn status(&self) -> Result<Value, OperatorError> {
        let desk = &self.0;
        let alarms = desk.alarms.read().map(|alarms| alarms.clone()).unwrap_or_default();
        let now = desk.handle.clock().wall();
        let disk_bytes = desk.handle.reader().disk_bytes();
        let mut status = json!({
            "account": desk.account,
            "node": desk.node.to_string(),
            "name": desk.name,
            "pop": desk.pop,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_secs": now.saturating_sub(desk.started).as_secs(),
            "durability": desk.durability.as_str(),
            "gossip": desk.advertised,
            "disk_bytes": disk_bytes,
            "alarms": alarms,
        });
        if let Some(engine) = desk.metrics.workers().engine() {
            let (answered, failed) = desk.metrics.workers().requests();
            status["workers"] = json!({
                "scripts": engine.scripts,
                "processes": engine.processes,
                "runtimes": engine.runtimes,
                "memory_bytes": engine.memory_bytes,
                "answered": answered,
                "failed": failed,
                "ended": engine.ended,
            });
        }
        if let Some(why) = desk.handle.failure() {
            status["state"] = format!("read-only: storage failed: {why}").into();
            status["peers"] = json!([]);
            return Ok(status);
        }
        let replica = self.replica_status().await?;
        let now_ms = desk.handle.clock().wall_ms();
        status["state"] = replica.refusing.map_or_else(|| "serving".into(), |why| format!("read-only: {why}")).into();
        status["digest"] = format!("{:032x}", replica.digest.0).into();
        status["version_vector"] = replica.versions.to_string().into();
        status["entries"] = replica.entries.into();
        status["origins"] = replica.origins.into();
        status["life"] = replica.life.map(|life| life.to_string()).into();
        status["last_write"] = replica.last.into();
        status["sync_sessions"] = json!({ "in": replica.syncs.0, "out": replica.syncs.1 });
        status["pending_blobs"] = replica.pending_blobs.into();
        status["watermark_ms"] = match replica.peers.is_empty() {
            true => now_ms.into(),
            false => replica.watermark.ms().into(),
        };
        status["clock_offset_ms"] = replica.clock_offset_ms.into();
        let peers: Vec<Value> = replica
            .peers
            .iter()
            .map(|peer| {
                json!({
                    "node": peer.node.to_string(),
                    "name": peer.name,
                    "pop": (!peer.pop.is_empty()).then_some(&peer.pop),
                    "state": if peer.connected { "connected" } else { "dialing" },
                    "rtt_ms": peer.rtt_us.map(|rtt_us| rtt_us as f64 / 1000.0),
                    "lag_ms": peer.lag_ms,
                    "version_vectors_agree": peer.versions_agree,
                    "digests_agree": peer.digests_agree,
                    "queue": peer.queue,
                })
            })
            .collect();
        status["peers"] = peers.into();
        let counters = replica.counters.iter().map(|(name, count)| ((*name).to_owned(), Value::from(*count)));
        let net = desk.net.counters().named().into_iter().map(|(name, count)| (name, Value::from(count)));
        status["counters"] = Value::Object(counters.chain(net).collect());
        Ok(status)
    }

    /// The nodes that this one is connected with, and itself.
    pub async fn live_nodes(&self) -> Result<Vec<NodeId>, OperatorError> {
        let status = self.replica_status().await?;
        let connected = status.peers.iter().filter(|peer| peer.connected).map(|peer| peer.node);
        Ok(connected.chain([self.0.node]).collect())
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// How the cluster's keys stand. No secrets.
    pub async fn keys(&self) -> Result<Value, OperatorError> {
        let status = self.0.keys.status().await.map_err(|error| OperatorError(error.to_string()))?;
        let members =
            status.members.iter().map(|(node, key)| (node.to_string(), key.map(|key| key.to_string()).into()));
        Ok(json!({
            "cluster_key": status.summary.cluster_key.to_string(),
            "sealed_with": status.summary.sealed_with.to_string(),
            "source": status.summary.source,
            "data_keys": status.summary.data_keys,
            "members": Value::Object(members.collect()),
            "shred_due": status.must_shred,
            "certificate_until_secs": status.certificate_until_secs,
        }))
    }

    /// Has every member use another cluster key.
    pub async fn rotate_cluster_key(&self) -> Result<Value, OperatorError> {
        let key = self.0.keys.rotate_cluster().await.map_err(|error| OperatorError(error.to_string()))?;
        Ok(json!({ "cluster_key": key.to_string() }))
    }

    /// Has new values of a namespace, or the system's entries, sealed with another key.
    pub async fn rotate_data_key(&self, owner: NamespaceId) -> Result<Value, OperatorError> {
        self.0.keys.rotate_data(owner).await.map_err(|error| OperatorError(error.to_string()))?;
        Ok(json!({}))
    }

    /// Has every member renew its certificate.
    pub async fn rotate_certificates(&self) -> Result<Value, OperatorError> {
        self.0.keys.rotate_certificates().await.map_err(|error| OperatorError(error.to_string()))?;
        Ok(json!({}))
    }

    /// Checks all that this node holds, and compares it with what a peer holds, named by its name or id, or any; mends
    /// what is wrong here if `repair`. Where there is no peer at all, nothing is compared.
    pub async fn verify(&self, kv: &Kv, peer: Option<&str>, repair: bool) -> Result<Value, OperatorError> {
        let members = self.0.members.borrow().clone();
        let node = match peer {
            None => None,
            Some(text) => {
                let named = members.iter().find(|(node, info)| info.name == text || node.to_string() == text);
                let found = named.map(|(node, _)| *node).filter(|node| *node != self.0.node);
                Some(found.ok_or_else(|| OperatorError(format!("There is no other node \"{text}\" on the roster.")))?)
            }
        };
        let (found, mended) = kv.scrub(repair).await.map_err(|error| OperatorError(error.to_string()))?;
        let examples = found.damage.iter().take(EXAMPLES_MAX).map(|damage| format!("{damage:?}"));
        let checked = json!({
            "entries": found.entries,
            "seals": found.seals,
            "chunks": found.chunks,
            "locked": found.locked,
            "damaged": found.damaged,
            "repaired": mended,
            "examples": examples.collect::<Vec<_>>(),
        });
        if members.keys().all(|node| *node == self.0.node) {
            return Ok(json!({ "checked": checked, "peer": null, "cut_short": false }));
        }
        let report = match self.ask(Request::Verify { peer: node, repair }).await? {
            Reply::Verified(report) => *report,
            Reply::Refused(refusal) => return Err(OperatorError(format!("Nothing was verified: {refusal}."))),
            reply => return Err(OperatorError(format!("unexpected reply {reply:?}"))),
        };
        let examples: Vec<String> = report.examples.iter().map(|key| format!("{key:?}")).collect();
        Ok(json!({
            "checked": checked,
            "peer": report.peer.to_string(),
            "peer_name": members.get(&report.peer).map(|info| &info.name),
            "compared": report.compared,
            "damaged": report.damaged,
            "missing": report.missing,
            "stale": report.stale,
            "behind_at_peer": report.behind_at_peer,
            "on_the_way": report.on_the_way,
            "repaired": report.repaired,
            "examples": examples,
            "cut_short": report.cut_short,
        }))
    }

    /// A token with which one node can join within `ttl`.
    pub async fn invite(&self, ttl: Duration) -> Result<String, OperatorError> {
        let token = invite(&self.0.net, &self.0.advertised, ttl).await;
        token.map(|token| token.to_string()).map_err(|error| OperatorError(error.to_string()))
    }

    /// Waits until some other node has what this one wrote, now and before it was last started.
    async fn is_drained(&self) -> Result<bool, OperatorError> {
        let mut left = DRAIN_PATIENCE;
        loop {
            // Acknowledgements speak of this life only.
            let status = self.replica_status().await?;
            if status.peers.iter().any(|peer| peer.connected && peer.former_agree == Some(true)) {
                let Some(life) = status.life else { return Ok(true) };
                let (dot, patience_ms) = (life.dot(status.last), left.as_millis() as u64);
                let drained = Request::AwaitAcks { dot, level: AckLevel::Nodes(2), patience_ms };
                return Ok(matches!(self.ask(drained).await?, Reply::Acknowledged(_)));
            }
            if left.is_zero() {
                return Ok(false);
            }
            tokio::time::sleep(DRAIN_PAUSE).await;
            left = left.saturating_sub(DRAIN_PAUSE);
        }
    }

    /// Takes another node off the roster for good, named by its name or its id: one that is lost, or with `connected` also
    /// one that runs and is not to be trusted. What only it held is lost with it; one that can be trusted leaves by itself
    /// and hands on what it holds.
    pub async fn evict(&self, named: &str, connected: bool) -> Result<NodeId, OperatorError> {
        let node = self.find(named)?;
        if node == self.0.node {
            return Err(OperatorError("This is the node itself: it can leave (`starling node leave`).".into()));
        }
        let is_connected = |peer: &PeerStatus| peer.node == node && peer.connected;
        if !connected && self.replica_status().await?.peers.iter().any(is_connected) {
            let message = format!(
                "{named} is connected: run `starling node leave` there, or stop it first. One that can't be trusted is \
                 taken off as it is with `--connected`."
            );
            return Err(OperatorError(message));
        }
        match self.ask(Request::Evict(node)).await? {
            Reply::Written { .. } => Ok(node),
            Reply::Refused(refusal) => Err(OperatorError(format!("{named} can't be evicted from here: {refusal}."))),
            reply => Err(OperatorError(format!("unexpected reply {reply:?}"))),
        }
    }

    fn find(&self, named: &str) -> Result<NodeId, OperatorError> {
        let members = self.0.members.borrow();
        let found: Vec<NodeId> = members
            .iter()
            .filter(|(node, info)| info.name == named || node.to_string() == named)
            .map(|(node, _)| *node)
            .collect();
        match found[..] {
            [node] => Ok(node),
            [] => Err(OperatorError(format!("No member is called {named}: `starling status` shows all."))),
            _ => Err(OperatorError(format!("Several members are called {named}: name the node by its id."))),
        }
    }

    /// Takes this node off the roster for good, once another node has all its writes on disk. The process ends soon
    /// after.
    pub async fn leave(&self) -> Result<(), OperatorError> {
        if self.0.members.borrow().keys().all(|node| *node == self.0.node) {
            return Err(OperatorError("The last node of a cluster can't leave. Stop it instead.".into()));
        }
        if !self.is_drained().await? {
            let message = "No other node has all writes of this one on disk yet. Connect it to its peers (see \
                           `starling status`) and try again.";
            return Err(OperatorError(message.into()));
        }
        match self.ask(Request::Leave).await? {
            Reply::Written { .. } => {}
            Reply::Refused(refusal) => return Err(OperatorError(format!("This node can't leave: {refusal}."))),
            reply => return Err(OperatorError(format!("unexpected reply {reply:?}"))),
        }
        let desk = self.0.clone();
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            desk.left.notify_one();
        });
        Ok(())
    }
}

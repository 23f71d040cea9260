//! A client at one node that does what clients do, and writes down what it asked and what it was told.
//!
//! Keys say what they are for: `once/` is written once and perhaps deleted much later, `own/` by this client alone, one
//! write after the other, `hot/` by everyone at once, `ttl/` expires. After an answer that did not come an own key is left alone: what it holds is
//! anyone's guess.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value as Json, json};

use super::history::{Answer, Disk, Op, What};
use super::lie::Liar;
use crate::api::{self, Api, escaped};
use crate::emulator::queue::Stopwatch;
use crate::node::Node;
use crate::world::World;

/// A client gives up on an answer after this.
const PATIENCE: Duration = Duration::from_secs(15);
/// Nodes wait this long for bookmarks and acknowledgements. Not longer: a client that waits writes nothing, and what is
/// written at a node that is cut off is what is worth watching.
const WAIT: &str = "1";
/// Between two requests.
const PAUSES_MS: std::ops::Range<u64> = 20..160;
/// Keys that everyone writes.
const HOT_KEYS: u64 = 12;
/// Keys that a client lists at most in one answer; a prefix holds fewer.
const LISTED_MAX: usize = 1_000;
/// Writes of one kind below one prefix.
const PREFIX_WRITES: u64 = 500;
/// Keys that were written once and that a client leaves alone; the oldest beyond are deleted.
const ONCE_KEPT: usize = 100;
/// Most of them that are deleted with one write: more than it takes, to make up for those that failed.
const DELETED_AT_ONCE: usize = 2;
/// Longest values of keys that may stay behind, bytes.
const LEFT_BEHIND_LEN_MAX: usize = 200;
/// Values live this long, seconds; the API takes 60 at least.
const LIVES_SECS: std::ops::Range<u64> = 65..90;

/// What all clients share.
pub struct Clients {
    world: Arc<World>,
    namespace: String,
    liar: Option<Liar>,
    clock: Stopwatch,
    epoch_ms: u64,
    ops: Mutex<Vec<Op>>,
    /// Keys that were written, for others to read.
    known: Mutex<Vec<String>>,
    stop: AtomicBool,
    /// No more values that expire.
    no_expiry: AtomicBool,
}

/// One client.
struct Client {
    shared: Arc<Clients>,
    number: usize,
    home: Arc<Node>,
    rng: ChaCha8Rng,
    writes: u64,
    own: Option<(String, Disk)>,
    once: VecDeque<String>,
    owned: u64,
    bookmarks: BTreeMap<String, String>,
}

impl Clients {
    /// Of a namespace, as a path below the account's namespaces; `epoch_ms` is now. Perhaps someone lies to them.
    pub fn new(world: Arc<World>, namespace: String, liar: Option<Liar>, clock: Stopwatch, epoch_ms: u64) -> Arc<Self> {
        Arc::new(Self {
            world,
            namespace,
            liar,
            clock,
            epoch_ms,
            ops: Mutex::default(),
            known: Mutex::default(),
            stop: AtomicBool::new(false),
            no_expiry: AtomicBool::new(false),
        })
    }

    /// A client at that node, until the end.
    pub async fn run(self: Arc<Self>, number: usize, home: Arc<Node>, seed: u64) {
        let rng = ChaCha8Rng::seed_from_u64(seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (own, bookmarks) = (None, BTreeMap::new());
        let once = VecDeque::new();
        let mut client = Client { shared: self, number, home, rng, writes: 0, own, once, owned: 0, bookmarks };
        while !client.shared.stop.load(Ordering::Relaxed) {
            client.act().await;
            let pause = client.rng.random_range(PAUSES_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// What expires is not written any more, so that the end can be waited for.
    pub fn write_nothing_that_expires(&self) {
        self.no_expiry.store(true, Ordering::Relaxed);
    }

    /// Clients end after what they are at.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// All that was done so far, taken out.
    pub fn take(&self) -> Vec<Op> {
        std::mem::take(&mut *self.ops.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lists what all nodes but one have, as anyone may: so it is known who had what when that one lost its disk.
    pub async fn witness(self: &Arc<Self>, except: usize) {
        for node in self.world.up().into_iter().filter(|node| node.number != except) {
            for client in 0..self.world.nodes().len() {
                let prefix = format!("once/{client}-");
                self.request(usize::MAX, &node, What::List { prefix }, None, None).await;
            }
        }
    }

    /// One request, written down.
    async fn request(
        &self,
        client: usize,
        node: &Node,
        what: What,
        acks: Option<&str>,
        bookmark: Option<&str>,
    ) -> (Answer, Option<String>) {
        let disks: Vec<(String, Disk)> =
            self.world.nodes().iter().map(|node| (node.name.clone(), (node.number, node.disk()))).collect();
        let (disk, clock_offset_ms) = ((node.number, node.disk()), node.clock_offset_ms());
        let began_us = self.clock.us();
        let (mut answer, mark) = match node.api() {
            Some(api) => self.ask(&api, &what, disk, &disks, [acks, bookmark]).await,
            None => (Answer::Refused(0), None),
        };
        if node.disk() != disk.1 || (node.clock_offset_ms() != clock_offset_ms && !what.is_write()) {
            // Whoever answered is not who was asked.
            answer = match answer {
                Answer::Refused(status) => Answer::Refused(status),
                _ => Answer::Unknown,
            };
        }
        let ended_us = self.clock.us();
        let op = Op { client, disk, began_us, ended_us, clock_offset_ms, what, answer: answer.clone() };
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).push(op);
        (answer, mark)
    }

    async fn ask(
        &self,
        api: &Api,
        what: &What,
        disk: Disk,
        disks: &[(String, Disk)],
        [acks, bookmark]: [Option<&str>; 2],
    ) -> (Answer, Option<String>) {
        let mut headers = vec![("starling-wait", WAIT)];
        headers.extend(acks.map(|acks| ("starling-acks", acks)));
        headers.extend(bookmark.map(|bookmark| ("starling-bookmark", bookmark)));
        let values = |key: &str| format!("{}/values/{}", self.namespace, escaped(key));
        let (method, path, body) = match what {
            What::Put { key, value, expires_s } => {
                let expiration = expires_s.map(|at| format!("?expiration={at}")).unwrap_or_default();
                (Method::PUT, values(key) + &expiration, long(value))
            }
            What::Delete { key } => (Method::DELETE, values(key), String::new()),
            What::Get { key, .. } => (Method::GET, values(key), String::new()),
            What::List { prefix } => (
                Method::GET,
                format!("{}/keys?limit={LISTED_MAX}&prefix={}", self.namespace, escaped(prefix)),
                String::new(),
            ),
        };
        let answer = match self.send(disk.0, api, (method, &path), &headers, body.into()).await {
            Ok(answer) => answer,
            Err(error) if error.unreached => return (Answer::Refused(0), None),
            Err(_) => return (Answer::Unknown, None),
        };
        let mark = answer.header("starling-bookmark").map(str::to_owned);
        let on = || {
            let named = answer.header("starling-acked-by").unwrap_or_default().split(',').map(str::trim);
            let mut on: Vec<Disk> =
                named.filter_map(|name| disks.iter().find(|(known, _)| known == name)).map(|(_, disk)| *disk).collect();
            if !on.contains(&disk) {
                on.push(disk);
            }
            on
        };
        let answer = match (answer.status, what.is_write(), what) {
            (200, true, _) => Answer::Done { on: on() },
            // Not acknowledged by as many as wished; it is written all the same.
            (504, true, _) if answer.header("starling-acked-by").is_some() => Answer::Done { on: on() },
            (200, false, What::Get { .. }) => Answer::Found(short(&answer.text())),
            (404, false, What::Get { .. }) if code(&answer) == 10009 => Answer::Absent,
            (200, false, What::List { .. }) => listed(&answer),
            (status @ 400..500, ..) => Answer::Refused(status),
            (status, false, _) => Answer::Refused(status),
            _ => Answer::Unknown,
        };
        (answer, mark)
    }
}

/// A value as histories have it: what fills it up is counted.
fn short(value: &str) -> String {
    match value.split_once(' ') {
        Some((name, rest)) if rest.bytes().all(|byte| byte == b'~') => format!("{name} ~{}", rest.len()),
        _ => value.to_owned(),
    }
}

/// A value as nodes get it.
fn long(value: &str) -> String {
    let (name, len) = value.split_once(" ~").unwrap_or((value, ""));
    format!("{name} {}", "~".repeat(len.parse().unwrap_or(0)))
}

/// Keys that one bulk read takes.
const BULK_KEYS: usize = 100;

impl Clients {
    /// Asks a node; or the liar, who may ask it.
    async fn send(
        &self,
        node: usize,
        api: &Api,
        (method, path): (Method, &str),
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<api::Answer, api::Unanswered> {
        match &self.liar {
            None => api.ask(method, path, headers, body, PATIENCE).await,
            Some(liar) => liar.ask(node, api, (method, path), headers, body, PATIENCE).await,
        }
    }

    /// Everything that a node holds.
    pub async fn held(&self, node: &Node) -> Result<BTreeMap<String, String>, String> {
        let api = node.api().ok_or_else(|| format!("{} does not serve", node.name))?;
        let ask = async |method: Method, path: String, body: String| {
            let answer = self.send(node.number, &api, (method, &path), &[], body.into()).await;
            let answer = answer.map_err(|error| format!("{}: {error}", node.name))?;
            serde_json::from_slice::<Json>(&answer.body).map_err(|error| format!("{}: {error}", node.name))
        };
        let (mut keys, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("{}/keys?limit={LISTED_MAX}{cursor}", self.namespace);
            let json = ask(Method::GET, path, String::new()).await?;
            let names = json["result"].as_array().ok_or_else(|| format!("{}: {json}", node.name))?;
            keys.extend(names.iter().filter_map(|key| key["name"].as_str().map(str::to_owned)));
            match json["result_info"]["cursor"].as_str() {
                Some(next) if !next.is_empty() => cursor = format!("&cursor={}", escaped(next)),
                _ => break,
            }
        }
        let mut held = BTreeMap::new();
        for some in keys.chunks(BULK_KEYS) {
            let body = json!({ "keys": some }).to_string();
            let found = ask(Method::POST, format!("{}/bulk/get", self.namespace), body).await?;
            let values = found["result"]["values"].as_object().ok_or_else(|| format!("{}: {found}", node.name))?;
            for key in some {
                if let Some(value) = values.get(key).and_then(Json::as_str) {
                    held.insert(key.clone(), short(value));
                }
            }
        }
        Ok(held)
    }
}

fn code(answer: &api::Answer) -> u64 {
    let json: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
    json.pointer("/errors/0/code").and_then(Json::as_u64).unwrap_or(0)
}

/// All the keys, or nothing that could be judged if there are more.
fn listed(answer: &api::Answer) -> Answer {
    let json: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
    let names = json["result"].as_array().into_iter().flatten();
    let names: Vec<String> = names.filter_map(|key| key["name"].as_str().map(str::to_owned)).collect();
    match names.len() < LISTED_MAX {
        true => Answer::Keys(names),
        false => Answer::Unknown,
    }
}

impl Client {
    async fn act(&mut self) {
        match self.rng.random_range(0..100) {
            0..16 => self.write_once().await,
            16..40 => self.write_own().await,
            40..52 => self.write_hot().await,
            52..56 => self.write_expiring().await,
            56..62 => self.list().await,
            62..76 => {
                let key = format!("hot/{}", self.rng.random_range(0..HOT_KEYS));
                self.read(key).await;
            }
            _ => {
                let known = self.known();
                if let Some(key) = known {
                    self.read(key).await;
                }
            }
        }
    }

    fn known(&mut self) -> Option<String> {
        let shared = Arc::clone(&self.shared);
        let known = shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Mostly what is fresh.
        let len = known.len();
        let from = if self.rng.random_range(0..3) > 0 { len.saturating_sub(100) } else { 0 };
        (len > 0).then(|| known[self.rng.random_range(from..len)].clone())
    }

    /// A value that nobody else writes, at most so long.
    fn value(&mut self, most: usize) -> String {
        self.writes += 1;
        let value = format!("{}.{}", self.number, self.writes);
        // Enough bytes that journals and tables turn over many times in a quarter of an hour.
        let more: usize = match self.rng.random_range(0..40) {
            0..3 => self.rng.random_range(65_536..300_000),
            3..12 => self.rng.random_range(1_000..20_000),
            _ => self.rng.random_range(0..200),
        };
        short(&format!("{value} {}", "~".repeat(more.min(most))))
    }

    async fn write(&mut self, what: What) -> (Answer, Option<String>) {
        let acks = match self.rng.random_range(0..20) {
            0 => Some("all"),
            1..5 => Some("2"),
            5 => Some("3"),
            _ => None,
        };
        if let Some(key) = what.key() {
            let mut known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.last().map(String::as_str) != Some(key) && !key.starts_with("hot/") {
                known.push(key.to_owned());
            }
        }
        self.shared.request(self.number, &self.home, what, acks, None).await
    }

    /// Writes a key that is not written again. When there are many such keys the oldest is deleted, as often as it takes: the
    /// data stops growing.
    async fn write_once(&mut self) {
        let value = self.value(usize::MAX);
        let key = format!("once/{}-{}/{}", self.number, self.writes / PREFIX_WRITES, self.writes);
        self.once.push_back(key.clone());
        self.write(What::Put { key, value, expires_s: None }).await;
        for _ in 0..self.once.len().saturating_sub(ONCE_KEPT).min(DELETED_AT_ONCE) {
            let Some(key) = self.once.pop_front() else { break };
            let (answer, _) = self.write(What::Delete { key: key.clone() }).await;
            if !matches!(answer, Answer::Done { .. }) {
                self.once.push_back(key);
            }
        }
    }

    /// Writes or deletes the own key, and sometimes reads it elsewhere with the bookmark.
    async fn write_own(&mut self) {
        let disk = (self.home.number, self.home.disk());
        let is_kept = self.rng.random_range(0..25) > 0;
        let key = match self.own.take() {
            Some((key, on)) if on == disk && is_kept => key,
            left => {
                match left {
                    Some((key, on)) if on == disk => self.once.push_back(key),
                    // Deleted from another disk, they could no longer be judged as written one after the other.
                    Some(_) => self.once.retain(|key| !key.starts_with("own/")),
                    None => {}
                }
                self.owned += 1;
                format!("own/{}/{}", self.number, self.owned)
            }
        };
        let what = match self.rng.random_range(0..5) {
            0 => What::Delete { key: key.clone() },
            // When the disk is lost these keys stay for good.
            _ => What::Put { key: key.clone(), value: self.value(LEFT_BEHIND_LEN_MAX), expires_s: None },
        };
        let (answer, bookmark) = self.write(what).await;
        if matches!(answer, Answer::Unknown) {
            return;
        }
        self.own = Some((key.clone(), disk));
        let (Answer::Done { .. }, Some(bookmark)) = (answer, bookmark) else { return };
        self.bookmarks.clear();
        self.bookmarks.insert(key.clone(), bookmark.clone());
        if self.rng.random_range(0..3) == 0 {
            let others = self.shared.world.up();
            if let Some(other) = others.get(self.rng.random_range(0..others.len().max(1))) {
                let what = What::Get { key, bookmark: true };
                self.shared.request(self.number, other, what, None, Some(&bookmark)).await;
            }
        }
    }

    async fn write_hot(&mut self) {
        let key = format!("hot/{}", self.rng.random_range(0..HOT_KEYS));
        let what = match self.rng.random_range(0..8) {
            0 => What::Delete { key },
            _ => What::Put { key, value: self.value(usize::MAX), expires_s: None },
        };
        self.write(what).await;
    }

    async fn write_expiring(&mut self) {
        if self.shared.no_expiry.load(Ordering::Relaxed) {
            return;
        }
        let value = self.value(usize::MAX);
        let now_s = (self.shared.epoch_ms + self.shared.clock.us() / 1_000) / 1_000;
        let expires_s = Some(now_s + self.rng.random_range(LIVES_SECS));
        let key = format!("ttl/{}/{}", self.number, self.writes);
        self.write(What::Put { key, value, expires_s }).await;
    }

    async fn list(&mut self) {
        let prefix = match self.rng.random_range(0..3) {
            0 => "hot/".to_owned(),
            1 => format!("own/{}/", self.number),
            _ => format!("once/{}-{}/", self.number, self.writes / PREFIX_WRITES),
        };
        self.shared.request(self.number, &self.home, What::List { prefix }, None, None).await;
    }

    /// Reads at home, sometimes elsewhere.
    async fn read(&mut self, key: String) {
        let others = self.shared.world.up();
        let at = match self.rng.random_range(0..4) {
            0 => others.get(self.rng.random_range(0..others.len().max(1))).cloned(),
            _ => None,
        };
        let at = at.unwrap_or_else(|| Arc::clone(&self.home));
        self.shared.request(self.number, &at, What::Get { key, bookmark: false }, None, None).await;
    }
}

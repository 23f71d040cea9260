//! Real nodes on loopback: what lies on their disks and goes over their wires, and how their keys change.

mod lies;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;

use super::*;
use crate::config::{Config, Durability};
use crate::datadir::DataDir;
use crate::keyring::{KeyError, KeySource};
use crate::kv::{AccountId, KvError, NamespaceId, Put, Value};
use crate::store::OpenError;

const PATIENCE: Duration = Duration::from_secs(30);
/// Found nowhere unless it was left there in plain.
const VALUE: &[u8] = b"plaintext-of-a-value-0123456789";
const METADATA: &[u8] = b"{\"plaintext\":\"of-the-metadata\"}";
const TITLE: &str = "plaintext-of-a-title";

struct Place {
    directory: tempfile::TempDir,
    gossip: SocketAddr,
    node: Option<(Node, DataDir)>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, gossip: "127.0.0.1:0".parse().unwrap(), node: None }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn key_file(&self) -> PathBuf {
        self.directory.path().join("data.key")
    }

    fn config(&self) -> Config {
        Config { gossip: self.gossip, durability: Durability::Os, data: self.data(), ..Config::default() }
    }

    async fn start(&mut self, config: Config) -> Result<(), StartError> {
        let data = DataDir::open(&self.data()).unwrap();
        let mut patience = 200;
        let node = loop {
            // Tasks of the node before may still hold its store for a moment; a process would be gone.
            match Node::start(&config, &data).await {
                Err(StartError::Open(OpenError::InUse { .. })) if patience > 0 => patience -= 1,
                started => break started?,
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        };
        self.gossip = node.gossip();
        self.node = Some((node, data));
        Ok(())
    }

    fn node(&self) -> &Node {
        &self.node.as_ref().expect("it runs").0
    }

    async fn stop(&mut self) {
        if let Some((node, _data)) = self.node.take() {
            node.stop().await;
        }
    }

    /// Waits until nothing of a node that was stopped writes any more.
    async fn rest(&self) {
        until("the store to be free", async || crate::store::FjallStore::open(&self.data().join("store")).is_ok())
            .await;
    }

    /// Joins the cluster of `other`, advertised at `advertise` if that is not where it listens.
    async fn join(&mut self, other: &Self, advertise: Option<SocketAddr>) {
        let token = other.node().invite(Duration::from_secs(60)).await.unwrap().to_string();
        let config = Config {
            join: Some(crate::secret::Secret::new(&token)),
            advertise: advertise.map(|address| address.to_string().parse().unwrap()),
            name: Some(format!("n{}", self.data().to_string_lossy().bytes().map(u64::from).sum::<u64>() % 10_000_000)),
            ..self.config()
        };
        self.start(config).await.unwrap();
    }

    async fn read(&self, namespace: NamespaceId, key: &str) -> Result<Option<Bytes>, KvError> {
        let Some(found) = self.node().kv().get(namespace, key.as_bytes()).await? else { return Ok(None) };
        match found.value {
            Value::Inline(value) => Ok(Some(value)),
            Value::Blob(mut blob) => {
                let mut value = Vec::new();
                while let Some(chunk) = blob.next().await {
                    value.extend_from_slice(&chunk?);
                }
                Ok(Some(value.into()))
            }
        }
    }

    async fn write(&self, namespace: NamespaceId, key: &str, value: &[u8]) {
        let metadata = Some(Bytes::from_static(METADATA));
        let put = Put { value: Bytes::copy_from_slice(value), metadata, expiration: None };
        self.node().kv().put(namespace, key.as_bytes(), put).await.unwrap();
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain for: {what}");
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, target).unwrap();
    }
}

/// Passes datagrams on to `target`, and keeps what it sees.
async fn relay(target: Arc<Mutex<SocketAddr>>) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let (address, seen) = (front.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let captured = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut backs: std::collections::BTreeMap<SocketAddr, Arc<UdpSocket>> = Default::default();
        let mut datagram = vec![0; 65_536];
        while let Ok((len, from)) = front.recv_from(&mut datagram).await {
            captured.lock().unwrap().extend_from_slice(&datagram[..len]);
            if let std::collections::btree_map::Entry::Vacant(place) = backs.entry(from) {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                place.insert(Arc::clone(&back));
                let (front, captured) = (Arc::clone(&front), Arc::clone(&captured));
                tokio::spawn(async move {
                    let mut datagram = vec![0; 65_536];
                    while let Ok((len, _)) = back.recv_from(&mut datagram).await {
                        captured.lock().unwrap().extend_from_slice(&datagram[..len]);
                        let _ = front.send_to(&datagram[..len], from).await;
                    }
                });
            }
            let target = *target.lock().unwrap();
            let _ = backs[&from].send_to(&datagram[..len], target).await;
        }
    });
    (address, seen)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_plaintext_lies_on_disk_or_goes_over_the_wire() {
    let target = Arc::new(Mutex::new("127.0.0.1:1".parse().unwrap()));
    let (front, seen) = relay(Arc::clone(&target)).await;
    let (mut a, mut b) = (Place::new(), Place::new());
    // All that goes between the two goes through the relay: A is reached there, and so is its invite.
    a.gossip = "127.0.0.1:0".parse().unwrap();
    let config = Config { advertise: Some(front.to_string().parse().unwrap()), ..a.config() };
    a.start(config).await.unwrap();
    *target.lock().unwrap() = a.node().gossip();
    // B gives no address to be dialed at that works, so it is B who dials.
    b.join(&a, Some("127.0.0.1:9".parse().unwrap())).await;
    let namespace = a.node().kv().create_namespace(AccountId([1; 16]), TITLE).await.unwrap().id;
    let large: Vec<u8> = VALUE.iter().copied().cycle().take(600_000).collect();
    a.write(namespace, "a-key-name", VALUE).await;
    a.write(namespace, "large", &large).await;
    until("the values at B", async || {
        matches!(b.read(namespace, "a-key-name").await, Ok(Some(value)) if value == VALUE)
            && matches!(b.read(namespace, "large").await, Ok(Some(value)) if value == large)
    })
    .await;
    b.write(namespace, "back", VALUE).await;
    until("the answer at A", async || matches!(a.read(namespace, "back").await, Ok(Some(_)))).await;
    assert!(seen.lock().unwrap().len() > 600_000, "the relay has seen the values pass");

    let secrets: Vec<Vec<u8>> = {
        let keyring = a.node().keyring();
        let keys = [keyring.node_key(), keyring.authority_key()].map(|key| key.0.clone());
        keyring.secrets().into_iter().map(|secret| secret.bytes.0.clone()).chain(keys).collect()
    };
    assert!(secrets.len() >= 5, "cluster, system, namespace, node, authority");
    a.stop().await;
    b.stop().await;
    let mut found_key_name = false;
    for place in [&a, &b] {
        for file in files(&place.data()) {
            let mut bytes = std::fs::read(&file).unwrap();
            // Journals are laid out ahead.
            bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            for plain in [VALUE, METADATA, TITLE.as_bytes()].into_iter().chain(secrets.iter().map(Vec::as_slice)) {
                assert!(!contains(&bytes, plain), "{} holds {:?}", file.display(), plain.escape_ascii().to_string());
            }
            found_key_name |= contains(&bytes, b"a-key-name");
        }
    }
    assert!(found_key_name, "key names lie plain, or this test looks in the wrong place");
    let wire = seen.lock().unwrap().clone();
    for plain in [VALUE, METADATA, TITLE.as_bytes(), b"a-key-name"].into_iter().chain(secrets.iter().map(Vec::as_slice))
    {
        assert!(!contains(&wire, plain), "the wire carries {:?}", plain.escape_ascii().to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_namespace_is_not_found_on_an_old_disk() {
    let mut a = Place::new();
    a.start(a.config()).await.unwrap();
    let account = AccountId([1; 16]);
    let namespace = a.node().kv().create_namespace(account, TITLE).await.unwrap().id;
    let kept = a.node().kv().create_namespace(account, "kept").await.unwrap().id;
    a.write(namespace, "k", VALUE).await;
    a.write(kept, "k", VALUE).await;
    a.stop().await;
    a.rest().await;
    let stolen = a.directory.path().join("stolen");
    copy(&a.data(), &stolen);
    a.start(a.config()).await.unwrap();
    let old_key = std::fs::read(a.key_file()).unwrap();
    a.node().kv().delete_namespace(account, namespace).await.unwrap();
    assert!(matches!(a.read(namespace, "k").await, Err(KvError::NoKey) | Ok(None)));
    until("another cluster key", async || std::fs::read(a.key_file()).unwrap() != old_key).await;
    until("the old key forgotten", async || {
        KeySource::File(a.key_file()).read().unwrap().is_some_and(|keys| keys.len() == 1)
    })
    .await;
    assert!(!a.node().keyring().must_shred());
    assert_eq!(a.read(kept, "k").await.unwrap().unwrap(), VALUE);
    a.stop().await;

    // The old disk with the present key opens nothing.
    let config = Config { cluster_key_file: Some(a.key_file()), data: stolen.clone(), ..a.config() };
    let data = DataDir::open(&stolen).unwrap();
    let error = Node::start(&config, &data).await.err().unwrap();
    assert!(matches!(error, StartError::Key(KeyError::Wrong { .. })), "{error}");
    // The present disk opens with it, and knows the namespace no more.
    a.start(a.config()).await.unwrap();
    assert_eq!(a.read(kept, "k").await.unwrap().unwrap(), VALUE);
    assert!(!a.node().keyring().has_key(namespace));
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_while_nodes_serve_and_one_is_away() {
    let (mut a, mut b, mut c) = (Place::new(), Place::new(), Place::new());
    a.start(a.config()).await.unwrap();
    b.join(&a, None).await;
    c.join(&a, None).await;
    let namespace = a.node().kv().create_namespace(AccountId([1; 16]), TITLE).await.unwrap().id;
    a.write(namespace, "old", VALUE).await;
    for place in [&b, &c] {
        until("the first value", async || matches!(place.read(namespace, "old").await, Ok(Some(_)))).await;
    }
    c.stop().await;

    let first = a.node().keyring().summary().cluster_key;
    let certificate = a.node().keys().status().await.unwrap().certificate_until_secs;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let second = a.node().keys().rotate_cluster().await.unwrap();
    assert_ne!(first, second);
    a.node().keys().rotate_data(namespace).await.unwrap();
    a.node().keys().rotate_data(NamespaceId::SYSTEM).await.unwrap();
    a.node().keys().rotate_certificates().await.unwrap();
    for number in 0..50 {
        let writer = if number % 2 == 0 { &a } else { &b };
        writer.write(namespace, &format!("during-{number}"), VALUE).await;
        assert_eq!(a.read(namespace, "old").await.unwrap().unwrap(), VALUE);
    }
    until("the new cluster key at B", async || b.node().keyring().summary().sealed_with == second).await;
    until("a new certificate at B", async || {
        b.node().keys().status().await.unwrap().certificate_until_secs > certificate
    })
    .await;
    assert!(a.node().keys().status().await.unwrap().certificate_until_secs > certificate);
    let keys = || KeySource::File(a.key_file()).read().unwrap().unwrap().len();
    assert_eq!(keys(), 2, "the former key stays while C has not said that it needs it no more");

    c.start(c.config()).await.unwrap();
    until("C to catch up", async || {
        c.node().keyring().summary().sealed_with == second
            && matches!(c.read(namespace, "during-49").await, Ok(Some(_)))
            && matches!(c.read(namespace, "old").await, Ok(Some(_)))
    })
    .await;
    until("the former key forgotten", async || keys() == 1).await;

    // A thief with the former key and a disk of today gets nothing.
    let forgotten = a.directory.path().join("former.key");
    a.stop().await;
    std::fs::write(&forgotten, "00".repeat(32)).unwrap();
    let config = Config { cluster_key_file: Some(forgotten), ..a.config() };
    assert!(matches!(a.start(config).await, Err(StartError::Key(KeyError::Wrong { .. }))));
    a.start(a.config()).await.unwrap();
    assert_eq!(a.read(namespace, "old").await.unwrap().unwrap(), VALUE);
    for place in [&mut a, &mut b, &mut c] {
        place.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_at_one_moment_do_not_disturb_each_other() {
    let mut a = Place::new();
    a.start(a.config()).await.unwrap();
    let namespace = a.node().kv().create_namespace(AccountId([1; 16]), TITLE).await.unwrap().id;
    a.write(namespace, "k", VALUE).await;
    for round in 0..30 {
        let keys = [Arc::clone(a.node().keys()), Arc::clone(a.node().keys())];
        let rotations = keys.map(|keys| tokio::spawn(async move { keys.rotate_cluster().await }));
        for rotation in rotations {
            rotation.await.unwrap().unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
        let (used, given) = (a.node().keyring().summary().sealed_with, KeySource::File(a.key_file()).read());
        assert!(given.unwrap().unwrap().iter().any(|key| key.id() == used), "round {round}: the key in use is kept");
    }
    a.stop().await;
    a.start(a.config()).await.unwrap();
    assert_eq!(a.read(namespace, "k").await.unwrap().unwrap(), VALUE);
    a.stop().await;
}

#[tokio::test]
async fn a_node_without_its_key_or_of_before_encryption_says_so() {
    let mut a = Place::new();
    a.start(a.config()).await.unwrap();
    a.stop().await;
    std::fs::rename(a.key_file(), a.directory.path().join("elsewhere")).unwrap();
    assert!(matches!(a.start(a.config()).await, Err(StartError::Key(KeyError::Absent(_)))));
    let elsewhere = Config { cluster_key_file: Some(a.directory.path().join("elsewhere")), ..a.config() };
    a.start(elsewhere).await.unwrap();
    a.stop().await;
    std::fs::remove_file(a.data().join("keyring")).unwrap();
    assert!(matches!(a.start(a.config()).await, Err(StartError::Key(KeyError::Unsealed(_)))));
}

//! From a store to a file and back: whole, in any number of transfers, and nothing else.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::keyring::KeySource;
use crate::kv::Put;
use crate::node::{MachineClock, Node, Standing, scrub_stopped};

struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self, name: &str) -> Config {
        let local = "127.0.0.1:0".parse().expect("an address");
        let cluster_key_file = Some(self.at("cluster.key"));
        Config { data: self.at(name), api: local, gossip: local, cluster_key_file, ..Config::default() }
    }

    fn source(&self) -> KeySource {
        KeySource::File(self.at("cluster.key"))
    }

    async fn start(&self, name: &str) -> (Node, DataDir) {
        let config = self.config(name);
        let data = DataDir::open(&config.data).expect("a directory");
        (Node::start(&config, &data).await.expect("a node"), data)
    }
}

fn clock() -> MachineClock {
    MachineClock::start(0)
}

/// The bytes of a backup, fetched in parts that end wherever `cut` says, each begun anew after what is whole.
fn transfer(taking: &Arc<Taking>, cut: impl Fn(usize) -> usize) -> Vec<u8> {
    let (mut file, mut held) = (Vec::new(), 0);
    for part in 0.. {
        let mut pieces = taking.pieces(held).expect("pieces");
        for _ in 0..cut(part) {
            match pieces.next() {
                Some(bytes) => file.extend_from_slice(&bytes),
                None => return file,
            }
            held += 1;
        }
    }
    file
}

async fn begin(node: &Node) -> Arc<Taking> {
    let dump = node.handle().reader().dump();
    let (belongings, lock) = node.keys().belongings("fra").await;
    Arc::new(Taking::begin([7; 16], lock, dump, belongings))
}

#[tokio::test]
async fn a_backup_holds_one_moment_whatever_is_written_meanwhile() {
    let world = World::new();
    let (node, data) = world.start("first").await;
    let kv = node.kv();
    let namespace = kv.create_namespace(node.account(), "shop").await.expect("a namespace").id;
    let put = |value: Vec<u8>| Put { value: value.into(), metadata: Some("{\"a\":1}".into()), ..Put::default() };
    let mut large = vec![0; 3_000_000];
    blake3::Hasher::new().finalize_xof().fill(&mut large);
    for n in 0..3000_u32 {
        kv.put(namespace, format!("key-{n}").as_bytes(), put(vec![n as u8; 900])).await.expect("puts");
    }
    kv.put(namespace, b"large", put(large.clone())).await.expect("puts");
    let taking = begin(&node).await;
    let whole = transfer(&taking, |_| usize::MAX);
    for n in 0..300_u32 {
        kv.put(namespace, format!("key-{n}").as_bytes(), put(vec![1; 9])).await.expect("puts");
    }
    kv.put(namespace, b"later", put(vec![1])).await.expect("puts");
    kv.delete(namespace, b"large").await.expect("deletes");
    // The same pieces, sealed anew, in transfers that end after one, two and three of them.
    let in_parts = transfer(&taking, |part| 1 + part % 3);
    assert_eq!(whole.len(), in_parts.len());
    assert_ne!(whole, in_parts);
    let (account, former) = (node.account(), node.id());
    node.stop().await;
    drop(data);

    for (name, bytes) in [("whole", whole), ("parts", in_parts)] {
        let file = world.at(&format!("{name}.starling"));
        fs::write(&file, bytes).expect("writes");
        let content = check(&file, &world.source(), &mut |_| ()).expect("it is whole");
        assert_eq!((content.node, content.name.as_str()), (former, "fra"));
        assert!(content.pieces > 8, "{content:?}");
        let restored =
            restore(&file, &world.at(name), world.source(), Standing::Founder, clock(), &mut |_| ()).expect("restores");
        assert_eq!(restored.evicted, 1);
        let found = scrub_stopped(&world.config(name), clock(), &mut |_| ()).expect("a directory");
        assert_eq!((found.damaged, found.locked), (0, 0), "{found:?}");
        assert!(found.entries > 3000 && found.chunks == 12 && found.seals > 6000, "{found:?}");
        let (node, _data) = world.start(name).await;
        assert_eq!((node.account(), node.id()), (account, restored.node));
        assert_ne!(node.id(), former, "a node of its own");
        let kv = node.kv();
        for n in 0..3000_u32 {
            let found = kv.get(namespace, format!("key-{n}").as_bytes()).await.expect("reads").expect("is there");
            assert!(matches!(found.value, crate::kv::Value::Inline(value) if value == vec![n as u8; 900]), "{n}");
        }
        assert!(kv.get(namespace, b"later").await.expect("reads").is_none());
        let found = kv.get(namespace, b"large").await.expect("reads").expect("is there");
        let crate::kv::Value::Blob(mut reader) = found.value else { panic!("it is large") };
        let mut read = Vec::new();
        while let Some(chunk) = reader.next().await {
            read.extend_from_slice(&chunk.expect("whole"));
        }
        assert!(read == large);
        kv.put(namespace, b"new", put(vec![1])).await.expect("it takes writes");
        drop(reader);
        node.stop().await;
    }
}

#[tokio::test]
async fn the_same_node_returns_as_another_life() {
    let world = World::new();
    let (node, data) = world.start("first").await;
    let namespace = node.kv().create_namespace(node.account(), "shop").await.expect("a namespace").id;
    let file = world.at("b.starling");
    fs::write(&file, transfer(&begin(&node).await, |_| 2)).expect("writes");
    let former = (node.id(), node.authority().fingerprint());
    let life = life(&node).await;
    node.stop().await;
    drop(data);
    let restored =
        restore(&file, &world.at("again"), world.source(), Standing::SameNode, clock(), &mut |_| ()).expect("restores");
    assert_eq!((restored.node, restored.evicted), (former.0, 0));
    let (node, _data) = world.start("again").await;
    assert_eq!((node.id(), node.authority().fingerprint()), former);
    node.kv().put(namespace, b"k", Put::default()).await.expect("puts");
    assert_ne!(self::life(&node).await, life);
    node.stop().await;
}

async fn life(node: &Node) -> Option<crate::replica::Origin> {
    match node.handle().call(crate::replica::Request::Status).await.expect("a reply") {
        crate::replica::Reply::Status(status) => status.life,
        _ => None,
    }
}

#[tokio::test]
async fn what_is_damaged_cut_short_or_of_another_key_is_refused_by_name() {
    let world = World::new();
    let (node, data) = world.start("first").await;
    node.kv().create_namespace(node.account(), "shop").await.expect("a namespace");
    let good = transfer(&begin(&node).await, |_| usize::MAX);
    node.stop().await;
    drop(data);
    let file = world.at("b.starling");
    let target = world.at("restored");
    let tried = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("writes");
        let checked = check(&file, &world.source(), &mut |_| ()).map(drop);
        let restored = restore(&file, &target, world.source(), Standing::Founder, clock(), &mut |_| ()).map(drop);
        assert!(!target.exists() || restored.is_ok(), "nothing gets the name that is not whole");
        assert_eq!(checked.is_ok(), restored.is_ok());
        checked
    };
    for len in [0, 7, HEADER_LEN, HEADER_LEN + 3, good.len() / 2, good.len() - 1] {
        let error = tried(&good[..len]).expect_err("cut short");
        assert!(matches!(error, BackupError::NoBackup(_) | BackupError::CutShort { .. }), "{len}: {error}");
    }
    for step in 0..60 {
        // Every byte of the header, then here and there.
        let at = if step < HEADER_LEN { step } else { step * good.len() / 60 };
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let error = tried(&bad).expect_err("damaged").to_string();
        assert!(
            ["no backup", "damaged", "cluster key", "not whole"].iter().any(|said| error.contains(said)),
            "{error}"
        );
    }
    let other = KeySource::File(world.at("other.key"));
    let error = check(&file, &other, &mut |_| ()).expect_err("no key").to_string();
    assert!(error.contains("is not there") && error.contains("--cluster-key-file"), "{error}");
    fs::create_dir(world.at("full")).and_then(|()| fs::write(world.at("full/x"), "")).expect("writes");
    fs::write(&file, &good).expect("writes");
    let error = restore(&file, &world.at("full"), world.source(), Standing::Founder, clock(), &mut |_| ());
    assert!(matches!(error, Err(BackupError::Occupied(_))));
    tried(&good).expect("the good one");
}

//! A driver for one node without peers: a thread that serves a mailbox over a store.

use std::thread::JoinHandle;

use tempfile::TempDir;

use super::*;
use crate::node::{MachineClock, Mailbox, mailbox};
use crate::replica::{
    BlobAddress, Content, Entry, Incarnation, Key, Marker, NodeId, Origin, Refusal, Store, StoreError, Timestamp,
};
use crate::store::FjallStore;

/// Requests of one commit.
const BATCH: usize = 64;

/// A running node.
pub(super) struct Node {
    pub(super) kv: Kv,
    driver: JoinHandle<Driver>,
    directory: TempDir,
}

struct Driver {
    store: FjallStore,
    seq: u64,
    mode: Mode,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Works,
    /// The third commit fails, as on a full disk.
    DiskFull,
    /// Every write is refused.
    Refuses(Refusal),
    /// Requests are taken and never answered.
    Hangs,
}

impl Node {
    pub(super) fn start() -> Self {
        Self::start_with(Mode::Works)
    }

    pub(super) fn start_with(mode: Mode) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = FjallStore::open(directory.path()).expect("a store");
        let (handle, mailbox) = mailbox(store.reader(), MachineClock::start(0));
        let driver = Driver { store, seq: 0, mode };
        let driver = std::thread::spawn(move || driver.run(mailbox));
        Self { kv: Kv::new(handle, Arc::new(PlainSeal), [7; 32]), driver, directory }
    }

    /// Ends the node, its data stays.
    pub(super) fn stop_keeping_the_directory(self) -> TempDir {
        drop(self.kv);
        drop(self.driver.join().expect("the driver ends"));
        self.directory
    }

    /// Ends the node; what it held, and blobs that were begun and neither finished nor given up.
    pub(super) fn stop(self) -> (FjallStore, Vec<BlobAddress>) {
        drop(self.kv);
        let store = self.driver.join().expect("the driver ends").store;
        let open = store.recover().expect("reads").open_blobs;
        (store, open)
    }
}

impl Driver {
    fn run(mut self, mut mailbox: Mailbox) -> Self {
        let mut kept = Vec::new();
        while let Some(first) = mailbox.requests.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Ok(next) = mailbox.requests.try_recv()
            {
                batch.push(next);
            }
            let mut replies = Vec::new();
            for (request, sender) in batch {
                match self.handle(request) {
                    Ok(reply) => replies.push((sender, reply)),
                    Err(error) => mailbox.fail(error.to_string()),
                }
            }
            if self.mode == Mode::DiskFull && self.seq >= 3 {
                self.store.fail_next_commit();
            }
            match self.store.commit(false) {
                Ok(_) if self.mode == Mode::Hangs => kept.extend(replies),
                Ok(_) => replies.into_iter().for_each(|(sender, reply)| drop(sender.send(reply))),
                Err(error) => mailbox.fail(error.to_string()),
            }
        }
        self
    }

    fn handle(&mut self, request: Request) -> Result<Reply, StoreError> {
        match request {
            Request::Write { key, content } => self.write(key, content),
            Request::PutChunk { key, id, index, chunk } => {
                let blob = BlobAddress::of(&key, id);
                self.store.open_blob(blob);
                self.store.put_chunk(blob, index, chunk);
                Ok(Reply::Done)
            }
            Request::AbandonBlob { key, id } => {
                self.store.remove_blob(BlobAddress::of(&key, id))?;
                Ok(Reply::Done)
            }
            _ => Ok(Reply::Refused(Refusal::Overloaded)),
        }
    }

    fn write(&mut self, key: Key, content: Content) -> Result<Reply, StoreError> {
        if let Mode::Refuses(refusal) = self.mode
            && !key.namespace().is_system()
        {
            return Ok(Reply::Refused(refusal));
        }
        let deleted = Key::new(NamespaceId::DELETED, &key.namespace().0).expect("16 bytes are a key");
        if !key.namespace().is_system() && self.store.get(&deleted)?.is_some() {
            return Ok(Reply::Refused(Refusal::NamespaceDeleted));
        }
        self.seq += 1;
        let origin = Origin { node: NodeId(1), incarnation: Incarnation(1) };
        let stamp = Timestamp::from_ms(self.seq);
        let marker = Marker { time: stamp, origin };
        let entry = Entry::new(&key, origin.dot(self.seq), stamp, marker, content);
        let old = self.store.get(&key)?;
        if let Some(blob) = old.as_ref().and_then(Entry::blob) {
            self.store.remove_blob(BlobAddress::of(&key, blob.id))?;
        }
        if let Some(blob) = entry.blob() {
            let address = BlobAddress::of(&key, blob.id);
            assert!(self.store.chunks_held(address, blob.chunks.len() as u32)?.into_iter().all(|held| held));
            self.store.close_blob(address);
        }
        // As the replica would: through the encoding, so that what can't be read back is noticed.
        let entry = Entry::decode(&key, &entry.encode()).expect("a record within bounds");
        self.store.put(&key, &entry, old.map(|old| old.dot));
        Ok(Reply::Written { dot: entry.dot, marker, stamp })
    }
}

//! What a former node of this directory wrote and nobody else has is issued again, once this node has caught up. Which
//! writes those are, and how they come back, is the replica's; here they are read, and asked for until each is settled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::handle::{Handle, NodeGone};
use super::start::STORE;
use crate::datadir::{DataDirError, write_private};
use crate::replica::{
    AckLevel, Blob, Dot, Entry, Fate, Key, NodeId, Reply, Request, Step, StoreError, own_writes, sound_chunk,
};
use crate::store::{FjallStore, OpenError};

/// Says in a former node's directory that nothing is left to issue, and what became of it all.
const SETTLED: &str = "reissued.json";
/// Entries read, and requests under way, at a time.
const BATCH: usize = 256;
/// How long to wait before asking again what can't be answered yet.
const LATER: Duration = Duration::from_millis(250);
/// How long this node's own disk may take at the end.
const DISK_PATIENCE_MS: u64 = 60_000;
/// The first pause after a failure; each is twice as long as the one before, up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What became of a former node's own writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Tally {
    reissued: u64,
    dominated: u64,
    deleted: u64,
    damaged: u64,
}

impl Tally {
    fn count(&mut self, fate: Fate) {
        let count = match fate {
            Fate::Reissued => &mut self.reissued,
            Fate::Dominated => &mut self.dominated,
            Fate::Deleted => &mut self.deleted,
            Fate::Damaged => &mut self.damaged,
        };
        *count += 1;
    }
}

/// Why a former node's writes are not issued again yet.
#[derive(Debug, thiserror::Error)]
enum ReissueError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Gone(#[from] NodeGone),
}

/// Goes on until all writes of all former nodes are settled.
pub(super) async fn reissue(handle: Handle, formers: Vec<(NodeId, PathBuf)>) {
    for (node, directory) in formers {
        let mut pause = PAUSE;
        while directory.join(STORE).exists() && !directory.join(SETTLED).exists() {
            let (handle, at, runtime) = (handle.clone(), directory.clone(), tokio::runtime::Handle::current());
            // Reading waits for the disk.
            let settled = tokio::task::spawn_blocking(move || runtime.block_on(settle(&handle, node, &at))).await;
            match settled {
                Ok(Ok(Tally { reissued, dominated, deleted, damaged })) => tracing::warn!(
                    former = %node, reissued, dominated, deleted, damaged, kept = %directory.display(),
                    "writes that only the evicted node had are issued again"
                ),
                Ok(Err(ReissueError::Gone(_))) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::warn!(former = %node, %error, "writes of the evicted node can't be issued again; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}

/// Settles every write of one former node. May be cut short anywhere and begun anew.
async fn settle(handle: &Handle, node: NodeId, directory: &Path) -> Result<Tally, ReissueError> {
    let store = FjallStore::open(&directory.join(STORE))?;
    let (mut tally, mut after, mut last) = (Tally::default(), None, None);
    loop {
        let own = own_writes(&store, node, after.as_ref(), BATCH)?;
        tally.damaged += own.damaged as u64;
        settle_batch(handle, &store, own.writes, &mut tally, &mut last).await?;
        match own.after {
            Some(reached) => after = Some(reached),
            None => break,
        }
    }
    if let Some(dot) = last {
        // With a durability below fsync they were accepted before they were on disk.
        let on_disk = Request::AwaitAcks { dot, level: AckLevel::Nodes(1), patience_ms: DISK_PATIENCE_MS };
        if !matches!(handle.call(on_disk).await?, Reply::Acknowledged(_)) {
            return Err(StoreError("the disk takes too long".into()).into());
        }
    }
    let text = serde_json::to_vec_pretty(&tally).unwrap_or_default();
    write_private(&directory.join(SETTLED), &text)?;
    Ok(tally)
}

async fn settle_batch(
    handle: &Handle,
    store: &FjallStore,
    mut writes: Vec<(Key, Entry)>,
    tally: &mut Tally,
    last: &mut Option<Dot>,
) -> Result<(), ReissueError> {
    while !writes.is_empty() {
        let mut replies = Vec::with_capacity(writes.len());
        for (key, entry) in &writes {
            replies.push(handle.send(again(key, entry)).await?);
        }
        let mut left = Vec::new();
        for ((key, entry), reply) in writes.into_iter().zip(replies) {
            let mut reply = reply.await.map_err(|_| NodeGone)?;
            if let (Step::Chunks, Some(blob)) = (Step::after(&reply), entry.blob()) {
                reply = with_chunks(handle, store, &key, &entry, blob).await?;
            }
            if let Reply::Written { dot, .. } = reply {
                *last = Some(dot);
            }
            match Step::after(&reply) {
                Step::Settled(fate) => tally.count(fate),
                Step::Chunks => tally.count(Fate::Damaged),
                Step::Later => left.push((key, entry)),
            }
        }
        if !left.is_empty() {
            tokio::time::sleep(LATER).await;
        }
        writes = left;
    }
    Ok(())
}

fn again(key: &Key, entry: &Entry) -> Request {
    Request::Reissue { key: key.clone(), content: entry.content().clone(), marker: entry.marker() }
}

/// Brings a large value's chunks along. What is missing of them leaves the answer what it was.
async fn with_chunks(
    handle: &Handle,
    store: &FjallStore,
    key: &Key,
    entry: &Entry,
    blob: &Blob,
) -> Result<Reply, ReissueError> {
    for index in 0..blob.chunks.len() {
        let Some(chunk) = sound_chunk(store, key, blob, index)? else { break };
        handle.call(Request::PutChunk { key: key.clone(), id: blob.id, index: index as u32, chunk }).await?;
    }
    let reply = handle.call(again(key, entry)).await?;
    if !matches!(reply, Reply::Written { .. }) {
        handle.call(Request::AbandonBlob { key: key.clone(), id: blob.id }).await?;
    }
    Ok(reply)
}

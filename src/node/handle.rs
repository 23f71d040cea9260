//! The driver's mailbox: requests go in, each gets one reply. Reads don't come this way; they use the [`Reader`].
//!
//! Knows neither what a request means nor how long its sender is willing to wait.

use std::sync::{Arc, OnceLock};

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::clock::MachineClock;
use crate::replica::{Changes, Reply, Request};
use crate::store::Reader;

/// Requests that may wait for the driver. Over it senders wait too.
pub const REQUESTS_MAX: usize = 4096;
/// Batches of changes that a watcher may be behind, each of up to
/// [`CHANGES_PER_BATCH_MAX`](crate::replica::limits::CHANGES_PER_BATCH_MAX) keys. Over it the oldest are lost to it.
pub const CHANGES_MAX: usize = 512;

/// The driver will not answer: it has stopped, or its storage failed (see [`Handle::failure`]). Whether the request
/// was carried out is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node doesn't answer")]
pub struct NodeGone;

/// The way to the driver. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<(Request, oneshot::Sender<Reply>)>,
    reader: Reader,
    clock: MachineClock,
    failure: Arc<OnceLock<String>>,
    changes: broadcast::WeakSender<Arc<Changes>>,
    worker_changes: watch::Receiver<u64>,
}

/// The driver's end.
pub struct Mailbox {
    /// Requests, each with the place where its sender waits. Dropping that place says that there will be no reply.
    pub requests: mpsc::Receiver<(Request, oneshot::Sender<Reply>)>,
    failure: Arc<OnceLock<String>>,
    /// Whoever watches changes.
    pub changes: broadcast::Sender<Arc<Changes>>,
    /// Whoever waits for what Workers are made of to change: its generation in the store.
    pub worker_changes: watch::Sender<u64>,
}

/// A mailbox over the store that `reader` reads, of a node that lives by `clock`.
pub fn mailbox(reader: Reader, clock: MachineClock) -> (Handle, Mailbox) {
    let (sender, requests) = mpsc::channel(REQUESTS_MAX);
    let failure = Arc::new(OnceLock::new());
    let (changes, _) = broadcast::channel(CHANGES_MAX);
    let (worker_changes, watched) = watch::channel(reader.worker_generation());
    let handle = Handle {
        requests: sender,
        reader,
        clock,
        failure: failure.clone(),
        changes: changes.downgrade(),
        worker_changes: watched,
    };
    (handle, Mailbox { requests, failure, changes, worker_changes })
}

impl Handle {
    /// Sends a request and waits for its reply. Dropping the future does not take the request back.
    pub async fn call(&self, request: Request) -> Result<Reply, NodeGone> {
        self.send(request).await?.await.map_err(|_| NodeGone)
    }

    /// Sends a request; the reply arrives at the receiver. Requests of one sender are taken in the order sent.
    /// If the future is dropped before it is ready, nothing was sent.
    pub async fn send(&self, request: Request) -> Result<oneshot::Receiver<Reply>, NodeGone> {
        let (sender, reply) = oneshot::channel();
        self.requests.send((request, sender)).await.map_err(|_| NodeGone)?;
        Ok(reply)
    }

    /// Sends a request whose reply nobody waits for, also from outside async code. In a full mailbox it waits on a
    /// task of its own.
    pub fn post(&self, request: Request) {
        let (sender, _) = oneshot::channel();
        if let Err(mpsc::error::TrySendError::Full(letter)) = self.requests.try_send((request, sender))
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let requests = self.requests.clone();
            // An error means that the driver has stopped, and with it the reason for the request.
            runtime.spawn(async move { requests.send(letter).await.ok() });
        }
    }

    /// Changes from now on, once [`Request::Watch`] was answered. Who reads too slowly loses some, and is told.
    pub fn changes(&self) -> broadcast::Receiver<Arc<Changes>> {
        // Without a driver there will be none: the channel closes at once.
        self.changes.upgrade().unwrap_or_else(|| broadcast::channel(1).0).subscribe()
    }

    /// Ticks once a change of what Workers are made of is committed here, wherever it was made. Closes with the driver.
    pub fn worker_changes(&self) -> watch::Receiver<u64> {
        self.worker_changes.clone()
    }

    /// Requests that wait for the driver.
    pub fn waiting(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    /// What reads use: committed state, without the driver's help.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The node's clock.
    pub fn clock(&self) -> MachineClock {
        self.clock
    }

    /// Why this node takes no more writes, if its storage failed.
    pub fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }
}

impl Mailbox {
    /// Tells every handle that storage failed. The first reason stays.
    pub fn fail(&self, why: String) {
        self.failure.get_or_init(|| why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FjallStore;

    #[tokio::test]
    async fn replies_reach_their_senders_and_silence_is_an_error() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = FjallStore::open(directory.path()).expect("a store");
        let (handle, mut mailbox) = mailbox(store.reader(), MachineClock::start(0));
        let driver = tokio::spawn(async move {
            let (_, first) = mailbox.requests.recv().await.expect("a request");
            first.send(Reply::Done).expect("a waiting sender");
            let (_, second) = mailbox.requests.recv().await.expect("a request");
            mailbox.fail("disk full".into());
            drop(second);
            mailbox
        });
        assert!(matches!(handle.call(Request::Status).await, Ok(Reply::Done)));
        assert_eq!(handle.failure(), None);
        assert!(matches!(handle.call(Request::Status).await, Err(NodeGone)));
        assert_eq!(handle.failure().as_deref(), Some("disk full"));
        drop(driver.await.expect("the driver ends"));
        assert!(matches!(handle.call(Request::Status).await, Err(NodeGone)), "nobody listens any more");
    }

    #[tokio::test]
    async fn a_full_mailbox_has_senders_wait() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = FjallStore::open(directory.path()).expect("a store");
        let (handle, mut mailbox) = mailbox(store.reader(), MachineClock::start(0));
        for _ in 0..REQUESTS_MAX {
            drop(handle.send(Request::Status).await.expect("a place"));
        }
        assert_eq!(handle.waiting(), REQUESTS_MAX);
        let mut beyond = Box::pin(handle.send(Request::Status));
        let soon = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, &mut beyond).await.is_err(), "it waits");
        drop(mailbox.requests.recv().await.expect("a request"));
        drop(beyond.await.expect("a place"));
    }
}

//! Sessions: what a client has read and written, carried from PoP to PoP in a bookmark.
//!
//! A [`Kv`] in a session notes every entry that it shows or sets, and every one that made it say "not there". What a
//! bookmark asks for, and when it is covered, is the replica's to know.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{AckLevel, Bookmark, Dot, Kv, KvError, NodeId, Reply, Request, Timestamp, done};
use crate::replica::Entry;

/// What was noted.
#[derive(Default)]
pub(super) struct Session(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    bookmark: Bookmark,
    /// The last write.
    written: Option<Dot>,
}

impl Kv {
    /// The same client in a new session.
    pub fn session(&self) -> Self {
        Self(self.0.clone(), Some(Arc::default()))
    }

    fn noted_so_far(&self) -> Option<MutexGuard<'_, Noted>> {
        let session = self.1.as_ref()?;
        Some(session.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn note(&self, dot: Dot, stamp: Timestamp) {
        if let Some(mut noted) = self.noted_so_far() {
            noted.bookmark.note(dot, stamp);
        }
    }

    pub(super) fn note_entry(&self, entry: Option<&Entry>) {
        if let Some(entry) = entry {
            self.note(entry.dot, entry.stamp);
        }
    }

    pub(super) fn is_session(&self) -> bool {
        self.1.is_some()
    }

    pub(super) fn note_all(&self, seen: &Bookmark) {
        if let Some(mut noted) = self.noted_so_far() {
            noted.bookmark.join(seen);
        }
    }

    /// Success, or why not; a write is noted.
    pub(super) fn noted(&self, reply: Reply) -> Result<(), KvError> {
        if let (Reply::Written { dot, stamp, .. }, Some(mut noted)) = (&reply, self.noted_so_far()) {
            noted.bookmark.note(*dot, *stamp);
            noted.written = noted.written.max(Some(*dot));
        }
        done(reply)
    }

    /// What this session wrote last, if it wrote anything.
    pub(crate) fn last_write(&self) -> Option<Dot> {
        self.noted_so_far().and_then(|noted| noted.written)
    }

    /// Waits until this node has all that a bookmark speaks of, and goes on from there: reads that follow show that or
    /// something newer.
    ///
    /// # Errors
    /// [`KvError::NotCovered`] when `patience` runs out, [`KvError::Departed`] if it speaks of writes that may never
    /// come, [`KvError::Overloaded`] if too many wait.
    pub async fn wait_for(&self, bookmark: Bookmark, patience: Duration) -> Result<(), KvError> {
        if bookmark.is_empty() {
            return Ok(());
        }
        let patience_ms = patience.as_millis() as u64;
        let request = Request::AwaitCovered { bookmark: bookmark.clone(), patience_ms };
        match self.reply_within(request, patience).await? {
            Reply::TimedOut(_) => Err(KvError::NotCovered { patience_ms }),
            reply => {
                done(reply)?;
                self.note_all(&bookmark);
                Ok(())
            }
        }
    }

    /// A bookmark of all that this session has seen, short enough for a header.
    pub async fn bookmark(&self) -> Result<Vec<u8>, KvError> {
        if let Some(bytes) = self.bookmark_at_once() {
            return Ok(bytes);
        }
        let bookmark = self.noted_so_far().map(|noted| noted.bookmark.clone()).unwrap_or_default();
        match self.call(Request::Shorten(bookmark)).await? {
            Reply::Bookmark(short) => short.encode().ok_or(KvError::Unexpected),
            _ => Err(KvError::Unexpected),
        }
    }

    /// The same, if nothing need be left out.
    pub(crate) fn bookmark_at_once(&self) -> Option<Vec<u8>> {
        let noted = self.noted_so_far();
        let nothing = Bookmark::default();
        noted.as_ref().map_or(&nothing, |noted| &noted.bookmark).encode()
    }

    /// Waits until enough nodes have what this session wrote on disk, and says which. With nothing written there is
    /// nothing to wait for, and nobody is named.
    ///
    /// # Errors
    /// [`KvError::NotAcknowledged`] when `patience` runs out: the writes stay, and go on spreading.
    pub async fn acknowledged(&self, level: AckLevel, patience: Duration) -> Result<Vec<NodeId>, KvError> {
        let Some(dot) = self.noted_so_far().and_then(|noted| noted.written) else { return Ok(Vec::new()) };
        let request = Request::AwaitAcks { dot, level, patience_ms: patience.as_millis() as u64 };
        match self.reply_within(request, patience).await? {
            Reply::Acknowledged(nodes) => Ok(nodes),
            Reply::TimedOut(nodes) => Err(KvError::NotAcknowledged(nodes)),
            reply => done(reply).and(Err(KvError::Unexpected)),
        }
    }

    /// The driver keeps the time; it gets as much again as any call to answer.
    async fn reply_within(&self, request: Request, patience: Duration) -> Result<Reply, KvError> {
        match tokio::time::timeout(patience + super::CALL_TIMEOUT, self.handle().call(request)).await {
            Ok(reply) => reply.map_err(|gone| self.gone(gone)),
            Err(_) => Err(KvError::Timeout),
        }
    }
}

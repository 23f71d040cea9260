//! Following the changes of a namespace: what has changed since a position, then what changes, as it does.
//!
//! There is no history: a key that changed often between two looks is shown once, as it is now. A reader that is too
//! slow loses its place and is told; it never holds anyone up.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::values::expiration;
use super::{BlobReader, Kv, KvError, NamespaceId, Part, Value};
use crate::replica::{Changes, Entry, Key, Marker, NodeTag, Position, Reply, Request, Value as Stored};

/// Feeds at a time.
pub const FEEDS_MAX: usize = 256;
/// Entries looked at before what has happened meanwhile is given out.
const SCAN_ENTRIES: usize = 512;

/// Something has changed.
#[derive(Debug)]
pub struct Event {
    /// The key.
    pub key: Bytes,
    /// Which write it is: later ones of a key compare higher.
    pub marker: Marker,
    /// What the key holds now.
    pub kind: EventKind,
    /// Where to go on after this event.
    pub position: Position,
}

/// What a key holds.
#[derive(Debug)]
pub enum EventKind {
    /// A value.
    Put {
        /// JSON text.
        metadata: Option<Bytes>,
        /// Unix seconds from which it is gone.
        expiration: Option<u64>,
        /// The value, if it was asked for.
        value: Option<Value>,
    },
    /// Nothing: it was deleted.
    Delete,
    /// Nothing: it has expired.
    Expire,
}

/// Why a feed has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedEnd {
    /// The reader was too slow, and changes were lost to it: go on from the last position.
    Lagged,
    /// The namespace is gone.
    NamespaceDeleted,
    /// The node is going away, or its storage failed.
    Stopped,
    /// Reading failed.
    Failed(KvError),
}

/// A feed.
pub struct Feed {
    kv: Kv,
    namespace: NamespaceId,
    prefix: Vec<u8>,
    values: bool,
    changes: Receiver<Arc<Changes>>,
    position: Position,
    /// What was there already, as long as it is gone through.
    catch_up: Option<CatchUp>,
    ready: VecDeque<Ready>,
    /// Of the system entries when the namespace was last looked for.
    generation: u64,
    _place: OwnedSemaphorePermit,
}

/// A change to be given out, and where the reader is then.
struct Ready {
    key: Key,
    marker: Marker,
    position: Position,
}

struct CatchUp {
    since: Position,
    departed: Box<dyn Fn(NodeTag) -> bool + Send>,
    /// The last key that was looked at.
    after: Option<Bytes>,
    /// Where the reader is once all was looked at.
    until: Position,
}

impl Kv {
    /// Follows the keys of a namespace that start with `prefix`: from now on, or from a position that an earlier event
    /// came with, at any node.
    ///
    /// # Errors
    /// [`KvError::TooManyFeeds`] if there are [`FEEDS_MAX`]. Whether the namespace exists is for the caller to check.
    pub async fn feed(
        &self,
        namespace: NamespaceId,
        prefix: &[u8],
        since: Option<Position>,
        values: bool,
    ) -> Result<Feed, KvError> {
        let place = self.0.feeds.clone().try_acquire_owned().map_err(|_| KvError::TooManyFeeds)?;
        let generation = self.handle().reader().system_generation();
        // First the changes to come, then those that are there: so none falls in between.
        let changes = self.handle().changes();
        let Reply::Watching { position, departed } = self.call(Request::Watch).await? else {
            return Err(KvError::Unexpected);
        };
        let catch_up = since.map(|since| CatchUp {
            since,
            departed: Box::new(move |node| departed.contains(&node)),
            after: None,
            until: position.clone(),
        });
        Ok(Feed {
            kv: self.clone(),
            namespace,
            prefix: prefix.to_vec(),
            values,
            changes,
            position: catch_up.as_ref().map_or(position, |catch_up| catch_up.since.clone()),
            catch_up,
            ready: VecDeque::new(),
            generation,
            _place: place,
        })
    }
}

impl Feed {
    /// Where to go on after the last event.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The next event. May be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> Result<Event, FeedEnd> {
        loop {
            if let Some(Ready { key, marker, position }) = self.ready.pop_front() {
                self.position = position;
                // What was overwritten meanwhile comes later, as it is then.
                let entry = self.kv.handle().reader().get(&key).map_err(|error| FeedEnd::Failed(error.into()))?;
                match entry.filter(|entry| entry.marker() == marker) {
                    Some(entry) => return self.event(&key, &entry).map_err(FeedEnd::Failed),
                    None => continue,
                }
            }
            self.check_namespace()?;
            if self.catch_up.is_some() {
                self.look_on().map_err(FeedEnd::Failed)?;
                self.take_waiting()?;
                tokio::task::yield_now().await;
                continue;
            }
            match self.changes.recv().await {
                Ok(changes) => self.take(&changes),
                Err(RecvError::Lagged(_)) => return Err(FeedEnd::Lagged),
                Err(RecvError::Closed) => return Err(FeedEnd::Stopped),
            }
        }
    }

    fn check_namespace(&mut self) -> Result<(), FeedEnd> {
        let generation = self.kv.handle().reader().system_generation();
        if generation != self.generation {
            self.generation = generation;
            match self.kv.check_namespace(self.namespace) {
                Ok(()) => {}
                Err(KvError::NamespaceNotFound) => return Err(FeedEnd::NamespaceDeleted),
                Err(error) => return Err(FeedEnd::Failed(error)),
            }
        }
        Ok(())
    }

    /// What has changed while entries were gone through.
    fn take_waiting(&mut self) -> Result<(), FeedEnd> {
        loop {
            match self.changes.try_recv() {
                Ok(changes) => self.take(&changes),
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Lagged(_)) => return Err(FeedEnd::Lagged),
                Err(TryRecvError::Closed) => return Err(FeedEnd::Stopped),
            }
        }
    }

    fn take(&mut self, changes: &Changes) {
        let mut position = self.ready.back().map_or(&self.position, |ready| &ready.position).clone();
        for change in &changes.changes {
            // As long as entries are gone through, the reader is where it began.
            if self.catch_up.is_none() {
                position.gave(change);
            }
            if self.is_followed(&change.key) {
                let (key, marker) = (change.key.clone(), change.marker);
                self.ready.push_back(Ready { key, marker, position: position.clone() });
            }
        }
        let finished = match &mut self.catch_up {
            Some(catch_up) => &mut catch_up.until,
            None => &mut position,
        };
        finished.gave_all(changes);
        if self.catch_up.is_none() {
            match self.ready.back_mut() {
                Some(last) => last.position = position,
                None => self.position = position,
            }
        }
    }

    fn is_followed(&self, key: &Key) -> bool {
        let bytes = key.as_bytes();
        bytes.starts_with(&self.namespace.0) && bytes[self.namespace.0.len()..].starts_with(&self.prefix)
    }

    /// Goes through some more of what is there.
    fn look_on(&mut self) -> Result<(), KvError> {
        let Some(catch_up) = &mut self.catch_up else { return Ok(()) };
        let mut found = Vec::new();
        let mut examined = 0;
        let mut last = None;
        self.kv.handle().reader().visit(
            self.namespace,
            &self.prefix,
            catch_up.after.as_deref(),
            &mut |key, entry| {
                examined += 1;
                last = Some(Bytes::copy_from_slice(&key.name()));
                if !catch_up.since.has(&entry, &catch_up.departed) {
                    let (marker, position) = (entry.marker(), catch_up.since.clone());
                    found.push(Ready { key, marker, position });
                }
                if examined < SCAN_ENTRIES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        )?;
        self.ready.extend(found);
        if examined == SCAN_ENTRIES {
            catch_up.after = last;
            return Ok(());
        }
        let until = catch_up.until.clone();
        self.catch_up = None;
        match self.ready.back_mut() {
            Some(last) => last.position = until,
            None => self.position = until,
        }
        Ok(())
    }

    fn event(&self, key: &Key, entry: &Entry) -> Result<Event, KvError> {
        let position = self.position.clone();
        let kind = match &entry.content().value {
            Stored::Tombstone => EventKind::Delete,
            _ if !entry.is_visible(self.kv.now_ms()) => EventKind::Expire,
            stored => EventKind::Put {
                metadata: self.kv.open_metadata(key, entry)?.map(|metadata| Bytes::copy_from_slice(&metadata)),
                expiration: expiration(entry),
                value: if self.values { self.value(key, entry, stored)? } else { None },
            },
        };
        Ok(Event { key: Bytes::copy_from_slice(&key.name()), marker: entry.marker(), kind, position })
    }

    fn value(&self, key: &Key, entry: &Entry, stored: &Stored) -> Result<Option<Value>, KvError> {
        match stored {
            Stored::Inline(sealed) => Ok(Some(Value::Inline(self.kv.seal().open(key, Part::Value, sealed)?))),
            Stored::Blob(blob) => {
                let view = self.kv.handle().reader().view();
                let is_current = view.get(key)?.is_some_and(|current| current.marker() == entry.marker());
                Ok(is_current.then(|| Value::Blob(BlobReader::new(self.kv.clone(), view, key.clone(), blob.clone()))))
            }
            _ => Ok(None),
        }
    }
}

//! Following the changes of a namespace.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::Error;
use super::namespace::{Namespace, text, whole};
use crate::kv::{self, EventKind, Feed, FeedEnd};

/// Longest text of a position, in characters.
const POSITION_LEN_MAX: usize = 64;

/// Changes as they happen, wherever they were made. Bounded: who reads too slowly is told ([`WatchEnd::Lagged`]) and
/// holds nobody up.
pub struct Changes(Feed);

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The key.
    pub key: String,
    /// What it holds now.
    pub kind: ChangeKind,
    /// Where to go on after this change, at any node.
    pub position: Position,
}

/// What a key holds after a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// A value.
    Put {
        /// The value; `None` if it was overwritten while it was read, which is a change of its own.
        value: Option<Bytes>,
        /// JSON text.
        metadata: Option<String>,
        /// Unix seconds from which it is gone.
        expiration: Option<u64>,
    },
    /// Nothing: it was deleted.
    Delete,
    /// Nothing: it has expired.
    Expire,
}

/// Why no more changes come.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WatchEnd {
    /// The reader was too slow, and lost some.
    #[error("changes came faster than they were read: go on from the last position")]
    Lagged,
    /// The namespace was deleted.
    #[error("the namespace was deleted")]
    NamespaceDeleted,
    /// The node stops.
    #[error("the node stops")]
    Stopped,
    /// Reading failed.
    #[error(transparent)]
    Failed(kv::KvError),
}

/// A place in the changes, the same at every node: a text of at most 64 characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position(String);

/// The text is no position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a position; pass it on as it came")]
pub struct InvalidPosition;

impl Namespace {
    /// Changes of keys that start with `prefix`, from now on.
    ///
    /// There is no history: a key that changes several times in a moment is shown once, as it is then. Each write shows
    /// in the end, or a later one of the same key does.
    ///
    /// # Errors
    /// [`KvError::TooManyFeeds`](kv::KvError::TooManyFeeds), or that the namespace is deleted.
    pub async fn watch(&self, prefix: &str) -> Result<Changes, Error> {
        self.feed(prefix, None).await
    }

    /// Changes since a position: first what has changed since, then what changes.
    ///
    /// # Errors
    /// As [`Namespace::watch`].
    pub async fn watch_since(&self, prefix: &str, position: &Position) -> Result<Changes, Error> {
        self.feed(prefix, position.inner()).await
    }

    async fn feed(&self, prefix: &str, since: Option<kv::Position>) -> Result<Changes, Error> {
        let (kv, id) = self.open()?;
        Ok(Changes(kv.feed(id, prefix.as_bytes(), since, true).await?))
    }
}

impl Changes {
    /// The next change. The future may be dropped before it is ready: nothing is lost.
    ///
    /// # Errors
    /// [`WatchEnd`]; nothing more comes then.
    pub async fn next(&mut self) -> Result<Change, WatchEnd> {
        let event = self.0.next().await.map_err(|end| match end {
            FeedEnd::Lagged => WatchEnd::Lagged,
            FeedEnd::NamespaceDeleted => WatchEnd::NamespaceDeleted,
            FeedEnd::Stopped => WatchEnd::Stopped,
            FeedEnd::Failed(error) => WatchEnd::Failed(error),
        })?;
        let kind = match event.kind {
            EventKind::Put { metadata, expiration, value } => {
                let value = match value {
                    // One that goes away while it is read has been overwritten.
                    Some(value) => whole(value).await.ok(),
                    None => None,
                };
                ChangeKind::Put { value, metadata: metadata.as_ref().map(text), expiration }
            }
            EventKind::Delete => ChangeKind::Delete,
            EventKind::Expire => ChangeKind::Expire,
        };
        Ok(Change { key: text(&event.key), kind, position: Position::new(&event.position) })
    }

    /// Where to go on after the last change.
    pub fn position(&self) -> Position {
        Position::new(self.0.position())
    }
}

impl Position {
    fn new(position: &kv::Position) -> Self {
        Self(URL_SAFE_NO_PAD.encode(position.encode()))
    }

    fn inner(&self) -> Option<kv::Position> {
        kv::Position::decode(&URL_SAFE_NO_PAD.decode(&self.0).ok()?)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let position = Self(text.to_owned());
        match text.len() <= POSITION_LEN_MAX && position.inner().is_some() {
            true => Ok(position),
            false => Err(InvalidPosition),
        }
    }
}

//! The local client: what the HTTP API and Workers call. Checks limits, seals and opens, cuts large values into
//! chunks, reads committed state directly and sends writes to the node's driver.
//!
//! Knows neither HTTP nor how a write spreads.
mod account;
mod accounts;
mod audit;
mod blob;
mod cache;
mod cluster;
mod error;
mod feed;
mod holdings;
mod list;
mod namespaces;
mod scope;
mod scrub;
mod seal;
mod session;
mod system;
#[cfg(test)]
mod tests;
mod tokens;
mod upload;
mod values;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::ChaCha12Rng;
use rand::{Rng, SeedableRng};

pub use account::{AccountId, InvalidAccountId};
pub use accounts::{ACCOUNTS_MAX, Account};
pub use audit::{AUDIT_ENTRIES_MAX, AUDIT_KEPT_SECS, AUDIT_LIMIT_MAX, Act};
pub use blob::BlobReader;
pub use error::KvError;
pub use feed::{Event, EventKind, FEEDS_MAX, Feed, FeedEnd};
pub use list::{LIST_EXAMINED_MAX, LIST_LIMIT_MAX, Listed, Page};
pub use namespaces::{NAMESPACES_PER_ACCOUNT_MAX, Namespace};
pub use scope::{Grants, Scope};
pub use scrub::{Scrub, scrub};
pub use seal::{AeadSeal, Part, PlainSeal, Seal, SealError};
use session::Session;
pub use tokens::{NewToken, TOKEN_LEN_MIN, TOKENS_PER_ACCOUNT_MAX, Token, TokenId};
pub use upload::Upload;
pub use values::{Found, Put, Value};

use cache::Cache;

use crate::node::{Handle, MachineClock, NodeGone};
pub use crate::replica::NamespaceId;
use crate::replica::limits::KEY_LEN_MAX;
pub use crate::replica::{AckLevel, Bookmark, NodeId, Position};
use crate::replica::{Content, Damage, Dot, Key, Reply, Request, Timestamp, Value as Stored};

/// Longest that a write waits for the driver. After it the outcome is unknown.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest that a read waits for what is damaged here to come from elsewhere.
const REPAIR_PATIENCE: Duration = Duration::from_secs(10);

/// The client. Cheap to clone; needs a tokio runtime around it.
#[derive(Clone)]
pub struct Kv(Arc<Inner>, Option<Arc<Session>>);

struct Inner {
    handle: Handle,
    seal: Arc<dyn Seal>,
    /// Mints namespace and blob ids.
    rng: Mutex<ChaCha12Rng>,
    token_cache: Cache<TokenId, Arc<tokens::Known>>,
    /// When each token's use was last written down here.
    token_uses: Mutex<BTreeMap<TokenId, u64>>,
    namespace_cache: Cache<NamespaceId, (Arc<Namespace>, Dot, Timestamp)>,
    /// Places for feeds.
    feeds: Arc<tokio::sync::Semaphore>,
    /// Held from the check that a title is free until the namespace is written.
    titles: tokio::sync::Mutex<()>,
    /// A namespace was deleted here.
    shreds: Arc<tokio::sync::Notify>,
}

impl Kv {
    /// A client of the node behind `handle`. The ids it mints come from `seed`, which must be random and used once.
    pub fn new(handle: Handle, seal: Arc<dyn Seal>, seed: [u8; 32]) -> Self {
        let (rng, titles) = (Mutex::new(ChaCha12Rng::from_seed(seed)), tokio::sync::Mutex::new(()));
        let (token_cache, namespace_cache) = Default::default();
        let (token_uses, shreds) = Default::default();
        let feeds = Arc::new(tokio::sync::Semaphore::new(FEEDS_MAX));
        let inner = Inner { handle, seal, rng, token_cache, token_uses, namespace_cache, feeds, titles, shreds };
        Self(Arc::new(inner), None)
    }

    fn handle(&self) -> &Handle {
        &self.0.handle
    }

    /// Unix milliseconds by this node's clock: what expirations count from. Whether an entry has expired is decided
    /// where it is read.
    pub fn now_ms(&self) -> u64 {
        self.handle().clock().wall_ms()
    }

    /// This node's clock.
    pub(crate) fn clock(&self) -> MachineClock {
        self.handle().clock()
    }

    fn seal(&self) -> &dyn Seal {
        &*self.0.seal
    }

    pub(crate) fn random_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        self.0.rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut id);
        id
    }

    /// Notified when a client of this node has had keys destroyed.
    pub(crate) fn shreds(&self) -> Arc<tokio::sync::Notify> {
        Arc::clone(&self.0.shreds)
    }

    /// Has something that is damaged here replaced by what another node holds.
    async fn repair(&self, damage: Damage) -> Result<(), KvError> {
        let asked = tokio::time::timeout(REPAIR_PATIENCE, self.call(Request::Repair(damage)));
        asked.await.unwrap_or(Err(KvError::Damaged(SealError::Damaged))).and_then(done)
    }

    /// The reply to a request, within [`CALL_TIMEOUT`].
    async fn call(&self, request: Request) -> Result<Reply, KvError> {
        self.in_time(self.handle().call(request)).await
    }

    /// A write that must succeed.
    async fn write(&self, key: Key, content: Content) -> Result<(), KvError> {
        self.noted(self.call(Request::Write { key, content }).await?)
    }

    async fn in_time<T, E>(&self, answer: impl Future<Output = Result<T, E>>) -> Result<T, KvError> {
        match tokio::time::timeout(CALL_TIMEOUT, answer).await {
            Ok(answer) => answer.map_err(|_| self.gone(NodeGone)),
            Err(_) => Err(KvError::Timeout),
        }
    }

    fn gone(&self, _: NodeGone) -> KvError {
        match self.handle().failure() {
            Some(why) => KvError::ReadOnly(why),
            None => KvError::ShuttingDown,
        }
    }

    /// A small value of the system's own.
    fn inline(&self, key: &Key, plain: &[u8]) -> Result<Content, KvError> {
        let value = Stored::Inline(self.seal().seal(key, Part::Value, plain)?);
        Ok(Content { expire_ms: 0, metadata: Default::default(), value })
    }

    /// Makes a key for a namespace, if its values are to be sealed, and has it on its way to every member.
    async fn share_fresh_key(&self, namespace: NamespaceId) -> Result<(), KvError> {
        match self.seal().fresh_key(namespace)? {
            Some(secret) => done(self.call(Request::ShareSecret(secret)).await?),
            None => Ok(()),
        }
    }
}

/// Success, or why not.
fn done(reply: Reply) -> Result<(), KvError> {
    match reply {
        Reply::Written { .. } | Reply::Done => Ok(()),
        Reply::Refused(refusal) => Err(refusal.into()),
        Reply::Acknowledged(_)
        | Reply::TimedOut(_)
        | Reply::Bookmark(_)
        | Reply::Watching { .. }
        | Reply::Verified(_)
        | Reply::Dominated
        | Reply::Status(_) => Err(KvError::Unexpected),
    }
}

fn tombstone() -> Content {
    Content { expire_ms: 0, metadata: Default::default(), value: Stored::Tombstone }
}

/// A user's key, checked.
fn user_key(namespace: NamespaceId, name: &[u8]) -> Result<Key, KvError> {
    if namespace.is_system() {
        return Err(KvError::NamespaceNotFound);
    }
    if name.len() > KEY_LEN_MAX {
        return Err(KvError::KeyTooLong { len: name.len() });
    }
    match name {
        b"" => return Err(KvError::InvalidKey("it is empty")),
        b"." | b".." => return Err(KvError::InvalidKey("\".\" and \"..\" are reserved, they mean something in a URL")),
        _ if std::str::from_utf8(name).is_err() => return Err(KvError::InvalidKey("it is not UTF-8 text")),
        _ => {}
    }
    Key::new(namespace, name).ok_or(KvError::InvalidKey("its length is out of bounds"))
}

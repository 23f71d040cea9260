//! API tokens: entries in [`NamespaceId::TOKENS`], token id → whose it is and what it may do. The secret is stored
//! nowhere: an id is half of its BLAKE3 hash, the row holds the whole, compared in constant time.
//!
//! A revocation is an entry of its own ([`NamespaceId::REVOKED`]) that is only ever added, so that no other change of
//! a token can undo it. When a token was last used is a third entry, written once an hour at most.

use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::scope::{Grants, Scope};
use super::{AccountId, Kv, KvError, tombstone};
use crate::node::entropy;
use crate::replica::limits::TITLE_LEN_MAX;
use crate::replica::{Entry, Key, NamespaceId, StoreError};
use crate::secret::Secret;

/// Shortest API token in bytes. They must be random: a hash without salt or work keeps no guessable secret.
pub const TOKEN_LEN_MIN: usize = 40;
/// Most tokens of one account, as far as the creating node knows.
pub const TOKENS_PER_ACCOUNT_MAX: usize = 10_000;
/// How coarse "last used" is.
const USE_NOTED_EVERY_MS: u64 = 3_600_000;
/// Version of [`Row`].
const ROW_VERSION: u8 = 2;
/// Version of [`UseRow`].
const USE_VERSION: u8 = 1;

/// Names a token without giving it away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 16]);

impl TokenId {
    /// The id of a secret.
    pub fn of(secret: &str) -> Self {
        Self::of_hash(&hash(secret))
    }

    fn of_hash(hash: &[u8; 32]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        Self(id)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenId {
    type Err = KvError;

    fn from_str(text: &str) -> Result<Self, KvError> {
        // Namespace ids have the same form.
        text.parse().map(|NamespaceId(bytes)| Self(bytes)).map_err(|_| KvError::TokenNotFound)
    }
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Names it.
    pub id: TokenId,
    /// Whose it is.
    pub account: AccountId,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub grants: Grants,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds from which it is good for nothing; 0 = never.
    pub expires_ms: u64,
}

/// What a new token should be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Whose it is.
    pub account: AccountId,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub grants: Grants,
    /// Unix milliseconds from which it is good for nothing; 0 = never.
    pub expires_ms: u64,
}

/// A token that was used here.
pub(super) struct Known {
    token: Arc<Token>,
    hash: [u8; 32],
    /// When its use was last written down, or found to be.
    noted_ms: AtomicU64,
}

#[derive(Serialize, Deserialize)]
struct Row {
    version: u8,
    hash: [u8; 32],
    account: [u8; 16],
    name: String,
    created_ms: u64,
    expires_ms: u64,
    scopes: u8,
    namespaces: Vec<[u8; 16]>,
}

#[derive(Serialize, Deserialize)]
struct UseRow {
    version: u8,
    used_ms: u64,
}

impl Kv {
    /// Makes a token, at every node. Its secret is given out here and nowhere else.
    pub async fn create_token(&self, new: NewToken) -> Result<(Secret, Token), KvError> {
        let random: Zeroizing<[u8; 32]> = Zeroizing::new(entropy().map_err(|_| KvError::Unexpected)?);
        let secret = Secret::new(&Zeroizing::new(URL_SAFE_NO_PAD.encode(*random)));
        let token = self.add_token(secret.expose(), new).await?;
        Ok((secret, token))
    }

    /// Makes a random `secret` a token, at every node.
    pub async fn add_token(&self, secret: &str, new: NewToken) -> Result<Token, KvError> {
        if secret.len() < TOKEN_LEN_MIN {
            return Err(KvError::WeakToken);
        }
        if new.name.is_empty() || new.name.len() > TITLE_LEN_MAX {
            return Err(KvError::InvalidTitle { len: new.name.len() });
        }
        if self.tokens(new.account)?.len() >= TOKENS_PER_ACCOUNT_MAX {
            return Err(KvError::TooManyTokens);
        }
        let NewToken { account, name, grants, expires_ms } = new;
        let hash = hash(secret);
        if self.is_revoked(TokenId::of_hash(&hash))? {
            return Err(KvError::TokenRevoked);
        }
        let token = Token { id: TokenId::of_hash(&hash), account, name, grants, created_ms: self.now_ms(), expires_ms };
        self.write_token(&token, hash).await?;
        Ok(token)
    }

    /// Ends a token at every node, for good.
    pub async fn revoke_token(&self, account: AccountId, id: TokenId) -> Result<(), KvError> {
        self.token(account, id)?;
        let revoked = id_key(NamespaceId::REVOKED, id);
        let content = self.inline(&revoked, &[USE_VERSION])?;
        self.write(revoked, content).await?;
        // It is of no more use now. This only keeps listings short.
        if let Err(error) = self.write(id_key(NamespaceId::TOKENS, id), tombstone()).await {
            tracing::warn!(token = %id, %error, "the row of a revoked token stays");
        }
        Ok(())
    }

    /// Has a token end at `expires_ms`, if it does not end earlier.
    pub async fn end_token(&self, account: AccountId, id: TokenId, expires_ms: u64) -> Result<(), KvError> {
        let (mut token, hash) =
            self.token_row(id)?.filter(|(token, _)| token.account == account).ok_or(KvError::TokenNotFound)?;
        if token.expires_ms == 0 || token.expires_ms > expires_ms {
            token.expires_ms = expires_ms;
            self.write_token(&token, hash).await?;
        }
        Ok(())
    }

    /// An account's tokens, by id, those that have expired included.
    pub fn tokens(&self, account: AccountId) -> Result<Vec<Token>, KvError> {
        let mut tokens = Vec::new();
        self.handle().reader().visit(NamespaceId::TOKENS, b"", None, &mut |key, entry| {
            tokens.extend(
                self.decode_token(&key, &entry).map(|(token, _)| token).filter(|token| token.account == account),
            );
            ControlFlow::Continue(())
        })?;
        let mut live = Vec::with_capacity(tokens.len());
        for token in tokens {
            if !self.is_revoked(token.id)? {
                live.push(token);
            }
        }
        Ok(live)
    }

    /// One of an account's tokens.
    pub fn token(&self, account: AccountId, id: TokenId) -> Result<Token, KvError> {
        let found = self.token_row(id)?.map(|(token, _)| token);
        found.filter(|token| token.account == account).ok_or(KvError::TokenNotFound)
    }

    /// When a token was last used anywhere, Unix milliseconds, an hour more or less; `None` if never.
    pub fn token_last_used(&self, id: TokenId) -> Option<u64> {
        let key = id_key(NamespaceId::TOKEN_USES, id);
        let entry = self.handle().reader().get(&key).ok()??;
        self.decode_system::<UseRow>(&key, &entry, USE_VERSION).map(|row| row.used_ms)
    }

    /// Whose token this is, and what it may do; `None` if it is good for nothing.
    pub fn authenticate(&self, secret: &str) -> Option<Arc<Token>> {
        let reader = self.handle().reader();
        let hash = hash(secret);
        let load = |id: &TokenId| {
            let known = |(token, hash)| Arc::new(Known { token: Arc::new(token), hash, noted_ms: AtomicU64::new(0) });
            Ok::<_, KvError>(self.token_row(*id)?.map(known))
        };
        let found = self.0.token_cache.get_or(reader.system_generation(), TokenId::of_hash(&hash), load, |known| {
            let Known { token, hash: right, noted_ms } = &**known;
            let now = self.now_ms();
            let is_good = bool::from(right.ct_eq(&hash)) && (token.expires_ms == 0 || now < token.expires_ms);
            if is_good && now >= noted_ms.load(Ordering::Relaxed).saturating_add(USE_NOTED_EVERY_MS) {
                noted_ms.store(self.note_use(token.id, now), Ordering::Relaxed);
            }
            is_good.then(|| Arc::clone(token))
        });
        match found {
            Ok(found) => found.flatten(),
            Err(error) => {
                tracing::error!(%error, "tokens can't be read, so every request is turned away");
                None
            }
        }
    }

    /// Writes down that a token is used, unless that was done within the hour. Gives when it was.
    fn note_use(&self, id: TokenId, now_ms: u64) -> u64 {
        let mut noted = self.0.token_uses.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(noted_ms) = noted.get(&id).filter(|noted| now_ms < **noted + USE_NOTED_EVERY_MS) {
            return *noted_ms;
        }
        if noted.len() >= TOKENS_PER_ACCOUNT_MAX {
            noted.clear();
        }
        noted.insert(id, now_ms);
        drop(noted);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return now_ms };
        // Outside of the session of the request.
        let kv = Self(Arc::clone(&self.0), None);
        runtime.spawn(async move {
            if kv.token_last_used(id).is_some_and(|used| now_ms < used + USE_NOTED_EVERY_MS) {
                return;
            }
            let key = id_key(NamespaceId::TOKEN_USES, id);
            let row = UseRow { version: USE_VERSION, used_ms: now_ms };
            if let Ok(content) = kv.encode_system(&key, &row) {
                // Tried again in an hour.
                let _ = kv.write(key, content).await;
            }
        });
        now_ms
    }

    fn token_row(&self, id: TokenId) -> Result<Option<(Token, [u8; 32])>, KvError> {
        let key = id_key(NamespaceId::TOKENS, id);
        let Some(entry) = self.handle().reader().get(&key)? else { return Ok(None) };
        match self.decode_token(&key, &entry) {
            Some(found) if !self.is_revoked(id)? => Ok(Some(found)),
            _ => Ok(None),
        }
    }

    fn is_revoked(&self, id: TokenId) -> Result<bool, StoreError> {
        Ok(self.handle().reader().get(&id_key(NamespaceId::REVOKED, id))?.is_some())
    }

    async fn write_token(&self, token: &Token, hash: [u8; 32]) -> Result<(), KvError> {
        let key = id_key(NamespaceId::TOKENS, token.id);
        let row = Row {
            version: ROW_VERSION,
            hash,
            account: token.account.0,
            name: token.name.clone(),
            created_ms: token.created_ms,
            expires_ms: token.expires_ms,
            scopes: token.grants.bits(),
            namespaces: token.grants.namespaces.iter().map(|namespace| namespace.0).collect(),
        };
        let content = self.encode_system(&key, &row)?;
        self.write(key, content).await
    }

    fn decode_token(&self, key: &Key, entry: &Entry) -> Option<(Token, [u8; 32])> {
        if !entry.is_visible(self.now_ms()) {
            return None;
        }
        let id = TokenId(key.name()[..].try_into().ok()?);
        let row: Row = self.decode_system(key, entry, ROW_VERSION)?;
        let grants = Grants {
            scopes: Scope::of_bits(row.scopes),
            namespaces: row.namespaces.into_iter().map(NamespaceId).collect(),
        };
        let (account, name) = (AccountId(row.account), row.name);
        let token = Token { id, account, name, grants, created_ms: row.created_ms, expires_ms: row.expires_ms };
        Some((token, row.hash))
    }
}

fn hash(secret: &str) -> [u8; 32] {
    *blake3::hash(secret.as_bytes()).as_bytes()
}

fn id_key(namespace: NamespaceId, id: TokenId) -> Key {
    Key::new(namespace, &id.0).expect("16 bytes are a key")
}

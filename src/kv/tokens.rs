//! API tokens: entries in [`NamespaceId::TOKENS`], BLAKE3 of the secret → whose it is. The secret itself is stored
//! nowhere. Looking up a hash takes the same time whatever part of a guess was right.

use std::fmt;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{AccountId, Kv, KvError, tombstone};
use crate::replica::limits::TITLE_LEN_MAX;
use crate::replica::{Entry, Key, NamespaceId, StoreError};

/// Shortest API token in bytes. They must be random: a hash without salt or work keeps no guessable secret.
pub const TOKEN_LEN_MIN: usize = 40;
/// Version of [`Row`].
const ROW_VERSION: u8 = 1;

/// Names a token without giving it away: the hash of its secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 32]);

impl TokenId {
    /// The id of a secret.
    pub fn of(secret: &str) -> Self {
        Self(*blake3::hash(secret.as_bytes()).as_bytes())
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&blake3::Hash::from_bytes(self.0).to_hex(), f)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
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
    /// Unix milliseconds.
    pub created_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Row {
    version: u8,
    account: [u8; 16],
    name: String,
    created_ms: u64,
}

impl Kv {
    /// Makes a random `secret` a token of `account`, at every node.
    pub async fn add_token(&self, secret: &str, account: AccountId, name: &str) -> Result<TokenId, KvError> {
        if secret.len() < TOKEN_LEN_MIN {
            return Err(KvError::WeakToken);
        }
        if name.len() > TITLE_LEN_MAX {
            return Err(KvError::InvalidTitle { len: name.len() });
        }
        let id = TokenId::of(secret);
        let key = token_key(id);
        let row = Row { version: ROW_VERSION, account: account.0, name: name.into(), created_ms: self.now_ms() };
        let content = self.encode_system(&key, &row)?;
        self.write(key, content).await?;
        Ok(id)
    }

    /// Ends a token at every node; also fine for one that is missing.
    pub async fn revoke_token(&self, id: TokenId) -> Result<(), KvError> {
        self.write(token_key(id), tombstone()).await
    }

    /// An account's tokens, by id.
    pub fn tokens(&self, account: AccountId) -> Result<Vec<Token>, KvError> {
        let mut tokens = Vec::new();
        self.handle().reader().visit(NamespaceId::TOKENS, b"", None, &mut |key, entry| {
            tokens.extend(self.decode_token(&key, &entry).filter(|token| token.account == account));
            ControlFlow::Continue(())
        })?;
        Ok(tokens)
    }

    /// Whose token this is; `None` if nobody's.
    pub fn authenticate(&self, secret: &str) -> Option<AccountId> {
        let reader = self.handle().reader();
        let found = self.0.token_cache.get_or(reader.system_generation(), TokenId::of(secret), |id| {
            let key = token_key(*id);
            let entry = reader.get(&key)?;
            Ok::<_, StoreError>(entry.and_then(|entry| self.decode_token(&key, &entry)).map(|token| token.account))
        });
        match found {
            Ok(account) => account,
            Err(error) => {
                tracing::error!(%error, "tokens can't be read, so every request is turned away");
                None
            }
        }
    }

    fn decode_token(&self, key: &Key, entry: &Entry) -> Option<Token> {
        if !entry.is_visible(self.now_ms()) {
            return None;
        }
        let id = TokenId(key.name()[..].try_into().ok()?);
        let row: Row = self.decode_system(key, entry, ROW_VERSION)?;
        Some(Token { id, account: AccountId(row.account), name: row.name, created_ms: row.created_ms })
    }
}

fn token_key(id: TokenId) -> Key {
    Key::new(NamespaceId::TOKENS, &id.0).expect("32 bytes are a key")
}

//! Accounts: who owns namespaces and tokens. The first is founded with the cluster; others are entries in
//! [`NamespaceId::ACCOUNTS`], id → name. Nothing of one account is seen by another.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{AccountId, Kv, KvError};
use crate::replica::limits::TITLE_LEN_MAX;
use crate::replica::{Key, NamespaceId};

/// Most accounts, as far as the creating node knows.
pub const ACCOUNTS_MAX: usize = 10_000;
/// Version of [`Row`].
const ROW_VERSION: u8 = 1;

/// An account that was created later than the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// What people call it.
    pub name: String,
    /// Unix milliseconds.
    pub created_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Row {
    version: u8,
    name: String,
    created_ms: u64,
}

impl Kv {
    /// Creates an account.
    pub async fn create_account(&self, name: &str) -> Result<Account, KvError> {
        if name.is_empty() || name.len() > TITLE_LEN_MAX {
            return Err(KvError::InvalidTitle { len: name.len() });
        }
        if self.accounts()?.len() >= ACCOUNTS_MAX {
            return Err(KvError::TooManyAccounts);
        }
        let account = Account { id: AccountId(self.random_id()), name: name.into(), created_ms: self.now_ms() };
        let key = account_key(account.id);
        let row = Row { version: ROW_VERSION, name: account.name.clone(), created_ms: account.created_ms };
        let content = self.encode_system(&key, &row)?;
        self.write(key, content).await?;
        Ok(account)
    }

    /// The accounts that were created, by id.
    pub fn accounts(&self) -> Result<Vec<Account>, KvError> {
        let mut accounts = Vec::new();
        self.handle().reader().visit(NamespaceId::ACCOUNTS, b"", None, &mut |key, entry| {
            let row: Option<Row> = self.decode_system(&key, &entry, ROW_VERSION);
            if let (Some(row), Ok(id)) = (row, <[u8; 16]>::try_from(&key.name()[..])) {
                accounts.push(Account { id: AccountId(id), name: row.name, created_ms: row.created_ms });
            }
            ControlFlow::Continue(())
        })?;
        Ok(accounts)
    }

    /// The name of an account that was created.
    pub fn account_name(&self, id: AccountId) -> Option<String> {
        let key = account_key(id);
        let entry = self.handle().reader().get(&key).ok()??;
        self.decode_system::<Row>(&key, &entry, ROW_VERSION).map(|row| row.name)
    }
}

fn account_key(id: AccountId) -> Key {
    Key::new(NamespaceId::ACCOUNTS, &id.0).expect("16 bytes are a key")
}

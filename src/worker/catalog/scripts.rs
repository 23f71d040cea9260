//! Scripts: names and the lives they stand for.

use super::limits::{NAME_LEN_MAX, SCRIPTS_MAX};
use super::live::script_id;
use super::rows::{Ended, Head, ROW_VERSION, Tag, head_key};
use super::{Life, WorkerError, Workers};
use crate::kv::{AccountId, KvError};
use crate::worker::ScriptId;

/// A script, whatever its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Whose it is, and its name.
    pub id: ScriptId,
    /// Unix milliseconds.
    pub created_ms: u64,
    pub(super) life: Life,
}

impl Script {
    /// Tells this script from another that has, or will have, its name: 32 hexadecimal digits.
    pub fn tag(&self) -> String {
        self.life.hex()
    }
}

impl Workers {
    /// One of an account's scripts.
    pub async fn script(&self, account: AccountId, name: &str) -> Result<Script, WorkerError> {
        self.find_script(account, name).await?.ok_or(WorkerError::ScriptNotFound)
    }

    /// An account's scripts, by name.
    pub async fn scripts(&self, account: AccountId) -> Result<Vec<Script>, KvError> {
        let mut scripts = Vec::new();
        for (name, head) in self.rows::<Head>(&Tag::Head.key(&[&account.0])).await? {
            let full = [&account.0[..], &name].concat();
            if let Some(id) = script_id(&full)
                && !self.is_over(head.life).await?
            {
                scripts.push(Script { id, created_ms: head.created_ms, life: head.life });
            }
        }
        Ok(scripts)
    }

    pub(super) async fn find_script(&self, account: AccountId, name: &str) -> Result<Option<Script>, WorkerError> {
        check_name(name)?;
        let Some(head): Option<Head> = self.row(&head_key(account, name)).await? else { return Ok(None) };
        if self.is_over(head.life).await? {
            return Ok(None);
        }
        let id = ScriptId { account, script: name.into() };
        Ok(Some(Script { id, created_ms: head.created_ms, life: head.life }))
    }

    /// The script of that name, or a new one that lives as `life`, not yet written down.
    pub(super) async fn script_or_new(
        &self,
        account: AccountId,
        name: &str,
        life: Option<Life>,
    ) -> Result<(Script, bool), WorkerError> {
        if let Some(script) = self.find_script(account, name).await? {
            return Ok((script, false));
        }
        if self.scripts(account).await?.len() >= SCRIPTS_MAX {
            return Err(WorkerError::TooManyScripts);
        }
        let life = life.unwrap_or_else(|| Life(self.kv.random_id()));
        let id = ScriptId { account, script: name.into() };
        Ok((Script { id, created_ms: self.kv.now_ms(), life }, true))
    }

    /// Has a name stand for a new script.
    pub(super) async fn write_head(&self, script: &Script) -> Result<(), KvError> {
        let head = Head { version: ROW_VERSION, life: script.life, created_ms: script.created_ms };
        self.set(&head_key(script.id.account, &script.id.script), &head).await
    }

    /// Deletes a script with all that belongs to it, for good: what another PoP uploads to it without knowing goes too.
    pub async fn delete_script(&self, account: AccountId, name: &str) -> Result<(), WorkerError> {
        let _deploys = self.inner.deploys.lock().await;
        let script = self.script(account, name).await?;
        let ended = Ended { version: ROW_VERSION, ended_ms: self.kv.now_ms() };
        self.set(&Tag::Ended.key(&[&script.life.0]), &ended).await?;
        // It is gone now; the rest is tidying, and tried again later where it fails.
        if let Err(error) = self.drop_routes_of(&script).await {
            tracing::warn!(script = %script.id, %error, "routes of a deleted script stay");
        }
        if let Err(error) = self.drop_life(script.life).await {
            tracing::warn!(script = %script.id, %error, "parts of a deleted script stay for now");
        }
        Ok(())
    }
}

/// Names are labels of host names, so they are in lower case; Cloudflare lets them have underscores too.
pub(super) fn check_name(name: &str) -> Result<(), WorkerError> {
    let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if name.len() > NAME_LEN_MAX || !begins || !name.bytes().all(is_fine) {
        return Err(WorkerError::Name(name.chars().take(2 * NAME_LEN_MAX).collect()));
    }
    Ok(())
}

//! The audit log: who did what to the cluster, when and where. Entries in [`NamespaceId::AUDIT`], in the order of
//! time, sealed like all of the system's, gone after [`AUDIT_KEPT_SECS`] or beyond [`AUDIT_ENTRIES_MAX`].

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use super::{Kv, KvError, tombstone};
use crate::replica::{Key, NamespaceId, NodeId};

/// How long an act is remembered: 400 days.
pub const AUDIT_KEPT_SECS: u64 = 400 * 24 * 3600;
/// Acts remembered; beyond it the oldest go.
pub const AUDIT_ENTRIES_MAX: usize = 20_000;
/// Acts read at once.
pub const AUDIT_LIMIT_MAX: usize = 1_000;
/// Longest text within an act, bytes.
const TEXT_LEN_MAX: usize = 256;
/// How often the bound is checked: once in so many acts.
const TRIM_EVERY: u32 = 64;
/// Version of [`Row`].
const ROW_VERSION: u8 = 1;

/// Tells acts of one millisecond apart.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// One administrative act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// Unix milliseconds, by the clock of the node where it was done.
    pub at_ms: u64,
    /// The token that was used, by name and id.
    pub who: String,
    /// From which address.
    pub from: String,
    /// What was done, such as `token.create`.
    pub what: String,
    /// To what.
    pub target: String,
    /// At which node, by name.
    pub node: String,
}

#[derive(Serialize, Deserialize)]
struct Row {
    version: u8,
    act: Act,
}

impl Kv {
    /// Writes an act down, at every node.
    pub async fn audit(&self, node: NodeId, act: Act) -> Result<(), KvError> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = [&act.at_ms.to_be_bytes()[..], &node.0.to_be_bytes(), &count.to_be_bytes()].concat();
        let key = Key::new(NamespaceId::AUDIT, &name).ok_or(KvError::Unexpected)?;
        let cut = |text: String| text.chars().filter(|c| !c.is_control()).take(TEXT_LEN_MAX).collect::<String>();
        let Act { at_ms, who, from, what, target, node } = act;
        let act = Act { at_ms, who: cut(who), from: cut(from), what: cut(what), target: cut(target), node: cut(node) };
        let mut content = self.encode_system(&key, &Row { version: ROW_VERSION, act })?;
        content.expire_ms = at_ms + AUDIT_KEPT_SECS * 1000;
        self.write(key, content).await?;
        if count.is_multiple_of(TRIM_EVERY) {
            self.trim_audit().await?;
        }
        Ok(())
    }

    /// The latest acts, newest first, at most `limit`.
    pub fn acts(&self, limit: usize) -> Result<Vec<Act>, KvError> {
        let (limit, now) = (limit.clamp(1, AUDIT_LIMIT_MAX), self.now_ms());
        let mut acts = std::collections::VecDeque::new();
        self.handle().reader().visit(NamespaceId::AUDIT, b"", None, &mut |key, entry| {
            if entry.is_visible(now)
                && let Some(row) = self.decode_system::<Row>(&key, &entry, ROW_VERSION)
            {
                if acts.len() == limit {
                    acts.pop_back();
                }
                acts.push_front(row.act);
            }
            ControlFlow::Continue(())
        })?;
        Ok(acts.into())
    }

    async fn trim_audit(&self) -> Result<(), KvError> {
        let now = self.now_ms();
        let mut live = Vec::new();
        self.handle().reader().visit(NamespaceId::AUDIT, b"", None, &mut |key, entry| {
            if entry.is_visible(now) {
                live.push(key);
            }
            ControlFlow::Continue(())
        })?;
        let excess = live.len().saturating_sub(AUDIT_ENTRIES_MAX);
        for key in live.into_iter().take(excess) {
            self.write(key, tombstone()).await?;
        }
        Ok(())
    }
}

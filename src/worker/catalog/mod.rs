//! The catalog: what is deployed, replicated to every PoP as sealed entries. Whatever is not all here yet, because its
//! parts arrive one by one, is not live yet: until then the script goes on as it was.
//!
//! Goes through [`Kv`]; knows neither HTTP nor how an engine runs a script.

mod bindings;
mod deployments;
mod error;
mod files;
mod id;
mod limits;
mod live;
mod patterns;
mod routes;
mod rows;
mod scripts;
mod sessions;
mod settings;
mod sweep;
#[cfg(test)]
mod tests;
mod versions;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use tokio::sync::watch;

use crate::kv::{Kv, KvError, NamespaceId};

pub use bindings::{Bound, NewBinding};
pub use deployments::{Deployment, NewDeployment};
pub use error::WorkerError;
pub use id::{InvalidUuid, Uuid};
pub use limits::{CODE_LEN_MAX, SESSION_SECS, VARIABLE_LEN_MAX};
pub use routes::Route;
pub use scripts::Script;
pub use sessions::{AssetConfig, NewAssets, Wanted};
pub use settings::{Cron, Place};
pub use versions::{ModuleInfo, SettingsChange, Upload, Version};

use super::{Module, Syntax, Tails};
use id::Life;
use rows::{decode, encode};

/// The catalog. Cheap to clone.
#[derive(Clone)]
pub struct Workers {
    kv: Kv,
    inner: Arc<Inner>,
}

struct Inner {
    /// What is live, as of the last look.
    live: tokio::sync::Mutex<live::Seen>,
    /// Held while something is deployed here, so that one does not undo another.
    deploys: tokio::sync::Mutex<()>,
    tails: Tails,
    /// Unix milliseconds of the last look for what is of no more use.
    swept_ms: AtomicU64,
    unfit: Unfit,
}

/// Says why the engine of this node can't run a script of these modules, if it can't.
pub type Unfit = fn(&[Module], Syntax) -> Option<String>;

impl Workers {
    /// The catalog of the node behind `kv`.
    pub fn new(kv: Kv) -> Self {
        Self::for_engine(kv, |_, _| None)
    }

    /// A catalog that takes no scripts which the node's engine can't run.
    pub fn for_engine(kv: Kv, unfit: Unfit) -> Self {
        let (live, deploys, tails, swept_ms) = Default::default();
        Self { kv, inner: Arc::new(Inner { live, deploys, tails, swept_ms, unfit }) }
    }

    /// The same catalog, seen and changed within a client's session.
    pub fn in_session(&self, kv: &Kv) -> Self {
        Self { kv: kv.clone(), inner: Arc::clone(&self.inner) }
    }

    /// Ticks within moments of any change of the catalog, made here or arrived from elsewhere: then look at
    /// [`Workers::live`] again. Closes when the node ends.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.kv.worker_changes()
    }

    /// Who watches which script at this node.
    pub fn tails(&self) -> &Tails {
        &self.inner.tails
    }

    async fn row<T: for<'de> serde::Deserialize<'de>>(&self, key: &[u8]) -> Result<Option<T>, KvError> {
        Ok(self.kv.system_row(NamespaceId::WORKERS, key).await?.and_then(|row| decode(&row)))
    }

    /// Rows whose keys start with `prefix`, each with the rest of its key.
    async fn rows<T: for<'de> serde::Deserialize<'de>>(&self, prefix: &[u8]) -> Result<Vec<(Bytes, T)>, KvError> {
        let rows = self.kv.system_rows(NamespaceId::WORKERS, prefix).await?;
        let rest = |name: Bytes| name.slice(prefix.len()..);
        Ok(rows.into_iter().filter_map(|row| Some((rest(row.name), decode(&row.value)?))).collect())
    }

    async fn set(&self, key: &[u8], row: &impl serde::Serialize) -> Result<(), KvError> {
        self.kv.set_system_row(NamespaceId::WORKERS, key, encode(row), None).await
    }

    async fn remove(&self, key: &[u8]) -> Result<(), KvError> {
        self.kv.remove_system_row(NamespaceId::WORKERS, key).await
    }

    fn uuid(&self) -> Uuid {
        Uuid::of(self.kv.random_id())
    }
}

/// Text for people, cut short and without control characters.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(limits::TEXT_LEN_MAX).collect()
}

//! What is of no more use: old versions and deployments, files that nothing uses, what belonged to a script that was
//! deleted, and what a name that was taken twice at once has left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use super::files::{FileId, Kind, asset_id};
use super::limits::{DEPLOYMENTS_KEPT_MAX, FILE_GRACE_MS, SWEEP_EVERY_MS, VERSIONS_KEPT_MAX, VERSIONS_LEN_KEPT_MAX};
use super::rows::{BindingRow, DeploymentRow, Ended, Head, Tag, UseRow, VersionRow, decode};
use super::sessions::AssetList;
use super::{Life, Workers};
use crate::kv::{KvError, NamespaceId};

/// What belongs to a life, beside its files.
const OF_LIFE: [Tag; 6] = [Tag::Active, Tag::Deployment, Tag::Version, Tag::Place, Tag::Crons, Tag::Settings];

impl Workers {
    /// Tidies a script up after a deployment, and everything once in a while. Nobody waits for it.
    pub(super) fn tidy_soon(&self, life: Life) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let workers = self.clone();
        runtime.spawn(async move {
            if let Err(error) = workers.tidy(life).await {
                tracing::warn!(%error, "what a deployment has made superfluous stays for now");
            }
        });
    }

    async fn tidy(&self, life: Life) -> Result<(), KvError> {
        self.trim(life).await?;
        let now = self.kv.now_ms();
        let swept = self.inner.swept_ms.load(Ordering::Relaxed);
        let is_due = now >= swept + SWEEP_EVERY_MS;
        if is_due && self.inner.swept_ms.compare_exchange(swept, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.sweep().await?;
        }
        Ok(())
    }

    /// Gives up a script's oldest versions and deployments, and files that none of the others uses.
    pub(super) async fn trim(&self, life: Life) -> Result<(), KvError> {
        let _deploys = self.inner.deploys.lock().await;
        let mut deployments = self.rows::<DeploymentRow>(&Tag::Deployment.key(&[&life.0])).await?;
        deployments.sort_by_key(|(_, row)| std::cmp::Reverse(row.created_ms));
        let active: Option<DeploymentRow> = self.row(&Tag::Active.key(&[&life.0])).await?;
        for (id, row) in deployments.iter().skip(DEPLOYMENTS_KEPT_MAX) {
            if active.as_ref().is_none_or(|active| active.id != row.id) {
                self.remove(&Tag::Deployment.key(&[&life.0, id])).await?;
            }
        }
        let deployed: BTreeSet<Vec<u8>> =
            active.iter().flat_map(|row| row.versions.iter().map(|(version, _)| version.0.to_vec())).collect();
        let mut versions = self.rows::<VersionRow>(&Tag::Version.key(&[&life.0])).await?;
        versions.sort_by_key(|(_, row)| std::cmp::Reverse((row.number, row.created_ms)));
        let (mut kept, mut len, mut held) = (0, 0, Vec::new());
        for (id, row) in versions {
            let bytes: u64 = row.modules.iter().map(|module| module.len).sum();
            let fits = kept < VERSIONS_KEPT_MAX && (kept == 0 || len + bytes <= VERSIONS_LEN_KEPT_MAX);
            if !fits && !deployed.contains(&id[..]) {
                self.remove(&Tag::Version.key(&[&life.0, &id])).await?;
                continue;
            }
            (kept, len) = (kept + 1, len + bytes);
            held.push(row);
        }
        let unwanted = self.unwanted_files(life).await?;
        if unwanted.is_empty() {
            return Ok(());
        }
        let mut in_use = BTreeSet::new();
        for row in held {
            self.files_of(life, &row, &mut in_use).await?;
        }
        for file in unwanted.difference(&in_use) {
            self.drop_file(life, *file).await?;
        }
        Ok(())
    }

    async fn files_of(&self, life: Life, row: &VersionRow, files: &mut BTreeSet<FileId>) -> Result<(), KvError> {
        files.extend(row.modules.iter().map(|module| (Kind::Module, module.hash)));
        files.extend(row.bindings.iter().filter_map(|(_, binding)| match binding {
            BindingRow::Secret(file) => Some((Kind::Secret, *file)),
            _ => None,
        }));
        if let Some(list) = row.assets
            && files.insert((Kind::List, list))
            && let Some(list) = self.file(life, (Kind::List, list)).await?.and_then(|list| decode::<AssetList>(&list))
        {
            files.extend(list.files.iter().map(|file| asset_id(file.hash)));
        }
        Ok(())
    }

    /// Removes all that belongs to a life.
    pub(super) async fn drop_life(&self, life: Life) -> Result<(), KvError> {
        for tag in OF_LIFE {
            for key in self.kv.system_names(NamespaceId::WORKERS, &tag.key(&[&life.0]))? {
                self.remove(&key).await?;
            }
        }
        for key in self.kv.system_names(NamespaceId::WORKER_FILES, &life.0)? {
            self.kv.remove_system_row(NamespaceId::WORKER_FILES, &key).await?;
        }
        for key in self.kv.system_names(NamespaceId::WORKERS, &Tag::Use.key(&[&life.0]))? {
            self.remove(&key).await?;
        }
        Ok(())
    }

    /// Removes what belongs to lives that are over or that no name stands for. The latter may be waiting for its name
    /// to arrive, or for its assets to be uploaded, so it gets time.
    pub(super) async fn sweep(&self) -> Result<(), KvError> {
        let heads = self.rows::<Head>(&Tag::Head.key(&[])).await?;
        let named: BTreeSet<Life> = heads.into_iter().map(|(_, head)| head.life).collect();
        let mut last_used: BTreeMap<Life, u64> = BTreeMap::new();
        for (rest, row) in self.rows::<UseRow>(&Tag::Use.key(&[])).await? {
            if let Some((life, _)) = rest.split_first_chunk::<16>() {
                let last = last_used.entry(Life(*life)).or_default();
                *last = row.used_ms.max(*last);
            }
        }
        for (life, used_ms) in last_used {
            let is_over = self.row::<Ended>(&Tag::Ended.key(&[&life.0])).await?.is_some();
            let is_nameless = !named.contains(&life) && used_ms + FILE_GRACE_MS < self.kv.now_ms();
            if is_over || is_nameless {
                self.drop_life(life).await?;
            }
        }
        Ok(())
    }
}

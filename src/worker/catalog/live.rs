//! What is live: every script of every account whose parts have all arrived, as engines run it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::files::{Kind, asset_id};
use super::rows::{BindingRow, CronsRow, DeploymentRow, Ended, Head, PlaceRow, RouteRow, Tag, VersionRow};
use super::sessions::AssetList;
use super::{Life, Uuid, Workers};
use crate::kv::{AccountId, KvError, NamespaceId};
use crate::secret::Secret;
use crate::worker::{Binding, Live, Module, Program, ScriptId};

/// What the last look at the catalog has found.
#[derive(Default)]
pub(super) struct Seen {
    /// Of the catalog, when it was looked at.
    generation: Option<u64>,
    live: BTreeMap<ScriptId, (Life, Live)>,
}

impl Workers {
    /// Everything that is deployed now, of all accounts. Programs are read once and shared from then on; as long as
    /// nothing has changed, nothing is read at all.
    pub async fn live(&self) -> Result<BTreeMap<ScriptId, Live>, KvError> {
        let mut seen = self.inner.live.lock().await;
        // First the number, then the entries: what changes meanwhile is looked at once more.
        let generation = self.kv.worker_generation();
        if seen.generation != Some(generation) {
            seen.live = self.look(&seen.live).await?;
            seen.generation = Some(generation);
        }
        Ok(seen.live.iter().map(|(script, (_, live))| (script.clone(), live.clone())).collect())
    }

    /// A static asset of a program: its content, if it is here.
    pub async fn asset(&self, program: &Program, hash: [u8; 16]) -> Result<Option<Bytes>, KvError> {
        self.file(Life(program.life), asset_id(hash)).await
    }

    async fn look(
        &self,
        before: &BTreeMap<ScriptId, (Life, Live)>,
    ) -> Result<BTreeMap<ScriptId, (Life, Live)>, KvError> {
        let mut routes: BTreeMap<ScriptId, Vec<String>> = BTreeMap::new();
        for (_, route) in self.rows::<RouteRow>(&Tag::Route.key(&[])).await? {
            if let Some(script) = route.script {
                routes.entry(ScriptId { account: AccountId(route.account), script }).or_default().push(route.pattern);
            }
        }
        let known: BTreeMap<&str, &Arc<Program>> = before
            .values()
            .flat_map(|(_, live)| live.versions.iter().map(|(program, _)| (&*program.version, program)))
            .collect();
        let mut subdomains: BTreeMap<AccountId, String> = BTreeMap::new();
        let mut found = BTreeMap::new();
        for (rest, head) in self.rows::<Head>(&Tag::Head.key(&[])).await? {
            let Some(id) = script_id(&rest) else { continue };
            if self.is_over(head.life).await? {
                continue;
            }
            let versions = match self.deployed(&id, head.life, &known).await {
                Ok(versions) => versions,
                Err(error) => {
                    // One script that can't be read is no reason to stop the others.
                    tracing::error!(script = %id, %error, "a deployed script can't be read; it stays as it was");
                    None
                }
            };
            let same_life = |(life, _): &&(Life, Live)| *life == head.life;
            let versions = match versions {
                Some(versions) => versions,
                None => match before.get(&id).filter(same_life) {
                    Some((_, live)) => live.versions.clone(),
                    None => continue,
                },
            };
            let subdomain = match subdomains.get(&id.account) {
                Some(subdomain) => subdomain.clone(),
                None => self.subdomain(id.account).await?,
            };
            subdomains.insert(id.account, subdomain.clone());
            let place: Option<PlaceRow> = self.row(&Tag::Place.key(&[&head.life.0])).await?;
            let crons: Option<CronsRow> = self.row(&Tag::Crons.key(&[&head.life.0])).await?;
            let live = Live {
                versions,
                workers_dev: place.is_none_or(|place| place.workers_dev),
                crons: crons.into_iter().flat_map(|row| row.crons).map(|row| row.cron).collect(),
                routes: routes.remove(&id).unwrap_or_default(),
                subdomain,
            };
            found.insert(id, (head.life, live));
        }
        Ok(found)
    }

    pub(super) async fn is_over(&self, life: Life) -> Result<bool, KvError> {
        Ok(self.row::<Ended>(&Tag::Ended.key(&[&life.0])).await?.is_some())
    }

    /// The versions in force; of the last deployment that is all here, if the newest is not. `None` if none is.
    async fn deployed(
        &self,
        id: &ScriptId,
        life: Life,
        known: &BTreeMap<&str, &Arc<Program>>,
    ) -> Result<Option<Vec<(Arc<Program>, f64)>>, KvError> {
        let Some(active): Option<DeploymentRow> = self.row(&Tag::Active.key(&[&life.0])).await? else {
            return Ok(None);
        };
        if let Some(versions) = self.programs(id, life, &active, known).await? {
            return Ok(Some(versions));
        }
        // What runs already goes on until the new one is here.
        if known.values().any(|program| program.life == life.0) {
            return Ok(None);
        }
        let mut history = self.rows::<DeploymentRow>(&Tag::Deployment.key(&[&life.0])).await?;
        history.sort_by_key(|(_, deployment)| std::cmp::Reverse(deployment.created_ms));
        for (_, deployment) in history {
            if let Some(versions) = self.programs(id, life, &deployment, known).await? {
                return Ok(Some(versions));
            }
        }
        Ok(None)
    }

    async fn programs(
        &self,
        id: &ScriptId,
        life: Life,
        deployment: &DeploymentRow,
        known: &BTreeMap<&str, &Arc<Program>>,
    ) -> Result<Option<Vec<(Arc<Program>, f64)>>, KvError> {
        let mut versions = Vec::new();
        for (version, share) in &deployment.versions {
            let program = match known.get(&*version.to_string()) {
                Some(program) => Arc::clone(program),
                None => match self.program(id, life, *version).await? {
                    Some(program) => Arc::new(program),
                    None => return Ok(None),
                },
            };
            versions.push((program, *share));
        }
        Ok((!versions.is_empty()).then_some(versions))
    }

    /// A version with all that it is made of; `None` as long as something is missing here.
    async fn program(&self, id: &ScriptId, life: Life, version: Uuid) -> Result<Option<Program>, KvError> {
        let Some(row): Option<VersionRow> = self.row(&Tag::Version.key(&[&life.0, &version.0])).await? else {
            return Ok(None);
        };
        let mut modules = Vec::with_capacity(row.modules.len());
        for module in &row.modules {
            let Some(body) = self.file(life, (Kind::Module, module.hash)).await? else { return Ok(None) };
            modules.push(Module { name: module.name.clone(), kind: module.kind, body });
        }
        let mut bindings = Vec::with_capacity(row.bindings.len());
        for (name, binding) in &row.bindings {
            let binding = match binding {
                BindingRow::Kv(namespace) => Binding::Kv(NamespaceId(*namespace)),
                BindingRow::Text(text) => Binding::Text(text.clone()),
                BindingRow::Json(text) => Binding::Json(text.clone()),
                BindingRow::Assets => Binding::Assets,
                BindingRow::Secret(file) => {
                    let Some(text) = self.file(life, (Kind::Secret, *file)).await? else { return Ok(None) };
                    Binding::Secret(Secret::exact(&String::from_utf8_lossy(&text)))
                }
            };
            bindings.push((name.clone(), binding));
        }
        let assets = match row.assets {
            None => None,
            Some(list) => {
                let Some(list) = self.file(life, (Kind::List, list)).await? else { return Ok(None) };
                let Some(list) = super::decode::<AssetList>(&list) else { return Ok(None) };
                for file in &list.files {
                    if !self.has_file(life, asset_id(file.hash))? {
                        return Ok(None);
                    }
                }
                Some(Arc::new(list.into_assets()))
            }
        };
        Ok(Some(Program {
            account: id.account,
            script: id.script.clone(),
            life: life.0,
            version: version.to_string(),
            syntax: row.syntax(),
            modules,
            bindings,
            compatibility_date: row.compatibility_date,
            compatibility_flags: row.compatibility_flags,
            assets,
            cpu_ms: row.cpu_ms,
        }))
    }
}

/// From the key of a head without its tag.
pub(super) fn script_id(rest: &[u8]) -> Option<ScriptId> {
    let (account, name) = rest.split_first_chunk::<16>()?;
    Some(ScriptId { account: AccountId(*account), script: std::str::from_utf8(name).ok()?.into() })
}

//! Routes: which hosts and paths reach which script. The key is the pattern, so that no pattern ever leads to two
//! scripts; and a host belongs to the account that has it first, so that no account takes requests from another.

use super::limits::ROUTES_MAX;
use super::patterns::parse;
use super::rows::{ROW_VERSION, RouteRow, Tag};
use super::{Script, WorkerError, Workers};
use crate::kv::{AccountId, KvError};

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Of the pattern.
    pub id: [u8; 16],
    /// Whose it is.
    pub account: AccountId,
    /// Host and path.
    pub pattern: String,
    /// The zone that the client put it in.
    pub zone: String,
    /// `None`: requests there reach no script, although a wider pattern might say so.
    pub script: Option<String>,
}

impl Workers {
    /// An account's routes.
    pub async fn routes(&self, account: AccountId) -> Result<Vec<Route>, KvError> {
        Ok(self.all_routes().await?.into_iter().filter(|route| route.account == account).collect())
    }

    async fn all_routes(&self) -> Result<Vec<Route>, KvError> {
        let rows = self.rows::<RouteRow>(&Tag::Route.key(&[])).await?;
        Ok(rows
            .into_iter()
            .filter_map(|(id, row)| {
                let RouteRow { account, pattern, zone, script, .. } = row;
                Some(Route { id: id[..].try_into().ok()?, account: AccountId(account), pattern, zone, script })
            })
            .collect())
    }

    /// Adds a route, or leads it to another script of the account if `replace` says so.
    pub async fn add_route(
        &self,
        account: AccountId,
        zone: &str,
        pattern: &str,
        script: Option<&str>,
        replace: bool,
    ) -> Result<Route, WorkerError> {
        let _deploys = self.inner.deploys.lock().await;
        if let Some(script) = script {
            self.script(account, script).await?;
        }
        let all = self.all_routes().await?;
        self.put_route(&all, account, zone, pattern, script, replace).await
    }

    async fn put_route(
        &self,
        all: &[Route],
        account: AccountId,
        zone: &str,
        pattern: &str,
        script: Option<&str>,
        replace: bool,
    ) -> Result<Route, WorkerError> {
        let parsed = parse(pattern)?;
        let id = id_of(pattern);
        for other in all {
            let is_same = other.id == id;
            let is_foreign = other.account != account;
            let is_in_way = is_foreign && parse(&other.pattern).is_ok_and(|theirs| theirs.meets(&parsed));
            if is_in_way || is_same && !replace && other.script.as_deref() != script {
                let owner = match &other.script {
                    _ if is_foreign => "another account, as its host is".into(),
                    Some(script) => format!("the Worker {script:?}"),
                    None => "no Worker".into(),
                };
                return Err(WorkerError::RouteTaken { pattern: pattern.into(), owner });
            }
        }
        if all.iter().filter(|route| route.account == account).count() >= ROUTES_MAX
            && all.iter().all(|route| route.id != id)
        {
            return Err(WorkerError::TooManyRoutes);
        }
        let (zone, pattern, script) = (zone.to_owned(), pattern.to_owned(), script.map(str::to_owned));
        let row = RouteRow { version: ROW_VERSION, account: account.0, zone, pattern, script };
        self.set(&Tag::Route.key(&[&id]), &row).await?;
        Ok(Route { id, account, pattern: row.pattern, zone: row.zone, script: row.script })
    }

    /// Has exactly these patterns, each in its zone, lead to a script.
    pub async fn set_routes(&self, script: &Script, wanted: Vec<(String, String)>) -> Result<Vec<Route>, WorkerError> {
        let _deploys = self.inner.deploys.lock().await;
        let (account, name) = (script.id.account, &script.id.script);
        let all = self.all_routes().await?;
        // All are looked at before any is changed.
        for (pattern, _) in &wanted {
            parse(pattern)?;
        }
        let mut routes = Vec::with_capacity(wanted.len());
        for (pattern, zone) in &wanted {
            routes.push(self.put_route(&all, account, zone, pattern, Some(name), false).await?);
        }
        for other in all {
            let is_ours = other.account == account && other.script.as_ref() == Some(name);
            if is_ours && routes.iter().all(|route| route.id != other.id) {
                self.remove(&Tag::Route.key(&[&other.id])).await?;
            }
        }
        Ok(routes)
    }

    /// Takes a route of the account away.
    pub async fn remove_route(&self, account: AccountId, id: [u8; 16]) -> Result<(), WorkerError> {
        let key = Tag::Route.key(&[&id]);
        match self.row::<RouteRow>(&key).await? {
            Some(row) if row.account == account.0 => Ok(self.remove(&key).await?),
            _ => Err(WorkerError::RouteNotFound),
        }
    }

    pub(super) async fn drop_routes_of(&self, script: &Script) -> Result<(), KvError> {
        for route in self.routes(script.id.account).await? {
            if route.script.as_ref() == Some(&script.id.script) {
                self.remove(&Tag::Route.key(&[&route.id])).await?;
            }
        }
        Ok(())
    }
}

fn id_of(pattern: &str) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(pattern.to_ascii_lowercase().as_bytes()).as_bytes()[..16]);
    id
}

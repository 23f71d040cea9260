//! Deployments: which versions requests go to, now and before. The one in force is a register of its own, so that the
//! last deployment wins at every PoP alike; the history is beside it.

use super::limits::{DEPLOYED_MAX, DEPLOYMENTS_KEPT_MAX};
use super::rows::{DeploymentRow, ROW_VERSION, Tag};
use super::versions::check_remarks;
use super::{Script, Uuid, WorkerError, Workers, short};
use crate::kv::KvError;

/// What is to be deployed.
#[derive(Debug, Clone)]
pub struct NewDeployment {
    /// Versions, and the share of requests that each gets, in percent.
    pub versions: Vec<(Uuid, f64)>,
    /// Who deploys.
    pub author: String,
    /// With what.
    pub source: String,
    /// JSON text of an object.
    pub annotations: String,
}

/// What was deployed.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// Its id.
    pub id: Uuid,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Who deployed.
    pub author: String,
    /// With what.
    pub source: String,
    /// JSON text of an object.
    pub annotations: String,
    /// Versions, and the share of requests that each gets, in percent.
    pub versions: Vec<(Uuid, f64)>,
}

impl From<DeploymentRow> for Deployment {
    fn from(row: DeploymentRow) -> Self {
        let DeploymentRow { id, created_ms, author, source, annotations, versions, .. } = row;
        Self { id, created_ms, author, source, annotations, versions }
    }
}

impl Workers {
    /// Has requests go to these versions, at every PoP.
    pub async fn deploy(&self, script: &Script, new: NewDeployment) -> Result<Deployment, WorkerError> {
        let NewDeployment { versions, author, source, annotations } = new;
        check_remarks(&annotations)?;
        check_shares(&versions)?;
        for (version, _) in &versions {
            self.version(script, *version).await?;
        }
        let _deploys = self.inner.deploys.lock().await;
        let row = DeploymentRow {
            version: ROW_VERSION,
            id: self.uuid(),
            created_ms: self.kv.now_ms(),
            author: short(&author),
            source: short(&source),
            annotations,
            versions,
        };
        self.set(&Tag::Deployment.key(&[&script.life.0, &row.id.0]), &row).await?;
        self.set(&Tag::Active.key(&[&script.life.0]), &row).await?;
        // What was ended meanwhile elsewhere stays so; here it is noticed.
        if self.is_over(script.life).await? {
            return Err(WorkerError::ScriptNotFound);
        }
        self.tidy_soon(script.life);
        Ok(row.into())
    }

    /// The deployment in force.
    pub async fn active(&self, script: &Script) -> Result<Option<Deployment>, KvError> {
        Ok(self.row::<DeploymentRow>(&Tag::Active.key(&[&script.life.0])).await?.map(Deployment::from))
    }

    /// A script's deployments: the one in force first, then the newest.
    pub async fn deployments(&self, script: &Script) -> Result<Vec<Deployment>, KvError> {
        let active = self.active(script).await?;
        let rows = self.rows::<DeploymentRow>(&Tag::Deployment.key(&[&script.life.0])).await?;
        let mut others: Vec<Deployment> = rows.into_iter().map(|(_, row)| row.into()).collect();
        others.retain(|other| active.as_ref().is_none_or(|active| active.id != other.id));
        others.sort_by_key(|other| std::cmp::Reverse((other.created_ms, other.id)));
        others.truncate(DEPLOYMENTS_KEPT_MAX);
        Ok(active.into_iter().chain(others).collect())
    }
}

fn check_shares(versions: &[(Uuid, f64)]) -> Result<(), WorkerError> {
    if versions.is_empty() || versions.len() > DEPLOYED_MAX {
        return Err(WorkerError::Shares("it names one version, or two"));
    }
    if let [(first, _), (second, _)] = versions
        && first == second
    {
        return Err(WorkerError::Shares("it names one version twice"));
    }
    if versions.iter().any(|(_, share)| !(0.0..=100.0).contains(share)) {
        return Err(WorkerError::Shares("percentages are numbers from 0 to 100"));
    }
    let sum: f64 = versions.iter().map(|(_, share)| share).sum();
    if (sum - 100.0).abs() > 1e-6 {
        return Err(WorkerError::Shares("the percentages must add up to 100"));
    }
    Ok(())
}

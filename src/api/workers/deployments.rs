//! Deployments: which versions get requests, now and before.

use serde_json::{Value as Json, json};

use super::super::body::RequestBody;
use super::super::envelope;
use super::super::error::RequestError;
use super::super::reply::Reply;
use super::{Call, json_body, metadata, shown, versions};
use crate::worker::WorkerError;
use crate::worker::catalog::NewDeployment;

pub(super) async fn list(call: &Call<'_>, name: &str) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let deployments = call.workers.deployments(&script).await?;
    envelope::result(json!({ "deployments": deployments.iter().map(shown::deployment).collect::<Vec<_>>() }))
}

pub(super) async fn get(call: &Call<'_>, name: &str, deployment: &str) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let deployments = call.workers.deployments(&script).await?;
    match deployments.iter().find(|known| known.id.to_string() == deployment) {
        Some(found) => envelope::result(shown::deployment(found)),
        None => Err(WorkerError::DeploymentNotFound(deployment.chars().take(64).collect()).into()),
    }
}

pub(super) async fn create(call: &Call<'_>, name: &str, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let wanted = json_body(body).await?;
    if wanted.get("strategy").is_some_and(|strategy| strategy != "percentage") {
        return Err(RequestError::invalid("Invalid strategy. There is \"percentage\" only."));
    }
    let wrong = || RequestError::invalid("\"versions\" is no list of objects with \"version_id\" and \"percentage\".");
    let mut shares = Vec::new();
    for version in wanted.get("versions").and_then(Json::as_array).ok_or_else(wrong)? {
        let id = version.get("version_id").and_then(Json::as_str).ok_or_else(wrong)?;
        let share = version.get("percentage").and_then(Json::as_f64).ok_or_else(wrong)?;
        shares.push((versions::id(id)?, share));
    }
    let new = NewDeployment {
        versions: shares,
        author: call.author(),
        source: call.source().into(),
        annotations: metadata::annotations(&wanted)?,
    };
    let deployment = call.workers.deploy(&script, new).await?;
    let named: Vec<String> = deployment.versions.iter().map(|(id, share)| format!("{id} at {share}%")).collect();
    call.audit("worker.deploy", format!("{} {}", script.id, named.join(", "))).await;
    envelope::result(shown::deployment(&deployment))
}

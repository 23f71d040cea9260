//! Versions: upload without deploying, list, show.

use serde_json::{Value as Json, json};

use super::super::body::RequestBody;
use super::super::envelope;
use super::super::error::RequestError;
use super::super::paging::Paging;
use super::super::reply::Reply;
use super::{Call, form, metadata, shown};
use crate::worker::WorkerError;
use crate::worker::catalog::Uuid;

/// Versions of a page if the client does not say.
const PER_PAGE_DEFAULT: usize = 100;

pub(super) async fn upload(call: &Call<'_>, name: &str, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let _place = call.api.large_body().await?;
    let form = form::read(call.headers, body).await?;
    let form = form.ok_or_else(|| RequestError::Upload("a version comes as multipart/form-data".into()))?;
    let (script, version) = call.workers.upload(call.account, name, metadata::upload(call, form)?).await?;
    call.audit("worker.upload", format!("{} version {}", script.id, version.id)).await;
    envelope::result(shown::version(&version))
}

pub(super) async fn list(call: &Call<'_>, name: &str) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let paging = Paging::from_query(call.query, PER_PAGE_DEFAULT)?;
    let versions = call.workers.versions(&script).await?;
    let items: Vec<Json> = paging.slice(&versions).iter().map(shown::version_item).collect();
    let info = paging.info(items.len(), versions.len());
    envelope::page(json!({ "items": items }), info)
}

pub(super) async fn get(call: &Call<'_>, name: &str, version: &str) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let version = call.workers.version(&script, id(version)?).await?;
    envelope::result(shown::version(&version))
}

/// Reads the id of a version.
pub(super) fn id(text: &str) -> Result<Uuid, RequestError> {
    text.parse().map_err(|_| WorkerError::VersionNotFound(text.chars().take(64).collect()).into())
}

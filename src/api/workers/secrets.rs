//! Secrets: names in, names out. What they hold goes to the catalog and never comes back.

use serde_json::{Value as Json, json};

use super::super::body::RequestBody;
use super::super::envelope;
use super::super::error::RequestError;
use super::super::key::decode_key;
use super::super::reply::Reply;
use super::{Call, json_body, scripts, shown, text};
use crate::secret::Secret;
use crate::worker::WorkerError;
use crate::worker::catalog::{Bound, Script, Version};

type Changes = Vec<(String, Option<Secret>)>;

fn names(version: Option<&Version>) -> Vec<Json> {
    let secrets = version.into_iter().flat_map(Version::bindings).filter(|(_, bound)| *bound == Bound::Secret);
    secrets.map(|(name, _)| item(name)).collect()
}

fn item(name: &str) -> Json {
    json!({ "name": name, "type": "secret_text" })
}

pub(super) async fn list(call: &Call<'_>, name: &str) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    envelope::result(names(call.workers.latest(&script).await?.as_ref()))
}

pub(super) async fn get(call: &Call<'_>, name: &str, secret: &str) -> Result<Reply, RequestError> {
    let (script, secret) = (call.script(name).await?, secret_name(secret)?);
    let latest = call.workers.latest(&script).await?;
    match names(latest.as_ref()).into_iter().find(|item| item["name"] == secret.as_str()) {
        Some(item) => envelope::result(item),
        None => Err(WorkerError::SecretNotFound(secret).into()),
    }
}

pub(super) async fn put(call: &Call<'_>, name: &str, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let wanted = json_body(body).await?;
    let secret = text(&wanted, "name")?.filter(|name| !name.is_empty());
    let secret = secret.ok_or_else(|| RequestError::invalid("The secret has no \"name\"."))?;
    let value = value(&secret, &wanted)?;
    apply(call, &script, vec![(secret.clone(), Some(value))]).await?;
    envelope::result(item(&secret))
}

pub(super) async fn delete(call: &Call<'_>, name: &str, secret: &str) -> Result<Reply, RequestError> {
    let (script, secret) = (call.script(name).await?, secret_name(secret)?);
    apply(call, &script, vec![(secret, None)]).await?;
    Ok(envelope::empty())
}

/// Several at once: `null` takes one away.
pub(super) async fn patch(call: &Call<'_>, name: &str, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let wanted = json_body(body).await?;
    let changes = changes(wanted.get("secrets"), "secrets")?;
    let version = apply(call, &script, changes).await?;
    let bound: serde_json::Map<String, Json> = names(Some(&version))
        .into_iter()
        .map(|item| (item["name"].as_str().unwrap_or_default().into(), item))
        .collect();
    envelope::result(json!({ "secrets": bound }))
}

/// A version with other secrets that gets no requests yet.
pub(super) async fn patch_latest(call: &Call<'_>, name: &str, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let wanted = json_body(body).await?;
    let changes = changes(wanted.get("env"), "env")?;
    let named = naming(&changes);
    let annotations = super::metadata::annotations(&wanted)?;
    let version = call.workers.change_secrets(&script, changes, &call.author(), call.source(), annotations).await?;
    call.audit("worker.secret", format!("{}: {named}; version {}", script.id, version.id)).await;
    envelope::result(shown::version(&version))
}

/// Changes secrets and deploys the version that this makes.
async fn apply(call: &Call<'_>, script: &Script, changes: Changes) -> Result<Version, RequestError> {
    let latest = call.workers.latest(script).await?.ok_or(WorkerError::ScriptNotFound)?;
    check_deployed(call, script, &latest).await?;
    let named = naming(&changes);
    let annotations = json!({ "workers/triggered_by": "secret" }).to_string();
    let version =
        call.workers.change_secrets(script, changes, &call.author(), call.source(), annotations.clone()).await?;
    scripts::deploy(call, script, &version, annotations).await?;
    call.audit("worker.secret", format!("{}: {named}", script.id)).await;
    Ok(version)
}

/// What is changed is made from the newest version and deployed, so that must be what runs: else something would be
/// deployed that nobody asked for.
pub(super) async fn check_deployed(call: &Call<'_>, script: &Script, latest: &Version) -> Result<(), RequestError> {
    match call.workers.active(script).await? {
        Some(active) if active.versions.iter().all(|(version, _)| *version != latest.id) => {
            Err(RequestError::NotDeployed)
        }
        _ => Ok(()),
    }
}

fn changes(wanted: Option<&Json>, field: &str) -> Result<Changes, RequestError> {
    let Some(Json::Object(wanted)) = wanted else {
        return Err(RequestError::invalid(format!("The body has no object \"{field}\".")));
    };
    let change = |(name, value): (&String, &Json)| match value {
        Json::Null => Ok((name.clone(), None)),
        value => Ok((name.clone(), Some(self::value(name, value)?))),
    };
    wanted.iter().map(change).collect()
}

fn value(name: &str, wanted: &Json) -> Result<Secret, RequestError> {
    match wanted.get("type").and_then(Json::as_str) {
        None | Some("secret_text") => {}
        Some(other) => {
            let why = format!("the type {other:?} is not supported here, only secret_text");
            return Err(WorkerError::Binding { name: name.into(), why }.into());
        }
    }
    let text = wanted.get("text").and_then(Json::as_str);
    text.map(Secret::exact).ok_or_else(|| RequestError::invalid("The secret has no \"text\"."))
}

/// Which are set and which are taken away, for the audit log.
fn naming(changes: &Changes) -> String {
    let one = |(name, value): &(String, Option<Secret>)| format!("{}{name}", if value.is_some() { "+" } else { "-" });
    changes.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn secret_name(segment: &str) -> Result<String, RequestError> {
    String::from_utf8(decode_key(segment)?.to_vec()).map_err(|_| RequestError::Key("The name is not UTF-8."))
}

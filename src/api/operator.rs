//! `/starling/v1`: what the operator of a node asks of it. Plain JSON without Cloudflare's envelope.
//!
//! Knows nothing of clusters; `crate::operator` does.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::Api;
use super::auth::Caller;
use super::body::RequestBody;
use super::envelope;
use super::error::RequestError;
use super::query::Query;
use super::reply::Reply;
use super::tokens::json_of;
use crate::kv::{AUDIT_LIMIT_MAX, NamespaceId, Scope};

/// Largest body, in bytes.
const BODY_LEN_MAX: usize = 4096;
/// How long an invitation lives if the request does not say.
const TTL_SECS_DEFAULT: u64 = 3600;
/// Longest life of an invitation: 30 days.
const TTL_SECS_MAX: u64 = 30 * 24 * 3600;

#[derive(Deserialize)]
struct Invitation {
    ttl_secs: Option<u64>,
}

#[derive(Deserialize)]
struct Eviction {
    node: String,
    #[serde(default)]
    connected: bool,
}

pub(crate) async fn status(api: &Api) -> Result<Reply, RequestError> {
    let mut status = api.shared.operator.status().await?;
    if let Some(counters) = status.get_mut("counters").and_then(|counters| counters.as_object_mut()) {
        counters.extend(api.shared.config.failures.counters().map(|(name, count)| (name.to_owned(), count.into())));
    }
    envelope::bare(&status)
}

pub(crate) async fn invite(api: &Api, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let text = body.read(BODY_LEN_MAX).await?;
    let ttl_secs = if text.is_empty() {
        TTL_SECS_DEFAULT
    } else {
        let invitation: Invitation = serde_json::from_slice(&text)
            .map_err(|error| RequestError::invalid(format!("The body is not JSON with \"ttl_secs\": {error}.")))?;
        invitation.ttl_secs.unwrap_or(TTL_SECS_DEFAULT)
    };
    if !(1..=TTL_SECS_MAX).contains(&ttl_secs) {
        let message = format!("Invalid ttl_secs of {ttl_secs}. Please specify an integer from 1 to {TTL_SECS_MAX}.");
        return Err(RequestError::Invalid(message));
    }
    let token = api.shared.operator.invite(Duration::from_secs(ttl_secs)).await?;
    envelope::bare(&json!({ "token": token }))
}

pub(crate) async fn leave(api: &Api) -> Result<Reply, RequestError> {
    api.shared.operator.leave().await?;
    envelope::bare(&json!({}))
}

/// Acts shown if the request does not say how many.
const AUDIT_LIMIT_DEFAULT: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    what: String,
    namespace: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verification {
    peer: Option<String>,
    #[serde(default)]
    repair: bool,
}

pub(crate) fn audit(api: &Api, query: Query<'_>) -> Result<Reply, RequestError> {
    let limit = match query.value("limit")?.as_deref().map(str::parse::<usize>) {
        None => AUDIT_LIMIT_DEFAULT,
        Some(Ok(limit)) if (1..=AUDIT_LIMIT_MAX).contains(&limit) => limit,
        Some(_) => {
            let message = format!("Invalid limit. Please specify an integer from 1 to {AUDIT_LIMIT_MAX}.");
            return Err(RequestError::Invalid(message));
        }
    };
    envelope::bare(&api.kv.acts(limit).map_err(RequestError::kv("read the audit log"))?)
}

pub(crate) async fn keys(api: &Api) -> Result<Reply, RequestError> {
    envelope::bare(&api.shared.operator.keys().await?)
}

pub(crate) async fn rotate_keys(api: &Api, caller: &Caller, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let Rotation { what, namespace } = json_of(body, "\"what\" to rotate").await?;
    let operator = &api.shared.operator;
    let namespace = match (what.as_str(), namespace) {
        ("namespace", Some(id)) => {
            let id = id.parse().map_err(|_| RequestError::Invalid(format!("{id:?} is no namespace id.")))?;
            // The key of a namespace belongs to its account.
            api.kv.namespace(caller.home(), id).map_err(RequestError::kv("rotate"))?;
            Some(id)
        }
        _ => None,
    };
    match namespace {
        Some(_) if caller.require(Scope::Admin, None).is_ok() => {}
        _ => caller.require(Scope::Operate, None)?,
    }
    let answer = match (what.as_str(), namespace) {
        ("cluster", _) => operator.rotate_cluster_key().await?,
        ("system", _) => operator.rotate_data_key(NamespaceId::SYSTEM).await?,
        ("certificates", _) => operator.rotate_certificates().await?,
        ("namespace", Some(id)) => operator.rotate_data_key(id).await?,
        _ => {
            let message = "Rotate \"cluster\", \"system\", \"certificates\", or \"namespace\" with its id.";
            return Err(RequestError::Invalid(message.into()));
        }
    };
    let target = namespace.map_or(what, |id| format!("namespace {id}"));
    api.audit(caller, "keys.rotate", target).await;
    envelope::bare(&answer)
}

pub(crate) async fn verify(api: &Api, caller: &Caller, body: &mut RequestBody) -> Result<Reply, RequestError> {
    caller.require(Scope::Operate, None)?;
    let Verification { peer, repair } = json_of(body, "\"peer\" and \"repair\"").await?;
    let report = api.shared.operator.verify(&api.kv, peer.as_deref(), repair).await?;
    if repair {
        api.audit(caller, "node.repair", peer.unwrap_or_default()).await;
    }
    envelope::bare(&report)
}

pub(crate) async fn evict(api: &Api, caller: &Caller, body: &mut RequestBody) -> Result<Reply, RequestError> {
    caller.require(Scope::Operate, None)?;
    let Eviction { node, connected } = json_of(body, "\"node\"").await?;
    let id = api.shared.operator.evict(&node, connected).await?;
    api.audit(caller, "node.evict", node).await;
    envelope::bare(&json!({ "node": id.to_string() }))
}

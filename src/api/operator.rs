//! `/starling/v1`: what the operator of a node asks of it. Plain JSON without Cloudflare's envelope.
//!
//! Knows nothing of clusters; `crate::operator` does.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::Api;
use super::body::RequestBody;
use super::envelope;
use super::error::RequestError;
use super::reply::Reply;

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

pub(crate) async fn status(api: &Api) -> Result<Reply, RequestError> {
    envelope::bare(&api.shared.operator.status().await?)
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

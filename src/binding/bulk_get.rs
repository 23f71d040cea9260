//! `get` and `getWithMetadata` of several keys at once.

use serde::Deserialize;
use serde_json::Value as Json;

use super::values::check_cache_ttl;
use super::{Binding, reply};
use crate::api::body::RequestBody;
use crate::api::bulk_get::{BODY_LEN_MAX, VALUES_LEN_MAX, Values, check_count, entry, form};
use crate::api::error::RequestError;
use crate::api::key::check_key;
use crate::api::reply::Reply;
use crate::kv::{Kv, NamespaceId};

/// Requests whose values are gathered in memory at a time.
pub(super) const LARGE_BODIES_MAX: usize = 4;

#[derive(Deserialize)]
struct Asked {
    keys: Vec<String>,
    r#type: Option<String>,
    #[serde(rename = "withMetadata")]
    with_metadata: Option<bool>,
    /// A number, which workerd writes as text.
    #[serde(rename = "cacheTtl")]
    cache_ttl: Option<Json>,
}

pub(super) async fn get(binding: &Binding, ns: NamespaceId, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let text = body.read(BODY_LEN_MAX).await?;
    let asked: Asked = serde_json::from_slice(&text)
        .map_err(|error| RequestError::invalid(format!("The body is not JSON with \"keys\": {error}.")))?;
    let _place = binding.large_bodies.acquire().await.map_err(|_| RequestError::Internal("the places were closed"))?;
    let cache_ttl = asked.cache_ttl.map(|ttl| ttl.as_str().map_or_else(|| ttl.to_string(), str::to_owned));
    let with_metadata = asked.with_metadata.unwrap_or(false);
    let values = gather(&binding.kv, ns, asked.keys, asked.r#type.as_deref(), with_metadata, cache_ttl.as_deref());
    values.await.map(reply::json_text)
}

/// What keys hold, as JSON text.
pub(super) async fn gather(
    kv: &Kv,
    ns: NamespaceId,
    keys: Vec<String>,
    kind: Option<&str>,
    with_metadata: bool,
    cache_ttl: Option<&str>,
) -> Result<Vec<u8>, RequestError> {
    let form = form(kind)?;
    check_count(keys.len())?;
    let mut left = VALUES_LEN_MAX;
    let mut values = Values::default();
    for key in keys {
        check_key(&key)?;
        if let Some(text) = cache_ttl {
            check_cache_ttl(text)?;
        }
        if values.contains(&key) {
            continue;
        }
        let found = kv.get(ns, key.as_bytes()).await.map_err(RequestError::kv("bulk get keys"))?;
        let entry = match found {
            None => None,
            Some(found) => entry(found, form, with_metadata, &mut left).await?.for_worker(),
        };
        values.push(key, entry);
    }
    reply::write_json(&values)
}

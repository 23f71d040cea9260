//! Bulk get: up to 100 values in one answer.

use bytes::Bytes;
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Api;
use super::body::RequestBody;
use super::error::RequestError;
use super::key::check_key;
use super::reply::Reply;
use super::{envelope, metadata};
use crate::kv::{Found, Value};
use crate::replica::NamespaceId;

/// Most keys in a request.
const KEYS_MAX: usize = 100;
/// Most bytes of values in an answer.
const VALUES_LEN_MAX: usize = 25 * 1024 * 1024;
/// Largest body, in bytes.
const BODY_LEN_MAX: usize = 1024 * 1024;

#[derive(Deserialize)]
struct Asked {
    keys: Vec<String>,
    r#type: Option<String>,
    #[serde(rename = "withMetadata")]
    with_metadata: Option<bool>,
}

#[derive(Serialize)]
struct Answer {
    #[serde(serialize_with = "in_order")]
    values: Vec<(String, Option<Entry>)>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    Plain(Shown),
    WithMetadata {
        value: Shown,
        metadata: Option<Box<RawValue>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        expiration: Option<u64>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    Text(String),
    Json(Box<RawValue>),
}

pub(crate) async fn get(api: &Api, ns: NamespaceId, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let text = body.read(BODY_LEN_MAX).await?;
    let asked: Asked = serde_json::from_slice(&text)
        .map_err(|error| RequestError::invalid(format!("The body is not JSON with \"keys\": {error}.")))?;
    let as_json = match asked.r#type.as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => {
            let message = format!("\"{other}\" is not a valid type. Use \"json\" or \"text\"");
            return Err(RequestError::Invalid(message));
        }
    };
    match asked.keys.len() {
        0 => return Err(RequestError::invalid("You must request a minimum of 1 key")),
        count if count > KEYS_MAX => {
            return Err(RequestError::Invalid(format!("You can request a maximum of {KEYS_MAX} keys")));
        }
        _ => {}
    }
    for (index, key) in asked.keys.iter().enumerate() {
        check_key(key).map_err(|error| error.in_pair(index, key))?;
    }
    // Up to 25 MiB come together here.
    let _place =
        api.shared.large_bodies.acquire().await.map_err(|_| RequestError::Internal("the places were closed"))?;
    let mut left = VALUES_LEN_MAX;
    let mut values: Vec<(String, Option<Entry>)> = Vec::with_capacity(asked.keys.len());
    for key in asked.keys {
        if values.iter().any(|(seen, _)| *seen == key) {
            continue;
        }
        let found = api.kv.get(ns, key.as_bytes()).await.map_err(RequestError::kv("bulk get keys"))?;
        let entry = match found {
            None => None,
            Some(found) => Some(entry(found, as_json, asked.with_metadata.unwrap_or(false), &mut left).await?),
        };
        values.push((key, entry));
    }
    envelope::result(Answer { values })
}

async fn entry(found: Found, as_json: bool, with_metadata: bool, left: &mut usize) -> Result<Entry, RequestError> {
    let Found { value, metadata, expiration, age_ms: _ } = found;
    let bytes = whole(value, left).await?;
    let text = String::from_utf8(bytes.into()).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    let value =
        if as_json {
            Shown::Json(RawValue::from_string(text).map_err(|_| {
                RequestError::invalid("At least one of the requested keys corresponds to a non-json value")
            })?)
        } else {
            Shown::Text(text)
        };
    Ok(match with_metadata {
        false => Entry::Plain(value),
        true => {
            let metadata = metadata.as_ref().and_then(metadata::as_json).map(ToOwned::to_owned);
            Entry::WithMetadata { value, metadata, expiration }
        }
    })
}

async fn whole(value: Value, left: &mut usize) -> Result<Bytes, RequestError> {
    let mut take = |len: usize| {
        *left = left.checked_sub(len).ok_or(RequestError::BulkGetTooLarge(VALUES_LEN_MAX))?;
        Ok::<_, RequestError>(())
    };
    match value {
        Value::Inline(bytes) => {
            take(bytes.len())?;
            Ok(bytes)
        }
        Value::Blob(mut reader) => {
            let stated = usize::try_from(reader.len()).unwrap_or(usize::MAX);
            take(stated)?;
            let mut bytes = Vec::with_capacity(stated);
            while let Some(chunk) = reader.next().await {
                bytes.extend_from_slice(&chunk.map_err(RequestError::kv("bulk get keys"))?);
            }
            Ok(bytes.into())
        }
    }
}

fn in_order<S: Serializer>(values: &[(String, Option<Entry>)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(values.len()))?;
    for (key, entry) in values {
        map.serialize_entry(key, entry)?;
    }
    map.end()
}

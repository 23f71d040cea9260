//! Bulk get: up to 100 values in one answer, as text or JSON, or (beyond Cloudflare's API) as base64 of any bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Api;
use super::body::RequestBody;
use super::error::RequestError;
use super::key::check_key;
use super::reply::Reply;
use super::{envelope, heavy, metadata};
use crate::kv::{Found, Value};
use crate::replica::NamespaceId;

/// Most keys in a request.
const KEYS_MAX: usize = 100;
/// Most bytes of values in an answer.
pub(crate) const VALUES_LEN_MAX: usize = 25 * 1024 * 1024;
/// Largest body, in bytes.
pub(crate) const BODY_LEN_MAX: usize = 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

#[derive(Deserialize)]
struct Asked {
    keys: Vec<String>,
    r#type: Option<String>,
    #[serde(rename = "withMetadata")]
    with_metadata: Option<bool>,
}

/// How values are shown.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    Text,
    Json,
    Base64,
}

#[derive(Serialize)]
struct Answer {
    values: Values,
}

/// Keys with what was found, as a JSON object in the order asked.
#[derive(Default)]
pub(crate) struct Values(Vec<(String, Option<Entry>)>);

/// One key's part of an answer.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Entry {
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
pub(crate) enum Shown {
    Text(String),
    Json(Box<RawValue>),
}

pub(crate) async fn get(api: &Api, ns: NamespaceId, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let text = body.read(BODY_LEN_MAX).await?;
    let len = text.len();
    let read = move || {
        serde_json::from_slice::<Asked>(&text)
            .map_err(|error| RequestError::invalid(format!("The body is not JSON with \"keys\": {error}.")))
    };
    let asked = heavy::work(len, read).await?;
    let form = match asked.r#type.as_deref() {
        Some("base64") => Form::Base64,
        kind => form(kind)?,
    };
    check_count(asked.keys.len())?;
    for (index, key) in asked.keys.iter().enumerate() {
        check_key(key).map_err(|error| error.in_pair(index, key))?;
    }
    // Up to 25 MiB come together here.
    let _place = api.large_body().await?;
    let mut left = VALUES_LEN_MAX;
    let mut values = Values::default();
    for key in asked.keys {
        if values.contains(&key) {
            continue;
        }
        let found = api.kv.get(ns, key.as_bytes()).await.map_err(RequestError::kv("bulk get keys"))?;
        let entry = match found {
            None => None,
            Some(found) => Some(entry(found, form, asked.with_metadata.unwrap_or(false), &mut left).await?),
        };
        values.push(key, entry);
    }
    heavy::work(VALUES_LEN_MAX - left, move || envelope::result(Answer { values })).await
}

/// How Cloudflare's clients may want values.
pub(crate) fn form(kind: Option<&str>) -> Result<Form, RequestError> {
    match kind {
        None | Some("text") => Ok(Form::Text),
        Some("json") => Ok(Form::Json),
        Some(other) => Err(RequestError::Invalid(format!("\"{other}\" is not a valid type. Use \"json\" or \"text\""))),
    }
}

pub(crate) fn check_count(keys: usize) -> Result<(), RequestError> {
    match keys {
        0 => Err(RequestError::invalid("You must request a minimum of 1 key")),
        1..=KEYS_MAX => Ok(()),
        _ => Err(RequestError::Invalid(format!("You can request a maximum of {KEYS_MAX} keys"))),
    }
}

impl Values {
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.0.iter().any(|(seen, _)| seen == key)
    }

    pub(crate) fn push(&mut self, key: String, entry: Option<Entry>) {
        self.0.push((key, entry));
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, entry) in &self.0 {
            map.serialize_entry(key, entry)?;
        }
        map.end()
    }
}

impl Entry {
    /// As workerd wants it: without expiration, and `None` for the JSON value null, with or without metadata.
    pub(crate) fn for_worker(self) -> Option<Self> {
        let is_null = |value: &Shown| matches!(value, Shown::Json(json) if json.get() == "null");
        match self {
            Self::Plain(value) | Self::WithMetadata { value, .. } if is_null(&value) => None,
            Self::WithMetadata { value, metadata, .. } => {
                Some(Self::WithMetadata { value, metadata, expiration: None })
            }
            plain @ Self::Plain(_) => Some(plain),
        }
    }
}

/// What was found as an answer shows it. Takes the bytes of the value from what is `left` for the whole answer.
pub(crate) async fn entry(
    found: Found,
    form: Form,
    with_metadata: bool,
    left: &mut usize,
) -> Result<Entry, RequestError> {
    let Found { value, metadata, expiration, age_ms: _ } = found;
    let bytes = whole(value, left).await?;
    let value = match form {
        Form::Base64 => Shown::Text(STANDARD.encode(&bytes)),
        Form::Text => Shown::Text(text(bytes)),
        Form::Json => Shown::Json(RawValue::from_string(text(bytes)).map_err(|_| {
            RequestError::invalid("At least one of the requested keys corresponds to a non-json value")
        })?),
    };
    Ok(match with_metadata {
        false => Entry::Plain(value),
        true => {
            let metadata = metadata.as_ref().and_then(metadata::as_json).map(ToOwned::to_owned);
            Entry::WithMetadata { value, metadata, expiration }
        }
    })
}

/// As browsers and Workers decode text: what is not UTF-8 is replaced, a byte order mark left out.
fn text(bytes: Bytes) -> String {
    let bytes = if bytes.starts_with(BYTE_ORDER_MARK) { bytes.slice(BYTE_ORDER_MARK.len()..) } else { bytes };
    String::from_utf8(bytes.into()).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

async fn whole(value: Value, left: &mut usize) -> Result<Bytes, RequestError> {
    let mut take = |len: usize| {
        *left = left.checked_sub(len).ok_or(RequestError::BulkGetTooLarge)?;
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

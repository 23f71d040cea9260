//! Values: `get`, `getWithMetadata`, `put` and `delete` of one key.

use bytes::Bytes;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::{Binding, reply};
use crate::api::body::RequestBody;
use crate::api::error::RequestError;
use crate::api::query::Query;
use crate::api::reply::{Reply, ReplyBody};
use crate::api::values::ValueSink;
use crate::api::{expiry, metadata};
use crate::kv::{NamespaceId, Value};
use crate::replica::limits::VALUE_LEN_MAX;

const METADATA: HeaderName = HeaderName::from_static("cf-kv-metadata");
const EXPIRATION: HeaderName = HeaderName::from_static("cf-expiration");
/// Shortest `cacheTtl` that Cloudflare takes, in seconds. Nothing is cached here: it is checked, then left aside.
const CACHE_TTL_SECS_MIN: i64 = 30;
/// How far a value that is too long is read on, to tell its length.
const COUNTED_LEN_MAX: u64 = 128 * 1024 * 1024;

pub(super) async fn get(
    binding: &Binding,
    ns: NamespaceId,
    key: &[u8],
    query: Query<'_>,
) -> Result<Reply, RequestError> {
    if let Some(text) = query.value("cache_ttl")? {
        check_cache_ttl(&text)?;
    }
    let found = binding.kv.get(ns, key).await.map_err(RequestError::kv("get"))?;
    let found = found.ok_or(RequestError::KeyNotFound("get"))?;
    let mut response = Response::new(match found.value {
        Value::Inline(bytes) => ReplyBody::from(bytes),
        Value::Blob(reader) => ReplyBody::from(reader),
    });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Some(expiration) = found.expiration {
        headers.insert(EXPIRATION, HeaderValue::from(expiration));
    }
    if let Some(metadata) = found.metadata {
        headers.insert(METADATA, header_value(metadata)?);
    }
    Ok(response)
}

pub(super) async fn put(
    binding: &Binding,
    ns: NamespaceId,
    key: &[u8],
    query: Query<'_>,
    headers: &HeaderMap,
    body: &mut RequestBody,
) -> Result<Reply, RequestError> {
    let expiration = expiry::from_query(query, binding.kv.now_ms() / 1000)?;
    let metadata = headers.get(METADATA).map(|value| metadata::from_header(value.as_bytes())).transpose()?;
    if let Some(len) = body.stated_len().filter(|len| *len > VALUE_LEN_MAX as u64) {
        return Err(RequestError::ValueTooLarge(len));
    }
    let mut sink = ValueSink::new(&binding.kv, ns, key);
    let mut len = 0;
    while let Some(chunk) = body.chunk().await? {
        len += chunk.len() as u64;
        if len > VALUE_LEN_MAX as u64 {
            drop(sink);
            return Err(RequestError::ValueTooLarge(count_on(body, len).await?));
        }
        sink.write(chunk).await?;
    }
    sink.finish(metadata, expiration).await?;
    Ok(reply::done())
}

pub(super) async fn delete(binding: &Binding, ns: NamespaceId, key: &[u8]) -> Result<Reply, RequestError> {
    binding.kv.delete(ns, key).await.map_err(RequestError::kv("remove key"))?;
    Ok(reply::done())
}

/// What `cache_ttl` says must be a number of seconds that Cloudflare would take.
pub(super) fn check_cache_ttl(text: &str) -> Result<(), RequestError> {
    match text.parse::<i64>() {
        Ok(CACHE_TTL_SECS_MIN..) => Ok(()),
        _ => Err(RequestError::CacheTtl(text.to_owned(), CACHE_TTL_SECS_MIN)),
    }
}

/// The length of a value of which `len` bytes were read, as far as it is worth counting.
async fn count_on(body: &mut RequestBody, mut len: u64) -> Result<u64, RequestError> {
    while len < COUNTED_LEN_MAX
        && let Some(chunk) = body.chunk().await?
    {
        len += chunk.len() as u64;
    }
    Ok(len)
}

/// JSON as a header, in raw UTF-8. Of all characters that JSON may hold only DEL may not stand in a header.
fn header_value(json: Bytes) -> Result<HeaderValue, RequestError> {
    let json = if json.contains(&0x7f) {
        Bytes::from(String::from_utf8_lossy(&json).replace('\u{7f}', "\\u007f"))
    } else {
        json
    };
    HeaderValue::from_maybe_shared(json).map_err(|_| RequestError::Internal("stored metadata does not fit a header"))
}

//! Values and their metadata: PUT, GET and DELETE of one key. The hot path of the API.

use bytes::{Bytes, BytesMut};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::Api;
use super::body::RequestBody;
use super::error::RequestError;
use super::query::Query;
use super::reply::{Reply, ReplyBody};
use super::{envelope, expiry, metadata, multipart};
use crate::kv::{Found, Kv, Put, Upload, Value};
use crate::replica::NamespaceId;
use crate::replica::limits::{INLINE_LEN_MAX, VALUE_LEN_MAX};

const EXPIRATION: HeaderName = HeaderName::from_static("expiration");
/// Room for the headers of an answer.
const HEADERS_USUAL: usize = 6;
/// Milliseconds since the entry was written, by this node's clock.
const AGE: HeaderName = HeaderName::from_static("starling-age");

pub(crate) async fn get(api: &Api, ns: NamespaceId, key: &[u8]) -> Result<Reply, RequestError> {
    let found = api.kv.get(ns, key).await.map_err(RequestError::kv("get"))?;
    found.map(reply).ok_or(RequestError::KeyNotFound("get"))
}

pub(crate) fn reply(found: Found) -> Reply {
    let mut response = Response::new(match found.value {
        Value::Inline(bytes) => ReplyBody::from(bytes),
        Value::Blob(reader) => ReplyBody::from(reader),
    });
    let headers = response.headers_mut();
    headers.reserve(HEADERS_USUAL);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(AGE, HeaderValue::from(found.age_ms));
    if let Some(expiration) = found.expiration {
        headers.insert(EXPIRATION, HeaderValue::from(expiration));
    }
    response
}

pub(crate) async fn get_metadata(api: &Api, ns: NamespaceId, key: &[u8]) -> Result<Reply, RequestError> {
    let found = api.kv.get(ns, key).await.map_err(RequestError::kv("get metadata"))?;
    let found = found.ok_or(RequestError::KeyNotFound("get metadata"))?;
    let mut reply = envelope::result(found.metadata.as_ref().and_then(metadata::as_json))?;
    reply.headers_mut().insert(AGE, HeaderValue::from(found.age_ms));
    Ok(reply)
}

pub(crate) async fn put(
    api: &Api,
    ns: NamespaceId,
    key: &[u8],
    query: Query<'_>,
    headers: &HeaderMap,
    body: &mut RequestBody,
) -> Result<Reply, RequestError> {
    let expiration = expiry::from_query(query, api.kv.now_ms() / 1000)?;
    if let Some(boundary) = multipart::boundary(headers)? {
        let mut sink = ValueSink::new(&api.kv, ns, key);
        let metadata = Box::pin(multipart::read(body, boundary, &mut sink)).await?;
        Box::pin(sink.finish(metadata, expiration)).await?;
        return Ok(envelope::empty());
    }
    match body.stated_len() {
        Some(len) if len <= INLINE_LEN_MAX as u64 => {
            let value = body.read(INLINE_LEN_MAX).await?;
            let put = Put { value, metadata: None, expiration };
            api.kv.put(ns, key, put).await.map_err(RequestError::kv("put"))?;
        }
        Some(len) if len > VALUE_LEN_MAX as u64 => return Err(RequestError::ValueTooLarge(len)),
        _ => {
            let mut sink = ValueSink::new(&api.kv, ns, key);
            while let Some(chunk) = body.chunk().await? {
                Box::pin(sink.write(chunk)).await?;
            }
            Box::pin(sink.finish(None, expiration)).await?;
        }
    }
    Ok(envelope::empty())
}

pub(crate) async fn delete(api: &Api, ns: NamespaceId, key: &[u8]) -> Result<Reply, RequestError> {
    api.kv.delete(ns, key).await.map_err(RequestError::kv("remove key"))?;
    Ok(envelope::empty())
}

/// Takes a value of unknown length: keeps up to [`INLINE_LEN_MAX`] bytes, hands on whatever is longer as it comes.
/// Dropped before `finish`, it leaves nothing behind.
pub(crate) struct ValueSink<'a> {
    kv: &'a Kv,
    ns: NamespaceId,
    key: &'a [u8],
    kept: BytesMut,
    upload: Option<Upload>,
    len: u64,
}

impl<'a> ValueSink<'a> {
    pub(crate) fn new(kv: &'a Kv, ns: NamespaceId, key: &'a [u8]) -> Self {
        Self { kv, ns, key, kept: BytesMut::new(), upload: None, len: 0 }
    }

    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<(), RequestError> {
        self.len += chunk.len() as u64;
        if self.len > VALUE_LEN_MAX as u64 {
            return Err(RequestError::ValueTooLarge(self.len));
        }
        if let Some(upload) = &mut self.upload {
            return upload.write(chunk).await.map_err(RequestError::kv("put"));
        }
        if self.len <= INLINE_LEN_MAX as u64 {
            self.kept.extend_from_slice(&chunk);
            return Ok(());
        }
        let mut upload = self.kv.upload(self.ns, self.key).await.map_err(RequestError::kv("put"))?;
        for part in [self.kept.split().freeze(), chunk] {
            if !part.is_empty() {
                upload.write(part).await.map_err(RequestError::kv("put"))?;
            }
        }
        self.upload = Some(upload);
        Ok(())
    }

    pub(crate) async fn finish(self, metadata: Option<Bytes>, expiration: Option<u64>) -> Result<(), RequestError> {
        let done = match self.upload {
            Some(upload) => upload.finish(metadata, expiration).await,
            None => {
                let put = Put { value: self.kept.freeze(), metadata, expiration };
                self.kv.put(self.ns, self.key, put).await
            }
        };
        done.map_err(RequestError::kv("put"))
    }
}

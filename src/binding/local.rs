//! The same bindings for Workers in this very process: no HTTP in between, and the same words where something fails.

use bytes::Bytes;

use super::values::check_cache_ttl;
use super::{bulk_get, list, reply};
use crate::api::error::{RequestError, reason_phrase};
use crate::api::key::check_key;
use crate::api::reply::ReplyBody;
use crate::api::{expiry, metadata};
use crate::kv::{Found, Kv, KvError, NamespaceId, Put, Value};
use crate::replica::limits::VALUE_LEN_MAX;

/// One namespace, for one Worker.
#[derive(Clone)]
pub(crate) struct Local {
    kv: Kv,
    ns: NamespaceId,
}

/// Why not: `400 Invalid cache_ttl of 5. …`, as a Worker reads it after what it wanted.
pub(crate) struct Refusal(pub(crate) String);

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        let (status, message) = reply::told(&error);
        let reason = reason_phrase(&message).map(|reason| String::from_utf8_lossy(reason.as_ref()).into_owned());
        Self(format!("{} {}", status.as_u16(), reason.unwrap_or_default()))
    }
}

/// When a value is to expire, and what goes with it: as a Worker wrote it.
#[derive(Default)]
pub(crate) struct PutOptions {
    pub(crate) expiration: Option<String>,
    pub(crate) expiration_ttl: Option<String>,
    /// JSON text.
    pub(crate) metadata: Option<String>,
}

impl Local {
    /// Fails unless the namespace exists. What is read and written is noted in the session of `kv`.
    pub(crate) fn new(kv: &Kv, ns: NamespaceId) -> Result<Self, Refusal> {
        kv.check_namespace(ns).map_err(|error| match error {
            KvError::NamespaceNotFound => {
                RequestError::BindingNamespace("There is no namespace with the id of this binding")
            }
            other => RequestError::Kv(other),
        })?;
        Ok(Self { kv: kv.clone(), ns })
    }

    /// That a Worker has asked too often.
    pub(crate) fn too_often() -> Refusal {
        RequestError::BindingNamespace("Too many API requests by single worker invocation").into()
    }

    pub(crate) async fn get(&self, key: &str, cache_ttl: Option<&str>) -> Result<Option<Found>, Refusal> {
        check_key(key)?;
        cache_ttl.map_or(Ok(()), check_cache_ttl)?;
        Ok(self.kv.get(self.ns, key.as_bytes()).await.map_err(RequestError::kv("get"))?)
    }

    /// The same where nothing has to be waited for: small values, nearly always.
    pub(crate) fn get_at_once(&self, key: &str, cache_ttl: Option<&str>) -> Option<Result<Option<Found>, Refusal>> {
        if let Err(error) = check_key(key).and_then(|()| cache_ttl.map_or(Ok(()), check_cache_ttl)) {
            return Some(Err(error.into()));
        }
        let found = self.kv.get_at_once(self.ns, key.as_bytes())?;
        Some(found.map_err(|error| RequestError::kv("get")(error).into()))
    }

    /// The same without options; `None` also if there is something wrong with the question.
    pub(crate) fn at_hand(kv: &Kv, ns: NamespaceId, key: &str) -> Option<Option<Found>> {
        kv.check_namespace(ns).ok()?;
        check_key(key).ok()?;
        kv.get_at_once(ns, key.as_bytes())?.ok()
    }

    /// Several at once, as JSON text: an object of values, or of values with metadata.
    pub(crate) async fn get_many(
        &self,
        keys: Vec<String>,
        kind: Option<&str>,
        with_metadata: bool,
        cache_ttl: Option<&str>,
    ) -> Result<Vec<u8>, Refusal> {
        Ok(bulk_get::gather(&self.kv, self.ns, keys, kind, with_metadata, cache_ttl).await?)
    }

    /// Returns when the value is as durable here as the node is told to make it.
    pub(crate) async fn put(&self, key: &str, value: Bytes, options: PutOptions) -> Result<(), Refusal> {
        check_key(key)?;
        let now = self.kv.now_ms() / 1000;
        let expiration = expiry::from_text(options.expiration, options.expiration_ttl, now)?;
        let metadata = options.metadata.map(|text| metadata::from_header(text.as_bytes())).transpose()?;
        if value.len() > VALUE_LEN_MAX {
            return Err(RequestError::ValueTooLarge(value.len() as u64).into());
        }
        let put = Put { value, metadata, expiration };
        Ok(self.kv.put(self.ns, key.as_bytes(), put).await.map_err(RequestError::kv("put"))?)
    }

    pub(crate) async fn delete(&self, key: &str) -> Result<(), Refusal> {
        check_key(key)?;
        Ok(self.kv.delete(self.ns, key.as_bytes()).await.map_err(RequestError::kv("remove key"))?)
    }

    /// A page, as JSON text.
    pub(crate) async fn list(
        &self,
        limit: Option<&str>,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<Vec<u8>, Refusal> {
        Ok(list::page(&self.kv, self.ns, limit, prefix, cursor).await?)
    }
}

/// A value as a body that streams.
pub(crate) fn body(value: Value) -> ReplyBody {
    match value {
        Value::Inline(bytes) => bytes.into(),
        Value::Blob(reader) => reader.into(),
    }
}

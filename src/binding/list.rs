//! `list`: keys by prefix, page by page, with the cursors of the API.

use std::borrow::Cow;

use serde::Serialize;

use super::{Binding, reply};
use crate::api::error::RequestError;
use crate::api::keys::{LIMIT_MAX, read_cursor, write_cursor};
use crate::api::query::Query;
use crate::api::reply::Reply;
use crate::kv::{Kv, NamespaceId};
use crate::replica::limits::KEY_LEN_MAX;

#[derive(Serialize)]
struct Listing<'a> {
    keys: Vec<Shown<'a>>,
    list_complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Shown<'a> {
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
    /// JSON as text: the runtime parses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Cow<'a, str>>,
}

pub(super) async fn list(binding: &Binding, ns: NamespaceId, query: Query<'_>) -> Result<Reply, RequestError> {
    let (limit, cursor) = (query.value("key_count_limit")?, query.value("cursor")?);
    let prefix = query.value("prefix")?.unwrap_or_default();
    page(&binding.kv, ns, limit.as_deref(), &prefix, cursor.as_deref()).await.map(reply::json_text)
}

/// A page as JSON text.
pub(super) async fn page(
    kv: &Kv,
    ns: NamespaceId,
    wanted: Option<&str>,
    prefix: &str,
    cursor: Option<&str>,
) -> Result<Vec<u8>, RequestError> {
    let wanted = wanted.map_or(Ok(LIMIT_MAX), limit)?;
    if prefix.len() > KEY_LEN_MAX {
        return Err(RequestError::KeyTooLong(prefix.len()));
    }
    let after = cursor.map(read_cursor).transpose()?;
    let page = kv.list(ns, prefix.as_bytes(), after.as_deref(), wanted).await;
    let page = page.map_err(RequestError::kv("list keys"))?;
    let shown = page.keys.iter().map(|key| Shown {
        name: String::from_utf8_lossy(&key.name),
        expiration: key.expiration,
        metadata: key.metadata.as_deref().map(String::from_utf8_lossy),
    });
    reply::write_json(&Listing {
        keys: shown.collect(),
        list_complete: page.next.is_none(),
        cursor: page.next.as_ref().map(|last| write_cursor(last)),
    })
}

fn limit(text: &str) -> Result<usize, RequestError> {
    let refuse = |why| Err(RequestError::KeyCountLimit(text.to_owned(), why));
    match text.parse::<usize>() {
        Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
        // Cloudflare's words; 1000 itself is fine.
        Ok(limit) if limit > LIMIT_MAX => refuse("Please specify an integer less than 1000."),
        _ => refuse("Please specify an integer greater than 0."),
    }
}

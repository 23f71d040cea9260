//! `list`: keys by prefix, page by page, with the cursors of the API.

use std::borrow::Cow;

use serde::Serialize;

use super::{Binding, reply};
use crate::api::error::RequestError;
use crate::api::keys::{LIMIT_MAX, read_cursor, write_cursor};
use crate::api::query::Query;
use crate::api::reply::Reply;
use crate::kv::NamespaceId;
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
    let limit = match query.value("key_count_limit")? {
        None => LIMIT_MAX,
        Some(text) => limit(&text)?,
    };
    let prefix = query.value("prefix")?.unwrap_or_default();
    if prefix.len() > KEY_LEN_MAX {
        return Err(RequestError::KeyTooLong(prefix.len()));
    }
    let after = match query.value("cursor")? {
        None => None,
        Some(cursor) => Some(read_cursor(&cursor)?),
    };
    let page = binding.kv.list(ns, prefix.as_bytes(), after.as_deref(), limit).await;
    let page = page.map_err(RequestError::kv("list keys"))?;
    let shown = page.keys.iter().map(|key| Shown {
        name: String::from_utf8_lossy(&key.name),
        expiration: key.expiration,
        metadata: key.metadata.as_deref().map(String::from_utf8_lossy),
    });
    reply::json(&Listing {
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

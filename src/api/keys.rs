//! Listing keys by prefix, in byte order, page by page.
//!
//! Owns the cursor: the key to go on after, tied to its namespace and prefix, so that it means the same at every PoP.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Api;
use super::error::RequestError;
use super::query::Query;
use super::reply::Reply;
use super::{envelope, metadata};
use crate::replica::NamespaceId;
use crate::replica::limits::KEY_LEN_MAX;

/// Most keys in an answer, and the default.
pub(crate) const LIMIT_MAX: usize = 1000;
/// Bytes of a cursor before the key: a checksum.
const CHECK_LEN: usize = 8;
/// Longest cursor, in characters of base64.
const CURSOR_LEN_MAX: usize = (CHECK_LEN + KEY_LEN_MAX).div_ceil(3) * 4;

#[derive(Serialize)]
struct Shown<'a> {
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct ListInfo {
    count: usize,
    /// Empty at the end.
    cursor: String,
}

pub(crate) async fn list(api: &Api, ns: NamespaceId, query: Query<'_>) -> Result<Reply, RequestError> {
    let limit = match query.value("limit")? {
        None => LIMIT_MAX,
        Some(text) => match text.parse() {
            Ok(limit @ 1..=LIMIT_MAX) => limit,
            _ => return Err(RequestError::Limit(text.into_owned())),
        },
    };
    let prefix = query.value("prefix")?.unwrap_or_default();
    let after = match query.value("cursor")? {
        None => None,
        Some(cursor) => Some(read_cursor(&cursor, ns, &prefix).ok_or(RequestError::Cursor)?),
    };
    if prefix.len() > KEY_LEN_MAX {
        return envelope::page([(); 0], ListInfo { count: 0, cursor: String::new() });
    }
    let page = api.kv.list(ns, prefix.as_bytes(), after.as_deref(), limit).await;
    let page = page.map_err(RequestError::kv("list keys"))?;
    let keys: Vec<Shown<'_>> = page
        .keys
        .iter()
        .map(|key| Shown {
            name: String::from_utf8_lossy(&key.name),
            expiration: key.expiration,
            metadata: key.metadata.as_ref().and_then(metadata::as_json),
        })
        .collect();
    let cursor = page.next.map_or_else(String::new, |last| write_cursor(&last, ns, &prefix));
    let info = ListInfo { count: keys.len(), cursor };
    envelope::page(keys, info)
}

/// Not a secret and not proof against forgery: it finds cursors that were cut, mixed up or made up by mistake. A
/// forged one lists nothing that its sender may not list anyway.
fn check(key: &[u8], ns: NamespaceId, prefix: &str) -> [u8; CHECK_LEN] {
    let mut hasher = blake3::Hasher::new_derive_key("starling 2026 key list cursor v1");
    hasher.update(&ns.0);
    hasher.update(&(prefix.len() as u64).to_be_bytes());
    hasher.update(prefix.as_bytes());
    hasher.update(key);
    let mut check = [0; CHECK_LEN];
    hasher.finalize_xof().fill(&mut check);
    check
}

pub(crate) fn write_cursor(key: &[u8], ns: NamespaceId, prefix: &str) -> String {
    let mut bytes = check(key, ns, prefix).to_vec();
    bytes.extend_from_slice(key);
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn read_cursor(cursor: &str, ns: NamespaceId, prefix: &str) -> Option<Vec<u8>> {
    if cursor.len() > CURSOR_LEN_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (stated, key) = bytes.split_first_chunk::<CHECK_LEN>()?;
    (*stated == check(key, ns, prefix)).then(|| key.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_own_list_only() {
        let ns = NamespaceId([1; 16]);
        for key in [&b"a"[..], "ü/?".as_bytes(), &[b'k'; KEY_LEN_MAX]] {
            let cursor = write_cursor(key, ns, "p");
            assert!(cursor.len() <= CURSOR_LEN_MAX);
            assert_eq!(read_cursor(&cursor, ns, "p").as_deref(), Some(key));
            assert_eq!(read_cursor(&cursor, ns, "q"), None);
            assert_eq!(read_cursor(&cursor, NamespaceId([2; 16]), "p"), None);
            assert_eq!(read_cursor(&cursor[1..], ns, "p"), None);
        }
        for bad in ["x", "!!!!", "AAAAAAAAAAAAAAAA", &"A".repeat(CURSOR_LEN_MAX + 1)] {
            assert_eq!(read_cursor(bad, ns, "p"), None, "{bad}");
        }
    }
}

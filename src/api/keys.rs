//! Listing keys by prefix, in byte order, page by page.
//!
//! Owns the cursor: the key to go on after, so that it means the same at every PoP, and with any prefix.

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
/// Longest cursor, in characters of base64.
const CURSOR_LEN_MAX: usize = KEY_LEN_MAX.div_ceil(3) * 4;

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
        Some(cursor) => Some(read_cursor(&cursor)?),
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
    let cursor = page.next.map_or_else(String::new, |last| write_cursor(&last));
    let info = ListInfo { count: keys.len(), cursor };
    envelope::page(keys, info)
}

/// Nothing secret and nothing trusted: a cursor that was made up lists nothing that its sender may not list anyway.
pub(crate) fn write_cursor(key: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

pub(crate) fn read_cursor(cursor: &str) -> Result<Vec<u8>, RequestError> {
    let key = (cursor.len() <= CURSOR_LEN_MAX).then(|| URL_SAFE_NO_PAD.decode(cursor).ok()).flatten();
    key.filter(|key| key.len() <= KEY_LEN_MAX).ok_or(RequestError::Cursor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_is_a_key() {
        for key in [&b"a"[..], "ü/?".as_bytes(), &[b'k'; KEY_LEN_MAX]] {
            let cursor = write_cursor(key);
            assert!(cursor.len() <= CURSOR_LEN_MAX);
            assert_eq!(read_cursor(&cursor).expect("its own"), key);
        }
        for bad in ["x", "!!!!", "AA==", &"A".repeat(CURSOR_LEN_MAX + 1)] {
            assert!(read_cursor(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_cursor_or_refused(text in "\\PC{0,40}", key in prop::collection::vec(any::<u8>(), 0..=KEY_LEN_MAX)) {
            if let Ok(key) = read_cursor(&text) {
                prop_assert!(key.len() <= KEY_LEN_MAX && write_cursor(&key) == text);
            }
            prop_assert_eq!(read_cursor(&write_cursor(&key)).expect("its own"), key);
        }
    }
}

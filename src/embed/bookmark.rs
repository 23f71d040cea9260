//! Bookmarks as texts that can be kept and sent on.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::kv;

/// Longest text, in characters.
const LEN_MAX: usize = 64;

/// What was read and written through a [`Namespace`](super::Namespace): at most 64 characters, the same as the header
/// `starling-bookmark` of the HTTP API. Anyone may know it; it says nothing of keys or values.
#[derive(Clone, Debug)]
pub struct Bookmark(Vec<u8>);

/// The text is no bookmark.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a bookmark; pass it on as it came")]
pub struct InvalidBookmark;

impl Bookmark {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn inner(&self) -> kv::Bookmark {
        // It was decoded before, when it was made.
        kv::Bookmark::decode(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl FromStr for Bookmark {
    type Err = InvalidBookmark;

    fn from_str(text: &str) -> Result<Self, InvalidBookmark> {
        if text.len() > LEN_MAX {
            return Err(InvalidBookmark);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidBookmark)?;
        kv::Bookmark::decode(&bytes).map_err(|_| InvalidBookmark)?;
        Ok(Self(bytes))
    }
}

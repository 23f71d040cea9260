//! Sessions over HTTP: the headers in which a client says what it has seen, how long it will wait, and how many nodes
//! shall have its write on disk; and those in which it is answered.
//!
//! What a bookmark means, and when it is covered, is the replica's to know.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::Api;
use super::error::RequestError;
use super::reply::Reply;
use crate::kv::{AckLevel, Bookmark, Kv, KvError, NodeId};

/// What the client has seen; what it has seen by now.
pub(crate) const BOOKMARK: HeaderName = HeaderName::from_static("starling-bookmark");
/// How long it will wait.
const WAIT: HeaderName = HeaderName::from_static("starling-wait");
/// How many nodes shall have what it writes on disk before it is answered.
const ACKS: HeaderName = HeaderName::from_static("starling-acks");
/// Who has it.
const ACKED_BY: HeaderName = HeaderName::from_static("starling-acked-by");

/// Longest bookmark, in characters.
const BOOKMARK_LEN_MAX: usize = 64;
/// How long a client waits if it does not say.
const WAIT_DEFAULT: Duration = Duration::from_secs(5);
/// How long it may wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What a request asks for beside what it is about.
pub(crate) struct Demands {
    bookmark: Option<Bookmark>,
    wait: Duration,
    acks: Option<AckLevel>,
}

impl Demands {
    /// Whether a request may ask for anything of the kind.
    pub(crate) fn are_made(headers: &HeaderMap) -> bool {
        headers.keys().any(|name| name.as_str().starts_with("starling-"))
    }

    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, RequestError> {
        let bookmark = text(headers, &BOOKMARK)?.map(|text| read_bookmark(text).ok_or(RequestError::Bookmark));
        let wait = text(headers, &WAIT)?.map_or(Ok(WAIT_DEFAULT), read_wait)?;
        let acks = text(headers, &ACKS)?.map_or(Ok(None), read_acks)?;
        Ok(Self { bookmark: bookmark.transpose()?, wait, acks })
    }

    /// Checks what can be checked, and waits for the bookmark: before anything of the request is looked at.
    pub(crate) async fn meet(&mut self, api: &Api) -> Result<(), RequestError> {
        if let Some(AckLevel::Nodes(nodes)) = self.acks {
            let members = api.shared.operator.members_count();
            if nodes > members {
                return Err(RequestError::Kv(KvError::FewerNodes { members }));
            }
        }
        match self.bookmark.take() {
            Some(bookmark) => api.kv.wait_for(bookmark, self.wait).await.map_err(RequestError::Kv),
            None => Ok(()),
        }
    }

    /// Waits for acknowledgements of what was written.
    pub(crate) async fn acknowledge(&self, api: &Api, reply: &mut Reply) -> Result<(), RequestError> {
        let Some(level) = self.acks else { return Ok(()) };
        let nodes = api.kv.acknowledged(level, self.wait).await.map_err(|error| match error {
            KvError::NotAcknowledged(nodes) => {
                RequestError::NotAcknowledged { wait: self.wait, by: names(api, &nodes) }
            }
            other => RequestError::Kv(other),
        })?;
        if !nodes.is_empty() {
            insert(reply.headers_mut(), ACKED_BY, &names(api, &nodes));
        }
        Ok(())
    }
}

/// Says on an answer, good or bad, what its reader has seen by now.
pub(crate) async fn mark(api: &Api, reply: &mut Reply, error: Option<&RequestError>) {
    if let Some(RequestError::NotAcknowledged { by, .. }) = error {
        insert(reply.headers_mut(), ACKED_BY, by);
    }
    match api.kv.bookmark().await {
        Ok(bookmark) => write_bookmark(&bookmark, reply),
        // Its storage has failed, and it can only read: an answer without a bookmark is still an answer.
        Err(error) => tracing::debug!(%error, "an answer goes without a bookmark"),
    }
}

/// The same for what was read, if that fits into a bookmark as it is; `None` if not.
pub(crate) fn mark_at_once(kv: &Kv, reply: &mut Reply) -> Option<()> {
    write_bookmark(&kv.bookmark_at_once()?, reply);
    Some(())
}

fn write_bookmark(bookmark: &[u8], reply: &mut Reply) {
    let mut text = [0; BOOKMARK_LEN_MAX];
    if let Ok(len) = URL_SAFE_NO_PAD.encode_slice(bookmark, &mut text)
        && let Ok(value) = HeaderValue::from_bytes(text.get(..len).unwrap_or_default())
    {
        reply.headers_mut().insert(BOOKMARK, value);
    }
}

pub(crate) fn read_bookmark(text: &str) -> Option<Bookmark> {
    if text.len() > BOOKMARK_LEN_MAX {
        return None;
    }
    Bookmark::decode(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, RequestError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str() {
        Ok(text) if !text.trim().is_empty() => Ok(Some(text.trim())),
        _ => Err(RequestError::Invalid(format!("The header {name} is empty or not plain text."))),
    }
}

/// Seconds, or a number with `s` or `ms`.
fn read_wait(text: &str) -> Result<Duration, RequestError> {
    let wait = match text.strip_suffix("ms") {
        Some(ms) => ms.trim_end().parse().ok().map(Duration::from_millis),
        None => {
            let seconds: Option<f64> = text.strip_suffix('s').unwrap_or(text).trim_end().parse().ok();
            seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        }
    };
    wait.filter(|wait| *wait <= WAIT_MAX).ok_or_else(|| {
        let max = WAIT_MAX.as_secs();
        RequestError::Invalid(format!(
            "Invalid starling-wait of {text}. Give seconds or, with \"ms\", milliseconds, up to {max} s: 5, 0.5, 250ms."
        ))
    })
}

fn read_acks(text: &str) -> Result<Option<AckLevel>, RequestError> {
    match text {
        "local" => Ok(None),
        "all" => Ok(Some(AckLevel::All)),
        _ => match text.parse() {
            Ok(nodes) if nodes >= 1 => Ok(Some(AckLevel::Nodes(nodes))),
            _ => Err(RequestError::Invalid(format!(
                "Invalid starling-acks of {text}. Give local, all, or a number of nodes from 1 on."
            ))),
        },
    }
}

/// Names are plain where nodes were given such names; ids always are.
fn names(api: &Api, nodes: &[NodeId]) -> String {
    let name = |node: &NodeId| api.shared.operator.name_of(*node);
    nodes.iter().map(name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_and_bounded() {
        let wait = |text| read_wait(text).ok();
        assert_eq!(wait("5"), Some(Duration::from_secs(5)));
        assert_eq!(wait("0.25"), Some(Duration::from_millis(250)));
        assert_eq!(wait("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(wait("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(wait("0"), Some(Duration::ZERO));
        for bad in ["61", "60001ms", "-1", "NaN", "inf", "x", "5m", "1e300"] {
            assert_eq!(wait(bad), None, "{bad}");
        }
    }

    #[test]
    fn acknowledgements_are_counted_from_one() {
        assert!(matches!(read_acks("local"), Ok(None)));
        assert!(matches!(read_acks("all"), Ok(Some(AckLevel::All))));
        assert!(matches!(read_acks("3"), Ok(Some(AckLevel::Nodes(3)))));
        assert!(["0", "-1", "some", "1.5"].into_iter().all(|bad| read_acks(bad).is_err()));
    }
}

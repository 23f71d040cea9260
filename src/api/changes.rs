//! The change feed of a namespace as server-sent events.
//!
//! Owns how an event looks; what is given out, and in which order, is `kv`'s.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::Api;
use super::error::RequestError;
use super::metadata;
use super::query::Query;
use super::reply::{Reply, ReplyBody};
use crate::kv::{Event, EventKind, Feed, FeedEnd, Position, Value};
use crate::replica::NamespaceId;
use crate::replica::limits::KEY_LEN_MAX;

/// Where a client of the Web's `EventSource` goes on by itself.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Without events, this often something is sent, so that neither side takes the other for dead.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Longest position, in characters.
const POSITION_LEN_MAX: usize = 64;
/// Longest value in an event, in bytes. Longer ones are to be fetched.
const VALUE_LEN_MAX: u64 = 1024 * 1024;

#[derive(Serialize)]
struct Shown<'a> {
    key: &'a str,
    kind: &'static str,
    marker: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// The value is not text.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    base64: bool,
    /// The value is too long for an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_len: Option<u64>,
}

pub(crate) async fn follow(
    api: &Api,
    ns: NamespaceId,
    query: Query<'_>,
    headers: &HeaderMap,
) -> Result<Reply, RequestError> {
    let prefix = query.value("prefix")?.unwrap_or_default();
    if prefix.len() > KEY_LEN_MAX {
        return Err(RequestError::KeyTooLong(prefix.len()));
    }
    let values = match query.value("values")?.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err(RequestError::Invalid(format!("Invalid values of {other}. Use true or false."))),
    };
    // A client that reconnects sends its last id beside the address that it was given at first.
    let since = match headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
        Some(id) => Some(id.to_str().ok().and_then(read_position).ok_or(RequestError::Position)?),
        None => match query.value("since")? {
            Some(text) => Some(read_position(&text).ok_or(RequestError::Position)?),
            None => None,
        },
    };
    let feed = api.kv.feed(ns, prefix.as_bytes(), since, values).await.map_err(RequestError::kv("changes"))?;
    let mut response = Response::new(ReplyBody::from(Events::new(feed, api.shared.closing.subscribe())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn read_position(text: &str) -> Option<Position> {
    if text.len() > POSITION_LEN_MAX {
        return None;
    }
    Position::decode(&URL_SAFE_NO_PAD.decode(text).ok()?)
}

/// The body of a feed: each piece is one event, written only when the client has room for it.
pub(crate) struct Events {
    feed: Feed,
    closing: watch::Receiver<bool>,
    has_begun: bool,
    has_ended: bool,
}

impl Events {
    fn new(feed: Feed, closing: watch::Receiver<bool>) -> Self {
        Self { feed, closing, has_begun: false, has_ended: false }
    }

    /// The next piece; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            return Some(self.heartbeat());
        }
        let event = tokio::select! {
            biased;
            _ = self.closing.wait_for(|closing| *closing) => Some(Err(FeedEnd::Stopped)),
            event = self.feed.next() => Some(event),
            () = tokio::time::sleep(HEARTBEAT) => None,
        };
        match event {
            None => Some(self.heartbeat()),
            Some(Ok(event)) => Some(piece(event).await),
            Some(Err(end)) => {
                self.has_ended = true;
                Some(farewell(&end))
            }
        }
    }

    /// A comment; its id moves the client on although nothing has changed that it follows.
    fn heartbeat(&self) -> Bytes {
        format!("id: {}\n: waiting for changes\n\n", id(self.feed.position())).into()
    }
}

fn id(position: &Position) -> String {
    URL_SAFE_NO_PAD.encode(position.encode())
}

async fn piece(event: Event) -> Bytes {
    let marker = format!("{:016x}-{}", event.marker.time.0, event.marker.origin);
    let id = id(&event.position);
    let Ok(key) = std::str::from_utf8(&event.key) else { return Bytes::new() };
    let nothing = |kind| Shown {
        key,
        kind,
        marker: marker.clone(),
        metadata: None,
        expiration: None,
        value: None,
        base64: false,
        value_len: None,
    };
    let (kind, data) = match event.kind {
        EventKind::Delete => ("delete", serde_json::to_string(&nothing("delete"))),
        EventKind::Expire => ("expire", serde_json::to_string(&nothing("expire"))),
        EventKind::Put { metadata, expiration, value } => {
            let mut shown = Shown { expiration, ..nothing("put") };
            shown.metadata = metadata.as_ref().and_then(metadata::as_json);
            match value {
                Some(Value::Blob(blob)) if blob.len() > VALUE_LEN_MAX => shown.value_len = Some(blob.len()),
                Some(value) => (shown.value, shown.base64) = text_of(value).await,
                None => {}
            }
            ("put", serde_json::to_string(&shown))
        }
    };
    match data {
        // In JSON, line breaks are nothing but white space.
        Ok(data) => format!("id: {id}\nevent: {kind}\ndata: {}\n\n", data.replace(['\n', '\r'], " ")).into(),
        Err(_) => Bytes::new(),
    }
}

/// A value, and whether it is written in base64. `None` if it went away while it was read: what came in its place is
/// an event of its own.
async fn text_of(value: Value) -> (Option<String>, bool) {
    let bytes = match value {
        Value::Inline(bytes) => bytes.into(),
        Value::Blob(mut blob) => {
            let mut bytes = Vec::new();
            while let Some(chunk) = blob.next().await {
                match chunk {
                    Ok(chunk) => bytes.extend_from_slice(&chunk),
                    Err(_) => return (None, false),
                }
            }
            bytes
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => (Some(text), false),
        Err(not_text) => (Some(STANDARD.encode(not_text.as_bytes())), true),
    }
}

/// Why nothing more comes. Without an id, so that a client goes on from the last event.
fn farewell(end: &FeedEnd) -> Bytes {
    let (event, message) = match end {
        FeedEnd::Lagged => (
            "lagged",
            "You read too slowly, and changes were dropped. Connect again with the last id to get them.".into(),
        ),
        FeedEnd::NamespaceDeleted => ("deleted", "The namespace was deleted.".into()),
        FeedEnd::Stopped => {
            ("closed", "This node is going away. Connect again, here or elsewhere, with the last id.".into())
        }
        FeedEnd::Failed(error) => ("closed", format!("{error} Connect again with the last id.")),
    };
    let data = serde_json::json!({ "message": message });
    format!("event: {event}\ndata: {data}\n\n").into()
}

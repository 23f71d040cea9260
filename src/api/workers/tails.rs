//! Tails: a client asks for one, connects to the address it is given with a WebSocket (`trace-v1`), and is told what
//! the script does at this node until it has enough.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::super::body::RequestBody;
use super::super::envelope;
use super::super::error::RequestError;
use super::super::reply::{Reply, ReplyBody};
use super::super::timestamp::rfc3339;
use super::super::{Api, Shared};
use super::Call;
use crate::kv::NamespaceId;
use crate::worker::{ScriptId, TAILS_MAX, Tail, Told};

/// How long a tail may be, in milliseconds: 6 hours.
const LIFE_MS: u64 = 6 * 3600 * 1000;
/// Largest body that asks for a tail, in bytes.
const BODY_LEN_MAX: usize = 64 * 1024;
/// Longest message that a client may send, in bytes: it has little to say.
const MESSAGE_LEN_MAX: usize = 64 * 1024;
/// How often a client is asked whether it is there; without an answer until the next time, it is not.
const PING_PERIOD: Duration = Duration::from_secs(15);
/// The only protocol there is.
const PROTOCOL: &str = "trace-v1";
/// RFC 6455.
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const PROTOCOLS: HeaderName = HeaderName::from_static("sec-websocket-protocol");

/// The tails that clients have asked this node for, by id.
#[derive(Default)]
pub(crate) struct Grants(Mutex<BTreeMap<String, Grant>>);

struct Grant {
    script: ScriptId,
    /// BLAKE3 of the secret in the address.
    secret: [u8; 32],
    ends_ms: u64,
    filters: Arc<[Filter]>,
    /// Closes when the tail is given up.
    over: watch::Sender<()>,
}

/// Which events a client wants to hear of.
#[derive(Debug, PartialEq)]
enum Filter {
    SamplingRate(f64),
    Outcome(Vec<String>),
    Method(Vec<String>),
    ClientIp(Vec<String>),
    Header { key: String, query: Option<String> },
    Query(String),
}

impl Grants {
    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Grant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn list(call: &Call<'_>, name: &str) -> Result<Reply, RequestError> {
    let (script, now) = (call.script(name).await?, call.api.kv.now_ms());
    let held = call.api.shared.tails.held();
    let own = held.iter().filter(|(_, grant)| grant.script == script.id && now < grant.ends_ms);
    let shown: Vec<Json> = own.map(|(id, grant)| json!({ "id": id, "expires_at": rfc3339(grant.ends_ms) })).collect();
    envelope::result(shown)
}

pub(super) async fn create(call: &Call<'_>, name: &str, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let script = call.script(name).await?;
    let asked = body.read(BODY_LEN_MAX).await?;
    let asked: Json = match asked.is_empty() {
        true => Json::Null,
        false => serde_json::from_slice(&asked)
            .map_err(|error| RequestError::invalid(format!("The body is not JSON: {error}.")))?,
    };
    let filters: Arc<[Filter]> = asked["filters"].as_array().into_iter().flatten().filter_map(filter).collect();
    let kv = &call.api.kv;
    let (id, secret) = (NamespaceId(kv.random_id()).to_string(), [kv.random_id(), kv.random_id()].concat());
    let now = kv.now_ms();
    let grant = Grant {
        script: script.id.clone(),
        secret: *blake3::hash(&secret).as_bytes(),
        ends_ms: now + LIFE_MS,
        filters,
        over: watch::Sender::new(()),
    };
    let ends_ms = grant.ends_ms;
    {
        let mut held = call.api.shared.tails.held();
        held.retain(|_, grant| now < grant.ends_ms);
        if held.len() >= TAILS_MAX {
            return Err(RequestError::TooManyTails);
        }
        held.insert(id.clone(), grant);
    }
    let host = call.headers.get(HOST).and_then(|host| host.to_str().ok()).or(call.authority);
    let host = host.ok_or_else(|| RequestError::invalid("The request says no Host, which the tail is to be at."))?;
    let scheme = if call.api.shared.config.tls.is_some() { "wss" } else { "ws" };
    let secret = URL_SAFE_NO_PAD.encode(&secret);
    let url = format!("{scheme}://{host}/starling/v1/tails/{id}/{secret}");
    call.audit("worker.tail", script.id.to_string()).await;
    envelope::result(json!({ "id": id, "url": url, "expires_at": rfc3339(ends_ms) }))
}

pub(super) async fn delete(call: &Call<'_>, name: &str, tail: &str) -> Result<Reply, RequestError> {
    let id = call.id(name);
    let mut held = call.api.shared.tails.held();
    match held.get(tail).is_some_and(|grant| grant.script == id) {
        true => held.remove(tail),
        false => return Err(RequestError::TailNotFound),
    };
    Ok(envelope::empty())
}

/// Begins a tail at the address that was given out. The secret in it is all that is asked for.
pub(crate) fn connect(api: &Api, id: &str, secret: &str, parts: &Parts) -> Result<Reply, RequestError> {
    let refused = RequestError::Unauthenticated;
    let Ok(secret) = URL_SAFE_NO_PAD.decode(secret) else { return Err(refused) };
    let hash = *blake3::hash(&secret).as_bytes();
    let (script, filters, over, ends_ms) = {
        let held = api.shared.tails.held();
        match held.get(id).filter(|grant| bool::from(grant.secret.ct_eq(&hash))) {
            Some(grant) if api.kv.now_ms() < grant.ends_ms => {
                (grant.script.clone(), Arc::clone(&grant.filters), grant.over.subscribe(), grant.ends_ms)
            }
            _ => return Err(refused),
        }
    };
    let upgrade = parts.extensions.get::<OnUpgrade>().cloned();
    let key = parts.headers.get(KEY).map(HeaderValue::as_bytes);
    let is_upgrade = parts.headers.get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let (Some(upgrade), Some(key), true) = (upgrade, key, is_upgrade) else {
        return Err(RequestError::invalid("This address takes a WebSocket over HTTP/1.1."));
    };
    let tail = api.shared.workers.tails().watch(script).map_err(|_| RequestError::TooManyTails)?;
    let mut digest = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(MAGIC);
    let accept = HeaderValue::from_str(&STANDARD.encode(digest.finish()))
        .map_err(|_| RequestError::Internal("base64 is no header value"))?;
    let mut reply = Response::new(ReplyBody::from(Bytes::new()));
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    reply.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    reply.headers_mut().insert(ACCEPT, accept);
    let offered = parts.headers.get_all(PROTOCOLS).iter().filter_map(|offered| offered.to_str().ok());
    if offered.flat_map(|offered| offered.split(',')).any(|offered| offered.trim() == PROTOCOL) {
        reply.headers_mut().insert(PROTOCOLS, HeaderValue::from_static(PROTOCOL));
    }
    let life = Duration::from_millis(ends_ms.saturating_sub(api.kv.now_ms()));
    let shared = Arc::clone(&api.shared);
    let sampler = api.kv.clone();
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_LEN_MAX))
            .max_frame_size(Some(MESSAGE_LEN_MAX))
            // wrangler masks nothing.
            .accept_unmasked_frames(true);
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        let random = move || u128::from_be_bytes(sampler.random_id()) as f64 / u128::MAX as f64;
        follow(socket, tail, &filters, over, life, &shared, random).await;
    });
    Ok(reply)
}

/// Tells a client what happens until it leaves, its time is over or the node ends.
async fn follow(
    mut socket: WebSocketStream<TokioIo<Upgraded>>,
    mut tail: Tail,
    filters: &[Filter],
    mut over: watch::Receiver<()>,
    life: Duration,
    shared: &Shared,
    random: impl Fn() -> f64,
) {
    let mut closing = shared.closing.subscribe();
    let mut end = std::pin::pin!(tokio::time::sleep(life));
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING_PERIOD, PING_PERIOD);
    let mut is_there = true;
    let (code, reason) = loop {
        let message = tokio::select! {
            told = tail.next() => match told {
                Some(Told::Event(event)) if wants(filters, &event, &random) => match String::from_utf8(event.into()) {
                    Ok(text) => Message::text(text),
                    Err(_) => continue,
                },
                Some(Told::Event(_)) => continue,
                Some(Told::Missed(missed)) => Message::text(overload(missed)),
                None => break (CloseCode::Away, "This node is going away."),
            },
            heard = socket.next() => match heard {
                // What clients say is how they want to be told; there is one way.
                Some(Ok(Message::Close(_))) | Some(Err(_)) | None => return,
                Some(Ok(_)) => {
                    is_there = true;
                    continue;
                }
            },
            _ = pings.tick() => {
                if !std::mem::take(&mut is_there) {
                    return;
                }
                Message::Ping(Bytes::new())
            }
            _ = closing.wait_for(|closing| *closing) => break (CloseCode::Away, "This node is going away."),
            () = &mut end => break (CloseCode::Normal, "The tail has expired."),
            _ = over.changed() => break (CloseCode::Normal, "The tail was deleted."),
        };
        match tokio::time::timeout(PING_PERIOD, socket.send(message)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    };
    let frame = CloseFrame { code, reason: reason.into() };
    let _ = tokio::time::timeout(Duration::from_secs(1), socket.close(Some(frame))).await;
}

/// How a client learns that it has missed something.
fn overload(missed: u64) -> String {
    let message = format!("You read too slowly: {missed} events were left out.");
    json!({
        "outcome": "unknown",
        "scriptName": null,
        "exceptions": [],
        "logs": [],
        "eventTimestamp": null,
        "event": { "type": "overload", "message": message },
    })
    .to_string()
}

fn filter(filter: &Json) -> Option<Filter> {
    let texts = |name: &str| -> Option<Vec<String>> {
        filter.get(name)?.as_array().map(|items| items.iter().filter_map(Json::as_str).map(str::to_owned).collect())
    };
    if let Some(rate) = filter.get("sampling_rate").and_then(Json::as_f64) {
        return Some(Filter::SamplingRate(rate));
    }
    if let Some(outcomes) = texts("outcome") {
        return Some(Filter::Outcome(outcomes));
    }
    if let Some(methods) = texts("method") {
        return Some(Filter::Method(methods));
    }
    if let Some(addresses) = texts("client_ip") {
        return Some(Filter::ClientIp(addresses));
    }
    if let Some(header) = filter.get("header") {
        let key = header.get("key")?.as_str()?.to_ascii_lowercase();
        return Some(Filter::Header { key, query: header.get("query").and_then(Json::as_str).map(str::to_owned) });
    }
    filter.get("query").and_then(Json::as_str).map(|query| Filter::Query(query.into()))
}

/// Whether an event passes all filters.
fn wants(filters: &[Filter], event: &[u8], random: impl Fn() -> f64) -> bool {
    if filters.is_empty() {
        return true;
    }
    let Ok(event) = serde_json::from_slice::<Json>(event) else { return false };
    let request = &event["event"]["request"];
    let header = |key: &str| request["headers"].get(key).and_then(Json::as_str);
    let is_among =
        |found: Option<&str>, wanted: &[String]| found.is_some_and(|found| wanted.iter().any(|w| w == found));
    filters.iter().all(|filter| match filter {
        Filter::SamplingRate(rate) => random() < *rate,
        Filter::Outcome(wanted) => is_among(event["outcome"].as_str(), wanted),
        Filter::Method(wanted) => is_among(request["method"].as_str(), wanted),
        Filter::ClientIp(wanted) => is_among(header("cf-connecting-ip"), wanted),
        Filter::Header { key, query } => {
            header(key).is_some_and(|value| query.as_ref().is_none_or(|q| value.contains(q)))
        }
        Filter::Query(text) => event["logs"].to_string().contains(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_let_through_what_was_asked_for() {
        let event = json!({
            "outcome": "ok",
            "event": { "request": { "method": "GET", "headers": { "cf-connecting-ip": "10.0.0.1", "x-a": "hello" } } },
            "logs": [{ "message": ["a needle"], "level": "log" }],
        })
        .to_string();
        let passes = |wanted: Json| {
            let filters: Vec<Filter> = wanted.as_array().expect("a list").iter().filter_map(filter).collect();
            assert_eq!(filters.len(), wanted.as_array().expect("a list").len(), "{wanted}");
            wants(&filters, event.as_bytes(), || 0.5)
        };
        assert!(passes(json!([])));
        assert!(passes(json!([{ "outcome": ["ok", "exception"] }, { "method": ["GET"] }])));
        assert!(!passes(json!([{ "outcome": ["exception"] }])) && !passes(json!([{ "method": ["PUT"] }])));
        assert!(passes(json!([{ "sampling_rate": 0.6 }])) && !passes(json!([{ "sampling_rate": 0.4 }])));
        assert!(passes(json!([{ "client_ip": ["10.0.0.1"] }])) && !passes(json!([{ "client_ip": ["10.0.0.2"] }])));
        assert!(passes(json!([{ "header": { "key": "X-A", "query": "ell" } }, { "header": { "key": "x-a" } }])));
        assert!(!passes(json!([{ "header": { "key": "x-b" } }])));
        assert!(passes(json!([{ "query": "needle" }])) && !passes(json!([{ "query": "haystack" }])));
    }
}

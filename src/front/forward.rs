//! A request on its way to a script, and its response on the way back: which headers stay on this hop, how long a body
//! may be, and streams in both directions once both ends have agreed on another protocol.

use std::cell::RefCell;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use serde_json::json;

use crate::worker::engine::{BodyFailure, Streamed};

/// Longest body of a request, in bytes.
pub(super) const BODY_LEN_MAX: u64 = 100 * 1024 * 1024;

/// Carries `request.cf` to the engine, as JSON.
const CF: HeaderName = HeaderName::from_static("x-starling-cf");
/// What begins the names of headers that are between a node and its engine alone.
const OWN: &str = "x-starling-";
const CLIENT_ADDRESS: HeaderName = HeaderName::from_static("cf-connecting-ip");
const PROTOCOL: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What is between two neighbours on the way alone, and never handed on.
static HOP: [HeaderName; 8] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Where a request comes from.
pub(super) struct Origin<'a> {
    pub(super) address: IpAddr,
    pub(super) is_https: bool,
    pub(super) cf: &'a Cf,
}

/// What scripts see in `request.cf`, as JSON, by the version of HTTP that the client speaks.
pub(super) struct Cf([(Version, HeaderValue); 3]);

impl Cf {
    /// For requests that arrive at that PoP.
    pub(super) fn of(pop: Option<&str>) -> Self {
        let versions = [(Version::HTTP_11, "HTTP/1.1"), (Version::HTTP_2, "HTTP/2"), (Version::HTTP_10, "HTTP/1.0")];
        Self(versions.map(|(version, name)| {
            let cf = json!({ "colo": pop.unwrap_or("DEV"), "httpProtocol": name }).to_string();
            (version, HeaderValue::try_from(cf).unwrap_or(HeaderValue::from_static("{}")))
        }))
    }

    fn spoken(&self, version: Version) -> HeaderValue {
        let Self([usual, others @ ..]) = self;
        others.iter().find(|(known, _)| *known == version).unwrap_or(usual).1.clone()
    }
}

/// What an engine is asked: over HTTP/1.1, whatever the client speaks.
pub(super) fn request(parts: Parts, host: &str, body: Streamed, origin: &Origin<'_>) -> Request<Streamed> {
    let is_upgrade = wants_upgrade(&parts.headers);
    let path = parts.uri.into_parts().path_and_query.filter(|path| path.as_str().starts_with('/'));
    let mut headers = parts.headers;
    strip_hop(&mut headers, is_upgrade);
    let own: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(OWN)).cloned().collect();
    for name in own {
        headers.remove(name);
    }
    headers.insert(CF, origin.cf.spoken(parts.version));
    headers.insert(PROTOCOL, HeaderValue::from_static(if origin.is_https { "https" } else { "http" }));
    let mut stated = headers.get_all(HOST).iter();
    let is_told = stated.next().is_some_and(|stated| stated == host) && stated.next().is_none();
    if !is_told && let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
    if let Some(address) = written(origin.address) {
        headers.insert(CLIENT_ADDRESS, address);
    }
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = path.map_or(Uri::from_static("/"), Uri::from);
    *request.headers_mut() = headers;
    request
}

/// An address as a header has it. Many requests come from where the last one came from, behind a proxy nearly all.
fn written(address: IpAddr) -> Option<HeaderValue> {
    thread_local! {
        static LAST: RefCell<Option<(IpAddr, HeaderValue)>> = const { RefCell::new(None) };
    }
    LAST.with_borrow_mut(|last| match last {
        Some((known, value)) if *known == address => Some(value.clone()),
        _ => {
            let value = HeaderValue::try_from(address.to_string()).ok()?;
            *last = Some((address, value.clone()));
            Some(value)
        }
    })
}

/// What a client is told.
pub(super) fn response(mut response: Response<Streamed>) -> Response<Streamed> {
    let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    strip_hop(response.headers_mut(), is_upgrade);
    // Of this hop: the client's may be another one.
    *response.version_mut() = Version::HTTP_11;
    response
}

/// Whether a client asks for another protocol, as for a WebSocket.
pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    let names_it = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")))
    };
    headers.contains_key(UPGRADE) && headers.get_all(CONNECTION).iter().any(names_it)
}

fn strip_hop(headers: &mut HeaderMap, is_upgrade: bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name: &HeaderName| !is_upgrade || name != UPGRADE)
        .collect();
    let is_of_hop = |name: &&HeaderName| HOP.contains(name);
    let known: Vec<HeaderName> = headers.keys().filter(is_of_hop).cloned().collect();
    for name in named.into_iter().chain(known) {
        headers.remove(name);
    }
    if is_upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(UPGRADE);
    }
}

/// Joins the two streams of an upgraded connection until either ends. The response goes to the client without a body.
pub(super) fn tunnel(client: OnUpgrade, mut response: Response<Streamed>) -> Response<Streamed> {
    let script = hyper::upgrade::on(&mut response);
    let (parts, body) = response.into_parts();
    tokio::spawn(async move {
        if let (Ok(client), Ok(script)) = tokio::join!(client, script) {
            let (mut client, mut script) = (TokioIo::new(client), TokioIo::new(script));
            // Either end may break off: there is nobody left to tell.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut script).await;
        }
        // As long as it is there, the engine counts the request as one that is being answered.
        drop(body);
    });
    Response::from_parts(parts, Streamed::empty())
}

/// A request's body, cut off beyond [`BODY_LEN_MAX`].
pub(super) struct Bounded {
    incoming: Incoming,
    left: u64,
    is_exceeded: Arc<AtomicBool>,
}

impl Bounded {
    /// The flag tells whether it was cut off.
    pub(super) fn new(incoming: Incoming) -> (Self, Arc<AtomicBool>) {
        let is_exceeded = Arc::new(AtomicBool::new(false));
        (Self { incoming, left: BODY_LEN_MAX, is_exceeded: Arc::clone(&is_exceeded) }, is_exceeded)
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = BodyFailure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailure>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else { return Poll::Pending };
        Poll::Ready(frame.map(|frame| {
            let frame = frame?;
            let len = frame.data_ref().map_or(0, |data| data.len() as u64);
            match this.left.checked_sub(len) {
                Some(left) => this.left = left,
                None => {
                    this.is_exceeded.store(true, Ordering::Relaxed);
                    return Err("the body is too long".into());
                }
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_what_is_meant_for_the_script_reaches_it() {
        let mut asked = Request::new(());
        *asked.uri_mut() = "http://other.example/a%2Fb?c=d".parse().expect("a URI");
        *asked.headers_mut() = headers(&[
            ("connection", "x-private, close"),
            ("x-private", "1"),
            ("x-starling-seat", "3"),
            ("cf-connecting-ip", "203.0.113.9"),
            ("te", "trailers"),
            ("accept", "*/*"),
        ]);
        let (parts, ()) = asked.into_parts();
        let origin = Origin { address: [127, 0, 0, 1].into(), is_https: true, cf: &Cf::of(Some("FRA")) };
        let request = request(parts, "shop.example", Streamed::empty(), &origin);
        assert_eq!(request.uri(), "/a%2Fb?c=d");
        let mut names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "cf-connecting-ip", "host", "x-forwarded-proto", "x-starling-cf"]);
        assert_eq!(request.headers()["cf-connecting-ip"], "127.0.0.1");
        assert_eq!(request.headers()[CF], r#"{"colo":"FRA","httpProtocol":"HTTP/1.1"}"#);
    }

    #[test]
    fn an_upgrade_keeps_its_headers() {
        let mut asked =
            headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("keep-alive", "5")]);
        assert!(wants_upgrade(&asked));
        strip_hop(&mut asked, true);
        assert_eq!(asked, headers(&[("upgrade", "websocket"), ("connection", "upgrade")]));
        assert!(!wants_upgrade(&headers(&[("upgrade", "websocket")])));
    }
}

//! The cache of this PoP as the runtime speaks with one: `GET` finds, `PURGE` forgets, and the body of a `PUT` is the
//! answer to be kept, as it would go over a wire.

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{Request, Response, StatusCode};

use super::desk::empty;
use crate::worker::cache::{ANSWER_LEN_MAX, Cache, Key};
use crate::worker::engine::Streamed;

/// Says which cache is meant, if not the default one.
const NAMESPACE: HeaderName = HeaderName::from_static("cf-cache-namespace");
const STATUS: HeaderName = HeaderName::from_static("cf-cache-status");
/// What may be around an answer's body on the wire, in bytes.
const WRAPPING_LEN: usize = 1024 * 1024;

/// What the runtime is answered that asks for a script of that life.
pub(super) async fn answer(
    cache: &Cache,
    life: [u8; 16],
    now_ms: u64,
    request: Request<Incoming>,
) -> Response<Streamed> {
    let (parts, body) = request.into_parts();
    let name = parts.headers.get(NAMESPACE).and_then(|name| name.to_str().ok());
    let key =
        Key { life, cache: name.map(|name| format!("named {name}")).unwrap_or_default(), url: parts.uri.to_string() };
    match parts.method.as_str() {
        "PURGE" => empty(if cache.remove(&key) { StatusCode::OK } else { StatusCode::NOT_FOUND }),
        "PUT" => {
            let Ok(wire) = Limited::new(body, ANSWER_LEN_MAX + WRAPPING_LEN).collect().await else {
                return empty(StatusCode::PAYLOAD_TOO_LARGE);
            };
            if let Some((status, headers, body)) = read(&wire.to_bytes()) {
                // The runtime itself has refused what can't be in a cache; whatever else is not kept need not be.
                let _ = cache.put(key, status, headers, body, now_ms);
            }
            empty(StatusCode::NO_CONTENT)
        }
        _ => cache.find(&key, &parts.headers).unwrap_or_else(|| {
            let mut missing = empty(StatusCode::GATEWAY_TIMEOUT);
            missing.headers_mut().insert(STATUS, HeaderValue::from_static("MISS"));
            missing
        }),
    }
}

/// An answer as it would go over a wire: but its body is always all that comes after the head, whatever that says.
fn read(wire: &Bytes) -> Option<(StatusCode, HeaderMap, Bytes)> {
    let end = wire.windows(4).position(|four| four == b"\r\n\r\n")?;
    let mut lines = std::str::from_utf8(wire.get(..end)?).ok()?.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        headers.append(HeaderName::try_from(name).ok()?, HeaderValue::from_str(value.trim()).ok()?);
    }
    headers.remove(TRANSFER_ENCODING);
    headers.remove(CONTENT_LENGTH);
    Some((status, headers, wire.slice(end + 4..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_off_the_wire() {
        for (head, body) in [("Content-Length: 3", "abc"), ("Transfer-Encoding: chunked", "abcd"), ("X-B: c", "")] {
            let wire = Bytes::from(format!("HTTP/1.1 404 Gone Away\r\nX-A: b\r\n{head}\r\n\r\n{body}"));
            let (status, headers, read) = read(&wire).expect("an answer");
            assert_eq!((status.as_u16(), headers.get("x-a").map(HeaderValue::as_bytes)), (404, Some(&b"b"[..])));
            assert_eq!((read, headers.contains_key(TRANSFER_ENCODING)), (body.into(), false), "{head}");
        }
        for wire in ["nonsense", "HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nno field\r\n\r\n"] {
            assert_eq!(read(&Bytes::from(wire)), None, "{wire}");
        }
    }
}

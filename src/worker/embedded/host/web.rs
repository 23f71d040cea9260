//! Answers, streams, fetches, and a script's static files.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use rquickjs::prelude::Rest;
use rquickjs::{Ctx, Exception, FromJs, Function, Object, Value};
use tokio::sync::mpsc;

use super::{Desk, Failure, Given, Outcome, Passed, body_of, finished};
use crate::worker::embedded::visit::{FETCHES_MAX, Visit};
use crate::worker::engine::{BodyFailure, Streamed, Wrote, streamed};
use crate::worker::static_files;

/// Fields of a response, and bytes of all of them.
const HEADERS_MAX: usize = 256;
const HEADERS_LEN_MAX: usize = 256 * 1024;

/// The type of a content that is text.
const TEXT: &str = "text/plain;charset=UTF-8";

/// Headers as the prelude has them: names and values in turn, each in a line.
pub(in crate::worker::embedded) fn lines(headers: &HeaderMap) -> String {
    let mut lines = String::with_capacity(32 * 2 * headers.len());
    for (name, value) in headers {
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.push_str(name.as_str());
        lines.push('\n');
        match value.to_str() {
            Ok(value) => lines.push_str(value),
            Err(_) => lines.push_str(&String::from_utf8_lossy(value.as_bytes())),
        }
    }
    lines
}

pub(super) fn header_map(flat: &[String]) -> Result<HeaderMap, String> {
    if flat.len() / 2 > HEADERS_MAX || flat.iter().map(String::len).sum::<usize>() > HEADERS_LEN_MAX {
        return Err(format!("there can be {HEADERS_MAX} headers of {} KiB in all", HEADERS_LEN_MAX / 1024));
    }
    let mut headers = HeaderMap::new();
    for pair in flat.chunks_exact(2) {
        let name = HeaderName::try_from(&pair[0]).map_err(|_| format!("Invalid header name: {}", pair[0]))?;
        let value =
            HeaderValue::from_bytes(pair[1].as_bytes()).map_err(|_| format!("Invalid header value: {}", pair[1]))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Headers that belong to a connection and not to what is sent on it.
fn strip(headers: &mut HeaderMap) {
    for name in ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"] {
        headers.remove(name);
    }
}

/// What a script sends, chunk by chunk.
struct Sent {
    chunks: mpsc::Receiver<Result<Bytes, BodyFailure>>,
    len: Option<u64>,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = BodyFailure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailure>>> {
        let chunk = self.chunks.poll_recv(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)));
        if let (Poll::Ready(Some(Ok(frame))), Some(len)) = (&chunk, self.len) {
            self.len = Some(len.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64)));
        }
        chunk
    }

    fn size_hint(&self) -> SizeHint {
        self.len.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A stream that a script holds, as a body of its own.
fn handed_on(visit: &Visit, number: u32) -> Option<Streamed> {
    let source = visit.drop_source(number)?;
    // Nobody reads it any more, or its reader sees its end.
    let body = std::sync::Arc::try_unwrap(source).ok()?;
    Some(body.into_inner())
}

fn number_of(value: &Value<'_>) -> Option<u32> {
    value.as_number().filter(|number| (0.0..4e9).contains(number)).map(|number| number as u32)
}

/// A response for the prelude: status, its text, headers, the stream of its body, and its length.
pub(super) fn shown(visit: &Visit, response: Response<Streamed>) -> Outcome {
    let (parts, body) = response.into_parts();
    let len = body.size_hint().exact();
    let source = if len == Some(0) {
        Given::Null
    } else {
        let number = visit.keep(body).ok_or_else(|| Failure::error("Too many streams are open."))?;
        Given::Number(f64::from(number))
    };
    let reason =
        parts.extensions.get::<ReasonPhrase>().map(|reason| String::from_utf8_lossy(reason.as_ref()).into_owned());
    let reason = reason.or_else(|| parts.status.canonical_reason().map(str::to_owned)).unwrap_or_default();
    Ok(Given::List(vec![
        Given::Number(f64::from(parts.status.as_u16())),
        Given::Text(reason),
        Given::Text(lines(&parts.headers)),
        source,
        len.map_or(Given::Null, |len| Given::Number(len as f64)),
    ]))
}

pub(super) fn add<'js>(ctx: &Ctx<'js>, host: &Object<'js>, desk: &Desk) -> rquickjs::Result<()> {
    let at = desk.clone();
    // A body is text, bytes, nothing, or a stream: a list of its number, if it is the node's, and its length. A type that is a
    // flag is that of text. At the end come fields, if there are any but the content's type, and the reason, if there is one.
    let respond = move |ctx: Ctx<'js>,
                        visit: u32,
                        is_last: bool,
                        status: u16,
                        body: Value<'js>,
                        content_type: Value<'js>,
                        rest: Rest<Value<'js>>| {
        let isolate = at.isolate(&ctx)?;
        let Some(visit) = isolate.visit(visit) else { return Ok(()) };
        let refuse = |why: &str| Exception::throw_type(&ctx, why);
        let given = |index: usize| rest.get(index).filter(|value| !value.is_undefined()).cloned();
        let mut headers = match given(0) {
            Some(flat) => header_map(&Vec::from_js(&ctx, flat)?).map_err(|why| refuse(&why))?,
            None => HeaderMap::new(),
        };
        if !headers.is_empty() {
            strip(&mut headers);
            // It follows from the body.
            headers.remove(CONTENT_LENGTH);
        }
        let content_type = match content_type.as_bool() {
            Some(_) => Some(HeaderValue::from_static(TEXT)),
            None => Option::<String>::from_js(&ctx, content_type)?.and_then(|text| HeaderValue::try_from(text).ok()),
        };
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
        let body = if let Some(stream) = body.as_array() {
            let len = stream.get::<Option<f64>>(1)?.filter(|len| *len >= 0.0).map(|len| len as u64);
            match stream.get::<Option<u32>>(0)? {
                Some(number) => {
                    handed_on(&visit, number).ok_or_else(|| refuse("the stream of the body was read elsewhere"))?
                }
                None => {
                    let (out, chunks) = mpsc::channel(1);
                    visit.streams_to(out);
                    streamed(Sent { chunks, len })
                }
            }
        } else {
            body_of(&body).map_or_else(Streamed::empty, Streamed::whole)
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).map_err(|_| refuse("there is no such status"))?;
        *response.headers_mut() = headers;
        let reason = given(1).map(|reason| String::from_js(&ctx, reason)).transpose()?.filter(|text| !text.is_empty());
        if let Some(reason) = reason.and_then(|reason| ReasonPhrase::try_from(reason).ok()) {
            response.extensions_mut().insert(reason);
        }
        if visit.kv.last_write().is_some() {
            response.extensions_mut().insert(Wrote(visit.kv.clone()));
        }
        visit.respond(response);
        if is_last {
            finished(&isolate, &visit);
        }
        rquickjs::Result::Ok(())
    };
    host.set("respond", Function::new(ctx.clone(), respond)?)?;

    let at = desk.clone();
    let send = move |ctx: Ctx<'js>, operation: f64, visit: u32, chunk: Passed| {
        let out = at.isolate(&ctx)?.visit(visit).and_then(|visit| visit.out());
        at.begin(&ctx, operation, async move {
            Ok(Given::Flag(match out {
                Some(out) => out.send(Ok(chunk.0)).await.is_ok(),
                None => false,
            }))
        })
    };
    host.set("send", Function::new(ctx.clone(), send)?)?;

    let at = desk.clone();
    let end = move |ctx: Ctx<'js>, visit: u32, is_whole: bool| {
        if let Some(visit) = at.isolate(&ctx)?.visit(visit) {
            visit.end_stream(is_whole);
        }
        rquickjs::Result::Ok(())
    };
    host.set("end", Function::new(ctx.clone(), end)?)?;

    let at = desk.clone();
    let read = move |ctx: Ctx<'js>, operation: f64, number: u32| {
        let visit = at.visit(&ctx)?;
        at.begin(&ctx, operation, async move {
            let Some(source) = visit.source(number) else {
                return Err(Failure::type_error("The stream belongs to another request, or was read to its end."));
            };
            loop {
                // One reader at a time: the prelude sees to it.
                match source.lock().await.frame().await {
                    None => {
                        visit.drop_source(number);
                        return Ok(Given::Null);
                    }
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) if !data.is_empty() => return Ok(Given::Bytes(data)),
                        _ => {}
                    },
                    Some(Err(error)) => return Err(Failure::error(format!("The stream broke off: {error}."))),
                }
            }
        })
    };
    host.set("sourceRead", Function::new(ctx.clone(), read)?)?;

    let at = desk.clone();
    let release = move |ctx: Ctx<'js>, number: u32| {
        if let Ok(visit) = at.visit(&ctx) {
            visit.drop_source(number);
        }
    };
    host.set("sourceDrop", Function::new(ctx.clone(), release)?)?;

    let at = desk.clone();
    let fetch =
        move |ctx: Ctx<'js>, operation: f64, method: String, url: String, flat: Vec<String>, body: Value<'js>| {
            let (isolate, visit) = (at.isolate(&ctx)?, at.visit(&ctx)?);
            let body = match number_of(&body) {
                Some(number) => handed_on(&visit, number),
                None => Some(body_of(&body).map_or_else(Streamed::empty, Streamed::whole)),
            };
            at.begin(&ctx, operation, async move {
                if !visit.may_fetch() {
                    return Err(Failure::error(format!(
                        "Too many subrequests by single Worker invocation: it may make {FETCHES_MAX}."
                    )));
                }
                let headers = header_map(&flat).map_err(Failure::type_error)?;
                let method = Method::from_bytes(method.as_bytes())
                    .map_err(|_| Failure::type_error("There is no such method."))?;
                let mut request =
                    Request::new(body.ok_or_else(|| Failure::type_error("The body was read elsewhere."))?);
                *request.method_mut() = method;
                *request.headers_mut() = headers;
                strip(request.headers_mut());
                request.headers_mut().remove(CONTENT_LENGTH);
                let response = isolate.ground.outbound.fetch(&url, request, visit.hops).await;
                shown(&visit, response.map_err(Failure::error)?)
            })
        };
    host.set("fetch", Function::new(ctx.clone(), fetch)?)?;

    let at = desk.clone();
    let assets = move |ctx: Ctx<'js>, operation: f64, method: String, url: String, flat: Vec<String>| {
        let (isolate, visit) = (at.isolate(&ctx)?, at.visit(&ctx)?);
        at.begin(&ctx, operation, async move {
            let headers = header_map(&flat).map_err(Failure::type_error)?;
            let method =
                Method::from_bytes(method.as_bytes()).map_err(|_| Failure::type_error("There is no such method."))?;
            let uri: Uri = url.parse().map_err(|_| Failure::type_error("Invalid URL string."))?;
            let files = &*isolate.ground.files;
            let response = static_files::answer(&isolate.program, files, &method, uri.path(), &headers).await;
            shown(&visit, response)
        })
    };
    host.set("assets", Function::new(ctx.clone(), assets)?)
}

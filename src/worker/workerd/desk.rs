//! The node's end of what programs ask of it beside KV: their static files, the cache, leave to fetch, and what is told of
//! them to watchers.
//!
//! A process has one such socket. The runtime says which program a request is from.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value as Json;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::config::{DESK_HEADER, LOOP_HEADER, SEAT_HEADER};
use super::host::Guest;
use super::{Files, cache};
use crate::kv::Kv;
use crate::worker::cache::Cache;
use crate::worker::engine::Streamed;
use crate::worker::hops::loop_header;
use crate::worker::{Program, ScriptId, TAIL_EVENT_LEN_MAX, Tails, static_files};

/// Connections of a process at a time.
const CONNECTIONS_MAX: usize = 512;
/// How many of them are kept for what comes next; the others make room at once for those that wait.
const KEPT_MAX: usize = 64;
/// All that is told at once of a program, in bytes.
const EVENTS_LEN_MAX: usize = 8 * TAIL_EVENT_LEN_MAX;

/// What a process's programs ask of the node.
pub(super) struct Desk {
    /// By seat.
    pub(super) guests: Vec<Guest>,
    pub(super) tails: Tails,
    pub(super) files: Arc<dyn Files>,
    pub(super) cache: Cache,
    pub(super) kv: Kv,
}

/// Listens until `end` completes.
pub(super) fn serve(path: &Path, desk: Desk, end: impl Future + Send + 'static) -> io::Result<()> {
    // In a directory that nobody else can enter.
    let listener = UnixListener::bind(path)?;
    let (desk, places) = (Arc::new(desk), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    tokio::spawn(async move {
        let mut end = std::pin::pin!(end);
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await.ok();
                (listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                _ = &mut end => return,
                accepted = accepted => accepted,
            };
            let Ok((stream, _)) = accepted else { continue };
            let is_kept = places.available_permits() >= CONNECTIONS_MAX - KEPT_MAX;
            let desk = Arc::clone(&desk);
            let service = service_fn(move |request| {
                let desk = Arc::clone(&desk);
                async move { Ok::<_, Infallible>(desk.answer(request).await) }
            });
            tokio::spawn(async move {
                // A broken connection is the runtime's affair.
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .keep_alive(is_kept)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                drop(place);
            });
        }
    });
    Ok(())
}

impl Desk {
    fn guest(&self, headers: &HeaderMap) -> Option<&Guest> {
        self.guests.get(headers.get(SEAT_HEADER)?.to_str().ok()?.parse::<usize>().ok()?)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Streamed> {
        let purpose = request.headers().get(DESK_HEADER).map(|value| value.as_bytes());
        match (self.guest(request.headers()), purpose) {
            (Some(Guest { program, .. }), Some(b"cache")) => {
                cache::answer(&self.cache, program.life, self.kv.now_ms(), request).await
            }
            (Some(Guest { program, .. }), Some(b"assets")) => {
                let (parts, _) = request.into_parts();
                static_files::answer(program, &*self.files, &parts.method, parts.uri.path(), &parts.headers).await
            }
            (Some(guest), Some(b"leave")) => match guest.reach.allowance.take_fetch() {
                Some(hops) => {
                    let mut leave = empty(StatusCode::NO_CONTENT);
                    if let Ok(value) = HeaderValue::try_from(loop_header(hops)) {
                        leave.headers_mut().insert(LOOP_HEADER, value);
                    }
                    leave
                }
                None => empty(StatusCode::TOO_MANY_REQUESTS),
            },
            (Some(Guest { program, .. }), Some(b"events")) => {
                if let Ok(text) = Limited::new(request.into_body(), EVENTS_LEN_MAX).collect().await {
                    self.tell(program, &text.to_bytes());
                }
                empty(StatusCode::NO_CONTENT)
            }
            _ => empty(StatusCode::NOT_FOUND),
        }
    }

    /// Passes on what a program did, each invocation by itself, with its name to it.
    fn tell(&self, program: &Program, text: &[u8]) {
        let script = ScriptId { account: program.account, script: program.script.clone() };
        let Ok(Json::Array(events)) = serde_json::from_slice(text) else { return };
        for mut event in events {
            if let Some(event) = event.as_object_mut() {
                event.insert("scriptName".into(), program.script.clone().into());
                event.insert("scriptVersion".into(), serde_json::json!({ "id": program.version }));
            }
            self.tails.publish(&script, Bytes::from(event.to_string()));
        }
    }
}

pub(super) fn empty(status: StatusCode) -> Response<Streamed> {
    let mut response = Response::new(Streamed::empty());
    *response.status_mut() = status;
    response
}

//! One request: which script it is for, what is done before and after the engine has it, and what is said if there is
//! no answer.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::body::{Body, Incoming};
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};

use super::crowd::BUSY_MAX;
use super::forward::{self, BODY_LEN_MAX, Bounded, Origin};
use super::pages::{self, Page};
use super::routes::{Deployed, name_of, normal};
use super::{Front, Runtime};
use crate::api::serve::Answers;
use crate::api::session::{BOOKMARK, read_bookmark};
use crate::https::ServerTls;
use crate::kv::KvError;
use crate::metrics::{ANSWERED, Stopwatch};
use crate::worker::engine::{EngineError, Streamed, Wrote, held, streamed};
use crate::worker::{ScriptId, static_files};

/// How long a request waits for what its bookmark speaks of.
const BOOKMARK_PATIENCE: Duration = Duration::from_secs(5);
/// Has the same version answer every request that carries the same text.
const VERSION_KEY: HeaderName = HeaderName::from_static("cloudflare-workers-version-key");

impl Answers for Front {
    type Body = Streamed;

    async fn answer(&self, request: Request<Incoming>, from: IpAddr) -> Result<Response<Streamed>, Infallible> {
        Ok(self.respond(request, from).await)
    }

    fn tls(&self) -> Option<Arc<ServerTls>> {
        self.0.config.tls.clone()
    }
}

impl Front {
    async fn respond(&self, request: Request<Incoming>, from: IpAddr) -> Response<Streamed> {
        let routes = self.0.routes.load();
        let stated = request.uri().authority().map(|authority| authority.as_str().to_owned());
        let host = stated.or_else(|| Some(request.headers().get(HOST)?.to_str().ok()?.to_owned())).unwrap_or_default();
        let is_https = self.0.config.tls.is_some();
        let plain = normal(&host);
        let found = routes.find(is_https, &plain, request.uri().path()).cloned();
        let asks_html = pages::asks_html(request.headers());
        let Some(deployed) = found else {
            return match is_this_machine(name_of(&plain)) {
                true => pages::index(&routes, &plain, is_https, asks_html),
                false => pages::not_found(&plain, asks_html),
            };
        };
        drop(routes);
        let stopwatch = Stopwatch::start();
        let (outcome, response) = match self.run(&deployed, request, &host, from).await {
            Ok(response) => (ANSWERED, response),
            Err(page) => (page.outcome, page.render(asks_html)),
        };
        self.0.operator.metrics().workers().answered(&self.shown(&deployed.id), outcome, stopwatch.elapsed());
        response
    }

    /// What a script is called at this node.
    fn shown<'a>(&self, id: &'a ScriptId) -> Cow<'a, str> {
        match id.account == self.0.config.account {
            true => Cow::Borrowed(&id.script),
            false => Cow::Owned(id.to_string()),
        }
    }

    /// Has a script answer.
    async fn run(
        &self,
        deployed: &Arc<Deployed>,
        mut request: Request<Incoming>,
        host: &str,
        from: IpAddr,
    ) -> Result<Response<Streamed>, Page> {
        if request.body().size_hint().lower() > BODY_LEN_MAX {
            return Err(Page::body_too_long());
        }
        let place = self.0.crowd.enter(deployed).ok_or_else(|| Page::too_busy(BUSY_MAX))?;
        // What is seldom done lies apart: a future is moved when a request comes, and is as large as the largest of what it
        // may wait for.
        if let Some(bookmark) = request.headers().get(BOOKMARK) {
            Box::pin(self.wait_for_bookmark(bookmark)).await?;
        }
        let at = match request.headers().get(VERSION_KEY) {
            Some(key) => fraction(key.as_bytes()),
            None if deployed.live.versions.len() < 2 => 0.0,
            None => self.draw(),
        };
        let program = deployed.version(at).ok_or_else(|| Page::failed(&EngineError::Unknown, from))?;
        let is_file_first = program.assets.as_ref().is_some_and(|assets| !assets.goes_to_script(request.uri().path()));
        if is_file_first || program.modules.is_empty() {
            let (method, path, headers) = (request.method(), request.uri().path(), request.headers());
            let found = static_files::find(program, &self.0.workers, method, path, headers);
            if let Some(response) = Box::pin(found).await {
                return Ok(response);
            }
            if program.modules.is_empty() {
                return Ok(Box::pin(static_files::stand_in(program, &self.0.workers, path, headers)).await);
            }
        }
        let engine = match self.runtime() {
            Runtime::Ready(engine) => engine,
            Runtime::Missing(why) => return Err(Page::no_engine(&why)),
        };
        let client = forward::wants_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
        let (parts, incoming) = request.into_parts();
        let (body, is_exceeded) = Bounded::new(incoming);
        let origin = Origin { address: from, is_https: self.0.config.tls.is_some(), cf: &self.0.cf };
        let parts: Parts = parts;
        let body = if body.is_end_stream() { Streamed::empty() } else { streamed(body) };
        let asked = forward::request(parts, host, body, &origin);
        let mut response = match engine.fetch(program, asked).await {
            Ok(response) => response,
            Err(_) if is_exceeded.load(Ordering::Relaxed) => return Err(Page::body_too_long()),
            Err(error) => return Err(Page::failed(&error, from)),
        };
        if let Some(Wrote(session)) = response.extensions_mut().remove() {
            match Box::pin(session.bookmark()).await.map(|bytes| HeaderValue::from_str(&URL_SAFE_NO_PAD.encode(bytes)))
            {
                Ok(Ok(bookmark)) => drop(response.headers_mut().insert(BOOKMARK, bookmark)),
                Ok(Err(_)) => {}
                Err(error) => tracing::debug!(%error, "an answer goes without a bookmark"),
            }
        }
        let response = forward::response(response).map(|body| held(body, place));
        Ok(match client {
            Some(client) if response.status() == StatusCode::SWITCHING_PROTOCOLS => forward::tunnel(client, response),
            _ => response,
        })
    }

    /// Waits until this PoP has what the visitor has seen elsewhere.
    async fn wait_for_bookmark(&self, header: &HeaderValue) -> Result<(), Page> {
        let bookmark = header.to_str().ok().and_then(read_bookmark).ok_or_else(Page::bad_bookmark)?;
        self.0.kv.wait_for(bookmark, BOOKMARK_PATIENCE).await.map_err(|error| match error {
            KvError::NotCovered { .. } | KvError::Overloaded => Page::not_here_yet(&error.to_string()),
            other => Page::bookmark_is_over(&other.to_string()),
        })
    }
}

/// A number from 0 to 1 that is the same for the same text everywhere.
fn fraction(key: &[u8]) -> f64 {
    let hash = blake3::hash(key);
    let [a, b, c, d, ..] = *hash.as_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

/// Whether a host names the machine and not a script.
fn is_this_machine(name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    matches!(name, "" | "localhost" | "workers.localhost") || address.parse::<IpAddr>().is_ok()
}

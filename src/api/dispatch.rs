//! One request: who asks, for what, and which handler answers.
//!
//! Knows nothing of connections.

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use tokio::sync::{Semaphore, watch};

use super::auth::Caller;
use super::body::RequestBody;
use super::error::RequestError;
use super::key::decode_key;
use super::query::Query;
use super::reply::{Reply, ReplyBody};
use super::route::{Route, Target, route};
use super::session::{self, Demands};
use super::{Api, ApiConfig, Shared, accounts, bulk, bulk_get, changes, keys, namespaces, openapi, operator, values};
use crate::kv::{AccountId, Kv};
use crate::operator::Operator;
use crate::replica::NamespaceId;

const POP: HeaderName = HeaderName::from_static("starling-pop");
const REQUEST_ID: HeaderName = HeaderName::from_static("starling-request-id");

impl Api {
    pub(crate) fn new(kv: Kv, operator: Operator, config: ApiConfig) -> Self {
        let shared = Shared {
            started_secs: kv.now_ms() / 1000,
            operator,
            pop: HeaderValue::from_str(config.pop.as_deref().unwrap_or(&config.node)).ok(),
            config,
            large_bodies: Semaphore::new(bulk::LARGE_BODIES_MAX),
            closing: watch::Sender::new(false),
            requests: AtomicU64::new(0),
        };
        Self { kv, shared: Arc::new(shared) }
    }

    /// For one request.
    fn in_session(&self) -> Self {
        Self { kv: self.kv.session(), shared: self.shared.clone() }
    }

    /// Ends what never ends by itself.
    pub(crate) fn close(&self) {
        self.shared.closing.send_replace(true);
    }

    /// Answers one request.
    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Result<Reply, Infallible> {
        let (parts, incoming) = request.into_parts();
        let mut body = RequestBody::new(incoming, parts.headers.contains_key(EXPECT));
        let request_id = self.request_id();
        let api = self.in_session();
        let (mut reply, error) = match api.dispatch(&parts, &mut body).await {
            Ok(reply) => (reply, None),
            Err(error) => {
                body.drain().await;
                (error.to_reply(&request_id), Some(error))
            }
        };
        if let Route::Namespace { .. } | Route::Namespaces(_) = route(parts.uri.path()) {
            session::mark(&api, &mut reply, error.as_ref()).await;
        }
        if parts.method == Method::HEAD {
            let len = reply.body().size_hint().lower();
            reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
            *reply.body_mut() = ReplyBody::Whole(None);
        }
        reply.headers_mut().insert(REQUEST_ID, request_id);
        if let Some(pop) = &self.shared.pop {
            reply.headers_mut().insert(POP, pop.clone());
        }
        Ok(reply)
    }

    fn request_id(&self) -> HeaderValue {
        let count = self.shared.requests.fetch_add(1, Ordering::Relaxed);
        let mut text = BytesMut::with_capacity(32).writer();
        // Writing to memory can't fail, and hexadecimal digits are a header value.
        let _ = write!(text, "{:x}-{count:x}", self.shared.started_secs);
        HeaderValue::from_maybe_shared(text.into_inner().freeze()).unwrap_or(HeaderValue::from_static("0"))
    }

    async fn dispatch(&self, parts: &Parts, body: &mut RequestBody) -> Result<Reply, RequestError> {
        let path = parts.uri.path();
        let method = if parts.method == Method::HEAD { &Method::GET } else { &parts.method };
        let route = route(path);
        match route {
            Route::Unknown => return Err(RequestError::no_route(path)),
            Route::Health => {
                return match *method {
                    Method::GET => Ok(health()),
                    _ => Err(refuse(method, "GET")),
                };
            }
            Route::OpenApi => {
                return match *method {
                    Method::GET => Ok(openapi::description(self.shared.config.dev)),
                    _ => Err(refuse(method, "GET")),
                };
            }
            _ => {}
        }
        let caller = if self.shared.config.dev {
            Caller::anyone(&parts.headers, self.shared.config.account)?
        } else {
            Caller::authenticate(&parts.headers, &self.kv)?
        };
        let mut demands = Demands::from_headers(&parts.headers)?;
        demands.meet(self).await?;
        let mut reply = self.answer(route, caller, parts, method, body).await?;
        demands.acknowledge(self, &mut reply).await?;
        Ok(reply)
    }

    async fn answer(
        &self,
        route: Route<'_>,
        caller: Caller,
        parts: &Parts,
        method: &Method,
        body: &mut RequestBody,
    ) -> Result<Reply, RequestError> {
        let (path, query) = (parts.uri.path(), Query::new(parts.uri.query()));
        let node = &self.shared.config.node;
        match (route, method.as_str()) {
            (Route::Namespace { account, namespace, target }, _) => {
                let account = caller.account(account, path)?;
                self.in_namespace(account, namespace, target, parts, method, body).await
            }
            (Route::Namespaces(account), "GET") => namespaces::list(self, caller.account(account, path)?, query),
            (Route::Namespaces(account), "POST") => {
                namespaces::create(self, caller.account(account, path)?, body).await
            }
            (Route::Namespaces(_), _) => Err(refuse(method, "GET, POST")),
            (Route::User, "GET") => accounts::user(caller, &parts.headers),
            (Route::TokenVerify, "GET") => accounts::verify_token(caller),
            (Route::AccountTokenVerify(account), "GET") => {
                caller.account(account, path)?;
                accounts::verify_token(caller)
            }
            (Route::Accounts, "GET") => accounts::accounts(caller, query, node),
            (Route::Account(account), "GET") => {
                caller.account(account, path)?;
                accounts::account(account, node)
            }
            (Route::Zones, "GET") => accounts::zones(query),
            (Route::Memberships, "GET") => accounts::memberships(caller, query, node),
            (Route::Status, "GET") => operator::status(self).await,
            (Route::Invite, "POST") => operator::invite(self, body).await,
            (Route::Leave, "POST") => operator::leave(self).await,
            (Route::Invite | Route::Leave, _) => Err(refuse(method, "POST")),
            _ => Err(refuse(method, "GET")),
        }
    }

    async fn in_namespace(
        &self,
        account: AccountId,
        namespace: &str,
        target: Target<'_>,
        parts: &Parts,
        method: &Method,
        body: &mut RequestBody,
    ) -> Result<Reply, RequestError> {
        let op = operation(target, method);
        let Ok(ns) = namespace.parse::<NamespaceId>() else {
            return Err(RequestError::namespace_id(namespace));
        };
        if target != Target::Itself {
            // Keys are asked for by namespace alone: that it is the caller's is settled here.
            self.kv.namespace(account, ns).map_err(RequestError::kv(op))?;
        }
        let query = Query::new(parts.uri.query());
        match (target, method.as_str()) {
            (Target::Value(key), "GET") => values::get(self, ns, &decode_key(key)?).await,
            (Target::Value(key), "PUT") => values::put(self, ns, &decode_key(key)?, query, &parts.headers, body).await,
            (Target::Value(key), "DELETE") => values::delete(self, ns, &decode_key(key)?).await,
            (Target::Value(_), _) => Err(refuse(method, "GET, PUT, DELETE")),
            (Target::Metadata(key), "GET") => values::get_metadata(self, ns, &decode_key(key)?).await,
            (Target::Keys, "GET") => keys::list(self, ns, query).await,
            (Target::Changes, "GET") => changes::follow(self, ns, query, &parts.headers).await,
            (Target::Metadata(_) | Target::Keys | Target::Changes, _) => Err(refuse(method, "GET")),
            (Target::Bulk, "PUT") => bulk::put(self, ns, body).await,
            (Target::Bulk, "DELETE") | (Target::BulkDelete, "POST") => bulk::delete(self, ns, body).await,
            (Target::Bulk, _) => Err(refuse(method, "PUT, DELETE")),
            (Target::BulkGet, "POST") => bulk_get::get(self, ns, body).await,
            (Target::BulkDelete | Target::BulkGet, _) => Err(refuse(method, "POST")),
            (Target::Itself, "GET") => namespaces::get(self, account, ns),
            (Target::Itself, "PUT") => namespaces::rename(self, account, ns, body).await,
            (Target::Itself, "DELETE") => namespaces::delete(self, account, ns).await,
            (Target::Itself, _) => Err(refuse(method, "GET, PUT, DELETE")),
        }
    }
}

/// What Cloudflare calls the operation in its messages.
fn operation(target: Target<'_>, method: &Method) -> &'static str {
    match (target, method.as_str()) {
        (Target::Value(_), "PUT") => "put",
        (Target::Value(_), "DELETE") => "remove key",
        (Target::Value(_), _) => "get",
        (Target::Metadata(_), _) => "get metadata",
        (Target::Keys, _) => "list keys",
        (Target::Changes, _) => "changes",
        (Target::Bulk, "PUT") => "bulk put",
        (Target::Bulk | Target::BulkDelete, _) => "bulk remove keys",
        (Target::BulkGet, _) => "bulk get keys",
        (Target::Itself, "PUT") => "rename namespace",
        (Target::Itself, "DELETE") => "remove namespace",
        (Target::Itself, _) => "get namespace",
    }
}

fn refuse(method: &Method, allow: &'static str) -> RequestError {
    RequestError::Method { method: method.as_str().chars().take(32).collect(), allow }
}

fn health() -> Reply {
    let mut reply = Response::new(Bytes::from_static(b"ok").into());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    reply
}

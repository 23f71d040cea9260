//! One request: who asks, for what, and which handler answers.
//!
//! Knows nothing of connections.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::auth::{Caller, named_account};
use super::body::RequestBody;
use super::error::RequestError;
use super::key::decode_key;
use super::query::Query;
use super::quota::Meter;
use super::reply::{Reply, ReplyBody};
use super::route::{Route, Target, route};
use super::session::{self, Demands};
use super::workers::{Call, Place};
use super::{
    Api, ApiConfig, Shared, accounts, backups, bulk, bulk_get, changes, keys, namespaces, observe, openapi, operator,
    tokens, values, workers,
};
use crate::kv::{AccountId, Act, Kv, Scope};
use crate::metrics::Stopwatch;
use crate::operator::Operator;
use crate::replica::NamespaceId;
use crate::worker::Workers;

const POP: HeaderName = HeaderName::from_static("starling-pop");
/// Two numbers and what is between them.
const REQUEST_ID_LEN_MAX: usize = 2 * 16 + 1;
const REQUEST_ID: HeaderName = HeaderName::from_static("starling-request-id");

impl Api {
    pub(crate) fn new(kv: Kv, operator: Operator, workers: Workers, config: ApiConfig) -> Self {
        let meter = Meter::new(config.quotas);
        let shared = Shared {
            started_secs: kv.now_ms() / 1000,
            operator,
            workers,
            tails: workers::TailGrants::default(),
            pop: HeaderValue::from_str(config.pop.as_deref().unwrap_or(&config.node)).ok(),
            config,
            large_bodies: Semaphore::new(bulk::LARGE_BODIES_MAX),
            meter,
            closing: watch::Sender::new(false),
            requests: AtomicU64::new(0),
        };
        Self { kv, from: IpAddr::V4(Ipv4Addr::LOCALHOST), shared: Arc::new(shared) }
    }

    /// For one request.
    fn in_session(&self, from: IpAddr) -> Self {
        Self { kv: self.kv.session(), from, shared: self.shared.clone() }
    }

    /// The answer to a request for one value, if nothing has to be waited for: so are most requests, and a future that
    /// could wait for everything would cost as much as the answer. `None` for all others, and for what is to be refused:
    /// [`Api::handle`] judges it from the start.
    pub(crate) fn at_once<B>(&self, request: &Request<B>) -> Option<Reply> {
        let stopwatch = Stopwatch::start();
        let (headers, path) = (request.headers(), request.uri().path());
        if *request.method() != Method::GET || Demands::are_made(headers) {
            return None;
        }
        let route = route(path);
        let Route::Namespace { account, namespace, target: Target::Value(key) } = route else { return None };
        let kv = self.kv.session();
        let caller = self.caller(headers).ok()?;
        let account = caller.account(account, path).ok()?;
        let ns = admitted(&kv, &caller, account, namespace, Target::Value(key), &Method::GET).ok()?;
        let found = kv.get_at_once(ns, &decode_key(key).ok()?)?.ok()??;
        self.count(&caller).ok()?;
        let mut reply = values::reply(found);
        session::mark_at_once(&kv, &mut reply)?;
        self.finish(&mut reply, self.request_id());
        self.observe(route, &Method::GET, path, &reply, stopwatch.elapsed());
        Some(reply)
    }

    /// Answers one request that came from that address.
    pub(crate) async fn handle(&self, request: Request<Incoming>, from: IpAddr) -> Result<Reply, Infallible> {
        let stopwatch = Stopwatch::start();
        let (parts, incoming) = request.into_parts();
        let mut body = RequestBody::new(incoming, parts.headers.contains_key(EXPECT));
        let request_id = self.request_id();
        let api = self.in_session(from);
        let route = route(parts.uri.path());
        let (mut reply, error) = match api.dispatch(route, &parts, &mut body).await {
            Ok(reply) => (reply, None),
            Err(error) => {
                body.drain().await;
                (error.to_reply(&request_id), Some(error))
            }
        };
        if let Route::Namespace { .. } | Route::Namespaces(_) | Route::Workers { .. } = route {
            session::mark(&api, &mut reply, error.as_ref()).await;
        }
        if parts.method == Method::HEAD {
            let len = reply.body().size_hint().lower();
            reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(len));
            *reply.body_mut() = ReplyBody::Whole(None);
        }
        self.finish(&mut reply, request_id);
        self.observe(route, &parts.method, parts.uri.path(), &reply, stopwatch.elapsed());
        Ok(reply)
    }

    /// What every answer says.
    fn finish(&self, reply: &mut Reply, request_id: HeaderValue) {
        reply.headers_mut().insert(REQUEST_ID, request_id);
        if let Some(pop) = &self.shared.pop {
            reply.headers_mut().insert(POP, pop.clone());
        }
    }

    /// Counts a request, and logs it for whoever wants to see them all: failures of the node are logged as such.
    fn observe(&self, route: Route<'_>, method: &Method, path: &str, reply: &Reply, took: Duration) {
        let status = reply.status().as_u16();
        self.shared.operator.metrics().answered(route.label(), method_label(method), status, took);
        let request_id = reply.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let (method, ms) = (method.as_str(), took.as_secs_f64() * 1e3);
        tracing::debug!(request_id, method, path, status, ms, "request");
    }

    fn request_id(&self) -> HeaderValue {
        let count = self.shared.requests.fetch_add(1, Ordering::Relaxed);
        let mut text = [0; REQUEST_ID_LEN_MAX];
        // From the end: the count, a dash, the start.
        let mut at = hex_before(&mut text, REQUEST_ID_LEN_MAX, count);
        at -= 1;
        text[at] = b'-';
        at = hex_before(&mut text, at, self.shared.started_secs);
        HeaderValue::from_bytes(text.get(at..).unwrap_or_default()).unwrap_or(HeaderValue::from_static("0"))
    }

    /// A place for a body that is collected in memory, to be held until it is done with.
    pub(crate) async fn large_body(&self) -> Result<SemaphorePermit<'_>, RequestError> {
        self.shared.large_bodies.acquire().await.map_err(|_| RequestError::Internal("the places were closed"))
    }

    /// The account of that name, whoever asks; `None` if there can be none.
    pub(crate) fn account_named(&self, segment: &str) -> Option<AccountId> {
        match segment.parse() {
            Ok(account) => Some(account),
            Err(_) if self.shared.config.dev => Some(named_account(segment)),
            Err(_) => None,
        }
    }

    async fn dispatch(&self, route: Route<'_>, parts: &Parts, body: &mut RequestBody) -> Result<Reply, RequestError> {
        let path = parts.uri.path();
        let method = if parts.method == Method::HEAD { &Method::GET } else { &parts.method };
        match route {
            Route::Unknown => return Err(RequestError::no_route(path)),
            Route::Health | Route::Ready | Route::OpenApi if *method != Method::GET => {
                return Err(refuse(method, "GET"));
            }
            Route::Health => return Ok(observe::health()),
            Route::Ready => return observe::ready(&self.shared.operator).await,
            Route::OpenApi => return Ok(openapi::description(self.shared.config.dev)),
            Route::Tail { .. } if *method != Method::GET => return Err(refuse(method, "GET")),
            Route::Tail { id, secret } => return workers::connect_tail(self, id, secret, parts),
            Route::Workers { account, place: Place::AssetUpload } if *method == Method::POST => {
                return Box::pin(workers::upload_assets(self, account, parts, body)).await;
            }
            _ => {}
        }
        let caller = self.caller(&parts.headers).map_err(|error| {
            let now = Duration::from_millis(self.kv.now_ms());
            self.shared.config.failures.answer(error, self.from, now)
        })?;
        self.count(&caller)?;
        let mut demands = Demands::from_headers(&parts.headers)?;
        demands.meet(self).await?;
        let mut reply = self.answer(route, caller, parts, method, body).await?;
        demands.acknowledge(self, &mut reply).await?;
        Ok(reply)
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, RequestError> {
        match self.shared.config.dev {
            true => Caller::anyone(headers, self.shared.config.account),
            false => Caller::authenticate(headers, &self.kv),
        }
    }

    /// One more request of the caller's: fails if they have been too many lately.
    fn count(&self, caller: &Caller) -> Result<(), RequestError> {
        let Caller::Holder(token) = caller else { return Ok(()) };
        self.shared.meter.ask(token.id, token.account, || Duration::from_millis(self.kv.now_ms()))
    }

    /// Writes down what the caller did. That it could not be written down undoes nothing.
    pub(crate) async fn audit(&self, caller: &Caller, what: &str, target: String) {
        let at_ms = self.kv.now_ms();
        let node = self.shared.config.node.clone();
        let act = Act { at_ms, who: caller.who(), from: self.from.to_string(), what: what.into(), target, node };
        tracing::info!(who = act.who, from = act.from, what, target = act.target, "audit");
        if let Err(error) = self.kv.audit(self.shared.operator.node(), act).await {
            tracing::error!(%error, what, "an act could not be written to the audit log");
        }
    }

    async fn answer(
        &self,
        route: Route<'_>,
        caller: Caller,
        parts: &Parts,
        method: &Method,
        body: &mut RequestBody,
    ) -> Result<Reply, RequestError> {
        if let Route::Namespace { account, namespace, target } = route {
            let account = caller.account(account, parts.uri.path())?;
            return self.in_namespace(&caller, account, namespace, target, parts, method, body).await;
        }
        // Apart, as everything below that is not about one key: a future is moved when a request comes, and is as large
        // as the largest of what it may wait for.
        Box::pin(self.administer(route, caller, parts, method, body)).await
    }

    async fn administer(
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
            (Route::Namespaces(account), "GET") => {
                namespaces::list(self, &caller, caller.account(account, path)?, query)
            }
            (Route::Namespaces(account), "POST") => {
                let account = caller.account(account, path)?;
                caller.require(Scope::Admin, None)?;
                let reply = namespaces::create(self, account, body).await?;
                self.audit(&caller, "namespace.create", format!("of {account}")).await;
                Ok(reply)
            }
            (Route::Namespaces(_), _) => Err(refuse(method, "GET, POST")),
            (Route::User, "GET") => accounts::user(&caller, &parts.headers),
            (Route::TokenVerify, "GET") => accounts::verify_token(&caller),
            (Route::AccountTokenVerify(account), "GET") => {
                caller.account(account, path)?;
                accounts::verify_token(&caller)
            }
            (Route::Accounts, "GET") => accounts::accounts(&caller, query, node),
            (Route::Account(account), "GET") => {
                caller.account(account, path)?;
                accounts::account(account, node)
            }
            (Route::Zones, "GET") => workers::zones(Call::new(self, &caller, caller.home(), parts)).await,
            (Route::Zone(id), "GET") => workers::zone(Call::new(self, &caller, caller.home(), parts), id).await,
            (Route::ZonePatterns(zone), _) => {
                let call = Call::new(self, &caller, caller.home(), parts);
                workers::zone_routes(call, zone, method, body).await
            }
            (Route::ZonePattern(zone, id), _) => {
                let call = Call::new(self, &caller, caller.home(), parts);
                workers::zone_route(call, zone, id, method, body).await
            }
            (Route::Workers { account, place }, _) => {
                let account = caller.account(account, path)?;
                workers::answer(Call::new(self, &caller, account, parts), place, method, body).await
            }
            (Route::Memberships, "GET") => accounts::memberships(&caller, query, node),
            (Route::Tokens, "GET") => tokens::list(self, &caller, query),
            (Route::Tokens, "POST") => tokens::create(self, &caller, body).await,
            (Route::Tokens | Route::StarlingAccounts, _) if method != Method::GET && method != Method::POST => {
                Err(refuse(method, "GET, POST"))
            }
            (Route::Token(id), "DELETE") => tokens::revoke(self, &caller, id, query).await,
            (Route::Token(_), _) => Err(refuse(method, "DELETE")),
            (Route::TokenRoll(id), "POST") => tokens::roll(self, &caller, id, query, body).await,
            (Route::StarlingAccounts, "GET") => tokens::accounts(self, &caller),
            (Route::StarlingAccounts, "POST") => tokens::create_account(self, &caller, body).await,
            (Route::Metrics, "GET") => {
                caller.require(Scope::Operate, None)?;
                observe::metrics(&self.shared.operator).await
            }
            (Route::Status, "GET") => {
                caller.require(Scope::Operate, None)?;
                operator::status(self).await
            }
            (Route::Audit, "GET") => {
                caller.require(Scope::Operate, None)?;
                operator::audit(self, query)
            }
            (Route::Keys, "GET") => {
                caller.require(Scope::Operate, None)?;
                operator::keys(self).await
            }
            (Route::RotateKeys, "POST") => operator::rotate_keys(self, &caller, body).await,
            (Route::Verify, "POST") => operator::verify(self, &caller, body).await,
            (Route::Backups | Route::Backup(_), _) => {
                caller.require(Scope::Operate, None)?;
                match (route, method.as_str()) {
                    (Route::Backups, "POST") => backups::begin(self, &caller).await,
                    (Route::Backup(number), "GET") => backups::pieces(self, number, query),
                    (Route::Backup(number), "DELETE") => backups::end(self, number),
                    (Route::Backups, _) => Err(refuse(method, "POST")),
                    _ => Err(refuse(method, "GET, DELETE")),
                }
            }
            (Route::Invite, "POST") => {
                caller.require(Scope::Operate, None)?;
                let reply = operator::invite(self, body).await?;
                self.audit(&caller, "node.invite", String::new()).await;
                Ok(reply)
            }
            (Route::Leave, "POST") => {
                caller.require(Scope::Operate, None)?;
                // Before it is done: afterwards this node writes nothing any more.
                self.audit(&caller, "node.leave", node.clone()).await;
                operator::leave(self).await
            }
            (Route::Evict, "POST") => operator::evict(self, &caller, body).await,
            (Route::Invite | Route::Leave | Route::Evict, _) => Err(refuse(method, "POST")),
            (Route::TokenRoll(_) | Route::RotateKeys | Route::Verify, _) => Err(refuse(method, "POST")),
            _ => Err(refuse(method, "GET")),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what a request is made of")]
    async fn in_namespace(
        &self,
        caller: &Caller,
        account: AccountId,
        namespace: &str,
        target: Target<'_>,
        parts: &Parts,
        method: &Method,
        body: &mut RequestBody,
    ) -> Result<Reply, RequestError> {
        let ns = admitted(&self.kv, caller, account, namespace, target, method)?;
        let query = Query::new(parts.uri.query());
        match (target, method.as_str()) {
            (Target::Value(key), "GET") => values::get(self, ns, &decode_key(key)?).await,
            (Target::Value(key), "PUT") => {
                let key = decode_key(key)?;
                if self.shared.meter.bounds_holdings() {
                    let is_new = self.kv.get(ns, &key).await.map_err(RequestError::kv("put"))?.is_none();
                    let len = body.stated_len().unwrap_or(0);
                    Box::pin(self.shared.meter.admit(&self.kv, account, u64::from(is_new), len)).await?;
                }
                values::put(self, ns, &key, query, &parts.headers, body).await
            }
            (Target::Value(key), "DELETE") => values::delete(self, ns, &decode_key(key)?).await,
            _ => Box::pin(self.in_whole_namespace(caller, account, ns, target, parts, method, body)).await,
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what a request is made of")]
    async fn in_whole_namespace(
        &self,
        caller: &Caller,
        account: AccountId,
        ns: NamespaceId,
        target: Target<'_>,
        parts: &Parts,
        method: &Method,
        body: &mut RequestBody,
    ) -> Result<Reply, RequestError> {
        let query = Query::new(parts.uri.query());
        match (target, method.as_str()) {
            (Target::Value(_), _) => Err(refuse(method, "GET, PUT, DELETE")),
            (Target::Metadata(key), "GET") => values::get_metadata(self, ns, &decode_key(key)?).await,
            (Target::Keys, "GET") => keys::list(self, ns, query).await,
            (Target::Changes, "GET") => changes::follow(self, ns, query, &parts.headers).await,
            (Target::Metadata(_) | Target::Keys | Target::Changes, _) => Err(refuse(method, "GET")),
            (Target::Bulk, "PUT") => bulk::put(self, account, ns, body).await,
            (Target::Bulk, "DELETE") | (Target::BulkDelete, "POST") => bulk::delete(self, ns, body).await,
            (Target::Bulk, _) => Err(refuse(method, "PUT, DELETE")),
            (Target::BulkGet, "POST") => bulk_get::get(self, ns, body).await,
            (Target::BulkDelete | Target::BulkGet, _) => Err(refuse(method, "POST")),
            (Target::Itself, "GET") => namespaces::get(self, account, ns),
            (Target::Itself, "PUT") => {
                let reply = namespaces::rename(self, account, ns, body).await?;
                self.audit(caller, "namespace.rename", ns.to_string()).await;
                Ok(reply)
            }
            (Target::Itself, "DELETE") => {
                let reply = namespaces::delete(self, account, ns).await?;
                self.audit(caller, "namespace.delete", ns.to_string()).await;
                Ok(reply)
            }
            (Target::Itself, _) => Err(refuse(method, "GET, PUT, DELETE")),
        }
    }
}

/// The namespace that is asked for, if the caller may do that there.
fn admitted(
    kv: &Kv,
    caller: &Caller,
    account: AccountId,
    namespace: &str,
    target: Target<'_>,
    method: &Method,
) -> Result<NamespaceId, RequestError> {
    let Ok(ns) = namespace.parse::<NamespaceId>() else {
        return Err(RequestError::namespace_id(namespace));
    };
    caller.require(scope(target, method), Some(ns))?;
    if target == Target::Changes {
        // Keys, and their values if they are asked for.
        caller.require(Scope::Read, Some(ns))?;
    }
    if target == Target::Itself && method != Method::GET {
        // Renaming or deleting takes the right to administer the whole account.
        caller.require(Scope::Admin, None)?;
    }
    if target != Target::Itself {
        // Keys are asked for by namespace alone: that it is the caller's is settled here.
        kv.check_owner(account, ns).map_err(RequestError::kv(operation(target, method)))?;
    }
    Ok(ns)
}

/// Writes a number's hexadecimal digits so that they end before `end`; gives where they begin.
fn hex_before(text: &mut [u8], end: usize, mut number: u64) -> usize {
    let mut at = end;
    loop {
        at -= 1;
        text[at] = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
        if number == 0 {
            return at;
        }
    }
}

/// What a token must be good for.
fn scope(target: Target<'_>, method: &Method) -> Scope {
    match (target, method.as_str()) {
        (Target::Value(_) | Target::Metadata(_), "GET") | (Target::BulkGet, _) => Scope::Read,
        (Target::Value(_) | Target::Metadata(_) | Target::Bulk | Target::BulkDelete, _) => Scope::Write,
        (Target::Keys | Target::Changes, _) | (Target::Itself, "GET") => Scope::List,
        (Target::Itself, _) => Scope::Admin,
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

pub(crate) fn refuse(method: &Method, allow: &'static str) -> RequestError {
    RequestError::Method { method: method.as_str().chars().take(32).collect(), allow }
}

/// From a short list, whatever clients make up.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

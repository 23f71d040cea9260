//! The HTTP API: Cloudflare's Workers KV REST API (v4), so that its clients work unchanged, and `/starling/v1`.
//!
//! Goes through [`Kv`] and [`Operator`] for everything; knows nothing of storage, peers or replication.
//!
//! A request takes one way: `serve` (connections) → `dispatch` (who asks, and which handler) → a handler
//! (`namespaces`, `keys`, `values`, `bulk`, `bulk_get`, `accounts`, `operator`, `workers`) → `envelope` or `error`.

mod accounts;
pub(crate) mod auth;
mod backups;
pub(crate) mod body;
mod bulk;
pub(crate) mod bulk_get;
mod changes;
mod dispatch;
mod envelope;
pub(crate) mod error;
pub(crate) mod expiry;
mod failures;
mod hangup;
mod headers;
mod heavy;
pub(crate) mod key;
pub(crate) mod keys;
mod lanes;
pub(crate) mod listen;
pub(crate) mod metadata;
mod multipart;
mod namespaces;
mod observe;
mod openapi;
mod operator;
mod paging;
pub(crate) mod places;
pub(crate) mod query;
mod quota;
pub(crate) mod reply;
mod route;
pub(crate) mod serve;
pub(crate) mod session;
pub(crate) mod stall;
#[cfg(test)]
pub(crate) mod tests;
mod timestamp;
mod tokens;
pub(crate) mod values;
mod workers;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use hyper::header::HeaderValue;
use tokio::sync::{Semaphore, watch};

use crate::https::ServerTls;
use crate::kv::{AccountId, Kv};
use crate::operator::Operator;
use crate::worker::Workers;
pub use failures::Failures;
pub use observe::serve_observers;
use quota::Meter;
pub use quota::Quotas;
pub use serve::{ApiError, serve};

/// How the API presents itself. There is no default: whoever serves has to say whether credentials count.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Takes any credentials or none, and any account. Only for a node that nobody else can reach.
    pub dev: bool,
    /// The name of this PoP, sent with every answer as `starling-pop`; without one, the node's name is.
    pub pop: Option<String>,
    /// The name of this node, shown to clients that ask for their accounts.
    pub node: String,
    /// The account that clients are told about in dev mode.
    pub account: AccountId,
    /// Where requests for Workers arrive, if they do here.
    pub workers_url: Option<String>,
    /// Serves HTTPS with this certificate, and nothing else.
    pub tls: Option<Arc<ServerTls>>,
    /// Failed logins, at the other listeners too.
    pub failures: Arc<Failures>,
    /// What tokens and accounts may ask of this node.
    pub quotas: Quotas,
}

/// What a handler works with.
pub(crate) struct Api {
    /// In the session of one request.
    kv: Kv,
    /// Who sent the request.
    from: IpAddr,
    shared: Arc<Shared>,
}

/// What all requests share.
struct Shared {
    operator: Operator,
    workers: Workers,
    tails: workers::TailGrants,
    config: ApiConfig,
    pop: Option<HeaderValue>,
    /// Places for requests that hold much memory.
    large_bodies: Semaphore,
    meter: Meter,
    /// True once the server is to end: what never ends by itself should.
    closing: watch::Sender<bool>,
    /// Request ids are the start of this process and a count.
    started_secs: u64,
    requests: AtomicU64,
}

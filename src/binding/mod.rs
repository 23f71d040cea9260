//! workerd's `kvNamespace` binding: the HTTP/1.1 protocol that Workers' `env.KV.get()` and the like turn into.
//!
//! A second face of [`Kv`], with limits, wording and the reading of bodies from `api`. One listener serves many
//! namespaces: each request says which (`X-KV-Namespace`), an `Authorize` says whether. Knows nothing of Workers
//! themselves, of storage or of peers.
//!
//! A Worker sees of an error the status and the reason phrase, so HTTP/2, which has none, is not spoken here.

mod authorize;
mod bulk_get;
mod list;
mod listener;
mod local;
mod reply;
mod request;
mod serve;
#[cfg(test)]
mod tests;
mod values;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub(crate) use crate::api::error::RequestError as NamespaceRefused;
use crate::kv::Kv;
pub(crate) use authorize::{AnyNamespace, Authorize, TokenHolder, stated as stated_namespace};
pub use listener::ListenError;
pub(crate) use listener::Listener;
pub(crate) use local::{Local, PutOptions, Refusal, body as value_body};
pub(crate) use serve::{CONNECTIONS_MAX, serve};

/// What handlers share.
struct Binding {
    kv: Kv,
    authorize: Arc<dyn Authorize>,
    /// Places for requests that hold much memory.
    large_bodies: Semaphore,
}

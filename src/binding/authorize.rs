//! Which namespace a request is for, and whether its sender may ask.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderMap;

use crate::api::Failures;
use crate::api::auth::Caller;
use crate::api::error::RequestError;
use crate::kv::{Kv, NamespaceId, Scope};

/// Says which namespace: its id, 32 hexadecimal digits. Put there by workerd's `injectRequestHeaders`.
const NAMESPACE: &str = "x-kv-namespace";

/// Decides what a request may reach. Asked for every request, before anything of it is carried out.
pub(crate) trait Authorize: Send + Sync + 'static {
    /// The namespace, which exists and in which the sender may do what `scope` says, or why not.
    fn namespace(&self, kv: &Kv, headers: &HeaderMap, scope: Scope) -> Result<NamespaceId, RequestError>;
}

/// Whoever gets through to the listener may ask for any namespace: a unix socket, guarded by its file mode, or
/// loopback with `--dev`.
pub(crate) struct AnyNamespace;

impl Authorize for AnyNamespace {
    fn namespace(&self, kv: &Kv, headers: &HeaderMap, _: Scope) -> Result<NamespaceId, RequestError> {
        let namespace = stated(headers)?;
        kv.check_namespace(namespace).map_err(|_| RequestError::BindingNamespace(NAMESPACE_MISSING))?;
        Ok(namespace)
    }
}

/// The holder of an API token may ask for the namespaces of the token's account, as far as its scopes go.
pub(crate) struct TokenHolder {
    /// Failed logins, at the other listeners too.
    pub(crate) failures: Arc<Failures>,
}

impl Authorize for TokenHolder {
    fn namespace(&self, kv: &Kv, headers: &HeaderMap, scope: Scope) -> Result<NamespaceId, RequestError> {
        let caller = Caller::authenticate(headers, kv).map_err(|error| {
            // Only loopback may ask here.
            self.failures.answer(error, Ipv4Addr::LOCALHOST.into(), Duration::from_millis(kv.now_ms()))
        })?;
        let namespace = stated(headers)?;
        caller.require(scope, Some(namespace))?;
        kv.check_owner(caller.home(), namespace).map_err(|_| RequestError::BindingNamespace(NAMESPACE_MISSING))?;
        Ok(namespace)
    }
}

// Not with status 404: to a Worker that would be a missing key.
const NAMESPACE_MISSING: &str = "There is no namespace with the id in X-KV-Namespace";

/// The namespace that a request says it is for.
pub(crate) fn stated(headers: &HeaderMap) -> Result<NamespaceId, RequestError> {
    let value = headers.get(NAMESPACE).ok_or(RequestError::BindingNamespace(
        "The header X-KV-Namespace is missing: let workerd inject it, with the id of the namespace",
    ))?;
    value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or(RequestError::BindingNamespace("The header X-KV-Namespace must have 32 hexadecimal digits"))
}

//! The one place where a user's mistake or a [`KvError`] becomes an HTTP status, a Cloudflare code and a message.
//!
//! The numbers follow Cloudflare's Workers KV table as far as clients show it; a limit, key or credential mistake has
//! a number that Cloudflare's own tools print a hint for. Knows nothing of routes or of what was asked.

use std::time::Duration;

use bytes::Bytes;
use hyper::ext::ReasonPhrase;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::body::BodyError;
use super::reply::Reply;
use crate::kv::{KvError, Scope};
use crate::operator::{BackupRefusal, OperatorError};
use crate::replica::limits::{KEY_LEN_MAX, METADATA_LEN_MAX, TITLE_LEN_MAX, VALUE_LEN_MAX};
use crate::worker::WorkerError;

/// Longest reason phrase, in bytes: some clients cap the status line.
const REASON_LEN_MAX: usize = 512;
/// How much of a path an error repeats, in characters.
const PATH_ECHO_MAX: usize = 256;
/// Seconds that a client should wait before it tries a refused write again.
const RETRY_AFTER_SECS: HeaderValue = HeaderValue::from_static("1");

/// Why a request was not answered with a 2xx. Nothing was changed, unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// Cloudflare's answer to a request without credentials: HTTP 400, code 9106.
    #[error("Missing X-Auth-Key, X-Auth-Email or Authorization headers")]
    MissingCredentials,
    /// Cloudflare's answer to headers it can't read: HTTP 400, code 6003, the details in `error_chain`.
    #[error("Invalid request headers")]
    MalformedCredentials(u32, &'static str),
    /// A wrong token, or a right one for another account: the two are not told apart.
    #[error("Authentication error")]
    Unauthenticated,
    /// A right token for the right account, but not for this.
    #[error("This API token does not have the scope \"{scope}\" for {place}")]
    OutOfScope { scope: Scope, place: &'static str },
    #[error("This API token may not {0}")]
    Scope(&'static str),
    /// Too many wrong tokens from one address.
    #[error("Too many failed logins from your address, wait a minute and check the API token")]
    TooManyFailures,
    /// A rate that the operator has set.
    #[error("Too many requests with {what}: this node takes {rate} a second")]
    TooOften { what: &'static str, rate: u64 },
    /// A quota that the operator has set.
    #[error(
        "The account holds {held} {what} here, and may hold {max}: delete some, or have the operator raise the quota"
    )]
    HoldsTooMuch { held: u64, max: u64, what: &'static str },
    #[error("This node runs with --dev and takes no requests that a web page of another site sends")]
    CrossSite,
    #[error("Could not route to {0}, perhaps your object identifier is invalid?")]
    NoRoute(String),
    #[error("Method {method} not available for that URI, it takes {allow}.")]
    Method { method: String, allow: &'static str },
    #[error("could not parse UUID from request's namespace_id: 'uuid: incorrect UUID {fault}: {id}'")]
    NamespaceId { fault: &'static str, id: String },
    #[error("{0}: 'key not found'")]
    KeyNotFound(&'static str),
    #[error("{op}: 'namespace not found'")]
    NamespaceNotFound { op: &'static str },
    #[error("{op}: 'a namespace with this account ID and title already exists'")]
    TitleTaken { op: &'static str },
    #[error("The namespace title is missing: send JSON with a \"title\" of 1 to {TITLE_LEN_MAX} bytes.")]
    TitleMissing,
    #[error("The namespace title has {0} bytes, the limit is {TITLE_LEN_MAX}.")]
    TitleTooLong(usize),
    #[error("{0}")]
    Key(&'static str),
    #[error("UTF-8 encoded length of {0} exceeds key length limit of {KEY_LEN_MAX}.")]
    KeyTooLong(usize),
    #[error("Value length of {0} exceeds limit of {VALUE_LEN_MAX}.")]
    ValueTooLarge(u64),
    #[error("Metadata length of {0} exceeds limit of {METADATA_LEN_MAX}.")]
    MetadataTooLarge(usize),
    #[error("The metadata is not valid JSON: {0}.")]
    Metadata(String),
    #[error("Invalid expiration of {0}. {1}")]
    Expiration(String, &'static str),
    #[error("Invalid expiration_ttl of {0}. {1}")]
    ExpirationTtl(String, &'static str),
    #[error("Invalid limit of {0}. Please specify an integer from 1 to 1000.")]
    Limit(String),
    #[error("Invalid key_count_limit of {0}. {1}")]
    KeyCountLimit(String, &'static str),
    #[error("Invalid cache_ttl of {0}. Cache TTL must be at least {1}.")]
    CacheTtl(String, i64),
    /// A binding's request that does not say which namespace, or says one that can't be had.
    #[error("{0}.")]
    BindingNamespace(&'static str),
    #[error("Invalid cursor. Pass on the cursor of the last answer.")]
    Cursor,
    #[error("{0}")]
    Invalid(String),
    #[error("Malformed multipart form: {0}.")]
    Form(String),
    #[error("pair {index} (key {key:?}): {source}")]
    Pair { index: usize, key: String, source: Box<RequestError> },
    #[error("Total size of request exceeds the limit of 25MB")]
    BulkGetTooLarge,
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("Invalid position. Pass on the id of an event, or a starling-bookmark, as it came.")]
    Position,
    #[error("Invalid starling-bookmark. Pass one on as it came with an answer, or leave the header out.")]
    Bookmark,
    /// The write was kept.
    #[error(
        "Within {} ms only these nodes had the write on disk: {by}. It stays, and goes on spreading.", wait.as_millis()
    )]
    NotAcknowledged { wait: Duration, by: String },
    /// Whatever the catalog of Workers refused.
    #[error("{0}")]
    Worker(WorkerError),
    #[error("This Worker does not exist on your account.")]
    ServiceNotFound,
    /// What was uploaded is no script.
    #[error("The upload can't be used: {0}.")]
    Upload(String),
    #[error(
        "The latest version of this Worker isn't currently deployed, and this would deploy it: deploy it first, or \
         make a version with the change and deploy that."
    )]
    NotDeployed,
    #[error("This node has as many tails as there can be: close one, or use another node.")]
    TooManyTails,
    #[error("There is no such tail at this node: it was deleted, has expired, or was begun at another.")]
    TailNotFound,
    /// Whatever the store refused for a reason of its own. After `Storage` the write may or may not have been kept.
    #[error("{0}")]
    Kv(KvError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error(transparent)]
    Backup(#[from] BackupRefusal),
    #[error("This node failed to answer, see its log.")]
    Internal(&'static str),
}

impl RequestError {
    /// Gives a [`KvError`] the wording of the operation it interrupted.
    pub(crate) fn kv(op: &'static str) -> impl Fn(KvError) -> Self {
        move |error| match error {
            KvError::NamespaceNotFound => Self::NamespaceNotFound { op },
            KvError::TitleTaken => Self::TitleTaken { op },
            KvError::InvalidKey(reason) => Self::Key(reason),
            KvError::KeyTooLong { len, .. } => Self::KeyTooLong(len),
            KvError::ValueTooLarge { len, .. } => Self::ValueTooLarge(len),
            KvError::MetadataTooLarge { len, .. } => Self::MetadataTooLarge(len),
            other => Self::Kv(other),
        }
    }

    pub(crate) fn no_route(path: &str) -> Self {
        Self::NoRoute(path.chars().take(PATH_ECHO_MAX).collect())
    }

    /// A text that was to be the id of a namespace.
    pub(crate) fn namespace_id(text: &str) -> Self {
        let fault = if text.len() == 32 { "format" } else { "length" };
        Self::NamespaceId { fault, id: text.chars().take(64).collect() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    pub(crate) fn in_pair(self, index: usize, key: &str) -> Self {
        Self::Pair { index, key: key.into(), source: Box::new(self) }
    }

    pub(crate) fn status_and_code(&self) -> (StatusCode, u32) {
        match self {
            Self::MissingCredentials => (StatusCode::BAD_REQUEST, 9106),
            Self::MalformedCredentials(..) => (StatusCode::BAD_REQUEST, 6003),
            Self::Unauthenticated | Self::CrossSite => (StatusCode::FORBIDDEN, 10000),
            Self::OutOfScope { .. } | Self::Scope(_) => (StatusCode::FORBIDDEN, 9109),
            Self::TooManyFailures | Self::TooOften { .. } => (StatusCode::TOO_MANY_REQUESTS, 10429),
            Self::HoldsTooMuch { .. } => (StatusCode::TOO_MANY_REQUESTS, 10048),
            Self::NoRoute(_) => (StatusCode::NOT_FOUND, 7003),
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, 7001),
            Self::NamespaceId { .. } => (StatusCode::BAD_REQUEST, 10011),
            Self::KeyNotFound(_) => (StatusCode::NOT_FOUND, 10009),
            Self::NamespaceNotFound { .. } => (StatusCode::NOT_FOUND, 10013),
            Self::TitleTaken { .. } => (StatusCode::BAD_REQUEST, 10014),
            Self::TitleMissing => (StatusCode::BAD_REQUEST, 10019),
            Self::TitleTooLong(_) => (StatusCode::BAD_REQUEST, 10010),
            Self::Key(_) => (StatusCode::BAD_REQUEST, 10029),
            Self::KeyTooLong(_) => (StatusCode::URI_TOO_LONG, 10030),
            Self::ValueTooLarge(_) | Self::MetadataTooLarge(_) | Self::BulkGetTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, 10024)
            }
            Self::Metadata(_) | Self::Invalid(_) | Self::Form(_) => (StatusCode::BAD_REQUEST, 10001),
            Self::Expiration(..) => (StatusCode::BAD_REQUEST, 10033),
            Self::ExpirationTtl(..) => (StatusCode::BAD_REQUEST, 10034),
            Self::Limit(_) | Self::KeyCountLimit(..) => (StatusCode::BAD_REQUEST, 10028),
            Self::CacheTtl(..) => (StatusCode::BAD_REQUEST, 10001),
            Self::BindingNamespace(_) => (StatusCode::BAD_REQUEST, 10011),
            Self::Cursor => (StatusCode::BAD_REQUEST, 10039),
            // Whatever is wrong with a pair, the request as a whole is at fault, not its address.
            Self::Pair { source, .. } => match source.status_and_code() {
                (StatusCode::URI_TOO_LONG, code) => (StatusCode::BAD_REQUEST, code),
                other => other,
            },
            Self::Body(BodyError::TooLarge { .. }) => (StatusCode::PAYLOAD_TOO_LARGE, 10024),
            Self::Body(BodyError::Slow) => (StatusCode::REQUEST_TIMEOUT, 10001),
            Self::Body(BodyError::Broken(_)) => (StatusCode::BAD_REQUEST, 10001),
            Self::Bookmark | Self::Position => (StatusCode::BAD_REQUEST, 10001),
            Self::NotAcknowledged { .. } | Self::Kv(KvError::NotCovered { .. }) => (StatusCode::GATEWAY_TIMEOUT, 10001),
            Self::Kv(KvError::Departed) => (StatusCode::CONFLICT, 10001),
            Self::Kv(KvError::FewerNodes { .. }) => (StatusCode::BAD_REQUEST, 10001),
            Self::Kv(KvError::Overloaded | KvError::TooManyFeeds) => (StatusCode::TOO_MANY_REQUESTS, 10022),
            Self::Kv(KvError::ReadOnly(_) | KvError::ClockFenced(_) | KvError::Fenced(_) | KvError::ShuttingDown) => {
                (StatusCode::SERVICE_UNAVAILABLE, 10001)
            }
            Self::Kv(KvError::TokenNotFound) => (StatusCode::NOT_FOUND, 1001),
            Self::Kv(KvError::InvalidTitle { .. } | KvError::TooManyTokens | KvError::TooManyAccounts) => {
                (StatusCode::BAD_REQUEST, 10001)
            }
            Self::Kv(KvError::NoKey) => (StatusCode::SERVICE_UNAVAILABLE, 10001),
            Self::Kv(_) | Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, 10001),
            Self::Operator(_) => (StatusCode::CONFLICT, 10001),
            Self::Backup(BackupRefusal::Busy) => (StatusCode::TOO_MANY_REQUESTS, 10001),
            Self::Backup(BackupRefusal::Gone) => (StatusCode::NOT_FOUND, 10001),
            Self::Backup(BackupRefusal::Failed(_)) => (StatusCode::CONFLICT, 10001),
            Self::Worker(error) => worker_status_and_code(error),
            Self::ServiceNotFound => (StatusCode::NOT_FOUND, 10090),
            Self::Upload(_) => (StatusCode::BAD_REQUEST, 10021),
            Self::NotDeployed => (StatusCode::BAD_REQUEST, 10215),
            Self::TailNotFound => (StatusCode::NOT_FOUND, 10058),
            Self::TooManyTails => (StatusCode::TOO_MANY_REQUESTS, 10057),
        }
    }

    /// What only the log says.
    pub(crate) fn detail(&self) -> &'static str {
        if let Self::Internal(detail) = self { detail } else { "" }
    }

    /// The answer, in the envelope of every error. Logs what the operator of this node has to know.
    pub(crate) fn to_reply(&self, request_id: &HeaderValue) -> Reply {
        let (status, code) = self.status_and_code();
        let message = self.to_string();
        if status.is_server_error() && status != StatusCode::GATEWAY_TIMEOUT {
            let (request_id, detail) = (request_id.to_str().unwrap_or_default(), self.detail());
            tracing::warn!(request_id, status = status.as_u16(), %message, detail, "request failed");
        }
        let mut errors = vec![Item { code, message, error_chain: None }];
        if let (Self::MalformedCredentials(code, message), Some(first)) = (&self, errors.first_mut()) {
            first.error_chain = Some([Link { code: *code, message }]);
        }
        if let Self::NoRoute(_) = self {
            errors.push(Item { code: 7000, message: NO_ROUTE_HINT.into(), error_chain: None });
        }
        let failure = Failure { result: (), success: false, errors, messages: [] };
        let body = serde_json::to_vec(&failure).map_or_else(|_| Bytes::new(), Bytes::from);
        let mut response = Response::new(body.into());
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECS);
        }
        if let Self::Method { allow, .. } = self {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

/// As Cloudflare numbers them, as far as its clients show it; otherwise near what they are like.
fn worker_status_and_code(error: &WorkerError) -> (StatusCode, u32) {
    match error {
        WorkerError::ScriptNotFound => (StatusCode::NOT_FOUND, 10007),
        WorkerError::VersionNotFound(_) => (StatusCode::NOT_FOUND, 100146),
        WorkerError::DeploymentNotFound(_) => (StatusCode::NOT_FOUND, 10006),
        WorkerError::SecretNotFound(_) => (StatusCode::NOT_FOUND, 10056),
        WorkerError::RouteNotFound => (StatusCode::NOT_FOUND, 10009),
        WorkerError::Name(_) => (StatusCode::BAD_REQUEST, 10016),
        WorkerError::TooManyScripts => (StatusCode::FORBIDDEN, 10037),
        WorkerError::ModuleTooLarge(..) | WorkerError::CodeTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, 10027),
        WorkerError::NamespaceMissing { .. } => (StatusCode::BAD_REQUEST, 10041),
        WorkerError::BindingTaken(_) => (StatusCode::BAD_REQUEST, 10053),
        WorkerError::VariableTooLarge(..) => (StatusCode::BAD_REQUEST, 10054),
        WorkerError::NoCode
        | WorkerError::NoMain(..)
        | WorkerError::Unfit(_)
        | WorkerError::TooManyModules
        | WorkerError::SameModule(_)
        | WorkerError::ModuleName(_)
        | WorkerError::Binding { .. }
        | WorkerError::TooManyBindings
        | WorkerError::RemarksTooLarge(_)
        | WorkerError::Date(_) => (StatusCode::BAD_REQUEST, 10021),
        WorkerError::Shares(_) => (StatusCode::BAD_REQUEST, 10213),
        WorkerError::Pattern { .. } => (StatusCode::BAD_REQUEST, 10022),
        WorkerError::TooManyRoutes => (StatusCode::FORBIDDEN, 10023),
        WorkerError::RouteTaken { .. } => (StatusCode::CONFLICT, 10020),
        WorkerError::Cron { .. } | WorkerError::TooManyCrons => (StatusCode::BAD_REQUEST, 10100),
        WorkerError::Subdomain(_) => (StatusCode::BAD_REQUEST, 10031),
        WorkerError::SubdomainTaken(_) => (StatusCode::CONFLICT, 10032),
        WorkerError::Manifest(_)
        | WorkerError::TooManyAssets
        | WorkerError::AssetsMissing(_)
        | WorkerError::StrangeAsset(_) => (StatusCode::BAD_REQUEST, 10304),
        WorkerError::AssetTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, 10304),
        WorkerError::NoSession => (StatusCode::UNAUTHORIZED, 10305),
        // Never by itself: see the conversion.
        WorkerError::Kv(_) => (StatusCode::INTERNAL_SERVER_ERROR, 10001),
    }
}

const NO_ROUTE_HINT: &str = "No route for that URI. Starling serves \
    /client/v4/accounts/{account}/storage/kv/namespaces and /client/v4/accounts/{account}/workers, and what is below \
    them; a slash in a key is written %2F.";

#[derive(Serialize)]
struct Failure {
    result: (),
    success: bool,
    errors: Vec<Item>,
    messages: [(); 0],
}

#[derive(Serialize)]
struct Item {
    code: u32,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_chain: Option<[Link; 1]>,
}

#[derive(Serialize)]
struct Link {
    code: u32,
    message: &'static str,
}

/// A message as a reason phrase. Printable ASCII only: what a client sends may not end a header line, and clients read this line as Latin-1.
pub(crate) fn reason_phrase(message: &str) -> Option<ReasonPhrase> {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    ReasonPhrase::try_from(message.chars().take(REASON_LEN_MAX).map(printable).collect::<String>()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_phrase_never_carries_a_line_break() {
        let reason = reason_phrase("bad\r\nX-Evil: 1 é").expect("printable");
        assert_eq!(reason.as_ref(), b"bad??X-Evil: 1 ?");
    }
}

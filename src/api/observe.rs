//! What load balancers and Prometheus ask: `/healthz`, `/readyz`, `/metrics`; also on a listener of their own, where
//! nobody needs a token and nothing else is served.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use super::envelope;
use super::error::RequestError;
use super::reply::{Reply, ReplyBody};
use super::route::{Route, route};
use super::serve::{Answers, ApiError, serve_with};
use crate::metrics::Page;
use crate::operator::Operator;

/// The process lives. Never asks the driver.
pub(crate) fn health() -> Reply {
    text(StatusCode::OK, "text/plain", Bytes::from_static(b"ok"))
}

/// Whether users should be sent here, and if not, why.
pub(crate) async fn ready(operator: &Operator) -> Result<Reply, RequestError> {
    let reasons = operator.unready().await;
    let mut reply = envelope::bare(&json!({ "ready": reasons.is_empty(), "reasons": reasons }))?;
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !reasons.is_empty() {
        *reply.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(reply)
}

pub(crate) async fn metrics(operator: &Operator) -> Result<Reply, RequestError> {
    Ok(text(StatusCode::OK, Page::CONTENT_TYPE, operator.metrics_page().await?.into()))
}

fn text(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = Response::new(body.into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// Answers observers, and nobody else.
struct Observers(Operator);

/// Serves observers on `listener`, without a token, until `shutdown` completes.
///
/// # Errors
/// As [`serve`](super::serve()).
pub async fn serve_observers(
    listener: TcpListener,
    operator: Operator,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ApiError> {
    serve_with(listener, Arc::new(Observers(operator)), shutdown).await
}

impl Answers for Observers {
    type Body = ReplyBody;

    async fn answer(&self, request: Request<Incoming>, _: IpAddr) -> Result<Reply, Infallible> {
        let answer = match (request.method(), route(request.uri().path())) {
            (&Method::GET, Route::Health) => Ok(health()),
            (&Method::GET, Route::Ready) => ready(&self.0).await,
            (&Method::GET, Route::Metrics) => metrics(&self.0).await,
            _ => {
                let hint = "This listener serves GET /metrics, /healthz and /readyz; the API has its own.\n";
                Ok(text(StatusCode::NOT_FOUND, "text/plain", Bytes::from_static(hint.as_bytes())))
            }
        };
        Ok(answer.unwrap_or_else(|error| error.to_reply(&HeaderValue::from_static("-"))))
    }
}

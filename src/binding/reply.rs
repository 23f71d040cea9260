//! Answers without an envelope: what a Worker reads of a failure is the reason phrase.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::api::error::{RequestError, reason_phrase};
use crate::api::reply::Reply;

/// A success without a body.
pub(super) fn done() -> Reply {
    Response::new(Bytes::new().into())
}

/// A value as JSON.
pub(super) fn write_json(value: &impl Serialize) -> Result<Vec<u8>, RequestError> {
    serde_json::to_vec(value).map_err(|_| RequestError::Internal("an answer could not be written as JSON"))
}

/// A success with JSON.
pub(super) fn json_text(text: Vec<u8>) -> Reply {
    with_type(Bytes::from(text), "application/json")
}

/// A failure as Workers read it. Logs what the operator of this node has to know.
pub(super) fn told(error: &RequestError) -> (StatusCode, String) {
    let (status, _) = error.status_and_code();
    let message = match (status, error) {
        (StatusCode::TOO_MANY_REQUESTS, _) => "Too Many Requests".to_owned(),
        (_, RequestError::KeyNotFound(_)) => "Not Found".to_owned(),
        _ => error.to_string(),
    };
    if status.is_server_error() {
        tracing::warn!(status = status.as_u16(), %message, detail = error.detail(), "a binding's request failed");
    }
    (status, message)
}

/// A failure.
pub(super) fn failure(error: RequestError) -> Reply {
    let (status, message) = told(&error);
    let reason = reason_phrase(&message);
    let mut response = with_type(Bytes::from(message), "text/plain; charset=utf-8");
    *response.status_mut() = status;
    if let Some(reason) = reason {
        response.extensions_mut().insert(reason);
    }
    response
}

fn with_type(body: Bytes, content_type: &'static str) -> Reply {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

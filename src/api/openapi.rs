//! The description of what is served below `/client/v4`, in OpenAPI: `openapi.json` beside this file, embedded.
//!
//! Written by hand; a test compares it with the routes and with what they answer.

use bytes::Bytes;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::reply::Reply;

const DESCRIPTION: &str = include_str!("openapi.json");

/// What requires credentials, of which a node in dev mode asks none.
const SECURITY: &str = r#"
  "security": [{"token": []}, {"email": [], "key": []}],"#;

pub(crate) fn description(dev: bool) -> Reply {
    let text = if dev { Bytes::from(DESCRIPTION.replacen(SECURITY, "", 1)) } else { Bytes::from(DESCRIPTION) };
    let mut reply = Response::new(text.into());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

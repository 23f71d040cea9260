//! Cloudflare's envelope around every JSON answer: `{result, success, errors, messages, result_info?}`.
//!
//! Only the good half: errors are written by `error`.

use bytes::Bytes;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use super::error::RequestError;
use super::reply::Reply;

#[derive(Serialize)]
struct Envelope<T, I> {
    result: T,
    success: bool,
    errors: [(); 0],
    messages: Vec<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_info: Option<I>,
}

/// A note to the client beside the result.
#[derive(Serialize)]
pub(crate) struct Message {
    pub(crate) code: u32,
    pub(crate) message: &'static str,
}

/// `result: {}`. Not null: strict clients refuse null here.
pub(crate) fn empty() -> Reply {
    const EMPTY: &[u8] = br#"{"result":{},"success":true,"errors":[],"messages":[]}"#;
    json_reply(Bytes::from_static(EMPTY))
}

pub(crate) fn result(result: impl Serialize) -> Result<Reply, RequestError> {
    wrap(result, Vec::new(), None::<()>)
}

pub(crate) fn result_and_message(result: impl Serialize, message: Message) -> Result<Reply, RequestError> {
    wrap(result, vec![message], None::<()>)
}

pub(crate) fn page(result: impl Serialize, result_info: impl Serialize) -> Result<Reply, RequestError> {
    wrap(result, Vec::new(), Some(result_info))
}

fn wrap(
    result: impl Serialize,
    messages: Vec<Message>,
    result_info: Option<impl Serialize>,
) -> Result<Reply, RequestError> {
    bare(&Envelope { result, success: true, errors: [], messages, result_info })
}

/// JSON without an envelope.
pub(crate) fn bare(value: &impl Serialize) -> Result<Reply, RequestError> {
    let text =
        serde_json::to_vec(value).map_err(|_| RequestError::Internal("an answer could not be written as JSON"))?;
    Ok(json_reply(text.into()))
}

fn json_reply(text: Bytes) -> Reply {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

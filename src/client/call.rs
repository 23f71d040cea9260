//! One request and its answer, taken whole or piece by piece.
//!
//! Knows what the node's errors look like, not what is asked.

use std::error::Error;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ANSWER_LEN_MAX, ANSWER_TIMEOUT, Client, ClientError};

/// A request that is being put together.
pub(super) struct Call<'a> {
    client: &'a Client,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    patience: Duration,
    answer_len_max: usize,
}

/// An answer with a 2xx.
#[derive(Debug)]
pub struct Answer {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// An answer with a 2xx whose body comes piece by piece.
#[derive(Debug)]
pub struct Stream {
    /// Its headers.
    pub headers: HeaderMap,
    client: Client,
    body: Incoming,
    patience: Duration,
}

impl Client {
    pub(super) fn request(&self, method: Method, path: impl Into<String>) -> Call<'_> {
        Call {
            client: self,
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            patience: ANSWER_TIMEOUT,
            answer_len_max: ANSWER_LEN_MAX,
        }
    }
}

impl<'a> Call<'a> {
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn body(mut self, content_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header(CONTENT_TYPE.as_str(), content_type)
    }

    pub(super) fn json(self, body: &impl Serialize) -> Self {
        // Texts, numbers and lists of them can't fail to be written.
        let text = serde_json::to_vec(body).unwrap_or_default();
        self.body("application/json", text)
    }

    pub(super) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(super) fn answer_len_max(mut self, bytes: usize) -> Self {
        self.answer_len_max = bytes;
        self
    }

    /// The whole answer.
    pub(super) async fn answer(self) -> Result<Answer, ClientError> {
        let (client, patience) = (self.client, self.patience);
        let whole = async {
            let limit = self.answer_len_max;
            let response = self.send().await?;
            let (parts, body) = response.into_parts();
            match Limited::new(body, limit).collect().await {
                Ok(body) => Ok((parts.status, Answer { headers: parts.headers, body: body.to_bytes() })),
                Err(error) if error.is::<LengthLimitError>() => {
                    Err(client.not_starling(format!("longer than {} MiB", limit >> 20)))
                }
                Err(error) => Err(client.unreachable(format!("the answer broke off: {error}"))),
            }
        };
        let (status, answer) = client.in_time(patience, whole).await??;
        match status.is_success() {
            true => Ok(answer),
            false => Err(client.refused(status, &answer.body)),
        }
    }

    /// The JSON of the answer: what is under `result`, or all of it where there is no envelope.
    pub(super) async fn value(self) -> Result<Value, ClientError> {
        let client = self.client;
        let answer = self.answer().await?;
        let mut value: Value = client.parse(&answer)?;
        Ok(value.get_mut("result").map(Value::take).unwrap_or(value))
    }

    /// The answer piece by piece.
    pub(super) async fn stream(self) -> Result<Stream, ClientError> {
        let (client, patience) = (self.client, self.patience);
        let response = client.in_time(patience, self.send()).await??;
        let (parts, body) = response.into_parts();
        let mut stream = Stream { headers: parts.headers, client: client.clone(), body, patience };
        if parts.status.is_success() {
            return Ok(stream);
        }
        let mut text = Vec::new();
        while let Some(piece) = stream.next().await? {
            text.extend_from_slice(&piece);
            if text.len() > ANSWER_LEN_MAX {
                break;
            }
        }
        Err(client.refused(parts.status, &text))
    }

    async fn send(self) -> Result<Response<Incoming>, ClientError> {
        let client = self.client;
        let mut request = Request::builder().method(self.method).uri(format!("{}{}", client.url, self.path));
        if let Some(token) = &client.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(self.body)).map_err(|_| ClientError::BadToken)?;
        client.http()?.request(request).await.map_err(|error| client.broken(&error))
    }
}

impl Stream {
    pub(super) fn not_starling(&self, reason: &str) -> ClientError {
        self.client.not_starling(reason)
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = self.client.in_time(self.patience, self.body.frame()).await?;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    // Trailers say nothing to us.
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
                Some(Err(error)) => return Err(self.client.unreachable(format!("the answer broke off: {error}"))),
            }
        }
    }
}

impl Client {
    pub(super) fn parse<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, ClientError> {
        serde_json::from_slice(&answer.body).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => self.not_starling(format!("unexpected JSON: {error}")),
            _ => self.not_starling("not JSON"),
        })
    }

    async fn in_time<T>(&self, patience: Duration, answer: impl Future<Output = T>) -> Result<T, ClientError> {
        let timeout = tokio::time::timeout(patience, answer).await;
        timeout.map_err(|_| ClientError::Timeout { url: self.url.clone(), after: patience })
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        let answer = serde_json::from_slice::<Value>(body).ok();
        let code = answer.as_ref().and_then(|answer| answer.pointer("/errors/0/code")).and_then(Value::as_u64);
        let code = code.unwrap_or(0);
        if is_unauthorized(status, code) {
            let (url, data) = (self.url.clone(), self.data.clone());
            return ClientError::Unauthorized { url, with_token: self.token.is_some(), data };
        }
        let said = answer.as_ref().and_then(message);
        let message = said.unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_owned());
        ClientError::Refused { url: self.url.clone(), status: status.as_u16(), code, message }
    }

    fn broken(&self, error: &hyper_util::client::legacy::Error) -> ClientError {
        let cause = cause(error);
        if cause.is::<rustls::Error>() {
            return self.untrusted(cause.to_string());
        }
        if error.is_connect() {
            return self.unreachable(cause.to_string());
        }
        match cause.downcast_ref::<hyper::Error>() {
            Some(error) if error.is_parse() => self.not_starling("not HTTP"),
            _ => ClientError::Unreachable { url: self.url.clone(), reason: format!("the connection broke: {cause}") },
        }
    }
}

/// What is at the bottom of an error.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    loop {
        // An `io::Error` leaves out of its sources the error that it is made of.
        let within = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let within = within.map(|within| within as &(dyn Error + 'static));
        match within.or_else(|| cause.source()) {
            Some(deeper) => cause = deeper,
            None => return cause,
        }
    }
}

/// Cloudflare's API, which a node speaks, answers 400 where there is no token or none that can be read.
fn is_unauthorized(status: StatusCode, code: u64) -> bool {
    match status {
        StatusCode::UNAUTHORIZED => true,
        // 9109: a good token that may not do this, which the answer says better.
        StatusCode::FORBIDDEN => code != 9109,
        StatusCode::BAD_REQUEST => matches!(code, 6003 | 6111 | 9106),
        _ => false,
    }
}

/// What the node says went wrong, in either of the forms it uses.
fn message(answer: &Value) -> Option<String> {
    let said = answer.pointer("/errors/0/message").or_else(|| answer.get("error"))?;
    said.as_str().map(str::to_owned)
}

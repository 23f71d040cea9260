//! A client of a node's HTTP API, as any user may write one: requests with headers and bodies, answers with a status.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value as Json;

/// Longest wait for an answer unless told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What a key may hold unescaped within a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// A node as its clients see it. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Api {
    url: String,
    token: String,
    /// The cluster's account.
    pub account: String,
    http: Client<HttpConnector, Full<Bytes>>,
}

/// What was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// There was no answer; what became of the request is unknown.
#[derive(Debug, Clone)]
pub struct Unanswered {
    /// The node was never reached: nothing happened.
    pub unreached: bool,
    /// Why.
    pub why: String,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Api {
    /// Of a node at `http://address`.
    pub fn new(address: impl fmt::Display, token: &str, account: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        Self {
            url: format!("http://{address}"),
            token: token.to_owned(),
            account: account.to_owned(),
            http: Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    /// One request.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
        patience: Duration,
    ) -> Result<Answer, Unanswered> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(AUTHORIZATION, format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let unanswered = |unreached, why: String| Unanswered { unreached, why };
        let request = request.body(Full::new(body.into())).map_err(|error| unanswered(true, error.to_string()))?;
        let whole = async {
            let answer = self.http.request(request).await.map_err(|error| {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                unanswered(error.is_connect(), format!("{error}: {cause}"))
            })?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| unanswered(false, error.to_string()))?.to_bytes();
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        match tokio::time::timeout(patience, whole).await {
            Ok(answer) => answer,
            Err(_) => Err(unanswered(false, format!("no answer within {} s", patience.as_secs()))),
        }
    }

    /// A request whose answer must be a success: its JSON, without the envelope.
    pub async fn json(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Json, String> {
        let answer = self.ask(method, path, &[], body, PATIENCE).await.map_err(|error| error.to_string())?;
        if !(200..300).contains(&answer.status) {
            return Err(format!("{path}: status {}: {}", answer.status, answer.text()));
        }
        let mut json: Json = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        Ok(json.get_mut("result").map(Json::take).unwrap_or(json))
    }

    /// An answer that comes piece by piece for as long as it lasts.
    pub async fn stream(&self, path: &str) -> Result<Incoming, String> {
        let request = Request::builder()
            .uri(format!("{}{path}", self.url))
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::default())
            .map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(PATIENCE, self.http.request(request)).await;
        let answer = answer.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        match answer.status().as_u16() {
            200 => Ok(answer.into_body()),
            status => Err(format!("{path}: status {status}")),
        }
    }

    /// What the node says of itself.
    pub async fn status(&self, patience: Duration) -> Result<Json, String> {
        let answer = self.ask(Method::GET, "/starling/v1/status", &[], "", patience).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body).map_err(|error| error.to_string()),
            status => Err(format!("status {status}: {}", answer.text())),
        }
    }

    /// The path of the account's namespaces.
    pub fn namespaces(&self) -> String {
        format!("/client/v4/accounts/{}/storage/kv/namespaces", self.account)
    }

    /// A new namespace, as a path.
    pub async fn namespace(&self, title: &str) -> Result<String, String> {
        let body = serde_json::json!({ "title": title }).to_string();
        let created = self.json(Method::POST, &self.namespaces(), body).await?;
        let id = created["id"].as_str().ok_or("a namespace without an id")?;
        Ok(format!("{}/{id}", self.namespaces()))
    }
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A key as one segment of a path.
pub fn escaped(key: &str) -> String {
    utf8_percent_encode(key, ESCAPED).to_string()
}

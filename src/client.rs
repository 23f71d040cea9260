//! Talks to a running node over its HTTP API, for the commands of `starling`.
//!
//! Knows nothing of the command line. One request, one connection: commands are short. Every error says what to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::https::Trust;

use crate::datadir::{self, DataDirError};
use crate::exit::Exit;
use crate::secret::Secret;

/// Longest wait for a TCP connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a whole answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a node to leave: it first hands what it holds to its peers.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest wait for what goes through all the data.
pub const PATIENT_TIMEOUT: Duration = Duration::from_secs(3600);
/// Largest answer accepted, in bytes.
pub const ANSWER_LEN_MAX: usize = 16 << 20;

const STATUS_PATH: &str = "/starling/v1/status";
const INVITE_PATH: &str = "/starling/v1/invite";
const LEAVE_PATH: &str = "/starling/v1/leave";

/// A node that commands can ask.
#[derive(Clone, Debug)]
pub struct Client {
    host: String,
    port: u16,
    url: String,
    token: Option<Secret>,
    /// The data directory that told the address.
    data: Option<PathBuf>,
    /// Over HTTPS, whom it trusts.
    trust: Option<Trust>,
}

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No node ever ran in the data directory.
    #[error(
        "no node has run in {data} yet; start one with `starling serve --data {data}`, or name a running one with \
         --data DIR or --api URL"
    )]
    NoNode {
        /// The directory.
        data: PathBuf,
    },
    /// The node that ran in the data directory does not answer.
    #[error("no node is running in {data} ({url} does not answer); start it with `starling serve --data {data}`")]
    NotRunning {
        /// The directory.
        data: PathBuf,
        /// Where the node was.
        url: String,
    },
    /// Nothing answers at the URL.
    #[error("can't reach a node at {url}: {reason}; check the address, and that the node is running")]
    Unreachable {
        /// The URL.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// TLS failed.
    #[error(
        "no trusted connection to {url}: {reason}; name the file of its authority with --ca or STARLING_CA (of a node with \
         --tls-auto: identity/authority.crt in its data directory)"
    )]
    Untrusted {
        /// The URL.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// No answer in time. The node may still do what it was asked.
    #[error("the node at {url} did not answer within {} s; see its log, or try again", after.as_secs())]
    Timeout {
        /// The URL.
        url: String,
        /// How long was waited.
        after: Duration,
    },
    /// The token is missing, can't be read or is not one of the node's.
    #[error("the node at {url} did not accept {}", token_advice(*with_token, data.as_deref()))]
    Unauthorized {
        /// The URL.
        url: String,
        /// Whether a token was sent.
        with_token: bool,
        /// The data directory, if it was named.
        data: Option<PathBuf>,
    },
    /// Any other refusal.
    #[error("the node at {url} refused: {message} (HTTP status {status})")]
    Refused {
        /// The URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the node said.
        message: String,
    },
    /// An answer that no node gives.
    #[error("{url} gave no answer that a Starling node would give ({reason}); check the address")]
    NotStarling {
        /// The URL.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The URL can't be used.
    #[error("{url} can't be used as the address of a node: {reason}; write it as http://127.0.0.1:7700")]
    BadUrl {
        /// The URL.
        url: String,
        /// Why not.
        reason: &'static str,
    },
    /// The token can't be sent: it has characters that no token has.
    #[error("the API token is damaged: it has characters that no token has; check STARLING_TOKEN or the token file")]
    BadToken,
    /// The data directory can't be read.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

fn token_advice(with_token: bool, data: Option<&Path>) -> String {
    let what = if with_token { "the API token" } else { "a request without an API token" };
    match data {
        Some(data) => format!(
            "{what}; unset STARLING_TOKEN to use {}, and check that the node there is the one that runs",
            data.join("admin-token").display()
        ),
        None => format!("{what}; set STARLING_TOKEN to one of its tokens"),
    }
}

impl ClientError {
    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Untrusted { .. } => Exit::NodeUnreachable,
            Self::NoNode { .. } | Self::NotRunning { .. } | Self::Unreachable { .. } | Self::Timeout { .. } => {
                Exit::NodeUnreachable
            }
            Self::Unauthorized { .. } => Exit::Unauthorized,
            Self::BadUrl { .. } | Self::BadToken => Exit::Usage,
            Self::Refused { .. } | Self::NotStarling { .. } => Exit::Failure,
            Self::DataDir(error) => error.exit(),
        }
    }
}

impl Client {
    /// The node that runs in a data directory. Without a token of the caller's own, the directory's admin token.
    pub fn of_data_dir(data: &Path, token: Option<Secret>) -> Result<Self, ClientError> {
        let running = datadir::read_running(data)?.ok_or_else(|| ClientError::NoNode { data: data.to_owned() })?;
        let token = match token {
            Some(token) => Some(token),
            None => datadir::read_admin_token(data)?,
        };
        let client = Self::of_url(&running.api, token)?;
        let trust = running.api_certificate.map(Trust::Exactly).or(client.trust.clone());
        Ok(Self { data: Some(data.to_owned()), trust, ..client })
    }

    /// The node at a URL of the form `http://host:port`.
    pub fn of_url(url: &str, token: Option<Secret>) -> Result<Self, ClientError> {
        let bad = |reason| ClientError::BadUrl { url: url.to_owned(), reason };
        let uri: Uri = url.parse().map_err(|_| bad("it is not a URL"))?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            _ => return Err(bad("it does not start with http:// or https://")),
        }
        let trust = (uri.scheme_str() == Some("https")).then(Trust::default);
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("it has no host"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("it must end after the port"));
        }
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if trust.is_some() { 443 } else { 80 }),
            url: url.trim_end_matches('/').to_owned(),
            token,
            data: None,
            trust,
        })
    }

    /// Trusts the authorities in a PEM file, if it speaks HTTPS.
    pub fn trusting(mut self, authorities: &Path) -> Self {
        self.trust = self.trust.map(|_| Trust::Authorities(authorities.to_owned()));
        self
    }

    /// The data directory that told the address, if one did.
    pub fn data_dir(&self) -> Option<&Path> {
        self.data.as_deref()
    }

    /// The node's address, for messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the node says of itself and its peers.
    pub async fn status(&self) -> Result<Value, ClientError> {
        let answer = self.ask(Method::GET, STATUS_PATH, None, ANSWER_TIMEOUT).await?;
        if answer.is_object() { Ok(answer) } else { Err(self.not_starling("the status is not an object")) }
    }

    /// A join token for one new node, good for `ttl` (whole seconds).
    pub async fn invite(&self, ttl: Duration) -> Result<Secret, ClientError> {
        let body = json!({ "ttl_secs": ttl.as_secs() });
        let answer = self.ask(Method::POST, INVITE_PATH, Some(body), ANSWER_TIMEOUT).await?;
        match answer.get("token").and_then(Value::as_str) {
            Some(token) => Ok(Secret::new(token)),
            None => Err(self.not_starling("it holds no token")),
        }
    }

    /// Takes the node off the cluster's roster; its process ends.
    pub async fn leave(&self) -> Result<(), ClientError> {
        self.ask(Method::POST, LEAVE_PATH, Some(json!({})), LEAVE_TIMEOUT).await.map(drop)
    }

    /// Gets what stands at a path below `/starling/v1`.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::GET, path, None, ANSWER_TIMEOUT).await
    }

    /// Posts there.
    pub async fn post(&self, path: &str, body: Value) -> Result<Value, ClientError> {
        self.ask(Method::POST, path, Some(body), ANSWER_TIMEOUT).await
    }

    /// Posts what may take long.
    pub async fn post_patiently(&self, path: &str, body: Value) -> Result<Value, ClientError> {
        self.ask(Method::POST, path, Some(body), PATIENT_TIMEOUT).await
    }

    /// Deletes what stands there.
    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::DELETE, path, None, ANSWER_TIMEOUT).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        timeout: Duration,
    ) -> Result<Value, ClientError> {
        let (status, body) = tokio::time::timeout(timeout, self.exchange(method, path, body))
            .await
            .map_err(|_| ClientError::Timeout { url: self.url.clone(), after: timeout })??;
        let answer = serde_json::from_slice::<Value>(&body);
        if is_unauthorized(status, answer.as_ref().ok()) {
            let (url, data) = (self.url.clone(), self.data.clone());
            return Err(ClientError::Unauthorized { url, with_token: self.token.is_some(), data });
        }
        if !status.is_success() {
            let said = answer.ok().and_then(|answer| message(&answer));
            let message = said.unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason given").to_owned());
            return Err(ClientError::Refused { url: self.url.clone(), status: status.as_u16(), message });
        }
        match answer {
            Ok(mut answer) => Ok(answer.get_mut("result").map(Value::take).unwrap_or(answer)),
            Err(_) => Err(self.not_starling("not JSON")),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(error.to_string())),
            Err(_) => return Err(self.unreachable(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))),
        };
        match &self.trust {
            None => self.exchange_on(stream, method, path, body).await,
            Some(trust) => {
                let config = trust.config().map_err(|reason| self.untrusted(reason))?;
                let name =
                    ServerName::try_from(self.host.clone()).map_err(|error| self.untrusted(error.to_string()))?;
                let connecting = tokio_rustls::TlsConnector::from(config).connect(name, stream);
                match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                    Ok(Ok(stream)) => self.exchange_on(stream, method, path, body).await,
                    Ok(Err(error)) => Err(self.untrusted(error.to_string())),
                    Err(_) => Err(self.unreachable("no TLS handshake in time".into())),
                }
            }
        }
    }

    async fn exchange_on(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // Ends by itself when the sender is dropped; its errors also come out of the request.
        tokio::spawn(connection);

        let authority = self.url.split_once("://").map_or(&*self.url, |(_, authority)| authority);
        let mut request = Request::builder().method(method).uri(path).header(HOST, authority);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body))).map_err(|_| ClientError::BadToken)?;

        let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        let status = response.status();
        match Limited::new(response.into_body(), ANSWER_LEN_MAX).collect().await {
            Ok(body) => Ok((status, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(self.not_starling("longer than 16 MiB")),
            Err(error) => Err(self.not_starling(&format!("it broke off: {error}"))),
        }
    }

    fn untrusted(&self, reason: String) -> ClientError {
        ClientError::Untrusted { url: self.url.clone(), reason }
    }

    fn unreachable(&self, reason: String) -> ClientError {
        match &self.data {
            Some(data) => ClientError::NotRunning { data: data.clone(), url: self.url.clone() },
            None => ClientError::Unreachable { url: self.url.clone(), reason },
        }
    }

    fn broken(&self, error: &hyper::Error) -> ClientError {
        if error.is_parse() {
            self.not_starling("not HTTP")
        } else {
            ClientError::Unreachable { url: self.url.clone(), reason: format!("the connection broke: {error}") }
        }
    }

    fn not_starling(&self, reason: &str) -> ClientError {
        ClientError::NotStarling { url: self.url.clone(), reason: reason.to_owned() }
    }
}

/// Cloudflare's API, which a node speaks, answers 400 where there is no token or none that can be read.
fn is_unauthorized(status: StatusCode, answer: Option<&Value>) -> bool {
    let code = answer.and_then(|answer| answer.pointer("/errors/0/code")).and_then(Value::as_u64);
    match status {
        StatusCode::UNAUTHORIZED => true,
        // 9109: a good token that may not do this, which the answer says better.
        StatusCode::FORBIDDEN => code != Some(9109),
        StatusCode::BAD_REQUEST => matches!(code, Some(6003 | 6111 | 9106)),
        _ => false,
    }
}

/// What the node says went wrong, in either of the forms it uses.
fn message(answer: &Value) -> Option<String> {
    let said = answer.pointer("/errors/0/message").or_else(|| answer.get("error"))?;
    said.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests;

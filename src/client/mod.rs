//! Talks to a running node over its HTTP API, for the commands of `starling`.
//!
//! Knows nothing of the command line. Connections are kept and used again. Every error says what to do.

mod backup;
mod call;
mod error;
mod events;
mod operator;
mod retry;
mod space;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

pub use call::{Answer, Stream};
pub use error::ClientError;
pub use events::{Event, Events};
pub use retry::patiently;
pub use space::{Done, Got, Listed, Namespace, Page, Pair, Session, Space, Written};

use crate::datadir;
use crate::https::Trust;
use crate::secret::Secret;

/// Longest wait for a TCP connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a whole answer, or for the next piece of a streamed one.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for what goes through all the data.
pub const PATIENT_TIMEOUT: Duration = Duration::from_secs(3600);
/// Longest wait for a node to leave: it first hands what it holds to its peers.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest wait for a bulk request, which may carry megabytes to a slow disk.
pub const BULK_TIMEOUT: Duration = Duration::from_secs(300);
/// Largest answer taken whole, in bytes.
pub const ANSWER_LEN_MAX: usize = 16 << 20;
/// Largest answer to a bulk get, in bytes: 25 MiB of values as base64, with their names and metadata.
pub const BULK_ANSWER_LEN_MAX: usize = 64 << 20;

/// A node that commands can ask. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    url: String,
    token: Option<Secret>,
    /// The data directory that told the address.
    data: Option<PathBuf>,
    /// Over HTTPS, whom it trusts.
    trust: Option<Trust>,
    /// Made for the first request.
    http: Arc<OnceLock<Http>>,
}

type Http = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

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

    /// The node at a URL of the form `http://host:port`, or `https://…`.
    pub fn of_url(url: &str, token: Option<Secret>) -> Result<Self, ClientError> {
        let bad = |reason| ClientError::BadUrl { url: url.to_owned(), reason };
        let uri: Uri = url.parse().map_err(|_| bad("it is not a URL"))?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            _ => return Err(bad("it does not start with http:// or https://")),
        }
        let trust = (uri.scheme_str() == Some("https")).then(Trust::default);
        if uri.host().is_none_or(str::is_empty) {
            return Err(bad("it has no host"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("it must end after the port"));
        }
        Ok(Self { url: url.trim_end_matches('/').to_owned(), token, data: None, trust, http: Arc::default() })
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

    fn http(&self) -> Result<&Http, ClientError> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        // For plain HTTP its authorities are never asked for.
        let config = self.trust.as_ref().map_or_else(Trust::nobody, Trust::config);
        let config = config.map_err(|reason| self.untrusted(reason))?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(self.http.get_or_init(|| http))
    }

    fn untrusted(&self, reason: String) -> ClientError {
        ClientError::Untrusted { url: self.url.clone(), reason }
    }

    /// The node's address, for messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn unreachable(&self, reason: String) -> ClientError {
        match &self.data {
            Some(data) => ClientError::NotRunning { data: data.clone(), url: self.url.clone() },
            None => ClientError::Unreachable { url: self.url.clone(), reason },
        }
    }

    fn not_starling(&self, reason: impl Into<String>) -> ClientError {
        ClientError::NotStarling { url: self.url.clone(), reason: reason.into() }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

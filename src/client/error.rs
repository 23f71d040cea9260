//! Why a command got no answer, in sentences that say what to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::datadir::DataDirError;
use crate::exit::Exit;

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
        /// Cloudflare's code, 0 if there is none.
        code: u64,
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

/// Cloudflare's codes for a missing key and a missing namespace.
const NOT_FOUND_CODES: [u64; 2] = [10009, 10013];

impl ClientError {
    /// Whether the same request may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NotRunning { .. } | Self::Unreachable { .. } | Self::Timeout { .. } => true,
            Self::Refused { status, .. } => matches!(status, 429 | 500 | 502 | 503),
            _ => false,
        }
    }

    /// Whether there is no such key, in a namespace that exists.
    pub fn is_missing_key(&self) -> bool {
        matches!(self, Self::Refused { code: 10009, .. })
    }

    /// Whether what was asked for is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Untrusted { .. } => Exit::NodeUnreachable,
            Self::NoNode { .. } | Self::NotRunning { .. } | Self::Unreachable { .. } | Self::Timeout { .. } => {
                Exit::NodeUnreachable
            }
            Self::Unauthorized { .. } => Exit::Unauthorized,
            Self::BadUrl { .. } | Self::BadToken => Exit::Usage,
            Self::Refused { code, .. } if NOT_FOUND_CODES.contains(code) => Exit::NotFound,
            Self::Refused { .. } | Self::NotStarling { .. } => Exit::Failure,
            Self::DataDir(error) => error.exit(),
        }
    }
}

//! TLS between nodes and clients of their API, at both ends: which certificate a node shows, and which ones its commands
//! trust. (TLS between nodes is the network's own.)
//!
//! Knows nothing of what is asked.

mod outgoing;
mod server;
mod trust;

pub use outgoing::Outgoing;
pub use server::{CertificateSource, ServerTls, TlsError};
pub use trust::Trust;

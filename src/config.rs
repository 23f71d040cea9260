//! What an operator can set: one plain struct with defaults, and the checks that span several settings.
//!
//! Where the values come from is in [`setting`] (how a text becomes a value) and [`source`] (file, environment, flags).

pub mod setting;
pub mod source;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::replica::NodeId;
use crate::secret::Secret;

pub use source::{ConfigError, Environment};

/// Everything `starling serve` can be told. [`Config::default`] is a node that runs alone on loopback.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The data directory, created if absent. Put it on a local disk: the log is synced there for every
    /// acknowledged write. One directory is one node; two processes can't share it.
    pub data: PathBuf,
    /// Where the HTTP API listens. Beyond loopback it takes TLS, or `insecure_http`.
    pub api: SocketAddr,
    /// Where Workers' bindings are served ([`crate::binding`]); `None`: nowhere.
    pub bindings: Option<Bindings>,
    /// Where requests for Workers arrive. Beyond loopback it takes TLS, or `insecure_http`.
    pub workers: WorkersAt,
    /// What runs Workers.
    pub worker_engine: WorkerEngine,
    /// workerd itself; `None`: where `starling workers install` puts it, on the `PATH`, or in `node_modules`.
    pub workerd: Option<PathBuf>,
    /// Whether Workers may fetch from this machine and from private networks. For development.
    pub workers_fetch_local: bool,
    /// Where this node listens for its peers (QUIC over UDP, mutually authenticated). Must be reachable by every
    /// other node, directly or through `advertise`.
    pub gossip: SocketAddr,
    /// What peers dial, where it differs from `gossip`: behind NAT, in a container, or when `gossip` listens on
    /// all interfaces. `None`: the gossip address.
    pub advertise: Option<HostPort>,
    /// The point of presence, as the three-letter IATA code of the nearest airport, upper case. For people and for
    /// grouping nodes; distances are measured, not looked up.
    pub pop: Option<String>,
    /// The node's name in status, logs and metrics: 1-63 of `a-z`, `0-9` and `-`. Need not be unique, but should be.
    /// `None`: see [`Config::node_name`].
    pub name: Option<String>,
    /// A join token of the cluster to join. Used once, on the first start of an empty data directory.
    pub join: Option<Secret>,
    /// A file outside the data directory that holds the cluster key, made if absent. `None`: beside the data
    /// directory, with `.key` added to its name.
    pub cluster_key_file: Option<PathBuf>,
    /// A command that prints the cluster key, run by `sh -c` at each start: for a KMS, or `age`.
    pub cluster_key_command: Option<String>,
    /// The cluster key itself, from the variable `STARLING_CLUSTER_KEY` and from nowhere else.
    pub cluster_key: Option<Secret>,
    /// When a write is acknowledged. Anything but [`Durability::Fsync`] trades acknowledged writes for speed.
    pub durability: Durability,
    /// HTTPS: the certificate chain that clients are shown, PEM, leaf first; read again when it changes.
    pub tls_cert: Option<PathBuf>,
    /// The private key of `tls_cert`, PEM.
    pub tls_key: Option<PathBuf>,
    /// HTTPS with a certificate of the cluster's own authority, for these names and addresses beside the machine's own.
    /// `None`: not. Empty: none but those.
    pub tls_auto: Option<Vec<String>>,
    /// Serves plain HTTP beyond loopback: behind a TLS proxy, or within a network that can be trusted.
    pub insecure_http: bool,
    /// Where metrics and health checks are served to whoever can reach the address, without a token. `None`: only at
    /// the API, where `/metrics` takes a token.
    pub metrics: Option<SocketAddr>,
    /// Requests a second that this node takes with one API token; 0 for no limit.
    pub token_rate: u64,
    /// Requests a second that this node takes for one account; 0 for no limit.
    pub account_rate: u64,
    /// Keys that an account may hold; 0 for no limit.
    pub account_keys: u64,
    /// Bytes of values that an account may hold; 0 for no limit.
    pub account_bytes: u64,
    /// For development: the API needs no token. Allowed on loopback only.
    pub dev: bool,
    /// What to log, as a `tracing` filter: a level (`error`, `warn`, `info`, `debug`, `trace`) or a list such as
    /// `info,starling::net=debug`.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Added to the machine's wall clock, in milliseconds. For tests of what a wrong clock does; zero otherwise.
    pub clock_offset_ms: i64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("./starling-data"),
            api: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7700),
            bindings: None,
            workers: WorkersAt::BesideApi,
            worker_engine: WorkerEngine::Embedded,
            workerd: None,
            workers_fetch_local: false,
            gossip: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7702),
            advertise: None,
            pop: None,
            name: None,
            join: None,
            cluster_key_file: None,
            cluster_key_command: None,
            cluster_key: None,
            durability: Durability::Fsync,
            tls_cert: None,
            tls_key: None,
            tls_auto: None,
            insecure_http: false,
            metrics: None,
            token_rate: 0,
            account_rate: 0,
            account_keys: 0,
            account_bytes: 0,
            dev: false,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            clock_offset_ms: 0,
        }
    }
}

impl Config {
    /// The checks that need more than one setting.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.dev && !self.api.ip().is_loopback() {
            return Err(ConfigError::DevBeyondLoopback { api: self.api });
        }
        match (&self.tls_cert, &self.tls_key, &self.tls_auto) {
            (None, None, _) | (Some(_), Some(_), None) => {}
            _ => return Err(ConfigError::TlsIncomplete),
        }
        if !self.has_tls() && !self.api.ip().is_loopback() && !self.insecure_http {
            return Err(ConfigError::HttpBeyondLoopback { api: self.api });
        }
        if let WorkersAt::Address(workers) = self.workers
            && !self.has_tls()
            && !workers.ip().is_loopback()
            && !self.insecure_http
        {
            return Err(ConfigError::WorkersBeyondLoopback { workers });
        }
        if self.advertise.is_none() && self.gossip.ip().is_unspecified() {
            return Err(ConfigError::AdvertiseMissing { gossip: self.gossip });
        }
        Ok(())
    }

    /// Whether the API speaks HTTPS.
    pub fn has_tls(&self) -> bool {
        self.tls_cert.is_some() || self.tls_auto.is_some()
    }

    /// What peers dial, given the address the gossip socket was really bound to (port 0 picks a free one).
    pub fn advertised(&self, bound: SocketAddr) -> HostPort {
        self.advertise.clone().unwrap_or_else(|| HostPort { host: bound.ip().to_string(), port: bound.port() })
    }

    /// The name set, or else one that stays the same for the life of the data directory: the PoP, or the host's
    /// name, with the last four hex digits of the node id.
    pub fn node_name(&self, node: NodeId) -> String {
        let hostname = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        match &self.name {
            Some(name) => name.clone(),
            None => default_name(&self.pop.clone().unwrap_or_else(hostname), node),
        }
    }
}

/// Longest node name, in bytes: what fits a DNS label.
pub const NODE_NAME_LEN_MAX: usize = 63;

/// Whether a text can be a node name.
pub fn is_node_name(text: &str) -> bool {
    (1..=NODE_NAME_LEN_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn default_name(place: &str, node: NodeId) -> String {
    let label = place.trim().split('.').next().unwrap_or_default().to_ascii_lowercase();
    let label: String = label.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(50).collect();
    let label = if label.is_empty() { "node" } else { &label };
    format!("{label}-{:04x}", node.0 & 0xffff)
}

/// When a write counts as written at this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Acknowledged, and sent on, only after fsync: survives a power cut. Writers that wait together share one fsync.
    #[default]
    Fsync,
    /// Acknowledged when handed to the operating system, synced in the background: a power cut loses the last moment.
    Interval,
    /// Acknowledged when handed to the operating system, synced when it likes: for tests and data that can be rebuilt.
    Os,
}

impl Durability {
    /// The word used in configuration, status and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Interval => "interval",
            Self::Os => "os",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for log collectors.
    Json,
}

/// Where requests for Workers arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WorkersAt {
    /// On loopback, one port above the API's; if that is taken, at any other.
    #[default]
    BesideApi,
    /// There, or the node does not start.
    Address(SocketAddr),
    /// Nowhere.
    Nowhere,
}

/// What runs Workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WorkerEngine {
    /// QuickJS, within the node.
    #[default]
    Embedded,
    /// Cloudflare's runtime, in processes of its own.
    Workerd,
    /// Nothing: they are deployed here, and run elsewhere.
    None,
}

/// Where Workers' bindings are served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bindings {
    /// A unix socket at that path, which only the user that the node runs as can open.
    Unix(PathBuf),
    /// A loopback address, where requests carry an API token.
    Loopback(SocketAddr),
}

/// Why a text does not say where to serve bindings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BindingsError {
    /// Neither a socket nor an address.
    #[error("neither a unix socket nor a loopback address; write it as unix:/run/starling/kv.sock or 127.0.0.1:7704")]
    Form,
    /// An address that others can reach.
    #[error("not a loopback address; bindings are for workerd on this machine, so use 127.0.0.1 or a unix socket")]
    BeyondLoopback,
}

impl FromStr for Bindings {
    type Err = BindingsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text.strip_prefix("unix:"), text.parse::<SocketAddr>()) {
            (Some(""), _) | (None, Err(_)) => Err(BindingsError::Form),
            (Some(path), _) => Ok(Self::Unix(PathBuf::from(path))),
            (None, Ok(address)) if address.ip().is_loopback() => Ok(Self::Loopback(address)),
            (None, Ok(_)) => Err(BindingsError::BeyondLoopback),
        }
    }
}

/// An address to dial: an IP address or a host name, with a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort {
    /// An IPv4 or IPv6 address (without brackets) or a DNS name, not empty.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

/// Why a text is no address to dial.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HostPortError {
    /// Not of the form host:port.
    #[error("not an address; write it as 203.0.113.7:7702, [2001:db8::7]:7702 or node.example.net:7702")]
    Form,
    /// `0.0.0.0`, `[::]` or port 0.
    #[error("not an address that can be dialled; name the address and port that peers can reach")]
    Unspecified,
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = if let Ok(address) = text.parse::<SocketAddr>() {
            if address.ip().is_unspecified() {
                return Err(HostPortError::Unspecified);
            }
            (address.ip().to_string(), address.port())
        } else {
            let (name, port) = text.rsplit_once(':').ok_or(HostPortError::Form)?;
            // No colons: an IPv6 address without brackets would leave its port in doubt.
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
                return Err(HostPortError::Form);
            }
            (name.to_owned(), port.parse().map_err(|_| HostPortError::Form)?)
        };
        if port == 0 { Err(HostPortError::Unspecified) } else { Ok(Self { host, port }) }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_is_for_loopback() {
        let config = Config { dev: true, ..Config::default() };
        config.check().unwrap();
        let open = Config { api: "0.0.0.0:7700".parse().unwrap(), ..config };
        let error = open.check().unwrap_err().to_string();
        assert!(error.contains("--dev") && error.contains("0.0.0.0:7700") && error.contains("127.0.0.1"), "{error}");
        let open = Config { dev: false, ..open };
        let error = open.check().unwrap_err().to_string();
        assert!(error.contains("--insecure-http") && error.contains("--tls-auto"), "{error}");
        let workers = WorkersAt::Address("0.0.0.0:7701".parse().unwrap());
        let error = Config { workers, ..Config::default() }.check().unwrap_err().to_string();
        assert!(error.contains("0.0.0.0:7701") && error.contains("--tls-auto"), "{error}");
        Config { workers, tls_auto: Some(Vec::new()), ..Config::default() }.check().unwrap();
        Config { insecure_http: true, ..open.clone() }.check().unwrap();
        Config { tls_auto: Some(Vec::new()), ..open.clone() }.check().unwrap();
        let half = Config { tls_cert: Some("c".into()), ..open };
        assert!(half.check().unwrap_err().to_string().contains("tls_key"));
    }

    #[test]
    fn all_interfaces_need_an_address_to_dial() {
        let config = Config { gossip: "[::]:7702".parse().unwrap(), ..Config::default() };
        assert!(config.check().unwrap_err().to_string().contains("advertise"));
        let config = Config { advertise: Some("node.example.net:7702".parse().unwrap()), ..config };
        config.check().unwrap();
        assert_eq!(config.advertised(config.gossip).to_string(), "node.example.net:7702");
    }

    #[test]
    fn names_are_stable_and_valid() {
        let node = NodeId(0x1234_5678_9abc_def0);
        let config = Config { pop: Some("FRA".to_owned()), ..Config::default() };
        assert_eq!(config.node_name(node), "fra-def0");
        assert_eq!(default_name("Web_01.example.net\n", node), "web01-def0");
        assert_eq!(default_name("", node), "node-def0");
        assert!(is_node_name(&default_name(&"x".repeat(300), node)));
        assert!(is_node_name(&Config::default().node_name(node)));
        assert!(!is_node_name("Upper") && !is_node_name("") && !is_node_name(&"x".repeat(64)));
    }

    #[test]
    fn bindings_stay_on_this_machine() {
        let parse = str::parse::<Bindings>;
        assert_eq!(parse("unix:/run/kv.sock"), Ok(Bindings::Unix("/run/kv.sock".into())));
        assert_eq!(parse("[::1]:7704"), Ok(Bindings::Loopback("[::1]:7704".parse().unwrap())));
        assert_eq!(parse("0.0.0.0:7704"), Err(BindingsError::BeyondLoopback));
        for bad in ["unix:", "/run/kv.sock", "localhost:7704", "7704", ""] {
            assert_eq!(parse(bad), Err(BindingsError::Form), "{bad}");
        }
    }

    #[test]
    fn addresses_to_dial() {
        for good in ["203.0.113.7:7702", "[2001:db8::7]:7702", "node.example.net:7702", "localhost:1"] {
            assert_eq!(good.parse::<HostPort>().unwrap().to_string(), good);
        }
        for bad in ["", "node", ":7702", "node:", "node:70000", "2001:db8::7:7702", "a b:1", "http://x:1"] {
            assert_eq!(bad.parse::<HostPort>(), Err(HostPortError::Form), "{bad}");
        }
        for bad in ["0.0.0.0:7702", "[::]:7702", "node:0", "127.0.0.1:0"] {
            assert_eq!(bad.parse::<HostPort>(), Err(HostPortError::Unspecified), "{bad}");
        }
    }
}

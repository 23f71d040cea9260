//! The node's one UDP socket and the handle that the rest of the node uses.
//! Refuses to know frames' meaning and how a single link moves them.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use quinn::{EndpointConfig, TokioRuntime, TransportConfig};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::accept::accept_all;
use super::config::{BanHook, JoinIssuer, NetConfig, NetTuning, WallClock};
use super::connection::CloseCode;
use super::counters::NetCounters;
use super::dialer;
use super::event::{NetError, NetEvent, SendError};
use super::framing::{Class, FRAME_LEN_MAX};
use super::identity::Identity;
use super::invite::Invites;
use super::issuer::JOINS_MAX;
use super::mesh::{LinkId, Mesh, PeerChanges};
use super::tls::TlsSettings;
use super::token::{JoinToken, TOKEN_ADDRESSES_MAX};
use crate::replica::NodeId;

/// Asked of the kernel for each direction of the socket, bytes; it may give less.
const SOCKET_BUFFER_LEN: usize = 4 << 20;
/// How long [`Net::close`] waits for peers to hear of it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The network of one node. Clones are handles to the same one; it runs until [`Net::close`].
#[derive(Clone)]
pub struct Net {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
}

pub(super) struct Shared {
    pub(super) own: NodeId,
    /// Random; tells this process from others that this node has lived as.
    pub(super) boot: u64,
    pub(super) endpoint: quinn::Endpoint,
    pub(super) tuning: NetTuning,
    pub(super) clock: WallClock,
    pub(super) join: Option<JoinIssuer>,
    pub(super) invites: Arc<Invites>,
    pub(super) joins: Semaphore,
    pub(super) events: mpsc::Sender<NetEvent>,
    pub(super) counters: NetCounters,
    cluster: [u8; 32],
    banned: Option<BanHook>,
    tls: RwLock<Arc<TlsSettings>>,
    transport: Arc<TransportConfig>,
    mesh: Mutex<Mesh>,
    runtime: Handle,
}

impl Shared {
    pub(super) fn mesh(&self) -> MutexGuard<'_, Mesh> {
        self.mesh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tls(&self) -> Arc<TlsSettings> {
        Arc::clone(&self.tls.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn client_config(&self) -> quinn::ClientConfig {
        let mut config = quinn::ClientConfig::new(Arc::clone(&self.tls().client) as _);
        config.transport_config(Arc::clone(&self.transport));
        config
    }

    pub(super) fn is_banned(&self, node: NodeId) -> bool {
        self.banned.as_ref().is_some_and(|banned| banned(node))
    }
}

impl Net {
    /// Listens and accepts peers from now on. Must be called within a tokio runtime with IO and time.
    pub fn bind(config: NetConfig, events: mpsc::Sender<NetEvent>) -> Result<Self, NetError> {
        let runtime = Handle::try_current().map_err(|_| NetError::NoRuntime)?;
        let NetConfig { listen, identity, clock, banned, join, tuning } = config;
        let invites = Arc::new(Invites::default());
        let tls = Arc::new(TlsSettings::new(&identity, Arc::clone(&invites), &clock)?);
        let transport = tuning.transport();
        let bind_error = |source| NetError::Bind { address: listen, source };
        let socket = open_socket(listen).map_err(bind_error)?;
        let server = server_config(&tls, &transport);
        let endpoint = quinn::Endpoint::new(EndpointConfig::default(), Some(server), socket, Arc::new(TokioRuntime))
            .map_err(bind_error)?;
        let local_addr = endpoint.local_addr().map_err(bind_error)?;
        let own = identity.node_id();
        let shared = Arc::new(Shared {
            own,
            boot: getrandom::u64().map_err(NetError::Entropy)?,
            endpoint,
            tuning,
            clock,
            join,
            invites,
            joins: Semaphore::new(JOINS_MAX),
            events,
            counters: NetCounters::default(),
            cluster: identity.cluster_fingerprint(),
            banned,
            tls: RwLock::new(tls),
            transport,
            mesh: Mutex::new(Mesh::new(own)),
            runtime,
        });
        shared.runtime.spawn(accept_all(Arc::clone(&shared)));
        Ok(Self { shared, local_addr })
    }

    /// The address it listens on, with the actual port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.shared.own
    }

    /// What has happened so far.
    pub fn counters(&self) -> &NetCounters {
        &self.shared.counters
    }

    /// Queues a frame; never blocks. The queue itself has no bound: the caller bounds what it has outstanding on a
    /// link, by [`NetEvent::Sent`].
    pub fn send(&self, link: LinkId, class: Class, bytes: Bytes) -> Result<(), SendError> {
        if bytes.len() > FRAME_LEN_MAX {
            return Err(SendError::TooLong(bytes.len()));
        }
        let mesh = self.shared.mesh();
        let link = mesh.link(link).ok_or(SendError::LinkGone)?;
        link.outbox(class).send(bytes).map_err(|_| SendError::LinkGone)
    }

    /// Ends a link. If its node is among the peers, it will be dialed again.
    pub fn disconnect(&self, link: LinkId, reason: &str) {
        let link = self.shared.mesh().link(link).cloned();
        if let Some(link) = link {
            link.close(CloseCode::Disconnected, reason);
        }
    }

    /// Ends a link and tells the peer that it is evicted.
    pub fn turn_away(&self, link: LinkId) {
        let link = self.shared.mesh().link(link).cloned();
        if let Some(link) = link {
            link.close(CloseCode::Evicted, "evicted");
        }
    }

    /// The smoothed round-trip time of a link.
    pub fn rtt(&self, link: LinkId) -> Option<Duration> {
        self.shared.mesh().link(link).map(|link| link.connection.rtt())
    }

    /// Whom to keep connected, and where they may be reached. Links to nodes that were in the former set and are
    /// not in this one are closed; others that dial this node are welcome all the same.
    pub fn set_peers(&self, peers: BTreeMap<NodeId, Vec<SocketAddr>>) {
        let PeerChanges { added, dropped } = self.shared.mesh().set_wanted(peers);
        for link in dropped {
            link.close(CloseCode::Disconnected, "no longer a peer");
        }
        for (node, wanted) in added {
            let dialer = dialer::keep_connected(Arc::clone(&self.shared), node, wanted);
            let dialer = self.shared.runtime.spawn(dialer);
            self.shared.mesh().set_dialer(node, dialer.abort_handle());
        }
    }

    /// Uses a renewed certificate for connections from now on.
    pub fn set_identity(&self, identity: &Identity) -> Result<(), NetError> {
        if identity.node_id() != self.shared.own || identity.cluster_fingerprint() != self.shared.cluster {
            return Err(NetError::OtherNode);
        }
        let invites = Arc::clone(&self.shared.invites);
        let tls = Arc::new(TlsSettings::new(identity, invites, &self.shared.clock)?);
        self.shared.endpoint.set_server_config(Some(server_config(&tls, &self.shared.transport)));
        *self.shared.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
        Ok(())
    }

    /// Makes a one-use invite that this process accepts for `ttl`. It is kept in memory only: a restart voids it.
    #[allow(clippy::disallowed_methods, reason = "a secret comes from the operating system")]
    pub fn create_invite(&self, ttl: Duration, advertised: Vec<SocketAddr>) -> Result<JoinToken, NetError> {
        if self.shared.join.is_none() {
            return Err(NetError::NotAnIssuer);
        }
        if advertised.is_empty() || advertised.len() > TOKEN_ADDRESSES_MAX {
            return Err(NetError::BadAddresses);
        }
        let now_secs = (self.shared.clock)().as_secs();
        let mut token = JoinToken {
            addresses: advertised,
            authority_fingerprint: self.shared.cluster,
            issuer: self.shared.own,
            expires_secs: now_secs.saturating_add(ttl.as_secs()),
            secret: [0; 32],
        };
        getrandom::fill(&mut token.secret).map_err(NetError::Entropy)?;
        let key = token.client_key()?.public_key();
        if !self.shared.invites.add(key, token.expires_secs, now_secs) {
            return Err(NetError::TooManyInvites);
        }
        Ok(token)
    }

    /// Closes every connection and stops accepting and dialing. Returns when the peers know, or after a second.
    pub async fn close(&self) {
        const REASON: &str = "the node is shutting down";
        let links = self.shared.mesh().shut_down();
        for link in links {
            link.close(CloseCode::Shutdown, REASON);
        }
        self.shared.endpoint.close(CloseCode::Shutdown.into(), REASON.as_bytes());
        let _ = timeout(CLOSE_TIMEOUT, self.shared.endpoint.wait_idle()).await;
    }
}

/// An IPv4 address as such, also when it came in through an IPv6 socket.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn server_config(tls: &TlsSettings, transport: &Arc<TransportConfig>) -> quinn::ServerConfig {
    let mut config = quinn::ServerConfig::with_crypto(Arc::clone(&tls.server) as _);
    config.transport_config(Arc::clone(transport));
    config
}

fn open_socket(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(listen), socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Best effort: the kernel's limit may be lower.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_LEN);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_LEN);
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

//! What the caller decides about the network: identity, clock, hooks and tunables. Owns the QUIC transport settings
//! they lead to; refuses to know connections.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{AckFrequencyConfig, TransportConfig, VarInt};

use super::authority::Authority;
use super::congestion::FlooredCubic;
use super::framing::Class;
use super::identity::Identity;
use super::issuer::JoinApplicant;
use super::join_message::JoinRefusal;
use super::tail;
use crate::replica::NodeId;

/// Time since the Unix epoch. The network reads no clock of its own for anything but timers.
pub type WallClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Whether a node with a valid certificate is to be refused all the same (because it was evicted). Called once for
/// each connection; must not block.
pub type BanHook = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// Judges an applicant that holds a valid invite: the payload to hand it (account id, roster, ...), or a refusal.
/// May be called again for the same applicant if its former attempt was cut short.
pub type JoinPolicy =
    Arc<dyn Fn(JoinApplicant) -> Pin<Box<dyn Future<Output = Result<Bytes, JoinRefusal>> + Send>> + Send + Sync>;

/// What a node needs to let others in.
#[derive(Clone)]
pub struct JoinIssuer {
    /// Signs the newcomer's certificate, and is handed to it.
    pub authority: Authority,
    /// Judges the newcomer.
    pub policy: JoinPolicy,
}

/// How to start a [`Net`](super::Net).
#[derive(Clone)]
pub struct NetConfig {
    /// UDP address to listen on and dial from. Port 0 picks one.
    pub listen: SocketAddr,
    /// Who this node is.
    pub identity: Identity,
    /// Judges certificates and invites.
    pub clock: WallClock,
    /// Refuses nodes; none by default.
    pub banned: Option<BanHook>,
    /// Lets this node issue invites; without it, [`Net::create_invite`](super::Net::create_invite) fails.
    pub join: Option<JoinIssuer>,
    /// Timers and windows.
    pub tuning: NetTuning,
}

impl NetConfig {
    /// Default tunables, nobody banned, no invites.
    pub fn new(listen: SocketAddr, identity: Identity, clock: WallClock) -> Self {
        Self { listen, identity, clock, banned: None, join: None, tuning: NetTuning::default() }
    }
}

impl fmt::Debug for NetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetConfig")
            .field("listen", &self.listen)
            .field("identity", &self.identity)
            .field("tuning", &self.tuning)
            .finish_non_exhaustive()
    }
}

/// Timers and windows. The defaults suit nodes spread over the Internet as well as a rack.
#[derive(Clone, Debug)]
pub struct NetTuning {
    /// A connection without any packet for this long is lost. Longer than a route change, shorter than patience.
    pub idle_timeout: Duration,
    /// An idle connection is probed this often; several times within `idle_timeout`.
    pub keep_alive: Duration,
    /// Assumed before the first sample: a lost first packet is sent again after about twice this.
    pub initial_rtt: Duration,
    /// Most that a peer may have on its way to this node, bytes, over all classes. Each class has a quarter, so a
    /// class that is not being read can't stop the others. At least bandwidth times round trip.
    pub receive_window: u32,
    /// Congestion window of a fresh connection, bytes: one 64 KiB record crosses an ocean in one flight.
    pub initial_congestion_window: u64,
    /// One address is tried for this long, TLS and hello included.
    pub dial_timeout: Duration,
    /// First pause after a failed dial; doubles up to `redial_max`, with jitter.
    pub redial_min: Duration,
    /// Longest pause between dials of an absent peer.
    pub redial_max: Duration,
    /// Longest pause before the first dial after a good link was lost; spreads the dials of many nodes.
    pub redial_jitter: Duration,
    /// The node with the higher id waits this long before it dials, so that crossing dials are rare.
    pub higher_id_delay: Duration,
}

impl Default for NetTuning {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(3),
            initial_rtt: Duration::from_millis(100),
            receive_window: 8 << 20,
            initial_congestion_window: 72 << 10,
            dial_timeout: Duration::from_secs(5),
            redial_min: Duration::from_millis(200),
            redial_max: Duration::from_secs(15),
            redial_jitter: Duration::from_millis(50),
            higher_id_delay: Duration::from_millis(300),
        }
    }
}

impl NetTuning {
    /// Cubic, because quinn marks its BBR as experimental. GSO and MTU discovery stay on, as by default.
    pub(super) fn transport(&self) -> Arc<TransportConfig> {
        let class_window = self.receive_window / Class::ALL.len() as u32;
        // A peer that acknowledges a lone packet after 5 ms, not 25, lets a lost last packet be noticed sooner.
        let mut acks = AckFrequencyConfig::default();
        acks.max_ack_delay(Some(Duration::from_millis(5)));
        let mut transport = TransportConfig::default();
        transport
            // The hello and one stream a class; one bidirectional stream for a join.
            .max_concurrent_uni_streams(VarInt::from_u32(1 + Class::ALL.len() as u32))
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .max_idle_timeout(quinn::IdleTimeout::try_from(self.idle_timeout).ok())
            .keep_alive_interval(Some(self.keep_alive))
            .initial_rtt(self.initial_rtt)
            .stream_receive_window(VarInt::from_u32(class_window))
            .receive_window(VarInt::from_u32(self.receive_window))
            // What QUIC takes from us before the peer has acknowledged it: as much as the peer may take from us.
            .send_window(u64::from(self.receive_window))
            .ack_frequency_config(Some(acks))
            .congestion_controller_factory(Arc::new(FlooredCubic::new(self.initial_congestion_window)))
            .datagram_receive_buffer_size(Some(tail::BUFFER_LEN))
            .datagram_send_buffer_size(tail::BUFFER_LEN);
        Arc::new(transport)
    }
}

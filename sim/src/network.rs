//! The network: links that delay and lose, connections over them that behave as QUIC does where it matters, and cuts.
//! Knows nothing of what a message means.

pub mod connection;
pub mod cuts;
pub mod link;
pub mod recovery;

/// Bytes that a packet carries.
pub const PACKET_LEN: u64 = 1_200;
/// What headers, encryption and acknowledgements add to a message's bytes: for each packet.
pub const PACKET_OVERHEAD: u64 = 60;

/// Bytes on the wire for a message of that many.
pub fn wire_len(bytes: u64) -> u64 {
    bytes + bytes.div_ceil(PACKET_LEN).max(1) * PACKET_OVERHEAD
}

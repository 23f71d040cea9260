//! Loopback addresses of a planet's own: 127.x.1.n is where node n listens, 127.x.2.n what it advertises. Planets that run
//! beside each other have different x, which each holds by a socket for as long as it lives.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

/// Nodes that a planet has addresses for.
pub const NODES_MAX: usize = 250;
/// Where APIs listen, at each node's own address.
const API_PORT: u16 = 7700;
/// Where gossip does.
const GOSSIP_PORT: u16 = 7702;
/// Second numbers of 127.x to choose from.
const PLANETS: std::ops::RangeInclusive<u8> = 16..=250;

/// A planet's addresses.
pub struct Addresses {
    planet: u8,
    _claim: UdpSocket,
}

impl Addresses {
    /// Those of the first planet that nobody lives on.
    pub fn claim() -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        // Two that start at once begin their search apart.
        let offset = std::process::id() % PLANETS.len() as u32;
        let (before, after): (Vec<u8>, Vec<u8>) =
            PLANETS.partition(|planet| u32::from(*planet - PLANETS.start()) < offset);
        for planet in after.into_iter().chain(before) {
            match UdpSocket::bind((Ipv4Addr::new(127, planet, 0, 1), GOSSIP_PORT)) {
                Ok(claim) => return Ok(Self { planet, _claim: claim }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn of(&self, kind: u8, node: usize, port: u16) -> SocketAddr {
        let node = u8::try_from(node + 1).unwrap_or(u8::MAX);
        (Ipv4Addr::new(127, self.planet, kind, node), port).into()
    }

    /// Where a node's API listens.
    pub fn api(&self, node: usize) -> SocketAddr {
        self.of(1, node, API_PORT)
    }

    /// Where a node listens for its peers, though none of them knows.
    pub fn private(&self, node: usize) -> SocketAddr {
        self.of(1, node, GOSSIP_PORT)
    }

    /// What a node advertises: the emulator listens there.
    pub fn public(&self, node: usize) -> SocketAddr {
        self.of(2, node, GOSSIP_PORT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_planets_share_nothing() {
        let (a, b) = (Addresses::claim().expect("one is free"), Addresses::claim().expect("another is free"));
        assert_ne!(a.api(0).ip(), b.api(0).ip());
        assert_ne!(a.private(3).ip(), a.public(3).ip());
        assert!(a.api(249).ip().is_loopback());
    }
}

//! Listening for TCP connections.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted, if the system allows so many. With the usual 128, a burst of clients finds
/// no room and tries again after a second.
pub(crate) const BACKLOG: u32 = 4096;

/// Listens there; port 0 lets the system pick one.
///
/// # Errors
/// If the address is taken or none of this machine.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A node that is started again need not wait for its old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_burst_of_clients_waits_in_line() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a port");
        let address = listener.local_addr().expect("an address");
        assert!(listen(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse));
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
        let allowed = allowed.and_then(|text| text.trim().parse().ok()).unwrap_or(128);
        // Nobody accepts any of them.
        let waiting: Vec<_> = (0..allowed.min(400))
            .map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(900)).expect("a place in the line"))
            .collect();
        assert!(waiting.len() >= 128);
    }
}

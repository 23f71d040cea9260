//! The planet between the nodes: every packet of every pair goes through here, and takes as long as its way is.
//!
//! Each node has a private address, where it listens, and a public one, which it advertises and which is a socket here:
//! as behind a one-to-one NAT. What node A sends to B's public address leaves towards B's private one from A's public
//! one, so the answers come back through here as well, no node sees another's private address, and none needs to know
//! that it is being fooled. Knows nothing of what is in a packet.

pub mod queue;
pub mod ways;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use starling_sim::places::Place;

use queue::{Queue, Stopwatch};
use ways::{Pair, Passage, Ways};

/// Asked of the kernel for each direction of a socket, bytes.
const SOCKET_BUFFER_LEN: usize = 8 << 20;
/// Largest UDP datagram.
const PACKET_LEN_MAX: usize = 65_536;
/// How often a receiver looks whether it should end.
const LOOK_AROUND: Duration = Duration::from_millis(200);

/// What has gone over the ways, in total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Traffic {
    /// Packets that arrived.
    pub packets: u64,
    /// Their bytes, UDP payload.
    pub bytes: u64,
    /// Packets that were lost.
    pub lost: u64,
    /// Packets that met a cut.
    pub cut: u64,
}

/// The sockets and the ways between them. Runs until it is dropped.
pub struct Emulator {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    clock: Stopwatch,
    ways: Mutex<Ways>,
    doors: RwLock<Vec<Arc<Door>>>,
    queue: Queue<Packet>,
    closing: AtomicBool,
    packets: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    cut: AtomicU64,
}

/// A node's public socket.
struct Door {
    number: usize,
    socket: UdpSocket,
    public: SocketAddr,
    /// Where the node listens.
    private: SocketAddr,
    /// From where the node last wrote to each other one: a newcomer first comes from another port than later.
    homes: Mutex<BTreeMap<usize, SocketAddr>>,
    /// Who is expected to call here from an address that belongs to nobody yet.
    newcomer: Mutex<Option<usize>>,
}

struct Packet {
    pair: Pair,
    bytes: Vec<u8>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Emulator {
    /// Without nodes yet.
    pub fn start(ways: Ways) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            clock: Stopwatch::start(),
            ways: Mutex::new(ways),
            doors: RwLock::default(),
            queue: Queue::default(),
            closing: AtomicBool::new(false),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            cut: AtomicU64::new(0),
        });
        let carrier = Arc::clone(&shared);
        let thread = thread::Builder::new().name("carrier".into()).spawn(move || carrier.carry())?;
        Ok(Self { shared, threads: Mutex::new(vec![thread]) })
    }

    /// Adds a node that stands there and will listen at `private`; its number. Its public socket is bound to `public`.
    pub fn add(&self, place: Place, private: SocketAddr, public: SocketAddr) -> io::Result<usize> {
        let socket = open_socket(public)?;
        socket.set_read_timeout(Some(LOOK_AROUND))?;
        let number = locked(&self.shared.ways).add(place);
        let door = Arc::new(Door {
            number,
            public: socket.local_addr()?,
            socket,
            private,
            homes: Mutex::default(),
            newcomer: Mutex::new(None),
        });
        self.shared.doors.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&door));
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name(format!("door {number}")).spawn(move || shared.receive(&door))?;
        locked(&self.threads).push(thread);
        Ok(number)
    }

    /// What a node advertises.
    pub fn public(&self, node: usize) -> Option<SocketAddr> {
        self.shared.door(node).map(|door| door.public)
    }

    /// From now on a stranger who calls `host` is taken for `newcomer`; `None`: for nobody.
    pub fn expect(&self, host: usize, newcomer: Option<usize>) {
        if let Some(door) = self.shared.door(host) {
            *locked(&door.newcomer) = newcomer;
        }
    }

    /// Reads or changes the ways.
    pub fn ways<T>(&self, change: impl FnOnce(&mut Ways) -> T) -> T {
        change(&mut locked(&self.shared.ways))
    }

    /// What has gone through so far.
    pub fn traffic(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Shared { packets, bytes, lost, cut, .. } = &*self.shared;
        Traffic { packets: read(packets), bytes: read(bytes), lost: read(lost), cut: read(cut) }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.queue.close();
        // Their sockets are in the way of the next planet for as long as they look.
        for thread in locked(&self.threads).drain(..) {
            // One that panicked has told so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn door(&self, node: usize) -> Option<Arc<Door>> {
        self.doors.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    /// Whose address it is.
    fn owner(&self, ip: IpAddr) -> Option<usize> {
        let doors = self.doors.read().unwrap_or_else(PoisonError::into_inner);
        doors.iter().find(|door| door.private.ip() == ip).map(|door| door.number)
    }

    /// Takes what is sent to a node's public address.
    fn receive(&self, door: &Door) {
        let mut buffer = vec![0; PACKET_LEN_MAX];
        while !self.closing.load(Ordering::Relaxed) {
            // A timeout, or the echo of a port where nobody listens.
            let Ok((len, source)) = door.socket.recv_from(&mut buffer) else { continue };
            let Some(from) = self.owner(source.ip()).or(*locked(&door.newcomer)) else { continue };
            let Some(sender) = self.door(from) else { continue };
            locked(&sender.homes).insert(door.number, source);
            self.pass((from, door.number), &buffer[..len]);
        }
    }

    fn pass(&self, pair: Pair, bytes: &[u8]) {
        let passage = locked(&self.ways).pass(self.clock.us(), pair, bytes.len());
        match passage {
            Passage::Cut => _ = self.cut.fetch_add(1, Ordering::Relaxed),
            Passage::Lost => _ = self.lost.fetch_add(1, Ordering::Relaxed),
            Passage::Arrives(at_us, twice_us) => {
                for at_us in [Some(at_us), twice_us].into_iter().flatten() {
                    self.queue.push(at_us, Packet { pair, bytes: bytes.to_vec() });
                }
            }
        }
    }

    /// Hands packets over when their time has come.
    fn carry(&self) {
        while let Some(Packet { pair: (from, to), bytes }) = self.queue.pop(&self.clock) {
            let (Some(sender), Some(receiver)) = (self.door(from), self.door(to)) else { continue };
            let home = locked(&receiver.homes).get(&from).copied().unwrap_or(receiver.private);
            // Nobody listens there while the node is down: as lost as on any network.
            if sender.socket.send_to(&bytes, home).is_ok() {
                self.packets.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        }
    }
}

fn open_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::DGRAM,
        Some(socket2::Protocol::UDP),
    )?;
    // Best effort: the kernel's limit may be lower.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_LEN);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_LEN);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use starling_sim::places::spread;
    use starling_sim::scenario::Links;

    use super::*;

    #[test]
    fn two_that_only_know_public_addresses_talk_and_strangers_are_newcomers() {
        let emulator = Emulator::start(Ways::new(Links::default(), 1_000, 1)).expect("threads");
        let node = |ip: [u8; 4]| {
            let socket = UdpSocket::bind(SocketAddr::from((ip, 0))).expect("loopback");
            socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
            socket
        };
        let (a, b) = (node([127, 99, 0, 1]), node([127, 99, 0, 2]));
        let places = spread(2);
        let mut publics = Vec::new();
        for (socket, place) in [&a, &b].into_iter().zip(places) {
            let private = socket.local_addr().expect("bound");
            let number = emulator.add(place, private, "127.0.0.1:0".parse().expect("an address")).expect("a socket");
            publics.push(emulator.public(number).expect("there"));
        }
        let mut buffer = [0; 64];
        a.send_to(b"hello", publics[1]).expect("sent");
        let (len, source) = b.recv_from(&mut buffer).expect("it arrives");
        assert_eq!((&buffer[..len], source), (&b"hello"[..], publics[0]));
        b.send_to(b"yes?", source).expect("sent");
        let (len, source) = a.recv_from(&mut buffer).expect("it arrives");
        assert_eq!((&buffer[..len], source), (&b"yes?"[..], publics[1]));

        let stranger = node([127, 0, 0, 1]);
        emulator.expect(0, Some(1));
        stranger.send_to(b"let me in", publics[0]).expect("sent");
        let (len, source) = a.recv_from(&mut buffer).expect("it arrives");
        assert_eq!((&buffer[..len], source), (&b"let me in"[..], publics[1]));
        a.send_to(b"welcome", source).expect("sent");
        let (len, source) = stranger.recv_from(&mut buffer).expect("it arrives");
        assert_eq!((&buffer[..len], source), (&b"welcome"[..], publics[0]));

        emulator.ways(|ways| ways.cut(1, &[0], &[1]));
        a.send_to(b"lost", publics[1]).expect("sent");
        while emulator.traffic().cut == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(emulator.traffic().packets, 4);
    }
}

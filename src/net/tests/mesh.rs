//! Who is connected to whom: crossing dials, restarts, removed peers, shutdown.

use super::super::connection::greet;
use super::super::identity::server_name;
use super::super::invite::Invites;
use super::super::tls::TlsSettings;
use super::*;

/// Frames pass both ways on the one link each node has.
async fn check_one_working_link(a: &mut Node, b: &mut Node) {
    let (to_b, to_a) = (a.link_to(b.id()).unwrap(), b.link_to(a.id()).unwrap());
    assert_eq!((a.up.len(), b.up.len()), (1, 1));
    assert_ne!(a.up[&to_b].1, b.up[&to_a].1, "the two ends are of different connections");
    a.net.send(to_b, Class::Control, "ping".into()).unwrap();
    assert_eq!(b.frame().await.bytes, "ping");
    b.net.send(to_a, Class::Control, "pong".into()).unwrap();
    assert_eq!(a.frame().await.bytes, "pong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crossing_dials_end_in_one_link() {
    let authority = authority();
    let mut crossed = 0;
    for _ in 0..15 {
        let (low, high) = two_identities(&authority);
        let [mut a, mut b] = [&low, &high].map(|identity| {
            let mut config = config(identity);
            config.tuning.higher_id_delay = Duration::ZERO;
            config.tuning.redial_jitter = Duration::ZERO;
            Node::start_with(config)
        });
        a.want(&[(b.id(), b.addr())]);
        b.want(&[(a.id(), a.addr())]);
        let settle = Duration::from_millis(400);
        tokio::join!(a.rest(settle), b.rest(settle));
        check_one_working_link(&mut a, &mut b).await;
        crossed += usize::from(!a.down.is_empty() || !b.down.is_empty());
        tokio::join!(a.net.close(), b.net.close());
    }
    println!("a link was replaced in {crossed} of 15 rounds");
}

/// The same by hand, in every order: each side has dialed before either connection is up.
#[tokio::test]
async fn of_crossing_dials_the_lower_nodes_one_survives() {
    const BOOT: u64 = 7;
    let (low, high) = two_identities(&authority());
    for (own, other) in [(&low, &high), (&high, &low)] {
        for own_dial_first in [true, false] {
            let mut node = Node::start(own);
            let tls = TlsSettings::new(other, Arc::new(Invites::default()), &clock()).unwrap();
            let server = quinn::ServerConfig::with_crypto(tls.server.clone());
            let peer = quinn::Endpoint::server(server, LOOPBACK.parse().unwrap()).unwrap();
            node.want(&[(other.node_id(), peer.local_addr().unwrap())]);
            let dialed_by_node = peer.accept().await.unwrap().await.unwrap();
            let client = quinn::ClientConfig::new(tls.client.clone());
            let connecting = peer.connect_with(client, node.addr(), &server_name(node.id())).unwrap();
            let dialed_by_peer = connecting.await.unwrap();

            let order = if own_dial_first {
                [(&dialed_by_node, true), (&dialed_by_peer, false)]
            } else {
                [(&dialed_by_peer, false), (&dialed_by_node, true)]
            };
            for (connection, _) in order {
                greet(connection, BOOT).await.unwrap();
                node.rest(Duration::from_millis(150)).await;
            }
            let survivor_dialed = node.id() < other.node_id();
            let dialed: Vec<bool> = node.up.values().map(|(_, dialed)| *dialed).collect();
            assert_eq!(dialed, [survivor_dialed], "own dial first: {own_dial_first}");
            for (connection, by_node) in order {
                assert_eq!(connection.close_reason().is_some(), by_node != survivor_dialed);
            }
        }
    }
}

#[tokio::test]
async fn the_higher_node_dials_too() {
    let (low, high) = two_identities(&authority());
    let (mut a, mut b) = (Node::start(&low), Node::start(&high));
    b.want(&[(a.id(), a.addr())]);
    b.linked(a.id()).await;
    a.linked(b.id()).await;
    check_one_working_link(&mut a, &mut b).await;
}

#[tokio::test]
async fn a_peer_that_comes_back_on_another_port_is_found() {
    let (low, high) = two_identities(&authority());
    let (mut a, mut b) = (Node::start(&low), Node::start(&high));
    a.want(&[(b.id(), b.addr())]);
    let first = a.linked(b.id()).await;
    b.linked(a.id()).await;
    b.net.close().await;
    a.until("the end", |own| own.down.contains_key(&first)).await;
    assert_eq!(a.down[&first], "closed by the peer: the node is shutting down");
    let mut b = Node::start(&high);
    a.want(&[(b.id(), b.addr())]);
    let second = a.linked(b.id()).await;
    b.linked(a.id()).await;
    assert!(second > first);
    check_one_working_link(&mut a, &mut b).await;
}

/// The old process never said goodbye: to the other node its link looks alive, whoever had dialed it.
#[tokio::test]
async fn a_peer_that_restarts_replaces_its_former_life() {
    let (low, high) = two_identities(&authority());
    for old_dialed_by_low in [true, false] {
        let (mut a, mut old) = (Node::start(&low), Node::start(&high));
        if old_dialed_by_low {
            a.want(&[(old.id(), old.addr())]);
        } else {
            old.want(&[(a.id(), a.addr())]);
        }
        let first = a.linked(old.id()).await;
        old.linked(a.id()).await;
        let mut new = Node::start(&high);
        new.want(&[(a.id(), a.addr())]);
        new.linked(a.id()).await;
        a.until("the new life", |own| own.down.contains_key(&first)).await;
        assert_eq!(a.down[&first], "replaced by a newer connection");
        old.until("the end", |own| !own.down.is_empty()).await;
        a.linked(new.id()).await;
        if old_dialed_by_low {
            check_one_working_link(&mut a, &mut new).await;
        }
    }
}

#[tokio::test]
async fn a_lost_link_is_dialed_again_and_dead_addresses_are_skipped() {
    let (low, high) = two_identities(&authority());
    let mut settings = config(&low);
    settings.tuning.dial_timeout = Duration::from_millis(300);
    let (mut a, mut b) = (Node::start_with(settings), Node::start(&high));
    // Bound, so that nobody else answers there.
    let dead = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    a.net.set_peers(BTreeMap::from([(b.id(), vec![dead.local_addr().unwrap(), b.addr()])]));
    let first = a.linked(b.id()).await;
    let at_b = b.linked(a.id()).await;
    b.net.disconnect(at_b, "try again");
    a.until("the end", |own| own.down.contains_key(&first)).await;
    b.until("the end", |own| own.down.contains_key(&at_b)).await;
    a.linked(b.id()).await;
    b.linked(a.id()).await;
    check_one_working_link(&mut a, &mut b).await;
    assert_eq!(a.net.counters().dials_failed.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn removed_peers_are_disconnected_and_stay_so() {
    let (mut a, to_b, mut b, _) = pair().await;
    a.net.set_peers(BTreeMap::new());
    a.until("the end", |own| own.down.contains_key(&to_b)).await;
    assert_eq!(a.down[&to_b], "no longer a peer");
    b.until("the end", |own| own.up.is_empty()).await;
    tokio::join!(a.rest(Duration::from_millis(800)), b.rest(Duration::from_millis(800)));
    assert!(a.up.is_empty() && b.up.is_empty());
}

#[tokio::test]
async fn closing_tells_the_peers_and_stops_dialing() {
    let (mut a, to_b, mut b, to_a) = pair().await;
    let start = tokio::time::Instant::now();
    a.net.close().await;
    assert!(start.elapsed() < Duration::from_secs(2));
    a.until("the end", |own| own.down.contains_key(&to_b)).await;
    b.until("the end", |own| own.down.contains_key(&to_a)).await;
    a.want(&[(b.id(), b.addr())]);
    sleep(Duration::from_millis(300)).await;
    b.rest(Duration::from_millis(100)).await;
    assert!(b.up.is_empty());
}

/// Forwards datagrams of one client to `target` and back while `open`.
async fn relay(socket: tokio::net::UdpSocket, target: SocketAddr, open: Arc<std::sync::atomic::AtomicBool>) {
    let upstream = tokio::net::UdpSocket::bind(LOOPBACK).await.unwrap();
    let mut client = None;
    let (mut from_client, mut from_target) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            Ok((len, addr)) = socket.recv_from(&mut from_client) => {
                client = Some(addr);
                if open.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = upstream.send_to(&from_client[..len], target).await;
                }
            }
            Ok((len, _)) = upstream.recv_from(&mut from_target) => {
                if let (Some(client), true) = (client, open.load(std::sync::atomic::Ordering::Relaxed)) {
                    let _ = socket.send_to(&from_target[..len], client).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_partition_is_noticed_by_both_and_heals() {
    let (low, high) = two_identities(&authority());
    let [mut a, mut b] = [&low, &high].map(|identity| {
        let mut config = config(identity);
        config.tuning.idle_timeout = Duration::from_millis(900);
        config.tuning.keep_alive = Duration::from_millis(200);
        config.tuning.dial_timeout = Duration::from_millis(500);
        Node::start_with(config)
    });
    let socket = tokio::net::UdpSocket::bind(LOOPBACK).await.unwrap();
    let address = socket.local_addr().unwrap();
    let open = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let relay = tokio::spawn(relay(socket, b.addr(), Arc::clone(&open)));
    a.want(&[(b.id(), address)]);
    let (to_b, to_a) = (a.linked(b.id()).await, b.linked(a.id()).await);
    // Keep-alives alone hold an idle link up.
    tokio::join!(a.rest(Duration::from_millis(1500)), b.rest(Duration::from_millis(1500)));
    assert!(a.up.contains_key(&to_b) && b.up.contains_key(&to_a));

    open.store(false, std::sync::atomic::Ordering::Relaxed);
    a.until("the loss", |own| own.down.contains_key(&to_b)).await;
    b.until("the loss", |own| own.down.contains_key(&to_a)).await;
    for (node, link) in [(&a, to_b), (&b, to_a)] {
        assert_eq!(node.down[&link], "no packet from the peer within the idle timeout");
    }
    open.store(true, std::sync::atomic::Ordering::Relaxed);
    a.linked(b.id()).await;
    b.linked(a.id()).await;
    check_one_working_link(&mut a, &mut b).await;
    relay.abort();
}

//! A link that loses packets, and what is done about the last record.

use std::sync::atomic::Ordering;

use tokio::net::UdpSocket;

use super::*;

/// There and back.
const RTT: Duration = Duration::from_millis(80);

/// Forwards datagrams of one client to `target` and back; of every `nth` that the client sends nothing arrives.
async fn far(socket: UdpSocket, target: SocketAddr, nth: usize) {
    let (socket, upstream) = (Arc::new(socket), Arc::new(UdpSocket::bind(LOOPBACK).await.unwrap()));
    let later = |from: &Arc<UdpSocket>, to: SocketAddr, bytes: &[u8]| {
        let (from, bytes) = (Arc::clone(from), bytes.to_vec());
        tokio::spawn(async move {
            sleep(RTT / 2).await;
            let _ = from.send_to(&bytes, to).await;
        });
    };
    let (mut client, mut count) = (None, 0);
    let (mut from_client, mut from_target) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            Ok((len, addr)) = socket.recv_from(&mut from_client) => {
                client = Some(addr);
                count += 1;
                if count % nth != 0 {
                    later(&upstream, target, &from_client[..len]);
                }
            }
            Ok((len, _)) = upstream.recv_from(&mut from_target) => {
                if let Some(client) = client {
                    later(&socket, client, &from_target[..len]);
                }
            }
        }
    }
}

/// Sends lone records over a link that loses every `nth` packet; the slowest of the last ones, and the probes sent.
async fn lone_records(nth: usize) -> (Duration, u64) {
    let (low, high) = two_identities(&authority());
    let (mut a, mut b) = (Node::start(&low), Node::start(&high));
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    let address = socket.local_addr().unwrap();
    let relay = tokio::spawn(far(socket, b.addr(), nth));
    a.want(&[(b.id(), address)]);
    let to_b = a.linked(b.id()).await;
    b.linked(a.id()).await;
    let mut slowest = Duration::ZERO;
    for number in 0..40 {
        let begun = tokio::time::Instant::now();
        a.net.send(to_b, Class::Records, Bytes::from(vec![number; 100])).unwrap();
        assert_eq!(b.frame().await.bytes, vec![number; 100]);
        if number >= 20 {
            slowest = slowest.max(begun.elapsed());
        }
        // Longer than a probe timeout.
        a.rest(RTT * 2).await;
    }
    relay.abort();
    (slowest, a.net.counters().tail_probes.load(Ordering::Relaxed))
}

#[tokio::test]
async fn the_last_record_is_followed_where_packets_are_lost() {
    let ((slowest, probes), (_, probes_without_loss)) = tokio::join!(lone_records(5), lone_records(usize::MAX));
    assert!((15..=40).contains(&probes), "{probes}");
    assert_eq!(probes_without_loss, 0);
    assert!(slowest > RTT, "something was lost");
}

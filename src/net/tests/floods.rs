//! Strangers in crowds: handshakes that nobody finishes, invitations that open nothing, streams of noise. Members and
//! invited newcomers get through meanwhile.

use std::sync::atomic::Ordering;

use tokio::net::UdpSocket;

use super::super::tls::TlsSettings;
use super::*;

/// Handshakes that are begun: above the number at which callers have to prove their address.
const HALF_OPEN: usize = 300;

/// Forwards what callers send to a node and drops what it answers.
async fn mute_relay(target: SocketAddr) -> SocketAddr {
    let (mouth, ear) = (UdpSocket::bind(LOOPBACK).await.unwrap(), UdpSocket::bind(LOOPBACK).await.unwrap());
    let address = mouth.local_addr().unwrap();
    tokio::spawn(async move {
        let mut datagram = vec![0; 2048];
        while let Ok((len, _)) = mouth.recv_from(&mut datagram).await {
            if ear.send_to(&datagram[..len], target).await.is_err() {
                return;
            }
        }
    });
    address
}

#[tokio::test]
async fn handshakes_that_nobody_finishes_keep_no_member_out() {
    let authority = authority();
    let (mine, theirs) = (identity(&authority), identity(&authority));
    let mut config = config(&mine);
    config.tuning.dial_timeout = Duration::from_secs(3);
    let mut node = Node::start_with(config);
    let relay = mute_relay(node.addr()).await;
    let stranger = identity(&super::authority());
    let tls = TlsSettings::new(&stranger, Arc::new(super::super::invite::Invites::default()), &clock()).unwrap();
    let endpoint = quinn::Endpoint::client(LOOPBACK.parse().unwrap()).unwrap();
    let name = super::super::identity::server_name(node.id());
    let begin = || endpoint.connect_with(quinn::ClientConfig::new(tls.client.clone()), relay, &name).unwrap();
    let half_open: Vec<quinn::Connecting> = (0..HALF_OPEN).map(|_| begin()).collect();
    sleep(Duration::from_millis(500)).await;
    let mut member = Node::start(&theirs);
    member.want(&[(node.id(), node.addr())]);
    member.linked(node.id()).await;
    node.linked(member.id()).await;
    // Whoever did not finish in time is given up, and makes room.
    let refused = || node.net.counters().handshakes_refused.load(Ordering::Relaxed);
    let given_up = timeout(PATIENCE, async {
        while refused() < 100 {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(given_up.await.is_ok(), "{} given up", refused());
    assert!(node.link_to(member.id()).is_some(), "the link has borne it");
    drop(half_open);
}

#[tokio::test]
async fn a_crowd_with_invitations_that_open_nothing_keeps_no_newcomer_out() {
    let (issuer, other) = (super::joins::issuer(clock()), super::joins::issuer(clock()));
    // Good ones of another cluster, for this one's address.
    let strange = || other.node.net.create_invite(Duration::from_secs(600), vec![issuer.node.addr()]).unwrap();
    let crowd: Vec<_> = (0..100)
        .map(|_| {
            let token = strange();
            tokio::spawn(async move { super::joins::join_as(&token, "stranger").await.map(drop) })
        })
        .collect();
    let token = issuer.invite();
    timeout(PATIENCE, super::joins::join_as(&token, "new")).await.expect("in time").unwrap();
    for stranger in crowd {
        assert!(stranger.await.unwrap().is_err());
    }
    let applicants: Vec<String> = issuer.applicants.lock().unwrap().iter().map(|a| a.name.clone()).collect();
    assert_eq!(applicants, ["new"], "nobody else was asked about");
}

#[tokio::test]
async fn any_bytes_of_a_peer_are_frames_or_the_end_of_its_link() {
    let authority = authority();
    let (mine, theirs) = (identity(&authority), identity(&authority));
    let mut node = Node::start(&mine);
    for seed in 0..40_u64 {
        let mut noise = [0; 600];
        blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut noise);
        let (_endpoint, connection) = super::links::raw_peer(&mut node, &theirs).await;
        let link = node.link_to(theirs.node_id()).unwrap();
        let mut stream = connection.open_uni().await.unwrap();
        // A class that there is, and lengths that there may be, or not.
        noise[0] %= 6;
        (noise[1], noise[2]) = (0, noise[2] & 1);
        let mut rest = &noise[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at((1 + usize::from(rest[0]) % 90).min(rest.len()));
            // The node may have closed by now.
            let _ = stream.write_all(now).await;
            rest = later;
        }
        let _ = stream.finish();
        node.until(&format!("the end of seed {seed}"), |own| own.down.contains_key(&link)).await;
        node.frames.clear();
    }
    let (_endpoint, connection) = super::links::raw_peer(&mut node, &theirs).await;
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(b"\x01\0\0\0\x04good").await.unwrap();
    assert_eq!(&node.frame().await.bytes[..], b"good");
}

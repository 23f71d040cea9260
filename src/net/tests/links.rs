//! Frames over a link: order, sizes, back-pressure, latency, and peers that break the framing.

use std::sync::atomic::Ordering;

use super::super::connection::greet;
use super::super::framing::CLASS_INBOUND_BYTES_MAX;
use super::super::invite::Invites;
use super::super::tls::TlsSettings;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_every_class_arrive_in_order_and_whole() {
    const FRAMES: u32 = 3000;
    let (mut a, to_b, mut b, _) = pair().await;
    let mut expected = [0; 4];
    for number in 0..FRAMES {
        for class in Class::ALL {
            // Lengths on both sides of every threshold, zero and the longest included.
            let len = match number % 500 {
                0 => FRAME_LEN_MAX,
                1 => 0,
                2 => 70_000,
                3 => 8 * 1024 + 1,
                _ => 4 + (number as usize * 7) % 200,
            };
            let mut bytes = vec![number as u8; len];
            if let Some(head) = bytes.get_mut(..4) {
                head.copy_from_slice(&number.to_be_bytes());
            }
            a.net.send(to_b, class, bytes.into()).unwrap();
            expected[class.index()] += len;
        }
    }
    let mut next = [0u32; 4];
    let mut total = [0; 4];
    let sender = tokio::spawn(async move {
        let all_sent = |own: &mut Node| {
            Class::ALL.iter().all(|class| own.sent.get(&(to_b, *class)) == Some(&expected[class.index()]))
        };
        a.until("everything reported as sent, to the byte", all_sent).await;
        a
    });
    while next != [FRAMES; 4] {
        let frame = b.frame().await;
        let index = frame.class.index();
        if let Some(head) = frame.bytes.first_chunk::<4>() {
            assert_eq!(u32::from_be_bytes(*head), next[index], "{:?} out of order", frame.class);
            assert!(frame.bytes[4..].iter().all(|byte| *byte == next[index] as u8), "content changed");
        }
        next[index] += 1;
        total[index] += frame.bytes.len();
    }
    assert_eq!(total, expected);
    let a = sender.await.unwrap();
    for class in Class::ALL {
        let (out, inward) = (a.net.counters().class(class), b.net.counters().class(class));
        assert_eq!(out.frames_out.load(Ordering::Relaxed), u64::from(FRAMES));
        assert_eq!(inward.frames_in.load(Ordering::Relaxed), u64::from(FRAMES));
        assert_eq!(inward.bytes_in.load(Ordering::Relaxed), expected[class.index()] as u64);
    }
}

#[tokio::test]
async fn sending_too_long_a_frame_or_on_a_dead_link_is_refused() {
    let (mut a, to_b, mut b, to_a) = pair().await;
    let long = Bytes::from(vec![0; FRAME_LEN_MAX + 1]);
    assert_eq!(a.net.send(to_b, Class::Sync, long), Err(SendError::TooLong(FRAME_LEN_MAX + 1)));
    assert!(a.net.rtt(to_b).unwrap() < Duration::from_millis(500));
    b.net.disconnect(to_a, "enough");
    b.until("the end", |own| own.down.contains_key(&to_a)).await;
    assert_eq!(b.down[&to_a], "enough");
    a.until("the end", |own| own.down.contains_key(&to_b)).await;
    assert_eq!(a.down[&to_b], "closed by the peer: enough");
    assert_eq!(a.net.send(to_b, Class::Sync, Bytes::new()), Err(SendError::LinkGone));
    assert_eq!(a.net.rtt(to_b), None);
}

/// A peer with a good certificate that then does what it likes.
pub(super) async fn raw_peer(node: &mut Node, identity: &Identity) -> (quinn::Endpoint, quinn::Connection) {
    let endpoint = quinn::Endpoint::client(LOOPBACK.parse().unwrap()).unwrap();
    let tls = TlsSettings::new(identity, Arc::new(Invites::default()), &clock()).unwrap();
    let config = quinn::ClientConfig::new(tls.client.clone());
    let name = super::super::identity::server_name(node.id());
    let connection = endpoint.connect_with(config, node.addr(), &name).unwrap().await.unwrap();
    greet(&connection, 1).await.unwrap();
    node.linked(identity.node_id()).await;
    (endpoint, connection)
}

#[tokio::test]
async fn a_peer_that_breaks_the_framing_is_disconnected() {
    let authority = authority();
    let (mine, theirs) = (identity(&authority), identity(&authority));
    let mut node = Node::start(&mine);
    let len = |len: usize| (len as u32).to_be_bytes();
    let breaches: [(&str, Vec<Vec<u8>>); 5] = [
        ("frame of 1048577 bytes", vec![[&[1][..], &len(FRAME_LEN_MAX + 1)].concat()]),
        ("frame of 4294967295 bytes", vec![[&[4][..], &[255; 4]].concat()]),
        ("unknown stream 5", vec![vec![5]]),
        ("second Records stream", vec![vec![2], vec![2]]),
        ("stream ended within a frame", vec![[&[3][..], &len(10), b"short"].concat()]),
    ];
    for (index, (reason, streams)) in breaches.iter().enumerate() {
        let (_endpoint, connection) = raw_peer(&mut node, &theirs).await;
        let link = node.link_to(theirs.node_id()).unwrap();
        let mut open = Vec::new();
        for bytes in streams {
            let mut stream = connection.open_uni().await.unwrap();
            stream.write_all(bytes).await.unwrap();
            if reason.contains("ended") {
                stream.finish().unwrap();
            }
            open.push(stream);
        }
        node.until("the end", |own| own.down.contains_key(&link)).await;
        assert!(node.down[&link].starts_with(reason), "{} instead of {reason}", node.down[&link]);
        assert_eq!(node.net.counters().malformed.load(Ordering::Relaxed), index as u64 + 1);
        let closed = connection.closed().await;
        assert!(closed.to_string().contains(reason), "{closed}");
    }
    // The longest frame is allowed.
    let (_endpoint, connection) = raw_peer(&mut node, &theirs).await;
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&[&[1][..], &len(FRAME_LEN_MAX), &vec![9; FRAME_LEN_MAX]].concat()).await.unwrap();
    assert_eq!(node.frame().await.bytes.len(), FRAME_LEN_MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_holds_back_one_class_of_one_peer_only() {
    const FRAME_LEN: usize = 200_000;
    const FRAMES: usize = 300;
    let authority = authority();
    let mut slow = Node::start(&identity(&authority));
    let (mut fast, mut other) = (Node::start(&identity(&authority)), Node::start(&identity(&authority)));
    for node in [&fast, &other] {
        node.want(&[(slow.id(), slow.addr())]);
    }
    let (link, other_link) = (fast.linked(slow.id()).await, other.linked(slow.id()).await);
    for _ in 0..FRAMES {
        fast.net.send(link, Class::Blobs, vec![1; FRAME_LEN].into()).unwrap();
    }
    // The consumer drains its events but keeps the permits.
    slow.rest(Duration::from_secs(1)).await;
    fast.rest(Duration::from_millis(100)).await;
    let held: usize = slow.frames.iter().map(|frame| frame.bytes.len()).sum();
    assert!(held > 0 && held <= CLASS_INBOUND_BYTES_MAX, "{held} bytes held");
    let accepted = fast.sent[&(link, Class::Blobs)];
    assert!(accepted < FRAME_LEN * FRAMES / 4, "the sender was not held back: {accepted}");
    let in_flight = accepted - held;
    assert!(in_flight <= 3 << 20, "{in_flight} bytes between the two");

    fast.net.send(link, Class::Control, "urgent".into()).unwrap();
    fast.net.send(link, Class::Records, "record".into()).unwrap();
    other.net.send(other_link, Class::Blobs, "other".into()).unwrap();
    let small = |own: &mut Node| own.frames.iter().filter(|frame| frame.bytes.len() == 6).count() == 2;
    slow.until("the other classes", small).await;
    let from_other = other.id();
    slow.until("the other peer", |own| own.frames.iter().any(|frame| frame.node == from_other)).await;

    // Once it lets go, all of it arrives.
    let mut got = slow.frames.drain(..).filter(|frame| frame.class == Class::Blobs && frame.node == fast.id()).count();
    let _drain = tokio::spawn(async move { fast.rest(PATIENCE).await });
    while got < FRAMES {
        assert_eq!(slow.frame().await.bytes.len(), FRAME_LEN);
        got += 1;
    }
}

#[tokio::test]
async fn a_flood_of_empty_frames_is_bounded_too() {
    let (a, to_b, mut b, _) = pair().await;
    for _ in 0..100_000 {
        a.net.send(to_b, Class::Records, Bytes::new()).unwrap();
    }
    let drain = async {
        let mut a = a;
        a.rest(Duration::from_secs(2)).await;
    };
    tokio::join!(drain, b.rest(Duration::from_secs(2)));
    let held = b.frames.len();
    assert!((1_000..=CLASS_INBOUND_BYTES_MAX / 64).contains(&held), "{held} frames held");
    drop(b.frames.pop().unwrap().permit);
    b.until("one more", |own| own.frames.len() == held).await;
    assert!(b.frames.iter().all(|frame| frame.link == b.link_to(frame.node).unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_trip_latency_is_printed() {
    const ROUNDS: usize = 1000;
    let (mut a, to_b, mut b, to_a) = pair().await;
    let echo = tokio::spawn(async move {
        for _ in 0..ROUNDS {
            let frame = b.frame().await;
            b.net.send(to_a, frame.class, frame.bytes).unwrap();
        }
        b.rest(PATIENCE).await;
    });
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = tokio::time::Instant::now();
        a.net.send(to_b, Class::Records, Bytes::from_static(&[7; 100])).unwrap();
        a.frame().await;
        times.push(start.elapsed());
    }
    echo.abort();
    times.sort();
    let at = |percent: usize| times[ROUNDS * percent / 100];
    let rtt = a.net.rtt(to_b).unwrap();
    println!("round trip of 100 bytes, p50 {:?}, p90 {:?}, p99 {:?}; rtt() says {rtt:?}", at(50), at(90), at(99));
    assert!(rtt < Duration::from_millis(50), "{rtt:?}");
    // No timer lies in the way: those of TCP's kind take 40 ms and more.
    assert!(at(50) < Duration::from_millis(5), "{:?}", at(50));
}

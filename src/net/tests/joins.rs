//! How a newcomer gets in, and every way in which it doesn't.

use std::sync::Mutex;

use super::super::connection::greet;
use super::super::identity::server_name;
use super::super::join_message::{JOIN_VERSION, ReplyMessage, RequestMessage, read_message, write_message};
use super::super::tls::{ALPN_JOIN, ALPN_PEER, JoinTls, client_config};
use super::*;

const TTL: Duration = Duration::from_secs(600);
const CLOCK_DIFFERENCE_MS_MAX: i64 = 60_000;

/// Refuses a node called "taken" and clocks that are off by more than a minute; remembers who asked.
pub(super) struct Issuer {
    pub(super) node: Node,
    authority: Authority,
    pub(super) applicants: Arc<Mutex<Vec<JoinApplicant>>>,
}

pub(super) fn issuer(clock: WallClock) -> Issuer {
    let authority = authority();
    let applicants = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&applicants);
    let policy: JoinPolicy = Arc::new(move |applicant| {
        let difference_ms = applicant.clock_difference_ms;
        let result = if difference_ms.abs() > CLOCK_DIFFERENCE_MS_MAX {
            Err(JoinRefusal::ClockFarOff { difference_ms })
        } else if applicant.name == "taken" {
            Err(JoinRefusal::NameTaken)
        } else {
            Ok(Bytes::from("account and roster"))
        };
        seen.lock().unwrap().push(applicant);
        Box::pin(async { result })
    });
    let mut config = config(&identity(&authority));
    config.clock = clock;
    config.join = Some(JoinIssuer { authority: authority.clone(), policy });
    Issuer { node: Node::start_with(config), authority, applicants }
}

impl Issuer {
    pub(super) fn invite(&self) -> JoinToken {
        self.node.net.create_invite(TTL, vec![self.node.addr()]).unwrap()
    }
}

fn request(name: &str) -> JoinRequest {
    JoinRequest { name: name.into(), pop: "fra".into(), info: Bytes::from("info") }
}

async fn join_at(token: &JoinToken, name: &str, clock: WallClock) -> Result<Joined, JoinError> {
    let mut config = JoinConfig { clock, tuning: NetTuning::default() };
    config.tuning.dial_timeout = Duration::from_secs(2);
    join(token, request(name), &NodeKey::generate().unwrap(), &config).await
}

pub(super) async fn join_as(token: &JoinToken, name: &str) -> Result<Joined, JoinError> {
    join_at(token, name, clock()).await
}

#[tokio::test]
async fn a_newcomer_becomes_a_node_and_its_token_is_used_up() {
    let mut issuer = issuer(clock());
    let token: JoinToken = issuer.invite().to_string().parse().unwrap();
    let joined = join_as(&token, "new").await.unwrap();
    assert_eq!(joined.grant, "account and roster");
    assert_eq!(joined.authority.fingerprint(), issuer.authority.fingerprint());
    assert_eq!(joined.issuer_addr, issuer.node.addr());
    {
        let applicants = issuer.applicants.lock().unwrap();
        let [applicant] = &applicants[..] else { panic!("{applicants:?}") };
        assert_eq!(applicant.node, joined.identity.node_id());
        assert_eq!(
            (applicant.name.as_str(), applicant.pop.as_str(), &applicant.info[..]),
            ("new", "fra", &b"info"[..])
        );
        assert!(applicant.clock_difference_ms.abs() < 5000);
    }
    assert!(matches!(join_as(&token, "again").await, Err(JoinError::UnknownInvite)));

    // The newcomer is a node like any other, and can let others in.
    let mut newcomer = Node::start(&joined.identity);
    newcomer.want(&[(issuer.node.id(), issuer.node.addr())]);
    newcomer.linked(issuer.node.id()).await;
    issuer.node.linked(newcomer.id()).await;
    let third = identity(&joined.authority);
    let mut third = Node::start(&third);
    third.want(&[(issuer.node.id(), issuer.node.addr())]);
    third.linked(issuer.node.id()).await;
}

#[tokio::test]
async fn a_refusal_does_not_use_up_the_token() {
    let issuer = issuer(clock());
    let token = issuer.invite();
    assert!(matches!(join_as(&token, "taken").await, Err(JoinError::Refused(JoinRefusal::NameTaken))));
    const YEAR_SECS: i64 = 365 * 24 * 60 * 60;
    // Also by more than any certificate is valid; to the future only within the token's tolerance.
    for secs in [-40 * YEAR_SECS, -3 * YEAR_SECS, -90, 90, 20_000] {
        match join_at(&token, "new", clock_ahead(secs)).await {
            Err(JoinError::ClockFarOff { difference_ms }) => {
                assert!((difference_ms - secs * 1000).abs() < 5000, "{difference_ms} for {secs} s");
            }
            other => panic!("{secs} s: {other:?}"),
        }
    }
    assert!(matches!(join_at(&token, "new", clock_ahead(YEAR_SECS)).await, Err(JoinError::Expired)));
    join_as(&token, "new").await.unwrap();
}

#[tokio::test]
async fn the_issuer_judges_the_expiry() {
    let ahead = Arc::new(Mutex::new(Duration::ZERO));
    let (base, offset) = (clock(), Arc::clone(&ahead));
    let issuer = issuer(Arc::new(move || base() + *offset.lock().unwrap()));
    let token = issuer.invite();
    *ahead.lock().unwrap() = TTL + Duration::from_secs(1);
    assert!(matches!(join_as(&token, "new").await, Err(JoinError::Expired)));
    assert!(issuer.applicants.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_token_pins_the_cluster_and_the_issuer() {
    let issuer = issuer(clock());
    let mut token = issuer.invite();
    token.authority_fingerprint[0] ^= 1;
    assert!(matches!(join_as(&token, "new").await, Err(JoinError::WrongCluster)));
    // Another node of the same cluster at the address: not the one that was asked for.
    let mut token = issuer.invite();
    token.issuer = NodeId(token.issuer.0 ^ 1);
    assert!(matches!(join_as(&token, "new").await, Err(JoinError::Unreachable { .. })));
    // The right node, but not its secret.
    let mut token = issuer.invite();
    token.secret[0] ^= 1;
    assert!(matches!(join_as(&token, "new").await, Err(JoinError::UnknownInvite)));
    assert!(issuer.applicants.lock().unwrap().is_empty());
}

#[tokio::test]
async fn addresses_are_tried_in_turn() {
    let issuer = issuer(clock());
    let silent = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let mut token = issuer.invite();
    token.addresses = vec![silent.local_addr().unwrap()];
    match join_as(&token, "new").await {
        Err(JoinError::Unreachable { addresses }) => assert_eq!(addresses, token.addresses),
        other => panic!("{other:?}"),
    }
    token.addresses.push(issuer.node.addr());
    join_as(&token, "new").await.unwrap();
}

#[tokio::test]
async fn only_issuers_make_invites_and_not_without_an_address() {
    let node = Node::start(&identity(&authority()));
    assert!(matches!(node.net.create_invite(TTL, vec![node.addr()]), Err(NetError::NotAnIssuer)));
    let issuer = issuer(clock());
    assert!(matches!(issuer.node.net.create_invite(TTL, vec![]), Err(NetError::BadAddresses)));
    for _ in 0..INVITES_MAX {
        issuer.invite();
    }
    assert!(matches!(issuer.node.net.create_invite(TTL, vec![node.addr()]), Err(NetError::TooManyInvites)));
}

#[tokio::test]
async fn a_newcomer_that_crashed_before_it_confirmed_may_come_again() {
    let issuer = issuer(clock());
    let token = issuer.invite();
    let key = NodeKey::generate().unwrap();
    {
        let endpoint = quinn::Endpoint::client(LOOPBACK.parse().unwrap()).unwrap();
        let tls = JoinTls::new(&token, &clock()).unwrap();
        let config = quinn::ClientConfig::new(tls.client.clone());
        let name = server_name(issuer.node.id());
        let connection = endpoint.connect_with(config, issuer.node.addr(), &name).unwrap().await.unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(key.pair()).unwrap();
        let message = RequestMessage {
            version: JOIN_VERSION,
            certificate_request: csr.der().to_vec(),
            name: "new".into(),
            pop: "fra".into(),
            info: Bytes::new(),
            clock_ms: clock()().as_millis() as u64,
        };
        write_message(&mut send, &message).await.unwrap();
        assert!(matches!(read_message(&mut receive).await.unwrap(), ReplyMessage::Granted(_)));
        // While it is being used, nobody else can use it.
        match join_as(&token, "other").await {
            Err(JoinError::Refused(JoinRefusal::Other(reason))) => assert!(reason.contains("another join"), "{reason}"),
            other => panic!("{other:?}"),
        }
        connection.close(9u32.into(), b"crash");
        endpoint.wait_idle().await;
    }
    let config = JoinConfig { clock: clock(), tuning: NetTuning::default() };
    let joined = join(&token, request("new"), &key, &config).await.unwrap();
    assert_eq!(joined.identity.node_id(), key.node_id());
    assert!(matches!(join_as(&token, "again").await, Err(JoinError::UnknownInvite)));
}

#[tokio::test]
async fn an_invite_opens_the_join_protocol_only_and_members_need_none() {
    let mut issuer = issuer(clock());
    let token = issuer.invite();
    let invite_key = token.client_key().unwrap();
    let self_signed = rcgen::CertificateParams::default().self_signed(invite_key.pair()).unwrap();
    let member = identity(&issuer.authority);
    let cases = [(vec![self_signed.der().clone()], &invite_key, ALPN_PEER), (member.chain(), member.key(), ALPN_JOIN)];
    for (chain, key, protocol) in cases {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(issuer.authority.certificate().clone()).unwrap();
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .unwrap();
        let client = client_config(provider, &clock(), verifier, chain, key, protocol).unwrap();
        let endpoint = quinn::Endpoint::client(LOOPBACK.parse().unwrap()).unwrap();
        let name = server_name(issuer.node.id());
        let config = quinn::ClientConfig::new(client);
        let connection = endpoint.connect_with(config, issuer.node.addr(), &name).unwrap().await.unwrap();
        let greeted = timeout(PATIENCE, greet(&connection, 1)).await.unwrap();
        assert!(greeted.is_err(), "{}", String::from_utf8_lossy(protocol));
        let refused = matches!(connection.closed().await, quinn::ConnectionError::ApplicationClosed(_));
        assert!(refused, "{}", String::from_utf8_lossy(protocol));
    }
    issuer.node.rest(Duration::from_millis(100)).await;
    assert!(issuer.node.up.is_empty() && issuer.node.down.is_empty());
    assert!(issuer.applicants.lock().unwrap().is_empty());
    assert_eq!(issuer.node.net.counters().handshakes_refused.load(std::sync::atomic::Ordering::Relaxed), 2);
    join_as(&token, "new").await.unwrap();
}

#[tokio::test]
async fn joins_at_once_are_bounded() {
    let authority = authority();
    let mut config = config(&identity(&authority));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let closed_gate = Arc::clone(&gate);
    let policy: JoinPolicy = Arc::new(move |_| {
        let gate = Arc::clone(&closed_gate);
        Box::pin(async move {
            let _ = gate.acquire().await;
            Ok(Bytes::new())
        })
    });
    config.join = Some(JoinIssuer { authority, policy });
    let node = Node::start_with(config);
    let invite = || node.net.create_invite(TTL, vec![node.addr()]).unwrap();
    let waiting: Vec<_> = (0..JOINS_MAX)
        .map(|_| {
            let token = invite();
            tokio::spawn(async move { join_as(&token, "new").await.map(|_| ()) })
        })
        .collect();
    sleep(Duration::from_secs(1)).await;
    match join_as(&invite(), "one too many").await {
        Err(JoinError::Refused(JoinRefusal::Other(reason))) => assert!(reason.contains("too many"), "{reason}"),
        other => panic!("{other:?}"),
    }
    gate.close();
    for join in waiting {
        join.await.unwrap().unwrap();
    }
}

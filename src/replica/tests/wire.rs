//! Every message and record reads back as it was written, and random bytes are refused without harm.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::replica::*;

fn origins() -> impl Strategy<Value = Origin> {
    (any::<u64>(), any::<u64>()).prop_map(|(node, life)| Origin { node: NodeId(node), incarnation: Incarnation(life) })
}

fn dots() -> impl Strategy<Value = Dot> {
    (origins(), 1..u64::MAX).prop_map(|(origin, seq)| origin.dot(seq))
}

fn keys() -> impl Strategy<Value = Key> {
    (any::<[u8; 16]>(), vec(any::<u8>(), 1..=limits::KEY_LEN_MAX))
        .prop_map(|(namespace, name)| Key::new(NamespaceId(namespace), &name).expect("within bounds"))
}

fn bytes(longest: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..longest).prop_map(Bytes::from)
}

fn values() -> impl Strategy<Value = Value> {
    let blob = (any::<[u8; 16]>(), 1..=limits::VALUE_LEN_MAX as u64).prop_map(|(id, len)| {
        let chunks = (0..len.div_ceil(limits::CHUNK_LEN as u64)).map(|index| [index as u8; 32]).collect();
        Value::Blob(Blob { id: BlobId(id), len, chunks })
    });
    prop_oneof![Just(Value::Tombstone), bytes(300).prop_map(Value::Inline), blob,]
}

fn records() -> impl Strategy<Value = (Key, Entry)> {
    let times = (any::<u64>(), any::<u64>(), any::<u64>());
    (keys(), dots(), origins(), times, bytes(200), values(), any::<bool>()).prop_map(
        |(key, dot, writer, (stamp, time, expire_ms), metadata, value, dropped)| {
            let marker = Marker { time: Timestamp(time), origin: writer };
            let content = Content { expire_ms, metadata, value };
            let entry = Entry::new(&key, dot, Timestamp(stamp), marker, content);
            let entry = if dropped { entry.dropped() } else { entry };
            (key, entry)
        },
    )
}

fn versions() -> impl Strategy<Value = VersionVector> {
    vec((origins(), vec(1..100u64, 0..20)), 0..6).prop_map(|origins| {
        let mut versions = VersionVector::default();
        for (origin, seqs) in origins {
            seqs.into_iter().for_each(|seq| _ = versions.insert(origin.dot(seq)));
        }
        versions
    })
}

fn heads() -> impl Strategy<Value = Head> {
    (any::<u64>(), vec((origins(), any::<u64>()), 0..3), any::<u64>(), any::<u64>()).prop_map(
        |(node, former, stamp, watermark)| Head {
            node: NodeId(node),
            life: former.first().copied(),
            former,
            folded: stamp ^ watermark,
            stamp: Timestamp(stamp),
            watermark: Timestamp(watermark),
        },
    )
}

fn requests() -> impl Strategy<Value = ChunkRequest> {
    (keys(), any::<[u8; 16]>(), any::<u32>()).prop_map(|(key, id, index)| ChunkRequest { key, id: BlobId(id), index })
}

fn messages() -> impl Strategy<Value = Message> {
    let pushes = vec((records(), vec(dots(), 0..4)), 0..3).prop_map(|pushes| {
        let push = |((key, entry), covers): ((Key, Entry), Vec<Dot>)| Push { record: entry.to_record(&key), covers };
        Message::Records(Records { pushes: pushes.into_iter().map(push).collect() })
    });
    let chunk =
        (any::<u64>(), any::<u64>(), vec(records(), 0..3), dots()).prop_map(|(session, index, records, upto)| {
            let records = records.into_iter().map(|(key, entry)| entry.to_record(&key)).collect();
            Message::SyncChunk(SyncChunk { session, index, records, upto })
        });
    prop_oneof![
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(boot, started, heard)| Message::Hello(Hello {
            boot,
            started: Timestamp(started),
            heard: Timestamp(heard)
        })),
        (any::<u64>(), any::<u128>(), any::<bool>(), vec(heads(), 0..3)).prop_map(|(sent, sum, waits, heads)| {
            Message::Beat(Beat {
                waits,
                sent: Mono(sent),
                versions: VersionHash::default(),
                former: VersionHash::default(),
                digest: DigestSum(sum),
                secrets: SecretsHash(sum),
                heads,
            })
        }),
        vec((any::<[u8; 16]>(), any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..64)), 0..4).prop_map(|secrets| {
            let secrets = secrets.into_iter().map(|(owner, number, rank, bytes)| SharedSecret {
                owner: NamespaceId(owner),
                number,
                rank,
                bytes: SecretBytes(bytes),
            });
            Message::Secrets(secrets.collect())
        }),
        (any::<u64>(), any::<u64>()).prop_map(|(sent, wall_ms)| Message::Echo(Echo { sent: Mono(sent), wall_ms })),
        pushes,
        dots().prop_map(|dot| Message::AckPlease { dot }),
        dots().prop_map(|upto| Message::Ack { upto }),
        Just(Message::Lagging),
        (any::<u64>(), versions(), any::<bool>()).prop_map(|(session, have, full)| Message::SyncRequest(SyncRequest {
            session,
            have,
            folded: VersionHash::default(),
            full
        })),
        (any::<u64>(), versions(), any::<bool>()).prop_map(|(session, versions, full)| Message::SyncStart {
            session,
            versions,
            full
        }),
        chunk,
        (any::<u64>(), any::<u64>()).prop_map(|(session, applied)| Message::SyncAck { session, applied }),
        (any::<u64>(), any::<u64>()).prop_map(|(session, chunks)| Message::SyncDone { session, chunks }),
        any::<u64>().prop_map(|session| Message::SyncRefused { session, reason: SyncRefusal::Busy }),
        requests().prop_map(Message::ChunkRequest),
        (requests(), proptest::option::of(bytes(400))).prop_map(|(request, chunk)| Message::Chunk { request, chunk }),
        Just(Message::Superseded),
    ]
}

/// A replica with one peer, to which anything may be said.
fn replica() -> (Replica<MemStore>, Now) {
    let config = Config::new(NodeId(1), Durability::Fsync, [5; 32]);
    let now = Now { mono: Mono(1), wall_ms: 1_700_000_000_000 };
    let mut replica = Replica::open(config, MemStore::default(), now).expect("memory does not fail");
    let hello = Message::Hello(Hello { boot: 1, started: Timestamp(1), heard: Timestamp::default() });
    replica.handle(Input::Connected { node: NodeId(2), link: 1 }, now).expect("memory does not fail");
    replica.handle(Input::Received { node: NodeId(2), link: 1, message: hello }, now).expect("memory does not fail");
    (replica, now)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn messages_read_back(message in messages()) {
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn records_read_back_with_their_hash((key, entry) in records()) {
        let record = entry.to_record(&key);
        prop_assert_eq!(&Entry::decode(&key, &record.body), &Ok(entry.clone()));
        prop_assert_eq!(Entry::decode_hashed(&record.body, entry.hash), Ok(entry));
    }

    #[test]
    fn flipped_and_cut_messages_do_no_harm(message in messages(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut bytes = message.encode().to_vec();
        let at = at.index(bytes.len());
        let _ = Message::decode(&bytes[..at]);
        bytes[at] ^= 1 << bit;
        if let Ok(message) = Message::decode(&bytes) {
            let (mut replica, now) = replica();
            replica.handle(Input::Received { node: NodeId(2), link: 1, message }, now).expect("memory does not fail");
            replica.commit(now).expect("memory does not fail");
        }
    }

    #[test]
    fn any_order_of_messages_does_no_harm(messages in vec(messages(), 1..12)) {
        let (mut replica, now) = replica();
        for message in messages {
            replica.handle(Input::Received { node: NodeId(2), link: 1, message }, now).expect("memory does not fail");
            replica.commit(now).expect("memory does not fail");
        }
    }

    #[test]
    fn random_bytes_are_refused_or_read(mut bytes in vec(any::<u8>(), 0..600), (key, _) in records()) {
        let _ = Entry::decode(&key, &bytes.clone().into());
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        let _ = Message::decode(&bytes);
        let _ = Entry::decode(&key, &bytes.into());
    }
}

#[test]
fn another_version_is_refused_by_name() {
    let mut bytes = Message::Lagging.encode().to_vec();
    bytes[0] = PROTOCOL_VERSION + 1;
    let refused = Message::decode(&bytes).expect_err("another version");
    assert!(refused.0.contains("version"), "{refused:?}");
}

//! Messages as they were encoded when their version was released: whatever changes since, they read back as what they
//! were, and are written as they were. `tests/fixtures/README.md` says how a new one gets there.

use std::collections::BTreeMap;

use super::*;

const CORPUS: &str = include_str!("../../../tests/fixtures/messages-1.txt");

/// What a message is called in the corpus. Names every kind: a new one does not compile until it is here.
fn kind(message: &Message) -> &'static str {
    match message {
        Message::Hello(_) => "hello",
        Message::Beat(_) => "beat",
        Message::Echo(_) => "echo",
        Message::Records(_) => "records",
        Message::AckPlease { .. } => "ack-please",
        Message::Ack { .. } => "ack",
        Message::Lagging => "lagging",
        Message::SyncRequest(_) => "sync-request",
        Message::SyncStart { .. } => "sync-start",
        Message::SyncChunk(_) => "sync-chunk",
        Message::SyncAck { .. } => "sync-ack",
        Message::SyncDone { .. } => "sync-done",
        Message::SyncRefused { .. } => "sync-refused",
        Message::ChunkRequest(_) => "chunk-request",
        Message::Chunk { .. } => "chunk",
        Message::Superseded => "superseded",
        Message::Secrets(_) => "secrets",
        Message::RecordRequest { .. } => "record-request",
        Message::Record { .. } => "record",
        Message::VerifyRequest(_) => "verify-request",
        Message::VerifyAnswer(_) => "verify-answer",
    }
}

/// One of each kind, and of each shape that a record can have.
fn samples() -> Vec<Message> {
    let life = |number| Origin { node: NodeId(0x0102_0304_0506_0708), incarnation: Incarnation(number) };
    let key = |name: &[u8]| Key::new(NamespaceId([0xab; 16]), name).expect("a key");
    let (dot, stamp) = (life(1).dot(70_000), Timestamp::from_ms(1_700_000_000_000));
    let marker = Marker { time: stamp.next(), origin: life(2) };
    let blob = Blob { id: BlobId([3; 16]), len: 300_000, chunks: vec![[4; 32], [5; 32]] };
    let inline = Value::Inline(Bytes::from_static(b"\x01sealed"));
    let record = |name: &[u8], value: Value, is_dropped: bool| {
        let content = Content { expire_ms: 1_800_000_000_000, metadata: Bytes::from_static(b"\x01meta"), value };
        let entry = Entry::new(&key(name), dot, stamp, marker, content);
        if is_dropped { entry.dropped() } else { entry }.to_record(&key(name))
    };
    let records = vec![
        record(b"inline", inline.clone(), false),
        record(b"tombstone", Value::Tombstone, false),
        record(b"large", Value::Blob(blob), false),
        record(b"expired", inline, true),
    ];
    let mut versions = VersionVector::default();
    [1, 2, 3, 7, 8, 40].into_iter().for_each(|seq| _ = versions.insert(life(1).dot(seq)));
    versions.insert(life(2).dot(1));
    let hash = VersionHash::of(life(1), &Seen::prefix_of(9));
    let head = Head {
        node: life(1).node,
        former: vec![(life(2), 12)],
        folded: 0xdead_beef,
        life: Some((life(1), 70_000)),
        stamp,
        watermark: Timestamp::from_ms(1_699_999_999_000),
    };
    let request = ChunkRequest { key: key(b"large"), id: BlobId([3; 16]), index: 1 };
    let secret = SharedSecret {
        owner: NamespaceId([0xab; 16]),
        number: 7,
        rank: 1_700_000_000_000,
        bytes: SecretBytes(vec![9; 32]),
    };
    let row = VerifyRow { key: key(b"inline"), dot, marker, hash: RecordHash([6; 16]), is_remnant: true };
    let push = |record: &Record| Push { record: record.clone(), covers: vec![life(1).dot(69_999)] };
    vec![
        Message::Hello(Hello { boot: 0x1122_3344_5566_7788, started: stamp, heard: marker.time }),
        Message::Beat(Beat {
            sent: Mono(123_456_789),
            versions: hash,
            former: VersionHash::default(),
            waits: true,
            digest: DigestSum(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            secrets: SecretsHash(42),
            heads: vec![head],
        }),
        Message::Echo(Echo { sent: Mono(123_456_789), wall_ms: 1_700_000_000_000 }),
        Message::Records(Records { pushes: records.iter().map(push).collect() }),
        Message::AckPlease { dot },
        Message::Ack { upto: dot },
        Message::Lagging,
        Message::SyncRequest(SyncRequest { session: 5, have: versions.clone(), folded: hash, full: false }),
        Message::SyncStart { session: 5, versions, full: true },
        Message::SyncChunk(SyncChunk { session: 5, index: 300, records: records.clone(), upto: dot }),
        Message::SyncAck { session: 5, applied: 301 },
        Message::SyncDone { session: 5, chunks: 301 },
        Message::SyncRefused { session: 5, reason: SyncRefusal::Busy },
        Message::SyncRefused { session: 5, reason: SyncRefusal::NeedFull },
        Message::ChunkRequest(request.clone()),
        Message::Chunk { request: request.clone(), chunk: Some(Bytes::from_static(b"\x01chunk")) },
        Message::Chunk { request, chunk: None },
        Message::Superseded,
        Message::Secrets(vec![secret]),
        Message::RecordRequest { key: key(b"inline") },
        Message::Record { key: key(b"inline"), record: records.first().cloned() },
        Message::Record { key: key(b"inline"), record: None },
        Message::VerifyRequest(VerifyRequest {
            id: 8,
            after: None,
            upto: Some(key(b"z")),
            count: 1000,
            sum: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
        }),
        Message::VerifyAnswer(VerifyAnswer { id: 8, rows: Some(vec![row]), upto: Some(key(b"q")) }),
        Message::VerifyAnswer(VerifyAnswer { id: 8, rows: None, upto: None }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex digits")).collect()
}

/// The samples by name: of several of one kind the second is `kind-2`.
fn named() -> Vec<(String, Message)> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let name = |message: Message| {
        let count = counts.entry(kind(&message)).or_default();
        *count += 1;
        let name = if *count == 1 { kind(&message).to_owned() } else { format!("{}-{count}", kind(&message)) };
        (name, message)
    };
    samples().into_iter().map(name).collect()
}

#[test]
fn messages_of_released_versions_are_read_and_written_as_they_were() {
    let line = |line: &str| line.split_once(' ').map(|(name, hex)| (name.to_owned(), unhex(hex)));
    let recorded: BTreeMap<String, Vec<u8>> =
        CORPUS.lines().filter(|text| !text.starts_with('#')).filter_map(line).collect();
    let missing = named().into_iter().filter(|(name, _)| !recorded.contains_key(name));
    let missing: String = missing.map(|(name, message)| format!("{name} {}\n", hex(&message.encode()))).collect();
    assert!(missing.is_empty(), "lines that tests/fixtures/messages-1.txt lacks:\n{missing}");
    assert!(recorded.len() >= 25);
    for (name, message) in named() {
        let bytes = &recorded[&name];
        let read = Message::decode(bytes).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(read, message, "{name} reads as something else");
        assert_eq!(hex(&message.encode()), hex(bytes), "{name} is written otherwise: a peer of before can't read it");
    }
}

//! The catalogue of lies: what a member that has turned bad may send in place of what it should, each by name.
//!
//! Lies are told with what the liar has: its own messages as it would have sent them, and all that it holds. Nothing
//! here knows what honest members make of them.

use bytes::Bytes;
use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use starling::replica::limits::{AHEAD_MS_MAX, INLINE_LEN_MAX, MESSAGE_LEN_MAX};
use starling::replica::{
    Blob, BlobId, Class, Dot, Entry, Image, Incarnation, Key, Marker, Message, Mono, NodeId, Origin, Push, Record,
    Records, SyncChunk, SyncRefusal, SyncRequest, Timestamp, Value, VerifyRequest, VersionVector,
};

/// One way to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lie {
    /// Bytes that are no message: cut short, too long, of another version, random.
    Malformed,
    /// Writes with markers in the far future: at the ceiling, around it, and as far ahead as is taken.
    FarMarkers,
    /// Writes that are said to have been committed in the far future.
    FarStamps,
    /// Two contents under one marker: its own, or one of another member's write.
    TwinMarkers,
    /// Writes with gaps between their dots, at the end of all numbers, and each of another life.
    OddDots,
    /// One write is one thing to one member and another to another.
    TwoFaces,
    /// Records that stand for writes of others.
    ForeignCovers,
    /// Acknowledgements of what is not on disk, or was never written.
    FalseAcks,
    /// Messages of sessions out of order, twice, unasked for; sessions that never end.
    OddSessions,
    /// Chunks that are not what the record says, or that nobody asked for, or none.
    WrongChunks,
    /// Large values that nobody has.
    MissingBlobs,
    /// Wall clocks in the past and the future.
    OddClocks,
    /// Heads of its own that speak of lives, writes and watermarks which are not.
    OddHeads,
    /// Requests for all there is, again and again.
    Greed,
    /// Says nothing where it should.
    Silence,
    /// Says everything twice.
    Echoes,
    /// In sessions: writes of other members that these never made.
    ForgedWrites,
    /// In sessions: writes of other members with another content.
    AlteredWrites,
    /// In sessions: left out what it claims to have sent.
    WithheldWrites,
    /// In sessions: claims to have seen what nobody wrote, of members and of nodes that never were.
    FalseClaims,
    /// Heads of others that these never sent.
    FalseHeads,
    /// Flipped bits.
    FlippedBits,
}

impl Lie {
    /// All there are.
    pub const ALL: [Self; 22] = [
        Self::Malformed,
        Self::FarMarkers,
        Self::FarStamps,
        Self::TwinMarkers,
        Self::OddDots,
        Self::TwoFaces,
        Self::ForeignCovers,
        Self::FalseAcks,
        Self::OddSessions,
        Self::WrongChunks,
        Self::MissingBlobs,
        Self::OddClocks,
        Self::OddHeads,
        Self::Greed,
        Self::Silence,
        Self::Echoes,
        Self::ForgedWrites,
        Self::AlteredWrites,
        Self::WithheldWrites,
        Self::FalseClaims,
        Self::FalseHeads,
        Self::FlippedBits,
    ];

    /// Whether it makes members believe what is not so of what others hold or wrote. Without signatures nobody can tell, so
    /// until it has been mended they may hold less, or something else, than they think.
    pub fn is_hearsay(self) -> bool {
        matches!(
            self,
            Self::TwoFaces
                | Self::OddSessions
                | Self::ForgedWrites
                | Self::AlteredWrites
                | Self::WithheldWrites
                | Self::FalseClaims
                | Self::FalseHeads
                | Self::FlippedBits
        )
    }
}

/// A member that lies.
#[derive(Debug)]
pub struct Liar {
    lies: Vec<Lie>,
    rng: ChaCha8Rng,
    seq: u64,
}

/// What a liar knows when it lies.
pub struct Knowledge<'a> {
    /// Who it is.
    pub node: NodeId,
    /// What it holds.
    pub image: &'a Image,
    /// Its wall clock.
    pub wall_ms: u64,
}

/// What goes out: bytes of a class.
pub type Told = (Class, Bytes);

impl Liar {
    /// One that tells these lies.
    pub fn new(lies: Vec<Lie>, rng: ChaCha8Rng) -> Self {
        Self { lies, rng, seq: 0 }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.rng.random_range(0..limit.max(1))
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    /// What it sends instead of `message`.
    pub fn tell(&mut self, message: &Message, known: &Knowledge) -> Vec<Told> {
        let mut told = Vec::new();
        let mut message = message.clone();
        let mut is_sent = true;
        if !self.lies.is_empty() && self.one_in(2) {
            let chosen = self.below(self.lies.len());
            let lie = self.lies[chosen];
            match lie {
                Lie::Malformed => {
                    told.push((message.class(), self.malformed(&message.encode())));
                    is_sent = false;
                }
                Lie::FlippedBits => {
                    if let Some(bytes) = self.flipped(&message) {
                        told.push((message.class(), bytes));
                        is_sent = false;
                    }
                }
                Lie::Silence => is_sent = matches!(message, Message::Hello(_)),
                Lie::Echoes => told.push((message.class(), message.encode())),
                lie => {
                    self.alter(lie, &mut message, known);
                    let made_up = self.make_up(lie, known);
                    told.extend(made_up.into_iter().map(|message| (message.class(), message.encode())));
                }
            }
        }
        if is_sent {
            told.push((message.class(), message.encode()));
        }
        told
    }

    fn malformed(&mut self, bytes: &Bytes) -> Bytes {
        let mut bytes = bytes.to_vec();
        match self.below(6) {
            0 => bytes.truncate(self.below(bytes.len())),
            1 => bytes.extend_from_slice(b"and more"),
            2 => bytes[0] = 2 + self.below(250) as u8,
            3 => bytes = vec![0; MESSAGE_LEN_MAX + 1],
            4 => bytes.truncate(0),
            _ => {
                bytes = vec![0; 64 + self.below(4_000)];
                self.rng.fill_bytes(&mut bytes);
                bytes[0] = 1;
            }
        }
        bytes.into()
    }

    /// A flip within an entry of the system could found or remove a member, which a member may do anyway.
    fn flipped(&mut self, message: &Message) -> Option<Bytes> {
        let is_of_system = |message: &Message| records_of(message).iter().any(|key| key.namespace().is_system());
        let mut bytes = message.encode().to_vec();
        for _ in 0..1 + self.below(4) {
            let place = 1 + self.below(bytes.len() - 1);
            bytes[place] ^= 1 << self.below(8);
        }
        let is_harmless = match Message::decode(&bytes) {
            // Who says that a newer process has one's identity takes a member out, as an eviction would.
            Ok(Message::Superseded) => false,
            Ok(flipped) => !is_of_system(message) && !is_of_system(&flipped),
            Err(_) => true,
        };
        is_harmless.then(|| bytes.into())
    }

    /// Changes what it would have sent.
    fn alter(&mut self, lie: Lie, message: &mut Message, known: &Knowledge) {
        match (lie, message) {
            (Lie::OddClocks, Message::Echo(echo)) => {
                let far_ms = [0, u64::MAX, known.wall_ms + 3_600_000, known.wall_ms.saturating_sub(3_600_000)];
                echo.wall_ms = far_ms[self.below(4)];
            }
            (Lie::OddClocks, Message::Beat(beat)) => beat.sent = Mono(self.rng.next_u64()),
            (Lie::OddClocks, Message::Hello(hello)) => {
                hello.heard = Timestamp(self.rng.next_u64());
                hello.started = Timestamp(self.rng.next_u64());
            }
            (Lie::OddHeads, Message::Beat(beat)) => {
                let wrong = Timestamp(self.rng.next_u64() % (Timestamp::CEILING.0 + 1_000));
                if let Some(head) = beat.heads.first_mut() {
                    match self.below(4) {
                        0 => head.stamp = wrong,
                        1 => head.watermark = wrong,
                        2 => head.folded = self.rng.next_u64(),
                        _ => {
                            let lives = 1 + self.below(40);
                            head.former = (0..lives).map(|_| (self.life_of(known.node), u64::MAX)).collect();
                        }
                    }
                }
            }
            (Lie::TwoFaces, Message::Records(records)) => {
                for push in &mut records.pushes {
                    let lies = [Lie::FarMarkers, Lie::TwinMarkers, Lie::OddDots, Lie::TwoFaces];
                    let lie = lies[self.below(4)];
                    self.alter_own(lie, &mut push.record, known);
                }
            }
            (Lie::ForeignCovers, Message::Records(records)) => {
                for push in &mut records.pushes {
                    push.covers.extend(self.dot_of_another(known));
                }
            }
            (Lie::WrongChunks, Message::Chunk { chunk, .. }) => match self.below(3) {
                0 => *chunk = None,
                1 => *chunk = Some(Bytes::from_static(b"something else")),
                _ => *chunk = Some(Bytes::new()),
            },
            (Lie::OddSessions, Message::SyncChunk(chunk)) => match self.below(3) {
                0 => chunk.index += 1,
                1 => chunk.upto.seq = self.rng.next_u64(),
                _ => chunk.session += 1,
            },
            (Lie::OddSessions, Message::SyncDone { chunks, .. }) => *chunks += self.below(3) as u64,
            (Lie::WithheldWrites, Message::SyncChunk(chunk)) => {
                let is_kept: Vec<bool> = chunk
                    .records
                    .iter()
                    .map(|record| record.key.namespace().is_system() || self.rng.random_range(0..2) == 0)
                    .collect();
                let mut is_kept = is_kept.into_iter();
                chunk.records.retain(|_| is_kept.next().unwrap_or(true));
            }
            (Lie::AlteredWrites, Message::SyncChunk(chunk)) => {
                for record in chunk.records.iter_mut().filter(|record| !record.key.namespace().is_system()) {
                    self.alter_content(record);
                }
            }
            (Lie::FalseClaims, Message::SyncStart { versions, .. }) => self.claim(versions, known),
            (Lie::FalseHeads, Message::Beat(beat)) => {
                if let Some(origin) = self.dot_of_another(known).map(|dot| dot.origin) {
                    let mut head = beat.heads[0].clone();
                    head.node = origin.node;
                    (head.former, head.life, head.folded) = match self.below(3) {
                        0 => (Vec::new(), None, 0),
                        1 => (Vec::new(), Some((origin, 1)), 0),
                        _ => (Vec::new(), Some((self.life_of(origin.node), 9)), 0),
                    };
                    let ahead_ms = [0, 10_000, 3_600_000, 1 << 40][self.below(4)];
                    head.stamp = Timestamp::from_ms(known.wall_ms + ahead_ms);
                    beat.heads.push(head);
                }
            }
            _ => {}
        }
    }

    /// Sends what it would not have sent.
    fn make_up(&mut self, lie: Lie, known: &Knowledge) -> Vec<Message> {
        match lie {
            Lie::FarMarkers | Lie::FarStamps | Lie::TwinMarkers | Lie::OddDots => {
                let Some((key, entry)) = self.entry(known) else { return Vec::new() };
                self.seq += 1;
                // Odd dots have a life of their own: a dot that is used twice shows two faces.
                let incarnation = Incarnation(if lie == Lie::OddDots { 0x0dd } else { 0x1e });
                let origin = Origin { node: known.node, incarnation };
                let marker = Marker { time: entry.marker().time.next(), origin };
                let stamp = Timestamp::from_ms(known.wall_ms);
                let forged = Entry::new(&key, origin.dot(self.seq), stamp, marker, self.content());
                let mut record = forged.to_record(&key);
                self.alter_own(lie, &mut record, known);
                vec![Message::Records(Records { pushes: vec![Push { record, covers: Vec::new() }] })]
            }
            Lie::MissingBlobs => {
                let Some((key, entry)) = self.entry(known) else { return Vec::new() };
                self.seq += 1;
                let origin = Origin { node: known.node, incarnation: Incarnation(0xb10b) };
                let marker = Marker { time: entry.marker().time.next(), origin };
                let mut id = [0; 16];
                self.rng.fill_bytes(&mut id);
                let blob = Blob { id: BlobId(id), len: 300_000, chunks: vec![[7; 32]; 2] };
                let content = starling::replica::Content { value: Value::Blob(blob), ..self.content() };
                let stamp = Timestamp::from_ms(known.wall_ms);
                let record = Entry::new(&key, origin.dot(self.seq), stamp, marker, content).to_record(&key);
                vec![Message::Records(Records { pushes: vec![Push { record, covers: Vec::new() }] })]
            }
            Lie::FalseAcks => {
                let dot = self.dot_of_another(known);
                let ahead = [0, 1, u64::MAX / 2][self.below(3)];
                dot.map(|dot| Message::Ack { upto: dot.origin.dot(dot.seq + ahead) }).into_iter().collect()
            }
            Lie::OddSessions => {
                let session = self.below(20) as u64;
                let origin = self.life_of(known.node);
                let message = match self.below(6) {
                    0 => Message::SyncStart { session, versions: known.image.versions(), full: false },
                    1 => Message::SyncChunk(SyncChunk { session, index: 0, records: Vec::new(), upto: origin.dot(1) }),
                    2 => Message::SyncDone { session, chunks: self.below(3) as u64 },
                    3 => Message::SyncRefused { session, reason: SyncRefusal::NeedFull },
                    4 => Message::SyncAck { session, applied: u64::MAX },
                    _ => Message::Lagging,
                };
                vec![message]
            }
            Lie::WrongChunks => {
                let Some((key, _)) = self.entry(known) else { return Vec::new() };
                let (id, index) = (BlobId([3; 16]), self.rng.next_u32());
                let request = starling::replica::ChunkRequest { key, id, index };
                vec![Message::Chunk { request, chunk: Some(Bytes::from_static(b"unasked")) }]
            }
            Lie::Greed => {
                let key = self.entry(known).map(|(key, _)| key);
                let versions = VersionVector::default();
                let mut wanted = vec![
                    Message::SyncRequest(SyncRequest {
                        session: self.rng.next_u64(),
                        have: versions,
                        folded: Default::default(),
                        full: true,
                    }),
                    Message::VerifyRequest(VerifyRequest { id: 1, after: None, upto: None, count: 0, sum: 1 }),
                ];
                wanted.extend(key.map(|key| Message::RecordRequest { key }));
                wanted
            }
            Lie::ForgedWrites => {
                let (Some((key, entry)), Some(dot)) = (self.entry(known), self.dot_of_another(known)) else {
                    return Vec::new();
                };
                let dot = dot.origin.dot(dot.seq + self.below(4) as u64);
                let marker = Marker { time: entry.marker().time.next(), origin: dot.origin };
                let stamp = Timestamp::from_ms(known.wall_ms);
                let record = Entry::new(&key, dot, stamp, marker, self.content()).to_record(&key);
                vec![Message::Records(Records { pushes: vec![Push { record, covers: Vec::new() }] })]
            }
            _ => Vec::new(),
        }
    }

    /// A write of its own as none should be.
    fn alter_own(&mut self, lie: Lie, record: &mut Record, known: &Knowledge) {
        let Ok(mut entry) = Entry::decode(&record.key, &record.body) else { return };
        if record.key.namespace().is_system() {
            return;
        }
        let ceiling = Timestamp::CEILING.0;
        let reach = Timestamp::from_ms(known.wall_ms + AHEAD_MS_MAX).0;
        let far =
            [ceiling, ceiling - 1, ceiling + 1, u64::MAX, reach, reach - (1 << 20), reach + (1 << 20), ceiling / 2];
        let far = Timestamp(far[self.below(far.len())]);
        match lie {
            Lie::FarMarkers => entry.register.marker.time = far,
            Lie::FarStamps => entry.stamp = far,
            Lie::TwinMarkers => {
                if let Some((key, other)) = self.entry(known) {
                    entry.register.marker = other.marker();
                    record.key = key;
                }
            }
            Lie::OddDots => match self.below(3) {
                0 => entry.dot.seq = entry.dot.seq.saturating_mul(7),
                1 => entry.dot.seq = u64::MAX - entry.dot.seq,
                _ => entry.dot.origin = self.life_of(known.node),
            },
            _ => entry.register.val = self.content(),
        }
        record.body = entry.encode();
    }

    fn alter_content(&mut self, record: &mut Record) {
        let Ok(mut entry) = Entry::decode(&record.key, &record.body) else { return };
        if self.one_in(3) {
            entry.register.marker.time = entry.marker().time.next();
        }
        entry.register.val = self.content();
        record.body = entry.encode();
    }

    fn claim(&mut self, versions: &mut VersionVector, known: &Knowledge) {
        let origins: Vec<Origin> = known
            .image
            .versions()
            .iter()
            .map(|(origin, _)| origin)
            .filter(|origin| origin.node != known.node)
            .collect();
        for origin in origins {
            let seen = versions.get(origin).map_or(0, starling::replica::Seen::last);
            let more = [1, 5, u64::MAX / 2][self.below(3)];
            versions.set(origin, starling::replica::Seen::prefix_of(seen.saturating_add(more)));
        }
        let nobodies = if self.one_in(20) { 2_000 } else { self.below(5) };
        for _ in 0..nobodies {
            let node = NodeId(self.rng.next_u64());
            versions.set(self.life_of(node), starling::replica::Seen::prefix_of(self.rng.next_u64()));
        }
    }

    fn content(&mut self) -> starling::replica::Content {
        let len = if self.one_in(10) { INLINE_LEN_MAX } else { 40 };
        let mut bytes = vec![0; len];
        self.rng.fill_bytes(&mut bytes[..16]);
        let value = if self.one_in(4) { Value::Tombstone } else { Value::Inline(bytes.into()) };
        starling::replica::Content { expire_ms: 0, metadata: Bytes::new(), value }
    }

    fn life_of(&mut self, node: NodeId) -> Origin {
        Origin { node, incarnation: Incarnation(self.rng.next_u64()) }
    }

    /// Something that it holds for clients.
    fn entry(&mut self, known: &Knowledge) -> Option<(Key, Entry)> {
        let of_clients = known.image.entries().filter(|(key, _)| !key.namespace().is_system());
        let of_clients: Vec<(&Key, &Entry)> = of_clients.collect();
        let chosen = self.below(of_clients.len());
        of_clients.get(chosen).map(|(key, entry)| ((*key).clone(), (*entry).clone()))
    }

    /// The latest write that it has seen of some life of another node.
    fn dot_of_another(&mut self, known: &Knowledge) -> Option<Dot> {
        let versions = known.image.versions();
        let others: Vec<Dot> = versions
            .iter()
            .filter(|(origin, _)| origin.node != known.node)
            .map(|(origin, seen)| origin.dot(seen.last().max(1)))
            .collect();
        (!others.is_empty()).then(|| others[self.below(others.len())])
    }
}

/// The keys that a message speaks of.
fn records_of(message: &Message) -> Vec<Key> {
    match message {
        Message::Records(records) => records.pushes.iter().map(|push| push.record.key.clone()).collect(),
        Message::SyncChunk(chunk) => chunk.records.iter().map(|record| record.key.clone()).collect(),
        Message::Record { key, .. } => vec![key.clone()],
        _ => Vec::new(),
    }
}

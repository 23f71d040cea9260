//! Every bound of the replica, named. A queue, message or cache without a line here is a bug.

use super::clock::Mono;

/// The bounds that only a busy node reaches, so that a small world can have smaller ones and reach them too.
/// Production takes the defaults; nodes of one flock need not agree on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// See [`INTERVALS_PER_ORIGIN_MAX`].
    pub intervals_per_origin: usize,
    /// See [`RUMOR_KEYS_MAX`].
    pub rumor_keys: usize,
    /// See [`RUMOR_KEYS_TOTAL_MAX`].
    pub rumor_keys_total: usize,
    /// See [`COVERS_MAX`].
    pub covers: usize,
    /// See [`RECORDS_IN_FLIGHT_MAX`].
    pub records_in_flight: usize,
    /// See [`BATCH_LEN`].
    pub batch_len: usize,
    /// See [`SESSIONS_OUT_MAX`].
    pub sessions_out: usize,
    /// See [`SESSIONS_IN_MAX`].
    pub sessions_in: usize,
    /// See [`SYNC_WINDOW`].
    pub sync_window: u64,
    /// See [`SESSION_WRITES_MAX`].
    pub session_writes: u64,
    /// See [`SESSION_READS_MAX`].
    pub session_reads: usize,
    /// See [`PENDING_MAX`].
    pub pending: usize,
    /// See [`PENDING_SOFT_MAX`].
    pub pending_soft: usize,
    /// See [`WAITERS_MAX`].
    pub waiters: usize,
    /// See [`FOLD_PATIENCE`].
    pub fold_patience: Mono,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            intervals_per_origin: INTERVALS_PER_ORIGIN_MAX,
            rumor_keys: RUMOR_KEYS_MAX,
            rumor_keys_total: RUMOR_KEYS_TOTAL_MAX,
            covers: COVERS_MAX,
            records_in_flight: RECORDS_IN_FLIGHT_MAX,
            batch_len: BATCH_LEN,
            sessions_out: SESSIONS_OUT_MAX,
            sessions_in: SESSIONS_IN_MAX,
            sync_window: SYNC_WINDOW,
            session_writes: SESSION_WRITES_MAX,
            session_reads: SESSION_READS_MAX,
            pending: PENDING_MAX,
            pending_soft: PENDING_SOFT_MAX,
            waiters: WAITERS_MAX,
            fold_patience: FOLD_PATIENCE,
        }
    }
}

/// Longest key in bytes, without its namespace.
pub const KEY_LEN_MAX: usize = 512;
/// Longest value in bytes, before sealing.
pub const VALUE_LEN_MAX: usize = 25 * 1024 * 1024;
/// Longest metadata in bytes of JSON text.
pub const METADATA_LEN_MAX: usize = 1024;
/// Longest title of a namespace in bytes.
pub const TITLE_LEN_MAX: usize = 512;
/// Values up to this many bytes travel inside their record; longer ones as blobs.
pub const INLINE_LEN_MAX: usize = 64 * 1024;
/// What sealing may add to a value, a chunk or metadata.
pub const SEAL_OVERHEAD_MAX: usize = 64;
/// Bytes of a blob's chunk before sealing; the last chunk of a blob may be shorter.
pub const CHUNK_LEN: usize = 256 * 1024;
/// Chunks of the longest blob, one to spare.
pub const CHUNKS_MAX: usize = VALUE_LEN_MAX / CHUNK_LEN + 1;
/// Longest record authenticator in bytes (room for a signature; none is made yet).
pub const AUTHENTICATOR_LEN_MAX: usize = 128;
/// Longest encoded record, key included.
pub const RECORD_LEN_MAX: usize = 80 * 1024;
/// Longest encoded message.
pub const MESSAGE_LEN_MAX: usize = 1024 * 1024;

/// Longest version vector in a message; over it intervals are left out.
pub const VERSIONS_LEN_MAX: usize = MESSAGE_LEN_MAX - 1024;

/// Milliseconds of Unix time (2200-01-01) beyond which a timestamp is nobody's.
pub const TIMESTAMP_CEILING_MS: u64 = 7_258_118_400_000;
/// A record or a secret that lies further ahead of the receiver's wall clock, in milliseconds (a hundred years of 365.25
/// days), is not taken yet: or a key whose marker stood at the ceiling could never be written again. So much that no
/// clock is that wrong by accident: one that stands at 1970 still takes what was written until 2070.
pub const AHEAD_MS_MAX: u64 = 3_155_760_000_000;
/// A node notes on disk that it may promise timestamps so far ahead of its wall clock, in milliseconds; also how far
/// ahead of it a process may mint that starts right after another. An idle node notes it twice in that time.
pub const PROMISE_MS_AHEAD: u64 = 3_000;
/// A node whose timestamps lie further ahead of its wall clock, in milliseconds, lets nobody in. A process that starts
/// right after another may be ahead by what it had promised.
pub const ADMIT_MS_AHEAD_MAX: u64 = PROMISE_MS_AHEAD + 2_000;
/// How far ahead of its wall clock a node follows remote time, in milliseconds.
pub const ABSORB_MS_MAX: u64 = 500;
/// A node whose clock is further than this from the median of its peers mints from the median and alarms.
pub const CLOCK_SKEW_MS_MAX: u64 = 250;
/// A node whose clock is further than this from the median of its peers refuses writes.
pub const CLOCK_SKEW_MS_REFUSE: u64 = 60_000;
/// Fewer peers than this and the clock is only watched.
pub const CLOCK_PEERS_MIN: usize = 2;

/// Most nodes a roster may hold.
pub const ROSTER_MAX: usize = 4096;
/// Origins whose writes are held while the version vector lacks them, at most. Over it a write that its writer has not told
/// of must come again.
pub const UNTOLD_ORIGINS_MAX: usize = 4096;
/// Most former lives that a head names. Of a node with more that are not folded watermarks stand still until they are.
pub const HEAD_LIVES_MAX: usize = 256;
/// Most intervals beyond the gapless prefix that are kept for one origin. Over it bookkeeping is forgotten, not data.
pub const INTERVALS_PER_ORIGIN_MAX: usize = 1024;
/// Most origins that a version vector may name: over it no peer could read it, so what a further one wrote is taken and
/// its dots are not counted.
pub const ORIGINS_MAX: usize = 16_384;

/// Most keys waiting for one peer. Over it the peer is lagging: its queue is dropped, sync repairs.
pub const RUMOR_KEYS_MAX: usize = 16_384;
/// Most keys waiting for all peers together.
pub const RUMOR_KEYS_TOTAL_MAX: usize = 262_144;
/// Heads of other nodes that one beat relays, at least, if there are so many.
pub const HEADS_PER_BEAT: usize = 16;
/// In a large flock it relays one in this many: so it takes the same time to hear of everyone, whatever its size.
pub const HEADS_PER_BEAT_SHARE: usize = 20;
/// But no more than these.
pub const HEADS_PER_BEAT_MAX: usize = 64;
/// Oldest key that may wait for a peer, in monotonic time.
pub const RUMOR_AGE_MAX: Mono = Mono::from_ms(5_000);
/// Most dots that one queued record may stand for; older ones are left to sync.
pub const COVERS_MAX: usize = 256;
/// Record bytes that may be on their way to one peer before its queue waits.
pub const RECORDS_IN_FLIGHT_MAX: usize = 512 * 1024;
/// Bytes aimed at for one batch of records, pushed or synced.
pub const BATCH_LEN: usize = 64 * 1024;
/// Control bytes that may be on their way to one peer before beats to it are left out.
pub const CONTROL_IN_FLIGHT_MAX: usize = 1024 * 1024;

/// Bytes of all classes that may be on their way to one peer. One that asks for more and reads nothing is disconnected.
pub const IN_FLIGHT_MAX: usize = 64 * 1024 * 1024;
/// A head that is relayed may promise no more than this beyond the receiver's wall clock, in milliseconds: a member whose
/// clock is further ahead takes no writes.
pub const RELAYED_MS_AHEAD_MAX: u64 = CLOCK_SKEW_MS_REFUSE + ADMIT_MS_AHEAD_MAX;

/// Sync sessions served at once.
pub const SESSIONS_OUT_MAX: usize = 16;
/// Sync sessions received at once.
pub const SESSIONS_IN_MAX: usize = 3;
/// Chunks of a session on their way before the sender waits for an acknowledgement.
pub const SYNC_WINDOW: u64 = 16;
/// Bytes that this node may write while a session that it sends reads from one snapshot: the storage keeps all of them in
/// memory for so long. Over it the session ends, to go on from a new snapshot.
pub const SESSION_WRITES_MAX: u64 = 32 * 1024 * 1024;
/// Writes that a session looks at in its snapshot at once, those included that have been overwritten.
pub const SESSION_READS_MAX: usize = 256;
/// Writes looked at for one chunk at most, so that a turn stays short.
pub const SYNC_SCAN_MAX: usize = 4096;
/// A session without progress for this long is dropped by both sides.
pub const SESSION_IDLE_MAX: Mono = Mono::from_ms(15_000);

/// Records that wait for their blobs, at most. Over it a record is left to a later sync.
pub const PENDING_MAX: usize = 256;
/// A sync chunk is acknowledged only while fewer records than this wait for their blobs.
pub const PENDING_SOFT_MAX: usize = 64;
/// Chunk requests on their way to all peers.
pub const CHUNK_REQUESTS_MAX: usize = 32;
/// Chunk requests on their way to one peer; also the most that a node serves one peer at a time.
pub const CHUNK_REQUESTS_PER_PEER_MAX: usize = 16;
/// A chunk that has not come after this long is asked for elsewhere.
pub const CHUNK_TIMEOUT: Mono = Mono::from_ms(4_000);

/// Without a chunk for this long, sessions go on although much waits for blobs.
pub const CHUNK_PATIENCE: Mono = Mono::from_ms(1_000);
/// After this long a chunk that no one could give is asked for again.
pub const CHUNK_RETRY: Mono = Mono::from_ms(250);

/// Time between beats to a peer, jittered by a quarter.
pub const BEAT_PERIOD: Mono = Mono::from_ms(1_000);
/// Time between beats to a peer while writes flow.
pub const BEAT_PERIOD_ACTIVE: Mono = Mono::from_ms(250);
/// Most peers that are beaten at one beat; beyond it random ones are.
pub const BEAT_FANOUT_MAX: usize = 16;
/// The same while writes flow and beats are four times as frequent.
pub const BEAT_FANOUT_ACTIVE_MAX: usize = BEAT_FANOUT_MAX / 4;
/// Time between syncs with a random peer that is known to differ, jittered by a quarter.
pub const SYNC_PERIOD: Mono = Mono::from_ms(1_000);
/// While writes flow, one in this many periods a node syncs although it has all that it has heard of.
pub const SYNC_ANYWAY: u32 = 8;
/// How long a gap in an origin's writes may last before its sender is asked.
pub const GAP_PATIENCE: Mono = Mono::from_ms(20);
/// A former life that all roster members agree on for this long is folded.
pub const FOLD_PATIENCE: Mono = Mono::from_ms(10_000);

/// Time between the turns that do so, so that others get theirs.
pub const SWEEP_PERIOD: Mono = Mono::from_ms(4);
/// Longest encoded bookmark in bytes: 64 characters of base64.
pub const BOOKMARK_LEN_MAX: usize = 48;
/// Changes told together.
pub const CHANGES_PER_BATCH_MAX: usize = 64;
/// How long after its expiration the bytes of a value go, in milliseconds: clocks may differ by less.
pub const EXPIRED_GRACE_MS: u64 = 30_000;
/// Time between looks at what has expired.
pub const EXPIRY_PERIOD: Mono = Mono::from_ms(1_000);
/// Requests that wait for acknowledgements or for a bookmark to be covered.
pub const WAITERS_MAX: usize = 16_384;
/// Secrets that the members share, all namespaces and their former keys together.
pub const SECRETS_MAX: usize = 65_536;
/// Bytes of one secret.
pub const SECRET_LEN_MAX: usize = 64;
/// Secrets in one message.
pub const SECRETS_PER_MESSAGE_MAX: usize = 512;
/// A peer that holds other secrets is sent all of this node's no more often than this.
pub const SECRETS_PERIOD: Mono = Mono::from_ms(2_000);
/// Damaged entries and chunks that are asked for anew at once.
pub const REPAIRS_MAX: usize = 1024;
/// A peer that has not answered a repair after this long is passed over.
pub const REPAIR_TIMEOUT: Mono = Mono::from_ms(2_000);
/// Entries in one page of a verification.
pub const VERIFY_PAGE: usize = 256;
/// Entries told of one page that differs; with the longest keys they still fit a message.
pub const VERIFY_ROWS_MAX: usize = 1024;
/// Repairs that a verification has under way; what is over it is left to the next one.
pub const VERIFY_MENDING_MAX: usize = 512;
/// After a verification that the node began by itself, the next one begins so much later: this many times what it took.
pub const VERIFY_REST: u64 = 10;
/// But no sooner than this.
pub const VERIFY_REST_MIN: Mono = Mono::from_ms(5_000);
/// Keys that a verification names.
pub const VERIFY_EXAMPLES_MAX: usize = 20;
/// A verification whose peer is silent for this long ends.
pub const VERIFY_TIMEOUT: Mono = Mono::from_ms(10_000);
/// Writes of others whose arrival is noted for measurement until the driver takes the notes, turn by turn.
pub const ARRIVALS_MAX: usize = 1_024;
/// Rows removed per turn in the background (deleted namespaces, expired values).
pub const SWEEP_ROWS_PER_TURN: usize = 256;

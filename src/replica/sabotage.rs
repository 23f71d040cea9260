//! Faults that are put in on purpose, so that tests can show that they would be caught.

/// Ways to break the protocol on purpose, for tests of the tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// None of them.
    #[default]
    None,
    /// Raise the version vector of each origin as soon as its part of a session has arrived.
    NaiveAdvance,
    /// Send and join sessions without the intervals beyond the gapless prefix.
    IgnoreIntervals,
    /// Write as the same origin after every start.
    ReuseOrigin,
    /// Accept local writes without an fsync.
    SkipFsync,
    /// Tell peers that their writes are on disk as soon as they are committed.
    HastyAck,
    /// Count what is covered as durable as soon as it is committed.
    HastyWatermark,
    /// Drop records that lie ahead of the receiver's clock.
    MergeByClock,
    /// Count what a record stands for although the record still waits for its blob.
    HastyCovers,
    /// Take every bookmark for covered.
    TrustBookmarks,
    /// Take what a reader of the change feed was given for all there is.
    BoastfulPositions,
    /// Forget what no longer fits into a bookmark.
    ForgetMarks,
    /// Never take a peer for lagging.
    EndlessQueue,
    /// Remove deleted entries at once.
    ForgetTombstones,
    /// Show a large value when its first chunk is here.
    PartialBlobs,
    /// Leave what is overwritten in the digest.
    StaleDigest,
    /// Take a write's marker from the clock alone.
    MarkByClock,
    /// Resume a session that was cut short where it stopped, whichever process sends it now.
    ResumeAnywhere,
    /// Take no notice of being turned away.
    IgnoreEviction,
    /// Issue writes of a former node again with markers of now.
    ReissueAnew,
    /// Issue writes again although the key holds a later one.
    ReissueBlindly,
    /// Issue again what a former node held of others, too.
    ReissueOthers,
    /// Take what a former node wrote for replicated.
    ReissueNothing,
    /// Take records from any future up to the ceiling.
    TrustMarkers,
    /// Believe what members say of others' writes.
    TrustClaims,
    /// Take it for the end of what an origin wrote when fewer of its writes are held than were looked at.
    HastyScan,
    /// Send in a session only what origins in the version vector wrote.
    HideUntold,
}

//! The ways to break the protocol on purpose, by name: each must be caught by some checker.

use starling::replica::Sabotage;

/// Name, the way, and what it does.
pub const ALL: &[(&str, Sabotage, &str)] = &[
    ("naive-advance", Sabotage::NaiveAdvance, "raise the version vector as an origin's part of a session arrives"),
    ("ignore-intervals", Sabotage::IgnoreIntervals, "sync without what lies beyond the gapless prefix"),
    ("reuse-origin", Sabotage::ReuseOrigin, "write as the same origin after every start"),
    ("skip-fsync", Sabotage::SkipFsync, "accept local writes without an fsync"),
    ("hasty-ack", Sabotage::HastyAck, "acknowledge to peers what is committed and not yet on disk"),
    ("hasty-watermark", Sabotage::HastyWatermark, "count what is committed as durable in watermarks"),
    ("merge-by-clock", Sabotage::MergeByClock, "drop records that lie ahead of the receiver's clock"),
    ("hasty-covers", Sabotage::HastyCovers, "count what a record stands for while it waits for its blob"),
    ("trust-bookmarks", Sabotage::TrustBookmarks, "take every bookmark for covered"),
    ("endless-queue", Sabotage::EndlessQueue, "never take a peer for lagging"),
    ("forget-tombstones", Sabotage::ForgetTombstones, "remove deleted entries at once"),
    ("partial-blobs", Sabotage::PartialBlobs, "show a large value when its first chunk is here"),
    ("stale-digest", Sabotage::StaleDigest, "leave what is overwritten in the digest"),
    ("mark-by-clock", Sabotage::MarkByClock, "take a write's marker from the clock alone"),
    ("resume-anywhere", Sabotage::ResumeAnywhere, "resume a session whichever process sends it now"),
    ("forget-marks", Sabotage::ForgetMarks, "shorten a bookmark by what not all members have"),
    ("ignore-eviction", Sabotage::IgnoreEviction, "take no notice of being turned away"),
    ("reissue-anew", Sabotage::ReissueAnew, "issue a former node's writes again with markers of now"),
    ("reissue-blindly", Sabotage::ReissueBlindly, "issue writes again in place of later ones"),
    ("reissue-others", Sabotage::ReissueOthers, "issue again what a former node held of others"),
    ("reissue-nothing", Sabotage::ReissueNothing, "take what a former node wrote for replicated"),
    ("trust-markers", Sabotage::TrustMarkers, "take writes from any future up to the ceiling"),
    ("hide-untold", Sabotage::HideUntold, "send in a session only what origins in the version vector wrote"),
    ("hasty-scan", Sabotage::HastyScan, "end a session where most of what it looks at has been overwritten"),
    ("trust-claims", Sabotage::TrustClaims, "believe what members say of others' writes"),
    ("boastful-positions", Sabotage::BoastfulPositions, "let a place in the change feed speak of what is not here"),
];

/// One by name; none without a name.
pub fn named(name: Option<&str>) -> Result<Sabotage, String> {
    let Some(name) = name else { return Ok(Sabotage::None) };
    let known = ALL.iter().find(|(known, ..)| *known == name).map(|(_, sabotage, _)| *sabotage);
    known.ok_or_else(|| format!("no sabotage '{name}'; `swarm --sabotage list` prints the ways"))
}

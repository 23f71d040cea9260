//! The pure replica: no IO, no clock, no ambient randomness.
mod clock;
mod digest;
mod dot;
mod entry;
mod input;
mod key;
pub mod limits;
mod message;
mod status;
mod store;
mod version;

pub use clock::{Clock, Mono, Now, Timestamp};
pub use digest::{Digest, DigestSum, RecordHash};
pub use dot::{Dot, Incarnation, NodeId, Origin};
pub use entry::{Blob, BlobId, Content, Entry, MalformedRecord, Marker, Merge, Record, Value};
pub use input::{AckLevel, Alarm, Input, LinkId, Output, Refusal, Reply, Request, Ticket};
pub use key::{InvalidNamespaceId, Key, NamespaceId};
pub use message::*;
pub use status::{PeerStatus, Status};
pub use store::{BlobAddress, Recovered, Snapshot, Store, StoreError};
pub use version::{Seen, VersionHash, VersionVector};

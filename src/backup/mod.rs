//! Backups: all that a node holds at one moment in one file, sealed with the cluster key, and a data directory made of
//! such a file.
//!
//! `file` is how it looks, `taking` is a node's end of it, `restore` the other. Knows nothing of HTTP, nor what rows mean.

mod file;
mod restore;
mod taking;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use file::{Frame, Frames, HEADER_LEN, Header};
pub use restore::{Content, Restored, check, restore};
pub use taking::{Pieces, Taking};

use crate::exit::Exit;
use crate::keyring::{KeyError, KeyId};
use crate::node::StartError;
use crate::replica::StoreError;
use crate::store::OpenError;

/// Why a backup was not taken, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Another file altogether.
    #[error("{} is no backup of starling's", .0.display())]
    NoBackup(PathBuf),
    /// It ends too early.
    #[error(
        "{} is not whole: it ends after {pieces} pieces. Run the `starling backup` that wrote it again to go on, or take \
         another one", path.display()
    )]
    CutShort {
        /// The file.
        path: PathBuf,
        /// Pieces that are whole.
        pieces: u64,
    },
    /// Bytes of it are not what was written.
    #[error("{} is damaged at byte {at} (piece {piece}: {why}): use another backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the piece begins.
        at: u64,
        /// Which.
        piece: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The key that opens it is not given.
    #[error(
        "{} opens with cluster key {wanted}, but {origin} {given}. Name the file with that key with --cluster-key-file; \
         if the key was rotated since and not kept, nothing opens this backup any more", path.display()
    )]
    WrongKey {
        /// The file.
        path: PathBuf,
        /// The key's name.
        wanted: KeyId,
        /// Where keys were looked for.
        origin: String,
        /// What was found there.
        given: String,
    },
    /// There is something where the data directory shall be.
    #[error("{} is not empty: name a directory that does not exist yet with --data", .0.display())]
    Occupied(PathBuf),
    /// The file system refused.
    #[error("can't {action} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What it said.
        cause: io::Error,
    },
    /// The cluster key can't be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The node's store can't be read, or the new one not written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The new store can't be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The rest of the data directory can't be made.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl BackupError {
    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::WrongKey { .. } | Self::Key(_) => Exit::ClusterKey,
            Self::Occupied(_) | Self::NoBackup(_) => Exit::Usage,
            Self::CutShort { .. } => Exit::Incomplete,
            Self::Damaged { .. } => Exit::Failure,
            Self::Io { .. } | Self::Store(_) | Self::Open(_) => Exit::StorageFailed,
            Self::Start(error) => error.exit(),
        }
    }
}

//! What can go wrong with a request, in sentences that say what to do.

use super::{ACCOUNTS_MAX, FEEDS_MAX, NAMESPACES_PER_ACCOUNT_MAX, TOKEN_LEN_MIN, TOKENS_PER_ACCOUNT_MAX};
use crate::replica::limits::{KEY_LEN_MAX, METADATA_LEN_MAX, TITLE_LEN_MAX, VALUE_LEN_MAX};
use crate::replica::{NodeId, Refusal, StoreError};

/// Why a request failed. Unless a variant says otherwise, nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// No such namespace in this account, or it is deleted.
    #[error("There is no such namespace here. One that was just created elsewhere takes a moment to arrive.")]
    NamespaceNotFound,
    /// Titles are unique per account.
    #[error("This account already has a namespace of that title: choose another, or rename that one.")]
    TitleTaken,
    /// The title is empty or too long.
    #[error("A namespace's title must have 1 to {TITLE_LEN_MAX} bytes, this one has {len}.")]
    InvalidTitle {
        /// Bytes.
        len: usize,
    },
    /// The account has all the namespaces it may have.
    #[error("This account has {NAMESPACES_PER_ACCOUNT_MAX} namespaces, the most there can be: delete one first.")]
    TooManyNamespaces,
    /// The key can't be one.
    #[error("The key can't be used: {0}.")]
    InvalidKey(&'static str),
    /// The key is too long.
    #[error("The key has {len} bytes, at most {KEY_LEN_MAX} are allowed: use a shorter one.")]
    KeyTooLong {
        /// Bytes.
        len: usize,
    },
    /// The value is too large.
    #[error("The value has {len} bytes or more, at most {VALUE_LEN_MAX} are allowed: split it over several keys.")]
    ValueTooLarge {
        /// Bytes, as far as they were read.
        len: u64,
    },
    /// The metadata is too large.
    #[error("The metadata has {len} bytes of JSON, at most {METADATA_LEN_MAX} are allowed: move some into the value.")]
    MetadataTooLarge {
        /// Bytes.
        len: usize,
    },
    /// No such token in this account, or it is revoked.
    #[error("There is no such token here. One that was just created elsewhere takes a moment to arrive.")]
    TokenNotFound,
    /// This very secret was a token once, and was revoked.
    #[error("This token was revoked and can't be used again: make another one.")]
    TokenRevoked,
    /// The account has all the tokens it may have.
    #[error("This account has {TOKENS_PER_ACCOUNT_MAX} tokens, the most there can be: revoke one first.")]
    TooManyTokens,
    /// There are all the accounts there may be.
    #[error("There are {ACCOUNTS_MAX} accounts, the most there can be.")]
    TooManyAccounts,
    /// An API token that could be guessed.
    #[error("An API token must have {TOKEN_LEN_MIN} characters or more, and be random.")]
    WeakToken,
    /// Storage failed: writes are refused, reads go on. The write that meets the failure may survive a restart.
    #[error("This node's storage failed and it takes no more writes: write at another node, then repair it. ({0})")]
    ReadOnly(String),
    /// The node's clock is wrong.
    #[error(
        "This node's clock can't be trusted, so it takes no writes: write at another node, and set the clock. ({0})"
    )]
    ClockFenced(String),
    /// The node may no longer write.
    #[error("This node takes no writes: {0}. Write at another node.")]
    Fenced(&'static str),
    /// The key was set to the end of time by a faulty node.
    #[error("This key was written with the highest timestamp there is and can't be changed: use another key.")]
    Frozen,
    /// Too much at once.
    #[error("This node has too many requests waiting: try again in a moment.")]
    Overloaded,
    /// The driver did not answer in time. The write may still happen; repeating it is safe.
    #[error("This node did not answer in time, and the write may or may not happen: repeat it.")]
    Timeout,
    /// All places for feeds are taken.
    #[error("This node has {FEEDS_MAX} change feeds open, the most there can be: close one, or follow another node's.")]
    TooManyFeeds,
    /// A bookmark was not covered in time. Nothing was read or written.
    #[error(
        "This node did not get all that the bookmark speaks of within {patience_ms} ms: try again, wait longer, or ask \
         the node that gave it."
    )]
    NotCovered {
        /// How long it was waited for.
        patience_ms: u64,
    },
    /// A bookmark speaks of writes of a node that has left, and they are not here.
    #[error(
        "The bookmark speaks of writes of a node that has left the cluster, and it can't be told whether they will \
         come: go on without it."
    )]
    Departed,
    /// More acknowledgements were asked for than there are nodes. Nothing was written, unless nodes left meanwhile.
    #[error("This cluster has {members} nodes, so no more can acknowledge a write: ask for fewer, or for all.")]
    FewerNodes {
        /// Nodes on the roster.
        members: usize,
    },
    /// Too few nodes had the write on disk in time. It stays, and goes on spreading.
    #[error("Too few nodes have the write on disk so far. It stays, and goes on spreading.")]
    NotAcknowledged(Vec<NodeId>),
    /// A part of this upload failed before; it can't be finished.
    #[error("A part of this upload was not stored: upload the value again.")]
    UploadBroken,
    /// Reading failed.
    #[error("This node could not read its storage: try again, or read at another node. ({0})")]
    Storage(String),
    /// The namespace's key has not arrived.
    #[error("This namespace's key has not reached this node yet: try again in a moment, or use another node.")]
    NoKey,
    /// What is stored is not what was written, and no other node could give it anew.
    #[error("What this node stores under this key is damaged, and no other node that it reaches has it: {0}.")]
    Damaged(super::SealError),
    /// The node is going away. The write may have happened; repeating it is safe.
    #[error("This node is shutting down: use another node.")]
    ShuttingDown,
    /// A bug.
    #[error("The node gave an answer that doesn't fit the question: please report this.")]
    Unexpected,
}

impl From<Refusal> for KvError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NamespaceDeleted => Self::NamespaceNotFound,
            Refusal::ClockFenced(ms) if ms < 0 => Self::ClockFenced(format!("{} ms behind its peers", -ms)),
            Refusal::ClockFenced(ms) => Self::ClockFenced(format!("{ms} ms ahead of its peers")),
            Refusal::Superseded => Self::Fenced("a newer process runs with its identity"),
            Refusal::Evicted => Self::Fenced("it was taken off the roster"),
            Refusal::Frozen => Self::Frozen,
            Refusal::Overloaded => Self::Overloaded,
            Refusal::NotElsewhere => Self::Damaged(super::SealError::Damaged),
            // Sizes are checked before anything is sent, and the others answer other requests.
            Refusal::TooLarge
            | Refusal::UnknownDot
            | Refusal::ClockAhead(_)
            | Refusal::ChunksMissing
            | Refusal::Behind => Self::Unexpected,
            Refusal::FewerNodes(members) => Self::FewerNodes { members },
            Refusal::EvictedOrigin => Self::Departed,
        }
    }
}

impl From<StoreError> for KvError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.0)
    }
}

impl From<super::SealError> for KvError {
    fn from(error: super::SealError) -> Self {
        match error {
            super::SealError::NoKey => Self::NoKey,
            error => Self::Damaged(error),
        }
    }
}

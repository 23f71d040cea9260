//! Starling: a self-hosted, multi-master edge key-value store.

#[cfg(feature = "node")]
pub mod net;
pub mod replica;

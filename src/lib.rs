//! Starling: a self-hosted, multi-master edge key-value store.

#[cfg(feature = "node")]
pub mod kv;
#[cfg(feature = "node")]
pub mod node;
pub mod replica;
#[cfg(feature = "node")]
pub mod store;

//! Starling: a self-hosted, multi-master edge key-value store.

pub mod replica;

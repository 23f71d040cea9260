//! Starling: a self-hosted, multi-master edge key-value store.
//!
//! [`replica`] is the pure protocol: one node as a state machine, driven the same way in production and in the
//! simulator. Everything else does IO and needs the default feature `node`.

pub mod replica;

#[cfg(feature = "node")]
pub mod api;
#[cfg(feature = "node")]
pub mod banner;
#[cfg(feature = "node")]
pub mod binding;
#[cfg(feature = "node")]
pub mod cli;
#[cfg(feature = "node")]
pub mod client;
#[cfg(feature = "node")]
pub mod config;
#[cfg(feature = "node")]
pub mod datadir;
#[cfg(feature = "node")]
pub mod exit;
#[cfg(feature = "node")]
pub mod https;
#[cfg(feature = "node")]
pub mod keyring;
#[cfg(feature = "node")]
pub mod kv;
#[cfg(feature = "node")]
pub mod logging;
#[cfg(feature = "node")]
pub mod net;
#[cfg(feature = "node")]
pub mod node;
#[cfg(feature = "node")]
pub mod operator;
#[cfg(feature = "node")]
pub mod secret;
#[cfg(feature = "node")]
pub mod serve;
#[cfg(feature = "node")]
pub mod store;
#[cfg(feature = "node")]
pub mod terminal;

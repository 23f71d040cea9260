//! Starling: a self-hosted, multi-master edge key-value store.

pub mod replica;

#[cfg(feature = "node")]
pub mod banner;
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
pub mod logging;
#[cfg(feature = "node")]
pub mod net;
#[cfg(feature = "node")]
pub mod secret;
#[cfg(feature = "node")]
pub mod serve;
#[cfg(feature = "node")]
pub mod terminal;

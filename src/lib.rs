//! Starling: a self-hosted, multi-master edge key-value store.
//!
//! Two parts are meant for other programs: [`embed`], a node inside a program of your own, and [`replica`], the pure
//! protocol: one node as a state machine, driven the same way in production and in the simulator. The rest is what the
//! `starling` program is made of, and may change in any release. All but `replica` does IO and needs the default feature
//! `node`.

#![deny(unsafe_code)]

pub mod replica;

#[cfg(feature = "node")]
#[doc(hidden)]
pub mod allocator;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod api;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod backup;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod banner;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod binding;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod client;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod config;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod datadir;
#[cfg(feature = "node")]
pub mod embed;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod exit;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod front;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod https;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod keyring;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod kv;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod logging;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod metrics;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod net;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod node;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod operator;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod secret;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod serve;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod store;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod terminal;
#[cfg(feature = "node")]
#[doc(hidden)]
pub mod worker;

//! The testnet: real `starling` processes on an emulated planet. Knows the program from outside only: its command line,
//! its signals, its HTTP API, and the addresses of its packets.

#![forbid(unsafe_code)]

pub mod addresses;
pub mod api;
pub mod chaos;
pub mod cli;
pub mod control;
pub mod demo;
pub mod emulator;
pub mod load;
pub mod measure;
pub mod node;
pub mod nursery;
pub mod program;
pub mod sample;
pub mod scripted;
pub mod table;
pub mod world;

//! The simulator: the very [`starling::replica::Replica`] that production runs, hundreds of it, in virtual time over
//! real PoP locations, under faults drawn from a seed, and judged.
//!
//! Everything follows from the scenario and the seed: no clock of the machine, no entropy, no hash order, no float that
//! a platform might round otherwise. Wall-clock time is only ever reported, in fields named `real_…`.

#![forbid(unsafe_code)]

pub mod bounds;
pub mod checkers;
pub mod cli;
pub mod clocks;
pub mod compare;
pub mod host;
pub mod lies;
pub mod machine;
pub mod measure;
pub mod network;
pub mod outcome;
pub mod places;
pub mod portable;
pub mod report;
pub mod sabotage;
pub mod scenario;
pub mod shrink;
pub mod span;
pub mod swarm;
pub mod trace;
pub mod watch;
pub mod workload;
pub mod world;

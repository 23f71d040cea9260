//! The simulator: the very [`starling::replica::Replica`] that production runs, hundreds of it, in virtual time over
//! real PoP locations, under faults drawn from a seed, and judged.
//!
//! Everything follows from the scenario and the seed: no clock of the machine, no entropy, no hash order, no float that
//! a platform might round otherwise. Wall-clock time is only ever reported, in fields named `real_…`.

pub mod bounds;
pub mod cli;
pub mod outcome;
pub mod places;
pub mod portable;
pub mod report;
pub mod scenario;
pub mod span;

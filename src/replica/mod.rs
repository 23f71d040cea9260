//! The pure replica: no IO, no clock, no ambient randomness.

mod dot;

pub use dot::{Dot, Incarnation, NodeId, Origin};

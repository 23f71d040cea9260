//! The node: the driver's loop around the replica, the mailbox through which everything else in the process talks to
//! it, and how a node starts, joins and stops. Knows no HTTP.

mod belongings;
mod clock;
mod company;
mod driver;
mod handle;
mod keys;
mod membership;
mod mending;
mod peers;
mod reissue;
mod rejoin;
mod start;
mod stopped;
#[cfg(test)]
mod tests;

pub use belongings::{Belongings, Standing};
pub use clock::MachineClock;
pub use driver::{Alarms, Members};
pub use handle::{Handle, Mailbox, NodeGone, REQUESTS_MAX, mailbox};
pub use keys::{KeyStatus, Keys, RotateError};
pub use membership::JOIN_CLOCK_DIFFERENCE_MS_MAX;
pub use start::{Node, STORE, StartError};
pub use stopped::scrub_stopped;

pub(crate) use clock::entropy;
pub(crate) use start::invite;

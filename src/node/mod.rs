//! The node: one loop that drives the replica, and the mailbox through which everything else in the process talks to
//! it. Knows no HTTP.
mod handle;

pub use handle::{Handle, Mailbox, NodeGone, REQUESTS_MAX, mailbox};

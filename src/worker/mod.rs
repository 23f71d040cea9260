//! JavaScript Workers: what is deployed, and who runs it.
//!
//! Everything that a Worker is made of is replicated like any other entry, so that what is deployed at one PoP runs at
//! every PoP. Knows nothing of peers and of storage.

mod assets;
mod cache;
pub mod catalog;
pub mod embedded;
pub mod engine;
mod hops;
mod program;
mod range;
pub mod static_files;
mod tails;
pub mod workerd;

pub use assets::{Asset, Assets, HtmlHandling, NotFoundHandling, Resolved, ScriptFirst};
pub use catalog::{WorkerError, Workers};
pub use program::{Binding, Live, Module, ModuleKind, Program, ScriptId, Syntax};
pub use tails::{TAIL_EVENT_LEN_MAX, TAIL_EVENTS_MAX, TAILS_MAX, Tail, TailEvent, Tails, Told, TooManyTails};

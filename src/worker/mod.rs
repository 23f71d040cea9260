//! JavaScript Workers: what is deployed, who runs it, and where requests for it arrive.
//!
//! Everything that a Worker is made of is replicated like any other entry, so that what is deployed at one PoP runs at
//! every PoP. Knows nothing of peers and of storage.

mod program;

pub use program::{Binding, Live, Module, ModuleKind, Program, ScriptId, Syntax};

//! What an engine runs: one version of a script with its modules and bindings, and which versions are live.
//!
//! Plain data. Knows neither how scripts are stored and deployed nor how an engine runs them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::assets::Assets;
use crate::kv::{AccountId, NamespaceId};
use crate::secret::Secret;

/// One version of a script. Never changes: whatever changes makes a new version.
#[derive(Debug)]
pub struct Program {
    /// Whose it is.
    pub account: AccountId,
    /// The script's name, unique in its account.
    pub script: String,
    /// Of the script, from its first upload to its deletion: of two scripts that had one name in turn, each has its own.
    pub life: [u8; 16],
    /// A UUID in text.
    pub version: String,
    /// How the code is written.
    pub syntax: Syntax,
    /// The module that is run first comes first. A service worker has one module of code; the others are its globals.
    pub modules: Vec<Module>,
    /// By name, in the order of the upload.
    pub bindings: Vec<(String, Binding)>,
    /// `YYYY-MM-DD`; decides what the runtime does alike for ever.
    pub compatibility_date: String,
    /// Exceptions to the date.
    pub compatibility_flags: Vec<String>,
    /// Its static files, if it has any. A program without modules is nothing but those.
    pub assets: Option<Arc<Assets>>,
    /// Longest that a request may compute, in milliseconds, if its owner has set a limit.
    pub cpu_ms: Option<u32>,
}

/// How a script is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// `export default { fetch(request, env, ctx) {} }`
    Modules,
    /// `addEventListener("fetch", event => {})`
    ServiceWorker,
}

/// One file of a script.
#[derive(Debug, Clone)]
pub struct Module {
    /// As imported, e.g. `lib/card.js`.
    pub name: String,
    /// What importing it gives.
    pub kind: ModuleKind,
    /// Its content.
    pub body: Bytes,
}

/// What importing a module gives. Replicated by its place here: further kinds come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModuleKind {
    /// An ES module, or the code of a service worker.
    JavaScript,
    /// A CommonJS module.
    CommonJs,
    /// A string.
    Text,
    /// An `ArrayBuffer`.
    Data,
    /// Parsed JSON.
    Json,
    /// A `WebAssembly.Module`.
    Wasm,
}

/// What a name in `env` (or in the global scope of a service worker) stands for.
#[derive(Debug, Clone)]
pub enum Binding {
    /// A namespace, read and written at this PoP.
    Kv(NamespaceId),
    /// A string.
    Text(String),
    /// A value, as JSON text.
    Json(String),
    /// A string that is never shown.
    Secret(Secret),
    /// The script's static files, through `fetch`.
    Assets,
}

/// A script as it is deployed now.
#[derive(Debug, Clone)]
pub struct Live {
    /// The versions that requests go to, with the share of each in percent; the shares add up to 100.
    pub versions: Vec<(Arc<Program>, f64)>,
    /// Whether it is served at `<script>.workers.localhost`.
    pub workers_dev: bool,
    /// When it is to be run besides, as cron expressions in UTC.
    pub crons: Vec<String>,
    /// Where it is served besides, as patterns of host and path.
    pub routes: Vec<String>,
    /// The label that tells its account's scripts from others' of the same name:
    /// `<script>.<subdomain>.workers.localhost`.
    pub subdomain: String,
}

/// A script of an account: what requests are routed to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScriptId {
    /// Whose it is.
    pub account: AccountId,
    /// Its name.
    pub script: String,
}

impl fmt::Display for ScriptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.script)
    }
}

//! `starling kv import`: what `starling kv export` wrote, into a namespace.

use std::cell::Cell;
use std::path::PathBuf;

use clap::Args;

use super::bulk::put_all;
use super::items::Items;
use super::{SpaceArgs, WriteArgs};
use crate::cli::{CliError, now_ms};
use crate::client::Pair;
use crate::config::Environment;
use crate::terminal::{harmless, tell};

/// Pairs of a request.
const COUNT_MAX: usize = 5_000;
/// The shortest life that the API grants a key, in seconds.
const TTL_SECS_MIN: u64 = 60;

const ABOUT: &str = "Put what `starling kv export` wrote into a namespace, with metadata and expirations.

Keys that are there already are overwritten, others stay. Keys whose time is up, or will be within a minute (the \
shortest life a key can be given), are left out and counted. Importing the same file again does no harm.";

const EXAMPLES: &str = "Examples:
  starling kv import settings.jsonl --namespace settings
  starling kv import settings.jsonl --namespace copy --create
  gunzip < settings.jsonl.gz | starling kv import - --namespace settings";

/// Put what `starling kv export` wrote into a namespace
#[derive(Args)]
#[command(long_about = ABOUT, after_long_help = EXAMPLES)]
pub(super) struct ImportArgs {
    /// JSON lines, or a JSON array; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    space: SpaceArgs,
    #[command(flatten)]
    write: WriteArgs,
    /// Create the namespace if there is none of that title
    #[arg(long, requires = "namespace")]
    create: bool,
    /// Leave out the first N items: to go on where a command stopped
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: u64,
    /// Print a JSON object that says what was done
    #[arg(long)]
    json: bool,
}

impl ImportArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let items = Items::open(&self.file, self.skip, COUNT_MAX)?;
        if let Some(title) = self.space.namespace.as_ref().filter(|_| self.create) {
            let (client, account) = self.space.node.client(environment).await?;
            if !client.namespaces(&account).await?.iter().any(|namespace| namespace.title == *title) {
                client.create_namespace(&account, title).await?;
                tell(&format!("created the namespace {}", harmless(title)));
            }
        }
        let space = self.space.open(environment, self.write.session()).await?;
        let expired = Cell::new(0_u64);
        let keep = |pair: Pair| match is_over(&pair, now_ms() / 1000) {
            true => {
                expired.set(expired.get() + 1);
                None
            }
            false => Some(pair),
        };
        let report = put_all(&space, items, self.skip, keep).await;
        if expired.get() > 0 {
            tell(&format!("left out {} keys that have expired or are about to", expired.get()));
        }
        report.tell("imported", self.json)
    }
}

/// What is no number is left for the node to refuse.
fn is_over(pair: &Pair, now_secs: u64) -> bool {
    let expiration = pair.expiration.as_ref().and_then(serde_json::Value::as_u64);
    // A second more: the node's clock, and the way there.
    expiration.is_some_and(|at| at < now_secs + TTL_SECS_MIN + 1)
}

//! `starling node …`: acts on the node itself.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::CliError;
use super::target::TargetArgs;
use crate::config::Environment;
use crate::terminal::{harmless, tell};

const ABOUT: &str = "Take a node off its cluster for good, and stop it.

The node first hands what it holds to its peers. The others then stop waiting for it, and its identity can't return: \
to come back it joins anew, with --join and a new token. To stop a node for a while, stop its process \
instead.";

const EXAMPLES: &str = "Examples:
  starling node leave
  starling node leave --yes --data /var/lib/starling
  STARLING_TOKEN=... starling node leave --api http://127.0.0.1:7700";

#[derive(Subcommand)]
pub(super) enum NodeCommand {
    Leave(LeaveArgs),
    #[command(visible_alias = "remove")]
    Evict(EvictArgs),
}

impl NodeCommand {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self {
            Self::Leave(args) => args.run(environment).await,
            Self::Evict(args) => args.run(environment).await,
        }
    }
}

const EVICT_ABOUT: &str = "Take a node off the cluster for good: one that is lost, or that can't be trusted. Asked of any node that lives.

Watermarks, tombstones and --acks all wait for every member, also for one that will not come back. After this they \
don't. Should it start again all the same, it is turned away. Writes that only it held are on its disk: they come back if \
its data directory joins anew, as another node, with --join and a new token.

A node that is connected can leave by itself, and then hands on what it holds: `starling node leave` there. If it can't be \
trusted, --connected takes it off as it is: every node closes its connection, refuses its certificate and tells it so, and \
it takes no writes from then on. What it had accepted and not yet sent stays on its disk.";

const EVICT_EXAMPLES: &str = "Examples:
  starling node evict fra-4be1
  starling node evict fra-4be1 --connected
  starling node evict 0123456789abcdef --yes --data /var/lib/starling";

/// Take a lost or hostile node off the cluster for good
#[derive(Args)]
#[command(long_about = EVICT_ABOUT, after_long_help = EVICT_EXAMPLES)]
pub(super) struct EvictArgs {
    /// Its name or its id, as `starling status` shows them
    node: String,
    /// Also while it is connected
    #[arg(long)]
    connected: bool,
    #[command(flatten)]
    target: TargetArgs,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

impl EvictArgs {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        let named = harmless(&self.node);
        if !self.yes {
            super::confirm(&format!("takes {named} off the cluster for good"), &named)?;
        }
        client.evict(&self.node, self.connected).await?;
        tell(&format!("{named} is off the roster. Replace it with a new node: `starling invite` makes a token."));
        Ok(())
    }
}

/// Take a node off its cluster for good, and stop it
#[derive(Args)]
#[command(long_about = ABOUT, after_long_help = EXAMPLES)]
pub(super) struct LeaveArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

impl LeaveArgs {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        let status = client.status().await?;
        let name = harmless(status.get("name").and_then(Value::as_str).unwrap_or(client.url()));
        if !self.yes {
            super::confirm(&format!("takes node {name} off its cluster for good and stops it"), &name)?;
        }
        client.leave().await?;
        tell(&format!("{name} has left the cluster and stops. Its data directory is of no more use to the cluster."));
        Ok(())
    }
}

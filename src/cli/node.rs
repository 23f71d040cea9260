//! `starling node …`: acts on the node itself.

use std::io::{self, IsTerminal};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::CliError;
use super::target::TargetArgs;
use crate::config::Environment;
use crate::terminal::{harmless, tell};

const ABOUT: &str = "Take a node off its cluster for good, and stop it.

The node first hands what it holds to its peers. The others then stop waiting for it, and its identity can't return: \
to come back it joins anew, with an empty data directory and a new token. To stop a node for a while, stop its process \
instead.";

const EXAMPLES: &str = "Examples:
  starling node leave
  starling node leave --yes --data /var/lib/starling
  STARLING_TOKEN=... starling node leave --api http://127.0.0.1:7700";

#[derive(Subcommand)]
pub(super) enum NodeCommand {
    Leave(LeaveArgs),
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
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        let status = client.status().await?;
        let name = harmless(status.get("name").and_then(Value::as_str).unwrap_or(client.url()));
        if !self.yes {
            confirm(&name)?;
        }
        client.leave().await?;
        tell(&format!("{name} has left the cluster and stops. Its data directory is of no more use to the cluster."));
        Ok(())
    }
}

fn confirm(name: &str) -> Result<(), CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::Unconfirmed { name: name.to_owned() });
    }
    tell(&format!("Take {name} off its cluster for good and stop it? Type its name to confirm:"));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|cause| CliError::Io { action: "read the answer", cause })?;
    if answer.trim() == name { Ok(()) } else { Err(CliError::Declined) }
}

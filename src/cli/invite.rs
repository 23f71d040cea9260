//! `starling invite`.

use std::time::Duration;

use clap::Args;

use super::target::TargetArgs;
use super::{CliError, duration};
use crate::config::Environment;
use crate::terminal::tell;

const ABOUT: &str = "Make a join token for one new node.

The token alone goes to standard output, so that it can be piped or kept in a variable; what to do with it goes to \
standard error. It is a secret, good for one node and until its time is up.";

const EXAMPLES: &str = "Examples:
  starling invite
  starling invite --ttl 10m --data /var/lib/starling
  STARLING_TOKEN=... starling invite --api http://127.0.0.1:7700
  starling serve --data ./starling-data-2 --api 127.0.0.1:7710 --gossip 127.0.0.1:7712 --join $(starling invite)";

/// Make a join token for one new node
#[derive(Args)]
#[command(long_about = ABOUT, after_long_help = EXAMPLES)]
pub(super) struct InviteArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// How long the token is good: 30s, 10m, 1h, 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration::parse)]
    ttl: Duration,
    /// Print a JSON object with the token and its time in seconds
    #[arg(long)]
    json: bool,
}

impl InviteArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        let token = client.invite(self.ttl).await?;
        if self.json {
            let answer = serde_json::json!({ "token": token.expose(), "ttl_secs": self.ttl.as_secs() });
            return super::print(&format!("{answer}\n"));
        }
        super::print(&format!("{}\n", token.expose()))?;
        let time = duration::render(self.ttl.as_secs());
        tell(&format!("Good for one node, within {time}. On the new node's machine:"));
        tell("  STARLING_JOIN=TOKEN starling serve --gossip ADDR:PORT");
        Ok(())
    }
}

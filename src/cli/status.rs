//! `starling status`: asks the node; [`render`] makes a page of the answer.

mod render;

use clap::Args;

use super::CliError;
use super::target::TargetArgs;
use crate::config::Environment;
use crate::terminal::Paint;

const ABOUT: &str = "Show how a node and its peers are.

IN SYNC compares this node with each peer: `yes` if both hold the same writes, `behind` if some are still on their way, \
`DIFFERS` if they have seen the same writes and yet hold different data, which is worth a bug report.";

const EXAMPLES: &str = "Examples:
  starling status
  starling status --data /var/lib/starling
  starling status --json | jq .peers
  STARLING_TOKEN=... starling status --api http://127.0.0.1:7700";

/// Show how a node and its peers are
#[derive(Args)]
#[command(long_about = ABOUT, after_long_help = EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Print what the node says as JSON
    #[arg(long)]
    json: bool,
}

impl StatusArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let status = self.target.client(environment)?.status().await?;
        if self.json {
            super::print(&format!("{status:#}\n"))
        } else {
            super::print(&render::page(&status, now_ms(), Paint::stdout()))
        }
    }
}

/// Unix time in milliseconds, to show the watermark as an age.
// The one clock a command reads: only for a person, nothing is decided by it.
#[allow(clippy::disallowed_methods)]
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

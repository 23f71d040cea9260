//! `starling audit`.

use clap::Args;
use serde_json::Value;

use super::target::TargetArgs;
use super::token::{text, utc};
use super::{CliError, print};
use crate::config::Environment;

/// Show who administered the cluster: who did what, when and where
#[derive(Args)]
#[command(after_long_help = "Examples:\n  starling audit\n  starling audit --limit 1000 --json")]
pub(super) struct AuditArgs {
    /// How many acts, the latest first: 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

impl AuditArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let path = format!("/starling/v1/audit?limit={}", self.limit);
        let answer = self.target.client(environment)?.get(&path).await?;
        if self.json {
            return print(&format!("{answer}\n"));
        }
        let line = |act: &Value| {
            format!(
                "{}  {}  {}  by {}  from {}  at {}\n",
                utc(act["at_ms"].as_u64().unwrap_or(0) / 1000),
                text(&act["what"]),
                text(&act["target"]),
                text(&act["who"]),
                text(&act["from"]),
                text(&act["node"]),
            )
        };
        print(&answer.as_array().into_iter().flatten().map(line).collect::<String>())
    }
}

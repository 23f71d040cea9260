//! `starling audit` and `starling verify`.

use clap::Args;
use serde_json::{Value, json};

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

const VERIFY_ABOUT: &str = "Compare all that a node holds with what another holds.

Finds values that rotted on the disk, entries that vanished, and entries that were put back to an older state. Exits with 1 \
if anything is wrong here and was not repaired.";

/// Compare all that a node holds with what another holds
#[derive(Args)]
#[command(long_about = VERIFY_ABOUT, after_long_help = "Examples:\n  starling verify\n  starling verify --peer fra-4be1 --repair")]
pub(super) struct VerifyArgs {
    /// With which node, by name or id [default: any that is connected]
    #[arg(long, value_name = "NODE")]
    peer: Option<String>,
    /// Replace what is damaged, missing or stale here by what the peer holds
    #[arg(long)]
    repair: bool,
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

impl VerifyArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        let body = json!({ "peer": self.peer, "repair": self.repair });
        let answer = client.post_patiently("/starling/v1/verify", body).await?;
        let count = |name: &str| answer[name].as_u64().unwrap_or(0);
        let wrong = count("damaged") + count("missing") + count("stale");
        if self.json {
            print(&format!("{answer}\n"))?;
        } else {
            let mut lines = format!(
                "compared {} entries with {}: {} damaged, {} missing, {} stale here; {} repaired\n",
                count("compared"),
                text(&answer["peer_name"]),
                count("damaged"),
                count("missing"),
                count("stale"),
                count("repaired"),
            );
            if count("behind_at_peer") > 0 {
                lines.push_str(&format!("{} behind at the peer: verify there, too\n", count("behind_at_peer")));
            }
            for example in answer["examples"].as_array().into_iter().flatten() {
                lines.push_str(&format!("  {}\n", text(example)));
            }
            print(&lines)?;
        }
        match answer["cut_short"] == Value::Bool(true) {
            true => Err(CliError::VerifyCutShort),
            false if wrong > count("repaired") => Err(CliError::Wrong { keys: wrong - count("repaired") }),
            false => Ok(()),
        }
    }
}

//! `starling kv key watch`: the changes of a namespace as they happen, across restarts of the node.

use std::io::{self, IsTerminal};

use clap::Args;
use serde_json::Value;

use super::{ReadArgs, SpaceArgs};
use crate::cli::{CliError, print};
use crate::client::{Event, patiently};
use crate::config::Environment;
use crate::terminal::{harmless, tell};

const ABOUT: &str = "Show changes as they happen, wherever they are made.

There is no history: a key that changed several times in a moment is shown once, as it is then. When the node restarts, \
or the connection breaks, it goes on where it was. With --json each line is an object with the event's kind (put, delete, \
expire), key, marker, metadata and expiration, and the position that --since goes on from, at any node.";

const EXAMPLES: &str = "Examples:
  starling kv key watch --namespace settings
  starling kv key watch --namespace settings --prefix user/ --json --values | while read -r line; do ...; done
  starling kv key watch --namespace settings --json --since POSITION";

/// Show changes as they happen
#[derive(Args)]
#[command(long_about = ABOUT, after_long_help = EXAMPLES)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    space: SpaceArgs,
    /// Only keys that start with this
    #[arg(long, default_value = "")]
    prefix: String,
    /// Begin with what has changed since this position of an earlier event [default: from now on]
    #[arg(long, value_name = "POSITION")]
    since: Option<String>,
    /// With the values, up to 1 MiB
    #[arg(long)]
    values: bool,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    read: ReadArgs,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

impl WatchArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let named = self.space.named().to_owned();
        let space = self.space.open(environment, self.read.session()).await?;
        let mut since = self.since;
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut is_first = true;
        while left > 0 {
            let follow = async || space.changes(&self.prefix, since.as_deref(), self.values).await;
            // At first an error is an error; later the node may be on its way back.
            let mut events = if is_first { follow().await? } else { patiently(follow).await? };
            if std::mem::take(&mut is_first) {
                tell(&format!("watching {}", harmless(&named)));
            }
            while left > 0 {
                let Ok(Some(event)) = events.next().await else { break };
                since = event.id.clone().or(since);
                match &*event.event {
                    "put" | "delete" | "expire" => {
                        left -= 1;
                        show(&event, self.json)?;
                    }
                    "deleted" => return Err(CliError::NoSuchNamespace { title: named, hint: String::new() }),
                    // It is told that it was too slow, or that the node goes; or it is only moved on.
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn show(event: &Event, json: bool) -> Result<(), CliError> {
    let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
    if json {
        // Text beside text: what the node wrote of metadata stays as it is.
        let position = Value::from(event.id.clone());
        let rest = event.data.strip_prefix('{').unwrap_or("}");
        return print(&format!("{{\"position\":{position},{rest}\n"));
    }
    let key = data.get("key").and_then(Value::as_str).unwrap_or_default();
    let key = if io::stdout().is_terminal() { harmless(key) } else { key.to_owned() };
    let value = data.get("value").and_then(Value::as_str).map(|value| format!("  {}", harmless(value)));
    print(&format!("{:<6}  {key}{}\n", event.event, value.unwrap_or_default()))
}

//! `starling status`: asks the node, once or again and again; [`render`] makes a page of the answer.

mod render;

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::target::TargetArgs;
use super::{CliError, duration, now_ms};
use crate::client::Client;
use crate::config::Environment;
use crate::terminal::Paint;

/// Clears what is below and right of the upper left corner.
const REDRAW: &str = "\x1b[H\x1b[J";
/// Another screen, as editors use, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

const ABOUT: &str = "Show how a node and its peers are.

IN SYNC compares this node with each peer: `yes` if both hold the same writes, `behind` if some are still on their way, \
`DIFFERS` if they have seen the same writes and yet hold different data, which is worth a bug report. With \
--watch the page is drawn again every second, with what happens per second; Ctrl-C ends it.";

const EXAMPLES: &str = "Examples:
  starling status
  starling status --watch
  starling status --data /var/lib/starling
  starling status --json | jq .peers
  starling status --json --watch --interval 10s >> status.jsonl
  STARLING_TOKEN=... starling status --api http://127.0.0.1:7700";

/// Show how a node and its peers are
#[derive(Args)]
#[command(long_about = ABOUT, after_long_help = EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Print what the node says as JSON; with --watch, one object a line
    #[arg(long)]
    json: bool,
    /// Show it again and again
    #[arg(long, short)]
    watch: bool,
    /// With --watch: how long between two pages
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse_fine, requires = "watch")]
    interval: Duration,
}

impl StatusArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        match (self.watch, self.json) {
            (false, true) => super::print(&format!("{:#}\n", client.status().await?)),
            (false, false) => super::print(&render::page(&client.status().await?, None, now_ms(), Paint::stdout())),
            (true, true) => loop {
                super::print(&format!("{}\n", client.status().await?))?;
                tokio::time::sleep(self.interval).await;
            },
            (true, false) => self.watch(&client).await,
        }
    }

    async fn watch(&self, client: &Client) -> Result<(), CliError> {
        // The first answer decides: a wrong address or token is an error, what happens later is part of the show.
        let first = client.status().await?;
        let is_terminal = io::stdout().is_terminal();
        if is_terminal {
            super::print(ENTER)?;
        }
        let shown = tokio::select! {
            shown = self.show(client, first, is_terminal) => shown,
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        if is_terminal {
            super::print(LEAVE)?;
        }
        shown
    }

    async fn show(&self, client: &Client, first: Value, is_terminal: bool) -> Result<(), CliError> {
        let paint = Paint::stdout();
        let redraw = if is_terminal { REDRAW } else { "\n" };
        let (mut last, mut last_ms) = (first, now_ms());
        super::print(&format!("{redraw}{}", render::page(&last, None, last_ms, paint)))?;
        loop {
            tokio::time::sleep(self.interval).await;
            let page = match client.status().await {
                Ok(status) => {
                    let now = now_ms();
                    let earlier = render::Earlier { status: &last, secs: now.saturating_sub(last_ms) as f64 / 1e3 };
                    let page = render::page(&status, Some(&earlier), now, paint);
                    (last, last_ms) = (status, now);
                    page
                }
                // It may come back.
                Err(error) => format!("{}\n", paint.red(&error.to_string())),
            };
            super::print(&format!("{redraw}{page}"))?;
        }
    }
}

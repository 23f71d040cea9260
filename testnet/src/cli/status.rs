//! `starling-testnet status`: the table, once or again and again.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::CliResult;
use super::planet::interrupted;
use crate::control::{self, Request};
use crate::table;

/// Clears what is below and right of the upper left corner.
const REDRAW: &str = "\x1b[H\x1b[J";
const PERIOD: Duration = Duration::from_secs(1);

/// Show how all nodes are; on a terminal again every second, until Ctrl-C
#[derive(Args)]
pub(super) struct StatusArgs {
    /// Show it once
    #[arg(long)]
    once: bool,
    /// Print JSON, once
    #[arg(long)]
    json: bool,
}

impl StatusArgs {
    pub(super) async fn run(self, dir: &Path) -> CliResult {
        let is_live = std::io::stdout().is_terminal() && !self.once && !self.json;
        loop {
            let answer = control::ask(dir, &Request::Status).await?;
            let rows = answer["nodes"].as_array().cloned().unwrap_or_default();
            if self.json {
                println!("{answer:#}");
            } else {
                print!("{}{}", if is_live { REDRAW } else { "" }, table::text(&rows));
                let _ = std::io::stdout().flush();
            }
            if !is_live {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = interrupted() => return Ok(ExitCode::SUCCESS),
            }
        }
    }
}

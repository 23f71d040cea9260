//! `starling-testnet kv`: the program's own `kv` commands, asked of one node.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use super::{CliResult, Failure};
use crate::control::{self, Request};
use crate::node::State;
use crate::program;

const EXAMPLES: &str = "Examples:
  starling-testnet kv ams namespace create demo
  starling-testnet kv ams key put greeting 'hello' --namespace demo
  starling-testnet kv sin key get greeting --namespace demo
  starling-testnet kv gru key list --namespace demo";

/// Read and write at a node, in the words of `starling kv`
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct KvArgs {
    /// The node, as `status` shows it, or its number
    node: String,
    /// The program [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    starling: Option<PathBuf>,
    /// What `starling kv` takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    words: Vec<String>,
}

impl KvArgs {
    pub(super) async fn run(self, dir: &Path) -> CliResult {
        let starling = program::find(self.starling.as_deref()).map_err(Failure::Usage)?;
        let answer = control::ask(dir, &Request::Status).await?;
        let nodes = answer["nodes"].as_array().cloned().unwrap_or_default();
        let is_meant = |(number, row): &(usize, &serde_json::Value)| {
            row["node"].as_str().is_some_and(|name| name.eq_ignore_ascii_case(&self.node))
                || self.node == number.to_string()
        };
        let (_, node) = nodes.iter().enumerate().find(is_meant).ok_or_else(|| {
            let names: Vec<&str> = nodes.iter().filter_map(|row| row["node"].as_str()).collect();
            format!("no node '{}'; there are {}", self.node, names.join(", "))
        })?;
        let state = node["state"].as_str().unwrap_or_default();
        if state != State::Up.name() {
            return Err(format!("{} is {state}; `heal` wakes and starts everyone", self.node).into());
        }
        let data = node["data"].as_str().unwrap_or_default();
        let error = Command::new(starling).arg("kv").args(&self.words).args(["--data", data]).exec();
        Err(error.to_string().into())
    }
}

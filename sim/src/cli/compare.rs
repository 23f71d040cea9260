//! `starling-sim compare`: did it get worse?

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::CliResult;
use crate::compare::{Change, compare};
use crate::outcome::Outcome;

/// Compare two stored runs; ends with 1 if a figure got worse.
#[derive(Args)]
pub(super) struct CompareArgs {
    /// Stored by `run --out`, before.
    base: PathBuf,
    /// The same, now.
    new: PathBuf,
}

impl CompareArgs {
    pub(super) fn run(self) -> CliResult {
        let (base, new) = (read(&self.base)?, read(&self.new)?);
        if base.summary.scenario != new.summary.scenario || base.summary.nodes != new.summary.nodes {
            return Err(format!(
                "these are different things: {} with {} nodes and {} with {}",
                base.summary.scenario, base.summary.nodes, new.summary.scenario, new.summary.nodes
            ));
        }
        println!("{:<44} {:>12} {:>12} {:>8}", base.summary.scenario, "base", "new", "change");
        let lines = compare(&base.summary, &new.summary);
        for line in &lines {
            let percent = match line.base {
                0.0 => String::new(),
                base => format!("{:+.1} %", (line.new / base - 1.0) * 100.0),
            };
            let mark = match line.change {
                Change::Same => "",
                Change::Better => "better",
                Change::Worse => "WORSE",
            };
            println!("{:<44} {:>12.3} {:>12.3} {percent:>8} {mark}", line.name, line.base, line.new);
        }
        let is_worse = lines.iter().any(|line| line.change == Change::Worse);
        Ok(ExitCode::from(u8::from(is_worse)))
    }
}

fn read(path: &PathBuf) -> Result<Outcome, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{} is no stored run: {error}", path.display()))
}

//! `starling-sim scenarios`: those that come along.

use std::process::ExitCode;

use clap::Args;

use super::CliResult;
use super::run::load;
use crate::scenario::{BUILTIN, builtin};

/// List the scenarios that come along, or print one as a start for your own.
#[derive(Args)]
pub(super) struct ScenariosArgs {
    /// Print this one.
    name: Option<String>,
}

impl ScenariosArgs {
    pub(super) fn run(self) -> CliResult {
        match &self.name {
            Some(name) => {
                let text = builtin(name).ok_or_else(|| format!("no scenario '{name}' comes along"))?;
                print!("{text}");
            }
            None => {
                for (name, _) in BUILTIN {
                    println!("{name:<18} {}", load(name)?.about);
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

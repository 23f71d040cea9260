//! `starling-sim report`: the page of a run that was stored.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::outcome::Outcome;
use crate::report;

/// Make the page that shows a stored run: a map of how writes spread, lags, faults, bytes, violations.
#[derive(Args)]
pub(super) struct ReportArgs {
    /// What a run stored, JSON; - reads standard input.
    outcome: PathBuf,
    /// The page to write, HTML. It loads nothing: open it, mail it, print it.
    page: PathBuf,
}

impl ReportArgs {
    pub(super) fn run(self) -> ExitCode {
        match self.write() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::from(2)
            }
        }
    }

    fn write(&self) -> Result<(), String> {
        let name = self.outcome.display();
        let mut text = String::new();
        match self.outcome.as_os_str() == "-" {
            true => std::io::stdin().read_to_string(&mut text),
            false => fs::File::open(&self.outcome).and_then(|mut file| file.read_to_string(&mut text)),
        }
        .map_err(|error| format!("cannot read {name}: {error}"))?;
        let outcome: Outcome = serde_json::from_str(&text)
            .map_err(|error| format!("{name} is not the outcome of a run: {error}; `run` stores one"))?;
        if outcome.details.places.is_empty() {
            eprintln!("note: {name} holds figures only; the pictures stay empty");
        }
        fs::write(&self.page, report::page(&outcome))
            .map_err(|error| format!("cannot write {}: {error}", self.page.display()))
    }
}

//! `starling verify`: of a node that serves, of a data directory, or of a backup.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::backup::KeyArgs;
use super::progress::Progress;
use super::target::TargetArgs;
use super::token::{text, utc};
use super::{CliError, print};
use crate::backup::{self, BackupError};
use crate::config::Environment;
use crate::keyring::KeySource;
use crate::node::{MachineClock, scrub_stopped};
use crate::terminal::harmless;

const ABOUT: &str = "Check all that a node holds.

Every entry must be what its checksum says, every seal must open, and of large values every chunk. Of a node that serves, all \
is also compared with what another node holds: that finds entries that vanished, and entries that were put back to an older \
state. Exits with 1 if anything is wrong here and was not repaired.

With --offline the data directory of a node that does not run is checked; with --backup a file of `starling backup`. Both need \
the cluster key.";

const EXAMPLES: &str = "Examples:
  starling verify
  starling verify --peer fra-4be1 --repair
  starling verify --offline --data /var/lib/starling
  starling verify --backup fra.starling --cluster-key-file starling-data.key";

/// Check all that a node holds, and compare it with what another holds
#[derive(Args)]
#[command(long_about = ABOUT, after_long_help = EXAMPLES)]
pub(super) struct VerifyArgs {
    /// With which node, by name or id [default: any that is connected]
    #[arg(long, value_name = "NODE")]
    peer: Option<String>,
    /// Replace what is damaged, missing or stale here by what other nodes hold
    #[arg(long)]
    repair: bool,
    /// The data directory of a node that does not run
    #[arg(long, conflicts_with_all = ["peer", "repair", "api"])]
    offline: bool,
    /// A backup
    #[arg(long, value_name = "FILE", conflicts_with_all = ["peer", "repair", "api", "offline"])]
    backup: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    target: TargetArgs,
}

impl VerifyArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match (&self.backup, self.offline) {
            (Some(file), _) => self.check_backup(file, environment),
            (None, true) => self.check_stopped(environment),
            (None, false) => self.ask(environment).await,
        }
    }

    fn check_backup(&self, file: &std::path::Path, environment: &Environment) -> Result<(), CliError> {
        let config = self.key.config(self.target.config_file(), self.target.data(), environment)?;
        let source = KeySource::of(&config, &config.data, None).map_err(BackupError::from)?;
        let len = std::fs::metadata(file).map(|found| found.len()).ok();
        let (mut progress, mut before) = (Progress::new(len, "KiB"), 0);
        let content = backup::check(file, &source, &mut |at| {
            progress.done((at - before) >> 10, at);
            before = at;
        })?;
        progress.finish();
        if self.json {
            let told = json!({
                "node": content.node.to_string(),
                "name": content.name,
                "account": content.account,
                "taken_ms": content.taken_ms,
                "rows": content.rows,
                "pieces": content.pieces,
            });
            return print(&format!("{told}\n"));
        }
        let (rows, name, at) = (content.rows, harmless(&content.name), utc(content.taken_ms / 1000));
        print(&format!("{} is whole: {rows} rows of {name}, as they were at {at}\n", file.display()))
    }

    fn check_stopped(&self, environment: &Environment) -> Result<(), CliError> {
        let config = self.key.config(self.target.config_file(), self.target.data(), environment)?;
        let mut progress = Progress::new(None, "entries");
        let mut before = 0;
        let found = scrub_stopped(&config, MachineClock::start(config.clock_offset_ms), &mut |entries| {
            progress.done(entries - before, 0);
            before = entries;
        })?;
        progress.finish();
        let examples: Vec<String> =
            found.damage.iter().take(EXAMPLES_MAX).map(|damage| format!("{damage:?}")).collect();
        self.tell_checked(&json!({
            "entries": found.entries,
            "seals": found.seals,
            "chunks": found.chunks,
            "locked": found.locked,
            "damaged": found.damaged,
            "examples": examples,
        }))?;
        match found.damaged {
            0 => Ok(()),
            keys => Err(CliError::Wrong { keys }),
        }
    }

    fn tell_checked(&self, checked: &Value) -> Result<(), CliError> {
        if self.json {
            return print(&format!("{checked}\n"));
        }
        let count = |name: &str| checked[name].as_u64().unwrap_or(0);
        print(&format!(
            "checked {} entries, {} seals and {} chunks: {} damaged\n",
            count("entries"),
            count("seals"),
            count("chunks"),
            count("damaged"),
        ))?;
        if count("locked") > 0 {
            print(&format!("{} are sealed with keys that are not here: of deleted namespaces\n", count("locked")))?;
        }
        for example in checked["examples"].as_array().into_iter().flatten() {
            print(&format!("  {}\n", text(example)))?;
        }
        Ok(())
    }

    async fn ask(&self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        let body = json!({ "peer": self.peer, "repair": self.repair });
        let answer = client.post_patiently("/starling/v1/verify", body).await?;
        let count = |name: &str| answer[name].as_u64().unwrap_or(0);
        let checked = &answer["checked"];
        let here = |name: &str| checked[name].as_u64().unwrap_or(0);
        let wrong = count("damaged") + count("missing") + count("stale");
        let left = wrong.saturating_sub(count("repaired")) + here("damaged").saturating_sub(here("repaired"));
        if self.json {
            print(&format!("{answer}\n"))?;
        } else {
            self.tell_checked(checked)?;
            if answer["peer"].is_null() {
                print("there is no other node to compare with\n")?;
            } else {
                print(&format!(
                    "compared {} entries with {}: {} damaged, {} missing, {} stale here; {} repaired\n",
                    count("compared"),
                    text(&answer["peer_name"]),
                    count("damaged"),
                    count("missing"),
                    count("stale"),
                    count("repaired") + here("repaired"),
                ))?;
            }
            if count("behind_at_peer") > 0 {
                print(&format!("{} behind at the peer: verify there, too\n", count("behind_at_peer")))?;
            }
            for example in answer["examples"].as_array().into_iter().flatten() {
                print(&format!("  {}\n", text(example)))?;
            }
        }
        match answer["cut_short"] == Value::Bool(true) {
            true => Err(CliError::VerifyCutShort),
            false if left > 0 => Err(CliError::Wrong { keys: left }),
            false => Ok(()),
        }
    }
}

/// Damaged keys that are shown.
const EXAMPLES_MAX: usize = 10;

//! The command line: what can be typed, what `--help` teaches, and which command does it.
//!
//! Knows nothing of what flags of `serve` mean: they are texts that [`crate::config`] reads.

mod audit;
mod backup;
pub mod duration;
mod invite;
mod key;
mod kv;
mod node;
mod progress;
mod serve;
mod status;
mod target;
mod token;
mod verify;
mod workers;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::backup::BackupError;
use crate::client::ClientError;
use crate::config::{ConfigError, Environment};
use crate::datadir::DataDirError;
use crate::exit::Exit;
use crate::logging::LoggingError;
use crate::node::StartError;
use crate::serve::ServeError;
use crate::terminal::{harmless, tell};

/// A self-hosted, multi-master edge key-value store: write at any PoP, read it at every other.
// No Debug here and below: a join token may be among the arguments.
#[derive(Parser)]
#[command(name = "starling", version, max_term_width = 100, arg_required_else_help = true)]
#[command(
    long_about = "A self-hosted, multi-master edge key-value store: write at any PoP, read it at every other.\n\n\
    Start with `starling serve`: it prints what to type next. `starling COMMAND --help` has examples for each command."
)]
#[command(after_help = Exit::table())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<serve::ServeArgs>),
    Invite(invite::InviteArgs),
    Status(status::StatusArgs),
    /// Credentials: what clients identify themselves with
    #[command(subcommand, arg_required_else_help = true)]
    Token(token::TokenCommand),
    /// Accounts, invisible to one another
    #[command(subcommand, arg_required_else_help = true)]
    Account(token::AccountCommand),
    /// The keys that values are sealed with
    #[command(subcommand, arg_required_else_help = true)]
    Key(key::KeyCommand),
    Audit(audit::AuditArgs),
    Verify(verify::VerifyArgs),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    /// Act on one node.
    #[command(subcommand, arg_required_else_help = true)]
    Node(node::NodeCommand),
    Kv(Box<kv::KvArgs>),
    /// What runs JavaScript Workers
    #[command(subcommand, arg_required_else_help = true)]
    Workers(workers::WorkersCommand),
}

/// Why a command failed. Its text is what the user sees.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The environment, the file or a flag.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Logging could not start.
    #[error(transparent)]
    Logging(#[from] LoggingError),
    /// The running node, or that there is none.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The node stopped with an error.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// There is nobody to ask.
    #[error("this {what}; add --yes to do it without being asked")]
    Unconfirmed {
        /// What would be done.
        what: String,
    },
    /// There is no admin token to replace.
    #[error("there is no admin token here: name a token by its id")]
    NoAdminToken,
    /// No key could be made.
    #[error("{0}")]
    Key(String),
    /// workerd was not installed.
    #[error("workerd was not installed: {0}")]
    Install(String),
    /// A backup did not arrive.
    #[error("no backup was taken: {0}")]
    Backup(String),
    /// A backup can't be read or restored.
    #[error(transparent)]
    Restore(#[from] BackupError),
    /// A data directory can't be checked.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The comparison did not come to its end.
    #[error("the peer was lost before all was compared; try again")]
    VerifyCutShort,
    /// The node holds what it should not.
    #[error("{keys} entries are not as they should be; `starling verify --repair` replaces them")]
    Wrong {
        /// How many.
        keys: u64,
    },
    /// The user said no.
    #[error("not done")]
    Declined,
    /// No namespace of that title.
    #[error("there is no namespace \"{title}\"; {hint}`starling kv namespace list` shows all")]
    NoSuchNamespace {
        /// What was asked for.
        title: String,
        /// One that may have been meant, or nothing.
        hint: String,
    },
    /// Several namespaces of one title.
    #[error("there are several namespaces \"{title}\" ({ids}): say which with --namespace-id, or rename one")]
    AmbiguousTitle {
        /// The title.
        title: String,
        /// The ids.
        ids: String,
    },
    /// No such key.
    #[error("there is no key \"{}\" in {}", harmless(key), harmless(namespace))]
    NoSuchKey {
        /// The key.
        key: String,
        /// The namespace, as the user named it.
        namespace: String,
    },
    /// A file of items.
    #[error(transparent)]
    Items(#[from] kv::ItemsError),
    /// A file to be a value.
    #[error("can't read {}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// A file too large to be a value.
    #[error("{} has more than 25 MiB, the most that a value may have: split it over several keys", path.display())]
    ValueTooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A bulk command stopped before the end.
    #[error("stopped: {reason}; the first {settled} items are done, go on with --skip {settled}")]
    Stopped {
        /// Items that are done.
        settled: u64,
        /// Why it stopped.
        reason: String,
    },
    /// A bulk command reached the end, but not for all keys.
    #[error("{count} keys failed, see above; to try them again run the command again")]
    SomeFailed {
        /// How many.
        count: usize,
    },
    /// Standard output or the asynchronous runtime.
    #[error("can't {action}: {cause}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the operating system said.
        cause: io::Error,
    },
}

impl CliError {
    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Logging(_) | Self::Unconfirmed { .. } | Self::AmbiguousTitle { .. } => Exit::Usage,
            Self::Items(_) | Self::File { .. } | Self::ValueTooLarge { .. } => Exit::Usage,
            Self::NoSuchNamespace { .. } | Self::NoSuchKey { .. } => Exit::NotFound,
            Self::Stopped { .. } | Self::SomeFailed { .. } => Exit::Incomplete,
            Self::DataDir(error) => error.exit(),
            Self::Client(error) => error.exit(),
            Self::Serve(error) => error.exit(),
            Self::Restore(error) => error.exit(),
            Self::Start(error) => error.exit(),
            Self::NoAdminToken => Exit::Usage,
            Self::Backup(_) => Exit::Incomplete,
            Self::Key(_) | Self::Install(_) | Self::VerifyCutShort | Self::Wrong { .. } => Exit::Failure,
            Self::Declined | Self::Io { .. } => Exit::Failure,
        }
    }
}

impl Cli {
    /// Does what was typed, with the process's environment.
    pub fn run(self) -> Result<(), CliError> {
        self.run_with(std::env::vars_os())
    }

    fn run_with(self, vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<(), CliError> {
        let environment = Environment::from_vars(vars)?;
        match self.command {
            Command::Serve(args) => args.run(&environment),
            Command::Invite(args) => block_on(args.run(&environment)),
            Command::Status(args) => block_on(args.run(&environment)),
            Command::Token(token::TokenCommand::Create(args)) => block_on(args.run(&environment)),
            Command::Token(token::TokenCommand::List(args)) => block_on(args.run(&environment)),
            Command::Token(token::TokenCommand::Revoke(args)) => block_on(args.run(&environment)),
            Command::Token(token::TokenCommand::Roll(args)) => block_on(args.run(&environment)),
            Command::Account(token::AccountCommand::Create(args)) => block_on(args.run(&environment)),
            Command::Account(token::AccountCommand::List(args)) => block_on(args.run(&environment)),
            Command::Key(key::KeyCommand::Generate(args)) => args.run(),
            Command::Key(key::KeyCommand::Status(args)) => block_on(args.run(&environment)),
            Command::Key(key::KeyCommand::Rotate(args)) => block_on(args.run(&environment)),
            Command::Audit(args) => block_on(args.run(&environment)),
            Command::Verify(args) => block_on(args.run(&environment)),
            Command::Backup(args) => block_on(args.run(&environment)),
            Command::Restore(args) => args.run(&environment),
            Command::Node(command) => block_on(command.run(&environment)),
            Command::Kv(args) => block_on(args.run(&environment)),
            Command::Workers(workers::WorkersCommand::Install(args)) => block_on(args.run(&environment)),
            Command::Workers(workers::WorkersCommand::RunEngine(args)) => args.run(),
        }
    }
}

/// Runs a short command, and tasks that stay on its thread; a node gets the runtime with many threads.
fn block_on(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|cause| CliError::Io { action: "start the runtime", cause })?;
    tokio::task::LocalSet::new().block_on(&runtime, command)
}

fn print(text: &str) -> Result<(), CliError> {
    crate::terminal::print(text).map_err(|cause| CliError::Io { action: "write to standard output", cause })
}

/// Has the user type `answer` before something that can't be undone. `what` completes "this …".
fn confirm(what: &str, answer: &str) -> Result<(), CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::Unconfirmed { what: what.to_owned() });
    }
    tell(&format!("This {what}. Type {answer} to confirm:"));
    let mut typed = String::new();
    io::stdin().read_line(&mut typed).map_err(|cause| CliError::Io { action: "read the answer", cause })?;
    if typed.trim() == answer { Ok(()) } else { Err(CliError::Declined) }
}

/// Unix time in milliseconds, to show the watermark as an age.
// The one clock a command reads: only for a person, nothing is decided by it.
#[allow(clippy::disallowed_methods)]
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::setting::SETTINGS;

    fn run(line: &[&str], vars: &[(&str, &str)]) -> Result<(), CliError> {
        let cli = Cli::try_parse_from([&["starling"], line].concat()).unwrap();
        cli.run_with(vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_teaches() {
        let help = Cli::command().render_help().to_string();
        assert!(help.contains("Exit codes:") && help.contains(" 3  no running node found"), "{help}");
        for command in ["serve", "invite", "status", "kv"] {
            let help = Cli::command().find_subcommand_mut(command).unwrap().render_long_help().to_string();
            assert!(help.contains("Examples:") && help.contains(&format!("  starling {command}")), "{help}");
        }
    }

    #[test]
    fn every_setting_is_a_flag_of_serve() {
        let mut command = Cli::command();
        let serve = command.find_subcommand_mut("serve").unwrap();
        let flags: Vec<&str> = serve.get_arguments().filter_map(|arg| arg.get_long()).collect();
        for setting in SETTINGS {
            assert!(flags.contains(&&*setting.flag()), "--{} is missing", setting.flag());
        }
    }

    #[test]
    fn errors_come_with_their_exit_codes() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().to_str().unwrap();
        for (line, vars, exit) in [
            (&["status", "--data", data][..], &[][..], Exit::NodeUnreachable),
            (&["status"], &[("STARLING_DATA", data)], Exit::NodeUnreachable),
            (&["invite", "--api", "ftp://example.net"], &[], Exit::Usage),
            (&["invite"], &[("STARLING_API_URL", "nowhere")], Exit::Usage),
            (&["status", "--data", data], &[("STARLING_NMAE", "x")], Exit::Usage),
            (&["serve", "--dev", "--api", "0.0.0.0:0", "--data", data], &[], Exit::Usage),
            (&["serve", "--config", "/nonexistent.toml"], &[], Exit::Usage),
        ] {
            let error = run(line, vars).unwrap_err();
            assert_eq!(error.exit(), exit, "{line:?}: {error}");
        }
    }
}

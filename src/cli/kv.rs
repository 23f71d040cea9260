//! `starling kv …`: namespaces, keys and values from a shell, in wrangler's words.
//!
//! One file a group of commands; this one holds what they share: which namespace, and which guarantees.

mod bulk;
mod export;
mod import;
mod items;
mod key;
mod namespace;
mod watch;

use std::time::Duration;

use clap::{Args, Subcommand};

pub use items::ItemsError;

use super::target::TargetArgs;
use super::{CliError, duration};
use crate::client::{Client, Namespace, Session, Space};
use crate::config::Environment;

const ABOUT: &str = "Namespaces, keys and values of a running node.

The words are those of `wrangler kv`. A namespace is named by --namespace TITLE or --namespace-id ID. What is written \
at one node is read at every other a moment later; --acks, --bookmark and --wait ask for more than that.";

const EXAMPLES: &str = "Examples:
  starling kv namespace create settings
  starling kv key put greeting 'hello' --namespace settings --ttl 3600 --metadata '{\"lang\":\"en\"}'
  starling kv key get greeting --namespace settings
  starling kv key list --namespace settings --prefix gre --json
  starling kv bulk put pairs.json --namespace settings
  starling kv export --namespace settings settings.jsonl
  starling kv import settings.jsonl --namespace copy --create";

/// Namespaces, keys and values of a running node
#[derive(Args)]
#[command(long_about = ABOUT, after_long_help = EXAMPLES, arg_required_else_help = true)]
pub(super) struct KvArgs {
    #[command(subcommand)]
    command: KvCommand,
}

#[derive(Subcommand)]
enum KvCommand {
    /// Create, list, rename and delete namespaces
    #[command(subcommand, arg_required_else_help = true)]
    Namespace(namespace::NamespaceCommand),
    /// Put, get, list, delete and watch single keys
    #[command(subcommand, arg_required_else_help = true)]
    Key(key::KeyCommand),
    /// Put, get and delete many keys from a file
    #[command(subcommand, arg_required_else_help = true)]
    Bulk(bulk::BulkCommand),
    Export(export::ExportArgs),
    Import(import::ImportArgs),
}

impl KvArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self.command {
            KvCommand::Namespace(command) => command.run(environment).await,
            KvCommand::Key(command) => command.run(environment).await,
            KvCommand::Bulk(command) => command.run(environment).await,
            KvCommand::Export(args) => args.run(environment).await,
            KvCommand::Import(args) => args.run(environment).await,
        }
    }
}

/// Which node, and which account there.
#[derive(Args)]
struct NodeArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Account to act in [default: the token's]
    #[arg(long, value_name = "ID")]
    account: Option<String>,
}

impl NodeArgs {
    async fn client(&self, environment: &Environment) -> Result<(Client, String), CliError> {
        let client = self.target.client(environment)?;
        let account = match &self.account {
            Some(account) => account.clone(),
            None => client.account().await?,
        };
        Ok((client, account))
    }
}

/// Which namespace of which node.
#[derive(Args)]
struct SpaceArgs {
    /// The namespace, by its id
    #[arg(long, value_name = "ID", required_unless_present = "namespace", conflicts_with = "namespace")]
    namespace_id: Option<String>,
    /// The namespace, by its title
    #[arg(long, short = 'n', value_name = "TITLE")]
    namespace: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
}

impl SpaceArgs {
    async fn open(&self, environment: &Environment, session: Session) -> Result<Space, CliError> {
        let (client, account) = self.node.client(environment).await?;
        let id = self.id(&client, &account).await?;
        Ok(Space::new(client, &account, &id, session))
    }

    async fn id(&self, client: &Client, account: &str) -> Result<String, CliError> {
        match (&self.namespace_id, &self.namespace) {
            (Some(id), _) => Ok(id.clone()),
            (None, title) => {
                let title = title.as_deref().unwrap_or_default();
                Ok(find(client.namespaces(account).await?, title)?.id)
            }
        }
    }

    /// How the user named it.
    fn named(&self) -> &str {
        self.namespace.as_deref().or(self.namespace_id.as_deref()).unwrap_or_default()
    }
}

/// The one namespace of that title. Two nodes may have given one title to two namespaces.
fn find(namespaces: Vec<Namespace>, title: &str) -> Result<Namespace, CliError> {
    let (mut found, others): (Vec<_>, Vec<_>) = namespaces.into_iter().partition(|namespace| namespace.title == title);
    if found.len() > 1 {
        let ids: Vec<String> = found.into_iter().map(|namespace| namespace.id).collect();
        return Err(CliError::AmbiguousTitle { title: title.to_owned(), ids: ids.join(", ") });
    }
    found.pop().ok_or_else(|| {
        let near = others.iter().map(|other| (strsim::jaro_winkler(&other.title, title), &other.title));
        let near = near.filter(|(likeness, _)| *likeness > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = near.map(|(_, near)| format!("did you mean \"{near}\"? "));
        CliError::NoSuchNamespace { title: title.to_owned(), hint: hint.unwrap_or_default() }
    })
}

/// What a read may ask for.
#[derive(Args)]
struct ReadArgs {
    /// Wait until this node has seen what this bookmark stands for
    #[arg(long, value_name = "BOOKMARK")]
    bookmark: Option<String>,
    /// How long to wait for it: 500ms, 5s, 1m [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse_fine)]
    wait: Option<Duration>,
}

impl ReadArgs {
    fn session(self) -> Session {
        Session { bookmark: self.bookmark, acks: None, wait: self.wait }
    }
}

/// What a write may ask for.
#[derive(Args)]
struct WriteArgs {
    /// Answer when this many nodes have it on disk: local, a number (this node counts), or all [default: local]
    #[arg(long, value_name = "local|N|all", value_parser = acks)]
    acks: Option<String>,
    #[command(flatten)]
    read: ReadArgs,
}

impl WriteArgs {
    fn session(self) -> Session {
        Session { acks: self.acks, ..self.read.session() }
    }
}

fn acks(text: &str) -> Result<String, &'static str> {
    match text {
        "local" | "all" => Ok(text.to_owned()),
        number if number.parse::<u32>().is_ok_and(|number| number > 0) => Ok(text.to_owned()),
        _ => Err("write local, a number of nodes from 1, or all"),
    }
}

/// Says yes for the user, or asks.
#[derive(Args)]
struct ConfirmArgs {
    /// Don't ask
    #[arg(long, short, visible_aliases = ["force", "skip-confirmation"], short_alias = 'f')]
    yes: bool,
}

impl ConfirmArgs {
    /// `what` completes "this …".
    fn confirm(&self, what: &str) -> Result<(), CliError> {
        if self.yes { Ok(()) } else { super::confirm(what, "yes") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_leads_to_one_namespace_or_to_advice() {
        let namespace = |id: &str, title: &str| Namespace { id: id.to_owned(), title: title.to_owned() };
        let all = || vec![namespace("1", "settings"), namespace("2", "twice"), namespace("3", "twice")];
        assert_eq!(find(all(), "settings").unwrap().id, "1");
        let error = find(all(), "setings").unwrap_err();
        assert!(error.to_string().contains("did you mean \"settings\"?"), "{error}");
        assert_eq!(error.exit(), crate::exit::Exit::NotFound);
        assert!(!find(all(), "x").unwrap_err().to_string().contains("did you mean"));
        let error = find(all(), "twice").unwrap_err();
        assert!(error.to_string().contains("2, 3") && error.to_string().contains("--namespace-id"), "{error}");
    }

    #[test]
    fn acknowledgement_levels() {
        for good in ["local", "all", "1", "3"] {
            assert_eq!(acks(good).as_deref(), Ok(good));
        }
        for bad in ["", "0", "-1", "some", "ALL", "1.5"] {
            assert!(acks(bad).is_err(), "{bad}");
        }
    }
}

//! `starling kv namespace …`.

use clap::{Args, Subcommand};

use super::{ConfirmArgs, NodeArgs, find};
use crate::cli::{CliError, print};
use crate::config::Environment;
use crate::terminal::{Paint, harmless, tell};

#[derive(Subcommand)]
pub(super) enum NamespaceCommand {
    /// Create a namespace; prints its id
    Create(CreateArgs),
    /// List the namespaces, by title
    List(ListArgs),
    /// Give a namespace another title
    Rename(RenameArgs),
    /// Delete a namespace and all that is in it, everywhere and for good
    Delete(DeleteArgs),
}

impl NamespaceCommand {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self {
            Self::Create(args) => args.run(environment).await,
            Self::List(args) => args.run(environment).await,
            Self::Rename(args) => args.run(environment).await,
            Self::Delete(args) => args.run(environment).await,
        }
    }
}

#[derive(Args)]
pub(super) struct CreateArgs {
    /// Its title
    title: String,
    #[command(flatten)]
    node: NodeArgs,
    /// Print the namespace as JSON
    #[arg(long)]
    json: bool,
}

impl CreateArgs {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let (client, account) = self.node.client(environment).await?;
        let namespace = client.create_namespace(&account, &self.title).await?;
        if self.json {
            return print(&json_line(&namespace));
        }
        print(&format!("{}\n", namespace.id))?;
        tell(&format!("Created. Use it with --namespace {}", harmless(&namespace.title)));
        Ok(())
    }
}

#[derive(Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Print a JSON array of {id, title}
    #[arg(long)]
    json: bool,
}

impl ListArgs {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let (client, account) = self.node.client(environment).await?;
        let namespaces = client.namespaces(&account).await?;
        if self.json {
            return print(&json_line(&namespaces));
        }
        if namespaces.is_empty() {
            tell("No namespaces; `starling kv namespace create TITLE` makes one.");
            return Ok(());
        }
        let mut page = format!("{}\n", Paint::stdout().dim(&format!("{:<32}  TITLE", "ID")));
        for namespace in namespaces {
            page += &format!("{}  {}\n", harmless(&namespace.id), harmless(&namespace.title));
        }
        print(&page)
    }
}

/// The namespace to act on: by title, in either place, or by id.
#[derive(Args)]
struct Subject {
    /// The namespace, by its title
    #[arg(value_name = "TITLE")]
    title: Option<String>,
    /// The namespace, by its title
    #[arg(long, short = 'n', value_name = "TITLE", conflicts_with = "title")]
    namespace: Option<String>,
    /// The namespace, by its id
    #[arg(
        long,
        value_name = "ID",
        required_unless_present_any = ["title", "namespace"],
        conflicts_with_all = ["title", "namespace"]
    )]
    namespace_id: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
}

impl Subject {
    async fn find(
        &self,
        environment: &Environment,
    ) -> Result<(crate::client::Client, String, String, String), CliError> {
        let (client, account) = self.node.client(environment).await?;
        let title = self.title.as_ref().or(self.namespace.as_ref());
        let (id, named) = match (&self.namespace_id, title) {
            (None, Some(title)) => (find(client.namespaces(&account).await?, title)?.id, title.clone()),
            (id, _) => {
                let id = id.clone().unwrap_or_default();
                (id.clone(), id)
            }
        };
        Ok((client, account, id, named))
    }
}

#[derive(Args)]
pub(super) struct RenameArgs {
    #[command(flatten)]
    subject: Subject,
    /// Its new title
    #[arg(long, value_name = "TITLE")]
    new_name: String,
    /// Print the namespace as JSON
    #[arg(long)]
    json: bool,
}

impl RenameArgs {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let (client, account, id, named) = self.subject.find(environment).await?;
        let namespace = client.rename_namespace(&account, &id, &self.new_name).await?;
        if self.json {
            return print(&json_line(&namespace));
        }
        tell(&format!("Renamed {} to {}", harmless(&named), harmless(&namespace.title)));
        Ok(())
    }
}

#[derive(Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    confirm: ConfirmArgs,
    /// Print the id as JSON
    #[arg(long)]
    json: bool,
}

impl DeleteArgs {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let (client, account, id, named) = self.subject.find(environment).await?;
        let named = harmless(&named);
        self.confirm
            .confirm(&format!("deletes the namespace {named} and all that is in it, everywhere and for good"))?;
        client.delete_namespace(&account, &id).await?;
        if self.json {
            return print(&json_line(&serde_json::json!({ "id": id })));
        }
        tell(&format!("Deleted {named}. Its disk space comes back little by little."));
        Ok(())
    }
}

fn json_line(value: &impl serde::Serialize) -> String {
    // Texts and lists of them can't fail to be written.
    format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default())
}

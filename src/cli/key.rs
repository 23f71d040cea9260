//! `starling key …`: the keys that values are sealed with.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::target::TargetArgs;
use super::token::{text, time};
use super::{CliError, print};
use crate::config::Environment;
use crate::keyring::ClusterKey;
use crate::terminal::tell;

const ROTATE_ABOUT: &str = "Have every node use other keys, while they serve.

What was written before stays readable. A node that is away does its part when it returns. Rotate the cluster key after it \
may have been seen by others, and after a node was evicted; deleting a namespace does it by itself.";

const ROTATE_EXAMPLES: &str = "Examples:
  starling key rotate cluster
  starling key rotate namespace 0f2ac74b498b48028cb68387c421e279
  starling key rotate system
  starling key rotate certificates

Where the cluster key comes from a variable or a command, first make that give a new key (`starling key generate`) \
followed by the present one, on every node; drop the former one when `starling key status` shows that all nodes use the new.";

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    Generate(GenerateArgs),
    Status(StatusArgs),
    Rotate(RotateArgs),
}

/// Print a new cluster key, for a file, a variable or a KMS
#[derive(Args)]
#[command(after_long_help = "Examples:\n  starling key generate > /etc/starling/cluster.key")]
pub(super) struct GenerateArgs {}

/// Show which keys are in use, by their ids
#[derive(Args)]
#[command(after_long_help = "Examples:\n  starling key status --json")]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// Have every node use other keys
#[derive(Args)]
#[command(long_about = ROTATE_ABOUT, after_long_help = ROTATE_EXAMPLES)]
pub(super) struct RotateArgs {
    /// Which: cluster, namespace, system (titles, tokens, the audit log) or certificates (of nodes)
    #[arg(value_parser = ["cluster", "namespace", "system", "certificates"])]
    what: String,
    /// The namespace's id
    #[arg(required_if_eq("what", "namespace"))]
    namespace: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

impl GenerateArgs {
    pub(super) fn run(self) -> Result<(), CliError> {
        let key = ClusterKey::generate().map_err(|error| CliError::Key(error.to_string()))?;
        print(&format!("{}\n", key.to_text().expose()))
    }
}

impl StatusArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let answer = self.target.client(environment)?.get("/starling/v1/keys").await?;
        if self.json {
            return print(&format!("{answer}\n"));
        }
        let mut lines = format!(
            "cluster key {}, from {}; this node's keyring is sealed with {}\n{} data keys; certificate until {}\n",
            text(&answer["cluster_key"]),
            text(&answer["source"]),
            text(&answer["sealed_with"]),
            answer["data_keys"],
            time(&answer["certificate_until_secs"]),
        );
        for (node, key) in answer["members"].as_object().into_iter().flatten() {
            lines.push_str(&format!("node {node}: {}\n", key.as_str().unwrap_or("has not said yet")));
        }
        if answer["shred_due"] == Value::Bool(true) {
            lines.push_str("keys were destroyed since the cluster key was made: it should be rotated\n");
        }
        print(&lines)
    }
}

impl RotateArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        let body = json!({ "what": self.what, "namespace": self.namespace });
        let answer = client.post("/starling/v1/keys/rotate", body).await?;
        match answer["cluster_key"].as_str() {
            Some(id) => tell(&format!("The cluster key is {id} now. See `starling key status` for who uses it.")),
            None => tell("Rotated: every node does its part as it hears of it."),
        }
        Ok(())
    }
}

//! `starling kv key …`: one key at a time.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::watch::WatchArgs;
use super::{ReadArgs, SpaceArgs, WriteArgs};
use crate::cli::{CliError, print};
use crate::client::{Pair, Written};
use crate::config::Environment;
use crate::replica::limits::VALUE_LEN_MAX;
use crate::terminal::{harmless, tell};

/// Most keys of a page of the list.
const PAGE_LEN: usize = 1000;

#[derive(Subcommand)]
pub(super) enum KeyCommand {
    Put(PutArgs),
    Get(GetArgs),
    List(ListArgs),
    Delete(DeleteArgs),
    Watch(WatchArgs),
}

impl KeyCommand {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self {
            Self::Put(args) => args.run(environment).await,
            Self::Get(args) => args.run(environment).await,
            Self::List(args) => args.run(environment).await,
            Self::Delete(args) => args.run(environment).await,
            Self::Watch(args) => args.run(environment).await,
        }
    }
}

const PUT_EXAMPLES: &str = "Examples:
  starling kv key put greeting hello --namespace settings
  starling kv key put logo --path logo.png --namespace assets --metadata '{\"type\":\"image/png\"}'
  date | starling kv key put now - --namespace settings --ttl 60
  starling kv key put plan final --namespace settings --acks all --wait 10s";

/// Set a key
#[derive(Args)]
#[command(after_long_help = PUT_EXAMPLES)]
pub(super) struct PutArgs {
    /// The key, 1 to 512 bytes
    key: String,
    /// The value; - reads standard input
    #[arg(value_name = "VALUE", required_unless_present = "path", conflicts_with = "path", allow_hyphen_values = true)]
    value: Option<String>,
    /// Read the value from a file; - is standard input
    #[arg(long, value_name = "FILE")]
    path: Option<PathBuf>,
    #[command(flatten)]
    space: SpaceArgs,
    /// Seconds until the key expires, at least 60
    #[arg(long, value_name = "SECS", conflicts_with = "expiration")]
    ttl: Option<u64>,
    /// Unix time in seconds at which the key expires, at least a minute ahead
    #[arg(long, value_name = "SECS")]
    expiration: Option<u64>,
    /// JSON to keep beside the value, at most 1024 bytes
    #[arg(long, value_name = "JSON", value_parser = metadata)]
    metadata: Option<String>,
    #[command(flatten)]
    write: WriteArgs,
    /// Print a JSON object with the bookmark of the write
    #[arg(long)]
    json: bool,
}

impl PutArgs {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let value = match (self.value, self.path) {
            (Some(value), _) if value == "-" => read(Path::new("-"))?,
            (Some(value), _) => value.into_bytes(),
            (None, path) => read(&path.unwrap_or_else(|| "-".into()))?,
        };
        let len = value.len();
        let space = self.space.open(environment, self.write.session()).await?;
        let ttl = self.ttl.map(|secs| format!("expiration_ttl={secs}"));
        let expiry = ttl.or_else(|| self.expiration.map(|secs| format!("expiration={secs}")));
        let written = space.put(&self.key, value.into(), self.metadata.as_deref(), expiry.as_deref()).await?;
        report(&self.key, &format!("put {}: {len} bytes", harmless(&self.key)), written, self.json)
    }
}

fn metadata(text: &str) -> Result<String, String> {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("it is not JSON ({error}); text needs quotes of its own: '\"text\"'")),
    }
}

/// A file that can be a value.
fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let is_stdin = path.as_os_str() == "-";
    let failed = |cause| CliError::File { path: path.to_owned(), cause };
    let source: Box<dyn Read> =
        if is_stdin { Box::new(io::stdin()) } else { Box::new(std::fs::File::open(path).map_err(failed)?) };
    let mut value = Vec::new();
    source.take(VALUE_LEN_MAX as u64 + 1).read_to_end(&mut value).map_err(failed)?;
    if value.len() > VALUE_LEN_MAX { Err(CliError::ValueTooLarge { path: path.to_owned() }) } else { Ok(value) }
}

const GET_EXAMPLES: &str = "Examples:
  starling kv key get greeting --namespace settings
  starling kv key get logo --namespace assets > logo.png
  starling kv key get greeting --namespace settings --json | jq .metadata
  starling kv key get plan --namespace settings --api http://other:7700 --bookmark BOOKMARK";

/// Print a value as it is
#[derive(Args)]
#[command(after_long_help = GET_EXAMPLES)]
pub(super) struct GetArgs {
    /// The key
    key: String,
    #[command(flatten)]
    space: SpaceArgs,
    #[command(flatten)]
    read: ReadArgs,
    /// Taken for wrangler's sake: the value is printed as it is in any case
    #[arg(long, hide = true)]
    text: bool,
    /// Print a JSON object with value, metadata and expiration; a value that is not UTF-8 text as base64
    #[arg(long)]
    json: bool,
}

impl GetArgs {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let named = self.space.named().to_owned();
        let space = self.space.open(environment, self.read.session()).await?;
        if self.json {
            let (mut found, read) = space.bulk_get(std::slice::from_ref(&self.key)).await?;
            let Some(got) = found.pop().flatten() else {
                return Err(CliError::NoSuchKey { key: self.key, namespace: named });
            };
            let Pair { key, value, base64, expiration, metadata, .. } = Pair::new(self.key, got);
            let shown = Shown { key, value, base64, expiration, metadata, bookmark: read.bookmark };
            return print(&format!("{}\n", serde_json::to_string_pretty(&shown).unwrap_or_default()));
        }
        let mut stream = match space.get(&self.key).await {
            Err(error) if error.is_missing_key() => {
                return Err(CliError::NoSuchKey { key: self.key, namespace: named });
            }
            stream => stream?,
        };
        let mut out = io::stdout().lock();
        let mut last = b'\n';
        while let Some(piece) = stream.next().await? {
            last = piece.last().copied().unwrap_or(last);
            match out.write_all(&piece) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.map_err(|cause| CliError::Io { action: "write the value", cause })?,
            }
        }
        // A prompt should not stand at the end of the value; pipes and files get the value alone.
        if out.is_terminal() && last != b'\n' {
            let _ = out.write_all(b"\n");
        }
        out.flush().map_err(|cause| CliError::Io { action: "write the value", cause })
    }
}

/// A key as `key get --json` prints it.
#[derive(Serialize)]
struct Shown {
    key: String,
    value: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    base64: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bookmark: Option<String>,
}

const LIST_EXAMPLES: &str = "Examples:
  starling kv key list --namespace settings
  starling kv key list --namespace settings --prefix user/ | wc -l
  starling kv key list --namespace settings --json | jq -r '.[].metadata'";

/// List the keys in byte order, one a line
#[derive(Args)]
#[command(after_long_help = LIST_EXAMPLES)]
pub(super) struct ListArgs {
    #[command(flatten)]
    space: SpaceArgs,
    /// Only keys that start with this
    #[arg(long, default_value = "")]
    prefix: String,
    /// At most so many keys [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    read: ReadArgs,
    /// Print a JSON array of {name, expiration?, metadata?}
    #[arg(long)]
    json: bool,
}

impl ListArgs {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let space = self.space.open(environment, self.read.session()).await?;
        let is_terminal = io::stdout().is_terminal();
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut cursor = None;
        let mut start = "[\n";
        while left > 0 {
            let limit = PAGE_LEN.min(usize::try_from(left).unwrap_or(PAGE_LEN));
            let page = space.list(&self.prefix, cursor.as_deref(), limit).await?;
            left -= (page.keys.len() as u64).min(left);
            let mut text = String::new();
            for key in &page.keys {
                match (self.json, is_terminal) {
                    (true, _) => {
                        text += start;
                        text += "  ";
                        text += &serde_json::to_string(key).unwrap_or_default();
                        start = ",\n";
                    }
                    (false, true) => text += &format!("{}\n", harmless(&key.name)),
                    (false, false) => text += &format!("{}\n", key.name),
                }
            }
            print(&text)?;
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        match (self.json, start) {
            (false, _) => Ok(()),
            (true, "[\n") => print("[]\n"),
            (true, _) => print("\n]\n"),
        }
    }
}

/// Delete a key; also fine for one that is missing
#[derive(Args)]
pub(super) struct DeleteArgs {
    /// The key
    key: String,
    #[command(flatten)]
    space: SpaceArgs,
    #[command(flatten)]
    write: WriteArgs,
    /// Print a JSON object with the bookmark of the write
    #[arg(long)]
    json: bool,
}

impl DeleteArgs {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let space = self.space.open(environment, self.write.session()).await?;
        let written = space.delete(&self.key).await?;
        report(&self.key, &format!("deleted {}", harmless(&self.key)), written, self.json)
    }
}

fn report(key: &str, what: &str, written: Written, json: bool) -> Result<(), CliError> {
    if json {
        return print(&format!("{:#}\n", json!({ "key": key, "bookmark": written.bookmark })));
    }
    tell(&match written.bookmark {
        Some(bookmark) => format!("{what} (bookmark {})", harmless(&bookmark)),
        None => what.to_owned(),
    });
    Ok(())
}

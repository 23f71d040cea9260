//! `starling token …` and `starling account …`: credentials.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::target::TargetArgs;
use super::{CliError, duration, print};
use crate::config::Environment;
use crate::datadir;
use crate::terminal::{harmless, tell};

const PATH: &str = "/starling/v1/tokens";
const ACCOUNTS_PATH: &str = "/starling/v1/accounts";

const CREATE_EXAMPLES: &str = "Examples:
  starling token create ci --scope read --scope list
  starling token create writer --scope read,write --namespace 0f2ac74b498b48028cb68387c421e279 --ttl 30d
  starling token create boss --scope admin,read,write,list --account 5f1c...

Scopes: read, write, list (keys of namespaces), admin (the account's namespaces and tokens), deploy (its Workers), operate \
(the cluster). The secret alone goes to standard output; it is shown this once.";

#[derive(Subcommand)]
pub(super) enum TokenCommand {
    Create(CreateArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
    Roll(RollArgs),
}

/// Make an API token
#[derive(Args)]
#[command(after_long_help = CREATE_EXAMPLES)]
pub(super) struct CreateArgs {
    /// What to call it
    name: String,
    /// What it may do: read, write, list, admin, deploy, operate
    #[arg(long, value_name = "SCOPE", required = true, value_delimiter = ',')]
    scope: Vec<String>,
    /// Only in this namespace (may be repeated) [default: all of the account]
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    namespace: Vec<String>,
    /// Whose it is [default: the account of the token that asks]
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// How long it is good: 10m, 1h, 30d [default: until it is revoked]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    ttl: Option<Duration>,
    /// Print a JSON object with everything about it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// List API tokens, without their secrets
#[derive(Args)]
#[command(after_long_help = "Examples:\n  starling token list\n  starling token list --json")]
pub(super) struct ListArgs {
    /// Whose [default: the account of the token that asks]
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// End an API token, at every node and for good
#[derive(Args)]
#[command(after_long_help = "Examples:\n  starling token revoke 8f14e45fceea167a5a36dedd4bea2543")]
pub(super) struct RevokeArgs {
    /// Its id, as `starling token list` shows it
    id: String,
    /// Whose it is [default: the account of the token that asks]
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

/// Replace an API token by another with the same name and scopes
#[derive(Args)]
#[command(
    after_long_help = "Examples:\n  starling token roll 8f14e45fceea167a5a36dedd4bea2543 --grace 1d\n  starling token roll --admin"
)]
pub(super) struct RollArgs {
    /// Its id, as `starling token list` shows it
    #[arg(required_unless_present = "admin")]
    id: Option<String>,
    /// Replace the admin token of the data directory, and keep the new one there
    #[arg(long, conflicts_with_all = ["id", "account", "api"])]
    admin: bool,
    /// How long the old one goes on: 0s, 10m, 1d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = grace)]
    grace: Duration,
    /// Whose it is [default: the account of the token that asks]
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
}

/// Like [`duration::parse`], or none at all.
fn grace(text: &str) -> Result<Duration, String> {
    if text == "0s" || text == "0" {
        Ok(Duration::ZERO)
    } else {
        duration::parse(text).map_err(|error| error.to_string())
    }
}

impl CreateArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        let body = json!({
            "name": self.name,
            "scopes": self.scope,
            "namespaces": self.namespace,
            "account": self.account,
            "ttl_secs": self.ttl.map(|ttl| ttl.as_secs()),
        });
        let answer = client.post(PATH, body).await?;
        if self.json {
            return print(&format!("{answer}\n"));
        }
        print(&format!("{}\n", text(&answer["token"])))?;
        tell(&format!("Token {} of account {}.", text(&answer["id"]), text(&answer["account"])));
        Ok(())
    }
}

impl ListArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        let answer = client.get(&with_account(PATH, self.account.as_deref())).await?;
        if self.json {
            return print(&format!("{answer}\n"));
        }
        let mut lines = String::new();
        for token in answer.as_array().into_iter().flatten() {
            let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(",");
            let namespaces = list(&token["namespaces"]);
            lines.push_str(&format!(
                "{}  {}  {}  {}  expires {}  last used {}\n",
                text(&token["id"]),
                text(&token["name"]),
                list(&token["scopes"]),
                if namespaces.is_empty() { "all namespaces" } else { &namespaces },
                time(&token["expires_secs"]),
                time(&token["last_used_secs"]),
            ));
        }
        print(&lines)
    }
}

impl RevokeArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        let path = with_account(&format!("{PATH}/{}", segment(&self.id)), self.account.as_deref());
        client.delete(&path).await?;
        tell("Revoked: every node turns it away as soon as it hears of it.");
        Ok(())
    }
}

impl RollArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        let id = match (&self.id, client.data_dir()) {
            (Some(id), _) => id.clone(),
            (None, Some(data)) => match datadir::read_admin_token(data)? {
                Some(token) => crate::kv::TokenId::of(token.expose()).to_string(),
                None => return Err(CliError::NoAdminToken),
            },
            (None, None) => return Err(CliError::NoAdminToken),
        };
        let path = with_account(&format!("{PATH}/{}/roll", segment(&id)), self.account.as_deref());
        let body = json!({ "grace_secs": self.grace.as_secs() });
        let answer = client.post(&path, body).await?;
        let secret = crate::secret::Secret::new(answer["token"].as_str().unwrap_or_default());
        if let (true, Some(data)) = (self.admin, client.data_dir()) {
            datadir::replace_admin_token(data, &secret)?;
            tell(&format!("The admin token in {} is another one now.", data.display()));
            return Ok(());
        }
        print(&format!("{}\n", secret.expose()))?;
        tell(&format!("The former one goes on for {}.", duration::render(self.grace.as_secs())));
        Ok(())
    }
}

#[derive(Subcommand)]
pub(super) enum AccountCommand {
    Create(AccountCreateArgs),
    List(AccountListArgs),
}

/// Make an account: a set of namespaces and tokens that no other account sees
#[derive(Args)]
#[command(after_long_help = "Examples:\n  starling account create example-inc")]
pub(super) struct AccountCreateArgs {
    /// What to call it
    name: String,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// List accounts
#[derive(Args)]
#[command(after_long_help = "Examples:\n  starling account list --json")]
pub(super) struct AccountListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

impl AccountCreateArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        let answer = client.post(ACCOUNTS_PATH, json!({ "name": self.name })).await?;
        if self.json {
            return print(&format!("{answer}\n"));
        }
        print(&format!("{}\n", text(&answer["id"])))?;
        tell("Make its first token: starling token create NAME --scope admin,read,write,list --account ID");
        Ok(())
    }
}

impl AccountListArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        let answer = client.get(ACCOUNTS_PATH).await?;
        if self.json {
            return print(&format!("{answer}\n"));
        }
        let line = |account: &Value| format!("{}  {}\n", text(&account["id"]), text(&account["name"]));
        print(&answer.as_array().into_iter().flatten().map(line).collect::<String>())
    }
}

/// A text of the node's, safe for a terminal.
pub(super) fn text(value: &Value) -> String {
    harmless(value.as_str().unwrap_or("-")).to_string()
}

/// Unix seconds, as people read them.
pub(super) fn time(value: &Value) -> String {
    value.as_u64().map_or_else(|| "never".into(), utc)
}

/// Unix seconds as `2026-11-24T12:00:00Z`.
pub(super) fn utc(secs: u64) -> String {
    let (days, secs) = (secs / 86_400, secs % 86_400);
    // Howard Hinnant's civil_from_days, for days since 1970.
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", secs / 3600, secs / 60 % 60, secs % 60)
}

fn with_account(path: &str, account: Option<&str>) -> String {
    account.map_or_else(|| path.to_owned(), |account| format!("{path}?account={}", segment(account)))
}

/// What was typed, as part of a path.
fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_764_000_000), "2025-11-24T16:00:00Z");
    }
}

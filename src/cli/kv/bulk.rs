//! `starling kv bulk …`: many keys from a file, in requests of bounded size, one after the other, so that of two items
//! with one key the later one wins.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::items::{Batch, Item, Items};
use super::{ConfirmArgs, ReadArgs, SpaceArgs, WriteArgs};
use crate::cli::progress::{Progress, per_second};
use crate::cli::{CliError, print};
use crate::client::{ClientError, Done, Pair, Space, patiently};
use crate::config::Environment;
use crate::terminal::{harmless, tell};

/// Most pairs or keys of a request. The API takes twice as many.
const COUNT_MAX: usize = 5_000;
/// Most keys of a bulk get.
pub(super) const GET_COUNT_MAX: usize = 100;
/// How often keys that a node named as failed are sent again, and the pause before.
const ROUNDS_MAX: usize = 5;
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// Failed keys after which a command stops.
const FAILED_MAX: usize = 10_000;

const FILE: &str = "A JSON array, or JSON lines (one item a line); - is standard input";

#[derive(Subcommand)]
pub(super) enum BulkCommand {
    Put(PutArgs),
    Get(GetArgs),
    Delete(DeleteArgs),
}

impl BulkCommand {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        match self {
            Self::Put(args) => args.run(environment).await,
            Self::Get(args) => args.run(environment).await,
            Self::Delete(args) => args.run(environment).await,
        }
    }
}

impl Item for Pair {
    fn weight(&self) -> usize {
        // Escapes are rare enough to leave to the server's own margin.
        let metadata = self.metadata.as_ref().map_or(0, |metadata| metadata.get().len());
        self.key.len() + self.value.len() + metadata + 64
    }
}

/// A key to get or delete: plain, or as a list or a file of pairs has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Key {
    Plain(String),
    Named {
        #[serde(alias = "key")]
        name: String,
    },
}

impl Key {
    fn name(self) -> String {
        let (Self::Plain(name) | Self::Named { name }) = self;
        name
    }
}

impl Item for Key {
    fn weight(&self) -> usize {
        let (Self::Plain(name) | Self::Named { name }) = self;
        name.len() + 8
    }
}

const PUT_ABOUT: &str = "Put many pairs from a file.

Items: {\"key\": ..., \"value\": ..., \"base64\"?: true, \"expiration\"?: unix seconds, \"expiration_ttl\"?: seconds, \
\"metadata\"?: any JSON}. Requests are repeated while the node is busy or restarts. If the command stops all the same it \
says at which item, and how to go on.";

const PUT_EXAMPLES: &str = "Examples:
  starling kv bulk put pairs.json --namespace settings
  generate | starling kv bulk put - --namespace settings";

/// Put many pairs from a file
#[derive(Args)]
#[command(long_about = PUT_ABOUT, after_long_help = PUT_EXAMPLES)]
pub(super) struct PutArgs {
    #[arg(value_name = "FILE", help = FILE)]
    file: PathBuf,
    #[command(flatten)]
    space: SpaceArgs,
    #[command(flatten)]
    write: WriteArgs,
    /// Leave out the first N items: to go on where a command stopped
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: u64,
    /// Print a JSON object that says what was done
    #[arg(long)]
    json: bool,
}

impl PutArgs {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let items = Items::open(&self.file, self.skip, COUNT_MAX)?;
        let space = self.space.open(environment, self.write.session()).await?;
        put_all(&space, items, self.skip, Some).await.tell("put", self.json)
    }
}

const DELETE_EXAMPLES: &str = "Examples:
  starling kv bulk delete keys.json --namespace settings --yes
  starling kv key list --namespace settings --prefix old/ --json | starling kv bulk delete - --namespace settings -y";

/// Delete many keys named in a file
#[derive(Args)]
#[command(after_long_help = DELETE_EXAMPLES)]
pub(super) struct DeleteArgs {
    #[arg(value_name = "FILE", help = FILE)]
    file: PathBuf,
    #[command(flatten)]
    space: SpaceArgs,
    #[command(flatten)]
    write: WriteArgs,
    #[command(flatten)]
    confirm: ConfirmArgs,
    /// Leave out the first N items: to go on where a command stopped
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: u64,
    /// Print a JSON object that says what was done
    #[arg(long)]
    json: bool,
}

impl DeleteArgs {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let items = Items::<Key>::open(&self.file, self.skip, COUNT_MAX)?;
        let (file, named) = (self.file.display(), harmless(self.space.named()));
        self.confirm.confirm(&format!("deletes the keys that {file} names from {named}, everywhere"))?;
        let space = self.space.open(environment, self.write.session()).await?;
        let send = async |keys: &[String]| space.bulk_delete(keys).await;
        send_all(items, self.skip, "keys", |key| Some(key.name()), String::clone, send).await.tell("deleted", self.json)
    }
}

/// Puts all items that `keep` keeps.
pub(super) async fn put_all(
    space: &Space,
    items: Items<Pair>,
    skip: u64,
    keep: impl Fn(Pair) -> Option<Pair>,
) -> Report {
    let send = async |pairs: &[Pair]| space.bulk_put(pairs).await;
    send_all(items, skip, "pairs", keep, |pair| pair.key.clone(), send).await
}

/// What a bulk command has done.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    successful_key_count: u64,
    /// Keys that the node could not write, however often it was asked.
    unsuccessful_keys: Vec<String>,
    /// Items of the file that are settled: what `--skip` takes to go on.
    settled: u64,
    secs: f64,
    /// Why it stopped before the end of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip)]
    elapsed: Duration,
    #[serde(skip)]
    what: &'static str,
    /// An error that came before anything was done, to be told as it is.
    #[serde(skip)]
    untouched: Option<ClientError>,
}

impl Report {
    /// Tells the user; an error if anything is left to do.
    pub(super) fn tell(self, verb: &str, json: bool) -> Result<(), CliError> {
        if let Some(error) = self.untouched {
            return Err(error.into());
        }
        if json {
            // Texts and numbers can't fail to be written.
            print(&format!("{}\n", serde_json::to_string_pretty(&self).unwrap_or_default()))?;
        } else {
            let (count, rate) = (self.successful_key_count, per_second(self.successful_key_count, self.elapsed));
            tell(&format!("{verb} {count} {} in {:.1} s ({rate}/s)", self.what, self.secs));
        }
        if let Some(reason) = self.error {
            return Err(CliError::Stopped { settled: self.settled, reason });
        }
        match self.unsuccessful_keys.len() {
            0 => Ok(()),
            count => {
                for key in self.unsuccessful_keys.iter().filter(|_| !json) {
                    tell(&format!("failed: {}", harmless(key)));
                }
                Err(CliError::SomeFailed { count })
            }
        }
    }
}

/// Sends the items of a file batch by batch. `keep` may leave one out.
async fn send_all<T: Item, S>(
    mut items: Items<T>,
    skip: u64,
    what: &'static str,
    keep: impl Fn(T) -> Option<S>,
    name: impl Fn(&S) -> String,
    send: impl AsyncFn(&[S]) -> Result<Done, ClientError>,
) -> Report {
    let mut report = Report { settled: skip, what, ..Report::default() };
    let mut progress = Progress::new(items.len, what);
    loop {
        let next = tokio::select! {
            next = items.next() => next,
            _ = tokio::signal::ctrl_c() => {
                report.error = Some("interrupted".to_owned());
                break;
            }
        };
        let Batch { first, items, read } = match next {
            None => break,
            Some(Ok(batch)) => batch,
            Some(Err(error)) => {
                report.error = Some(error.to_string());
                break;
            }
        };
        let end = first + items.len() as u64;
        let kept: Vec<S> = items.into_iter().filter_map(&keep).collect();
        let sent = tokio::select! {
            sent = send_batch(kept, &name, &send) => sent,
            _ = tokio::signal::ctrl_c() => {
                report.error = Some("interrupted".to_owned());
                break;
            }
        };
        match sent {
            Ok((count, failed)) => {
                report.successful_key_count += count;
                report.unsuccessful_keys.extend(failed);
                report.settled = end;
                progress.done(count, read);
            }
            Err(error) => {
                if report.successful_key_count == 0 && !matches!(error, ClientError::Refused { .. }) {
                    report.untouched = Some(error);
                } else {
                    report.error = Some(in_file(first, &error));
                }
                break;
            }
        }
        if report.unsuccessful_keys.len() >= FAILED_MAX {
            report.error = Some(format!("{} keys failed", report.unsuccessful_keys.len()));
            break;
        }
    }
    (_, report.elapsed) = progress.finish();
    report.secs = report.elapsed.as_secs_f64();
    report
}

/// Sends one batch, and what failed of it again.
async fn send_batch<S>(
    mut batch: Vec<S>,
    name: impl Fn(&S) -> String,
    send: impl AsyncFn(&[S]) -> Result<Done, ClientError>,
) -> Result<(u64, Vec<String>), ClientError> {
    let mut count = 0;
    let mut failed = Vec::new();
    for round in 0..ROUNDS_MAX {
        if batch.is_empty() {
            break;
        }
        if round > 0 {
            tokio::time::sleep(ROUND_PAUSE).await;
        }
        let done = patiently(async || send(&batch).await).await;
        let done = match done {
            // What was written of this batch earlier stays written.
            Err(_) if round > 0 => break,
            done => done?,
        };
        count += done.successful_key_count as u64;
        failed = done.unsuccessful_keys;
        let again: BTreeSet<&String> = failed.iter().collect();
        batch.retain(|item| again.contains(&name(item)));
    }
    Ok((count, failed))
}

/// An error about the pair of a request, told as one about the item of the file.
fn in_file(first: u64, error: &ClientError) -> String {
    if let ClientError::Refused { message, .. } = error
        && let Some((index, rest)) = message.strip_prefix("pair ").and_then(|message| message.split_once(' '))
        && let Ok(index) = index.parse::<u64>()
    {
        return format!("item {} {rest}", first + index + 1);
    }
    error.to_string()
}

const GET_ABOUT: &str = "Get many values, for keys named in a file.

Prints a JSON object: for each key its {\"value\", \"base64\"?: true, \"expiration\"?, \"metadata\"?}, or null where \
there is none. A value that is not UTF-8 text is printed as base64.";

const GET_EXAMPLES: &str = "Examples:
  starling kv bulk get keys.json --namespace settings
  starling kv key list --namespace settings --prefix a --json | starling kv bulk get - --namespace settings";

/// Get many values, for keys named in a file
#[derive(Args)]
#[command(long_about = GET_ABOUT, after_long_help = GET_EXAMPLES)]
pub(super) struct GetArgs {
    #[arg(value_name = "FILE", help = FILE)]
    file: PathBuf,
    #[command(flatten)]
    space: SpaceArgs,
    #[command(flatten)]
    read: ReadArgs,
    /// The answer is JSON with or without it
    #[arg(long)]
    json: bool,
}

impl GetArgs {
    async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let mut items = Items::<Key>::open(&self.file, 0, GET_COUNT_MAX)?;
        let space = self.space.open(environment, self.read.session()).await?;
        let mut start = "{\n";
        while let Some(batch) = items.next().await {
            let mut seen = BTreeSet::new();
            let names = batch?.items.into_iter().map(Key::name);
            let keys: Vec<String> = names.filter(|name| seen.insert(name.clone())).collect();
            let mut left = &keys[..];
            while !left.is_empty() {
                let found = space.bulk_get_some(left).await?;
                let (now, later) = left.split_at(found.len().min(left.len()));
                left = later;
                for (key, got) in now.iter().zip(found) {
                    let name = serde_json::Value::from(key.as_str());
                    let entry = got.map(|got| Entry::from(Pair::new(String::new(), got)));
                    let entry = serde_json::to_string(&entry).unwrap_or_default();
                    print(&format!("{start}  {name}: {entry}"))?;
                    start = ",\n";
                }
            }
        }
        print(if start == "{\n" { "{}\n" } else { "\n}\n" })
    }
}

/// A value as `bulk get` prints it.
#[derive(Serialize)]
struct Entry {
    value: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    base64: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<serde_json::value::RawValue>>,
}

impl From<Pair> for Entry {
    fn from(pair: Pair) -> Self {
        let Pair { value, base64, expiration, metadata, .. } = pair;
        Self { value, base64, expiration, metadata }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Items<Key> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Items::open(file.path(), 0, 2).unwrap()
    }

    async fn run(text: &str, send: impl AsyncFn(&[String]) -> Result<Done, ClientError>) -> Report {
        send_all(lines(text), 0, "keys", |key| Some(key.name()), String::clone, send).await
    }

    fn refusal(message: &str) -> ClientError {
        ClientError::Refused { url: "http://x".into(), status: 400, code: 10001, message: message.into() }
    }

    const FIVE: &str = "\"a\"\n{\"name\":\"b\"}\n{\"key\":\"c\",\"value\":\"1\"}\n\"d\"\n\"e\"\n";

    #[tokio::test]
    async fn a_mistake_is_named_by_its_place_in_the_file() {
        let report = run(FIVE, async |keys| match keys.contains(&"d".to_owned()) {
            true => Err(refusal("pair 1 (key \"d\"): too long")),
            false => Ok(Done { successful_key_count: keys.len(), unsuccessful_keys: Vec::new() }),
        });
        let report = report.await;
        assert_eq!((report.successful_key_count, report.settled), (2, 2));
        assert_eq!(report.error.as_deref(), Some("item 4 (key \"d\"): too long"));
        let error = report.tell("put", false).unwrap_err();
        assert_eq!(error.exit(), crate::exit::Exit::Incomplete);
        assert!(error.to_string().contains("--skip 2"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_fail_are_sent_again_alone() {
        let asked = std::sync::Mutex::new(Vec::new());
        let report = run(FIVE, async |keys| {
            let mut asked = asked.lock().unwrap();
            asked.push(keys.concat());
            let is_bad = |key: &&String| *key == "b" && asked.len() < 3 || *key == "e";
            let unsuccessful_keys: Vec<String> = keys.iter().filter(is_bad).cloned().collect();
            Ok(Done { successful_key_count: keys.len() - unsuccessful_keys.len(), unsuccessful_keys })
        });
        let report = report.await;
        assert_eq!(asked.into_inner().unwrap(), ["ab", "b", "b", "cd", "e", "e", "e", "e", "e"]);
        assert_eq!((report.successful_key_count, report.settled), (4, 5));
        assert_eq!(report.unsuccessful_keys, ["e"]);
        assert_eq!(report.tell("put", true).unwrap_err().exit(), crate::exit::Exit::Incomplete);
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_no_half_done_work() {
        let report = run(FIVE, async |_| Err(ClientError::BadToken)).await;
        assert_eq!(report.tell("put", false).unwrap_err().exit(), crate::exit::Exit::Usage);
    }
}

//! `starling kv export`: a whole namespace as JSON lines.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::bulk::GET_COUNT_MAX;
use super::{ReadArgs, SpaceArgs};
use crate::cli::progress::{Progress, per_second};
use crate::cli::{CliError, print};
use crate::client::{ClientError, Got, Pair, Space, patiently};
use crate::config::Environment;
use crate::terminal::{harmless, tell};

/// Bulk gets that may be under way at a time. A node has four places for them, and others want some too.
const GETS_MAX: usize = 2;
/// Keys of a page of the list.
const PAGE_LEN: usize = 1000;

const ABOUT: &str = "Write a whole namespace as JSON lines.

Each line is {\"key\", \"value\", \"base64\"?: true, \"expiration\"?: unix seconds, \"metadata\"?}, in the order of the \
keys: what `starling kv import` and `starling kv bulk put` read. A value that is not UTF-8 text is written as base64. \
Writes made meanwhile may be in the export or not, key by key.";

const EXAMPLES: &str = "Examples:
  starling kv export --namespace settings settings.jsonl
  starling kv export --namespace settings | gzip > settings.jsonl.gz";

/// Write a whole namespace as JSON lines
#[derive(Args)]
#[command(long_about = ABOUT, after_long_help = EXAMPLES)]
pub(super) struct ExportArgs {
    /// The file to write, readable for its owner only; it appears when it is complete. - is standard output
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    space: SpaceArgs,
    #[command(flatten)]
    read: ReadArgs,
    /// Only keys that start with this
    #[arg(long, default_value = "")]
    prefix: String,
    /// Print a JSON object that says what was done (not with standard output)
    #[arg(long)]
    json: bool,
}

impl ExportArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let named = self.space.named().to_owned();
        let is_stdout = self.file.as_os_str() == "-";
        let space = self.space.open(environment, self.read.session()).await?;
        let mut progress = Progress::new(None, "keys");
        if is_stdout {
            write_all(&space, &self.prefix, &mut BufWriter::new(io::stdout()), &mut progress).await?;
        } else {
            let part = PartFile::create(&self.file)?;
            let mut out = BufWriter::new(&part.file);
            write_all(&space, &self.prefix, &mut out, &mut progress).await?;
            drop(out);
            part.complete()?;
        }
        let (count, elapsed) = progress.finish();
        if self.json && !is_stdout {
            return print(&format!("{}\n", serde_json::json!({ "keys": count, "secs": elapsed.as_secs_f64() })));
        }
        let rate = per_second(count, elapsed);
        tell(&format!("exported {count} keys of {} in {:.1} s ({rate}/s)", harmless(&named), elapsed.as_secs_f64()));
        Ok(())
    }
}

type Fetching = JoinHandle<Result<(Vec<String>, Vec<Option<Got>>), ClientError>>;

async fn write_all(space: &Space, prefix: &str, out: &mut impl Write, progress: &mut Progress) -> Result<(), CliError> {
    let (sender, mut names) = mpsc::channel::<Result<Vec<String>, ClientError>>(2 * PAGE_LEN / GET_COUNT_MAX);
    let lister = tokio::task::spawn_local(list_all(space.clone(), prefix.to_owned(), sender));
    let mut fetching = VecDeque::<Fetching>::new();
    let written = async {
        let mut is_over = false;
        loop {
            while fetching.len() < GETS_MAX && !is_over {
                match names.recv().await {
                    Some(keys) => {
                        let (space, keys) = (space.clone(), keys?);
                        fetching.push_back(tokio::task::spawn_local(async move {
                            let found = space.bulk_get_some(&keys).await?;
                            Ok((keys, found))
                        }));
                    }
                    None => is_over = true,
                }
            }
            let Some(next) = fetching.pop_front() else { break };
            let (keys, mut found) = next.await.map_err(|error| failed(io::Error::other(error)))??;
            let mut left = &keys[..];
            loop {
                let (now, later) = left.split_at(found.len().min(left.len()));
                write_some(now, found, out, progress)?;
                left = later;
                if left.is_empty() {
                    break;
                }
                found = space.bulk_get_some(left).await?;
            }
        }
        out.flush().map_err(failed)
    };
    let written = written.await;
    fetching.iter().for_each(JoinHandle::abort);
    lister.abort();
    written
}

fn write_some(
    keys: &[String],
    found: Vec<Option<Got>>,
    out: &mut impl Write,
    progress: &mut Progress,
) -> Result<(), CliError> {
    let mut count = 0;
    for (key, got) in keys.iter().zip(found) {
        // It was deleted, or has expired, since it was listed.
        let Some(got) = got else { continue };
        let mut line = serde_json::to_vec(&Pair::new(key.clone(), got)).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        out.write_all(&line).map_err(failed)?;
        count += 1;
    }
    progress.done(count, 0);
    Ok(())
}

/// Sends the names of all keys, in groups that fit a bulk get.
async fn list_all(space: Space, prefix: String, sender: mpsc::Sender<Result<Vec<String>, ClientError>>) {
    let mut cursor = None;
    loop {
        let page = match patiently(async || space.list(&prefix, cursor.as_deref(), PAGE_LEN).await).await {
            Ok(page) => page,
            Err(error) => return drop(sender.send(Err(error)).await),
        };
        let mut names = page.keys.into_iter().map(|key| key.name).peekable();
        while names.peek().is_some() {
            // An error means that nobody wants more.
            if sender.send(Ok(names.by_ref().take(GET_COUNT_MAX).collect())).await.is_err() {
                return;
            }
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return;
        }
    }
}

fn failed(cause: io::Error) -> CliError {
    CliError::Io { action: "write the export", cause }
}

/// A file that gets its name only when it is complete.
struct PartFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
    is_complete: bool,
}

impl PartFile {
    fn create(path: &Path) -> Result<Self, CliError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part).map_err(failed)?;
        Ok(Self { file, part, path: path.to_owned(), is_complete: false })
    }

    fn complete(mut self) -> Result<(), CliError> {
        self.file.sync_all().map_err(failed)?;
        std::fs::rename(&self.part, &self.path).map_err(failed)?;
        self.is_complete = true;
        Ok(())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.is_complete {
            // It is of no use; that it can't be removed is of no consequence.
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

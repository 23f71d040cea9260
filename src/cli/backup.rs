//! `starling backup` and `starling restore`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::progress::Progress;
use super::target::TargetArgs;
use super::token::utc;
use super::{CliError, print};
use crate::backup::{self, Frame, Frames, HEADER_LEN, Header};
use crate::client::{Client, ClientError, patiently};
use crate::config::{Config, Environment};
use crate::keyring::KeySource;
use crate::node::{MachineClock, Standing};
use crate::terminal::{harmless, tell};

/// How often in a row a transfer may break off before any piece has come.
const BREAKS_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_secs(1);
const READ_LEN: usize = 256 << 10;

const ABOUT: &str = "Write all that a node holds into one file, while it serves.

The file holds the node as it is at one moment: every namespace, value, token, Worker and key, sealed with the cluster key. \
Keep that key, too, and apart from the file: nothing else opens it. Until it is whole the file is called FILE.part; the same \
command goes on where a transfer was cut short, as long as the node was not restarted and it was not more than ten minutes ago.";

const EXAMPLES: &str = "Examples:
  starling backup /backups/fra-$(date +%F).starling
  STARLING_TOKEN=... starling backup fra.starling --api https://fra.example.net:7700
  starling verify --backup fra.starling --cluster-key-file starling-data.key";

/// Write all that a node holds into one file, while it serves
#[derive(Args)]
#[command(long_about = ABOUT, after_long_help = EXAMPLES)]
pub(super) struct BackupArgs {
    /// The file to write, readable for its owner only
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

const RESTORE_ABOUT: &str = "Make a data directory of a backup.

What starts in it is a new node, the first of a new cluster: it has all data, accounts, tokens and Workers of the backup, and \
lets new nodes in with `starling invite`. It neither talks to the nodes of the former cluster nor disturbs them, so it also \
serves to look up what was deleted by mistake.

With --same-node it is the node that the backup was taken of, in the cluster that it was in. Only if that node has ended and \
its data directory is lost: two with one identity get in each other's way. It fetches what it missed, and gives the others \
what only the backup still had.";

const RESTORE_EXAMPLES: &str = "Examples:
  starling restore fra.starling --data ./starling-data --cluster-key-file saved.key
  starling serve --data ./starling-data --cluster-key-file saved.key";

/// Make a data directory of a backup
#[derive(Args)]
#[command(long_about = RESTORE_ABOUT, after_long_help = RESTORE_EXAMPLES)]
pub(super) struct RestoreArgs {
    /// What `starling backup` has written
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The data directory to make [default: ./starling-data]
    #[arg(long, visible_alias = "data-dir", value_name = "DIR")]
    data: Option<String>,
    /// As the node that the backup was taken of, which must not run any more
    #[arg(long)]
    same_node: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    key: KeyArgs,
}

/// Where the cluster key is.
#[derive(Args)]
pub(super) struct KeyArgs {
    /// File with the cluster key [default: DATA.key]
    #[arg(long, value_name = "FILE")]
    cluster_key_file: Option<String>,
    /// Command that prints the cluster key
    #[arg(long, value_name = "COMMAND")]
    cluster_key_command: Option<String>,
}

impl KeyArgs {
    /// The settings, with what flags say of the directory and of the key.
    pub(super) fn config(
        &self,
        file: Option<&Path>,
        data: Option<&String>,
        environment: &Environment,
    ) -> Result<Config, CliError> {
        let flags = [
            ("data", data),
            ("cluster_key_file", self.cluster_key_file.as_ref()),
            ("cluster_key_command", self.cluster_key_command.as_ref()),
        ];
        let flags: Vec<_> = flags.into_iter().filter_map(|(key, text)| Some((key, text?.clone()))).collect();
        Ok(Config::load(file, environment, &flags)?)
    }
}

impl BackupArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let client = self.target.client(environment)?;
        let mut part = Part::open(&self.file)?;
        let number = part.fetch(&client).await?;
        let (bytes, pieces) = (part.len, part.held);
        part.complete(&self.file)?;
        // It goes by itself a little later.
        let _ = client.end_backup(&number).await;
        if self.json {
            return print(&format!("{}\n", json!({ "file": self.file, "bytes": bytes, "pieces": pieces })));
        }
        tell(&format!(
            "wrote {} ({} MiB); keep the cluster key, too, and apart from it",
            harmless(&self.file.to_string_lossy()),
            bytes.div_ceil(1 << 20)
        ));
        Ok(())
    }
}

/// A backup that is not whole yet: `FILE.part`.
struct Part {
    file: File,
    path: PathBuf,
    header: Option<Header>,
    /// Whole pieces, and bytes with them.
    held: u64,
    len: u64,
    is_whole: bool,
}

impl Part {
    /// What an earlier command has left, up to the last piece that is whole.
    fn open(target: &Path) -> Result<Self, CliError> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut part = Self { file: opened.map_err(failed)?, path, header: None, held: 0, len: 0, is_whole: false };
        part.look().map_err(failed)?;
        part.cut().map_err(failed)?;
        Ok(part)
    }

    fn look(&mut self) -> io::Result<()> {
        let mut header = Vec::new();
        Read::by_ref(&mut self.file).take(HEADER_LEN as u64).read_to_end(&mut header)?;
        self.header = Header::decode(&header);
        if self.header.is_none() {
            return Ok(());
        }
        self.len = HEADER_LEN as u64;
        let (mut frames, mut buffer) = (Frames::default(), vec![0; READ_LEN]);
        loop {
            let read = self.file.read(&mut buffer)?;
            frames.push(&buffer[..read]);
            while let Ok(Some((Frame::Piece { is_last, .. }, len))) = frames.cut() {
                (self.held, self.len, self.is_whole) = (self.held + 1, self.len + len as u64, is_last);
            }
            if read == 0 || self.is_whole {
                return Ok(());
            }
        }
    }

    /// Drops what is no whole piece.
    fn cut(&mut self) -> io::Result<()> {
        if self.held == 0 {
            (self.header, self.len) = (None, 0);
        }
        self.file.set_len(self.len)?;
        self.file.seek(SeekFrom::Start(self.len)).map(drop)
    }

    /// Fetches what is missing. Gives the backup's number.
    async fn fetch(&mut self, client: &Client) -> Result<String, CliError> {
        let mut number = self.header.map(|header| format!("{:032x}", u128::from_be_bytes(header.backup)));
        if self.is_whole {
            return Ok(number.unwrap_or_default());
        }
        if self.held > 0 {
            tell(&format!("going on after {} MiB that are here already", self.len >> 20));
        }
        let mut progress = None;
        let mut breaks = 0;
        loop {
            let (known, bytes) = match number.clone() {
                Some(number) => (number, 0),
                None => patiently(async || client.begin_backup().await).await?,
            };
            number = Some(known.clone());
            let progress = progress.get_or_insert_with(|| {
                // Of one that is gone on with, nobody has said how much is left.
                let len = Some(bytes).filter(|bytes| *bytes > 0);
                Progress::new(len, "KiB")
            });
            let before = self.held;
            match self.fetch_some(client, &known, progress).await {
                Ok(()) => return Ok(known),
                Err(CliError::Client(error)) if error.is_missing() => {
                    tell("the node does not hold that backup any more: beginning anew");
                    (self.held, number) = (0, None);
                    self.cut().map_err(failed)?;
                }
                Err(CliError::Client(error)) if error.is_transient() && breaks < BREAKS_MAX => {
                    breaks = if self.held > before { 0 } else { breaks + 1 };
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn fetch_some(&mut self, client: &Client, number: &str, progress: &mut Progress) -> Result<(), CliError> {
        let mut stream = client.backup_pieces(number, self.held).await?;
        let (mut frames, mut header) = (Frames::default(), Vec::new());
        while let Some(bytes) = stream.next().await? {
            let mut rest = &bytes[..];
            if self.held == 0 && header.len() < HEADER_LEN {
                let (more, after) = rest.split_at(rest.len().min(HEADER_LEN - header.len()));
                header.extend_from_slice(more);
                rest = after;
            }
            frames.push(rest);
            while let Some((frame, len)) = frames.cut().map_err(|error| CliError::Backup(error.to_string()))? {
                let is_last = match &frame {
                    Frame::Piece { is_last, .. } => *is_last,
                    Frame::Failed(why) => return Err(CliError::Backup(why.clone())),
                };
                let written = std::mem::take(&mut header);
                self.file.write_all(&written).and_then(|()| self.file.write_all(&frame.encode())).map_err(failed)?;
                let len = (written.len() + len) as u64;
                (self.held, self.len) = (self.held + 1, self.len + len);
                progress.done(len >> 10, self.len);
                if is_last {
                    self.is_whole = true;
                    return Ok(());
                }
            }
        }
        let (url, reason) = (client.url().to_owned(), "the backup broke off".to_owned());
        Err(ClientError::Unreachable { url, reason }.into())
    }

    /// Gives it its name.
    fn complete(self, target: &Path) -> Result<(), CliError> {
        self.file.sync_all().map_err(failed)?;
        std::fs::rename(&self.path, target).map_err(failed)?;
        let above = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(above).and_then(|above| above.sync_all()).map_err(failed)
    }
}

fn failed(cause: io::Error) -> CliError {
    CliError::Io { action: "write the backup", cause }
}

impl RestoreArgs {
    pub(super) fn run(self, environment: &Environment) -> Result<(), CliError> {
        crate::serve::keep_files_private();
        let config = self.key.config(None, self.data.as_ref(), environment)?;
        let source = KeySource::of(&config, &config.data, None).map_err(backup::BackupError::from)?;
        let standing = if self.same_node { Standing::SameNode } else { Standing::Founder };
        let len = std::fs::metadata(&self.file).map(|found| found.len()).ok();
        let mut progress = Progress::new(len, "KiB");
        let mut before = 0;
        let restored = backup::restore(
            &self.file,
            &config.data,
            source,
            standing,
            MachineClock::start(config.clock_offset_ms),
            &mut |at| {
                progress.done((at - before) >> 10, at);
                before = at;
            },
        )?;
        progress.finish();
        let content = &restored.content;
        if self.json {
            let told = json!({
                "data": config.data,
                "node": restored.node.to_string(),
                "from": content.node.to_string(),
                "from_name": content.name,
                "account": content.account,
                "taken_ms": content.taken_ms,
                "rows": content.rows,
                "evicted": restored.evicted,
            });
            return print(&format!("{told}\n"));
        }
        let as_whom = match standing {
            Standing::Founder => format!("the first node of a new cluster ({})", restored.node),
            Standing::SameNode => format!("node {} again; it must run nowhere else", restored.node),
        };
        print(&format!(
            "{} holds {} rows of {}, as they were at {}, as {as_whom}.\nStart it: starling serve --data {}\n",
            config.data.display(),
            content.rows,
            harmless(&content.name),
            utc(content.taken_ms / 1000),
            config.data.display(),
        ))
    }
}

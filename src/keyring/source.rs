//! Where the cluster key comes from: an environment variable, a command, or a file outside the data directory. A file
//! may be written by the node; the others are the operator's alone.
//!
//! Each gives one key or more: the one in use first, then former ones that still open what was sealed with them.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use zeroize::Zeroizing;

use super::{ClusterKey, KeyId, file};
use crate::config::Config;
use crate::datadir::write_private;
use crate::secret::Secret;

/// Most that is read of a file or from a command, bytes.
const TEXT_LEN_MAX: u64 = 64 * 1024;
/// Longest that a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
const COMMAND_POLL: Duration = Duration::from_millis(10);

/// Why keys can't be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The source has no key, but the data directory was sealed with one.
    #[error(
        "this data directory is encrypted, and {0} has no cluster key; put the key's file back, or name where it is \
         with --cluster-key-file, --cluster-key-command or STARLING_CLUSTER_KEY"
    )]
    Absent(String),
    /// What the source gives is no key.
    #[error("{origin} gives no cluster key: {reason}; put the key back, or name where it is with --cluster-key-file")]
    Unusable {
        /// The source.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// The data directory is sealed with another key.
    #[error(
        "{} is sealed with cluster key {wanted}, but {origin} gives {given}. If this is an old copy of the directory, \
         the key has been rotated since and nothing opens it any more: start with an empty directory and join anew",
        path.display()
    )]
    Wrong {
        /// The keyring.
        path: PathBuf,
        /// What it is sealed with.
        wanted: KeyId,
        /// What was given.
        given: String,
        /// By whom.
        origin: String,
    },
    /// The cluster that was joined has another key than this node was given.
    #[error("{0} gives another cluster key than the cluster's: give this node the cluster's, or none to receive it")]
    NotTheClusters(String),
    /// The cluster key was rotated elsewhere, and the operator has not given this node the new one.
    #[error(
        "the cluster key was rotated to {wanted}, but {origin} does not give it: this node goes on with the former one, \
         give it the new one"
    )]
    Behind {
        /// The source.
        origin: String,
        /// The key.
        wanted: KeyId,
    },
    /// The keyring was changed or cut short.
    #[error("the keyring {} is damaged: move the data directory away and join anew with an empty one", .0.display())]
    Damaged(PathBuf),
    /// The data directory is of a version that did not encrypt.
    #[error(
        "{} was written by a version of starling that did not encrypt: this one does not read it. Start with an empty \
         directory", .0.display()
    )]
    Unsealed(PathBuf),
    /// Two places to take the key from.
    #[error("the cluster key is given twice: use one of cluster_key_file, cluster_key_command, STARLING_CLUSTER_KEY")]
    Twice,
    /// The file system refused.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        cause: io::Error,
    },
    /// A file could not be written.
    #[error("{0}")]
    Write(String),
    /// The operating system gives no randomness.
    #[error("no entropy: {0}")]
    Entropy(getrandom::Error),
}

/// A source of the cluster key.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// `STARLING_CLUSTER_KEY`.
    Variable(Secret),
    /// Prints it, run by `sh -c`.
    Command(String),
    /// Holds it.
    File(PathBuf),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(_) => f.write_str("STARLING_CLUSTER_KEY"),
            Self::Command(_) => f.write_str("the cluster key command"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl KeySource {
    /// What the configuration says; else the file beside the data directory, or where it was when that was made.
    pub fn of(config: &Config, data: &Path, recorded: Option<&Path>) -> Result<Self, KeyError> {
        match (&config.cluster_key, &config.cluster_key_command, &config.cluster_key_file) {
            (Some(text), None, None) => Ok(Self::Variable(text.clone())),
            (None, Some(command), None) => Ok(Self::Command(command.clone())),
            (None, None, Some(path)) => Ok(Self::File(std::path::absolute(path).unwrap_or_else(|_| path.clone()))),
            (None, None, None) => {
                let beside = beside(data)?;
                let recorded = recorded.filter(|recorded| !beside.exists() && recorded.exists());
                Ok(Self::File(recorded.map_or(beside, Path::to_owned)))
            }
            _ => Err(KeyError::Twice),
        }
    }

    /// The keys; `None` if the file is not there.
    pub fn read(&self) -> Result<Option<Vec<ClusterKey>>, KeyError> {
        let text = match self {
            Self::Variable(text) => Zeroizing::new(text.expose().to_owned()),
            Self::Command(command) => Zeroizing::new(run(command).map_err(|reason| self.unusable(reason))?),
            Self::File(path) => match fs::File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(cause) => return Err(KeyError::Io { path: path.clone(), cause }),
                Ok(opened) => {
                    let mode = opened.metadata().map_or(0, |metadata| metadata.permissions().mode());
                    if mode & 0o077 != 0 {
                        tracing::warn!(path = %path.display(), "other users can read the cluster key: chmod it to 0600");
                    }
                    let mut text = Zeroizing::new(String::new());
                    let read = opened.take(TEXT_LEN_MAX).read_to_string(&mut text);
                    read.map_err(|cause| match cause.kind() {
                        io::ErrorKind::InvalidData => self.unusable("it is not text".into()),
                        _ => KeyError::Io { path: path.clone(), cause },
                    })?;
                    text
                }
            },
        };
        ClusterKey::parse_all(&text).map(Some).map_err(|reason| self.unusable(reason))
    }

    /// Whether the node itself may change what the source gives.
    pub fn is_writable(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Makes a file give these keys. Does nothing for other sources.
    pub fn write(&self, keys: &[ClusterKey]) -> Result<(), KeyError> {
        let Self::File(path) = self else { return Ok(()) };
        let mut text = Zeroizing::new(String::from(
            "# Starling's cluster key: without it the data directory can't be read. Keep a copy, apart from the data.\n",
        ));
        for key in keys {
            text.push_str(key.to_text().expose());
            text.push('\n');
        }
        let former = fs::OpenOptions::new().write(true).open(path).ok();
        write_private(path, text.as_bytes()).map_err(|error| {
            KeyError::Write(format!("{error}; name a file outside the data directory with --cluster-key-file"))
        })?;
        if let Some(mut former) = former
            && let Err(error) = file::wipe(&mut former)
        {
            tracing::warn!(%error, "the former cluster key file could not be overwritten");
        }
        Ok(())
    }

    fn unusable(&self, reason: String) -> KeyError {
        KeyError::Unusable { origin: self.to_string(), reason }
    }
}

/// The file beside a data directory: `starling-data` has `starling-data.key`.
fn beside(data: &Path) -> Result<PathBuf, KeyError> {
    let io = |cause| KeyError::Io { path: data.to_owned(), cause };
    let data = fs::canonicalize(data).or_else(|_| std::path::absolute(data)).map_err(io)?;
    let name = data.file_name().ok_or_else(|| io(io::Error::other("no place beside it for the cluster key")))?;
    let mut name = name.to_owned();
    name.push(".key");
    Ok(data.with_file_name(name))
}

/// Standard output of a command.
fn run(command: &str) -> Result<String, String> {
    let spawned = Command::new("sh").arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| format!("it can't be run: {error}"))?;
    let mut waited = Duration::ZERO;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if waited < COMMAND_TIMEOUT => std::thread::sleep(COMMAND_POLL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it took longer than {} s", COMMAND_TIMEOUT.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
        waited += COMMAND_POLL;
    };
    if !status.success() {
        return Err(format!("it failed ({status})"));
    }
    let mut text = String::new();
    let output = child.stdout.take().ok_or("it gave no output")?;
    output.take(TEXT_LEN_MAX).read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

//! The data directory: who may use it (one process at a time, one format version) and the small files in it that are
//! not the store's: `format`, `lock`, `node.json`, `admin-token`.
//!
//! Knows nothing of what the store keeps beside them. For Unix: the directory is for its owner only.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::HostPort;
use crate::exit::Exit;
use crate::secret::Secret;

/// The version of the data format that this Starling reads and writes.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT: &str = "format";
const LOCK: &str = "lock";
const RUNNING: &str = "node.json";
const ADMIN_TOKEN: &str = "admin-token";

/// Largest of the small files read, in bytes.
const SMALL_FILE_LEN_MAX: u64 = 64 * 1024;

/// Where `starling workers install` puts the engine for Workers.
pub const WORKERD: &str = "workerd";

/// What may lie in a directory that was not used yet: a fresh file system has its own, and an engine can be there first.
const FOREIGN_ALLOWED: &[&str] = &[LOCK, "lost+found", WORKERD];

/// A data directory, held by this process until dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// What `node.json` tells commands about the node that runs, or last ran, in the directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Running {
    /// The node id, 16 hex digits.
    pub node: String,
    /// The node's name.
    pub name: String,
    /// Its PoP, if it has one.
    #[serde(default)]
    pub pop: Option<String>,
    /// The account that the API serves, 32 hex digits.
    pub account: String,
    /// Where the API answers, as a URL without a path: see [`api_url`].
    pub api: String,
    /// Where Workers' bindings are served, as `--bindings` has it; `None`: nowhere.
    #[serde(default)]
    pub bindings: Option<String>,
    /// Where requests for Workers arrive, as a URL without a path; `None`: nowhere.
    #[serde(default)]
    pub workers: Option<String>,
    /// Over HTTPS: the PEM file with the certificate that the API shows.
    #[serde(default)]
    pub api_certificate: Option<PathBuf>,
    /// Where peers find the node, as address:port.
    pub gossip: String,
    /// The process id.
    pub pid: u32,
    /// The Starling version.
    pub version: String,
}

/// Why a data directory can't be used. The directory was not changed, unless it was just created.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds the lock.
    #[error(
        "the data directory {path} is in use by another process{}; stop that one, or give this node a directory of its \
         own with --data", holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that said so in `node.json`, if any.
        holder: Option<u32>,
    },
    /// Written by a newer version.
    #[error(
        "the data directory {path} has data format {found}, but this starling {version} knows formats up to \
         {FORMAT_VERSION}; run the newer starling that wrote it", version = env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format version.
        found: u64,
    },
    /// A file in it can't be understood.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It holds something else.
    #[error("{path} is not empty and not a Starling data directory; name an empty or a new one with --data")]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// There is none.
    #[error("{path} is no data directory of a node: name one with --data")]
    Absent {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("can't {action} {path}: {cause}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
}

impl DataDirError {
    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::InUse { .. } => Exit::DataDirInUse,
            Self::Newer { .. } => Exit::DataDirNewer,
            Self::Damaged { .. } | Self::Foreign { .. } => Exit::Failure,
            Self::Absent { .. } => Exit::Usage,
            Self::Io { .. } => Exit::StorageFailed,
        }
    }
}

impl DataDir {
    /// Creates the directory if there is none, makes sure that it is for this user, this process and this version
    /// alone, and holds it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        create(path).map_err(io_error("create", path))?;
        let format = path.join(FORMAT);
        if read_small(&format)?.is_none() && is_foreign(path).map_err(io_error("read", path))? {
            return Err(DataDirError::Foreign { path: path.to_owned() });
        }
        let lock = lock(path)?;
        match read_small(&format)? {
            Some(text) => check_format(path, &format, &text)?,
            None => write_private(&format, format!("{FORMAT_VERSION}\n").as_bytes())?,
        }
        restrict(path).map_err(io_error("read", path))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// [`DataDir::open`] of one that a node has made.
    pub fn open_existing(path: &Path) -> Result<Self, DataDirError> {
        match path.join(FORMAT).exists() {
            true => Self::open(path),
            false => Err(DataDirError::Absent { path: path.to_owned() }),
        }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or directory in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Tells commands how to reach this node. The file stays after the node has stopped.
    pub fn write_running(&self, running: &Running) -> Result<(), DataDirError> {
        let mut text = serde_json::to_vec_pretty(running).expect("a struct of texts and numbers has a JSON form");
        text.push(b'\n');
        write_private(&self.join(RUNNING), &text)
    }

    /// Where the admin token is kept.
    pub fn admin_token_path(&self) -> PathBuf {
        self.join(ADMIN_TOKEN)
    }

    /// The token that commands on this machine use; `None` before the first start.
    pub fn admin_token(&self) -> Result<Option<Secret>, DataDirError> {
        read_admin_token(&self.path)
    }

    /// Keeps the admin token, readable by the owner only.
    pub fn write_admin_token(&self, token: &Secret) -> Result<(), DataDirError> {
        write_private(&self.admin_token_path(), format!("{}\n", token.expose()).as_bytes())
    }
}

/// Reads `node.json` of a directory that another process may be using; `None` if no node ever ran there.
pub fn read_running(dir: &Path) -> Result<Option<Running>, DataDirError> {
    let path = dir.join(RUNNING);
    let Some(text) = read_small(&path)? else { return Ok(None) };
    let running = serde_json::from_str(&text)
        .map_err(|error| DataDirError::Damaged { path, reason: format!("{error}; restart the node to renew it") })?;
    Ok(Some(running))
}

/// Reads the admin token of a directory that another process may be using; `None` if it has none.
pub fn read_admin_token(dir: &Path) -> Result<Option<Secret>, DataDirError> {
    let text = read_small(&dir.join(ADMIN_TOKEN))?;
    Ok(text.map(|text| Secret::new(&text)).filter(|token| !token.expose().is_empty()))
}

/// Replaces the admin token of a directory that its node may be using.
pub fn replace_admin_token(dir: &Path, token: &Secret) -> Result<(), DataDirError> {
    write_private(&dir.join(ADMIN_TOKEN), format!("{}\n", token.expose()).as_bytes())
}

/// The URL at which this machine reaches an API that listens on that address.
pub fn api_url(listening: SocketAddr, has_tls: bool) -> String {
    let host = match listening {
        SocketAddr::V4(address) if address.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => "::1".to_owned(),
        address => address.ip().to_string(),
    };
    let scheme = if has_tls { "https" } else { "http" };
    format!("{scheme}://{}", HostPort { host, port: listening.port() })
}

/// Replaces a file in one step: after a crash it has the old content or the new, whole. Only its owner can read it.
/// For one writer at a time.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), DataDirError> {
    let dir = parent(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.new"));
    let write = || -> io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(io_error("write", path))
}

/// Creates the directory and what is missing above it, so that a power cut can't take them away again.
fn create(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    missing.into_iter().try_for_each(|dir| File::open(parent(dir))?.sync_all())
}

/// Closes the directory to other users. A volume that belongs to another user can't be changed, but can be used.
fn restrict(dir: &Path) -> io::Result<()> {
    if fs::metadata(dir)?.permissions().mode() & 0o077 != 0
        && let Err(error) = fs::set_permissions(dir, Permissions::from_mode(0o700))
    {
        tracing::warn!(dir = %dir.display(), %error, "other users may be able to read the data directory; chmod it to 0700");
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join(LOCK);
    let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = open.map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let holder = read_running(dir).ok().flatten().map(|running| running.pid);
            Err(DataDirError::InUse { path: dir.to_owned(), holder })
        }
        Err(TryLockError::Error(cause)) => Err(DataDirError::Io { action: "lock", path, cause }),
    }
}

fn check_format(dir: &Path, path: &Path, text: &str) -> Result<(), DataDirError> {
    match text.trim().parse::<u64>() {
        Ok(found) if found > u64::from(FORMAT_VERSION) => Err(DataDirError::Newer { path: dir.to_owned(), found }),
        Ok(found) if found == u64::from(FORMAT_VERSION) => Ok(()),
        _ => Err(DataDirError::Damaged {
            path: path.to_owned(),
            reason: format!(
                "it should hold the data format version, {FORMAT_VERSION}; if nothing else is damaged write that into it, \
                 else restore a backup, or join anew with an empty directory"
            ),
        }),
    }
}

fn is_foreign(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !FOREIGN_ALLOWED.contains(&&*name) && name != format!(".{FORMAT}.new") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The text of a small file; `None` if there is none.
fn read_small(path: &Path) -> Result<Option<String>, DataDirError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io_error("read", path))?,
    };
    let mut text = String::new();
    match file.take(SMALL_FILE_LEN_MAX).read_to_string(&mut text) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(DataDirError::Damaged {
            path: path.to_owned(),
            reason: "it is not text; put it back from a copy, or restore a backup".to_owned(),
        }),
        Err(cause) => Err(DataDirError::Io { action: "read", path: path.to_owned(), cause }),
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    move |cause| DataDirError::Io { action, path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests;

//! Where bindings are served: a unix socket that only its owner can open, or a port on loopback.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::api::listen::{BACKLOG, listen};
use crate::config::Bindings;

/// Why bindings can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The port is taken, or not to be had.
    #[error("can't listen on {address} for bindings: {cause}; choose another address with --bindings")]
    Address {
        /// As configured.
        address: SocketAddr,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The socket can't be made.
    #[error("can't listen on the socket {path} for bindings: {cause}; choose another path with --bindings")]
    Socket {
        /// As configured.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// A process answers at that path.
    #[error("another process listens on {path}; stop it, or choose another path with --bindings")]
    Taken {
        /// As configured.
        path: PathBuf,
    },
    /// A file is in the way that is no socket.
    #[error("{path} exists and is not a socket; remove it, or choose another path with --bindings")]
    NotASocket {
        /// As configured.
        path: PathBuf,
    },
}

/// A listener of its own kind of socket.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A socket's file, removed when dropped unless another one has taken its place.
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Begins to listen. A socket that a dead process has left is replaced.
    pub(crate) async fn bind(at: &Bindings) -> Result<Self, ListenError> {
        match at {
            Bindings::Loopback(address) => {
                listen(*address).map(Self::Tcp).map_err(|cause| ListenError::Address { address: *address, cause })
            }
            Bindings::Unix(path) => bind_unix(path),
        }
    }

    /// Where it listens, as `--bindings` has it: with the port that the system picked.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string()),
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }
}

fn bind_unix(path: &Path) -> Result<Listener, ListenError> {
    let failed = |cause| ListenError::Socket { path: path.to_owned(), cause };
    clear(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    socket.bind(&SockAddr::unix(path).map_err(failed)?).map_err(failed)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path) };
    // Before `listen`, nobody can connect: there is no moment at which others could.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    socket.listen(BACKLOG as i32).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
    Ok(Listener::Unix(listener, file))
}

/// Removes a socket that nobody listens on.
fn clear(path: &Path) -> Result<(), ListenError> {
    let failed = |cause| ListenError::Socket { path: path.to_owned(), cause };
    match fs::symlink_metadata(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(failed(cause)),
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    match StdUnixStream::connect(path) {
        Err(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(cause) => Err(failed(cause)),
        Ok(_) => Err(ListenError::Taken { path: path.to_owned() }),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some()
            && identity(&self.path) == self.identity
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket for bindings stays behind");
        }
    }
}

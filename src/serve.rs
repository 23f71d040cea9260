//! `starling serve`: one node from start to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::datadir::{DataDir, DataDirError};
use crate::exit::Exit;

/// `SIGXFSZ`, which tokio has no name for.
const FILE_SIZE_EXCEEDED: i32 = 25;

/// Why a node stopped, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory can't be used or written.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The operating system lets the process have no signal handlers.
    #[error("can't handle signals: {0}")]
    Signals(io::Error),
}

impl ServeError {
    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::DataDir(error) => error.exit(),
            Self::Signals(_) => Exit::Failure,
        }
    }
}

/// Runs a node until a signal ends it.
pub async fn run(config: Config, data: DataDir) -> Result<(), ServeError> {
    let stop = shutdown_signal()?;
    tracing::info!(api = %config.api, gossip = %config.gossip, data = %data.path().display(), "would listen");
    stop.await;
    Ok(())
}

/// Completes at the first SIGTERM or SIGINT, both handled from this call on, not only from the first poll. A second
/// one ends the process at once, which loses no more than a crash would.
pub fn shutdown_signal() -> Result<impl Future<Output = ()> + Send + 'static, ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(Exit::Failure.code().into());
        });
    })
}

/// Makes a file that outgrows the process's limit (`ulimit -f`) a failed write, which the store can report, instead
/// of the death of the process. Holds for the process's life. Call within the runtime, before the first write.
pub fn survive_file_size_limit() -> Result<(), ServeError> {
    signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED)).map(drop).map_err(ServeError::Signals)
}

//! The thread that starts processes. The kernel ends a node when the thread that started it ends, so it must be one that
//! lives as long as the testnet does; threads of the runtime come and go.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

type Order = (Command, tokio::sync::oneshot::Sender<io::Result<Child>>);

/// Starts processes, which end with it.
pub struct Nursery(Sender<Order>);

impl Nursery {
    /// Opens one.
    pub fn open() -> io::Result<Self> {
        let (orders, taken): (_, Receiver<Order>) = channel();
        thread::Builder::new().name("nursery".into()).spawn(move || {
            for (mut command, reply) in taken {
                // Nobody may be interested any more; then the child is killed with this thread.
                let _ = reply.send(command.spawn());
            }
        })?;
        Ok(Self(orders))
    }

    /// Starts a process.
    pub async fn spawn(&self, command: Command) -> io::Result<Child> {
        let closed = || io::Error::other("the nursery is closed");
        let (reply, child) = tokio::sync::oneshot::channel();
        self.0.send((command, reply)).map_err(|_| closed())?;
        child.await.map_err(|_| closed())?
    }
}

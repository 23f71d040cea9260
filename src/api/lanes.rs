//! Threads that serve connections: each has its own event loop, and a connection stays on one of them for all its life.
//!
//! A request that needs nothing but memory is answered on the thread that has read it. Where all threads share their work,
//! as on the runtime that everything else runs on, they wake one another for it again and again, and wait meanwhile (docs/PERFORMANCE.md).
//!
//! Knows nothing of what is asked on a connection.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::rt::Executor;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::{interval, sleep};

/// More than there are processors: while one waits for what it has been asked, another finds something to do.
const LANES_MORE: usize = 1;
/// How long those that are told to end may take for their last words.
const LINGER: Duration = Duration::from_secs(1);

/// A timer that is due before those of requests: one that is due before all others has the event loop wake itself.
const BEAT: Duration = Duration::from_secs(1);

/// The threads. They end when this is dropped.
pub(crate) struct Lanes(Vec<Lane>);

struct Lane {
    runtime: Handle,
    /// Counts the connections.
    taken: Arc<()>,
    _stop: oneshot::Sender<()>,
}

impl Lanes {
    /// As many as suit this machine.
    pub(crate) fn start() -> io::Result<Self> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        (0..processors + LANES_MORE).map(|_| Lane::start()).collect::<io::Result<_>>().map(Self)
    }

    /// Serves a connection on the thread that has the fewest.
    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let Some(lane) = self.0.iter().min_by_key(|lane| Arc::strong_count(&lane.taken)) else { return };
        let taken = Arc::clone(&lane.taken);
        lane.runtime.spawn(async move {
            connection.await;
            drop(taken);
        });
    }
}

impl Lane {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name("lane".into()).spawn(move || {
            runtime.block_on(async {
                let (mut stopped, mut beat) = (stopped, interval(BEAT));
                loop {
                    tokio::select! {
                        // An error: nobody is left to say so.
                        _ = &mut stopped => break,
                        _ = beat.tick() => {}
                    }
                }
                sleep(LINGER).await;
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, taken: Arc::default(), _stop: stop })
    }
}

/// Has the requests of one HTTP/2 connection answered on the runtime that everything else runs on: they may be many.
#[derive(Clone)]
pub(crate) struct Streams(Handle);

impl Streams {
    /// On the runtime that this is called on.
    pub(crate) fn here() -> Self {
        Self(Handle::current())
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::future::pending;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn connections_are_spread_and_stay_where_they_are() {
        let lanes = Lanes::start().expect("threads");
        let (told, mut hear) = mpsc::unbounded_channel();
        let count = lanes.0.len();
        for _ in 0..3 * count {
            let told = told.clone();
            lanes.spawn(async move {
                let before = thread::current().id();
                tokio::task::yield_now().await;
                told.send((before, thread::current().id())).expect("heard");
                pending::<()>().await;
            });
        }
        let mut of = BTreeMap::new();
        for _ in 0..3 * count {
            let (before, after) = hear.recv().await.expect("told");
            assert_eq!(before, after);
            *of.entry(format!("{after:?}")).or_insert(0) += 1;
        }
        assert_eq!((of.len(), of.values().all(|taken| *taken == 3)), (count, true), "{of:?}");
    }

    #[tokio::test]
    async fn whoever_ends_leaves_room_and_the_threads_end_with_their_owner() {
        let lanes = Lanes::start().expect("threads");
        let busy = |lanes: &Lanes| lanes.0.iter().map(|lane| Arc::strong_count(&lane.taken) - 1).sum::<usize>();
        let (done, mut ended) = mpsc::channel::<()>(1);
        lanes.spawn(async {});
        lanes.spawn(async move {
            pending::<()>().await;
            drop(done);
        });
        timeout(Duration::from_secs(5), async {
            while busy(&lanes) != 1 {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("one is left");
        drop(lanes);
        assert_eq!(timeout(Duration::from_secs(10), ended.recv()).await, Ok(None), "it goes with its thread");
    }
}

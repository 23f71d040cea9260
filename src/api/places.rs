//! Places for connections. When all are taken, the connection that has been idle for longest makes room: one that has
//! sent nothing yet, or half of a request's headers, or that waits after an answer. So whoever opens connections and
//! says nothing on them keeps nobody out.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// So many places.
pub(super) struct Places {
    free: Arc<Semaphore>,
    total: u32,
    idle: Arc<Idle>,
}

/// Idle connections, the one that has been so for longest first.
#[derive(Default)]
struct Idle(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// A place for one connection.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    idle: Arc<Idle>,
    state: Mutex<State>,
    leave: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// Requests that have no whole answer yet.
    requests: usize,
    /// Place among the idle.
    queued: Option<u64>,
}

impl Idle {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, leave: &Arc<Notify>) -> u64 {
        let mut queue = self.queue();
        queue.next += 1;
        let number = queue.next;
        queue.waiting.insert(number, Arc::clone(leave));
        number
    }

    fn send_away_the_oldest(&self) {
        if let Some((_, leave)) = self.queue().waiting.pop_first() {
            leave.notify_one();
        }
    }
}

impl Places {
    pub(super) fn new(total: u32) -> Self {
        Self { free: Arc::new(Semaphore::new(total as usize)), total, idle: Arc::default() }
    }

    /// A place, if need be that of an idle connection.
    pub(super) async fn take(&self) -> io::Result<Arc<Place>> {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.idle.send_away_the_oldest();
                Arc::clone(&self.free).acquire_owned().await.map_err(io::Error::other)?
            }
        };
        let leave = Arc::default();
        let idle = Arc::clone(&self.idle);
        Ok(Arc::new(Place { _permit: permit, idle, state: Mutex::default(), leave }))
    }

    /// Completes when all are free.
    pub(super) async fn all_free(&self) {
        // An error would mean that there are no places any more.
        let _ = self.free.acquire_many(self.total).await;
    }

    pub(super) fn taken(&self) -> u32 {
        self.total.saturating_sub(u32::try_from(self.free.available_permits()).unwrap_or(0))
    }
}

impl Place {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a connection now; nothing was asked on it yet.
    pub(super) fn connected(&self) {
        self.state().queued = Some(self.idle.enter(&self.leave));
    }

    /// Completes when somebody else needs the place more.
    pub(super) async fn sent_away(&self) {
        self.leave.notified().await;
    }

    /// Whether a request of this connection is being answered.
    pub(super) fn is_answering(&self) -> bool {
        self.state().requests > 0
    }

    /// A request is being answered for as long as this is kept.
    pub(super) fn ask(self: &Arc<Self>) -> Asking {
        let mut state = self.state();
        state.requests += 1;
        if let Some(number) = state.queued.take() {
            self.idle.queue().waiting.remove(&number);
        }
        Asking(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(number) = self.state().queued.take() {
            self.idle.queue().waiting.remove(&number);
        }
    }
}

/// A request that has no whole answer yet.
pub(super) struct Asking(Arc<Place>);

impl Drop for Asking {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.requests -= 1;
        if state.requests == 0 {
            state.queued = Some(self.0.idle.enter(&self.0.leave));
        }
    }
}

/// An answer's body, whose request lasts as long as it does.
pub(super) struct Answering<B> {
    body: B,
    _asking: Asking,
}

impl<B> Answering<B> {
    pub(super) fn new(body: B, asking: Asking) -> Self {
        Self { body, _asking: asking }
    }
}

impl<B: Body + Unpin> Body for Answering<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// A connection's task, in little: gives its place up when it is sent away.
    fn connection(place: Arc<Place>) -> tokio::task::JoinHandle<()> {
        place.connected();
        tokio::spawn(async move { place.sent_away().await })
    }

    #[tokio::test]
    async fn whoever_is_idle_for_longest_makes_room_and_nobody_who_is_being_answered() {
        let places = Places::new(3);
        let first = places.take().await.expect("a place");
        let connections = [connection(Arc::clone(&first)), connection(places.take().await.expect("a place"))];
        let third = connection(places.take().await.expect("a place"));
        let asking = first.ask();
        assert!(connections.iter().all(|connection| !connection.is_finished()), "there was room");
        let fourth = timeout(Duration::from_secs(5), places.take()).await.expect("in time").expect("a place");
        let [first_task, second_task] = connections;
        second_task.await.expect("it was idle for longest, as the first one is being answered");
        assert!(!third.is_finished());
        // Answered, it is the one that was idle for the shortest time.
        drop((asking, first));
        fourth.connected();
        let fifth = timeout(Duration::from_secs(5), places.take()).await.expect("in time").expect("a place");
        third.await.expect("its turn");
        assert!(!first_task.is_finished() && places.taken() == 3);
        let _asking = (fourth.ask(), fifth.ask());
        let sixth = timeout(Duration::from_secs(5), places.take()).await.expect("in time").expect("a place");
        first_task.await.expect("the only idle one");
        let _asking = (_asking, sixth.ask());
        let none = timeout(Duration::from_millis(50), places.take()).await;
        assert!(none.is_err(), "all are being answered");
    }
}

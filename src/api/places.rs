//! Places for connections, and what becomes of those who take one and say nothing.
//!
//! When all are taken, the connection that has been idle for longest makes room: one that has sent nothing yet, or half
//! of a request's headers, or that waits after an answer. So whoever opens connections and says nothing on them keeps
//! nobody out. And whoever is idle for too long is [`late`](Place::is_late). A request costs two atomic counters and a
//! look at the clock here, no lock and no timer: it is the few that look at all places, when one is wanted and once a
//! second.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

/// How often somebody looks for those that are late.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);
/// So many of the idlest are found at a time: with few, a flood of connections would have all of them looked at again and
/// again.
const IDLEST: usize = 64;

/// So many places.
pub(crate) struct Places {
    free: Arc<Semaphore>,
    total: u32,
    taken: Arc<Taken>,
}

struct Taken {
    began: Instant,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    next: u64,
    all: BTreeMap<u64, Arc<State>>,
    /// The idlest when they were last looked for, the idlest of all at the end, with what was then
    /// [`idle_since`](State::idle_since). Whoever has not asked since is idle for longer than all that are not here.
    idlest: Vec<(u64, Arc<State>)>,
}

/// What a connection is to do. A later one overrules those before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Order {
    /// Go on.
    Stay,
    /// Answer what is being asked, then close.
    Drain,
    /// Close: its client has had its time.
    Late,
    /// Close at once.
    Leave,
}

/// A place for one connection.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    taken: Arc<Taken>,
    /// Among the connections; 0 before there is one.
    number: AtomicU64,
    state: Arc<State>,
}

/// How a connection is.
#[derive(Default)]
struct State {
    /// Requests that have no whole answer yet.
    requests: AtomicU32,
    /// Since when there are none: nanoseconds since the places were made.
    idle_since: AtomicU64,
    /// Bytes have come since there are none.
    has_begun: AtomicBool,
    /// The client is probed, and may be idle for as long as it answers.
    is_probed: AtomicBool,
    /// An [`Order`].
    order: AtomicU8,
    task: AtomicWaker,
}

impl Taken {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn send_away_the_idlest(&self) {
        let mut connections = self.connections();
        for _ in 0..2 {
            while let Some((since, place)) = connections.idlest.pop() {
                if place.idle_since() == Some(since) {
                    place.tell(Order::Leave);
                    return;
                }
            }
            connections.find_the_idlest();
        }
    }

    fn tell_all(&self, order: Order) {
        self.connections().all.values().for_each(|place| place.tell(order));
    }
}

impl Connections {
    fn find_the_idlest(&mut self) {
        let mut idlest = BinaryHeap::with_capacity(IDLEST + 1);
        for (number, place) in &self.all {
            let Some(since) = place.idle_since() else { continue };
            idlest.push((since, *number));
            if idlest.len() > IDLEST {
                idlest.pop();
            }
        }
        let mut idlest = idlest.into_vec();
        idlest.sort_unstable_by_key(|idle| Reverse(*idle));
        let found = |(since, number): (u64, u64)| Some((since, Arc::clone(self.all.get(&number)?)));
        self.idlest = idlest.into_iter().filter_map(found).collect();
    }
}

impl Places {
    pub(crate) fn new(total: u32) -> Self {
        let taken = Taken { began: Instant::now(), connections: Mutex::default() };
        Self { free: Arc::new(Semaphore::new(total as usize)), total, taken: Arc::new(taken) }
    }

    /// A place, if need be that of an idle connection.
    pub(crate) async fn take(&self) -> io::Result<Arc<Place>> {
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => Ok(self.place(permit)),
            Err(_) => {
                self.taken.send_away_the_idlest();
                self.wait().await
            }
        }
    }

    /// A place, as soon as one is free.
    pub(crate) async fn wait(&self) -> io::Result<Arc<Place>> {
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(io::Error::other)?;
        Ok(self.place(permit))
    }

    fn place(&self, permit: OwnedSemaphorePermit) -> Arc<Place> {
        let (taken, number, state) = (Arc::clone(&self.taken), AtomicU64::new(0), Arc::default());
        Arc::new(Place { _permit: permit, taken, number, state })
    }

    /// Tells those that have been idle for as long as `patience` that they are late, for as long as it is polled.
    pub(crate) async fn sweep(&self, patience: Duration) -> Infallible {
        let patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        loop {
            sleep(SWEEP_PERIOD).await;
            let connections = self.taken.connections();
            let now = self.taken.now();
            for place in connections.all.values() {
                let is_late = |since: u64| now.saturating_sub(since) >= patience;
                if place.idle_since().is_some_and(is_late) && !place.is_probed.load(Ordering::Relaxed) {
                    place.tell(Order::Late);
                }
            }
        }
    }

    /// No further requests: those that are being answered still are.
    pub(crate) fn drain(&self) {
        self.taken.tell_all(Order::Drain);
    }

    /// Completes when all are free.
    pub(crate) async fn all_free(&self) {
        // An error would mean that there are no places any more.
        let _ = self.free.acquire_many(self.total).await;
    }

    pub(crate) fn taken(&self) -> u32 {
        self.total.saturating_sub(u32::try_from(self.free.available_permits()).unwrap_or(0))
    }

    /// Whether more than half of them are free.
    pub(crate) fn has_plenty(&self) -> bool {
        self.taken() < self.total / 2
    }
}

impl Drop for Places {
    /// Nobody serves any more.
    fn drop(&mut self) {
        self.taken.tell_all(Order::Leave);
    }
}

impl State {
    fn tell(&self, order: Order) {
        if self.order.fetch_max(order as u8, Ordering::AcqRel) < order as u8 {
            self.task.wake();
        }
    }

    /// Since when nothing is asked; `None` if something is, or if it has been told to go already.
    fn idle_since(&self) -> Option<u64> {
        let is_idle = self.requests.load(Ordering::Acquire) == 0 && self.order.load(Ordering::Acquire) == 0;
        is_idle.then(|| self.idle_since.load(Ordering::Relaxed))
    }
}

impl Place {
    /// There is a connection now; nothing was asked on it yet.
    pub(crate) fn connected(&self) {
        self.state.idle_since.store(self.taken.now(), Ordering::Relaxed);
        let mut connections = self.taken.connections();
        connections.next += 1;
        let number = connections.next;
        self.number.store(number, Ordering::Relaxed);
        connections.all.insert(number, Arc::clone(&self.state));
    }

    /// The connection speaks no HTTP any more: it has ended, or has become something else. It is told nothing then.
    pub(crate) fn disconnected(&self) {
        self.taken.connections().all.remove(&self.number.load(Ordering::Relaxed));
        self.state.order.store(Order::Leave as u8, Ordering::Release);
    }

    /// What to do; the task is woken when that changes.
    pub(crate) fn order(&self, cx: &Context<'_>) -> Order {
        self.state.task.register(cx.waker());
        match self.state.order.load(Ordering::Acquire) {
            0 => Order::Stay,
            1 => Order::Drain,
            2 => Order::Late,
            _ => Order::Leave,
        }
    }

    /// Completes when there is no time left for it.
    pub(crate) async fn sent_away(&self) {
        std::future::poll_fn(|cx| if self.order(cx) >= Order::Late { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Whether its client has had its time.
    pub(crate) fn is_late(&self) -> bool {
        self.state.order.load(Ordering::Acquire) == Order::Late as u8
    }

    /// Bytes have come.
    pub(crate) fn begin(&self) {
        self.state.has_begun.store(true, Ordering::Relaxed);
    }

    /// Whether bytes have come since the last answer: of a request that is not complete, if nothing is being asked.
    pub(crate) fn has_begun(&self) -> bool {
        self.state.has_begun.load(Ordering::Relaxed)
    }

    /// Whether a request has no whole answer yet.
    pub(crate) fn is_asked(&self) -> bool {
        self.state.requests.load(Ordering::Acquire) > 0
    }

    /// The client is probed from now on.
    pub(crate) fn probed(&self) {
        self.state.is_probed.store(true, Ordering::Relaxed);
    }

    /// A request is being answered for as long as this is kept.
    pub(crate) fn ask(self: &Arc<Self>) -> Asking {
        self.state.requests.fetch_add(1, Ordering::AcqRel);
        Asking(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.disconnected();
    }
}

/// A request that has no whole answer yet.
pub(crate) struct Asking(Arc<Place>);

impl Drop for Asking {
    fn drop(&mut self) {
        let Place { taken, state, .. } = &*self.0;
        state.has_begun.store(false, Ordering::Relaxed);
        state.idle_since.store(taken.now(), Ordering::Relaxed);
        state.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An answer's body, whose request lasts as long as it does.
pub(crate) struct Answering<B> {
    body: B,
    _asking: Asking,
}

impl<B> Answering<B> {
    pub(crate) fn new(body: B, asking: Asking) -> Self {
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
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;

    /// A connection's task, in little: gives its place up when it is sent away.
    fn connection(place: Arc<Place>) -> JoinHandle<()> {
        place.connected();
        tokio::spawn(async move { place.sent_away().await })
    }

    async fn taken(places: &Places) -> Arc<Place> {
        timeout(Duration::from_secs(5), places.take()).await.expect("in time").expect("a place")
    }

    #[tokio::test]
    async fn whoever_is_idle_for_longest_makes_room_and_nobody_who_is_being_answered() {
        let places = Places::new(3);
        let first = taken(&places).await;
        let connections = [connection(Arc::clone(&first)), connection(taken(&places).await)];
        let third = connection(taken(&places).await);
        let asking = first.ask();
        assert!(connections.iter().all(|connection| !connection.is_finished()), "there was room");
        let fourth = taken(&places).await;
        let [first_task, second_task] = connections;
        second_task.await.expect("it was idle for longest, as the first one is being answered");
        assert!(!third.is_finished());
        // Answered, it is the one that was idle for the shortest time.
        drop((asking, first));
        fourth.connected();
        let fifth = taken(&places).await;
        third.await.expect("its turn");
        assert!(!first_task.is_finished() && places.taken() == 3);
        let _asking = (fourth.ask(), fifth.ask());
        let sixth = taken(&places).await;
        first_task.await.expect("the only idle one");
        let _asking = (_asking, sixth.ask());
        let none = timeout(Duration::from_millis(50), places.take()).await;
        assert!(none.is_err(), "all are being answered");
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_are_looked_for_at_once_go_in_the_order_of_their_idleness() {
        let total = 3 * IDLEST;
        let places = Places::new(total as u32);
        let mut connected = Vec::new();
        for _ in 0..total {
            let place = taken(&places).await;
            connected.push((Arc::downgrade(&place), connection(place)));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        // Every other one was asked something since, and is the youngest now, in the opposite order.
        for place in connected.iter().step_by(2).rev().filter_map(|(place, _)| place.upgrade()) {
            drop(place.ask());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let mut newcomers = Vec::new();
        for at in (1..total).step_by(2).chain((0..total).step_by(2).rev()) {
            newcomers.push(taken(&places).await);
            assert!(connected[at].1.is_finished(), "{at} was the idlest");
            assert_eq!(connected.iter().filter(|(_, task)| task.is_finished()).count(), newcomers.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_idle_for_too_long_is_late_unless_probed_or_answered() {
        let places = Places::new(8);
        let [silent, asked, probed, answered] =
            [taken(&places).await, taken(&places).await, taken(&places).await, taken(&places).await];
        for place in [&silent, &asked, &probed, &answered] {
            place.connected();
        }
        let _asking = answered.ask();
        probed.probed();
        let patience = Duration::from_secs(30);
        let mut sweep = Box::pin(places.sweep(patience));
        assert!(timeout(Duration::from_secs(20), &mut sweep).await.is_err());
        drop(asked.ask());
        assert!(!silent.is_late());
        assert!(timeout(Duration::from_secs(12), &mut sweep).await.is_err());
        let late = [&silent, &asked, &probed, &answered].map(|place| place.is_late());
        assert_eq!(late, [true, false, false, false]);
        silent.sent_away().await;
        assert!(timeout(Duration::from_secs(20), &mut sweep).await.is_err());
        assert!(asked.is_late(), "its time counts from its answer");
        drop(sweep);
        drop(places);
        answered.sent_away().await;
    }
}

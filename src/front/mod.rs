//! The front: where requests for Workers arrive. Finds the script by host and path, has the engine answer, and says
//! clearly why if it can't.
//!
//! Goes through the catalog for what is deployed, and through [`Engine`] for running it; knows nothing of how that is
//! done.

mod answer;
mod cron;
mod crowd;
mod forward;
mod pages;
mod pattern;
mod routes;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rand::rngs::ChaCha12Rng;
use rand::{RngExt, SeedableRng};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::api::serve::{ApiError, serve_with};
use crate::https::ServerTls;
use crate::kv::{AccountId, Kv};
use crate::metrics::EngineUsage;
use crate::operator::Operator;
use crate::worker::engine::{Engine, Vitals};
use crate::worker::static_files::{Content, Files};
use crate::worker::{Program, Workers};
use crowd::Crowd;
use forward::Cf;
use routes::Routes;

/// How long the front waits before it looks again at a catalog that could not be read.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How long what was deployed before can still be asked for: whoever has just been told where to go gets there.
const LEAVING: Duration = Duration::from_secs(1);

/// What the front is told.
#[derive(Debug, Clone)]
pub struct FrontConfig {
    /// The PoP that scripts see in `request.cf.colo`.
    pub pop: Option<String>,
    /// The account whose scripts have short names.
    pub account: AccountId,
    /// Serves HTTPS with this certificate, and nothing else.
    pub tls: Option<Arc<ServerTls>>,
    /// Draws versions; random, and used once.
    pub seed: [u8; 32],
}

/// Whether there is an engine.
#[derive(Clone)]
pub enum Runtime {
    /// There is.
    Ready(Arc<dyn Engine>),
    /// There is none: why, and what to do about it.
    Missing(String),
}

/// The front. Cheap to clone.
#[derive(Clone)]
pub struct Front(Arc<Shared>);

struct Shared {
    kv: Kv,
    workers: Workers,
    operator: Operator,
    config: FrontConfig,
    // Every request reads these two.
    runtime: ArcSwap<Runtime>,
    routes: ArcSwap<Routes>,
    /// Looks again at what is deployed.
    retry: Notify,
    crowd: Crowd,
    draws: Mutex<ChaCha12Rng>,
    cf: Cf,
}

impl Front {
    /// A front for what is deployed at the node behind `kv`.
    pub fn new(kv: Kv, workers: Workers, operator: Operator, runtime: Runtime, config: FrontConfig) -> Self {
        let draws = Mutex::new(ChaCha12Rng::from_seed(config.seed));
        let (routes, crowd, retry) = Default::default();
        let (runtime, cf) = (ArcSwap::from_pointee(runtime), Cf::of(config.pop.as_deref()));
        let front = Self(Arc::new(Shared { kv, workers, operator, config, runtime, routes, retry, crowd, draws, cf }));
        let asked = front.downgrade();
        front.0.operator.metrics().workers().ask_engine(move || asked.usage());
        front
    }

    /// Serves on `listener` until `shutdown` completes; then lets requests finish.
    ///
    /// # Errors
    /// If requests had to be cut at the end.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<(), ApiError> {
        let (follower, timers) = (self.clone(), self.clone());
        let following = tokio::spawn(async move { follower.follow().await });
        let timing = tokio::spawn(async move { cron::run(timers).await });
        let served = serve_with(listener, Arc::new(self.clone()), shutdown).await;
        following.abort();
        timing.abort();
        if let Runtime::Ready(engine) = self.runtime() {
            engine.stop().await;
        }
        served
    }

    /// The same front, for whoever should not keep it.
    pub fn downgrade(&self) -> WeakFront {
        WeakFront(Arc::downgrade(&self.0))
    }

    /// Keeps up with what is deployed.
    async fn follow(&self) {
        let mut changed = self.0.workers.changed();
        let mut leaving: Vec<(Instant, Arc<Routes>)> = Vec::new();
        loop {
            leaving.retain(|(since, _)| since.elapsed() < LEAVING);
            changed.borrow_and_update();
            match self.0.workers.live().await {
                Ok(live) => {
                    let routes = Arc::new(Routes::new(live, self.0.config.account));
                    // First the programs: whoever finds a route finds a program that is getting ready.
                    if let Runtime::Ready(engine) = self.runtime() {
                        let before = self.routes().programs();
                        let gone = leaving.iter().flat_map(|(_, routes)| routes.programs());
                        engine.prepare(routes.programs().into_iter().chain(before).chain(gone).collect());
                    }
                    leaving.push((Instant::now(), self.0.routes.swap(routes)));
                }
                Err(error) => {
                    tracing::warn!(%error, "what is deployed can't be read; what was deployed before is served");
                    sleep(LOOK_PAUSE).await;
                    continue;
                }
            }
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = self.0.retry.notified() => {}
                () = sleep(LEAVING), if !leaving.is_empty() => {
                    leaving.clear();
                    if let Runtime::Ready(engine) = self.runtime() {
                        engine.prepare(self.routes().programs());
                    }
                }
            }
        }
    }

    fn runtime(&self) -> Runtime {
        Runtime::clone(&self.0.runtime.load())
    }

    fn routes(&self) -> Arc<Routes> {
        self.0.routes.load_full()
    }

    /// From 0 to 1.
    fn draw(&self) -> f64 {
        self.0.draws.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}

/// A front that may be gone.
pub struct WeakFront(Weak<Shared>);

impl WeakFront {
    /// There is an engine now.
    pub fn run_with(&self, engine: Arc<dyn Engine>) {
        if let Some(front) = self.0.upgrade().map(Front) {
            engine.prepare(front.routes().programs());
            front.0.runtime.store(Arc::new(Runtime::Ready(engine)));
            // What was deployed in between.
            front.0.retry.notify_one();
        }
    }

    /// What runs here.
    fn usage(&self) -> EngineUsage {
        let Some(front) = self.0.upgrade().map(Front) else { return EngineUsage::default() };
        let Vitals { processes, runtimes, memory_bytes, ended } = match front.runtime() {
            Runtime::Ready(engine) => engine.vitals(),
            Runtime::Missing(_) => Vitals::default(),
        };
        EngineUsage { scripts: front.routes().all().len(), processes, runtimes, memory_bytes, ended }
    }

    /// There is none yet, for that reason.
    pub fn miss(&self, why: String) {
        if let Some(front) = self.0.upgrade() {
            front.runtime.store(Arc::new(Runtime::Missing(why)));
        }
    }
}

impl Files for Workers {
    fn content<'a>(&'a self, program: &'a Program, hash: [u8; 16]) -> Content<'a> {
        Box::pin(async move {
            let found: Result<Option<Bytes>, _> = self.asset(program, hash).await;
            found.unwrap_or_else(|error| {
                tracing::warn!(script = program.script, %error, "a static file can't be read");
                None
            })
        })
    }
}

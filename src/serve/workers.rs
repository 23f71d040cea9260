//! Workers at this node: where their requests arrive, and what runs them, as soon as it is installed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::sleep;

use super::ServeError;
use crate::api::listen::listen;
use crate::config::{Config, WorkerEngine, WorkersAt};
use crate::datadir::DataDir;
use crate::front::{Front, FrontConfig, Runtime};
use crate::https::ServerTls;
use crate::kv::Kv;
use crate::node::{Node, StartError, entropy};
use crate::operator::Operator;
use crate::worker::Workers;
use crate::worker::embedded::{Embedded, unfit};
use crate::worker::workerd::{NotFound, Workerd, WorkerdConfig, find};

/// How often it is looked whether an engine was installed meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Directory of the engine's sockets within the data directory.
const SOCKETS: &str = "w";

/// Listens for requests for Workers.
pub(super) fn listen_for_workers(config: &Config, api: SocketAddr) -> Result<Option<TcpListener>, ServeError> {
    let bind = |address: SocketAddr| listen(address).map_err(|cause| ServeError::ListenWorkers { address, cause });
    match config.workers {
        WorkersAt::Nowhere => Ok(None),
        WorkersAt::Address(address) => bind(address).map(Some),
        WorkersAt::BesideApi => {
            let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
            // Where the system picks the one port it picks the other one too.
            let port = if config.api.port() == 0 { 0 } else { api.port().checked_add(1).unwrap_or(0) };
            match bind(SocketAddr::new(loopback, port)) {
                Ok(listener) => Ok(Some(listener)),
                Err(error) => {
                    let listener = bind(SocketAddr::new(loopback, 0))?;
                    let instead = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
                    tracing::warn!(%error, instead, "requests for Workers arrive at another port");
                    Ok(Some(listener))
                }
            }
        }
    }
}

/// What is deployed, and may be.
pub(super) fn catalog(config: &Config, node: &Node) -> Workers {
    match config.worker_engine {
        WorkerEngine::Embedded => Workers::for_engine(node.kv().clone(), unfit),
        WorkerEngine::Workerd | WorkerEngine::None => Workers::new(node.kv().clone()),
    }
}

/// The front, and an engine for it as soon as there is one.
pub(super) fn front(
    config: &Config,
    data: &DataDir,
    node: &Node,
    operator: &Operator,
    workers: &Workers,
    tls: Option<Arc<ServerTls>>,
) -> Result<Front, ServeError> {
    let seed: [u8; 32] = entropy().map_err(StartError::Entropy)?;
    let unique: [u8; 8] = entropy().map_err(StartError::Entropy)?;
    let front_config = FrontConfig { pop: config.pop.clone(), account: node.account(), tls, seed };
    let runtime = match config.worker_engine {
        WorkerEngine::Embedded => {
            let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            let (kv, files) = (node.kv().clone(), Arc::new(workers.clone()));
            match Embedded::start(threads, config.workers_fetch_local, kv, workers.tails().clone(), files) {
                Ok(engine) => Runtime::Ready(Arc::new(engine)),
                Err(error) => Runtime::Missing(format!("It has no threads: {error}")),
            }
        }
        WorkerEngine::Workerd => Runtime::Missing(NotFound::Nowhere.to_string()),
        WorkerEngine::None => Runtime::Missing("It was started with --worker-engine none".to_owned()),
    };
    if config.worker_engine != WorkerEngine::Workerd && config.workerd.is_some() {
        tracing::warn!("--workerd is not used: only --worker-engine workerd asks for it");
    }
    let front = Front::new(node.kv().clone(), workers.clone(), operator.clone(), runtime, front_config);
    if config.worker_engine == WorkerEngine::Workerd {
        let search = Search {
            named: config.workerd.clone(),
            data: std::path::absolute(data.path()).unwrap_or_else(|_| data.path().to_owned()),
            unique: u64::from_ne_bytes(unique),
            reach_local: config.workers_fetch_local,
            kv: node.kv().clone(),
            workers: workers.clone(),
        };
        let weak = front.downgrade();
        tokio::spawn(async move {
            let mut said = None;
            loop {
                match search.engine().await {
                    Ok(engine) => return weak.run_with(Arc::new(engine)),
                    Err(why) => {
                        if said.as_ref() != Some(&why) {
                            tracing::info!("Workers don't run at this node: {why}");
                            weak.miss(why.clone());
                            said = Some(why);
                        }
                    }
                }
                sleep(LOOK_EVERY).await;
            }
        });
    }
    Ok(front)
}

/// Where an engine may be, and what it will need.
struct Search {
    named: Option<PathBuf>,
    data: PathBuf,
    unique: u64,
    reach_local: bool,
    kv: Kv,
    workers: Workers,
}

impl Search {
    async fn engine(&self) -> Result<Workerd, String> {
        let (named, data) = (self.named.clone(), self.data.clone());
        let found = tokio::task::spawn_blocking(move || find(named.as_deref(), &data)).await;
        let found = found.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        tracing::info!(path = %found.path.display(), version = found.version, "Workers run on workerd");
        // This very program, which then becomes the runtime.
        let launcher = ["/proc/self/exe", "workers", "run-engine", "--"].map(Into::into).to_vec();
        let config = WorkerdConfig {
            workerd: found.path,
            launcher,
            sockets: self.data.join(SOCKETS),
            unique: self.unique,
            reach_local: self.reach_local,
        };
        let (kv, files) = (self.kv.clone(), Arc::new(self.workers.clone()));
        Workerd::start(config, kv, self.workers.tails().clone(), files).map_err(|error| error.to_string())
    }
}

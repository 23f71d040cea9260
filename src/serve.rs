//! `starling serve`: one node from start to stop, with its HTTP API and its Workers.

mod workers;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::api::listen::listen;
use crate::api::{self, ApiConfig, ApiError, Quotas};
use crate::banner::{Started, banner};
use crate::binding::{self, AnyNamespace, Authorize, ListenError, TokenHolder};
use crate::config::{Bindings, Config};
use crate::datadir::{DataDir, DataDirError, Running, api_url};
use crate::exit::Exit;
use crate::https::{CertificateSource, ServerTls, TlsError};
use crate::kv::{Grants, KvError, NewToken};
use crate::node::{Node, StartError, entropy};
use crate::operator::Operator;
use crate::secret::Secret;

/// `SIGXFSZ`, which tokio has no name for.
const FILE_SIZE_EXCEEDED: i32 = 25;

/// Why a node stopped, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory can't be used or written.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The node could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The API address can't be used.
    #[error("can't listen on {address} for the API: {cause}; choose another address with --api")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the operating system said.
        cause: io::Error,
    },
    /// Bindings can't be served where they should.
    #[error(transparent)]
    Bindings(#[from] ListenError),
    /// The address for Workers can't be used.
    #[error("can't listen on {address} for Workers: {cause}; choose another address with --workers, or --workers off")]
    ListenWorkers {
        /// As configured.
        address: SocketAddr,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The metrics address can't be used.
    #[error("can't listen on {address} for metrics: {cause}; choose another address with --metrics")]
    ListenMetrics {
        /// As configured.
        address: SocketAddr,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The admin token could not be made known.
    #[error("can't set up the admin token: {0}")]
    AdminToken(KvError),
    /// There is no HTTPS as configured.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The API did not end well.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A bug has ended the driver.
    #[error("the node's driver has ended; this is a bug, the log says more. Nothing acknowledged is lost: start again")]
    Broken,
    /// The operating system lets the process have no signal handlers.
    #[error("can't handle signals: {0}")]
    Signals(io::Error),
}

impl ServeError {
    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::DataDir(error) => error.exit(),
            Self::Start(error) => error.exit(),
            Self::AdminToken(KvError::ReadOnly(_)) => Exit::StorageFailed,
            _ => Exit::Failure,
        }
    }
}

/// Runs a node until a signal ends it, or until it has left its cluster.
pub async fn run(config: Config, data: DataDir) -> Result<(), ServeError> {
    let stop = shutdown_signal()?;
    // Before anything is joined or written: a taken address should leave no trace.
    let listener = listen(config.api).map_err(|cause| ServeError::Listen { address: config.api, cause })?;
    let api = listener.local_addr().map_err(|cause| ServeError::Listen { address: config.api, cause })?;
    let observers = match config.metrics {
        Some(address) => Some(listen(address).map_err(|cause| ServeError::ListenMetrics { address, cause })?),
        None => None,
    };
    let bindings = match &config.bindings {
        Some(at) => Some(binding::Listener::bind(at).await?),
        None => None,
    };
    let workers_listener = workers::listen_for_workers(&config, api)?;
    let node = Node::start(&config, &data).await?;
    let operator = Operator::new(&node, config.pop.clone(), config.durability);
    let tls = server_tls(&config, api, &node, &data)?;
    admin_token(&node, &data).await?;
    let workers_url = workers_listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let workers_url = workers_url.map(|address| api_url(address, tls.is_some()));
    data.write_running(&Running {
        node: node.id().to_string(),
        name: node.name().to_owned(),
        pop: config.pop.clone(),
        account: node.account().to_string(),
        api: api_url(api, tls.is_some()),
        api_certificate: tls.as_ref().map(|tls| tls.certificate_path().clone()),
        bindings: bindings.as_ref().map(binding::Listener::shown),
        workers: workers_url.clone(),
        gossip: node.advertised().to_owned(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })?;
    banner(&Started {
        api,
        bindings: bindings.as_ref().map(binding::Listener::shown),
        workers: workers_url.clone(),
        gossip: node.gossip(),
        node: node.id().to_string(),
        name: node.name().to_owned(),
        pop: config.pop.clone(),
        account: node.account().to_string(),
        data: data.path().to_owned(),
        token_path: (!config.dev).then(|| data.admin_token_path()),
        peers: node.others(),
        certificate: tls.as_ref().map(|tls| tls.certificate_path().clone()),
    });
    let failures = Arc::default();
    let authorize: Arc<dyn Authorize> = match &config.bindings {
        Some(Bindings::Loopback(_)) if !config.dev => Arc::new(TokenHolder { failures: Arc::clone(&failures) }),
        _ => Arc::new(AnyNamespace),
    };
    let workers = workers::catalog(&config, &node);
    let front = match workers_listener {
        Some(listener) => Some((listener, workers::front(&config, &data, &node, &operator, &workers, tls.clone())?)),
        None => None,
    };
    let api_config = ApiConfig {
        dev: config.dev,
        pop: config.pop,
        node: node.name().to_owned(),
        account: node.account(),
        workers_url,
        tls,
        failures,
        quotas: Quotas {
            token_rate: config.token_rate,
            account_rate: config.account_rate,
            account_keys: config.account_keys,
            account_bytes: config.account_bytes,
        },
    };
    let leaving = operator.clone();
    let (stopping, mut stopped) = watch::channel(false);
    let mut stopped_too = stopped.clone();
    let until = async move {
        tokio::select! {
            () = stop => tracing::info!("stopping"),
            () = leaving.left() => tracing::info!("left the cluster, stopping"),
        }
        stopping.send_replace(true);
    };
    let kv = node.kv().clone();
    let bound = async {
        if let Some(listener) = bindings {
            let until = async {
                // An error means that the API has ended, and with it everything else.
                let _ = stopped.wait_for(|stopping| *stopping).await;
            };
            binding::serve(listener, kv.clone(), authorize, binding::CONNECTIONS_MAX, until).await;
        }
    };
    let fronted = async {
        if let Some((listener, front)) = front {
            let until = async {
                // An error means that the API has ended, and with it everything else.
                let _ = stopped_too.wait_for(|stopping| *stopping).await;
            };
            if let Err(error) = front.serve(listener, until).await {
                tracing::warn!(%error, "requests for Workers were cut off");
            }
        }
    };
    if let Some(listener) = observers {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "metrics for everyone who can reach this address");
        }
        // Until the process ends: an observer may want to see the end.
        tokio::spawn(api::serve_observers(listener, operator.clone(), std::future::pending()));
    }
    let served = tokio::select! {
        (served, (), ()) = async {
            tokio::join!(api::serve(listener, kv.clone(), operator, workers, api_config, until), bound, fronted)
        } => {
            served.map_err(ServeError::Api)
        }
        () = node.broken() => Err(ServeError::Broken),
    };
    node.stop().await;
    served
}

/// The certificate for clients, if there is to be one.
fn server_tls(
    config: &Config,
    api: SocketAddr,
    node: &Node,
    data: &DataDir,
) -> Result<Option<Arc<ServerTls>>, ServeError> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let source = match (&config.tls_cert, &config.tls_key, &config.tls_auto) {
        (Some(certificate), Some(key), _) => {
            CertificateSource::Files { certificate: absolute(certificate), key: absolute(key) }
        }
        (_, _, Some(names)) => {
            let mut names = names.clone();
            let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let own = ["localhost", "127.0.0.1", "::1", hostname.trim(), &config.advertised(node.gossip()).host];
            names.extend(own.into_iter().filter(|name| !name.is_empty()).map(str::to_owned));
            if !api.ip().is_unspecified() {
                names.push(api.ip().to_string());
            }
            names.sort();
            names.dedup();
            let (authority, shown) = (Box::new(node.authority().clone()), absolute(&data.join("api.crt")));
            CertificateSource::Authority { authority, names, shown }
        }
        _ => return Ok(None),
    };
    Ok(Some(Arc::new(ServerTls::load(source, node.handle().clock())?)))
}

/// Makes the admin token on the first start; every start makes sure that the cluster knows it.
async fn admin_token(node: &Node, data: &DataDir) -> Result<(), ServeError> {
    let is_token = |token: &Secret| token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    let token = match data.admin_token() {
        Ok(Some(token)) if is_token(&token) => token,
        Ok(None) => new_admin_token(data)?,
        Ok(Some(_)) | Err(DataDirError::Damaged { .. }) => {
            tracing::warn!("the file of the admin token is damaged, so there is a new one");
            new_admin_token(data)?
        }
        Err(error) => return Err(error.into()),
    };
    if node.kv().authenticate(token.expose()).is_some() {
        return Ok(());
    }
    let name = format!("admin of {}", node.name());
    let new = NewToken { account: node.account(), name, grants: Grants::all(), expires_ms: 0 };
    match node.kv().add_token(token.expose(), new.clone()).await {
        Ok(_) => Ok(()),
        // It was revoked, or rolled and has expired. Who can read this directory may have another one.
        Err(KvError::TokenRevoked) => {
            let token = new_admin_token(data)?;
            tracing::warn!("the admin token was revoked, so there is a new one");
            node.kv().add_token(token.expose(), new).await.map(drop).map_err(ServeError::AdminToken)
        }
        Err(error) => Err(ServeError::AdminToken(error)),
    }
}

fn new_admin_token(data: &DataDir) -> Result<Secret, ServeError> {
    let random: [u8; 32] = entropy().map_err(StartError::Entropy)?;
    let text = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, random);
    let token = Secret::new(&text);
    data.write_admin_token(&token)?;
    Ok(token)
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

/// Whatever this process writes from now on, libraries included, only its user can read.
pub fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// Connections are files: takes the most that the system lets this process have, where less is usual.
pub fn open_as_many_files_as_allowed() {
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    // An error means that it stays as it was.
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
}

/// Makes a file that outgrows the process's limit (`ulimit -f`) a failed write, which the store can report, instead
/// of the death of the process. Holds for the process's life. Call within the runtime, before the first write.
pub fn survive_file_size_limit() -> Result<(), ServeError> {
    signal(SignalKind::from_raw(FILE_SIZE_EXCEEDED)).map(drop).map_err(ServeError::Signals)
}

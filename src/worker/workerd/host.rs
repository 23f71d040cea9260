//! One process that runs programs, with the places where they reach the node.
//!
//! Knows nothing of other processes, nor of which programs should run where.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::Files;
use super::config::{self, Places};
use super::desk;
use super::process::{Launch, Place, Process, SocketDir, Starter};
use super::reach::Reach;
use super::seat::{House, Seat, connect};
use crate::binding;
use crate::config::Bindings;
use crate::kv::Kv;
use crate::worker::cache::Cache;
use crate::worker::engine::{EngineError, Streamed};
use crate::worker::{Program, Tails};

/// How long a process may take until it listens, and how much of that it may compute: for itself, and for each program.
const START_PATIENCE: Duration = Duration::from_secs(60);
const START_CPU: Duration = Duration::from_secs(3);
const START_CPU_EACH: Duration = Duration::from_millis(100);
/// How often a process that starts is asked whether it listens.
const START_PAUSE: Duration = Duration::from_millis(2);
/// How often it is looked what it costs meanwhile.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Connections of one program to the node, at a time.
const BINDING_CONNECTIONS_MAX: u32 = 128;
/// Memory that a process may have, in bytes: for itself, and for each program.
const MEMORY_MAX: u64 = 512 * 1024 * 1024;
const MEMORY_EACH: u64 = 32 * 1024 * 1024;
/// Longest answer of the warden, in bytes.
const WARDEN_ANSWER_LEN_MAX: usize = 4096;

/// A program that is to run.
#[derive(Clone)]
pub(super) struct Guest {
    pub(super) program: Arc<Program>,
    pub(super) reach: Arc<Reach>,
    pub(super) is_watched: bool,
}

/// What a process is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Programs that have done no harm, together.
    Shared,
    /// Programs of which one has, or may have.
    Custody,
}

/// How a process came to harm.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    /// What happened.
    pub(super) why: EngineError,
    /// The version that did it, where only one can have.
    pub(super) guilty: Option<String>,
}

/// A process that runs.
pub(super) struct Host {
    pub(super) number: u64,
    pub(super) kind: Kind,
    pub(super) process: Process,
    pub(super) house: Arc<House>,
    /// By version.
    pub(super) seats: BTreeMap<String, Arc<Seat>>,
    /// Whether any program has something go on after its answer.
    pub(super) may_linger: bool,
    /// Whether any request was sent to it.
    pub(super) has_served: AtomicBool,
    /// Nothing more is to be expected of it: whoever can, goes elsewhere.
    pub(super) evacuated: watch::Sender<bool>,
    pub(super) verdict: watch::Sender<Option<Verdict>>,
    pub(super) is_retired: AtomicBool,
    place: Place,
    /// Dropping them ends what serves the programs at the node.
    _service: Vec<oneshot::Sender<()>>,
}

/// Why a process does not run.
pub(super) enum Unstarted {
    /// Of these versions the runtime said why it can't load them.
    Refused(BTreeMap<String, String>),
    /// One of the programs keeps it from starting.
    Stuck(String),
    /// The machine keeps it from starting.
    Failed(String),
}

/// What hosts have in common.
pub(super) struct Ground {
    pub(super) starter: Starter,
    pub(super) launch: Launch,
    pub(super) sockets: SocketDir,
    pub(super) reach_local: bool,
    pub(super) kv: Kv,
    pub(super) tails: Tails,
    pub(super) files: Arc<dyn Files>,
    pub(super) cache: Cache,
}

impl Host {
    /// Starts a process with these programs in it, and waits until it answers.
    pub(super) async fn start(ground: &Ground, number: u64, kind: Kind, guests: &[Guest]) -> Result<Self, Unstarted> {
        let failed = |error: io::Error| Unstarted::Failed(error.to_string());
        let place = ground.sockets.place(number).map_err(failed)?;
        let house = Arc::new(House::default());
        let mut service = Vec::new();
        let mut seats = BTreeMap::new();
        for (index, guest) in guests.iter().enumerate() {
            if !guest.program.bindings.is_empty() {
                let listener = binding::Listener::bind(&Bindings::Unix(place.bindings(index))).await;
                let listener = listener.map_err(|error| Unstarted::Failed(error.to_string()))?;
                let (end, ended) = oneshot::channel::<()>();
                let (session, reach) = (guest.reach.session.clone(), Arc::clone(&guest.reach));
                tokio::spawn(async move {
                    let until = async { drop(ended.await) };
                    binding::serve(listener, session, reach, BINDING_CONNECTIONS_MAX, until).await;
                });
                service.push(end);
            }
            let seat = Seat::new(index, Arc::clone(&guest.program), place.requests(index), Arc::clone(&house));
            seats.insert(guest.program.version.clone(), Arc::new(seat));
        }
        let (end, ended) = oneshot::channel::<()>();
        let desk = desk::Desk {
            guests: guests.to_vec(),
            tails: ground.tails.clone(),
            files: Arc::clone(&ground.files),
            cache: ground.cache.clone(),
            kv: ground.kv.clone(),
        };
        desk::serve(&place.desk(), desk, ended).map_err(failed)?;
        service.push(end);
        let taken: Vec<config::Seat<'_>> = guests
            .iter()
            .enumerate()
            .map(|(number, guest)| config::Seat { number, program: &guest.program, is_watched: guest.is_watched })
            .collect();
        let process = {
            let text = config::write(&taken, &place, ground.reach_local);
            Process::start(&ground.starter, &ground.launch, &text, &["--experimental"]).await.map_err(failed)?
        };
        if kind == Kind::Custody {
            process.step_back();
        }
        let may_linger = guests.iter().any(|guest| mentions_wait_until(&guest.program));
        let host = Self {
            number,
            kind,
            process,
            house,
            seats,
            may_linger,
            has_served: AtomicBool::new(false),
            evacuated: watch::channel(false).0,
            verdict: watch::channel(None).0,
            is_retired: AtomicBool::new(false),
            place,
            _service: service,
        };
        host.listens(guests).await?;
        Ok(host)
    }

    async fn listens(&self, guests: &[Guest]) -> Result<(), Unstarted> {
        let begun = Instant::now();
        let cpu_max = START_CPU + START_CPU_EACH * u32::try_from(guests.len()).unwrap_or(u32::MAX);
        let ask = |pause: Duration| async move {
            sleep(pause).await;
            self.ping().await
        };
        let mut answer = Box::pin(ask(Duration::ZERO));
        loop {
            tokio::select! {
                () = self.process.ended() => return Err(blame(&self.process.said(), guests)),
                answered = &mut answer => match answered {
                    Ok(()) => return Ok(()),
                    Err(_) => answer.set(ask(START_PAUSE)),
                },
                // It may listen before it is ready, and never get there.
                () = sleep(LOOK_PAUSE) => {}
            }
            let spent = self.process.usage().map_or(Duration::ZERO, |(spent, _)| spent);
            if spent > cpu_max {
                return Err(Unstarted::Stuck(format!("it computed for {} s before it was ready", spent.as_secs())));
            }
            if begun.elapsed() > START_PATIENCE {
                return Err(Unstarted::Failed(format!("it was not ready within {} s", START_PATIENCE.as_secs())));
            }
        }
    }

    /// Completes when the event loop has turned once.
    pub(super) async fn ping(&self) -> io::Result<()> {
        self.warden("/", START_PATIENCE).await.map(drop)
    }

    /// Has the program in a seat handle a timer.
    pub(super) async fn scheduled(&self, seat: &Seat, cron: &str, due_ms: u64, patience: Duration) -> io::Result<bool> {
        let cron = percent_encoding::utf8_percent_encode(cron, percent_encoding::NON_ALPHANUMERIC);
        let answer = self.warden(&format!("/p{}?cron={cron}&due={due_ms}", seat.number), patience).await?;
        Ok(answer.windows(4).any(|part| part == br#""ok""#))
    }

    async fn warden(&self, path: &str, patience: Duration) -> io::Result<Vec<u8>> {
        let mut connection = connect(&self.place.warden()).await?;
        let body: Streamed = Streamed::empty();
        let request = Request::builder().method(Method::GET).uri(path).header("host", "warden").body(body);
        let asked = async {
            let response =
                connection.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
            if response.status() != StatusCode::OK {
                return Err(io::Error::other(format!("the warden answered {}", response.status())));
            }
            let body = Limited::new(response.into_body(), WARDEN_ANSWER_LEN_MAX).collect().await;
            Ok(body.map_err(io::Error::other)?.to_bytes().to_vec())
        };
        timeout(patience, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    pub(super) fn memory_max(&self) -> u64 {
        MEMORY_MAX + MEMORY_EACH * self.seats.len() as u64
    }

    /// Whether requests can still be sent to it.
    pub(super) fn is_open(&self) -> bool {
        !self.process.has_ended() && !*self.evacuated.borrow()
    }

    pub(super) fn retire(&self) -> bool {
        !self.is_retired.swap(true, Ordering::AcqRel)
    }

    /// When the last request of any program ended.
    pub(super) fn last(&self) -> Option<Instant> {
        self.seats.values().filter_map(|seat| seat.last()).max()
    }
}

/// Whether something may go on after an answer. A program that hides it hurts only itself.
fn mentions_wait_until(program: &Program) -> bool {
    let finder = b"waitUntil";
    program.modules.iter().any(|module| module.body.windows(finder.len()).any(|part| part == finder))
}

/// Whom a process that did not start has named: `service p3: Uncaught Error: …`, with what belongs to it on the lines
/// below.
fn blame(said: &[String], guests: &[Guest]) -> Unstarted {
    let mut refused: BTreeMap<String, String> = BTreeMap::new();
    let mut last = None;
    for line in said {
        let named = line.strip_prefix("service p").and_then(|rest| rest.split_once(": "));
        let guest = named.and_then(|(number, text)| Some((guests.get(number.parse::<usize>().ok()?)?, text)));
        match (guest, last) {
            (Some((guest, text)), _) => {
                let version = &guest.program.version;
                let reason = refused.entry(version.clone()).or_default();
                if !reason.is_empty() {
                    reason.push('\n');
                }
                reason.push_str(text);
                last = Some(version);
            }
            (None, Some(version)) if line.starts_with("  ") => {
                if let Some(reason) = refused.get_mut(version) {
                    reason.push('\n');
                    reason.push_str(line);
                }
            }
            _ => last = None,
        }
    }
    match refused.is_empty() {
        false => Unstarted::Refused(refused),
        true => Unstarted::Stuck(said.last().cloned().unwrap_or_else(|| "it ended without a word".into())),
    }
}

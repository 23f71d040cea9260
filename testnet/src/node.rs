//! One node: its directory, its addresses, and its process while that runs. Knows how to start and to hurt it, not what
//! the rest of the flock makes of it.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Method;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use starling_sim::places::Place;

use crate::api::Api;
use crate::emulator::queue::Stopwatch;
use crate::nursery::Nursery;
use crate::program;
use crate::sample;

/// A node that does not serve within this time never will.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks whether something has happened.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A node that was asked to end is killed after this.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// What a node is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its process runs.
    Up,
    /// Its process stands still (SIGSTOP).
    Still,
    /// It has no process.
    Down,
    /// It was taken off the cluster.
    Gone,
}

impl State {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Still => "stopped",
            Self::Down => "down",
            Self::Gone => "removed",
        }
    }
}

/// A node.
pub struct Node {
    /// From 0.
    pub number: usize,
    /// As in its status: `ams`, `ams-2`.
    pub name: String,
    /// Where on the planet it stands.
    pub place: Place,
    /// Holds `data`, its cluster key, and logs.
    pub directory: PathBuf,
    /// Where its API listens.
    pub api_address: SocketAddr,
    /// Where it listens for its peers.
    pub private: SocketAddr,
    /// What it advertises.
    pub public: SocketAddr,
    /// One operation at a time.
    pub(crate) busy: tokio::sync::Mutex<()>,
    life: Mutex<Life>,
}

/// What changes about a node.
pub(crate) struct Life {
    process: Option<Child>,
    is_still: bool,
    is_gone: bool,
    pub(crate) clock_offset_ms: i64,
    pub(crate) starling: PathBuf,
    api: Option<Api>,
    id: String,
    /// Counts the disks that it has lived from: one more when its directory is wiped or put back.
    pub(crate) disk: u32,
    /// Its directory is empty: it has to join first.
    pub(crate) is_stranger: bool,
}

impl Node {
    pub(crate) fn new(
        number: usize,
        name: String,
        place: Place,
        directory: PathBuf,
        [api_address, private, public]: [SocketAddr; 3],
        starling: &Path,
    ) -> Self {
        let life = Life {
            process: None,
            is_still: false,
            is_gone: false,
            clock_offset_ms: 0,
            starling: starling.to_owned(),
            api: None,
            id: String::new(),
            disk: 0,
            is_stranger: false,
        };
        Self {
            number,
            name,
            place,
            directory,
            api_address,
            private,
            public,
            busy: tokio::sync::Mutex::new(()),
            life: Mutex::new(life),
        }
    }

    pub(crate) fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has only an address here, and others start what runs there.
    pub fn is_foreign(&self) -> bool {
        self.life().starling.as_os_str().is_empty()
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// What its processes wrote.
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// What it is at. A process that has ended by itself is found here.
    pub fn state(&self) -> State {
        let mut life = self.life();
        if let Some(process) = &mut life.process
            && !matches!(process.try_wait(), Ok(None))
        {
            life.process = None;
        }
        match (life.is_gone, &life.process, life.is_still) {
            (true, ..) => State::Gone,
            (_, None, _) => State::Down,
            (_, _, true) => State::Still,
            _ => State::Up,
        }
    }

    /// Its client, once it has served for the first time.
    pub fn api(&self) -> Option<Api> {
        self.life().api.clone()
    }

    /// Its node id.
    pub fn id(&self) -> String {
        self.life().id.clone()
    }

    /// By how much its clock is set wrong.
    pub fn clock_offset_ms(&self) -> i64 {
        self.life().clock_offset_ms
    }

    /// The number of its disk: what was on an earlier one is lost.
    pub fn disk(&self) -> u32 {
        self.life().disk
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.life().process.as_ref().map(Child::id)
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| format!("{} is down", self.name))?;
        kill_process(pid, signal).map_err(|error| format!("{}: {error}", self.name))
    }

    /// SIGSTOP.
    pub fn stand_still(&self) -> Result<(), String> {
        self.signal(Signal::STOP)?;
        self.life().is_still = true;
        Ok(())
    }

    /// SIGCONT.
    pub fn go_on(&self) -> Result<(), String> {
        self.signal(Signal::CONT)?;
        self.life().is_still = false;
        Ok(())
    }

    /// SIGKILL, and waits; nothing happens to a node that is down.
    pub fn kill(&self) {
        let process = self.life().process.take();
        if let Some(mut process) = process {
            // An error means that it had ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
        self.life().is_still = false;
    }

    /// SIGTERM, and waits; a node that takes too long is killed. Whether it ended by itself.
    pub async fn end(&self) -> bool {
        if self.state() == State::Still {
            let _ = self.go_on();
        }
        if self.signal(Signal::TERM).is_err() {
            return true;
        }
        let clock = Stopwatch::start();
        while clock.elapsed() < END_PATIENCE {
            if self.state() == State::Down {
                return true;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.kill();
        false
    }

    /// Starts the process and waits until it serves.
    pub(crate) async fn start(&self, launcher: &Path, nursery: &Nursery, join: Option<&str>) -> Result<(), String> {
        if self.state() != State::Down {
            return Err(format!("{} is {}", self.name, self.state().name()));
        }
        if self.is_foreign() {
            return Err(format!("what runs at {} is not of this testnet's", self.name));
        }
        let failed = |error: io::Error| format!("{}: {error}", self.name);
        fs::create_dir_all(&self.directory).map_err(failed)?;
        let log = File::options().create(true).append(true).open(self.log()).map_err(failed)?;
        let (starling, offset_ms) = {
            let life = self.life();
            (life.starling.clone(), life.clock_offset_ms)
        };
        let mut command = program::command(launcher, &starling);
        command.arg("serve").arg("--data").arg(self.data());
        command.args(["--api", &self.api_address.to_string(), "--gossip", &self.private.to_string()]);
        command.args(["--advertise", &self.public.to_string(), "--pop", &self.place.iata, "--name", &self.name]);
        command.args(["--workers", "off", "--worker-engine", "none"]);
        if offset_ms != 0 {
            command.args(["--clock-offset-ms", &offset_ms.to_string()]);
        }
        if let Some(token) = join {
            command.env("STARLING_JOIN", token);
        }
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        let process = nursery.spawn(command).await.map_err(failed)?;
        let pid = process.id();
        {
            let mut life = self.life();
            (life.process, life.is_still) = (Some(process), false);
        }
        self.serves(pid).await
    }

    /// Waits until the process serves.
    async fn serves(&self, pid: u32) -> Result<(), String> {
        let clock = Stopwatch::start();
        let mut is_known = false;
        loop {
            match self.state() {
                State::Up => {}
                // Someone stands in its way, which is no failure of its own.
                State::Still => {}
                _ => return Err(format!("{} ended at once: {}", self.name, self.last_words())),
            }
            is_known = is_known || self.meet(pid);
            if is_known
                && let Some(api) = self.api()
                && let Ok(answer) = api.ask(Method::GET, "/healthz", &[], "", Duration::from_secs(2)).await
                && answer.status == 200
            {
                return Ok(());
            }
            if clock.elapsed() > START_PATIENCE {
                return Err(format!("{} does not serve: {}", self.name, self.last_words()));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Reads what the process says of itself, once it does.
    fn meet(&self, pid: u32) -> bool {
        let running = fs::read(self.data().join("node.json")).ok();
        let Some(running) = running.and_then(|text| serde_json::from_slice::<Json>(&text).ok()) else { return false };
        let Ok(token) = fs::read_to_string(self.data().join("admin-token")) else { return false };
        if running["pid"] != pid {
            return false;
        }
        let account = running["account"].as_str().unwrap_or_default();
        let mut life = self.life();
        life.api = Some(Api::new(self.api_address, token.trim(), account));
        life.id = running["node"].as_str().unwrap_or_default().to_owned();
        true
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(4).collect();
        tail.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Files may grow to so many bytes and no further, as on a full disk; `None`: as they like.
    pub fn limit_files(&self, bytes: Option<u64>) -> Result<(), String> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| format!("{} is down", self.name))?;
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(pid), Resource::Fsize, limit).map(|_| ()).map_err(|error| format!("{}: {error}", self.name))
    }

    /// Removes its directory; the next start is on a new disk.
    pub(crate) fn wipe(&self) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", self.name);
        {
            let mut life = self.life();
            life.disk += 1;
            life.is_stranger = true;
        }
        fs::remove_dir_all(self.data()).or_else(gone).map_err(failed)?;
        fs::remove_file(self.directory.join("data.key")).or_else(gone).map_err(failed)
    }

    /// Keeps a copy of the directory of a node that is down.
    pub(crate) fn keep_copy(&self) -> Result<(), String> {
        let copy = self.directory.join("copy");
        let failed = |error: io::Error| format!("{}: {error}", self.name);
        fs::remove_dir_all(&copy).or_else(gone).map_err(failed)?;
        sample::copy(&self.data(), &copy).map_err(failed)
    }

    /// Whether there is a copy.
    pub(crate) fn has_copy(&self) -> bool {
        self.directory.join("copy").is_dir()
    }

    /// Puts that copy back; another disk, for all that anyone may expect of it.
    pub(crate) fn put_copy_back(&self) -> Result<(), String> {
        self.roll_back()?;
        self.life().disk += 1;
        Ok(())
    }

    /// Puts that copy back as if nothing had happened.
    pub(crate) fn roll_back(&self) -> Result<(), String> {
        let copy = self.directory.join("copy");
        let failed = |error: io::Error| format!("{}: {error}", self.name);
        fs::remove_dir_all(self.data()).or_else(gone).map_err(failed)?;
        sample::copy(&copy, &self.data()).map_err(failed)
    }

    pub(crate) fn set_gone(&self) {
        self.life().is_gone = true;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

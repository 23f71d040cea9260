//! One workerd process: started from a configuration in memory, watched until it ends, and never outliving the node.
//!
//! Knows nothing of programs: what it runs is text, what it says is text.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};

/// Of 19: how far a process steps back whose programs have done harm, or may have.
const NICE_IN_CUSTODY: i32 = 10;
/// Lines kept of what a process says on its way to the end, and their length in bytes.
const SAID_LINES_MAX: usize = 200;
const SAID_LINE_LEN_MAX: u64 = 4096;
/// Longest path that a unix socket can have in every case.
const SOCKET_PATH_LEN_MAX: usize = 100;
/// Room for the name of a process's directory and a socket in it.
const SOCKET_NAME_LEN_MAX: usize = 24;

/// Starts processes, all from one thread that lives as long as the node: a process ends with the thread that started it.
#[derive(Clone)]
pub(super) struct Starter(mpsc::Sender<(Command, oneshot::Sender<io::Result<Child>>)>);

impl Starter {
    /// Ends when the last clone of it is dropped.
    pub(super) fn new() -> io::Result<Self> {
        let (sender, wishes) = mpsc::channel::<(Command, oneshot::Sender<io::Result<Child>>)>();
        std::thread::Builder::new().name("workerd-starter".into()).spawn(move || {
            for (mut command, answer) in wishes {
                if let Err(Ok(mut child)) = answer.send(command.spawn()) {
                    // Whoever wanted it is gone.
                    let _ = child.kill().and_then(|()| child.wait());
                }
            }
        })?;
        Ok(Self(sender))
    }

    async fn start(&self, command: Command) -> io::Result<Child> {
        let (answer, started) = oneshot::channel();
        self.0.send((command, answer)).map_err(io::Error::other)?;
        started.await.map_err(io::Error::other)?
    }
}

/// How to start a process.
#[derive(Clone)]
pub(super) struct Launch {
    /// Comes before the runtime's own command line: what binds its life to the node's. Empty: nothing does.
    pub(super) launcher: Vec<OsString>,
    /// The runtime.
    pub(super) workerd: PathBuf,
}

/// A process. Dropping it ends it.
pub(super) struct Process {
    pid: u32,
    handle: OwnedFd,
    said: Arc<Mutex<Vec<String>>>,
    ended: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Starts `workerd serve` with a configuration.
    pub(super) async fn start(starter: &Starter, launch: &Launch, config: &str, flags: &[&str]) -> io::Result<Self> {
        let file = in_memory(config)?;
        let mut words = launch.launcher.iter().cloned().chain([launch.workerd.clone().into_os_string()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(["serve", "/proc/self/fd/0"]).args(flags);
        // Nothing of the node's own environment, where there may be keys, is a program's business.
        command.env_clear().current_dir("/");
        command.stdin(Stdio::from(file)).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = starter.start(command).await?;
        let pid = child.id();
        let stderr = child.stderr.take().map(OwnedFd::from);
        // It was not waited for yet, so the number is its own.
        let of = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let handle = rustix::process::pidfd_open(of, PidfdFlags::empty())?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let (ending, ended) = watch::channel(None);
        let process = Self { pid, handle, said: Arc::clone(&said), ended };
        let stderr = stderr.map(pipe::Receiver::from_owned_fd).transpose()?;
        tokio::spawn(async move {
            if let Some(stderr) = stderr {
                listen(pid, stderr, &said).await;
            }
            let reaped = tokio::task::spawn_blocking(move || child.wait()).await;
            let status = reaped.ok().and_then(Result::ok).unwrap_or_default();
            tracing::debug!(pid, %status, "workerd ended");
            ending.send_replace(Some(status));
        });
        Ok(process)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Completes when it has ended.
    pub(super) async fn ended(&self) {
        // An error means that its listener is gone, which means the same.
        let _ = self.ended.clone().wait_for(Option::is_some).await;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Whether a signal ended it that nothing within it can have raised: an operator's, or the system's.
    pub(super) fn was_ended_from_outside(&self) -> bool {
        let outside = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP].map(Signal::as_raw);
        self.ended.borrow().and_then(|status| status.signal()).is_some_and(|signal| outside.contains(&signal))
    }

    /// What it has said so far, the last lines of it.
    pub(super) fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        // An error means that it has ended.
        let _ = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// Lets others have the processor first.
    pub(super) fn step_back(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        // An error means that it has ended.
        let _ = rustix::process::setpriority_process(pid, NICE_IN_CUSTODY);
    }

    /// Processor time it has taken, and memory it has, in bytes.
    pub(super) fn usage(&self) -> Option<(Duration, u64)> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name may hold anything, brackets too.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        let pages: u64 = fields.get(21)?.parse().ok()?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let spent = Duration::from_millis(ticks * 1000 / per_second);
        Some((spent, pages * rustix::param::page_size() as u64))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A file that is nowhere but in memory.
fn in_memory(content: &str) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("workers", MemfdFlags::CLOEXEC)?);
    file.write_all(content.as_bytes())?;
    Ok(file)
}

async fn listen(pid: u32, stderr: pipe::Receiver, said: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stderr);
    loop {
        let mut line = Vec::new();
        let read = tokio::io::AsyncReadExt::take(&mut reader, SAID_LINE_LEN_MAX).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        tracing::debug!(pid, "workerd: {}", line.escape_debug());
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= SAID_LINES_MAX {
            said.remove(0);
        }
        said.push(line);
    }
}

/// A directory for the sockets of all processes, for this user alone. Removed when dropped.
pub(super) struct SocketDir(PathBuf);

impl SocketDir {
    /// Within `preferred`, emptied of what a dead node has left there; where paths would be too long for sockets, among
    /// the system's temporary files.
    pub(super) fn create(preferred: &Path, unique: u64) -> io::Result<Self> {
        let preferred = std::path::absolute(preferred)?;
        let path = if preferred.as_os_str().len() + SOCKET_NAME_LEN_MAX <= SOCKET_PATH_LEN_MAX {
            match fs::remove_dir_all(&preferred) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => preferred,
            }
        } else {
            std::env::temp_dir().join(format!("starling-{unique:016x}"))
        };
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// A place for one process's sockets.
    pub(super) fn place(&self, number: u64) -> io::Result<Place> {
        let path = self.0.join(number.to_string());
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Place(path))
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where the sockets of one process are. Removed when dropped.
pub(super) struct Place(PathBuf);

impl super::config::Places for Place {
    fn requests(&self, seat: usize) -> PathBuf {
        self.0.join(format!("p{seat}"))
    }
    fn bindings(&self, seat: usize) -> PathBuf {
        self.0.join(format!("b{seat}"))
    }
    fn warden(&self) -> PathBuf {
        self.0.join("w")
    }
    fn desk(&self) -> PathBuf {
        self.0.join("d")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sh` in the place of the runtime: it gets the same command line.
    fn launch(script: &str) -> Launch {
        Launch { launcher: vec!["/bin/sh".into(), "-c".into(), script.into()], workerd: "workerd".into() }
    }

    #[tokio::test]
    async fn a_process_reads_its_configuration_from_memory_and_its_end_is_noticed() {
        let starter = Starter::new().expect("a thread");
        let launch = launch("cat $2 >&2; env >&2");
        let process = Process::start(&starter, &launch, "a secret\n", &[]).await.expect("a process");
        process.ended().await;
        assert_eq!(process.said().first().map(String::as_str), Some("a secret"));
        assert!(
            process
                .said()
                .iter()
                .skip(1)
                .all(|line| ["PWD", "SHLVL", "_", "OLDPWD"].iter().any(|v| line.starts_with(v)))
        );
    }

    #[tokio::test]
    async fn a_process_ends_with_its_owner() {
        let starter = Starter::new().expect("a thread");
        let process = Process::start(&starter, &launch("exec sleep 1000"), "", &[]).await.expect("a process");
        // The kernel counts the first pages of a process in lots: until then it says none.
        let seen = async {
            while process.usage().is_none_or(|(_, bytes)| bytes == 0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), seen).await.expect("its memory is seen");
        let (pid, ended) = (process.pid(), process.ended.clone());
        drop(process);
        let _ = ended.clone().wait_for(Option::is_some).await;
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it is reaped");
    }

    #[test]
    fn sockets_find_room_wherever_the_data_lies() {
        let dir = tempfile::tempdir().expect("a directory");
        let unique = u64::from(std::process::id());
        let near = SocketDir::create(&dir.path().join("w"), unique).expect("a directory");
        assert!(near.0.starts_with(dir.path()));
        let far = SocketDir::create(&dir.path().join("x".repeat(100)), unique).expect("a directory");
        assert!(far.0.as_os_str().len() < SOCKET_PATH_LEN_MAX - SOCKET_NAME_LEN_MAX);
        drop(near);
        assert!(!dir.path().join("w").exists());
    }
}

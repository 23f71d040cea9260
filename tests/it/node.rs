//! Real nodes on ports the system picks, and commands that ask them. Each process ends with its owner.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

/// How often something that is to happen soon is looked for.
const PAUSE: Duration = Duration::from_millis(20);
/// How long it may take: the machine may be busy.
const PATIENCE: u32 = 3000;

/// Looks until it is there.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..PATIENCE {
        if let Some(found) = look() {
            return found;
        }
        sleep(PAUSE);
    }
    panic!("{what} did not come");
}

/// A node that runs.
pub struct Node {
    process: Child,
    directory: tempfile::TempDir,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub raw: Vec<u8>,
    pub err: String,
}

impl Node {
    /// Starts a node with these flags more, in a directory of its own.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary directory"), flags)
    }

    fn start_in(directory: tempfile::TempDir, flags: &[&str]) -> Self {
        let data = directory.path().join("data");
        let _ = fs::remove_file(data.join("node.json"));
        let process = program(&["serve", "--gossip", "127.0.0.1:0", "--durability", "os"])
            .args(if flags.contains(&"--api") { &[][..] } else { &["--api", "127.0.0.1:0"] })
            .args(flags)
            .arg("--data")
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(Stdio::from(fs::File::create(directory.path().join("log")).expect("a log file")))
            .spawn()
            .expect("the program starts");
        let mut node = Self { process, directory };
        until("the node", || {
            let ended = node.process.try_wait().expect("its state");
            assert!(ended.is_none(), "the node ended: {ended:?}\n{}", node.log());
            node.data().join("node.json").exists().then_some(())
        });
        node
    }

    /// Stops it as a service manager does, and starts it again.
    pub fn restart(mut self, flags: &[&str]) -> Self {
        self.terminate();
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().expect("a temporary directory"));
        drop(self);
        Self::start_in(directory, flags)
    }

    /// Stops it as a service manager does; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let killed = Command::new("kill").arg(self.process.id().to_string()).status().expect("kill");
        assert!(killed.success());
        self.process.wait().expect("it ends").code()
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// Runs a command against this node.
    pub fn run(&self, line: &[&str]) -> Said {
        self.run_with(line, b"")
    }

    /// The same, with something on its standard input.
    pub fn run_with(&self, line: &[&str], input: &[u8]) -> Said {
        let mut command = program(line);
        command.arg("--data").arg(self.data()).current_dir(self.directory.path());
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = process.stdin.take().expect("its input");
        let input = input.to_vec();
        // It may end without having read all of it.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let Output { status, stdout, stderr } = process.wait_with_output().expect("its output");
        writer.join().expect("its input is written");
        Said {
            code: status.code().expect("an exit code"),
            out: String::from_utf8_lossy(&stdout).into_owned(),
            raw: stdout,
            err: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Runs a command that must succeed.
    pub fn ok(&self, line: &[&str]) -> Said {
        let said = self.run(line);
        assert_eq!(said.code, 0, "{line:?}: {said:?}");
        said
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn program(line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
    command.args(line).env_clear().env("TERM", "dumb");
    command
}

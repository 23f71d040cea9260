//! What can be done to a running testnet, and the socket over which another terminal asks for it: one line of JSON in,
//! one line out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use starling_sim::scenario::Direction;
use starling_sim::span::Span;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use crate::emulator::ways::Slowness;
use crate::table;
use crate::world::{World, place};

/// The socket's name within the testnet's directory.
const SOCKET: &str = "control.sock";
/// Longest request, bytes.
const REQUEST_LEN_MAX: u64 = 65_536;
/// Restarts, evictions and syncs take their time.
const ANSWER_PATIENCE: Duration = Duration::from_secs(600);

const NODES: &str = "Nodes are named as `status` shows them, by number, as region:Europe, or all; several with commas.";

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Subcommand)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Nothing goes through between nodes A and nodes B
    #[command(after_help = NODES)]
    Cut {
        /// These nodes
        a: String,
        /// And those
        b: String,
        /// Only what A sends to B is lost
        #[arg(long)]
        one_way: bool,
    },
    /// Nothing goes through between these nodes and all others
    #[command(after_help = NODES)]
    Isolate {
        /// These nodes
        nodes: String,
        /// They hear nothing, but can speak
        #[arg(long, conflicts_with = "mute")]
        deaf: bool,
        /// They say nothing, but can hear
        #[arg(long)]
        mute: bool,
    },
    /// Makes the ways between nodes A and nodes B worse
    #[command(after_help = NODES)]
    Slow {
        /// These nodes
        a: String,
        /// And those
        #[arg(default_value = "all")]
        b: String,
        /// One-way time on top of the distance
        #[arg(long, default_value = "300ms")]
        delay: Span,
        /// Fraction of packets lost
        #[arg(long, default_value_t = 0.0)]
        loss: f64,
        /// Instead of the links' own bandwidth
        #[arg(long)]
        mbit: Option<u64>,
    },
    /// Ends all cuts, slowness, wrong clocks and full disks; wakes and starts everyone
    Heal,
    /// kill -9
    Kill {
        /// These nodes
        nodes: String,
    },
    /// SIGSTOP: the process stands still
    Stop {
        /// These nodes
        nodes: String,
    },
    /// SIGCONT: it goes on
    Cont {
        /// These nodes
        nodes: String,
    },
    /// Ends nodes well, if they run, and starts them
    Restart {
        /// These nodes, one after the other
        nodes: String,
        /// From another program, from now on
        #[arg(long, value_name = "PATH")]
        starling: Option<PathBuf>,
    },
    /// Kills a node and loses its disk; the old one is evicted, and it joins anew
    Wipe {
        /// This node
        node: String,
    },
    /// Keeps a copy of a node's directory, for `restore`
    Copy {
        /// This node
        node: String,
    },
    /// Kills a node and puts the copy of its directory back
    Restore {
        /// This node
        node: String,
    },
    /// No file of a node's may grow beyond so many MiB any more, as on a full disk; `heal` ends it
    Fill {
        /// These nodes
        nodes: String,
        /// The limit
        #[arg(long, default_value_t = 0)]
        mib: u64,
    },
    /// Restarts a node with its clock so many milliseconds off
    Clock {
        /// This node
        node: String,
        /// Ahead, or behind with a minus
        #[arg(allow_hyphen_values = true)]
        offset_ms: i64,
    },
    /// One more node, which joins
    Add {
        /// Where it stands: an IATA code
        pop: String,
    },
    /// Takes a node off the cluster for good
    Remove {
        /// This node
        node: String,
    },
    /// Ends the testnet
    Down,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// How everyone is.
    Status,
    /// Does something.
    Do(Act),
}

/// Does it; says what was done.
pub async fn perform(world: &Arc<World>, act: &Act) -> Result<String, String> {
    let names =
        |nodes: &[Arc<crate::node::Node>]| nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
    match act {
        Act::Cut { a, b, one_way } => {
            let (a, b) = (world.named(a)?, world.named(b)?);
            world.cut(&a, &b, if *one_way { Direction::Out } else { Direction::Both });
            let arrow = if *one_way { "→" } else { "↔" };
            Ok(format!("cut: {} {arrow} {}", names(&a), names(&b)))
        }
        Act::Isolate { nodes, deaf, mute } => {
            let nodes = world.named(nodes)?;
            let direction = match (deaf, mute) {
                (true, _) => Direction::In,
                (_, true) => Direction::Out,
                _ => Direction::Both,
            };
            world.isolate(&nodes, direction);
            Ok(format!("cut off: {}", names(&nodes)))
        }
        Act::Slow { a, b, delay, loss, mbit } => {
            if !(0.0..=1.0).contains(loss) || *mbit == Some(0) {
                return Err("loss is a fraction from 0 to 1, and bandwidth not 0".into());
            }
            let (a, b) = (world.named(a)?, world.named(b)?);
            let slowness = Slowness { delay_us: delay.0, loss: *loss, bandwidth_mbit: *mbit, ..Slowness::default() };
            world.slow(&a, &b, Some(slowness));
            Ok(format!("slow: {} ↔ {}", names(&a), names(&b)))
        }
        Act::Heal => world.heal().await.map(|()| "healed".into()),
        Act::Kill { nodes } => {
            let nodes = world.named(nodes)?;
            nodes.iter().for_each(|node| node.kill());
            Ok(format!("killed: {}", names(&nodes)))
        }
        Act::Stop { nodes } => {
            let nodes = world.named(nodes)?;
            nodes.iter().try_for_each(|node| node.stand_still())?;
            Ok(format!("stopped: {}", names(&nodes)))
        }
        Act::Cont { nodes } => {
            let nodes = world.named(nodes)?;
            nodes.iter().try_for_each(|node| node.go_on())?;
            Ok(format!("go on: {}", names(&nodes)))
        }
        Act::Restart { nodes, starling } => {
            let nodes = world.named(nodes)?;
            let starling = starling.as_deref().map(|path| crate::program::find(Some(path))).transpose()?;
            for node in &nodes {
                world.restart(node, starling.as_deref()).await?;
            }
            Ok(format!("restarted: {}", names(&nodes)))
        }
        Act::Wipe { node } => {
            let node = world.one(node)?;
            world.wipe(&node).await?;
            Ok(format!("{} has joined anew, as {}", node.name, node.id()))
        }
        Act::Copy { node } => {
            let node = world.one(node)?;
            world.copy(&node).await?;
            Ok(format!("{} serves again, and its directory is copied", node.name))
        }
        Act::Restore { node } => {
            let node = world.one(node)?;
            world.restore(&node).await?;
            Ok(format!("{} serves from the copy of its directory", node.name))
        }
        Act::Fill { nodes, mib } => {
            let nodes = world.named(nodes)?;
            nodes.iter().try_for_each(|node| node.limit_files(Some(mib << 20)))?;
            Ok(format!("full beyond {mib} MiB a file: {}", names(&nodes)))
        }
        Act::Clock { node, offset_ms } => {
            let node = world.one(node)?;
            world.set_clock(&node, *offset_ms).await?;
            Ok(format!("{} serves with its clock {offset_ms:+} ms off", node.name))
        }
        Act::Add { pop } => {
            let node = world.add(place(pop)?).await?;
            Ok(format!("{} has joined, http://{}", node.name, node.api_address))
        }
        Act::Remove { node } => {
            let node = world.one(node)?;
            world.remove(&node).await?;
            Ok(format!("{} is off the cluster", node.name))
        }
        Act::Down => Ok("the testnet has ended".into()),
    }
}

/// Answers other terminals until the testnet ends.
pub struct Desk {
    listener: UnixListener,
    path: PathBuf,
}

impl Desk {
    /// Opens the socket in the testnet's directory.
    pub fn open(directory: &Path) -> Result<Self, String> {
        // A socket's name is short; what is below the current directory can be named from there.
        let here = std::env::current_dir().unwrap_or_default();
        let path = directory.strip_prefix(here).unwrap_or(directory).join(SOCKET);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)
            .map_err(|error| format!("{}: {error}; choose a directory with a shorter name by --dir", path.display()))?;
        Ok(Self { listener, path })
    }

    /// Serves; `down` is told when someone asks for the end.
    pub async fn serve(self, world: Arc<World>, down: Arc<Notify>) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else { continue };
            let (world, down) = (Arc::clone(&world), Arc::clone(&down));
            tokio::spawn(async move {
                // Who has hung up needs no answer.
                let _ = answer(stream, &world, &down).await;
            });
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(stream: UnixStream, world: &Arc<World>, down: &Notify) -> std::io::Result<()> {
    use tokio::io::AsyncReadExt;
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(REQUEST_LEN_MAX)).read_line(&mut line).await?;
    let request = serde_json::from_str::<Request>(&line);
    let reply = match &request {
        Err(error) => json!({ "error": format!("not understood: {error}") }),
        Ok(Request::Status) => json!({ "nodes": table::rows(world).await }),
        Ok(Request::Do(act)) => match perform(world, act).await {
            Ok(done) => json!({ "done": done }),
            Err(error) => json!({ "error": error }),
        },
    };
    write.write_all(format!("{reply}\n").as_bytes()).await?;
    write.shutdown().await?;
    if let Ok(Request::Do(Act::Down)) = request {
        down.notify_one();
    }
    Ok(())
}

/// Asks the testnet in that directory.
pub async fn ask(directory: &Path, request: &Request) -> Result<Json, String> {
    let path = directory.join(SOCKET);
    let nobody = |error: std::io::Error| {
        format!(
            "no testnet runs in {} ({error}); start one with `starling-testnet up`, or name its directory by --dir",
            directory.display()
        )
    };
    let stream = UnixStream::connect(&path).await.map_err(nobody)?;
    let (read, mut write) = stream.into_split();
    let text = serde_json::to_string(request).map_err(|error| error.to_string())?;
    let exchange = async {
        write.write_all(format!("{text}\n").as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(read).read_line(&mut line).await?;
        Ok::<_, std::io::Error>(line)
    };
    let line = tokio::time::timeout(ANSWER_PATIENCE, exchange).await;
    let line = line.map_err(|_| "the testnet does not answer".to_owned())?.map_err(|error| error.to_string())?;
    let answer: Json = serde_json::from_str(&line).map_err(|_| "the testnet has ended".to_owned())?;
    match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer),
    }
}

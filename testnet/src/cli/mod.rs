//! The command line: what can be typed, and what `--help` teaches.

mod bench;
mod chaos;
mod demo;
mod kv;
mod net;
mod planet;
mod status;
mod up;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::control::{self, Act, Request};
use crate::emulator::queue::Stopwatch;
use crate::program;

const EXAMPLES: &str = "Examples:
  starling-testnet up --pops ams,iad,sin,gru,jnb      # and in another terminal:
  starling-testnet status
  starling-testnet kv sin key put greeting hello --namespace demo
  starling-testnet cut region:Europe region:Africa,gru
  starling-testnet heal

Exit codes:
  0  done
  1  it failed, or a promise was broken
  2  wrong command line or scenario";

/// Runs real Starling nodes on an emulated planet, hurts them, and watches what becomes of the data.
#[derive(Parser)]
#[command(name = "starling-testnet", version, max_term_width = 100, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    /// The testnet's directory
    #[arg(long, env = "TESTNET_DIR", value_name = "DIR", default_value = "starling-testnet-data", global = true)]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Up(up::UpArgs),
    Status(status::StatusArgs),
    Kv(kv::KvArgs),
    Net(net::NetArgs),
    Chaos(chaos::ChaosArgs),
    Check(chaos::CheckArgs),
    Compare(bench::CompareArgs),
    Bench(bench::BenchArgs),
    #[command(flatten)]
    Act(Act),
    /// Becomes a node
    #[command(name = program::BECOME, hide = true)]
    Become {
        /// Who started it
        parent: u32,
        /// What it becomes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<String>,
    },
}

/// What went wrong, for whoever typed it.
enum Failure {
    /// What was typed can't be meant.
    Usage(String),
    /// It did not work.
    Failed(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

type CliResult = Result<ExitCode, Failure>;

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> ExitCode {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("error: no runtime: {error}");
                return ExitCode::FAILURE;
            }
        };
        let dir = self.dir;
        let result = match self.command {
            Command::Demo(args) => runtime.block_on(args.run(&dir)),
            Command::Up(args) => runtime.block_on(args.run(&dir)),
            Command::Status(args) => runtime.block_on(args.run(&dir)),
            Command::Kv(args) => runtime.block_on(args.run(&dir)),
            Command::Net(args) => runtime.block_on(args.run(&dir)),
            Command::Chaos(args) => runtime.block_on(args.run(&dir)),
            Command::Check(args) => args.run(),
            Command::Compare(args) => runtime.block_on(args.run(&dir)),
            Command::Bench(args) => runtime.block_on(args.run(&dir)),
            Command::Act(act) => runtime.block_on(tell(&dir, act)),
            Command::Become { parent, words } => Err(program::become_node(parent, words).to_string().into()),
        };
        result.unwrap_or_else(|failure| {
            let (why, code) = match failure {
                Failure::Usage(why) => (why, 2),
                Failure::Failed(why) => (why, 1),
            };
            eprintln!("error: {why}");
            ExitCode::from(code)
        })
    }
}

/// Longest wait for a testnet that ends, and between two looks.
const DOWN_PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Asks the running testnet to do something.
async fn tell(dir: &Path, act: Act) -> CliResult {
    let is_end = act == Act::Down;
    let pid = planet::running(dir);
    let answer = control::ask(dir, &Request::Do(act)).await?;
    let clock = Stopwatch::start();
    while is_end && pid.is_some() && planet::running(dir) == pid && clock.elapsed() < DOWN_PATIENCE {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    println!("{}", answer["done"].as_str().unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}

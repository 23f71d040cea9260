//! The demonstration: five continents in two minutes, told as it happens. Everything it says is measured while it says
//! it.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use starling_sim::scenario::Direction;

use crate::api::{Api, PATIENCE};
use crate::emulator::queue::Stopwatch;
use crate::node::Node;
use crate::table;
use crate::world::World;

/// Where the five stand.
pub const POPS: [&str; 5] = ["ams", "iad", "sin", "gru", "jnb"];
/// Between two looks whether a write has arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// A write that takes longer is not on its way.
const ARRIVAL_MAX: Duration = Duration::from_secs(20);
/// After a cut, until the nodes have noticed, and something to read in between.
const SCENE: Duration = Duration::from_secs(3);
const AGREEMENT_MAX: Duration = Duration::from_secs(60);

/// Plays it on a planet that is up. `pace` is how long a paragraph stands before the next comes.
pub async fn play(world: &Arc<World>, pace: Duration) -> Result<(), String> {
    let stage = Stage { world, pace, namespace: String::new() };
    let nodes = world.nodes();
    let [ams, .., gru, jnb] = &nodes[..] else { return Err("the demonstration wants five nodes".into()) };
    stage
        .say(
            "1. Five nodes, five continents",
            "Each is a real process with a disk of its own. Their packets take as long as light and routes make them.",
        )
        .await;
    println!("{}", table::text(&table::rows(world).await));
    stage.rest().await;

    let api = stage.api(ams)?;
    let namespace = api.namespace("demo").await?;
    world.agree(AGREEMENT_MAX).await?;
    let stage = Stage { namespace, ..stage };
    stage
        .say(
            "2. A write at Amsterdam",
            "It is on Amsterdam's disk before it is answered, and at the others as soon as it can be.",
        )
        .await;
    stage.write_and_watch(ams, "greeting", "hello from Amsterdam").await?;
    stage.say("3. A write at Johannesburg", "No node is special: each takes writes.").await;
    stage.write_and_watch(jnb, "greeting", "hello from Johannesburg").await?;

    stage
        .say(
            "4. Africa and South America are cut off",
            "Nothing goes through between them and the rest. Both sides go on, with reads and with writes.",
        )
        .await;
    let island = [Arc::clone(gru), Arc::clone(jnb)];
    let cut = world.isolate(&island, Direction::Both);
    tokio::time::sleep(SCENE).await;
    for (node, key, value) in [
        (ams, "north", "written in Amsterdam during the cut"),
        (jnb, "south", "written in Johannesburg during the cut"),
    ] {
        let took = stage.write(node, key, value).await?;
        println!("  {:<14} took a write in {:.1} ms", node.place.city, ms(took));
    }
    let (a, b) = (
        stage.write(ams, "both", "Amsterdam's version").await?,
        stage.write(gru, "both", "Sao Paulo's version").await?,
    );
    println!("  and both sides wrote the same key, in {:.1} and {:.1} ms", ms(a), ms(b));
    tokio::time::sleep(SCENE).await;
    stage.show(&["north", "south", "both"]).await?;
    stage.digests().await?;
    stage.rest().await;

    stage
        .say(
            "5. The cut heals",
            "What each side has missed goes over; of two writes to one key the later one wins, everywhere.",
        )
        .await;
    world.mend(cut);
    let took = world.agree(AGREEMENT_MAX).await?;
    println!("  all equal {:.1} s after the healing\n", took.as_secs_f64());
    stage.show(&["north", "south", "both"]).await?;
    stage.digests().await?;
    stage.rest().await;

    stage
        .say(
            "6. Sao Paulo is killed, and comes back",
            "kill -9, a write elsewhere meanwhile, and a start as after any power cut.",
        )
        .await;
    gru.kill();
    stage.write(ams, "while-away", "you missed this").await?;
    let clock = Stopwatch::start();
    world.start(gru).await?;
    stage.arrives(gru, "while-away", "you missed this").await?;
    println!("  {:.1} s after its start it has what it missed\n", clock.elapsed().as_secs_f64());
    let took = world.agree(AGREEMENT_MAX).await?;
    println!("  all equal, {:.1} s later", took.as_secs_f64());
    stage.digests().await?;
    Ok(())
}

struct Stage<'a> {
    world: &'a Arc<World>,
    pace: Duration,
    namespace: String,
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

impl Stage<'_> {
    async fn say(&self, title: &str, text: &str) {
        println!("\n{title}\n{text}\n");
        self.rest().await;
    }

    async fn rest(&self) {
        tokio::time::sleep(self.pace).await;
    }

    fn api(&self, node: &Node) -> Result<Api, String> {
        node.api().ok_or_else(|| format!("{} does not serve", node.name))
    }

    fn path(&self, key: &str) -> String {
        format!("{}/values/{key}", self.namespace)
    }

    /// How long it took.
    async fn write(&self, node: &Node, key: &str, value: &str) -> Result<Duration, String> {
        let clock = Stopwatch::start();
        self.api(node)?.json(Method::PUT, &self.path(key), value.to_owned()).await?;
        Ok(clock.elapsed())
    }

    /// Waits until the node shows the value; how long that took.
    async fn arrives(&self, node: &Node, key: &str, value: &str) -> Result<Duration, String> {
        let (api, clock) = (self.api(node)?, Stopwatch::start());
        loop {
            let answer = api.ask(Method::GET, &self.path(key), &[], "", PATIENCE).await;
            if answer.is_ok_and(|answer| answer.status == 200 && answer.body == value.as_bytes()) {
                return Ok(clock.elapsed());
            }
            if clock.elapsed() > ARRIVAL_MAX {
                return Err(format!("{key} does not arrive at {}", node.name));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Writes at one node and tells when each of the others shows it.
    async fn write_and_watch(&self, origin: &Arc<Node>, key: &str, value: &str) -> Result<(), String> {
        let clock = Stopwatch::start();
        let acknowledged = self.write(origin, key, value).await?;
        println!("  {:>6.1} ms  {:<14} has it on disk and says so", ms(acknowledged), origin.place.city);
        let watch = async |node: &Arc<Node>| {
            self.arrives(node, key, value).await?;
            let one_way_us = self.world.emulator().ways(|ways| ways.one_way_us((origin.number, node.number)));
            println!(
                "  {:>6.1} ms  {:<14} shows it; the way alone takes {:.1} ms",
                ms(clock.elapsed()),
                node.place.city,
                one_way_us as f64 / 1e3
            );
            Ok::<(), String>(())
        };
        let others: Vec<Arc<Node>> = self.world.up().into_iter().filter(|node| node.number != origin.number).collect();
        match &others[..] {
            [a, b, c, d] => {
                let (a, b, c, d) = tokio::join!(watch(a), watch(b), watch(c), watch(d));
                [a, b, c, d].into_iter().collect::<Result<(), _>>()?;
            }
            others => {
                for node in others {
                    watch(node).await?;
                }
            }
        }
        self.rest().await;
        Ok(())
    }

    /// What every node says to these keys.
    async fn show(&self, keys: &[&str]) -> Result<(), String> {
        for key in keys {
            println!("  {key}");
            for node in self.world.up() {
                let answer = self.api(&node)?.ask(Method::GET, &self.path(key), &[], "", PATIENCE).await;
                let answer = answer.map_err(|error| error.to_string())?;
                let value = if answer.status == 200 { answer.text() } else { "-".to_owned() };
                println!("    {:<14} {value}", node.place.city);
            }
        }
        Ok(())
    }

    /// The digest over everything that each node holds.
    async fn digests(&self) -> Result<(), String> {
        println!("  digest of all data");
        for (node, status) in self.world.statuses().await {
            println!("    {:<14} {}", node.place.city, status?["digest"].as_str().unwrap_or("-"));
        }
        Ok(())
    }
}

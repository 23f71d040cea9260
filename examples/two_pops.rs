//! Two nodes in one process: write at one, read at the other. Run it with `cargo run --example two_pops`.

use std::time::Duration;

use starling::embed::{AckLevel, Config, Error, Node};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
pub async fn main() -> Result<(), Error> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = |name: &str| Config::new(directory.path().join(name)).gossip(([127, 0, 0, 1], 0).into());

    // The first one founds a cluster, the second one joins it with a token that is good once.
    let frankfurt = Node::start(config("fra").set("pop", "FRA")?).await?;
    let token = frankfurt.invite(Duration::from_secs(60)).await?;
    let singapore = Node::start(config("sin").set("pop", "SIN")?.join(&token)).await?;

    let here = frankfurt.namespace("weather").await?;
    here.put("frankfurt", "drizzle").await?;

    // Writes arrive by themselves, a moment later. A bookmark says when: reads after it see this write.
    let bookmark = here.bookmark().await?;
    singapore.catch_up(&bookmark, PATIENCE).await?;
    let there = singapore.namespace("weather").await?;
    assert_eq!(here.id(), there.id());
    let read = there.get("frankfurt").await?.expect("it has caught up");
    println!("Singapore reads {:?}, {} ms after it was written at Frankfurt", read.value, read.age_ms);

    // Both take writes. This one is on two disks when it goes on.
    there.put("singapore", "thunderstorm").await?;
    let nodes = there.acknowledged(AckLevel::All, PATIENCE).await?;
    println!("{nodes} nodes have Singapore's write on disk");
    assert!(here.get("singapore").await?.is_some_and(|read| read.value == "thunderstorm"));

    singapore.stop().await;
    frankfurt.stop().await;
    Ok(())
}

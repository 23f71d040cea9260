//! A node inside your own program. Run it with `cargo run --example embedded`.

use std::time::Duration;

use starling::embed::{ChangeKind, Config, Error, Node, PutOptions};

#[tokio::main(flavor = "current_thread")]
pub async fn main() -> Result<(), Error> {
    // A program of your own names a directory that stays.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = Config::new(directory.path().join("node")).gossip(([127, 0, 0, 1], 0).into()).set("pop", "FRA")?;

    let node = Node::start(config.clone()).await?;
    println!("{} listens for peers on {}", node.name(), node.gossip());
    let users = node.namespace("users").await?;

    let mut changes = users.watch("user/").await?;
    users.put("user/ada", "countess").await?;
    let options = PutOptions { metadata: Some(r#"{"born":1906}"#.to_owned()), ttl: Some(Duration::from_secs(3600)) };
    users.put_with("user/grace", "rear admiral", options).await?;
    users.put("visits", "1").await?;

    let ada = users.get("user/ada").await?.expect("it was just written");
    println!("user/ada is {:?}, written {} ms ago", ada.value, ada.age_ms);

    let mut after = None;
    loop {
        let page = users.list("user/", after.as_deref()).await?;
        for key in page.keys {
            println!("{} {}", key.name, key.metadata.unwrap_or_default());
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }

    // Changes made at other nodes come here too. A position outlives the process.
    for _ in 0..2 {
        let change = changes.next().await?;
        println!("{} changed: {:?}", change.key, change.kind);
    }
    let position = changes.position();
    drop(changes);

    users.delete("user/ada").await?;
    let mut changes = users.watch_since("user/", &position).await?;
    assert_eq!(changes.next().await?.kind, ChangeKind::Delete);
    assert!(users.get("user/ada").await?.is_none());

    // What was acknowledged is there when the node starts again. Whatever still reads the directory goes first.
    drop((changes, users));
    node.stop().await;
    let node = Node::start(config).await?;
    let users = node.namespace("users").await?;
    assert!(users.get("visits").await?.is_some_and(|visits| visits.value == "1"));
    node.stop().await;
    Ok(())
}

//! A backup of a node, as its pieces come.

use hyper::Method;
use serde_json::{Value, json};

use super::{Client, ClientError, Stream};

const BACKUPS_PATH: &str = "/starling/v1/backups";

impl Client {
    /// Begins one. Gives its number, 32 hex digits, and about how many bytes it will have.
    pub async fn begin_backup(&self) -> Result<(String, u64), ClientError> {
        let begun = self.request(Method::POST, BACKUPS_PATH).json(&json!({})).value().await?;
        match begun.get("backup").and_then(Value::as_str) {
            Some(number) => Ok((number.to_owned(), begun["bytes"].as_u64().unwrap_or(0))),
            None => Err(self.not_starling("it holds no number of a backup")),
        }
    }

    /// What follows the first `held` pieces.
    pub async fn backup_pieces(&self, number: &str, held: u64) -> Result<Stream, ClientError> {
        self.request(Method::GET, format!("{BACKUPS_PATH}/{number}?held={held}")).stream().await
    }

    /// It arrived whole.
    pub async fn end_backup(&self, number: &str) -> Result<(), ClientError> {
        self.request(Method::DELETE, format!("{BACKUPS_PATH}/{number}")).value().await.map(drop)
    }
}

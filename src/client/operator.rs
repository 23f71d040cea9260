//! What an operator asks of a node.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::{Client, ClientError, LEAVE_TIMEOUT, PATIENT_TIMEOUT};
use crate::secret::Secret;

pub(super) const STATUS_PATH: &str = "/starling/v1/status";
const INVITE_PATH: &str = "/starling/v1/invite";
const LEAVE_PATH: &str = "/starling/v1/leave";
const EVICT_PATH: &str = "/starling/v1/evict";

impl Client {
    /// What the node says of itself and its peers.
    pub async fn status(&self) -> Result<Value, ClientError> {
        let answer = self.request(Method::GET, STATUS_PATH).value().await?;
        if answer.is_object() { Ok(answer) } else { Err(self.not_starling("the status is not an object")) }
    }

    /// A join token for one new node, good for `ttl` (whole seconds).
    pub async fn invite(&self, ttl: Duration) -> Result<Secret, ClientError> {
        let body = json!({ "ttl_secs": ttl.as_secs() });
        let answer = self.request(Method::POST, INVITE_PATH).json(&body).value().await?;
        match answer.get("token").and_then(Value::as_str) {
            Some(token) => Ok(Secret::new(token)),
            None => Err(self.not_starling("it holds no token")),
        }
    }

    /// Takes the node off the cluster's roster; its process ends.
    pub async fn leave(&self) -> Result<(), ClientError> {
        let call = self.request(Method::POST, LEAVE_PATH).json(&json!({})).patience(LEAVE_TIMEOUT);
        call.value().await.map(drop)
    }

    /// Takes a node that is lost off the cluster's roster, or with `connected` also one that runs.
    pub async fn evict(&self, node: &str, connected: bool) -> Result<(), ClientError> {
        let body = json!({ "node": node, "connected": connected });
        self.request(Method::POST, EVICT_PATH).json(&body).value().await.map(drop)
    }

    /// Gets what stands at a path below `/starling/v1`.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.request(Method::GET, path).value().await
    }

    /// Posts there.
    pub async fn post(&self, path: &str, body: Value) -> Result<Value, ClientError> {
        self.request(Method::POST, path).json(&body).value().await
    }

    /// Posts what may take long.
    pub async fn post_patiently(&self, path: &str, body: Value) -> Result<Value, ClientError> {
        self.request(Method::POST, path).json(&body).patience(PATIENT_TIMEOUT).value().await
    }

    /// Deletes what stands there.
    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.request(Method::DELETE, path).value().await
    }
}

//! The API over a real socket: a server on a free port and a raw HTTP/1.1 client that hides nothing.

mod access;
mod bulk;
mod changes;
mod credentials;
mod limits;
mod lists;
mod openapi;
mod sessions;
mod tls;
mod values;
mod wire;
mod workers;

use bytes::Bytes;
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use std::sync::Arc;

use super::{ApiConfig, ApiError, Quotas, serve};
use crate::config::{Config, Durability};
use crate::datadir::DataDir;
use crate::https::ServerTls;
use crate::kv::{AccountId, Grants, NewToken};
use crate::node::Node;
use crate::operator::Operator;
use crate::secret::Secret;
use crate::worker::Workers;

pub(crate) const TOKEN: &str = "right-token-0123456789-0123456789-0123456789";
pub(crate) const ACCOUNT: AccountId = AccountId([0xac; 16]);

struct Server {
    address: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ApiError>>,
    node: Node,
    operator: Operator,
    workers: Workers,
    _directory: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: String,
    head: String,
    pub(crate) body: Bytes,
}

/// A node of a name that knows [`TOKEN`] for [`ACCOUNT`] and has no namespaces yet.
pub(crate) async fn backend(name: &str, join: Option<Secret>, durability: Durability) -> (Node, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let gossip = "127.0.0.1:0".parse().expect("an address");
    let config = Config { gossip, durability, name: Some(name.into()), join, ..Config::default() };
    let data = DataDir::open(&directory.path().join("data")).expect("a data directory");
    let node = Node::start(&config, &data).await.expect("a node");
    let new = NewToken { account: ACCOUNT, name: "test".into(), grants: Grants::all(), expires_ms: 0 };
    node.kv().add_token(TOKEN, new).await.expect("a token");
    (node, directory)
}

/// Of the node that [`backend`] calls `n1`.
fn config(dev: bool, quotas: Quotas) -> ApiConfig {
    ApiConfig {
        dev,
        pop: Some("lhr".into()),
        node: "n1".into(),
        account: ACCOUNT,
        workers_url: None,
        tls: None,
        failures: Arc::default(),
        quotas,
    }
}

impl Server {
    async fn start(dev: bool) -> Self {
        Self::over(backend("n1", None, Durability::Os).await, dev).await
    }

    async fn founded(durability: Durability) -> Self {
        Self::over(backend("n1", None, durability).await, false).await
    }

    async fn joined(name: &str, token: Secret, durability: Durability) -> Self {
        Self::over(backend(name, Some(token), durability).await, false).await
    }

    async fn over(backend: (Node, tempfile::TempDir), dev: bool) -> Self {
        Self::over_with(backend, dev, Quotas::default()).await
    }

    async fn over_with((node, directory): (Node, tempfile::TempDir), dev: bool, quotas: Quotas) -> Self {
        let (kv, operator) = (node.kv().clone(), Operator::new(&node, None, Durability::Os));
        let workers = Workers::new(kv.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let config = config(dev, quotas);
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve(listener, kv, operator.clone(), workers.clone(), config, shutdown));
        Self { address, stop: Some(stop), task, node, operator, workers, _directory: directory }
    }

    fn node(&self) -> &Node {
        &self.node
    }

    fn operator(&self) -> &Operator {
        &self.operator
    }

    /// Ends the node, as an operator would.
    async fn stop(mut self) {
        drop(self.stop.take());
        let _ = self.task.await;
        self.node.stop().await;
    }

    /// The same node, served over TLS, at another port.
    async fn serve_tls(&mut self, tls: ServerTls) {
        let (kv, operator) = (self.node.kv().clone(), self.operator.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        self.address = listener.local_addr().expect("an address").to_string();
        let config = ApiConfig { pop: None, tls: Some(Arc::new(tls)), ..config(false, Quotas::default()) };
        self.task =
            tokio::spawn(serve(listener, kv.clone(), operator, Workers::new(kv), config, std::future::pending()));
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.expect("the server listens")
    }

    /// Sends exactly these bytes, reads until the server closes.
    async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(request).await.expect("sent");
        Answer::read(&mut stream).await
    }

    async fn call(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.raw(&request).await
    }

    /// With the right token, below the account.
    async fn ask(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.ask_with(method, path, "", body).await
    }

    async fn ask_with(&self, method: &str, path: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        let path = format!("/client/v4/accounts/{ACCOUNT}/storage/kv{path}");
        let headers = format!("Authorization: Bearer {TOKEN}\r\n{headers}");
        self.call(method, &path, &headers, body.as_ref()).await
    }

    /// A namespace, as the path below the account.
    async fn namespace(&self, title: &str) -> String {
        let answer = self.ask("POST", "/namespaces", format!("{{\"title\":\"{title}\"}}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        format!("/namespaces/{}", answer.json()["result"]["id"].as_str().expect("an id"))
    }
}

impl Answer {
    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("an answer");
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("the end of the headers");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
        let line = head.lines().next().expect("a status line").splitn(3, ' ').collect::<Vec<_>>();
        Self {
            status: line[1].parse().expect("a status"),
            reason: line[2].into(),
            body: Bytes::copy_from_slice(&bytes[end + 4..]),
            head: head.clone(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}\n{}", self.head, self.text()))
    }

    /// Checks the envelope of a success and gives its result.
    fn result(&self) -> Json {
        let mut json = self.json();
        assert_eq!(self.status, 200, "{json}");
        assert_eq!((&json["success"], &json["errors"]), (&true.into(), &Json::Array(vec![])));
        assert_eq!(self.header("content-type"), Some("application/json"));
        json["result"].take()
    }

    /// Checks the envelope of a failure and gives status, code and message.
    fn error(&self) -> (u16, u64, String) {
        let json = self.json();
        assert_eq!((&json["success"], &json["result"]), (&false.into(), &Json::Null), "{json}");
        assert!(self.status >= 400);
        let error = &json["errors"][0];
        (self.status, error["code"].as_u64().expect("a code"), error["message"].as_str().expect("text").into())
    }

    fn code(&self) -> (u16, u64) {
        let (status, code, _) = self.error();
        (status, code)
    }
}

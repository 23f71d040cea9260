//! What happens below the requests: HTTP/2, HEAD, slow clients, the end of the server.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::{sleep, timeout};

use super::*;
use crate::api::serve::{Answers, serve_with};

#[tokio::test]
async fn cleartext_http2_is_spoken() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let call = async |method: &str, body: Vec<u8>| {
        let uri = format!("http://{}/client/v4/accounts/{ACCOUNT}/storage/kv{ns}/values/a%2Fb", server.address);
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Full::from(body))
            .expect("a request");
        let answer = client.request(request).await.expect("an answer");
        let (parts, body) = answer.into_parts();
        (parts, body.collect().await.expect("a body").to_bytes())
    };
    let value = vec![b'x'; 3_000_000];
    assert_eq!(call("PUT", value.clone()).await.0.status, 200);
    assert!(call("GET", Vec::new()).await.1 == value);
    let (head, body) = call("HEAD", Vec::new()).await;
    assert_eq!(
        (head.status.as_u16(), &head.headers["content-length"], body.len()),
        (200, &"3000000".parse().expect("a header"), 0)
    );
    assert_eq!(call("PUT", vec![0; 26_214_401]).await.0.status, 413);
}

#[tokio::test]
async fn head_has_headers_only() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    server.ask("PUT", &format!("{ns}/values/k"), "value").await.result();
    let answer = server.ask("HEAD", &format!("{ns}/values/k"), "").await;
    assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (200, Some("5"), 0));
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let server = Server::start(false).await;
    let answer = server.call("GET", "/healthz", &format!("X-Long: {}\r\n", "x".repeat(70_000)), b"").await;
    assert_eq!(answer.status, 431);
}

#[tokio::test]
async fn a_refused_upload_that_waits_for_continue_is_not_asked_for() {
    let server = Server::start(false).await;
    let request = b"PUT /client/v4/nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
        Expect: 100-continue\r\nContent-Length: 1000000\r\n\r\n";
    let answer = timeout(Duration::from_secs(5), server.raw(request)).await.expect("no waiting for the body");
    assert_eq!(answer.code(), (404, 7003));
}

#[tokio::test]
async fn a_refusal_does_not_wait_for_a_body_that_never_comes() {
    let server = Server::start(false).await;
    let request = b"PUT /client/v4/nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nab";
    let answer = timeout(Duration::from_secs(8), server.raw(request)).await.expect("a short wait");
    assert_eq!(answer.code(), (404, 7003));
}

#[tokio::test]
async fn requests_in_flight_finish_when_the_server_stops() {
    let mut server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let idle = server.connect().await;
    let mut stream = server.connect().await;
    let head = format!(
        "PUT /client/v4/accounts/{ACCOUNT}/storage/kv{ns}/values/k HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {TOKEN}\r\nContent-Length: 4\r\n\r\nab"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    sleep(Duration::from_millis(100)).await;
    server.stop.take().expect("running").send(()).expect("running");
    sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(&server.address).await.is_err(), "no new connections");
    stream.write_all(b"cd").await.expect("sent");
    Answer::read(&mut stream).await.result();
    let stopped = timeout(Duration::from_secs(3), server.task).await.expect("drained").expect("no panic");
    assert!(stopped.is_ok(), "{stopped:?}");
    drop(idle);
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_when_the_server_stops() {
    let mut server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let mut stream = server.connect().await;
    let head = format!(
        "PUT /client/v4/accounts/{ACCOUNT}/storage/kv{ns}/values/k HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {TOKEN}\r\nContent-Length: 4\r\n\r\nab"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    sleep(Duration::from_millis(100)).await;
    server.stop.take().expect("running").send(()).expect("running");
    let stopped = timeout(Duration::from_secs(8), server.task).await.expect("bounded").expect("no panic");
    assert!(matches!(stopped, Err(ApiError::Undrained { connections: 1 })), "{stopped:?}");
}

#[tokio::test]
async fn an_http2_connection_has_so_many_requests_at_a_time() {
    use http_body_util::combinators::BoxBody;
    use http_body_util::{Empty, StreamBody};
    use hyper::body::Frame;

    type NoError = std::convert::Infallible;
    const STREAMS_MAX: usize = 128;
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let stream = tokio::net::TcpStream::connect(&server.address).await.expect("it listens");
    let io = hyper_util::rt::TokioIo::new(stream);
    let (sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, BoxBody<Bytes, NoError>>(TokioExecutor::new(), io)
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let request = |method: &str, path: &str, body: BoxBody<Bytes, NoError>| {
        let uri = format!("http://{}{path}", server.address);
        let request = Request::builder().method(method).uri(uri).header("authorization", format!("Bearer {TOKEN}"));
        let (request, mut sender) = (request.body(body).expect("a request"), sender.clone());
        tokio::spawn(async move { sender.send_request(request).await })
    };
    let health = async || timeout(Duration::from_secs(1), request("GET", "/healthz", Empty::new().boxed())).await;
    assert!(health().await.expect("in time").expect("a task").is_ok());
    let path = format!("/client/v4/accounts/{ACCOUNT}/storage/kv{ns}/values/k");
    let endless = || StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, NoError>>()).boxed();
    let uploads: Vec<_> = (0..STREAMS_MAX).map(|_| request("PUT", &path, endless())).collect();
    sleep(Duration::from_millis(500)).await;
    assert!(health().await.is_err(), "it waits for its turn");
    uploads.into_iter().for_each(|upload| upload.abort());
    let mut answered = false;
    for _ in 0..20 {
        answered = answered || health().await.is_ok_and(|answer| answer.is_ok_and(|answer| answer.is_ok()));
    }
    assert!(answered, "there is room again");
}

/// Answers nobody, and counts those who wait.
struct Waits(Arc<AtomicUsize>);

/// One of them.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Answers for Waits {
    type Body = Empty<Bytes>;

    async fn answer(&self, _: Request<Incoming>, _: IpAddr) -> Result<Response<Self::Body>, Infallible> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(Arc::clone(&self.0));
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_request_and_gives_its_place_up() {
    let waiting = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(serve_with(listener, Arc::new(Waits(Arc::clone(&waiting))), std::future::pending()));
    let becomes = async |count: usize| {
        let reached = async {
            while waiting.load(Ordering::SeqCst) != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(5), reached).await.is_ok()
    };
    for request in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"]
    {
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = TcpStream::connect(address).await.expect("connected");
            client.write_all(request.as_bytes()).await.expect("written");
            clients.push(client);
        }
        assert!(becomes(3).await, "all are asked for");
        clients.pop();
        assert!(becomes(2).await, "one went away: {request}");
        clients[0].shutdown().await.expect("closed");
        assert!(becomes(1).await, "one says nothing more: {request}");
        assert!(!becomes(0).await, "one is still there");
        drop(clients);
        assert!(becomes(0).await);
    }
    serving.abort();
}

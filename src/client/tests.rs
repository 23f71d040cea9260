//! What commands make of good answers, bad ones and none.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::operator::STATUS_PATH;
use super::*;
use crate::datadir::{DataDir, Running};
use crate::exit::Exit;

/// Answers one request with those bytes, and gives back the request.
async fn canned(answer: impl Into<Vec<u8>>) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = answer.into();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 16 * 1024];
        let len = stream.read(&mut request).await.unwrap();
        // The client may hang up early on an answer it does not like.
        let _ = stream.write_all(&answer).await;
        String::from_utf8_lossy(&request[..len]).into_owned()
    });
    (url, served)
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

async fn status_of(answer: impl Into<Vec<u8>>) -> Result<Value, ClientError> {
    let (url, _) = canned(answer).await;
    Client::of_url(&url, Some(Secret::new("tok"))).unwrap().status().await
}

fn data_dir(api: &str) -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("data");
    let dir = DataDir::open(&path).unwrap();
    dir.write_admin_token(&Secret::new("admin-tok")).unwrap();
    dir.write_running(&Running {
        node: "0".repeat(16),
        name: "n".to_owned(),
        pop: None,
        account: "0".repeat(32),
        api: api.to_owned(),
        bindings: None,
        workers: None,
        api_certificate: None,
        gossip: "127.0.0.1:1".to_owned(),
        pid: 1,
        version: "0".to_owned(),
    })
    .unwrap();
    (parent, path)
}

/// A port that was free a moment ago.
async fn closed_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn a_status_with_the_token_of_the_data_directory() {
    let (url, served) = canned(http("200 OK", r#"{"node":"x"}"#)).await;
    let (_parent, data) = data_dir(&url);
    let status = Client::of_data_dir(&data, None).unwrap().status().await.unwrap();
    assert_eq!(status, json!({ "node": "x" }));
    let request = served.await.unwrap().to_lowercase();
    assert!(request.starts_with("get /starling/v1/status http/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: bearer admin-tok\r\n"), "{request}");
    assert!(request.contains(&format!("host: {}\r\n", &url[7..])), "{request}");
}

#[tokio::test]
async fn a_token_of_ones_own_wins() {
    let (url, served) = canned(http("200 OK", "{}")).await;
    let (_parent, data) = data_dir(&url);
    Client::of_data_dir(&data, Some(Secret::new("mine"))).unwrap().status().await.unwrap();
    assert!(served.await.unwrap().contains("Bearer mine"));
}

#[tokio::test]
async fn an_invitation() {
    let (url, served) = canned(http("200 OK", r#"{"success":true,"result":{"token":"join-me"}}"#)).await;
    let token = Client::of_url(&url, None).unwrap().invite(Duration::from_secs(90)).await.unwrap();
    assert_eq!(token.expose(), "join-me");
    let request = served.await.unwrap();
    assert!(request.starts_with("POST /starling/v1/invite") && request.ends_with(r#"{"ttl_secs":90}"#), "{request}");
    assert!(!request.to_lowercase().contains("authorization"), "{request}");
    let (url, _) = canned(http("200 OK", "{}")).await;
    let error = Client::of_url(&url, None).unwrap().invite(Duration::from_secs(90)).await.unwrap_err();
    assert!(matches!(error, ClientError::NotStarling { .. }), "{error}");
}

#[tokio::test]
async fn nobody_there() {
    let url = closed_url().await;
    let error = Client::of_url(&url, None).unwrap().status().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    let (_parent, data) = data_dir(&url);
    let error = Client::of_data_dir(&data, None).unwrap().status().await.unwrap_err();
    assert_eq!(error.exit(), Exit::NodeUnreachable);
    let error = error.to_string();
    assert!(error.contains(&format!("starling serve --data {}", data.display())), "{error}");
}

#[test]
fn a_directory_without_a_node() {
    let dir = tempfile::tempdir().unwrap();
    let error = Client::of_data_dir(dir.path(), None).unwrap_err();
    assert!(matches!(error, ClientError::NoNode { .. }), "{error}");
}

#[tokio::test]
async fn not_authorized() {
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let error = status_of(http(status, "")).await.unwrap_err();
        assert_eq!(error.exit(), Exit::Unauthorized);
        assert!(error.to_string().contains("STARLING_TOKEN") && !error.to_string().contains("tok;"), "{error}");
    }
    let missing = r#"{"success":false,"errors":[{"code":9106,"message":"Missing headers"}]}"#;
    let (url, _) = canned(http("400 Bad Request", missing)).await;
    let error = Client::of_url(&url, None).unwrap().status().await.unwrap_err();
    assert!(error.to_string().contains("without an API token"), "{error}");
}

#[tokio::test]
async fn refusals_are_passed_on() {
    for (body, said) in [
        (r#"{"success":false,"errors":[{"code":1,"message":"disk full"}]}"#, "disk full"),
        (r#"{"error":"disk full"}"#, "disk full"),
        ("<html>", "Internal Server Error"),
        ("", "Internal Server Error"),
    ] {
        let error = status_of(http("500 Internal Server Error", body)).await.unwrap_err();
        assert!(matches!(error, ClientError::Refused { status: 500, .. }), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn garbage() {
    for answer in [http("200 OK", "<html>"), http("200 OK", "[1]"), "SSH-2.0-OpenSSH_9.9\r\n".to_owned()] {
        let error = status_of(answer.clone()).await.unwrap_err();
        assert!(matches!(error, ClientError::NotStarling { .. }), "{answer:?}: {error}");
        assert_eq!(error.exit(), Exit::Failure);
    }
    for cut in ["", "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"] {
        let error = status_of(cut).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { .. }) && error.is_transient(), "{cut:?}: {error}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let body = format!("\"{}\"", "x".repeat(ANSWER_LEN_MAX));
    let error = status_of(http("200 OK", &body)).await.unwrap_err();
    assert!(error.to_string().contains("16 MiB"), "{error}");
}

#[tokio::test]
async fn silence_is_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::of_url(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
    let error = client.request(Method::GET, STATUS_PATH).patience(Duration::from_millis(50)).value().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert_eq!(error.exit(), Exit::NodeUnreachable);
}

#[test]
fn urls() {
    for good in ["http://127.0.0.1:7700", "http://[::1]:7700/", "http://localhost", "https://x"] {
        Client::of_url(good, None).unwrap();
    }
    for bad in ["", "127.0.0.1:7700", "ftp://x", "http://", "http://x/path", "http://x?y"] {
        let error = Client::of_url(bad, None).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage, "{bad}: {error}");
    }
}

#[tokio::test]
async fn a_damaged_token_is_not_shown() {
    let (url, _) = canned("").await;
    let error = Client::of_url(&url, Some(Secret::new("a\nb"))).unwrap().status().await.unwrap_err();
    assert!(matches!(error, ClientError::BadToken), "{error}");
}

//! Namespaces and keys, page by page.

use super::*;

#[tokio::test]
async fn namespaces_live_and_die() {
    let server = Server::start(false).await;
    let ns = server.namespace("first").await;
    let answer = server.ask("POST", "/namespaces", "{\n \"title\": \"first\"}").await;
    let expected = "create namespace: 'a namespace with this account ID and title already exists'";
    assert_eq!(answer.error(), (400, 10014, expected.into()));
    let got = server.ask("GET", &ns, "").await.result();
    assert_eq!((&got["title"], &got["supports_url_encoding"]), (&"first".into(), &true.into()));
    assert_eq!(server.ask("PUT", &ns, r#"{"title":"second"}"#).await.result()["title"], "second");
    assert_eq!(server.ask("DELETE", &ns, "").await.result(), serde_json::json!({}));
    for (method, path) in [("GET", ns.clone()), ("DELETE", ns.clone()), ("GET", format!("{ns}/keys"))] {
        assert_eq!(server.ask(method, &path, "").await.code(), (404, 10013), "{method} {path}");
    }
    let put = server.ask("PUT", &format!("{ns}/values/k"), "v").await;
    assert_eq!(put.error(), (404, 10013, "put: 'namespace not found'".into()));
    // Clients show the reason phrase, and are used to the plain one.
    assert_eq!(put.reason, "Not Found");
    assert_eq!(server.ask("GET", "/namespaces/xyz", "").await.code(), (400, 10011));
    for (body, code) in [("{}", 10019), (r#"{"title":" "}"#, 10019), ("x", 10001), (r#"{"title":1}"#, 10001)] {
        assert_eq!(server.ask("POST", "/namespaces", body).await.code(), (400, code), "{body}");
    }
    let long = format!("{{\"title\":\"{}\"}}", "t".repeat(513));
    assert_eq!(server.ask("POST", "/namespaces", long).await.code(), (400, 10010));
}

#[tokio::test]
async fn namespaces_are_listed_until_an_empty_page() {
    let server = Server::start(false).await;
    for title in ["b", "c", "a"] {
        server.namespace(title).await;
    }
    let titles = async |query: &str| {
        let result = server.ask("GET", &format!("/namespaces{query}"), "").await.result();
        let titles = result.as_array().expect("an array").iter().map(|n| n["title"].as_str().expect("text").to_owned());
        titles.collect::<String>()
    };
    assert_eq!(titles("?order=title").await, "abc");
    assert_eq!(titles("?order=title&direction=desc").await, "cba");
    assert_eq!(titles("?order=title&per_page=2&page=1").await, "ab");
    assert_eq!(titles("?order=title&per_page=2&page=2").await, "c");
    assert_eq!(titles("?per_page=1000&page=2").await, "");
    let info = server.ask("GET", "/namespaces?per_page=2&page=2", "").await.json()["result_info"].take();
    let expected = serde_json::json!({ "page": 2, "per_page": 2, "count": 1, "total_count": 3, "total_pages": 2 });
    assert_eq!(info, expected);
    for bad in ["page=0", "per_page=1001", "order=size", "direction=up"] {
        assert_eq!(server.ask("GET", &format!("/namespaces?{bad}"), "").await.code(), (400, 10001), "{bad}");
    }
}

#[tokio::test]
async fn keys_are_listed_in_byte_order_to_an_empty_cursor() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    for key in ["a", "B", "%C3%BC", "p%2F2", "p%2F10", "p"] {
        server.ask("PUT", &format!("{ns}/values/{key}"), "v").await.result();
    }
    for (prefix, expected) in [("", "B|a|p|p/10|p/2|ü"), ("p%2F", "p/10|p/2"), ("%C3%BC", "ü"), ("none", "")] {
        let (mut names, mut cursor) = (Vec::new(), String::new());
        loop {
            let query = format!("{ns}/keys?limit=2&prefix={prefix}&cursor={cursor}");
            let answer = server.ask("GET", &query, "").await;
            let page = answer.result();
            let page = page.as_array().expect("an array");
            names.extend(page.iter().map(|key| key["name"].as_str().expect("text").to_owned()));
            let info = &answer.json()["result_info"];
            assert_eq!(info["count"], page.len());
            cursor = info["cursor"].as_str().expect("text").to_owned();
            if cursor.is_empty() {
                break;
            }
        }
        assert_eq!(names.join("|"), expected);
    }
    for limit in ["0", "1001", "x", "-1"] {
        assert_eq!(server.ask("GET", &format!("{ns}/keys?limit={limit}"), "").await.code(), (400, 10028));
    }
    for cursor in ["x", "!", &"A".repeat(2000)] {
        assert_eq!(server.ask("GET", &format!("{ns}/keys?cursor={cursor}"), "").await.code(), (400, 10039));
    }
}

#[tokio::test]
async fn the_alias_of_2018_still_works() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    server.ask("PUT", &format!("{ns}/values/k"), "v").await.result();
    let path = format!("/client/v4/accounts/{ACCOUNT}/workers{ns}/values/k");
    let answer = server
        .call("GET", &path, "X-Auth-Email: a@b.c\r\nX-Auth-Key: right-token-0123456789-0123456789-0123456789\r\n", b"")
        .await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"v"[..]));
}

//! The examples of Workers, on the embedded engine.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

use super::scripts::{ask, deploy, deploy_code, get, kv, namespace};
use super::workers::workers;
use crate::flock::{Answer, Client, Node};

#[test]
fn a_service_worker_computes_a_card_and_keeps_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = workers(&node).expect("an address");
    let mut binding = kv(&namespace(&node));
    binding["name"] = json!("LOGCARD");
    let metadata = json!({ "body_part": "script", "bindings": [binding] });
    let code = include_str!("../../examples/babbage/babbage.js");
    let deployed = deploy(&node, "babbage", &[("script", "application/javascript", code)], metadata);
    assert_eq!(deployed.status, 200, "{deployed:?}");
    let first = ask(at, "babbage", "GET", "/?int=2303", "", b"");
    assert!(first.status == 200 && first.header("starling-bookmark").is_some(), "it wrote: {first:?}");
    assert!(String::from_utf8_lossy(&first.body).contains("<svg"));
    let second = ask(at, "babbage", "GET", "/?int=2303", "", b"");
    assert!(second.header("starling-bookmark").is_none(), "it only read: {second:?}");
    assert_eq!((first.header("x-card"), second.header("x-card")), (Some("computed"), Some("store")));
}

/// An example's script, deployed as `examples/deploy` deploys it.
fn example(node: &Node, name: &str, code: &str) -> SocketAddr {
    deploy_code(node, name, code, json!({ "bindings": [kv(&namespace(node))] }));
    workers(node).expect("an address")
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[test]
fn a_cart_is_filled_and_emptied() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &["--pop", "FRA"]);
    let at = example(&node, "cart", include_str!("../../examples/cart/worker.mjs"));
    assert_eq!(text(&ask(at, "cart", "PUT", "/ann/apple", "", b"2")), r#"{"pop":"FRA","items":{"apple":2}}"#);
    assert_eq!(ask(at, "cart", "PUT", "/ann/apple", "", b"many").status, 400);
    assert_eq!(text(&ask(at, "cart", "DELETE", "/ann/apple", "", b"")), r#"{"pop":"FRA","items":{}}"#);
    assert!(get(at, "cart", "/").1.contains("<h1>Cart"));
}

#[test]
fn a_short_link_leads_where_it_should() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = example(&node, "url-shortener", include_str!("../../examples/url-shortener/worker.mjs"));
    let made = ask(at, "url-shortener", "POST", "/", "", b"https://example.com/x?y");
    assert_eq!(made.status, 201, "{made:?}");
    let slug = text(&made).trim().rsplit('/').next().expect("a slug").to_owned();
    let sent_on = ask(at, "url-shortener", "GET", &format!("/{slug}"), "", b"");
    assert_eq!((sent_on.status, sent_on.header("location")), (302, Some("https://example.com/x?y")));
    assert_eq!(get(at, "url-shortener", "/nosuchx").0, 404);
    assert_eq!(ask(at, "url-shortener", "POST", "/", "", b"javascript:alert(1)").status, 400);
}

#[test]
fn a_visitor_stays_in_a_group_of_a_test() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = example(&node, "ab-test", include_str!("../../examples/ab-test/worker.mjs"));
    assert_eq!(ask(at, "ab-test", "PUT", "/headline", "", b"1").status, 200);
    for _ in 0..20 {
        assert_eq!(ask(at, "ab-test", "GET", "/", "", b"").header("x-group"), Some("b"));
    }
    let stays = ask(at, "ab-test", "GET", "/", "Cookie: x=1; group=a\r\n", b"");
    assert_eq!((stays.header("x-group"), stays.header("set-cookie")), (Some("a"), None));
}

#[test]
fn a_session_holds_until_it_is_ended() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = example(&node, "auth", include_str!("../../examples/auth/worker.mjs"));
    let ann = br#"{"name":"ann","password":"correct horse"}"#;
    assert_eq!(ask(at, "auth", "POST", "/register", "", ann).status, 201);
    assert_eq!(ask(at, "auth", "POST", "/register", "", ann).status, 409);
    assert_eq!(ask(at, "auth", "POST", "/login", "", br#"{"name":"ann","password":"wrong"}"#).status, 401);
    let login = ask(at, "auth", "POST", "/login", "", ann).json();
    let session = format!("Cookie: session={}\r\n", login["token"].as_str().expect("a token"));
    assert_eq!(ask(at, "auth", "GET", "/", &session, b"").json()["name"], "ann");
    assert_eq!(ask(at, "auth", "GET", "/", "", b"").status, 401);
    assert_eq!(ask(at, "auth", "POST", "/logout", &session, b"").status, 200);
    assert_eq!(ask(at, "auth", "GET", "/", &session, b"").status, 401);
}

#[test]
fn a_page_is_put_together_of_what_is_there() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &["--pop", "FRA"]);
    let at = example(&node, "page-assembly", include_str!("../../examples/page-assembly/worker.mjs"));
    let put = |path: &str, body: &str| ask(at, "page-assembly", "PUT", path, "", body.as_bytes()).status;
    let page = || text(&ask(at, "page-assembly", "GET", "/", "", b""));
    let empty = page();
    assert!(empty.contains("No fragment called news yet") && empty.contains(">FRA</span>"), "{empty}");
    assert_eq!(
        (put("/fragment/news", "<h2>News</h2>"), put("/fragment/a/b", "x"), put("/other", "x")),
        (200, 200, 404)
    );
    let filled = page();
    assert!(filled.contains("<section data-fragment=\"news\"><h2>News</h2></section>"), "{filled}");
    assert!(filled.contains("No fragment called weather yet"), "{filled}");
    let items = "<li data-fragment=news></li>".repeat(500);
    assert_eq!(put("/template", &format!("<ul>{items}</ul>")), 200);
    assert_eq!(page().matches("<h2>News</h2>").count(), 500);
}

/// A site with a page, a style and a picture for each of so many.
fn site(folder: &Path, count: usize) {
    for n in 0..count {
        let pages = folder.join(format!("docs/part {}", n % 7));
        std::fs::create_dir_all(&pages).expect("a folder");
        std::fs::write(pages.join(format!("page-{n}.html")), format!("<h1>Page {n}</h1>")).expect("a page");
        std::fs::write(pages.join(format!("style-{n}.css")), format!("h1{{margin:{n}px}}")).expect("a style");
        std::fs::write(pages.join(format!("bild-ü-{n}.png")), [n as u8; 300]).expect("a picture");
    }
    std::fs::write(folder.join("docs/index.html"), "<h1>Docs</h1>").expect("a page");
}

/// Paths below a folder, each with a slash before it.
fn files(folder: &Path, under: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let paths = entries.flat_map(|entry| {
        let path = format!("{under}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() { files(&entry.path(), &path) } else { vec![path] }
    });
    paths.collect()
}

/// Deploys a folder as `examples/originless-site/run` does, which the conformance tests run: how many files were new.
fn upload(node: &Node, folder: &Path, start: &str) -> usize {
    let account = format!("/client/v4/accounts/{}/workers", node.account);
    let content = |path: &str| std::fs::read(folder.join(path.trim_start_matches('/'))).expect("a file");
    // A file is known by its hash, and no two paths here have the same content.
    let hash = |path: &str| {
        let mut hasher = std::hash::DefaultHasher::new();
        path.hash(&mut hasher);
        format!("{:032x}", hasher.finish())
    };
    let paths = files(folder, "");
    let entry = |path: &String| (path.clone(), json!({ "hash": hash(path), "size": content(path).len() }));
    let manifest = json!({ "manifest": paths.iter().map(entry).collect::<serde_json::Map<_, _>>() });
    let session = format!("{account}/scripts/originless-site/assets-upload-session");
    let session = node.client().ask("POST", &session, manifest.to_string().as_bytes()).expect("an answer").result();
    let token = session["jwt"].as_str().expect("a token");
    let mut uploaded = 0;
    for bucket in session["buckets"].as_array().expect("a list") {
        let mut form = Vec::new();
        for path in paths.iter().filter(|path| bucket.as_array().expect("a list").contains(&hash(path).into())) {
            let head = format!("Content-Disposition: form-data; name=\"{0}\"; filename=\"{0}\"", hash(path));
            form.extend(format!("--b\r\n{head}\r\nContent-Type: application/null\r\n\r\n").into_bytes());
            form.extend([&content(path)[..], b"\r\n"].concat());
            uploaded += 1;
        }
        form.extend(b"--b--\r\n");
        let mut client = Client::new(node.api, token);
        let headers = "Content-Type: multipart/form-data; boundary=b\r\n";
        let sent = client.ask_with("POST", &format!("{account}/assets/upload"), headers, &form).expect("an answer");
        assert!(matches!(sent.status, 201 | 202), "{sent:?}");
    }
    let metadata = json!({
        "bindings": [{ "type": "assets", "name": "ASSETS" }, { "type": "plain_text", "name": "START", "text": start }],
        "assets": { "jwt": token, "config": { "not_found_handling": "404-page" } },
    });
    deploy_code(node, "originless-site", include_str!("../../examples/originless-site/worker.mjs"), metadata);
    uploaded
}

#[test]
fn a_folder_of_files_becomes_a_site() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = workers(&node).expect("an address");
    let folder = directory.path().join("site");
    site(&folder, 100);
    assert_eq!(upload(&node, &folder, "/docs/"), 301);
    let get = |path: &str, headers: &str| ask(at, "originless-site", "GET", path, headers, b"");
    let start = get("/", "");
    assert_eq!(start.status, 302, "{start:?}");
    assert!(start.header("location").is_some_and(|to| to.ends_with("/docs/")), "{start:?}");
    for (path, kind, body) in [
        ("/docs/", "text/html; charset=utf-8", "<h1>Docs</h1>"),
        ("/docs/part%203/page-3", "text/html; charset=utf-8", "<h1>Page 3</h1>"),
        ("/docs/part%204/style-4.css", "text/css; charset=utf-8", "h1{margin:4px}"),
    ] {
        let got = get(path, "");
        assert_eq!((got.status, got.header("content-type"), &*text(&got)), (200, Some(kind), body), "{path}");
        let tag = got.header("etag").expect("a tag");
        assert_eq!(get(path, &format!("If-None-Match: {tag}\r\n")).status, 304);
    }
    let picture = "/docs/part%205/bild-%C3%BC-5.png";
    let part = get(picture, "Range: bytes=10-19\r\n");
    assert_eq!((part.status, part.header("content-type"), &part.body[..]), (206, Some("image/png"), &[5; 10][..]));
    assert_eq!(part.header("content-range"), Some("bytes 10-19/300"));
    let beyond = get(picture, "Range: bytes=300-\r\n");
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */300")));
    let moved = get("/docs/part%203/page-3.html", "");
    assert_eq!((moved.status, moved.header("location")), (307, Some("/docs/part%203/page-3")));
    let missing = get("/docs/none", "");
    assert!(missing.status == 404 && text(&missing).contains("There is no such page"), "{missing:?}");

    // A change is all that is uploaded, and the site's own page for what is missing comes before the script's.
    std::fs::write(folder.join("404.html"), "<h1>Nothing</h1>").expect("a page");
    std::fs::write(folder.join("index.html"), "<h1>Home</h1>").expect("a page");
    assert_eq!(upload(&node, &folder, ""), 2);
    crate::flock::eventually("the new version is live", || (get("/", "").status == 200).then_some(()));
    assert_eq!((get("/docs/none", "").status, &*text(&get("/docs/none", ""))), (404, "<h1>Nothing</h1>"));
}

#[test]
fn the_front_lists_what_is_deployed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = example(&node, "cart", include_str!("../../examples/cart/worker.mjs"));
    assert_eq!(get(at, "cart", "/").0, 200);
    let page = text(&super::workers::visit(at, &at.to_string(), "Accept: text/html\r\n"));
    let link = format!("<a href=\"http://cart.workers.localhost:{0}/\">", at.port());
    assert!(page.contains(&link), "{page}");
}

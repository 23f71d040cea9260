//! What visitors see where no script answers: what is deployed, that nothing is, or why there is no answer. As a page
//! for browsers, as text for everyone else.

use std::fmt::Write;
use std::net::IpAddr;

use bytes::Bytes;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::forward::BODY_LEN_MAX;
use super::routes::{Deployed, Routes, SUFFIX};
use crate::worker::engine::{EngineError, Streamed};

/// Longest host that a page repeats, in characters.
const HOST_ECHO_MAX: usize = 100;
/// Scripts that the list shows.
const LISTED_MAX: usize = 1_000;

/// A failure in words.
pub(super) struct Page {
    status: StatusCode,
    /// Cloudflare's number for it, if it has one.
    code: Option<u32>,
    title: String,
    /// What to do about it.
    advice: String,
    retry_secs: Option<u64>,
    /// What it counts as.
    pub(super) outcome: &'static str,
}

impl Page {
    fn new(status: StatusCode, title: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status, code: None, title: title.into(), advice: advice.into(), retry_secs: None, outcome: "refused" }
    }

    pub(super) fn no_engine(why: &str) -> Self {
        let advice = format!("{why}. The script is deployed, and runs as soon as there is an engine.");
        Self {
            retry_secs: Some(10),
            outcome: "unavailable",
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "There is no engine for Workers at this node", advice)
        }
    }

    pub(super) fn body_too_long() -> Self {
        let advice = format!("A request may have a body of up to {} MiB.", BODY_LEN_MAX >> 20);
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "The request is too large", advice)
    }

    pub(super) fn too_busy(max: usize) -> Self {
        let title = "The script is too busy";
        let advice = format!("It is answering {max} requests, the most that it may at a time. Try again in a moment.");
        Self { retry_secs: Some(1), outcome: "busy", ..Self::new(StatusCode::SERVICE_UNAVAILABLE, title, advice) }
    }

    pub(super) fn bad_bookmark() -> Self {
        let advice = "Pass a starling-bookmark on as it came with an answer, or leave the header out.";
        Self::new(StatusCode::BAD_REQUEST, "Invalid starling-bookmark", advice)
    }

    pub(super) fn not_here_yet(why: &str) -> Self {
        let title = "What you have seen elsewhere is not here yet";
        Self { retry_secs: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, title, why) }
    }

    pub(super) fn bookmark_is_over(why: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "The starling-bookmark can't be waited for", why)
    }

    /// What is said of a script's own failure. Details are for those on this machine.
    pub(super) fn failed(error: &EngineError, from: IpAddr) -> Self {
        let outcome = match error {
            EngineError::Threw => "exception",
            EngineError::Refused(_) => "unloadable",
            EngineError::Cpu { .. } | EngineError::Memory | EngineError::Resting { .. } => "exceeded",
            EngineError::Slow { .. } => "timeout",
            EngineError::Lost => "lost",
            EngineError::Unavailable(_) => "unavailable",
            EngineError::Unknown => "refused",
        };
        Self { outcome, ..Self::of_failure(error, from) }
    }

    fn of_failure(error: &EngineError, from: IpAddr) -> Self {
        let limits = |advice: String, retry_secs| Self {
            code: Some(1102),
            retry_secs,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "Worker exceeded resource limits", advice)
        };
        match error {
            EngineError::Threw => Self {
                code: Some(1101),
                ..Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Worker threw exception",
                    "Its author sees which one with `wrangler tail`.",
                )
            },
            EngineError::Refused(reason) => Self {
                code: Some(1101),
                ..Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Worker can't be loaded",
                    match from.is_loopback() {
                        true => reason.clone(),
                        false => "The node's log says why.".to_owned(),
                    },
                )
            },
            EngineError::Cpu { .. } | EngineError::Memory => limits(format!("Here {error}."), None),
            EngineError::Resting { retry_secs } => limits(format!("Here {error}."), Some(*retry_secs)),
            EngineError::Slow { .. } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "The script took too long", format!("Here {error}."))
            }
            EngineError::Lost => Self {
                retry_secs: Some(1),
                ..Self::new(
                    StatusCode::BAD_GATEWAY,
                    "The answer was lost",
                    "Another script brought the runtime down, or it was ended. Whether this request was carried out is \
                     unknown, so it was not repeated.",
                )
            },
            EngineError::Unavailable(reason) => Self {
                retry_secs: Some(2),
                ..Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "The engine for Workers does not start",
                    match from.is_loopback() {
                        true => reason.clone(),
                        false => "The node's log says why.".to_owned(),
                    },
                )
            },
            EngineError::Unknown => {
                Self::new(StatusCode::NOT_FOUND, "There is no such script any more", "It was deleted.")
            }
        }
    }

    pub(super) fn render(&self, as_html: bool) -> Response<Streamed> {
        let mut response = if as_html {
            let code = self.code.map(|code| format!("<p class=code>error code: {code}</p>")).unwrap_or_default();
            let body = format!("<h1>{}</h1>{code}<p class=pre>{}</p>", escaped(&self.title), escaped(&self.advice));
            page(&self.title, &body)
        } else {
            let code = self.code.map(|code| format!("error code: {code}\n")).unwrap_or_default();
            text(format!("{code}{}\n{}\n", self.title, self.advice))
        };
        *response.status_mut() = self.status;
        if let Some(secs) = self.retry_secs {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }
}

/// Whether a page is of more use than text.
pub(super) fn asks_html(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|text| text.contains("text/html"))
}

/// No script for that host.
pub(super) fn not_found(host: &str, as_html: bool) -> Response<Streamed> {
    let host: String = host.chars().take(HOST_ECHO_MAX).collect();
    let advice = format!(
        "A script answers at <name>{SUFFIX}, with this listener's port, and at the routes it was deployed with. \
         http://localhost, at that port, lists what is deployed."
    );
    Page::new(StatusCode::NOT_FOUND, format!("No script answers at {host}"), advice).render(as_html)
}

/// What is deployed.
pub(super) fn index(routes: &Routes, host: &str, is_https: bool, as_html: bool) -> Response<Streamed> {
    let scheme = if is_https { "https" } else { "http" };
    let port = host.get(super::routes::name_of(host).len()..).unwrap_or_default();
    let url = |deployed: &Deployed| deployed.name.as_ref().map(|name| format!("{scheme}://{name}{SUFFIX}{port}/"));
    let all = routes.all();
    let mut out = String::new();
    // Writing to a String can't fail, here and below.
    if !as_html {
        if all.is_empty() {
            out.push_str("Nothing is deployed yet.\n");
        }
        for deployed in all.iter().take(LISTED_MAX) {
            let url = url(deployed).unwrap_or_else(|| "-".into());
            let _ = writeln!(out, "{}\t{url}\t{}", deployed.id.script, deployed.live.routes.join(" "));
        }
        return text(out);
    }
    out.push_str("<h1>Workers</h1>");
    if all.is_empty() {
        out.push_str("<p>Nothing is deployed yet. <code>wrangler deploy</code> at any PoP puts a script here, and at every other.</p>");
        return page("Workers", &out);
    }
    out.push_str("<table><tr><th>Script<th>Address<th>Routes<th>Version");
    for deployed in all.iter().take(LISTED_MAX) {
        let address = match url(deployed) {
            Some(url) => format!("<a href=\"{0}\">{0}</a>", escaped(&url)),
            None => "<span class=dim>only its routes</span>".into(),
        };
        let routes: Vec<String> = deployed.live.routes.iter().map(|route| escaped(route)).collect();
        let version = |(program, share): &(std::sync::Arc<crate::worker::Program>, f64)| {
            let short: String = program.version.chars().take(8).collect();
            let share = if *share < 100.0 { format!(" {share} %") } else { String::new() };
            format!("{}{share}", escaped(&short))
        };
        let versions: Vec<String> = deployed.live.versions.iter().map(version).collect();
        let _ = write!(
            out,
            "<tr><td>{}<td>{address}<td>{}<td class=dim>{}",
            escaped(&deployed.id.script),
            routes.join("<br>"),
            versions.join("<br>")
        );
    }
    out.push_str("</table>");
    page("Workers", &out)
}

fn text(body: String) -> Response<Streamed> {
    reply(body, "text/plain; charset=utf-8")
}

fn page(title: &str, body: &str) -> Response<Streamed> {
    const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:12vh auto;padding:0 1.5rem;\
        color:#223;background:#fbfaf7}h1{font-weight:600;letter-spacing:-.01em}table{border-collapse:collapse;width:100%}\
        th{text-align:left;font-weight:500;color:#778;font-size:.85rem}td,th{padding:.5rem 1rem .5rem 0;\
        border-bottom:1px solid #e6e3da;vertical-align:top}a{color:#0a58ca}.dim{color:#889}.code{color:#a33}\
        .pre{white-space:pre-wrap;overflow-wrap:anywhere}code{background:#efece4;padding:.1em .3em;border-radius:3px}\
        @media(prefers-color-scheme:dark){body{background:#16181d;color:#dde}td,th{border-color:#2b2e36}a{color:#7ab3ff}\
        code{background:#24272e}}";
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{}</title><style>{STYLE}</style><main>{body}</main></html>\n",
        escaped(title)
    );
    let mut response = reply(html, "text/html; charset=utf-8");
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    response.headers_mut().insert("content-security-policy", HeaderValue::from_static(policy));
    response
}

fn reply(body: String, content_type: &'static str) -> Response<Streamed> {
    let mut response = Response::new(Streamed::whole(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn body(response: Response<Streamed>) -> String {
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn whatever_a_host_is_called_it_does_no_harm() {
        let page = body(not_found("<script>alert(1)</script>", true)).await;
        assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script"), "{page}");
    }

    #[tokio::test]
    async fn failures_have_cloudflares_codes_and_details_stay_on_this_machine() {
        let there: IpAddr = [203, 0, 113, 9].into();
        let here: IpAddr = [127, 0, 0, 1].into();
        let shown = async |error: &EngineError, from| {
            let response = Page::failed(error, from).render(false);
            (response.status().as_u16(), body(response).await)
        };
        let (status, text) = shown(&EngineError::Cpu { limit_ms: 5000 }, there).await;
        assert!(status == 503 && text.starts_with("error code: 1102\n") && text.contains("5000 ms"), "{text}");
        let (status, text) = shown(&EngineError::Threw, there).await;
        assert!(status == 500 && text.starts_with("error code: 1101\n"), "{text}");
        let refused = EngineError::Refused("SyntaxError: secret.js".into());
        assert!(shown(&refused, here).await.1.contains("secret.js"));
        assert!(!shown(&refused, there).await.1.contains("secret.js"));
    }
}

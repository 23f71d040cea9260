//! Answers with static files: status, headers, ranges of nothing but the whole.
//!
//! Which file a path stands for is [`Assets`](super::Assets)'s to know; where its content is, [`Files`]'s.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LOCATION};
use hyper::{Method, Response, StatusCode};
use percent_encoding::percent_decode_str;

use super::engine::{Streamed, streamed};
use super::{Asset, Program, Resolved};

/// The content of a file, if it is here.
pub type Content<'a> = Pin<Box<dyn Future<Output = Option<Bytes>> + Send + 'a>>;

/// Where the contents of static files are.
pub trait Files: Send + Sync + 'static {
    /// The content with that hash, of a program's files.
    fn content<'a>(&'a self, program: &'a Program, hash: [u8; 16]) -> Content<'a>;
}

/// What a path that no file matches is answered with, where no script is asked: `None` if nothing matches.
pub async fn find(
    program: &Program,
    files: &dyn Files,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Option<Response<Streamed>> {
    let assets = program.assets.as_ref().filter(|_| matches!(*method, Method::GET | Method::HEAD))?;
    let path = percent_decode_str(path).decode_utf8().ok()?;
    match assets.resolve(&path) {
        Resolved::File(asset) => {
            // Only pages are found under other names than their own.
            let name = if assets.files.contains_key(&*path) { &path } else { ".html" };
            Some(file(program, files, asset, StatusCode::OK, name, headers).await)
        }
        Resolved::Redirect(to) => {
            let mut response = plain(StatusCode::TEMPORARY_REDIRECT, "");
            let to = HeaderValue::from_str(&to).ok()?;
            response.headers_mut().insert(LOCATION, to);
            Some(response)
        }
        Resolved::Missing => None,
    }
}

/// What stands in for a file that is not there: a page of the script's own, or a plain 404.
pub async fn stand_in(program: &Program, files: &dyn Files, path: &str, headers: &HeaderMap) -> Response<Streamed> {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let found = program.assets.as_ref().and_then(|assets| assets.stand_in(&decoded));
    match found {
        Some((status, asset)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND);
            file(program, files, asset, status, ".html", headers).await
        }
        None => plain(StatusCode::NOT_FOUND, ""),
    }
}

/// What `env.ASSETS.fetch()` gives.
pub async fn answer(
    program: &Program,
    files: &dyn Files,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Response<Streamed> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "");
    }
    match find(program, files, method, path, headers).await {
        Some(response) => response,
        None => stand_in(program, files, path, headers).await,
    }
}

async fn file(
    program: &Program,
    files: &dyn Files,
    asset: &Asset,
    status: StatusCode,
    path: &str,
    headers: &HeaderMap,
) -> Response<Streamed> {
    let hash: String = asset.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{hash}\"");
    let matches = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(',').any(|one| one.trim().trim_start_matches("W/") == tag))
    };
    let mut response = if status == StatusCode::OK && headers.get(IF_NONE_MATCH).is_some_and(matches) {
        plain(StatusCode::NOT_MODIFIED, "")
    } else {
        match files.content(program, asset.hash).await {
            Some(content) => {
                let mut response = Response::new(streamed(Full::new(content)));
                *response.status_mut() = status;
                let stated = asset.content_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
                let by_name = || HeaderValue::from_static(media_type(path));
                response.headers_mut().insert(CONTENT_TYPE, stated.unwrap_or_else(by_name));
                response
            }
            None => return plain(StatusCode::SERVICE_UNAVAILABLE, "This file has not arrived at this PoP yet.\n"),
        }
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=0, must-revalidate"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Streamed> {
    let mut response = Response::new(streamed(Full::new(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    response
}

/// By the end of a name, for files whose uploader did not say.
fn media_type(path: &str) -> &'static str {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "xml" => "application/xml",
        "pdf" => "application/pdf",
        _ => "application/octet-stream",
    }
}

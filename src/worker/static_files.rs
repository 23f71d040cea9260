//! Answers with static files: status, headers, all of a file or a range of it.
//!
//! Which file a path stands for is [`Assets`](super::Assets)'s to know; where its content is, [`Files`]'s.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LOCATION,
};
use hyper::{Method, Response, StatusCode};
use percent_encoding::percent_decode_str;

use super::engine::Streamed;
use super::range::{Wanted, wanted};
use super::{Asset, Program, Resolved};

/// What pages are called that are found under other names than their own.
const PAGE: &str = "page.html";

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
            let name = if assets.files.contains_key(&*path) { &path } else { PAGE };
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
            file(program, files, asset, status, PAGE, headers).await
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
    let mut kept = HeaderMap::new();
    kept.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=0, must-revalidate"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        kept.insert(ETAG, tag);
    }
    if status == StatusCode::OK {
        kept.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if headers.get(IF_NONE_MATCH).is_some_and(matches) {
            let mut response = plain(StatusCode::NOT_MODIFIED, "");
            *response.headers_mut() = kept;
            return response;
        }
    }
    let Some(content) = files.content(program, asset.hash).await else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "This file has not arrived at this PoP yet.\n");
    };
    let stated = asset.content_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
    let stated = stated.or_else(|| HeaderValue::from_str(&media_type(path)).ok());
    kept.extend(stated.map(|stated| (CONTENT_TYPE, stated)));
    let part = if status == StatusCode::OK { wanted(headers, &kept, content.len()) } else { Wanted::All };
    let (status, sent, range) = match part {
        Wanted::All => (status, content, None),
        Wanted::Part(part) => {
            let range = format!("bytes {}-{}/{}", part.start, part.end - 1, content.len());
            (StatusCode::PARTIAL_CONTENT, content.slice(part), Some(range))
        }
        Wanted::Beyond => (StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new(), Some(format!("bytes */{}", content.len()))),
    };
    kept.extend(range.and_then(|range| HeaderValue::try_from(range).ok()).map(|range| (CONTENT_RANGE, range)));
    let mut response = Response::new(Streamed::whole(sent));
    (*response.status_mut(), *response.headers_mut()) = (status, kept);
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Streamed> {
    let mut response = Response::new(Streamed::whole(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// By the end of a name, for files whose uploader did not say.
fn media_type(path: &str) -> String {
    let found = mime_guess::from_path(path).first_or_octet_stream();
    match (found.type_(), found.subtype()) {
        // RFC 9239.
        (_, mime_guess::mime::JAVASCRIPT) => "text/javascript; charset=utf-8".into(),
        (mime_guess::mime::TEXT, _) => format!("{found}; charset=utf-8"),
        _ => found.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_types_of_their_names() {
        for (path, expected) in [
            ("/index.html", "text/html; charset=utf-8"),
            ("/a/STYLE.CSS", "text/css; charset=utf-8"),
            ("/main.mjs", "text/javascript; charset=utf-8"),
            ("/pic.svg", "image/svg+xml"),
            ("/font.woff2", "font/woff2"),
            ("/list.json", "application/json"),
            ("/code.wasm", "application/wasm"),
            ("/favicon.ico", "image/x-icon"),
            ("/film.mp4", "video/mp4"),
            ("/unknown", "application/octet-stream"),
        ] {
            assert_eq!(media_type(path), expected, "{path}");
        }
    }
}

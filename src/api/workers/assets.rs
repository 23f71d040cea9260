//! Static assets: an upload session, then the files, in portions. Files come with the token of the session in place of
//! an API token.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, stream};
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::http::request::Parts;
use serde_json::{Value as Json, json};

use super::super::body::RequestBody;
use super::super::error::RequestError;
use super::super::multipart;
use super::super::query::Query;
use super::super::reply::Reply;
use super::super::{Api, envelope};
use super::{BODY_LEN_MAX, Call};
use crate::kv::{AccountId, NamespaceId};
use crate::worker::WorkerError;

/// Largest manifest, in bytes.
const MANIFEST_LEN_MAX: usize = 16 * 1024 * 1024;
/// Largest portion of files, in bytes: 30 MiB of them, in base64, and what is around them.
const PORTION_LEN_MAX: usize = 44 * 1024 * 1024;
/// Files of a portion that are written at a time.
const ADDED_MAX: usize = 16;
/// Most files in a portion.
const FILES_MAX: usize = 512;
/// What stands for no content type, which forms can't leave out.
const NO_TYPE: &str = "application/null";

pub(super) async fn begin(call: &Call<'_>, name: &str, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let _place = call.api.large_body().await?;
    let text = body.read(MANIFEST_LEN_MAX).await?;
    let wrong = |why: String| RequestError::from(WorkerError::Manifest(why));
    let wanted: Json = serde_json::from_slice(&text).map_err(|error| wrong(format!("it is no JSON: {error}")))?;
    let Some(Json::Object(files)) = wanted.get("manifest") else {
        return Err(wrong("there is no object \"manifest\"".into()));
    };
    let mut manifest = BTreeMap::new();
    for (path, file) in files {
        let hash = file.get("hash").and_then(Json::as_str).and_then(read_hash);
        let size = file.get("size").and_then(Json::as_u64);
        let (Some(hash), Some(size)) = (hash, size) else {
            let path: String = path.chars().take(64).collect();
            return Err(wrong(format!("{path:?} has no \"hash\" of 32 hexadecimal digits, or no \"size\"")));
        };
        manifest.insert(path.clone(), (hash, size));
    }
    let wanted = call.workers.begin_assets(call.account, name, manifest).await?;
    let buckets: Vec<Vec<String>> =
        wanted.buckets.iter().map(|bucket| bucket.iter().map(|hash| show_hash(*hash)).collect()).collect();
    envelope::result(json!({ "jwt": wanted.token, "buckets": buckets }))
}

/// Takes in a portion of files. Whoever has the token of the session may send what it asked for.
pub(crate) async fn upload(
    api: &Api,
    account: &str,
    parts: &Parts,
    body: &mut RequestBody,
) -> Result<Reply, RequestError> {
    let token = bearer(&parts.headers).ok_or(WorkerError::NoSession)?;
    let account: AccountId = api.account_named(account).ok_or(RequestError::Unauthenticated)?;
    let workers = api.shared.workers.in_session(&api.kv);
    // Before anything is read: a body is no small thing.
    workers.missing_assets(account, token).await?;
    let is_base64 = Query::new(parts.uri.query()).value("base64")?.as_deref() == Some("true");
    let _place = api.large_body().await?;
    let boundary = multipart::boundary(&parts.headers)?;
    let boundary = boundary.ok_or_else(|| RequestError::Form("files come as multipart/form-data".into()))?;
    let too_large = RequestError::Form(format!("it has more than {PORTION_LEN_MAX} bytes"));
    let parts = multipart::parts(body, boundary, PORTION_LEN_MAX, FILES_MAX, too_large).await?;
    let workers = &workers;
    let add = |part: multipart::Part| async move {
        let hash = read_hash(&part.name).ok_or_else(|| WorkerError::StrangeAsset(part.name.clone()))?;
        let content = match is_base64 {
            false => part.body,
            true => STANDARD
                .decode(&part.body)
                .map(Into::into)
                .map_err(|_| RequestError::Form(format!("the part {:?} is not in base64", part.name)))?,
        };
        let content_type = part.content_type.filter(|content_type| content_type != NO_TYPE);
        workers.add_asset(account, token, hash, content, content_type).await?;
        Ok::<_, RequestError>(())
    };
    // Together, as each waits for the disk.
    let mut adding = stream::iter(parts).map(add).buffer_unordered(ADDED_MAX);
    while let Some(added) = adding.next().await {
        added?;
    }
    let missing = workers.missing_assets(account, token).await?;
    let (status, answer) = match missing {
        // The token goes on as the proof that all is here.
        0 => (StatusCode::CREATED, json!({ "jwt": token })),
        _ => (StatusCode::ACCEPTED, json!({ "jwt": null })),
    };
    let mut reply = envelope::result(answer)?;
    *reply.status_mut() = status;
    Ok(reply)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && token.len() <= BODY_LEN_MAX).then(|| token.trim())
}

fn read_hash(text: &str) -> Option<[u8; 16]> {
    // Namespace ids have the same form.
    text.parse::<NamespaceId>().ok().map(|id| id.0)
}

fn show_hash(hash: [u8; 16]) -> String {
    NamespaceId(hash).to_string()
}

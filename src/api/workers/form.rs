//! What an upload is made of: the parts of a form, or one body that is the script.

use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde_json::Value as Json;

use super::super::body::RequestBody;
use super::super::error::RequestError;
use super::super::multipart::{self, Part};
use super::BODY_LEN_MAX;
use crate::worker::catalog::CODE_LEN_MAX;
use crate::worker::{Module, ModuleKind, Syntax, WorkerError};

/// Most parts of an upload: all modules, and what is beside them.
const PARTS_MAX: usize = 1_100;
/// All that an upload may hold beside its modules, in bytes.
const OVERHEAD_LEN_MAX: usize = 16 * 1024 * 1024;

/// An upload, taken apart.
pub(super) struct Form {
    /// The part `metadata`, an object.
    pub(super) metadata: Json,
    pub(super) parts: Vec<Part>,
}

/// The body of a request as a form; `None` if it is something else.
pub(super) async fn read(headers: &HeaderMap, body: &mut RequestBody) -> Result<Option<Form>, RequestError> {
    let Some(boundary) = multipart::boundary(headers)? else { return Ok(None) };
    let len_max = CODE_LEN_MAX + OVERHEAD_LEN_MAX;
    let mut parts = multipart::parts(body, boundary, len_max, PARTS_MAX, WorkerError::CodeTooLarge.into()).await?;
    let at = parts.iter().position(|part| part.name == "metadata" || part.name == "settings");
    let at = at.ok_or_else(|| RequestError::Upload("the form has no part named \"metadata\"".into()))?;
    let text = parts.remove(at).body;
    if text.len() > BODY_LEN_MAX {
        return Err(RequestError::Upload(format!("the metadata has more than {BODY_LEN_MAX} bytes")));
    }
    let metadata: Json = serde_json::from_slice(&text)
        .map_err(|error| RequestError::Upload(format!("could not parse the metadata: {error}")))?;
    if !metadata.is_object() {
        return Err(RequestError::Upload("could not parse the metadata: it is no JSON object".into()));
    }
    Ok(Some(Form { metadata, parts }))
}

/// A body that is a whole script.
pub(super) async fn script(headers: &HeaderMap, body: &mut RequestBody) -> Result<(Syntax, Module), RequestError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|text| text.to_str().ok()).unwrap_or_default();
    let (syntax, name) = match media_type(content_type).as_str() {
        "application/javascript" | "text/javascript" | "application/x-javascript" | "" => {
            (Syntax::ServiceWorker, "script")
        }
        "application/javascript+module" | "text/javascript+module" => (Syntax::Modules, "index.js"),
        other => {
            return Err(RequestError::Upload(format!(
                "a script comes as multipart/form-data with its metadata, or alone as application/javascript, not as \
                 {other:?}"
            )));
        }
    };
    let body = body.read(CODE_LEN_MAX).await?;
    if body.is_empty() {
        return Err(WorkerError::NoCode.into());
    }
    Ok((syntax, Module { name: name.into(), kind: ModuleKind::JavaScript, body }))
}

/// A content type without its parameters.
pub(super) fn media_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What importing a part gives, by its type and, where that says nothing, by its name; `None` for what is no module.
pub(super) fn kind(part: &Part) -> Result<Option<ModuleKind>, RequestError> {
    let content_type = media_type(part.content_type.as_deref().unwrap_or_default());
    Ok(Some(match content_type.as_str() {
        "application/javascript+module" | "text/javascript+module" => ModuleKind::JavaScript,
        "application/javascript" | "text/javascript" | "application/x-javascript" => ModuleKind::CommonJs,
        "text/plain" => ModuleKind::Text,
        "application/wasm" => ModuleKind::Wasm,
        "application/json" => ModuleKind::Json,
        "application/source-map" => return Ok(None),
        "application/octet-stream" | "" => match part.name.rsplit_once('.').map_or("", |(_, ending)| ending) {
            "js" | "mjs" => ModuleKind::JavaScript,
            "cjs" => ModuleKind::CommonJs,
            "wasm" => ModuleKind::Wasm,
            "txt" | "html" => ModuleKind::Text,
            "json" => ModuleKind::Json,
            "map" => return Ok(None),
            _ => ModuleKind::Data,
        },
        "text/html" | "text/css" => ModuleKind::Text,
        other => {
            return Err(RequestError::Upload(format!(
                "the module {:?} has the type {other:?}; there are application/javascript+module, \
                 application/javascript, application/json, application/wasm, application/octet-stream, text/plain and \
                 application/source-map",
                part.name
            )));
        }
    }))
}

/// The content type of a module, the inverse of [`kind`].
pub(super) fn type_of(kind: ModuleKind) -> &'static str {
    match kind {
        ModuleKind::JavaScript => "application/javascript+module",
        ModuleKind::CommonJs => "application/javascript",
        ModuleKind::Text => "text/plain",
        ModuleKind::Data => "application/octet-stream",
        ModuleKind::Json => "application/json",
        ModuleKind::Wasm => "application/wasm",
    }
}

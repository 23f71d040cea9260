//! Multipart forms: a PUT of a value (a part `value`, and `metadata` or the `metadata[x]` parts of SDKs), which is
//! streamed, and uploads of several files, which are collected.
//!
//! Knows nothing of keys or of what the parts say.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyDataStream;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use multer::{Constraints, Multipart, SizeLimit};

use super::body::{BodyError, RequestBody};
use super::error::RequestError;
use super::metadata::FormMetadata;
use super::values::ValueSink;
use crate::replica::limits::VALUE_LEN_MAX;

/// Most parts in a form: 1024 bytes of metadata hold no more fields.
const PARTS_MAX: usize = 256;
/// All that a form may hold beside the value, in bytes: boundaries, part headers, metadata.
const OVERHEAD_LEN_MAX: usize = 256 * 1024;
/// Largest part other than the value, in bytes.
const PART_LEN_MAX: usize = 16 * 1024;
/// How far the parser may read without finding a part, a chunk of one or its end, in bytes.
const UNPARSED_LEN_MAX: usize = 1024 * 1024;

/// The boundary of a form, `None` if the request carries something else.
pub(crate) fn boundary(headers: &HeaderMap) -> Result<Option<String>, RequestError> {
    const FORM: &[u8] = b"multipart/form-data";
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        return Ok(None);
    };
    match content_type.as_bytes().get(..FORM.len()) {
        Some(start) if start.eq_ignore_ascii_case(FORM) => {}
        _ => return Ok(None),
    }
    let text = content_type.to_str().map_err(|_| RequestError::Form("its content type is not ASCII".into()))?;
    multer::parse_boundary(text).map(Some).map_err(|error| RequestError::Form(error.to_string()))
}

/// Reads a form: the value goes to `sink`, the metadata is returned.
pub(crate) async fn read(
    body: &mut RequestBody,
    boundary: String,
    sink: &mut ValueSink<'_>,
) -> Result<Option<Bytes>, RequestError> {
    let form_len_max = VALUE_LEN_MAX + OVERHEAD_LEN_MAX;
    if let Some(len) = body.stated_len().filter(|len| *len > form_len_max as u64) {
        return Err(RequestError::ValueTooLarge(len));
    }
    let unparsed = Arc::new(AtomicUsize::new(0));
    let stream = BodyDataStream::new(body.paced(Arc::clone(&unparsed), UNPARSED_LEN_MAX));
    // The sink knows the limit of the value and words the error better.
    let sizes =
        SizeLimit::new().whole_stream(form_len_max as u64).per_field(PART_LEN_MAX as u64).for_field("value", u64::MAX);
    let mut form = Multipart::with_constraints(stream, boundary, Constraints::new().size_limit(sizes));
    let mut metadata = FormMetadata::default();
    let (mut parts, mut has_value) = (0, false);
    while let Some(mut part) = form.next_field().await.map_err(refused)? {
        unparsed.store(0, Ordering::Relaxed);
        parts += 1;
        if parts > PARTS_MAX {
            return Err(RequestError::Form(format!("it has more than {PARTS_MAX} parts")));
        }
        let name = part.name().unwrap_or_default().to_owned();
        if name == "value" {
            if std::mem::replace(&mut has_value, true) {
                return Err(RequestError::Form("there are two parts named value".into()));
            }
            while let Some(chunk) = part.chunk().await.map_err(refused)? {
                unparsed.store(0, Ordering::Relaxed);
                sink.write(chunk).await?;
            }
            continue;
        }
        let mut text = Vec::new();
        while let Some(chunk) = part.chunk().await.map_err(refused)? {
            unparsed.store(0, Ordering::Relaxed);
            text.extend_from_slice(&chunk);
        }
        if name.starts_with("metadata") {
            let text = String::from_utf8(text).map_err(|_| RequestError::Metadata("it is not UTF-8".into()))?;
            // Parts that are neither value nor metadata are left out, as by Cloudflare's clients' own servers.
            metadata.accept(&name, text)?;
        }
    }
    if !has_value {
        return Err(RequestError::Form("it has no part named value".into()));
    }
    metadata.finish()
}

/// One part of a form that is collected in memory.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) content_type: Option<String>,
    pub(crate) body: Bytes,
}

/// Reads all parts of a form of at most `len_max` bytes; `too_large` says so if it has more.
pub(crate) async fn parts(
    body: &mut RequestBody,
    boundary: String,
    len_max: usize,
    parts_max: usize,
    too_large: RequestError,
) -> Result<Vec<Part>, RequestError> {
    if body.stated_len().is_some_and(|len| len > len_max as u64) {
        return Err(too_large);
    }
    let unparsed = Arc::new(AtomicUsize::new(0));
    let stream = BodyDataStream::new(body.paced(Arc::clone(&unparsed), UNPARSED_LEN_MAX));
    let sizes = SizeLimit::new().whole_stream(len_max as u64);
    let mut form = Multipart::with_constraints(stream, boundary, Constraints::new().size_limit(sizes));
    let mut parts = Vec::new();
    loop {
        let mut part = match form.next_field().await {
            Ok(Some(part)) => part,
            Ok(None) => return Ok(parts),
            Err(multer::Error::StreamSizeExceeded { .. }) => return Err(too_large),
            Err(error) => return Err(refused(error)),
        };
        unparsed.store(0, Ordering::Relaxed);
        if parts.len() == parts_max {
            return Err(RequestError::Form(format!("it has more than {parts_max} parts")));
        }
        let name = part.name().or(part.file_name()).unwrap_or_default().to_owned();
        let content_type = part.content_type().map(ToString::to_string);
        let mut content = BytesMut::new();
        loop {
            match part.chunk().await {
                Ok(Some(chunk)) => content.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(multer::Error::StreamSizeExceeded { .. }) => return Err(too_large),
                Err(error) => return Err(refused(error)),
            }
            unparsed.store(0, Ordering::Relaxed);
        }
        parts.push(Part { name, content_type, body: content.freeze() });
    }
}

fn refused(error: multer::Error) -> RequestError {
    match error {
        multer::Error::StreamReadFailed(source) => match source.downcast::<BodyError>() {
            Ok(body) => match *body {
                BodyError::TooLarge { limit } => {
                    RequestError::Form(format!("no part begins or ends within {limit} bytes"))
                }
                other => RequestError::Body(other),
            },
            Err(other) => RequestError::Form(other.to_string()),
        },
        multer::Error::StreamSizeExceeded { limit } => RequestError::ValueTooLarge(limit),
        multer::Error::FieldSizeExceeded { limit, field_name } => {
            let name = field_name.unwrap_or_default();
            RequestError::Form(format!("the part {name:?} has more than {limit} bytes"))
        }
        other => RequestError::Form(other.to_string()),
    }
}

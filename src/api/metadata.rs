//! Metadata: any JSON, kept as compact text in the order and with the numbers the client wrote.
//!
//! Also puts together again what SDKs flatten into form parts named `metadata[a][b]`. Knows nothing of values.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

use super::error::RequestError;
use crate::replica::limits::METADATA_LEN_MAX;

/// How deep names of form parts may nest.
const NESTING_MAX: usize = 16;

/// Checks JSON text and takes out its white space. `null` and empty text are no metadata.
pub(crate) fn from_text(text: &str) -> Result<Option<Bytes>, RequestError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => from_valid_text(text),
        Err(error) => Err(RequestError::Metadata(error.to_string())),
    }
}

/// The same for text that a JSON parser has seen already.
pub(crate) fn from_raw(raw: &RawValue) -> Result<Option<Bytes>, RequestError> {
    from_valid_text(raw.get())
}

/// The same for the header of a Worker's put, where `null` is metadata like any other.
pub(crate) fn from_header(bytes: &[u8]) -> Result<Bytes, RequestError> {
    if bytes.len() > METADATA_LEN_MAX {
        return Err(RequestError::MetadataTooLarge(bytes.len()));
    }
    match serde_json::from_slice::<&RawValue>(bytes) {
        Ok(raw) => Ok(compact(raw.get()).into()),
        Err(error) => Err(RequestError::Metadata(error.to_string())),
    }
}

fn from_valid_text(text: &str) -> Result<Option<Bytes>, RequestError> {
    let compact = compact(text);
    match compact.len() {
        _ if compact == b"null" => Ok(None),
        len if len > METADATA_LEN_MAX => Err(RequestError::MetadataTooLarge(len)),
        _ => Ok(Some(compact.into())),
    }
}

/// Drops the white space between tokens of valid JSON.
fn compact(text: &str) -> Vec<u8> {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |byte: &u8| {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            return true;
        }
        in_string = *byte == b'"';
        !byte.is_ascii_whitespace()
    };
    text.bytes().filter(keep).collect()
}

/// Stored metadata as JSON, `None` should the text be damaged.
pub(crate) fn as_json(stored: &Bytes) -> Option<&RawValue> {
    serde_json::from_slice(stored).ok()
}

/// The metadata of a multipart form: one part `metadata` with JSON text, or the flattened parts.
#[derive(Default)]
pub(crate) struct FormMetadata {
    text: Option<String>,
    flattened: Option<Json>,
}

impl FormMetadata {
    /// Takes a part if its name says metadata; says whether it did.
    pub(crate) fn accept(&mut self, name: &str, value: String) -> Result<bool, RequestError> {
        let Some(path) = name.strip_prefix("metadata") else {
            return Ok(false);
        };
        if path.is_empty() {
            if self.text.replace(value).is_some() {
                return Err(RequestError::Form("there are two parts named metadata".into()));
            }
            return Ok(true);
        }
        let Some(inner) = path.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
            return Ok(false);
        };
        let steps: Vec<&str> = inner.split("][").collect();
        if steps.len() > NESTING_MAX {
            return Err(RequestError::Form(format!("metadata nests deeper than {NESTING_MAX} levels")));
        }
        let root = self.flattened.get_or_insert(Json::Null);
        if insert(root, &steps, value) {
            Ok(true)
        } else {
            Err(RequestError::Form(format!("the part {name:?} contradicts another part")))
        }
    }

    pub(crate) fn finish(self) -> Result<Option<Bytes>, RequestError> {
        match (self.text, self.flattened) {
            (None, None) => Ok(None),
            (Some(text), None) => from_text(&text),
            (None, Some(json)) => from_valid_text(&json.to_string()),
            (Some(_), Some(_)) => Err(RequestError::Form("it has both metadata and metadata[...] parts".into())),
        }
    }
}

/// Text stays text: a form does not tell 1 from "1". `[]` appends to an array. False if the place is taken.
fn insert(place: &mut Json, steps: &[&str], value: String) -> bool {
    let Some((step, rest)) = steps.split_first() else {
        let free = place.is_null();
        *place = Json::String(value);
        return free;
    };
    if place.is_null() {
        *place = if step.is_empty() { Json::Array(Vec::new()) } else { Json::Object(Map::new()) };
    }
    match place {
        Json::Array(items) if step.is_empty() => {
            items.push(Json::Null);
            items.last_mut().is_some_and(|last| insert(last, rest, value))
        }
        Json::Object(fields) if !step.is_empty() => insert(fields.entry(*step).or_insert(Json::Null), rest, value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        let bytes = from_text(json).expect("valid").unwrap_or_default();
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    #[test]
    fn text_keeps_order_and_numbers_but_no_white_space() {
        assert_eq!(
            text("{ \"b\" : 1.50,\n\t\"a\": [ 1 , \"x \\\" y\\\\\" , 12345678901234567890123 ] }"),
            r#"{"b":1.50,"a":[1,"x \" y\\",12345678901234567890123]}"#
        );
        assert_eq!(text(" null "), "");
        assert_eq!(text(""), "");
        assert!(from_text("{a:1}").is_err());
        assert!(from_text(&format!("\"{}\"", "x".repeat(1023))).is_err_and(|e| e.to_string().contains("1025")));
        assert_eq!(text(&format!("   \"{}\"   ", "x".repeat(1022))).len(), 1024);
    }

    fn form(parts: &[(&str, &str)]) -> Result<String, RequestError> {
        let mut form = FormMetadata::default();
        for (name, value) in parts {
            assert!(form.accept(name, (*value).into())?, "{name} is metadata");
        }
        form.finish().map(|bytes| String::from_utf8(bytes.unwrap_or_default().to_vec()).expect("UTF-8"))
    }

    #[test]
    fn flattened_parts_become_an_object_again() {
        let parts = [("metadata[a]", "1"), ("metadata[b][c]", "x"), ("metadata[d][]", "p"), ("metadata[d][]", "q")];
        assert_eq!(form(&parts).expect("valid"), r#"{"a":"1","b":{"c":"x"},"d":["p","q"]}"#);
        assert_eq!(form(&[("metadata", r#"{"a": 1}"#)]).expect("valid"), r#"{"a":1}"#);
    }

    #[test]
    fn contradicting_parts_are_refused() {
        assert!(form(&[("metadata[a]", "1"), ("metadata[a][b]", "2")]).is_err());
        assert!(form(&[("metadata[a]", "1"), ("metadata[a]", "2")]).is_err());
        assert!(form(&[("metadata", "1"), ("metadata[a]", "2")]).is_err());
        assert!(form(&[(&format!("metadata{}", "[a]".repeat(17)), "1")]).is_err());
        assert!(!FormMetadata::default().accept("metadatum", String::new()).expect("not metadata"));
    }
}

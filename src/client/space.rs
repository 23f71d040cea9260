//! Namespaces and what is in them, over the Workers KV API.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::{HeaderMap, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::call::Call;
use super::{ANSWER_TIMEOUT, BULK_ANSWER_LEN_MAX, BULK_TIMEOUT, Client, ClientError, Events, Stream, patiently};

/// What a path segment or a query value needs no escape for.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Namespaces per page of their list.
const NAMESPACES_PER_PAGE: usize = 1000;

/// A namespace as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub title: String,
}

/// One key of a list.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listed {
    /// The key.
    pub name: String,
    /// Unix seconds from which it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<u64>,
    /// Any JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
}

/// Part of a list.
#[derive(Debug)]
pub struct Page {
    /// In byte order. May be empty and still not the last.
    pub keys: Vec<Listed>,
    /// For the next page; `None` at the end.
    pub cursor: Option<String>,
}

/// One line of an export, one item of a bulk put.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// The value as text, or as base64.
    pub value: String,
    /// Whether the value is base64.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub base64: bool,
    /// Unix seconds from which it is gone, as the file has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<serde_json::Value>,
    /// Seconds that it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_ttl: Option<serde_json::Value>,
    /// Any JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
}

impl Pair {
    /// A pair whose value is text where it can be.
    pub fn new(key: String, got: Got) -> Self {
        let (value, base64) = match String::from_utf8(got.value) {
            Ok(text) => (text, false),
            Err(error) => (STANDARD.encode(error.as_bytes()), true),
        };
        let expiration = got.expiration.map(serde_json::Value::from);
        Self { key, value, base64, expiration, expiration_ttl: None, metadata: got.metadata }
    }
}

/// A value as a bulk get brings it.
#[derive(Debug)]
pub struct Got {
    /// The value.
    pub value: Vec<u8>,
    /// Unix seconds from which it is gone.
    pub expiration: Option<u64>,
    /// Any JSON.
    pub metadata: Option<Box<RawValue>>,
}

/// What became of the keys of a bulk request.
#[derive(Debug, Deserialize)]
pub struct Done {
    /// How many were written or deleted.
    pub successful_key_count: usize,
    /// The others.
    pub unsuccessful_keys: Vec<String>,
}

/// What the node says of a write or a read.
#[derive(Debug, Default)]
pub struct Written {
    /// With it, a later request at any PoP sees this.
    pub bookmark: Option<String>,
}

impl Written {
    fn of(headers: &HeaderMap) -> Self {
        let bookmark = headers.get("starling-bookmark").and_then(|value| value.to_str().ok());
        Self { bookmark: bookmark.map(str::to_owned) }
    }
}

impl Stream {
    /// What the node says of this read.
    pub fn read(&self) -> Written {
        Written::of(&self.headers)
    }
}

/// What a request asks of the flock beyond this PoP.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Wait until the PoP covers this bookmark.
    pub bookmark: Option<String>,
    /// Answer a write when so many PoPs have it on disk: `local`, a number or `all`.
    pub acks: Option<String>,
    /// How long to wait for either.
    pub wait: Option<Duration>,
}

impl Session {
    fn on<'a>(&self, call: Call<'a>, patience: Duration) -> Call<'a> {
        let mut call = call.patience(patience + self.wait.unwrap_or_default());
        if let Some(bookmark) = &self.bookmark {
            call = call.header("starling-bookmark", bookmark);
        }
        if let Some(acks) = &self.acks {
            call = call.header("starling-acks", acks);
        }
        match self.wait {
            Some(wait) => call.header("starling-wait", format!("{}ms", wait.as_millis())),
            None => call,
        }
    }
}

#[derive(Deserialize)]
struct Envelope<T, I> {
    result: T,
    result_info: Option<I>,
}

impl<T: DeserializeOwned> Envelope<T, serde::de::IgnoredAny> {
    async fn ask(call: Call<'_>, client: &Client) -> Result<T, ClientError> {
        let answer = call.answer().await?;
        client.parse::<Self>(&answer).map(|envelope| envelope.result)
    }
}

impl Client {
    /// The account of the token.
    pub async fn account(&self) -> Result<String, ClientError> {
        #[derive(Deserialize)]
        struct Account {
            id: String,
        }
        let accounts: Vec<Account> = Envelope::ask(self.request(Method::GET, "/client/v4/accounts"), self).await?;
        let first = accounts.into_iter().next();
        first.map(|account| account.id).ok_or_else(|| self.not_starling("it names no account"))
    }

    /// An account's namespaces, by title.
    pub async fn namespaces(&self, account: &str) -> Result<Vec<Namespace>, ClientError> {
        let mut namespaces = Vec::new();
        for page in 1.. {
            let path = format!("{}?per_page={NAMESPACES_PER_PAGE}&page={page}&order=title", namespaces_path(account));
            let more: Vec<Namespace> = Envelope::ask(self.request(Method::GET, path), self).await?;
            let is_last = more.len() < NAMESPACES_PER_PAGE;
            namespaces.extend(more);
            if is_last {
                break;
            }
        }
        Ok(namespaces)
    }

    /// Creates a namespace.
    pub async fn create_namespace(&self, account: &str, title: &str) -> Result<Namespace, ClientError> {
        let call = self.request(Method::POST, namespaces_path(account)).json(&json!({ "title": title }));
        Envelope::ask(call, self).await
    }

    /// Gives a namespace another title.
    pub async fn rename_namespace(&self, account: &str, id: &str, title: &str) -> Result<Namespace, ClientError> {
        let path = format!("{}/{}", namespaces_path(account), escaped(id));
        Envelope::ask(self.request(Method::PUT, path).json(&json!({ "title": title })), self).await
    }

    /// Deletes a namespace and all that is in it.
    pub async fn delete_namespace(&self, account: &str, id: &str) -> Result<(), ClientError> {
        let path = format!("{}/{}", namespaces_path(account), escaped(id));
        self.request(Method::DELETE, path).answer().await.map(drop)
    }
}

/// One namespace of a node, and what requests to it ask for.
#[derive(Clone, Debug)]
pub struct Space {
    client: Client,
    /// Path of the namespace.
    path: String,
    session: Session,
}

impl Space {
    /// A namespace by its id. Whether it exists shows when it is used.
    pub fn new(client: Client, account: &str, id: &str, session: Session) -> Self {
        let path = format!("{}/{}", namespaces_path(account), escaped(id));
        Self { client, path, session }
    }

    fn call(&self, method: Method, below: &str, patience: Duration) -> Call<'_> {
        self.session.on(self.client.request(method, format!("{}/{below}", self.path)), patience)
    }

    /// A value, piece by piece.
    pub async fn get(&self, key: &str) -> Result<Stream, ClientError> {
        self.call(Method::GET, &format!("values/{}", escaped(key)), ANSWER_TIMEOUT).stream().await
    }

    /// Sets a key. `expiry` is a query of the API, such as `expiration_ttl=60`; `metadata` is JSON text.
    pub async fn put(
        &self,
        key: &str,
        value: Bytes,
        metadata: Option<&str>,
        expiry: Option<&str>,
    ) -> Result<Written, ClientError> {
        let query = expiry.map_or_else(String::new, |expiry| format!("?{expiry}"));
        let call = self.call(Method::PUT, &format!("values/{}{query}", escaped(key)), BULK_TIMEOUT);
        let call = match metadata {
            None => call.body("application/octet-stream", value),
            Some(metadata) => {
                let (content_type, form) = form(&value, metadata);
                call.body(content_type, form)
            }
        };
        Ok(Written::of(&call.answer().await?.headers))
    }

    /// Deletes a key, also if it is missing.
    pub async fn delete(&self, key: &str) -> Result<Written, ClientError> {
        let answer = self.call(Method::DELETE, &format!("values/{}", escaped(key)), ANSWER_TIMEOUT).answer().await?;
        Ok(Written::of(&answer.headers))
    }

    /// Keys that start with `prefix`, from a cursor on.
    pub async fn list(&self, prefix: &str, cursor: Option<&str>, limit: usize) -> Result<Page, ClientError> {
        #[derive(Deserialize)]
        struct Info {
            cursor: Option<String>,
        }
        let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={}", escaped(cursor)));
        let below = format!("keys?limit={limit}&prefix={}{cursor}", escaped(prefix));
        let answer = self.call(Method::GET, &below, ANSWER_TIMEOUT).answer().await?;
        let envelope: Envelope<Vec<Listed>, Info> = self.client.parse(&answer)?;
        let cursor = envelope.result_info.and_then(|info| info.cursor).filter(|cursor| !cursor.is_empty());
        Ok(Page { keys: envelope.result, cursor })
    }

    /// Up to 100 values of at most 25 MiB in total, in the order asked for; `None` for what is missing.
    pub async fn bulk_get(&self, keys: &[String]) -> Result<(Vec<Option<Got>>, Written), ClientError> {
        #[derive(Deserialize)]
        struct Entry {
            value: String,
            #[serde(default)]
            expiration: Option<u64>,
            #[serde(default)]
            metadata: Option<Box<RawValue>>,
        }
        #[derive(Deserialize)]
        struct Values {
            values: std::collections::BTreeMap<String, Option<Entry>>,
        }
        let body = json!({ "keys": keys, "type": "base64", "withMetadata": true });
        let call = self.call(Method::POST, "bulk/get", BULK_TIMEOUT).json(&body).answer_len_max(BULK_ANSWER_LEN_MAX);
        let answer = call.answer().await?;
        let mut values = self.client.parse::<Envelope<Values, serde::de::IgnoredAny>>(&answer)?.result.values;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(match values.remove(key).flatten() {
                None => None,
                Some(Entry { value, expiration, metadata }) => {
                    let value =
                        STANDARD.decode(value).map_err(|_| self.client.not_starling("a value is not base64"))?;
                    Some(Got { value, expiration, metadata })
                }
            });
        }
        Ok((found, Written::of(&answer.headers)))
    }

    /// Follows the changes of keys that start with `prefix`: from now on, or from the position of an earlier event.
    pub async fn changes(&self, prefix: &str, since: Option<&str>, values: bool) -> Result<Events, ClientError> {
        let since = since.map_or_else(String::new, |since| format!("&since={}", escaped(since)));
        let below = format!("changes?prefix={}&values={values}{since}", escaped(prefix));
        // Something comes at least every ten seconds.
        self.call(Method::GET, &below, ANSWER_TIMEOUT).stream().await.map(Events::new)
    }

    /// As many of these values, from the first on, as fit one answer; at least one. Tries again what may pass.
    pub async fn bulk_get_some(&self, keys: &[String]) -> Result<Vec<Option<Got>>, ClientError> {
        let mut keys = keys;
        loop {
            match patiently(async || self.bulk_get(keys).await).await {
                Err(ClientError::Refused { status: 413, .. }) if keys.len() > 1 => {
                    (keys, _) = keys.split_at(keys.len() / 2);
                }
                answer => return answer.map(|(found, _)| found),
            }
        }
    }

    /// Sets up to 10,000 keys.
    pub async fn bulk_put(&self, pairs: &[Pair]) -> Result<Done, ClientError> {
        Envelope::ask(self.call(Method::PUT, "bulk", BULK_TIMEOUT).json(&pairs), &self.client).await
    }

    /// Deletes up to 10,000 keys.
    pub async fn bulk_delete(&self, keys: &[String]) -> Result<Done, ClientError> {
        Envelope::ask(self.call(Method::POST, "bulk/delete", BULK_TIMEOUT).json(&keys), &self.client).await
    }
}

fn namespaces_path(account: &str) -> String {
    format!("/client/v4/accounts/{}/storage/kv/namespaces", escaped(account))
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// A form with a value and its metadata, and the content type that names its boundary.
fn form(value: &[u8], metadata: &str) -> (String, Vec<u8>) {
    // No value holds its own hash.
    let boundary = format!("starling-{}", blake3::hash(value).to_hex());
    let mut form = Vec::with_capacity(value.len() + metadata.len() + 512);
    for (name, part) in [("metadata", metadata.as_bytes()), ("value", value)] {
        form.extend_from_slice(
            format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n").as_bytes(),
        );
        form.extend_from_slice(part);
        form.extend_from_slice(b"\r\n");
    }
    form.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_a_key_stays_one_segment() {
        assert_eq!(escaped("a key/ü?#1&x=%"), "a%20key%2F%C3%BC%3F%231%26x%3D%25");
        assert_eq!(escaped("a-b_c.d~e"), "a-b_c.d~e");
    }

    #[test]
    fn values_that_are_no_text_travel_as_base64() {
        let got = |value: &[u8]| Got { value: value.to_vec(), expiration: Some(7), metadata: None };
        let line = |value| serde_json::to_string(&Pair::new("k".into(), got(value))).expect("plain data");
        assert_eq!(line("ü".as_bytes()), r#"{"key":"k","value":"ü","expiration":7}"#);
        assert_eq!(line(&[0, 255]), r#"{"key":"k","value":"AP8=","base64":true,"expiration":7}"#);
    }
}

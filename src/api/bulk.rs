//! Bulk PUT and bulk delete: up to 10,000 keys in a request.
//!
//! A request with a mistake in it changes nothing and is answered with the index and key of the mistake.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::de::{DeserializeOwned, Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use tokio::sync::SemaphorePermit;

use super::Api;
use super::body::RequestBody;
use super::error::RequestError;
use super::key::check_key;
use super::reply::Reply;
use super::{envelope, expiry, heavy, metadata};
use crate::kv::{AccountId, KvError, Put};
use crate::replica::NamespaceId;
use crate::replica::limits::VALUE_LEN_MAX;

/// Most pairs or keys in a request.
pub(crate) const PAIRS_MAX: usize = 10_000;
/// Largest bulk body, in bytes: 100 MB of pairs, and the white space of a pretty-printed file.
const BODY_LEN_MAX: usize = 108_000_000;
/// Bodies above this wait for one of [`LARGE_BODIES_MAX`] places, in bytes.
const SMALL_BODY_LEN_MAX: usize = 1024 * 1024;
/// Large bodies in memory at a time.
pub(crate) const LARGE_BODIES_MAX: usize = 4;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Fields that could have a wrong type are read as any JSON, so that the error can name the key.
#[derive(Deserialize)]
struct Pair {
    key: String,
    value: Option<Json>,
    base64: Option<Json>,
    expiration: Option<Json>,
    expiration_ttl: Option<Json>,
    metadata: Option<Box<RawValue>>,
}

/// A key to delete: plain, or as bulk PUT and wrangler's files write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum DeletedKey {
    Plain(String),
    Named {
        #[serde(alias = "key")]
        name: String,
    },
}

#[derive(Serialize)]
struct Outcome {
    successful_key_count: usize,
    unsuccessful_keys: Vec<String>,
}

pub(crate) async fn put(
    api: &Api,
    account: AccountId,
    ns: NamespaceId,
    body: &mut RequestBody,
) -> Result<Reply, RequestError> {
    let now = api.kv.now_ms() / 1000;
    let (pairs, _place) = read(api, body, move |items| puts(items, now)).await?;
    let len = pairs.iter().map(|(_, put)| put.value.len() as u64).sum();
    api.shared.meter.admit(&api.kv, account, pairs.len() as u64, len).await?;
    let keys: Vec<Bytes> = pairs.iter().map(|(key, _)| key.clone()).collect();
    let results = api.kv.put_many(ns, pairs).await;
    outcome(&keys, results)
}

pub(crate) async fn delete(api: &Api, ns: NamespaceId, body: &mut RequestBody) -> Result<Reply, RequestError> {
    let (keys, _place) = read(api, body, keys).await?;
    let results = api.kv.delete_many(ns, keys.clone()).await;
    outcome(&keys, results)
}

/// Reads and checks the items. The place for a large body is to be held until all is done, for they are as large.
async fn read<'a, T: DeserializeOwned + 'static, I: Send + 'static>(
    api: &'a Api,
    body: &mut RequestBody,
    check: impl FnOnce(Items<T>) -> Result<I, RequestError> + Send + 'static,
) -> Result<(I, Option<SemaphorePermit<'a>>), RequestError> {
    let parse = move |text: Bytes| {
        let items = serde_json::from_slice::<Items<T>>(&text)
            .map_err(|error| RequestError::invalid(format!("The body is not a JSON array as expected: {error}.")))?;
        check(items)
    };
    let is_small = body.stated_len().is_some_and(|len| len <= SMALL_BODY_LEN_MAX as u64);
    let (text, place) = match is_small {
        true => (body.read(SMALL_BODY_LEN_MAX).await?, None),
        false => {
            let place = api.large_body().await?;
            (body.read(BODY_LEN_MAX).await?, Some(place))
        }
    };
    Ok((heavy::work(text.len(), move || parse(text)).await?, place))
}

fn puts(items: Items<Pair>, now: u64) -> Result<Vec<(Bytes, Put)>, RequestError> {
    let pairs = items.within_limit("pairs")?;
    let mut puts = Vec::with_capacity(pairs.len());
    for (index, pair) in pairs.into_iter().enumerate() {
        heavy::give_way(index);
        let key = pair.key.clone();
        puts.push(pair.check(now).map_err(|error| error.in_pair(index, &key))?);
    }
    Ok(puts)
}

fn keys(items: Items<DeletedKey>) -> Result<Vec<Bytes>, RequestError> {
    let mut keys = Vec::new();
    for (index, DeletedKey::Plain(key) | DeletedKey::Named { name: key }) in
        items.within_limit("keys")?.into_iter().enumerate()
    {
        check_key(&key).map_err(|error| error.in_pair(index, &key))?;
        keys.push(Bytes::from(key));
    }
    Ok(keys)
}

impl Pair {
    /// What to write, at `now` in unix seconds.
    fn check(self, now: u64) -> Result<(Bytes, Put), RequestError> {
        check_key(&self.key)?;
        let Some(Json::String(text)) = self.value else {
            return Err(RequestError::invalid("the value is missing or not a string"));
        };
        let value = match self.base64 {
            None | Some(Json::Null | Json::Bool(false)) => Bytes::from(text),
            Some(Json::Bool(true)) => match BASE64.decode(&text) {
                Ok(bytes) => Bytes::from(bytes),
                Err(error) => return Err(RequestError::invalid(format!("the value is not base64: {error}"))),
            },
            Some(_) => return Err(RequestError::invalid("base64 is neither true nor false")),
        };
        if value.len() > VALUE_LEN_MAX {
            return Err(RequestError::ValueTooLarge(value.len() as u64));
        }
        let metadata = self.metadata.as_deref().map(metadata::from_raw).transpose()?.flatten();
        let expiration = expiry::from_json(self.expiration.as_ref(), self.expiration_ttl.as_ref(), now)?;
        Ok((self.key.into(), Put { value, metadata, expiration }))
    }
}

/// Keys that the store refused are named, unless it refused them all: then its reason is the answer.
fn outcome(keys: &[Bytes], results: Vec<Result<(), KvError>>) -> Result<Reply, RequestError> {
    let mut unsuccessful_keys = Vec::new();
    let mut first_error = None;
    for (key, result) in keys.iter().zip(results) {
        if let Err(error) = result {
            unsuccessful_keys.push(String::from_utf8_lossy(key).into_owned());
            first_error.get_or_insert(error);
        }
    }
    let successful_key_count = keys.len() - unsuccessful_keys.len();
    match first_error {
        Some(error) if successful_key_count == 0 => Err(RequestError::kv("bulk")(error)),
        _ => envelope::result(Outcome { successful_key_count, unsuccessful_keys }),
    }
}

/// A JSON array of which at most [`PAIRS_MAX`] items are kept, the others counted.
struct Items<T> {
    kept: Vec<T>,
    count: usize,
}

impl<T> Items<T> {
    fn within_limit(self, what: &str) -> Result<Vec<T>, RequestError> {
        if self.count > PAIRS_MAX {
            let message = format!("The request has {} {what}, the limit is {PAIRS_MAX}.", self.count);
            return Err(RequestError::Invalid(message));
        }
        Ok(self.kept)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor(std::marker::PhantomData))
    }
}

struct ItemsVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ItemsVisitor<T> {
    type Value = Items<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Items<T>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < PAIRS_MAX {
            heavy::give_way(kept.len());
            match seq.next_element() {
                Ok(Some(item)) => kept.push(item),
                Ok(None) => return Ok(Items { count: kept.len(), kept }),
                Err(error) => return Err(A::Error::custom(format!("item {}: {error}", kept.len()))),
            }
        }
        let mut count = kept.len();
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Items { kept, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<(Bytes, Put)>, String> {
        let items = serde_json::from_str(text).map_err(|error| error.to_string())?;
        puts(items, 1_700_000_000).map_err(|error| error.to_string())
    }

    #[test]
    fn pairs_keep_what_was_written() {
        let pairs = parse(
            r#"[{"key":"a","value":"1","metadata":{ "z":1, "a":2 }},
                {"key":"b","value":"AP8=","base64":true,"expiration_ttl":60,"expiration":5},
                {"key":"c","value":"AP8","base64":true,"metadata":null,"expiration":null}]"#,
        )
        .expect("valid");
        let [(_, a), (_, b), (_, c)] = &pairs[..] else { panic!("three pairs") };
        assert_eq!(a.metadata.as_deref(), Some(&br#"{"z":1,"a":2}"#[..]));
        assert_eq!(&b.value[..], [0, 255]);
        assert!(b.expiration.is_some());
        assert_eq!((&c.value, &c.metadata, c.expiration), (&b.value, &None, None));
    }

    #[test]
    fn a_mistake_is_named_by_index_and_key() {
        let cases = [
            (r#"[{"key":"a","value":"1"},{"key":"b","value":2}]"#, &["pair 1", "\"b\"", "not a string"][..]),
            (r#"[{"key":"..","value":"1"}]"#, &["pair 0", "\"..\"", "Illegal key name"]),
            (r#"[{"key":"a","value":"%","base64":true}]"#, &["pair 0", "\"a\"", "base64"]),
            (r#"[{"key":"a","value":"1","expiration_ttl":59}]"#, &["pair 0", "at least 60"]),
            (r#"[{"value":"1"}]"#, &["item 0", "key"]),
            (r#"{"key":"a"}"#, &["array"]),
        ];
        for (text, expected) in cases {
            let Err(error) = parse(text) else { panic!("{text} was taken") };
            assert!(expected.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }

    #[test]
    fn too_many_items_are_counted_but_not_kept() {
        let text = format!("[{}\"k\"]", "\"k\",".repeat(PAIRS_MAX));
        let items: Items<DeletedKey> = serde_json::from_str(&text).expect("valid");
        assert_eq!(items.kept.len(), PAIRS_MAX);
        assert!(keys(items).is_err_and(|error| error.to_string().contains("10001 keys")));
    }

    #[test]
    fn keys_to_delete_may_be_objects() {
        let items = serde_json::from_str(r#"["a",{"name":"b"},{"key":"c","value":"x"}]"#).expect("valid");
        assert_eq!(keys(items).expect("valid"), ["a", "b", "c"]);
    }
}

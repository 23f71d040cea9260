//! What scripts have put into the cache of this PoP: answers to requests, in memory, each until it is stale or others need
//! the room.
//!
//! Each script has its own. Knows neither engines nor how answers travel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use hyper::header::{
    AGE, CACHE_CONTROL, CONTENT_RANGE, ETAG, EXPIRES, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, SET_COOKIE, VARY,
};
use hyper::{Response, StatusCode};
use tokio::time::Instant;

use super::engine::Streamed;
use super::range::{Wanted, wanted};

/// All that is kept, in bytes.
const HELD_LEN_MAX: usize = 64 * 1024 * 1024;
/// One answer, in bytes.
pub(super) const ANSWER_LEN_MAX: usize = 8 * 1024 * 1024;
/// What an answer is taken to need beside its body and headers.
const OVERHEAD_LEN: usize = 512;
/// How long an answer that does not say so is fresh.
const FRESH_USUALLY: Duration = Duration::from_secs(2 * 60 * 60);
const FRESH_MISSING: Duration = Duration::from_secs(3 * 60);
/// Says that an answer is from the cache.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cf-cache-status");

/// What an answer is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Of the script: see [`Program`](super::Program).
    pub(super) life: [u8; 16],
    /// Empty for the default one.
    pub(super) cache: String,
    /// Without its fragment.
    pub(super) url: String,
}

/// Why an answer is not kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There is nothing like that in a cache: what is wrong with it.
    Invalid(&'static str),
    /// It is too long.
    TooLarge,
    /// It does not want to be: nothing is wrong with that.
    Unwanted,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    came: Instant,
    fresh: Duration,
    len: usize,
    turn: u64,
}

#[derive(Default)]
struct Held {
    answers: BTreeMap<Key, Answer>,
    /// By when they were last asked for.
    turns: BTreeMap<u64, Key>,
    turn: u64,
    len: usize,
}

/// The cache. One a node.
#[derive(Clone, Default)]
pub(super) struct Cache(Arc<Mutex<Held>>);

impl Cache {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an answer.
    pub(super) fn put(
        &self,
        key: Key,
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
        now_ms: u64,
    ) -> Result<(), Refused> {
        if status == StatusCode::PARTIAL_CONTENT {
            return Err(Refused::Invalid("Cannot cache response to a range request (206 Partial Content)."));
        }
        if headers.get_all(VARY).iter().any(|vary| vary.as_bytes().contains(&b'*')) {
            return Err(Refused::Invalid("Cannot cache response with 'Vary: *' header."));
        }
        let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let len = OVERHEAD_LEN + key.url.len() + key.cache.len() + fields + body.len();
        if len > ANSWER_LEN_MAX {
            return Err(Refused::TooLarge);
        }
        let fresh = freshness(status, &headers, now_ms).ok_or(Refused::Unwanted)?;
        let mut held = self.held();
        held.remove(&key);
        while held.len + len > HELD_LEN_MAX {
            let Some(oldest) = held.turns.first_key_value().map(|(_, key)| key.clone()) else { break };
            held.remove(&oldest);
        }
        held.len += len;
        let answer = Answer { status, headers, body, came: Instant::now(), fresh, len, turn: 0 };
        held.answers.insert(key.clone(), answer);
        held.touch(&key);
        Ok(())
    }

    /// The answer to a request with these headers, if there is one that is fresh.
    pub(super) fn find(&self, key: &Key, asked: &HeaderMap) -> Option<Response<Streamed>> {
        let mut held = self.held();
        let answer = held.answers.get(key)?;
        if answer.came.elapsed() >= answer.fresh {
            held.remove(key);
            return None;
        }
        let response = answer.to(asked);
        held.touch(key);
        Some(response)
    }

    /// Forgets an answer. Whether there was one.
    pub(super) fn remove(&self, key: &Key) -> bool {
        self.held().remove(key).is_some_and(|answer| answer.came.elapsed() < answer.fresh)
    }
}

impl Held {
    /// It is the one that was asked for last.
    fn touch(&mut self, key: &Key) {
        self.turn += 1;
        if let Some(answer) = self.answers.get_mut(key) {
            self.turns.remove(&answer.turn);
            answer.turn = self.turn;
            self.turns.insert(self.turn, key.clone());
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Answer> {
        let answer = self.answers.remove(key)?;
        self.turns.remove(&answer.turn);
        self.len -= answer.len;
        Some(answer)
    }
}

impl Answer {
    fn to(&self, asked: &HeaderMap) -> Response<Streamed> {
        let mut headers = self.headers.clone();
        headers.insert(CACHE_STATUS, HeaderValue::from_static("HIT"));
        headers.insert(AGE, HeaderValue::from(self.came.elapsed().as_secs()));
        let whole = self.body.len();
        let (status, body) = match wanted(asked, &self.headers, whole) {
            _ if self.status != StatusCode::OK => (self.status, self.body.clone()),
            _ if self.is_known(asked) => (StatusCode::NOT_MODIFIED, Bytes::new()),
            Wanted::All => (self.status, self.body.clone()),
            Wanted::Part(part) => {
                let range = format!("bytes {}-{}/{whole}", part.start, part.end - 1);
                headers.extend(HeaderValue::try_from(range).ok().map(|range| (CONTENT_RANGE, range)));
                (StatusCode::PARTIAL_CONTENT, self.body.slice(part))
            }
            Wanted::Beyond => {
                let range = HeaderValue::try_from(format!("bytes */{whole}"));
                headers.extend(range.ok().map(|range| (CONTENT_RANGE, range)));
                (StatusCode::RANGE_NOT_SATISFIABLE, Bytes::new())
            }
        };
        headers.remove(hyper::header::CONTENT_LENGTH);
        let mut response = Response::new(Streamed::whole(body));
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        response
    }

    /// Whether whoever asks has it already.
    fn is_known(&self, asked: &HeaderMap) -> bool {
        let tag = self.headers.get(ETAG).and_then(|tag| tag.to_str().ok());
        if let Some(known) = asked.get(IF_NONE_MATCH).and_then(|known| known.to_str().ok()) {
            let weak = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
            return known.trim() == "*" || tag.is_some_and(|tag| known.split(',').any(|one| weak(one) == weak(tag)));
        }
        let date = |value: Option<&HeaderValue>| httpdate::parse_http_date(value?.to_str().ok()?).ok();
        match (date(asked.get(IF_MODIFIED_SINCE)), date(self.headers.get(LAST_MODIFIED))) {
            (Some(since), Some(modified)) => modified <= since,
            _ => false,
        }
    }
}

/// How long an answer may be given again, if at all.
fn freshness(status: StatusCode, headers: &HeaderMap, now_ms: u64) -> Option<Duration> {
    let controls = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let controls: Vec<String> =
        controls.flat_map(|text| text.split(',')).map(|part| part.trim().to_ascii_lowercase()).collect();
    let has = |name: &str| controls.iter().any(|control| control == name);
    if has("no-store") || has("private") || has("no-cache") {
        return None;
    }
    if headers.contains_key(SET_COOKIE) && !controls.iter().any(|control| control.starts_with("private=")) {
        return None;
    }
    let secs = |name: &str| {
        let value = controls.iter().find_map(|control| control.strip_prefix(name)?.strip_prefix('='))?;
        value.trim_matches('"').parse::<u64>().ok().map(Duration::from_secs)
    };
    let stated = secs("s-maxage").or_else(|| secs("max-age")).or_else(|| {
        let expires = headers.get(EXPIRES)?.to_str().ok()?;
        let at = httpdate::parse_http_date(expires).ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        // What is no date is past.
        Some(at.unwrap_or_default().saturating_sub(Duration::from_millis(now_ms)))
    });
    let usual = match status.as_u16() {
        200 | 203 | 300 | 301 | 308 => FRESH_USUALLY,
        404 | 410 => FRESH_MISSING,
        _ => Duration::ZERO,
    };
    Some(stated.unwrap_or(usual)).filter(|fresh| !fresh.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(url: &str) -> Key {
        Key { life: [1; 16], cache: String::new(), url: url.into() }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn status(cache: &Cache, url: &str, asked: &[(&'static str, &'static str)]) -> Option<u16> {
        cache.find(&key(url), &headers(asked)).map(|response| response.status().as_u16())
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_kept_for_as_long_as_they_say() {
        let now_ms = 784_111_777_000;
        for (fields, secs) in [
            (&[][..], FRESH_USUALLY.as_secs()),
            (&[("cache-control", "max-age=10")][..], 10),
            (&[("cache-control", "public, max-age=10, s-maxage=20")][..], 20),
            (&[("expires", "Sun, 06 Nov 1994 08:49:47 GMT")][..], 10),
            (&[("expires", "0")][..], 0),
            (&[("cache-control", "max-age=0")][..], 0),
            (&[("cache-control", "No-Store")][..], 0),
            (&[("cache-control", "private, max-age=10")][..], 0),
            (&[("set-cookie", "a=b"), ("cache-control", "max-age=10")][..], 0),
        ] {
            let cache = Cache::default();
            let kept = cache.put(key("a"), StatusCode::OK, headers(fields), Bytes::new(), now_ms);
            assert_eq!(kept.is_ok(), secs > 0, "{fields:?}");
            tokio::time::advance(Duration::from_secs(secs.saturating_sub(1))).await;
            assert_eq!(status(&cache, "a", &[]).is_some(), secs > 0, "{fields:?}");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(status(&cache, "a", &[]), None, "{fields:?}");
            assert!(cache.held().answers.is_empty() && cache.held().turns.is_empty() && cache.held().len == 0);
        }
    }

    #[tokio::test]
    async fn what_is_asked_for_is_what_is_given() {
        let cache = Cache::default();
        let fields = headers(&[("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        cache.put(key("a"), StatusCode::OK, fields, Bytes::from_static(b"0123456789"), 0).expect("kept");
        for (asked, expected) in [
            (&[][..], 200),
            (&[("if-none-match", "W/\"a\", \"b\"")][..], 304),
            (&[("if-none-match", "\"b\"")][..], 200),
            (&[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")][..], 304),
            (&[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")][..], 200),
            (&[("range", "bytes=2-3")][..], 206),
            (&[("range", "bytes=20-")][..], 416),
        ] {
            assert_eq!(status(&cache, "a", asked), Some(expected), "{asked:?}");
        }
        assert_eq!(status(&cache, "b", &[]), None);
        assert!(cache.find(&Key { life: [2; 16], ..key("a") }, &HeaderMap::new()).is_none(), "another script's");
        assert!(cache.remove(&key("a")) && !cache.remove(&key("a")));
    }

    #[tokio::test]
    async fn the_answer_that_was_asked_for_longest_ago_makes_room() {
        let cache = Cache::default();
        let body = Bytes::from(vec![0; ANSWER_LEN_MAX - 2 * OVERHEAD_LEN]);
        let put = |url: &str| cache.put(key(url), StatusCode::OK, HeaderMap::new(), body.clone(), 0);
        let count = HELD_LEN_MAX / ANSWER_LEN_MAX;
        for n in 0..count {
            put(&n.to_string()).expect("kept");
        }
        assert_eq!(status(&cache, "0", &[]), Some(200));
        put("more").expect("kept");
        assert_eq!((status(&cache, "0", &[]), status(&cache, "1", &[])), (Some(200), None));
        assert!(cache.held().len <= HELD_LEN_MAX);
        let too_large = Bytes::from(vec![0; ANSWER_LEN_MAX]);
        assert_eq!(cache.put(key("x"), StatusCode::OK, HeaderMap::new(), too_large, 0), Err(Refused::TooLarge));
        let varies = cache.put(key("x"), StatusCode::OK, headers(&[("vary", "*")]), Bytes::new(), 0);
        assert!(matches!(varies, Err(Refused::Invalid(_))));
    }
}

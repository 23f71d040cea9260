//! The part of something that a request asks for (RFC 9110, section 14), where all of it is known.
//!
//! One range of bytes: who asks for several gets everything, as the RFC allows.

use std::ops::Range;

use hyper::header::{ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE};

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything.
    All,
    /// These bytes.
    Part(Range<usize>),
    /// Nothing: there are no such bytes.
    Beyond,
}

/// What a request with these headers wants of something with those headers and that many bytes.
pub(super) fn wanted(asked: &HeaderMap, held: &HeaderMap, len: usize) -> Wanted {
    let Some(range) = asked.get(RANGE).and_then(|value| value.to_str().ok()).filter(|_| is_still(asked, held)) else {
        return Wanted::All;
    };
    let Some(spec) = range.strip_prefix("bytes=").filter(|spec| !spec.contains(',')) else { return Wanted::All };
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::All };
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) if first > last => Wanted::All,
        (Ok(first), _) if first >= len => Wanted::Beyond,
        (Ok(first), Ok(last)) => Wanted::Part(first..last.saturating_add(1).min(len)),
        (Ok(first), Err(_)) if last.is_empty() => Wanted::Part(first..len),
        // The last so many.
        (Err(_), Ok(0)) if first.is_empty() => Wanted::Beyond,
        (Err(_), Ok(count)) if first.is_empty() && len > 0 => Wanted::Part(len.saturating_sub(count)..len),
        (Err(_), Ok(_)) if first.is_empty() => Wanted::Beyond,
        _ => Wanted::All,
    }
}

/// Whether the thing is what the request takes it for.
fn is_still(asked: &HeaderMap, held: &HeaderMap) -> bool {
    let Some(known) = asked.get(IF_RANGE) else { return true };
    let is_strong = |tag: &HeaderValue| !tag.as_bytes().starts_with(b"W/");
    held.get(ETAG).is_some_and(|tag| tag == known && is_strong(tag)) || held.get(LAST_MODIFIED) == Some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_the_rfc_says() {
        for (range, len, outcome) in [
            ("bytes=0-3", 10, Wanted::Part(0..4)),
            ("bytes=4-", 10, Wanted::Part(4..10)),
            ("bytes=-3", 10, Wanted::Part(7..10)),
            ("bytes=-30", 10, Wanted::Part(0..10)),
            ("bytes=8-99", 10, Wanted::Part(8..10)),
            ("bytes=10-", 10, Wanted::Beyond),
            ("bytes=-0", 10, Wanted::Beyond),
            ("bytes=-1", 0, Wanted::Beyond),
            ("bytes=3-2", 10, Wanted::All),
            ("bytes=0-1,4-5", 10, Wanted::All),
            ("bytes=a-b", 10, Wanted::All),
            ("lines=0-3", 10, Wanted::All),
        ] {
            let asked = HeaderMap::from_iter([(RANGE, HeaderValue::from_static(range))]);
            assert_eq!(wanted(&asked, &HeaderMap::new(), len), outcome, "{range} of {len}");
        }
        assert_eq!(wanted(&HeaderMap::new(), &HeaderMap::new(), 10), Wanted::All);
    }

    #[test]
    fn a_part_of_something_else_is_not_sent() {
        let held = HeaderMap::from_iter([(ETAG, HeaderValue::from_static("\"a\""))]);
        for (tag, outcome) in [("\"a\"", Wanted::Part(0..1)), ("\"b\"", Wanted::All), ("W/\"a\"", Wanted::All)] {
            let asked = HeaderMap::from_iter([
                (RANGE, HeaderValue::from_static("bytes=0-0")),
                (IF_RANGE, HeaderValue::from_static(tag)),
            ]);
            assert_eq!(wanted(&asked, &held, 10), outcome, "{tag}");
        }
    }
}

//! When a value expires: `expiration` (absolute, unix seconds) or `expiration_ttl` (seconds from now, wins over it).
//!
//! A TTL counts from the moment the API gets it. Knows nothing of stored values.

use serde_json::Value as Json;

use super::error::RequestError;
use super::query::Query;

/// The shortest life that Cloudflare grants, in seconds, in both forms.
const TTL_SECS_MIN: u64 = 60;
/// The end of the year 9999, in unix seconds. Beyond it lie mistakes, such as milliseconds.
const EXPIRATION_SECS_MAX: u64 = 253_402_300_799;

/// The expiration that the query of a PUT asks for at `now`, in unix seconds both.
pub(crate) fn from_query(query: Query<'_>, now: u64) -> Result<Option<u64>, RequestError> {
    let (at, ttl) = (query.value("expiration")?, query.value("expiration_ttl")?);
    if at.is_none() && ttl.is_none() {
        return Ok(None);
    }
    let parsed = |text: &Option<std::borrow::Cow<'_, str>>| text.as_ref().map(|t| (t.parse().ok(), t.to_string()));
    resolve(parsed(&at), parsed(&ttl), now)
}

/// The same where both are text.
pub(crate) fn from_text(at: Option<String>, ttl: Option<String>, now: u64) -> Result<Option<u64>, RequestError> {
    let parsed = |text: Option<String>| text.map(|text| (text.parse().ok(), text));
    match (parsed(at), parsed(ttl)) {
        (None, None) => Ok(None),
        (at, ttl) => resolve(at, ttl, now),
    }
}

/// The same for a pair of a bulk PUT, where both are JSON.
pub(crate) fn from_json(at: Option<&Json>, ttl: Option<&Json>, now: u64) -> Result<Option<u64>, RequestError> {
    let parsed = |json: Option<&Json>| json.filter(|j| !j.is_null()).map(|j| (whole_number(j), j.to_string()));
    match (parsed(at), parsed(ttl)) {
        (None, None) => Ok(None),
        (at, ttl) => resolve(at, ttl, now),
    }
}

/// Some clients write numbers as text or with a fraction of zero.
fn whole_number(json: &Json) -> Option<u64> {
    match json {
        Json::String(text) => text.parse().ok(),
        Json::Number(number) => number.as_u64().or_else(|| {
            let float = number.as_f64()?;
            (float.fract() == 0.0 && (0.0..=EXPIRATION_SECS_MAX as f64).contains(&float)).then_some(float as u64)
        }),
        _ => None,
    }
}

type Parsed = Option<(Option<u64>, String)>;

fn resolve(at: Parsed, ttl: Parsed, now: u64) -> Result<Option<u64>, RequestError> {
    if let Some((ttl, text)) = ttl {
        let refuse = |why| Err(RequestError::ExpirationTtl(text.clone(), why));
        return match ttl {
            None | Some(0) => refuse("Please specify integer greater than 0."),
            Some(ttl) if ttl < TTL_SECS_MIN => refuse("Expiration TTL must be at least 60."),
            Some(ttl) if ttl > EXPIRATION_SECS_MAX.saturating_sub(now) => refuse("That is after the year 9999."),
            Some(ttl) => Ok(Some(now + ttl)),
        };
    }
    let Some((at, text)) = at else {
        return Ok(None);
    };
    let refuse = |why| Err(RequestError::Expiration(text.clone(), why));
    match at {
        Some(at) if at > EXPIRATION_SECS_MAX => refuse("Expiration times are seconds since the UNIX epoch."),
        Some(at) if at >= now + TTL_SECS_MIN => Ok(Some(at)),
        Some(at) if at > now => refuse("Expiration times must be at least 60 seconds in the future."),
        _ => refuse("Please specify integer greater than the current number of seconds since the UNIX epoch."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(number: u64) -> Parsed {
        Some((Some(number), number.to_string()))
    }

    #[test]
    fn a_ttl_wins_and_both_have_a_minimum() {
        let now = 1_000_000;
        assert_eq!(resolve(some(now + 60), None, now).expect("valid"), Some(now + 60));
        assert_eq!(resolve(some(5), some(60), now).expect("the TTL counts"), Some(now + 60));
        assert!(resolve(some(now + 59), None, now).is_err_and(|e| e.to_string().contains("at least 60 seconds")));
        assert!(resolve(some(now), None, now).is_err_and(|e| e.to_string().contains("current number")));
        assert!(resolve(some(now * 1_000_000), None, now).is_err_and(|e| e.to_string().contains("are seconds")));
        assert!(resolve(None, some(59), now).is_err_and(|e| e.to_string().contains("at least 60")));
        assert!(resolve(None, Some((None, "-1".into())), now).is_err_and(|e| e.to_string().contains("-1")));
        assert!(resolve(None, some(u64::MAX), now).is_err());
    }

    #[test]
    fn json_numbers_may_be_floats_or_text() {
        let far = serde_json::json!(4_000_000_000.0);
        assert_eq!(from_json(Some(&far), None, 1).expect("valid"), Some(4_000_000_000));
        assert_eq!(from_json(Some(&Json::Null), Some(&Json::Null), 1).expect("absent"), None);
        assert!(from_json(Some(&serde_json::json!([1])), None, 1).is_err());
    }
}

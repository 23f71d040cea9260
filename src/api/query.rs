//! Query strings, as browsers and SDKs write them (application/x-www-form-urlencoded): `+` is a space.
//!
//! Knows nothing of which parameters exist.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::error::RequestError;

/// The query of one request, decoded parameter by parameter on demand.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(crate) fn new(raw: Option<&'a str>) -> Self {
        Self(raw.unwrap_or_default())
    }

    /// The first parameter of that name. An empty value counts as absent, as in `prefix=`.
    pub(crate) fn value(self, name: &str) -> Result<Option<Cow<'a, str>>, RequestError> {
        for pair in self.0.split('&') {
            let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
            if raw_value.is_empty() || decode(raw_name).is_none_or(|decoded| decoded != name) {
                continue;
            }
            return match decode(raw_value) {
                Some(value) => Ok(Some(value)),
                None => Err(RequestError::invalid(format!("The query parameter {name} is not UTF-8."))),
            };
        }
        Ok(None)
    }

    /// The first parameter of that name as a number within `range`.
    pub(crate) fn number(
        self,
        name: &str,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<Option<usize>, RequestError> {
        let Some(text) = self.value(name)? else {
            return Ok(None);
        };
        text.parse().ok().filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            let (min, max) = (range.start(), range.end());
            RequestError::invalid(format!("Invalid {name} of {text}. Please specify an integer from {min} to {max}."))
        })
    }
}

fn decode(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.bytes().any(|b| matches!(b, b'+' | b'%')) {
        return Some(Cow::Borrowed(raw));
    }
    let spaced = raw.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_url_search_params_write() {
        let query = Query::new(Some("prefix=a+b%2F%C3%BC%2B&limit=10&cursor=&x"));
        assert_eq!(query.value("prefix").expect("UTF-8").as_deref(), Some("a b/ü+"));
        assert_eq!(query.number("limit", 1..=1000).expect("a number"), Some(10));
        assert_eq!(query.value("cursor").expect("UTF-8"), None);
        assert_eq!(query.value("absent").expect("UTF-8"), None);
        assert!(query.number("limit", 1..=9).is_err());
        assert!(Query::new(Some("prefix=%FF")).value("prefix").is_err());
    }
}

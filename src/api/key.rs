//! Keys as they arrive: one percent-decoding, then the rules every key obeys.
//!
//! Knows nothing of where in a request a key was found.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::error::RequestError;
use crate::replica::limits::KEY_LEN_MAX;

/// The key in a path segment.
pub(crate) fn decode_key(segment: &str) -> Result<Cow<'_, [u8]>, RequestError> {
    let key: Cow<'_, [u8]> = percent_decode_str(segment).into();
    match std::str::from_utf8(&key) {
        Ok(text) => check_key(text)?,
        Err(_) => return Err(RequestError::Key("Could not URL-decode key name")),
    }
    Ok(key)
}

/// 1 to 512 bytes, and neither `.` nor `..`, which URLs can't carry.
pub(crate) fn check_key(key: &str) -> Result<(), RequestError> {
    match key {
        "" => Err(RequestError::Key("Key names must not be empty")),
        "." => Err(RequestError::Key("Illegal key name \".\". Please use a different name.")),
        ".." => Err(RequestError::Key("Illegal key name \"..\". Please use a different name.")),
        _ if key.len() > KEY_LEN_MAX => Err(RequestError::KeyTooLong(key.len())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(segment: &str) -> Result<String, String> {
        decode_key(segment).map(|key| String::from_utf8_lossy(&key).into_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_decoded_exactly_once() {
        assert_eq!(decoded("a%20key%2F%C3%BC%3F%231").as_deref(), Ok("a key/ü?#1"));
        assert_eq!(decoded("100%2525").as_deref(), Ok("100%25"));
        assert_eq!(decoded("bulk%2Fget").as_deref(), Ok("bulk/get"));
        assert_eq!(decoded("a+b").as_deref(), Ok("a+b"));
        assert_eq!(decoded(&"%C3%BC".repeat(256)).map(|key| key.len()), Ok(512));
    }

    #[test]
    fn keys_that_no_client_may_use_are_refused() {
        for bad in ["", ".", "..", "%2E", "%2e%2E", "%FF", "%C3", &"k".repeat(513)] {
            assert!(decoded(bad).is_err(), "{bad}");
        }
        assert!(decoded(&"k".repeat(513)).is_err_and(|text| text.contains("513")));
    }
}

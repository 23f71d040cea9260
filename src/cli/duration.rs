//! Spans of time as people write them: `30s`, `10m`, `1h`, `7d`.

use std::time::Duration;

const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// Why a text is no span of time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DurationError {
    /// Not a whole number followed by a unit.
    #[error("write a whole number with a unit: 30s, 10m, 1h or 7d")]
    Form,
    /// Zero, or more than a `u64` of seconds.
    #[error("out of range")]
    Range,
}

/// Reads a span of at least a second.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let (number, secs_per) = UNITS
        .iter()
        .find_map(|(unit, secs)| text.strip_suffix(unit).map(|number| (number, *secs)))
        .ok_or(DurationError::Form)?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(DurationError::Form);
    }
    let secs = number.parse::<u64>().ok().and_then(|number| number.checked_mul(secs_per));
    secs.filter(|secs| *secs > 0).map(Duration::from_secs).ok_or(DurationError::Range)
}

/// Reads a span of at least a millisecond, which may also be in `ms`.
pub fn parse_fine(text: &str) -> Result<Duration, DurationError> {
    match text.strip_suffix("ms") {
        Some(number) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
            let ms = number.parse::<u64>().ok().filter(|ms| *ms > 0);
            ms.map(Duration::from_millis).ok_or(DurationError::Range)
        }
        _ => parse(text),
    }
}

/// Writes whole seconds with the two largest units that matter: `3d 4h`, `10m`, `42s`.
pub fn render(secs: u64) -> String {
    let mut rest = secs;
    let mut parts = Vec::new();
    for (unit, secs_per) in UNITS {
        let count = rest / secs_per;
        rest %= secs_per;
        if count > 0 {
            parts.push(format!("{count}{unit}"));
        } else if !parts.is_empty() {
            break;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read() {
        for (text, secs) in [("30s", 30), ("10m", 600), ("1h", 3_600), ("7d", 604_800), ("007d", 604_800)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(secs)), "{text}");
        }
        for bad in ["", "s", "10", "1.5h", "-1h", "+1h", "1 h", "1w", "1hh", "h1", "１h"] {
            assert_eq!(parse(bad), Err(DurationError::Form), "{bad}");
        }
        for bad in ["0s", "99999999999999999999s", "999999999999999999d"] {
            assert_eq!(parse(bad), Err(DurationError::Range), "{bad}");
        }
    }

    #[test]
    fn read_fine() {
        assert_eq!(parse_fine("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_fine("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_fine("0ms"), Err(DurationError::Range));
        assert_eq!(parse_fine("ms"), Err(DurationError::Form));
    }

    #[test]
    fn written() {
        for (secs, text) in [(0, "0s"), (42, "42s"), (600, "10m"), (3_661, "1h 1m"), (3_601, "1h"), (273_600, "3d 4h")]
        {
            assert_eq!(render(secs), text);
        }
    }
}

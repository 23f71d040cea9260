//! How many scripts a request went through before it came here, as its header says: scripts that ask one another, or
//! themselves, come to an end whichever engine runs them.

use hyper::header::{HeaderMap, HeaderName};

/// Scripts that are told apart between a request and its visitor; the last of them asks no further.
pub(super) const HOPS_MAX: usize = 3;
/// Says in a fetch how many scripts it went through (RFC 8586).
pub(super) const LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// What begins our part of it.
const LOOP_NAME: &str = "starling; hops=";

/// Our part of the header of a fetch, that many scripts from a visitor.
pub(super) fn loop_header(hops: usize) -> String {
    format!("{LOOP_NAME}{hops}")
}

/// How many scripts a request went through.
pub(super) fn hops(headers: &HeaderMap) -> usize {
    let values = headers.get_all(LOOP).iter().filter_map(|value| value.to_str().ok());
    let parts = values.flat_map(|text| text.split(',')).filter_map(|part| part.trim().strip_prefix(LOOP_NAME));
    // Whoever writes nonsense there has been here.
    parts.map(|hops| hops.parse().unwrap_or(HOPS_MAX)).max().unwrap_or(0).min(HOPS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_read_as_written_among_those_of_others() {
        let of = |values: &[&str]| {
            let pairs = values.iter().map(|value| (LOOP, value.parse().expect("a value")));
            hops(&pairs.collect::<HeaderMap>())
        };
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&["other.example; abc=1"]), 0);
        assert_eq!(of(&[&loop_header(1)]), 1);
        assert_eq!(of(&["other; a=1, starling; hops=1", "starling; hops=2,x"]), 2);
        assert_eq!(of(&["starling; hops=99"]), HOPS_MAX);
        assert_eq!(of(&["starling; hops=-1"]), HOPS_MAX);
    }
}

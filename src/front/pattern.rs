//! Which route a request matches, by Cloudflare's rules: a host that may begin with `*`, a path that may end with it;
//! among several the most specific one wins.
//!
//! Pure: knows neither scripts nor requests.

use std::cmp::Reverse;

/// The pattern of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pattern {
    /// `Some(true)`: only over HTTPS.
    is_https: Option<bool>,
    host: Matcher,
    path: Matcher,
}

/// A text, or one with anything before or behind it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Matcher {
    text: String,
    is_wild: bool,
}

/// What makes one pattern more specific than another: first its host, then its path. The greater wins.
pub(super) type Weight = (bool, usize, usize, bool, bool);

impl Pattern {
    /// Reads a pattern; what is none matches nothing.
    pub(super) fn read(pattern: &str) -> Option<Self> {
        let (is_https, rest) = match pattern.split_once("://") {
            Some(("http", rest)) => (Some(false), rest),
            Some(("https", rest)) => (Some(true), rest),
            Some(_) => return None,
            None => (None, pattern),
        };
        let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let host = match host.strip_prefix('*') {
            Some(end) => Matcher { text: end.to_ascii_lowercase(), is_wild: true },
            None => Matcher { text: host.to_ascii_lowercase(), is_wild: false },
        };
        let path = match path.strip_suffix('*') {
            Some(start) => Matcher { text: start.to_owned(), is_wild: true },
            None => Matcher { text: path.to_owned(), is_wild: false },
        };
        (!host.text.contains('*') && !path.text.contains('*') && (host.is_wild || !host.text.is_empty()))
            .then_some(Self { is_https, host, path })
    }

    /// Whether a request matches: its host in lower case, without a port that goes without saying, and its path.
    pub(super) fn matches(&self, is_https: bool, host: &str, path: &str) -> bool {
        let meets_host = |host: &str| match self.host.is_wild {
            true => host.ends_with(&self.host.text),
            false => host == self.host.text,
        };
        let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        self.is_https.is_none_or(|only| only == is_https)
            && (meets_host(host) || name.is_some_and(|(name, _)| meets_host(name)))
            && match self.path.is_wild {
                true => path.starts_with(&self.path.text),
                false => path == self.path.text,
            }
    }

    /// How specific it is.
    pub(super) fn weight(&self) -> Weight {
        (!self.host.is_wild, self.host.text.len(), self.path.text.len(), !self.path.is_wild, self.is_https.is_some())
    }
}

/// Patterns with what they lead to, the most specific first.
#[derive(Debug)]
pub(super) struct Patterns<T>(Vec<(Pattern, T)>);

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> Patterns<T> {
    pub(super) fn new(patterns: impl IntoIterator<Item = (Pattern, T)>) -> Self {
        let mut patterns: Vec<_> = patterns.into_iter().collect();
        patterns.sort_by(|(a, to_a), (b, to_b)| {
            Reverse(a.weight()).cmp(&Reverse(b.weight())).then_with(|| (a, to_a).cmp(&(b, to_b)))
        });
        Self(patterns)
    }

    /// Where a request goes.
    pub(super) fn find(&self, is_https: bool, host: &str, path: &str) -> Option<&T> {
        self.0.iter().find(|(pattern, _)| pattern.matches(is_https, host, path)).map(|(_, to)| to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn patterns(texts: &[&str]) -> Patterns<String> {
        Patterns::new(texts.iter().map(|text| (Pattern::read(text).expect("a pattern"), (*text).to_owned())))
    }

    #[test]
    fn the_most_specific_wins() {
        let routes = patterns(&[
            "*/*",
            "*example.com/*",
            "*.example.com/*",
            "*.example.com/api/*",
            "www.example.com/*",
            "www.example.com/api/*",
            "www.example.com/api/exact",
            "https://www.example.com/api/*",
            "localhost:8080/x*",
        ]);
        for (is_https, host, path, to) in [
            (false, "www.example.com", "/api/exact", "www.example.com/api/exact"),
            (false, "www.example.com", "/api/exact/", "www.example.com/api/*"),
            (true, "www.example.com", "/api/a", "https://www.example.com/api/*"),
            (false, "www.example.com:7701", "/", "www.example.com/*"),
            (false, "a.b.example.com", "/api/", "*.example.com/api/*"),
            (false, "a.example.com", "/api", "*.example.com/*"),
            (false, "example.com", "/", "*example.com/*"),
            (false, "notexample.com", "/", "*example.com/*"),
            (false, "example.net", "/", "*/*"),
            (false, "localhost:8080", "/xy", "localhost:8080/x*"),
            (false, "localhost:8081", "/xy", "*/*"),
        ] {
            assert_eq!(routes.find(is_https, host, path).map(String::as_str), Some(to), "{host}{path}");
        }
    }

    #[test]
    fn a_pattern_without_a_star_is_that_path_alone() {
        let routes = patterns(&["example.com", "example.com/a"]);
        assert!(routes.find(false, "example.com", "/").is_some());
        assert!(routes.find(false, "example.com", "/a").is_some());
        assert!(routes.find(false, "example.com", "/a/").is_none());
        assert!(routes.find(false, "example.com", "/A").is_none(), "paths are told apart by case, hosts are not");
        for none in ["", "/x", "a*b/", "a/*b", "ftp://a/"] {
            assert!(Pattern::read(none).is_none(), "{none}");
        }
    }

    fn pattern() -> impl Strategy<Value = String> {
        ("(|\\*|\\*\\.)", "(a|b)(\\.(a|b)){0,2}", "(|/|/(a|b){0,2}(/(a|b)){0,2})", "(|\\*)").prop_map(
            |(star, host, path, end)| {
                let path = if path.is_empty() && !end.is_empty() { "/".to_owned() } else { path };
                format!("{star}{host}{path}{end}")
            },
        )
    }

    /// All that a pattern matches, spelt out: nothing of the code above.
    fn matches(pattern: &str, url: &str) -> bool {
        let pattern = if pattern.contains('/') { pattern.to_owned() } else { format!("{pattern}/") };
        let (head, rest) = match pattern.strip_prefix('*') {
            Some(rest) => (true, rest.to_owned()),
            None => (false, pattern.clone()),
        };
        let (tail, middle) = match rest.strip_suffix('*') {
            Some(middle) => (true, middle.to_owned()),
            None => (false, rest),
        };
        let starts = if head { (0..=url.find('/').unwrap_or(0)).collect() } else { vec![0] };
        starts.into_iter().any(|at| match url.get(at..) {
            Some(url) if tail => url.starts_with(&middle),
            Some(url) => url == middle,
            None => false,
        })
    }

    proptest! {
        #[test]
        fn what_is_found_matches_and_nothing_narrower_does(
            texts in prop::collection::vec(pattern(), 1..8), host in "(a|b)(\\.(a|b)){0,3}", path in "/(a|b){0,3}(/(a|b)){0,2}",
        ) {
            let routes = patterns(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            let url = format!("{host}{path}");
            let found = routes.find(false, &host, &path);
            prop_assert_eq!(found.is_some(), texts.iter().any(|text| matches(text, &url)));
            if let Some(found) = found {
                prop_assert!(matches(found, &url), "{found} for {url}");
                // Narrower: everything that it matches the other one matches too, and not the other way round.
                let exact = texts.iter().find(|text| text.contains('/') && !text.contains('*') && matches(text, &url));
                if exact.is_some() {
                    prop_assert!(!found.contains('*'), "{found} for {url}");
                }
                let same_host = texts.iter().filter(|text| matches(text, &url)).filter(|text| {
                    text.split('/').next() == found.split('/').next()
                });
                for other in same_host {
                    // A pattern without a path is that of `/`, written or not.
                    let path = |text: &str| text.find('/').map_or(1, |at| text[at..].trim_end_matches('*').len());
                    prop_assert!(path(found) >= path(other), "{other} rather than {found} for {url}");
                }
            }
        }
    }
}

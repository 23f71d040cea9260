//! The patterns of routes, as Cloudflare has them: a host that may begin with `*`, and a path that may end with it.

use super::WorkerError;
use super::limits::PATTERN_LEN_MAX;

/// A pattern that can be a route, without its scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern<'a> {
    /// In lower case as hosts are compared; may begin with `*`.
    pub(super) host: &'a str,
}

/// Reads a pattern.
pub(super) fn parse(pattern: &str) -> Result<Pattern<'_>, WorkerError> {
    let wrong = |why| WorkerError::Pattern { pattern: pattern.chars().take(PATTERN_LEN_MAX).collect(), why };
    if pattern.is_empty() || pattern.len() > PATTERN_LEN_MAX {
        return Err(wrong("it is empty or too long"));
    }
    if pattern.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(wrong("it has white space"));
    }
    if pattern.contains(['?', '#']) {
        return Err(wrong("it has a query or a fragment, which routes don't look at"));
    }
    let rest = pattern.strip_prefix("http://").or_else(|| pattern.strip_prefix("https://")).unwrap_or(pattern);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.is_empty() {
        return Err(wrong("it has no host: write example.com/*, or */* for every host"));
    }
    let after_star = host.strip_prefix('*').unwrap_or(host);
    let is_of_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if after_star.contains('*') {
        return Err(wrong("a host may have a wildcard only at its beginning"));
    }
    if !after_star.bytes().all(is_of_host) || after_star.ends_with('.') || after_star.contains("..") {
        return Err(wrong("its host is none; names beyond ASCII are written in punycode"));
    }
    let before_star = path.strip_suffix('*').unwrap_or(path);
    if before_star.contains('*') {
        return Err(wrong("a path may have a wildcard only at its end"));
    }
    Ok(Pattern { host })
}

impl Pattern<'_> {
    /// Whether some host matches both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.host.to_ascii_lowercase(), other.host.to_ascii_lowercase());
        match (mine.strip_prefix('*'), theirs.strip_prefix('*')) {
            (None, None) => mine == theirs,
            (Some(end), None) => theirs.ends_with(end),
            (None, Some(end)) => mine.ends_with(end),
            (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_at_the_ends_only() {
        for good in [
            "example.com",
            "example.com/*",
            "*.example.com/api/*",
            "*example.com/",
            "https://example.com/a",
            "*/*",
            "localhost:8080/*",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "/x", "ex*mple.com/", "example.com/*.jpg", "example.com/?a=*", "exa mple.com", "a..b/", "é.com/"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_meet_where_one_name_matches_both() {
        let meets = |a, b| parse(a).expect("a pattern").meets(&parse(b).expect("a pattern"));
        assert!(meets("example.com/a", "Example.com/b") && meets("*.example.com/*", "a.example.com/"));
        assert!(meets("*/*", "a.b/") && meets("*.a.b/", "*.b/*") && !meets("*.a.b/", "*.c.b/"));
        assert!(!meets("*.example.com/*", "example.com/*") && meets("*example.com/*", "example.com/*"));
    }
}

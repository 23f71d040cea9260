//! The static files of a script: which one a path stands for.
//!
//! Plain data and a pure rule. Knows neither where files lie nor how they are sent.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What a path keeps unencoded in a `location`.
const PATH: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`');

/// The static files of one version.
#[derive(Debug, Clone, Default)]
pub struct Assets {
    /// By path, which begins with a slash and is not percent-encoded.
    pub files: BTreeMap<String, Asset>,
    /// How pages are found.
    pub html: HtmlHandling,
    /// What stands in for what is not found.
    pub missing: NotFoundHandling,
    /// Which requests go to the script although a file matches.
    pub script_first: ScriptFirst,
}

/// One static file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    /// Names its content within its script.
    pub hash: [u8; 16],
    /// Bytes.
    pub len: u64,
    /// Its media type, if its uploader said so.
    pub content_type: Option<String>,
}

/// Under which paths `page.html` and `page/index.html` are served; all others lead there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HtmlHandling {
    /// `/page` and `/page/`.
    #[default]
    AutoTrailingSlash,
    /// `/page/` for both.
    ForceTrailingSlash,
    /// `/page` for both.
    DropTrailingSlash,
    /// As the files are named.
    None,
}

/// What is served where no file matches and no script answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NotFoundHandling {
    /// Nothing.
    #[default]
    None,
    /// The nearest `404.html` towards the root, with status 404.
    NotFoundPage,
    /// `/index.html`, with status 200.
    SinglePage,
}

/// Which requests go to the script although a file matches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ScriptFirst {
    /// None.
    #[default]
    Never,
    /// All.
    Always,
    /// Those whose path matches a pattern, unless it matches one that begins with `!`. `*` stands for anything.
    Paths(Vec<String>),
}

/// What a path stands for.
#[derive(Debug, PartialEq, Eq)]
pub enum Resolved<'a> {
    /// A file.
    File(&'a Asset),
    /// Another path, percent-encoded.
    Redirect(String),
    /// Nothing.
    Missing,
}

impl Assets {
    /// What a path, already decoded, stands for.
    pub fn resolve(&self, path: &str) -> Resolved<'_> {
        let exact = self.files.get(path);
        if self.html == HtmlHandling::None || exact.is_some() && !path.ends_with(".html") {
            return exact.map_or(Resolved::Missing, Resolved::File);
        }
        let stem = path.strip_suffix(".html").unwrap_or(path);
        let (stem, wants_index) = match stem.strip_suffix("/index").or_else(|| stem.strip_suffix('/')) {
            Some(directory) => (directory, true),
            None => (stem, false),
        };
        let mut pages = [format!("{stem}.html"), format!("{stem}/index.html")];
        if wants_index {
            pages.reverse();
        }
        let found = pages.iter().find_map(|page| Some((page, self.files.get(page)?)));
        let Some((page, asset)) = found else { return Resolved::Missing };
        match self.address(page) {
            address if address == path => Resolved::File(asset),
            address => Resolved::Redirect(utf8_percent_encode(&address, PATH).to_string()),
        }
    }

    /// The one path under which a page is served.
    fn address(&self, page: &str) -> String {
        let stem = page.strip_suffix(".html").unwrap_or(page);
        let (stem, is_index) = match stem.strip_suffix("/index") {
            Some(directory) => (directory, true),
            None => (stem, false),
        };
        let slash = match self.html {
            _ if stem.is_empty() => true,
            HtmlHandling::AutoTrailingSlash => is_index,
            HtmlHandling::ForceTrailingSlash => true,
            HtmlHandling::DropTrailingSlash | HtmlHandling::None => false,
        };
        format!("{stem}{}", if slash { "/" } else { "" })
    }

    /// What is served where a path stands for nothing and no script answers: a status and a file.
    pub fn stand_in(&self, path: &str) -> Option<(u16, &Asset)> {
        match self.missing {
            NotFoundHandling::None => None,
            NotFoundHandling::SinglePage => self.files.get("/index.html").map(|asset| (200, asset)),
            NotFoundHandling::NotFoundPage => {
                let mut directory = path;
                while let Some((parent, _)) = directory.rsplit_once('/') {
                    if let Some(asset) = self.files.get(&format!("{parent}/404.html")) {
                        return Some((404, asset));
                    }
                    directory = parent;
                }
                None
            }
        }
    }

    /// Whether a request goes to the script although a file may match.
    pub fn goes_to_script(&self, path: &str) -> bool {
        match &self.script_first {
            ScriptFirst::Never => false,
            ScriptFirst::Always => true,
            ScriptFirst::Paths(patterns) => {
                let is_excepted = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!'));
                let mut wanted = patterns.iter().filter(|pattern| !pattern.starts_with('!'));
                wanted.any(|pattern| matches(pattern, path)) && !is_excepted.into_iter().any(|p| matches(p, path))
            }
        }
    }
}

/// Whether a path matches a pattern in which `*` stands for anything.
fn matches(pattern: &str, path: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = path.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = rest.get(at + piece.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assets(html: HtmlHandling) -> Assets {
        let paths =
            ["/index.html", "/a.html", "/d/index.html", "/both.html", "/both/index.html", "/x.css", "/d/404.html"];
        let asset = |n: usize| Asset { hash: [n as u8; 16], len: 1, content_type: None };
        let files = paths.iter().enumerate().map(|(n, path)| ((*path).to_owned(), asset(n))).collect();
        Assets { files, html, ..Assets::default() }
    }

    fn shown(assets: &Assets, path: &str) -> String {
        match assets.resolve(path) {
            Resolved::File(asset) => {
                assets.files.iter().find(|(_, other)| *other == asset).map(|(path, _)| path.clone()).unwrap_or_default()
            }
            Resolved::Redirect(to) => format!("to {to}"),
            Resolved::Missing => "none".into(),
        }
    }

    #[test]
    fn each_page_has_one_address() {
        let check = |html, expected: &[(&str, &str)]| {
            let assets = assets(html);
            for (path, outcome) in expected {
                assert_eq!(shown(&assets, path), *outcome, "{path}, {html:?}");
            }
        };
        check(
            HtmlHandling::AutoTrailingSlash,
            &[
                ("/", "/index.html"),
                ("/index.html", "to /"),
                ("/index", "to /"),
                ("/a", "/a.html"),
                ("/a/", "to /a"),
                ("/a.html", "to /a"),
                ("/a/index.html", "to /a"),
                ("/d", "to /d/"),
                ("/d/", "/d/index.html"),
                ("/d/index", "to /d/"),
                ("/d.html", "to /d/"),
                ("/both", "/both.html"),
                ("/both/", "/both/index.html"),
                ("/x.css", "/x.css"),
                ("/y", "none"),
            ],
        );
        check(
            HtmlHandling::ForceTrailingSlash,
            &[("/a", "to /a/"), ("/a/", "/a.html"), ("/d", "to /d/"), ("/d/", "/d/index.html"), ("/", "/index.html")],
        );
        check(
            HtmlHandling::DropTrailingSlash,
            &[("/a/", "to /a"), ("/a", "/a.html"), ("/d/", "to /d"), ("/d", "/d/index.html"), ("/", "/index.html")],
        );
        check(HtmlHandling::None, &[("/", "none"), ("/a", "none"), ("/a.html", "/a.html"), ("/x.css", "/x.css")]);
    }

    #[test]
    fn something_may_stand_in_for_what_is_missing() {
        let mut assets = assets(HtmlHandling::default());
        assert_eq!(assets.stand_in("/d/e/f"), None);
        assets.missing = NotFoundHandling::NotFoundPage;
        assert_eq!(assets.stand_in("/d/e/f"), assets.files.get("/d/404.html").map(|asset| (404, asset)));
        assert_eq!(assets.stand_in("/e"), None);
        assets.missing = NotFoundHandling::SinglePage;
        assert_eq!(assets.stand_in("/e"), assets.files.get("/index.html").map(|asset| (200, asset)));
    }

    #[test]
    fn some_paths_go_to_the_script_first() {
        let mut assets = Assets::default();
        assert!(!assets.goes_to_script("/api/x"));
        assets.script_first = ScriptFirst::Paths(vec!["/api/*".into(), "/*/edit".into(), "!/api/docs/*".into()]);
        for (path, goes) in [("/api/x", true), ("/a/b/edit", true), ("/api/docs/x", false), ("/", false)] {
            assert_eq!(assets.goes_to_script(path), goes, "{path}");
        }
    }
}

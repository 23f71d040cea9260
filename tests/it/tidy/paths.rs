//! The paths that a source file mentions, read without a compiler. Knows no rules.

/// A path, with its line.
pub(super) type Mention = (usize, String);

/// Every path of the code outside tests: those of `use` trees unfolded, and those in between.
pub(super) fn mentions(file: &str, text: &str) -> Vec<Mention> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let tokens = tokens(code);
    let module = module_of(file);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (line, token) = &tokens[at];
        if token == "use" {
            let mut tree = Vec::new();
            at += 1;
            while at < tokens.len() && tokens[at].1 != ";" {
                tree.push(&*tokens[at].1);
                at += 1;
            }
            let mut unfolded = Vec::new();
            unfold("", &tree, &mut unfolded);
            found.extend(unfolded.into_iter().map(|path| (*line, absolute(&path, &module))));
        } else if is_name(token) {
            let mut path = token.clone();
            while at + 2 < tokens.len() && tokens[at + 1].1 == "::" && is_name(&tokens[at + 2].1) {
                path = format!("{path}::{}", tokens[at + 2].1);
                at += 2;
            }
            found.push((*line, absolute(&path, &module)));
        }
        at += 1;
    }
    found
}

/// `a::{b, c as d, e::*}` as `a::b`, `a::c`, `a::e::*`.
fn unfold(prefix: &str, tree: &[&str], found: &mut Vec<String>) {
    let join = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    let mut path = prefix.to_owned();
    let mut at = 0;
    while at < tree.len() {
        match tree[at] {
            "::" => {}
            "as" => at += 1,
            "," => {
                if path != prefix {
                    found.push(std::mem::replace(&mut path, prefix.to_owned()));
                }
            }
            "{" => {
                let mut depth = 1;
                let start = at + 1;
                while depth > 0 && at + 1 < tree.len() {
                    at += 1;
                    depth += i32::from(tree[at] == "{") - i32::from(tree[at] == "}");
                }
                unfold(&path, &tree[start..at], found);
                path = prefix.to_owned();
            }
            "self" if path == prefix && !prefix.is_empty() => {
                found.push(prefix.to_owned());
            }
            name => path = if path == prefix { join(name) } else { format!("{path}::{name}") },
        }
        at += 1;
    }
    if path != prefix {
        found.push(path);
    }
}

/// `crate::a::b` for `src/a/b.rs` and `src/a/b/mod.rs`.
fn module_of(file: &str) -> Vec<String> {
    let inner = file.split_once("src/").map_or(file, |(_, inner)| inner);
    let parts = inner.trim_end_matches(".rs").split('/').map(str::to_owned);
    ["crate".to_owned()].into_iter().chain(parts.filter(|part| !["mod", "lib", "main"].contains(&&**part))).collect()
}

/// Without `self` and `super` at its beginning.
fn absolute(path: &str, module: &[String]) -> String {
    let mut base = module.to_vec();
    let mut rest = path;
    loop {
        let (first, later) = rest.split_once("::").unwrap_or((rest, ""));
        match first {
            "super" => _ = (base.len() > 1).then(|| base.pop()),
            "self" => {}
            _ if rest == path => return path.to_owned(),
            _ => return format!("{}::{rest}", base.join("::")),
        }
        if later.is_empty() {
            return base.join("::");
        }
        rest = later;
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Names, `::` and single signs, each with its line; comments and the insides of strings left out.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = code.chars().collect();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    let is = |at: usize, sign: char| chars.get(at) == Some(&sign);
    while at < chars.len() {
        let start = at;
        match chars[at] {
            '/' if is(at + 1, '/') => {
                while at < chars.len() && !is(at, '\n') {
                    at += 1;
                }
            }
            '"' => {
                let hashes = chars[..at].iter().rev().take_while(|sign| **sign == '#').count();
                let is_raw = chars[..at - hashes].last() == Some(&'r');
                at += 1;
                while at < chars.len() {
                    match chars[at] {
                        '\\' if !is_raw => at += 1,
                        '"' if !is_raw || (1..=hashes).all(|n| is(at + n, '#')) => break,
                        _ => {}
                    }
                    at += 1;
                }
                at += 1;
            }
            // A character, not a lifetime.
            '\'' if is(at + 2, '\'') || is(at + 1, '\\') => {
                at += 2;
                while at < chars.len() && !is(at, '\'') {
                    at += 1;
                }
                at += 1;
            }
            ':' if is(at + 1, ':') => {
                found.push((line, "::".to_owned()));
                at += 2;
            }
            sign if sign.is_alphanumeric() || sign == '_' => {
                while at < chars.len() && (chars[at].is_alphanumeric() || is(at, '_')) {
                    at += 1;
                }
                found.push((line, chars[start..at].iter().collect()));
            }
            sign => {
                if !sign.is_whitespace() {
                    found.push((line, sign.to_string()));
                }
                at += 1;
            }
        }
        line += chars[start..at.min(chars.len())].iter().filter(|sign| **sign == '\n').count();
    }
    found
}

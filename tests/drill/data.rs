//! A real data set, from what every machine with Rust has: the sources of the packages that this program is built from,
//! each file as an entry and each of its paragraphs as another. Where those are missing, entries are made up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest key, in bytes.
const KEY_LEN_MAX: usize = 512;

/// A key and its value.
pub struct Entry {
    pub key: String,
    pub value: String,
}

/// That many entries, none twice, and where they come from.
pub fn collect(count: usize) -> (Vec<Entry>, String) {
    let mut entries = Vec::new();
    let mut files = 0;
    let home = |variable: &str, below: &str| {
        let user = std::env::var_os("HOME").map(|home| Path::new(&home).join(below));
        std::env::var_os(variable).map(PathBuf::from).or(user)
    };
    let cargo = home("CARGO_HOME", ".cargo").map(|home| home.join("registry/src"));
    for root in cargo.into_iter().chain([PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")]) {
        let mut paths = Vec::new();
        walk(&root, &mut paths);
        for path in paths {
            if entries.len() >= count {
                break;
            }
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let name = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
            files += 1;
            let paragraphs = text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty()).enumerate();
            let parts = paragraphs.map(|(at, text)| (format!("{name}#{at:05}"), text.to_owned()));
            let all = [(name.clone(), text.clone())].into_iter().chain(parts);
            entries.extend(all.filter(|(key, value)| key.len() <= KEY_LEN_MAX && !value.is_empty()).map(Entry::from));
        }
    }
    entries.truncate(count);
    let real = entries.len();
    entries.extend((real..count).map(made_up));
    let distinct: BTreeSet<&str> = entries.iter().map(|entry| &*entry.key).collect();
    assert_eq!(distinct.len(), count, "keys are distinct");
    let source = match count - real {
        0 => format!("{files} source files of packages and their paragraphs"),
        made_up => format!("{files} source files and their paragraphs, {made_up} made up"),
    };
    (entries, source)
}

impl From<(String, String)> for Entry {
    fn from((key, value): (String, String)) -> Self {
        Self { key, value }
    }
}

/// Files below a directory, in order.
fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        match path.is_dir() {
            true => walk(&path, found),
            false => found.push(path),
        }
    }
}

/// What an application might keep: a session.
fn made_up(number: usize) -> Entry {
    let id = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let value = format!(
        "{{\"user\":{number},\"token\":\"{id:016x}\",\"roles\":[\"reader\"],\"seen\":\"2026-01-{:02}\",\"cart\":[{}]}}",
        number % 28 + 1,
        (0..number % 20).map(|item| format!("\"item-{item}\"")).collect::<Vec<_>>().join(",")
    );
    Entry { key: format!("session/{id:016x}"), value }
}

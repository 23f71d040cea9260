//! The rules of the code that no compiler keeps: who may use what, what the pure core never touches, how files are
//! called. Reads sources as text: `use` trees and every other path, without comments, strings and tests.

mod paths;

use std::fs;
use std::path::Path;

use paths::mentions;

/// What one part of the code may use of the rest, and what it must never touch.
struct Part {
    /// A folder or a file; a folder that does not exist yet has its rule already.
    at: &'static str,
    /// Paths within this workspace that it may use; of another part nothing else.
    may_use: &'static [&'static str],
    /// Paths that it must not use, wherever they are from. `..` stands for any beginning.
    never: &'static [&'static str],
    /// Why, for whoever breaks it.
    why: &'static str,
}

const HTTP: &[&str] = &["hyper", "hyper_util", "http_body_util", "http", "multer", "crate::api", "crate::client"];

const PARTS: &[Part] = &[
    Part {
        at: "src/replica",
        may_use: &["crate::replica"],
        never: &[
            "std::fs",
            "std::net",
            "std::env",
            "std::io",
            "std::process",
            "std::thread",
            "std::sync",
            "std::time",
            "..Instant",
            "..SystemTime",
            "..HashMap",
            "..HashSet",
            "..RandomState",
            "..thread_rng",
            "..make_rng",
            "..from_os_rng",
            "..from_rng",
            "rand::rng",
            "rand::random",
            "..SysRng",
            "..OsRng",
            "..ThreadRng",
            "getrandom",
            "tokio",
            "serde_json",
            "tracing",
        ],
        why: "the core is pure: no IO, no clock, no ambient randomness, no hash order, so that the simulator can judge it",
    },
    Part {
        at: "src/store",
        may_use: &["crate::store", "crate::replica", "crate::metrics"],
        never: &["tokio", "quinn", "hyper"],
        why: "the store knows neither what its rows mean nor who asks",
    },
    Part {
        at: "src/net",
        may_use: &["crate::net", "crate::replica::NodeId", "crate::replica::SecretBytes", "crate::replica::limits"],
        never: &["fjall", "hyper"],
        why: "the network does not know what a message means",
    },
    Part {
        at: "src/node",
        may_use: &[
            "crate::node",
            "crate::replica",
            "crate::store",
            "crate::net",
            "crate::metrics",
            "crate::kv",
            "crate::keyring",
            "crate::config",
            "crate::datadir",
            "crate::exit",
            "crate::secret",
        ],
        never: HTTP,
        why: "the node knows no HTTP",
    },
    Part {
        at: "src/backup",
        may_use: &[
            "crate::backup",
            "crate::keyring",
            "crate::node",
            "crate::store",
            "crate::datadir",
            "crate::exit",
            "crate::replica::NodeId",
            "crate::replica::StoreError",
        ],
        never: HTTP,
        why: "a backup does not depend on how it travels, nor on what rows mean",
    },
    Part {
        at: "src/kv",
        may_use: &["crate::kv", "crate::replica", "crate::store", "crate::node", "crate::keyring", "crate::secret"],
        never: HTTP,
        why: "the local client knows neither HTTP nor how a write spreads",
    },
    Part {
        at: "src/keyring",
        may_use: &[
            "crate::keyring",
            "crate::node::MachineClock",
            "crate::node::entropy",
            "crate::replica::NamespaceId",
            "crate::replica::SecretBytes",
            "crate::replica::limits",
            "crate::replica::SharedSecret",
            "crate::replica::Secrets",
            "crate::config",
            "crate::datadir",
            "crate::exit",
            "crate::secret",
        ],
        never: &["fjall", "quinn", "hyper", "tokio::net"],
        why: "the keyring knows keys, not what they seal",
    },
    Part {
        at: "src/api",
        may_use: &[
            "crate::api",
            "crate::backup::Pieces",
            "crate::kv",
            "crate::operator",
            "crate::https::ServerTls",
            "crate::secret",
            "crate::replica::NamespaceId",
            "crate::replica::limits",
            "crate::worker",
            "crate::console",
            "crate::metrics",
        ],
        never: &["fjall", "quinn", "crate::store", "crate::node", "crate::net"],
        why: "the API goes through `kv` and `operator` for everything",
    },
    Part {
        at: "src/https",
        may_use: &[
            "crate::https",
            "crate::net::Authority",
            "crate::net::pem",
            "crate::node::MachineClock",
            "crate::datadir::write_private",
        ],
        never: &["fjall", "quinn", "hyper", "crate::store", "crate::kv"],
        why: "TLS for clients knows nothing of what is asked",
    },
    Part {
        at: "src/binding",
        may_use: &[
            "crate::binding",
            "crate::api",
            "crate::kv",
            "crate::config::Bindings",
            "crate::replica::NamespaceId",
            "crate::replica::limits",
        ],
        never: &["fjall", "quinn", "crate::store", "crate::node", "crate::net"],
        why: "bindings go through `kv` for everything",
    },
    Part {
        at: "src/worker",
        may_use: &[
            "crate::worker",
            "crate::kv",
            "crate::binding",
            "crate::https::Outgoing",
            "crate::secret",
            "crate::config",
            "crate::datadir",
            "crate::exit",
            "crate::replica::NamespaceId",
            "crate::replica::limits",
        ],
        never: &["fjall", "quinn", "crate::store", "crate::node", "crate::net"],
        why: "Workers go through `kv`",
    },
    Part {
        at: "src/front",
        may_use: &[
            "crate::front",
            "crate::api::serve",
            "crate::api::session",
            "crate::https::ServerTls",
            "crate::kv",
            "crate::metrics",
            "crate::operator",
            "crate::worker",
        ],
        never: &["fjall", "quinn", "crate::store", "crate::node", "crate::net"],
        why: "the front knows what is deployed and whom to ask, not how it runs or where it is kept",
    },
    Part {
        at: "src/console",
        may_use: &["crate::console", "crate::kv", "crate::operator", "crate::secret", "crate::metrics"],
        never: &["fjall", "quinn", "crate::store", "crate::node", "crate::net"],
        why: "the console shows what `kv` and `operator` tell",
    },
    Part {
        at: "src/operator",
        may_use: &[
            "crate::operator",
            "crate::backup",
            "crate::replica",
            "crate::node",
            "crate::net",
            "crate::metrics",
            "crate::kv",
            "crate::config",
            "crate::secret",
        ],
        never: HTTP,
        why: "what an operator asks does not depend on how he asks",
    },
    Part {
        at: "src/metrics",
        may_use: &["crate::metrics", "crate::replica::NodeId", "crate::replica::limits"],
        never: &["tokio", "hyper", "fjall", "quinn"],
        why: "metrics are described and counted here, and asked for elsewhere",
    },
    Part {
        at: "src/embed",
        may_use: &["crate::embed", "crate::kv", "crate::node", "crate::config", "crate::datadir", "crate::secret"],
        never: HTTP,
        why: "a node inside a program needs no HTTP",
    },
    Part {
        at: "src/config",
        may_use: &["crate::config", "crate::secret", "crate::replica::NodeId"],
        never: &["tokio", "hyper", "quinn", "fjall"],
        why: "settings are plain data",
    },
    Part {
        at: "src/client",
        may_use: &["crate::client", "crate::https::Trust", "crate::datadir", "crate::exit", "crate::secret"],
        never: &["quinn", "fjall"],
        why: "commands talk to a node as any other program does",
    },
    Part {
        at: "sim",
        may_use: &["crate", "starling::replica"],
        never: &["tokio", "quinn", "fjall", "hyper", "..SystemTime", "..thread_rng", "rand::rng", "rand::random"],
        why: "the simulator runs the replica and nothing else of the node",
    },
    Part {
        at: "testnet",
        may_use: &["crate"],
        never: &["quinn", "fjall"],
        why: "the testnet knows the program from outside, as users do",
    },
];

/// Where HTTP is spoken.
const HTTP_PLACES: &[&str] = &["src/api", "src/binding", "src/client", "src/front", "src/worker", "src/console"];

/// Libraries that have their place.
const PLACES: &[(&str, &[&str])] = &[
    ("fjall", &["src/store"]),
    ("quinn", &["src/net"]),
    ("rustls", &["src/net", "src/https", "src/client"]),
    ("rcgen", &["src/net"]),
    ("x509_parser", &["src/net"]),
    ("crdts", &["src/replica"]),
    ("clap", &["src/cli", "src/cli.rs", "src/main.rs"]),
    ("toml", &["src/config"]),
    ("hyper", HTTP_PLACES),
    ("hyper_util", HTTP_PLACES),
    ("std::time::SystemTime", &["src/node/clock.rs", "src/cli.rs"]),
    ("getrandom", &["src/node", "src/net", "src/keyring"]),
];

/// Names under which everything gathers that nobody has thought about.
const NO_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "misc", "shared", "types"];

/// Longest file, in lines.
const LINES_MAX: usize = 600;

#[test]
fn the_code_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "sim", "testnet", "tests", "benches", "examples"] {
        walk(&root.join(folder), &mut files);
    }
    let mut broken = Vec::new();
    let mut checked = 0;
    for file in files {
        let name = file.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        broken.extend(violations(&name, &fs::read_to_string(&file).expect("readable")));
        checked += 1;
    }
    assert!(checked > 100, "only {checked} files were found");
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    for part in PARTS.iter().filter(|part| !["src/worker", "src/console", "sim"].contains(&part.at)) {
        assert!(root.join(part.at).exists(), "there is a rule for {}, which does not exist", part.at);
    }
}

fn walk(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() && !path.ends_with("target") => walk(&path, found),
            path if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            _ => {}
        }
    }
}

/// What is wrong with a file, each in a line.
fn violations(file: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for name in Path::new(file).with_extension("").components().filter_map(|part| part.as_os_str().to_str()) {
        if NO_NAMES.contains(&name) {
            found.push(format!("{file}: `{name}` says nothing; name it after what it does"));
        }
    }
    if text.lines().count() > LINES_MAX {
        found.push(format!("{file}: over {LINES_MAX} lines: which concept of it wants a file of its own?"));
    }
    if !text.starts_with("//!") {
        found.push(format!("{file}: begins without saying what it owns (`//!`)"));
    }
    let is_test = file.starts_with("tests/") || file.contains("/tests/") || file.ends_with("/tests.rs");
    let mentions = mentions(file, text);
    for (line, path) in &mentions {
        if ["todo", "unimplemented", "dbg"].contains(&&**path) {
            found.push(format!("{file}:{line}: `{path}!` is no code"));
        }
    }
    if is_test || file.starts_with("benches/") {
        return found;
    }
    for (line, path) in &mentions {
        let is_ours = matches!(path.split("::").next(), Some("crate" | "starling")) && path.contains("::");
        let breaks = |part: &Part| {
            part.never.iter().any(|pattern| covers(pattern, path))
                || (is_ours && !part.may_use.iter().any(|pattern| covers(pattern, path)))
        };
        let is_misplaced = |library: &str, places: &[&str]| {
            file.starts_with("src/") && covers(library, path) && !places.iter().any(|place| is_below(file, place))
        };
        if let Some(part) = PARTS.iter().find(|part| is_below(file, part.at) && breaks(part)) {
            found.push(format!("{file}:{line}: `{path}` does not belong here: {}", part.why));
        } else if let Some((_, places)) = PLACES.iter().find(|(library, places)| is_misplaced(library, places)) {
            found.push(format!("{file}:{line}: `{path}` belongs to {}", places.join(", ")));
        }
    }
    found
}

/// Whether a file is a part or in it: of `src/cli` also `src/cli.rs`.
fn is_below(file: &str, at: &str) -> bool {
    file == at || file.strip_prefix(at).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

/// Whether `path` is what the pattern names, or below it.
fn covers(pattern: &str, path: &str) -> bool {
    match pattern.strip_prefix("..") {
        Some(name) => path.split("::").any(|segment| segment == name),
        None => path == pattern || path.strip_prefix(pattern).is_some_and(|rest| rest.starts_with("::")),
    }
}

#[test]
fn what_breaks_a_rule_is_found_and_what_does_not_is_left_alone() {
    let check = |file: &str, code: &str| violations(file, &format!("//! Says what it owns.\n{code}\n"));
    for (file, code) in [
        ("src/replica/sync.rs", "use tokio::time::sleep;"),
        ("src/replica/sync.rs", "use std::{collections::{BTreeMap, HashMap}, fmt};"),
        ("src/replica/sync.rs", "fn f() { let t = std::time::Instant::now(); }"),
        ("src/replica/sync.rs", "use std::time::SystemTime as Innocent;"),
        ("src/replica/sync.rs", "fn f() -> u64 { rand::random() }"),
        ("src/replica/sync.rs", "fn f() { let rng = rand::rng(); }"),
        ("src/replica/sync.rs", "use std::fs::File;"),
        ("src/replica/sync.rs", "fn f() { std::env::var(\"X\"); }"),
        ("src/replica/sync.rs", "use std::net::SocketAddr;"),
        ("src/replica/sync.rs", "use serde_json::Value;"),
        ("src/replica/sync.rs", "use fjall::Database;"),
        ("src/replica/sync.rs", "use quinn as q;"),
        ("src/replica/deep/er.rs", "use super::super::super::store::FjallStore;"),
        ("src/replica/mod.rs", "use crate::net::Net;"),
        ("src/net/mesh.rs", "use crate::replica::{Message, NodeId};"),
        ("src/net/mesh.rs", "fn f(m: crate::replica::Message) {}"),
        ("src/net/mesh.rs", "use super::super::replica::Record;"),
        ("src/node/driver.rs", "use hyper::Request;"),
        ("src/node/driver.rs", "use crate::api::serve;"),
        ("src/kv/values.rs", "use crate::api::Reply;"),
        ("src/kv/values.rs", "use crate::net::Net;"),
        ("src/api/values.rs", "use crate::store::Reader;"),
        ("src/api/values.rs", "use crate::node::Handle;"),
        ("src/api/values.rs", "use crate::{kv::Kv, net::Net};"),
        ("src/api/values.rs", "use crate::replica::Message;"),
        ("src/worker/fetch.rs", "use crate::node::Handle;"),
        ("src/store/tables.rs", "use crate::node::Handle;"),
        ("src/kv/values.rs", "fn f() { std::time::SystemTime::now(); }"),
        ("src/kv/values.rs", "use fjall::Keyspace;"),
        ("sim/src/world.rs", "use starling::store::FjallStore;"),
        ("sim/src/world.rs", "use starling::{node::Node, replica::Replica};"),
        ("sim/src/main.rs", "fn f() { rand::random::<u64>(); }"),
        ("src/util.rs", ""),
        ("src/net/common/mod.rs", ""),
        ("src/api/helpers.rs", ""),
        ("sim/src/manager.rs", ""),
        ("src/kv/list.rs", "fn f() { todo!(\"later\") }"),
        ("tests/it/serve.rs", "fn f() { dbg!(1); }"),
        ("src/net/mesh.rs", &"// one\n".repeat(LINES_MAX + 1)),
    ] {
        assert_eq!(check(file, code).len(), 1, "{file}: {code}: {:?}", check(file, code));
    }
    assert_eq!(violations("src/kv/list.rs", "use std::fmt;\n").len(), 1, "no word of purpose");
    for (file, code) in [
        ("src/replica/sync.rs", "use super::{Now, Replica};\nuse crate::replica::limits::*;"),
        ("src/replica/sync.rs", "use std::collections::{BTreeMap, VecDeque};"),
        (
            "src/replica/sync.rs",
            "// use tokio::time;\nconst S: &str = \"std::fs::File\"; const R: &str = r#\"a \" HashMap\"#;",
        ),
        ("src/replica/sync.rs", "const C: char = '\"'; struct S<'a>(&'a str); /* */ const D: char = '\\'';"),
        ("src/replica/tests/world.rs", "use std::thread;"),
        ("src/replica/sync.rs", "#[cfg(test)]\nmod tests {\n    use std::time::Instant;\n}"),
        ("src/net/mesh.rs", "use crate::replica::NodeId;\nuse crate::replica::limits::MESSAGE_LEN_MAX;"),
        ("src/api/values.rs", "use crate::replica::{NamespaceId, limits::{KEY_LEN_MAX, VALUE_LEN_MAX}};"),
        ("src/api/values.rs", "use hyper::{Request, body::{self, Incoming}};\nuse super::{error::RequestError, key};"),
        ("src/node/clock.rs", "fn f() { std::time::SystemTime::now(); }"),
        ("sim/src/world.rs", "use starling::replica::{self, Replica};\nuse crate::checker;"),
    ] {
        assert_eq!(check(file, code), Vec::<String>::new(), "{file}: {code}");
    }
}

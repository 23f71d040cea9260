//! Which script a request is for, by its host and path.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::pattern::{Pattern, Patterns};
use crate::kv::AccountId;
use crate::worker::{Live, Program, ScriptId};

/// Below it every script has a host of its own. Browsers resolve it to this machine.
pub(crate) const SUFFIX: &str = ".workers.localhost";

/// All that is deployed, and where.
#[derive(Default)]
pub(super) struct Routes {
    /// By host without [`SUFFIX`]: `script`, or `script.account`.
    names: BTreeMap<String, Arc<Deployed>>,
    patterns: Patterns<Arc<Deployed>>,
    all: Vec<Arc<Deployed>>,
}

/// A script that is deployed.
pub(super) struct Deployed {
    pub(super) id: ScriptId,
    pub(super) live: Live,
    /// Its own host without [`SUFFIX`], if it has one.
    pub(super) name: Option<String>,
}

impl PartialEq for Deployed {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Deployed {}

impl PartialOrd for Deployed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Deployed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.id.cmp(&other.id)
    }
}

impl Routes {
    /// Scripts of the `home` account have short names.
    pub(super) fn new(live: BTreeMap<ScriptId, Live>, home: AccountId) -> Self {
        let mut routes = Self::default();
        let mut patterns = Vec::new();
        for (id, live) in live {
            let long = format!("{}.{}", id.script, live.subdomain).to_ascii_lowercase();
            let short = (id.account == home).then(|| id.script.to_ascii_lowercase());
            let name = live.workers_dev.then(|| short.clone().unwrap_or_else(|| long.clone()));
            let deployed = Arc::new(Deployed { id, live, name });
            if deployed.live.workers_dev {
                for name in short.into_iter().chain([long]) {
                    routes.names.insert(name, Arc::clone(&deployed));
                }
            }
            let read = deployed.live.routes.iter().filter_map(|text| Pattern::read(text));
            patterns.extend(read.map(|pattern| (pattern, Arc::clone(&deployed))));
            routes.all.push(deployed);
        }
        routes.patterns = Patterns::new(patterns);
        routes
    }

    /// The script that a request is for. `host` is in lower case, and may have a port.
    pub(super) fn find(&self, is_https: bool, host: &str, path: &str) -> Option<&Arc<Deployed>> {
        let name = name_of(host);
        let named = name.strip_suffix(SUFFIX).and_then(|name| self.names.get(name));
        named.or_else(|| self.patterns.find(is_https, host, path))
    }

    /// All that is deployed, in order.
    pub(super) fn all(&self) -> &[Arc<Deployed>] {
        &self.all
    }

    /// Every program that requests may go to.
    pub(super) fn programs(&self) -> Vec<Arc<Program>> {
        let versions = self.all.iter().flat_map(|deployed| &deployed.live.versions);
        // One that is nothing but files needs no engine.
        versions.map(|(program, _)| program).filter(|program| !program.modules.is_empty()).cloned().collect()
    }
}

impl Deployed {
    /// The version for a request that was drawn: `at` is from 0 to 1.
    pub(super) fn version(&self, at: f64) -> Option<&Arc<Program>> {
        let mut left = at * 100.0;
        for (program, share) in &self.live.versions {
            left -= share;
            if left < 0.0 {
                return Some(program);
            }
        }
        self.live.versions.last().map(|(program, _)| program)
    }
}

/// A host as hosts are compared: in lower case, without the dot of the root.
pub(super) fn normal(host: &str) -> String {
    let mut host = host.to_ascii_lowercase();
    let name = name_of(&host);
    if name.ends_with('.') {
        host.remove(name.len() - 1);
    }
    host
}

/// Without its port.
pub(super) fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Syntax;

    const HOME: AccountId = AccountId([1; 16]);

    fn program(version: &str) -> Arc<Program> {
        Arc::new(Program {
            account: HOME,
            script: "s".into(),
            life: [0; 16],
            version: version.into(),
            syntax: Syntax::Modules,
            modules: Vec::new(),
            bindings: Vec::new(),
            compatibility_date: String::new(),
            compatibility_flags: Vec::new(),
            assets: None,
            cpu_ms: None,
        })
    }

    fn live(subdomain: &str, workers_dev: bool, routes: &[&str]) -> Live {
        Live {
            versions: vec![(program("a"), 10.0), (program("b"), 90.0)],
            workers_dev,
            crons: Vec::new(),
            routes: routes.iter().map(|route| (*route).to_owned()).collect(),
            subdomain: subdomain.into(),
        }
    }

    fn id(account: AccountId, script: &str) -> ScriptId {
        ScriptId { account, script: script.into() }
    }

    #[test]
    fn scripts_are_found_by_name_and_by_route() {
        let other = AccountId([2; 16]);
        let routes = Routes::new(
            [
                (id(HOME, "shop"), live("home", true, &["*.example.com/*"])),
                (id(HOME, "hidden"), live("home", false, &["*.example.com/h/*"])),
                (id(other, "shop"), live("them", true, &[])),
            ]
            .into(),
            HOME,
        );
        for (host, path, found) in [
            ("shop.workers.localhost:7701", "/", Some((HOME, "shop"))),
            ("shop.home.workers.localhost", "/", Some((HOME, "shop"))),
            ("shop.them.workers.localhost", "/", Some((other, "shop"))),
            ("hidden.workers.localhost", "/", None),
            ("a.example.com", "/h/", Some((HOME, "hidden"))),
            ("a.example.com", "/", Some((HOME, "shop"))),
            ("workers.localhost", "/", None),
            ("localhost", "/", None),
        ] {
            let script = routes.find(false, host, path).map(|deployed| (deployed.id.account, &*deployed.id.script));
            assert_eq!(script, found, "{host}{path}");
        }
    }

    #[test]
    fn versions_get_their_shares() {
        let deployed = Deployed { id: id(HOME, "s"), live: live("home", true, &[]), name: None };
        let of = |at: f64| deployed.version(at).map(|program| program.version.clone());
        assert_eq!(of(0.0).as_deref(), Some("a"));
        assert_eq!(of(0.0999).as_deref(), Some("a"));
        assert_eq!(of(0.1).as_deref(), Some("b"));
        assert_eq!(of(1.0).as_deref(), Some("b"));
    }

    #[test]
    fn hosts_have_one_form() {
        assert_eq!(normal("Shop.Workers.LOCALHOST.:7701"), "shop.workers.localhost:7701");
        assert_eq!(normal("a."), "a");
        assert_eq!(normal("[::1]:80"), "[::1]:80");
        assert_eq!(name_of("[::1]:80"), "[::1]");
        assert_eq!(name_of("a"), "a");
    }
}

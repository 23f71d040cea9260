//! Where settings come from: defaults, then a TOML file, then `STARLING_*` variables, then flags, each over the one
//! before. A name that is not known is an error, with the nearest one that is.
//!
//! Knows nothing of what a setting means.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Config;
use super::setting::{SETTINGS, Setting};
use crate::secret::Secret;

/// Largest configuration file read, in bytes.
pub const CONFIG_FILE_LEN_MAX: u64 = 1 << 20;

const VARIABLE_PREFIX: &str = "STARLING_";
const TOKEN: &str = "STARLING_TOKEN";
const CONFIG: &str = "STARLING_CONFIG";
const API_URL: &str = "STARLING_API_URL";
const CLUSTER_KEY: &str = "STARLING_CLUSTER_KEY";
const CA: &str = "STARLING_CA";

/// What the `STARLING_*` variables say. An empty variable is as good as none.
#[derive(Clone, Default, Debug)]
pub struct Environment {
    settings: Vec<(&'static str, Secret)>,
    /// `STARLING_CONFIG`: the configuration file.
    pub config: Option<PathBuf>,
    /// `STARLING_API_URL`: the node that commands talk to.
    pub api_url: Option<String>,
    /// `STARLING_TOKEN`: the API token that commands use.
    pub token: Option<Secret>,
    /// `STARLING_CA`: the authorities that commands trust over HTTPS, PEM.
    pub ca: Option<PathBuf>,
    /// `STARLING_CLUSTER_KEY`: what a node's keyring is sealed with.
    pub cluster_key: Option<Secret>,
}

impl Environment {
    /// Picks the `STARLING_*` variables out of all ([`std::env::vars_os`]).
    pub fn from_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, ConfigError> {
        let mut environment = Self::default();
        for (name, value) in vars {
            let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX)) else { continue };
            if value.is_empty() {
                continue;
            }
            let value = value.into_string().map_err(|_| ConfigError::NotUnicode { name: name.to_owned() })?;
            match name {
                TOKEN => environment.token = Some(Secret::new(&value)),
                CLUSTER_KEY => environment.cluster_key = Some(Secret::new(&value)),
                CONFIG => environment.config = Some(PathBuf::from(value)),
                API_URL => environment.api_url = Some(value),
                CA => environment.ca = Some(PathBuf::from(value)),
                _ => match SETTINGS.iter().find(|setting| setting.variable() == name) {
                    Some(setting) => environment.settings.push((setting.key, Secret::new(&value))),
                    None if is_service_link(name) => {}
                    None => return Err(unknown_variable(name)),
                },
            }
        }
        Ok(environment)
    }
}

/// Kubernetes puts such variables into every pod next to a service called `starling` or `starling-…`.
fn is_service_link(name: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|end| name.ends_with(end))
        || name.contains("_SERVICE_PORT_")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| rest.contains("_TCP") || rest.contains("_UDP"))
}

fn unknown_variable(name: &str) -> ConfigError {
    let mut known: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
    known.extend([TOKEN, CONFIG, API_URL, CLUSTER_KEY, CA].map(str::to_owned));
    ConfigError::UnknownVariable { name: name.to_owned(), hint: hint(name, &known) }
}

/// Where a value was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Given {
    /// In the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// In that environment variable.
    Variable(String),
    /// By that flag, without dashes.
    Flag(String),
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => write!(f, "--{flag}"),
        }
    }
}

/// Why there is no configuration. Every variant is for the operator to mend; nothing was done yet.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration file {path}: {cause}; check --config and STARLING_CONFIG")]
    Unreadable {
        /// As it was named.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The file is not TOML.
    #[error("{given} is not valid TOML: {reason}")]
    Syntax {
        /// File and line.
        given: Given,
        /// What the parser said.
        reason: String,
    },
    /// The file has a key that no setting has.
    #[error("{given}: there is no setting `{key}`; {hint}")]
    UnknownKey {
        /// File and line.
        given: Given,
        /// The key.
        key: String,
        /// What it may have been meant to be.
        hint: String,
    },
    /// The environment has a `STARLING_` variable that means nothing.
    #[error("the environment variable {name} means nothing to starling; unset it, or correct it: {hint}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// What it may have been meant to be.
        hint: String,
    },
    /// A variable is not valid UTF-8.
    #[error("the environment variable {name} is not valid UTF-8")]
    NotUnicode {
        /// The variable.
        name: String,
    },
    /// A value can't be used.
    #[error("{given}: `{key}` can't be set: {reason}")]
    Invalid {
        /// Where it was given.
        given: Given,
        /// The setting.
        key: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// `dev` with an API address that others can reach.
    #[error(
        "--dev lets anyone who reaches the API read and write everything, so it works on loopback only, but the API \
         address is {api}; use --api 127.0.0.1:7700, or drop --dev"
    )]
    DevBeyondLoopback {
        /// The address asked for.
        api: SocketAddr,
    },
    /// Plain HTTP where others can listen in.
    #[error(
        "the API address {api} can be reached from other machines, and there is no TLS: API tokens and values would go \
         over the network in the clear; give --tls-cert and --tls-key, or --tls-auto, or say --insecure-http"
    )]
    HttpBeyondLoopback {
        /// The address asked for.
        api: SocketAddr,
    },
    /// What visitors and scripts say would be readable on the way.
    #[error(
        "the address {workers} for Workers can be reached from other machines, and there is no TLS; give --tls-cert and \
         --tls-key, or --tls-auto, or say --insecure-http if a TLS proxy stands in front"
    )]
    WorkersBeyondLoopback {
        /// The address asked for.
        workers: SocketAddr,
    },
    /// Half of what TLS needs, or two kinds of it.
    #[error("for HTTPS give both tls_cert and tls_key, or tls_auto alone")]
    TlsIncomplete,
    /// All interfaces are no address to dial.
    #[error(
        "gossip listens on all interfaces ({gossip}), which is no address peers could dial; add --advertise with the \
         address they reach this node at, such as 203.0.113.7:7702"
    )]
    AdvertiseMissing {
        /// The address asked for.
        gossip: SocketAddr,
    },
}

impl Config {
    /// Defaults < file (`file`, else `STARLING_CONFIG`, else none) < environment < flags (key and text each), checked.
    pub fn load(
        file: Option<&Path>,
        environment: &Environment,
        flags: &[(&'static str, String)],
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(path) = file.or(environment.config.as_deref()) {
            let text = read(path).map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
            config.apply_file(path, &text)?;
        }
        config.cluster_key.clone_from(&environment.cluster_key);
        for (key, text) in &environment.settings {
            config.apply(key, text.expose(), |setting| Given::Variable(setting.variable()))?;
        }
        for (key, text) in flags {
            config.apply(key, text, |setting| Given::Flag(setting.flag()))?;
        }
        config.check()?;
        Ok(config)
    }

    fn apply(&mut self, key: &str, text: &str, given: impl Fn(&Setting) -> Given) -> Result<(), ConfigError> {
        let setting = Setting::find(key).expect("flags and variables are named after settings");
        (setting.apply)(self, text).map_err(|reason| ConfigError::Invalid {
            given: given(setting),
            key: setting.key,
            reason,
        })
    }

    fn apply_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let given = |at: usize| Given::File { path: path.to_owned(), line: line_of(text, at) };
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            given: given(error.span().map_or(0, |span| span.start)),
            reason: error.message().to_owned(),
        })?;
        for (key, value) in table.get_ref() {
            let given = given(key.span().start);
            let Some(setting) = Setting::find(key.get_ref()) else {
                let known: Vec<String> = SETTINGS.iter().map(|setting| setting.key.to_owned()).collect();
                let key = key.get_ref().to_string();
                return Err(ConfigError::UnknownKey { given, hint: hint(&key, &known), key });
            };
            let applied = match value.get_ref() {
                DeValue::String(text) => (setting.apply)(self, text),
                DeValue::Integer(number) => (setting.apply)(self, number.as_str()),
                DeValue::Boolean(value) => (setting.apply)(self, if *value { "true" } else { "false" }),
                _ => Err("it must be a text in quotes, a whole number, true or false".to_owned()),
            };
            applied.map_err(|reason| ConfigError::Invalid { given, key: setting.key, reason })?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<String> {
    if std::fs::metadata(path)?.len() > CONFIG_FILE_LEN_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is over 1 MiB, surely another file was meant"));
    }
    std::fs::read_to_string(path)
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}

/// How alike (0 to 1) a name must be to be suggested.
const LIKENESS_MIN: f64 = 0.7;

fn hint(name: &str, known: &[String]) -> String {
    let likeness = |known: &String| strsim::jaro_winkler(name, known);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|nearest| likeness(nearest) >= LIKENESS_MIN) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests;

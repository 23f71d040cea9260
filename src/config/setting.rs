//! The list of settings: for each its key and how a text becomes its value. File, environment and flags all end here,
//! so that they accept the same texts and complain in the same words.
//!
//! Knows nothing of where a text came from. To add a setting: a field of [`Config`], a row here, a flag of
//! `starling serve` and a line in `starling.example.toml`; tests notice what was forgotten.

use std::path::PathBuf;

use super::{Bindings, Config, Durability, HostPort, LogFormat, WorkerEngine, WorkersAt, is_node_name};
use crate::secret::Secret;

/// One thing that can be set.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Its key in the file. The variable is `STARLING_` and the key in capitals; the flag has `-` for `_`.
    pub key: &'static str,
    /// Sets it from a text, or says in half a sentence what the text should have been.
    pub apply: fn(&mut Config, &str) -> Result<(), String>,
}

/// Every setting, in the order of the example file.
pub const SETTINGS: &[Setting] = &[
    Setting { key: "data", apply: |config, text| data(text).map(|value| config.data = value) },
    Setting { key: "api", apply: |config, text| address(text, 7700).map(|value| config.api = value) },
    Setting { key: "bindings", apply: |config, text| optional(text, bindings).map(|value| config.bindings = value) },
    Setting { key: "workers", apply: |config, text| workers(text).map(|value| config.workers = value) },
    Setting {
        key: "worker_engine",
        apply: |config, text| worker_engine(text).map(|value| config.worker_engine = value),
    },
    Setting { key: "workerd", apply: |config, text| optional(text, path).map(|value| config.workerd = value) },
    Setting {
        key: "workers_fetch_local",
        apply: |config, text| boolean(text).map(|value| config.workers_fetch_local = value),
    },
    Setting { key: "gossip", apply: |config, text| address(text, 7702).map(|value| config.gossip = value) },
    Setting { key: "advertise", apply: |config, text| optional(text, advertise).map(|value| config.advertise = value) },
    Setting { key: "pop", apply: |config, text| optional(text, pop).map(|value| config.pop = value) },
    Setting { key: "name", apply: |config, text| optional(text, name).map(|value| config.name = value) },
    Setting {
        key: "join",
        apply: |config, text| optional(text, |text| Ok(Secret::new(text))).map(|value| config.join = value),
    },
    Setting {
        key: "cluster_key_file",
        apply: |config, text| optional(text, path).map(|value| config.cluster_key_file = value),
    },
    Setting {
        key: "cluster_key_command",
        apply: |config, text| optional(text, |text| Ok(text.into())).map(|value| config.cluster_key_command = value),
    },
    Setting { key: "durability", apply: |config, text| durability(text).map(|value| config.durability = value) },
    Setting { key: "tls_cert", apply: |config, text| optional(text, path).map(|value| config.tls_cert = value) },
    Setting { key: "tls_key", apply: |config, text| optional(text, path).map(|value| config.tls_key = value) },
    Setting { key: "tls_auto", apply: |config, text| tls_auto(text).map(|value| config.tls_auto = value) },
    Setting { key: "insecure_http", apply: |config, text| boolean(text).map(|value| config.insecure_http = value) },
    Setting {
        key: "metrics",
        apply: |config, text| optional(text, |text| address(text, 7703)).map(|value| config.metrics = value),
    },
    Setting { key: "token_rate", apply: |config, text| limit(text).map(|value| config.token_rate = value) },
    Setting { key: "account_rate", apply: |config, text| limit(text).map(|value| config.account_rate = value) },
    Setting { key: "account_keys", apply: |config, text| limit(text).map(|value| config.account_keys = value) },
    Setting { key: "account_bytes", apply: |config, text| limit(text).map(|value| config.account_bytes = value) },
    Setting { key: "dev", apply: |config, text| boolean(text).map(|value| config.dev = value) },
    Setting { key: "log", apply: |config, text| log(text).map(|value| config.log = value) },
    Setting { key: "log_format", apply: |config, text| log_format(text).map(|value| config.log_format = value) },
    Setting {
        key: "clock_offset_ms",
        apply: |config, text| offset_ms(text).map(|value| config.clock_offset_ms = value),
    },
];

impl Setting {
    /// The setting with that key.
    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("STARLING_{}", self.key.to_ascii_uppercase())
    }

    /// Its flag of `starling serve`, without the two dashes.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }
}

/// An empty text unsets what has no default.
fn optional<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text.trim().is_empty() { Ok(None) } else { parse(text).map(Some) }
}

fn path(text: &str) -> Result<PathBuf, String> {
    Ok(text.into())
}

/// `true`, `false`, or names for the certificate, with commas between them.
fn tls_auto(text: &str) -> Result<Option<Vec<String>>, String> {
    match text.trim() {
        "" | "false" | "0" => Ok(None),
        "true" | "1" => Ok(Some(Vec::new())),
        names => {
            let names: Vec<String> = names.split(',').map(|name| name.trim().to_owned()).collect();
            let is_name = |name: &String| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:*".contains(&b))
            };
            match names.iter().all(is_name) {
                true => Ok(Some(names)),
                false => Err(format!(
                    "\"{text}\" is neither true, nor false, nor DNS names and IP addresses with commas between them"
                )),
            }
        }
    }
}

fn data(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("it is empty; name a directory".to_owned()) } else { Ok(PathBuf::from(text)) }
}

fn address(text: &str, port: u16) -> Result<std::net::SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("\"{text}\" is not an IP address with a port; write it as 127.0.0.1:{port} or [::1]:{port}")
    })
}

fn bindings(text: &str) -> Result<Bindings, String> {
    text.parse().map_err(|error| format!("\"{text}\" is {error}"))
}

fn workers(text: &str) -> Result<WorkersAt, String> {
    match text.trim() {
        "" => Ok(WorkersAt::BesideApi),
        "off" => Ok(WorkersAt::Nowhere),
        text => address(text, 7701).map(WorkersAt::Address).map_err(|error| format!("{error}, or say off")),
    }
}

fn worker_engine(text: &str) -> Result<WorkerEngine, String> {
    match text {
        "embedded" => Ok(WorkerEngine::Embedded),
        "workerd" => Ok(WorkerEngine::Workerd),
        "none" => Ok(WorkerEngine::None),
        _ => Err(format!("\"{text}\" is none of embedded, workerd, none")),
    }
}

fn advertise(text: &str) -> Result<HostPort, String> {
    text.parse().map_err(|error| format!("\"{text}\" is {error}"))
}

fn pop(text: &str) -> Result<String, String> {
    if text.len() == 3 && text.bytes().all(|b| b.is_ascii_alphabetic()) {
        Ok(text.to_ascii_uppercase())
    } else {
        Err(format!("\"{text}\" is not an airport code; use the three letters of the nearest one, such as FRA"))
    }
}

fn name(text: &str) -> Result<String, String> {
    if is_node_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" is not a node name; use 1 to 63 of a-z, 0-9 and -"))
    }
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "fsync" => Ok(Durability::Fsync),
        "interval" => Ok(Durability::Interval),
        "os" => Ok(Durability::Os),
        _ => Err(format!("\"{text}\" is none of fsync, interval, os")),
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("\"{text}\" is neither true nor false")),
    }
}

fn limit(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("\"{text}\" is not a whole number; 0 is no limit"))
}

fn offset_ms(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("\"{text}\" is not a whole number of milliseconds"))
}

fn log(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) if !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err(format!(
            "\"{text}\" is not a log filter; use error, warn, info, debug, trace or off, or a list such as info,starling::net=debug"
        )),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("\"{text}\" is neither text nor json")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, text: &str) -> Result<Config, String> {
        let mut config = Config::default();
        (Setting::find(key).unwrap().apply)(&mut config, text).map(|()| config)
    }

    #[test]
    fn good_values() {
        assert_eq!(set("pop", "fra").unwrap().pop.as_deref(), Some("FRA"));
        assert_eq!(set("pop", "").unwrap().pop, None);
        assert_eq!(set("api", "[::1]:80").unwrap().api.port(), 80);
        assert_eq!(set("durability", "os").unwrap().durability, Durability::Os);
        assert!(set("dev", "1").unwrap().dev);
        assert_eq!(set("log", "warn,starling=trace").unwrap().log, "warn,starling=trace");
        assert_eq!(set("log_format", "json").unwrap().log_format, LogFormat::Json);
    }

    #[test]
    fn bad_values_say_what_would_be_good() {
        for (key, text, hint) in [
            ("data", "", "directory"),
            ("api", "7700", "127.0.0.1:7700"),
            ("gossip", "localhost:7702", "127.0.0.1:7702"),
            ("workers", "7701", "127.0.0.1:7701"),
            ("worker_engine", "v8", "embedded, workerd"),
            ("advertise", "0.0.0.0:7702", "dialled"),
            ("pop", "FRAX", "three letters"),
            ("name", "Fra 1", "a-z"),
            ("durability", "maybe", "fsync, interval, os"),
            ("token_rate", "-1", "0 is no limit"),
            ("account_bytes", "10 GB", "whole number"),
            ("dev", "yes", "true"),
            ("log", "starling=loud", "debug"),
            ("log", "", "debug"),
            ("log_format", "xml", "json"),
            ("clock_offset_ms", "fast", "milliseconds"),
        ] {
            let error = set(key, text).unwrap_err();
            assert!(error.contains(hint), "{key}: {error}");
        }
    }

    #[test]
    fn spellings() {
        let setting = Setting::find("log_format").unwrap();
        assert_eq!((setting.variable().as_str(), setting.flag().as_str()), ("STARLING_LOG_FORMAT", "log-format"));
    }
}

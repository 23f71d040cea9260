//! `starling serve`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::CliError;
use crate::config::{Config, Environment};
use crate::datadir::DataDir;
use crate::{logging, serve};

const ABOUT: &str = "Run a node. It prints what to type next.

A new data directory starts a cluster of its own, or joins one with --join. The node's name, keys and data are in the \
data directory; stop it with Ctrl-C and start it again with the same directory. That of a node that was evicted comes \
back with --join too: as another node, with the writes that it alone had.

Every flag can also be a variable (--log-format is STARLING_LOG_FORMAT) or a line of a file (log_format = \"json\", \
see starling.example.toml). Flags win over variables, variables over the file.";

const EXAMPLES: &str = "Examples:
  starling serve
  starling serve --pop FRA --gossip 0.0.0.0:7702 --advertise 203.0.113.7:7702
  starling serve --dev
  starling serve --config /etc/starling.toml

A second node on the same machine:
  TOKEN=$(starling invite)
  starling serve --data ./starling-data-2 --api 127.0.0.1:7710 --gossip 127.0.0.1:7712 --join $TOKEN";

/// Run a node
// The values stay texts: the configuration reads them, in the same way whatever source they come from.
#[derive(Args)]
#[command(long_about = ABOUT, after_long_help = EXAMPLES)]
pub(super) struct ServeArgs {
    /// Configuration file [env: STARLING_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory, created if absent [default: ./starling-data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Where the HTTP API listens [default: 127.0.0.1:7700]
    #[arg(long, value_name = "ADDR:PORT")]
    api: Option<String>,
    /// Where Workers' KV bindings are served: a unix socket, or a loopback address [default: nowhere]
    #[arg(long, value_name = "unix:PATH|ADDR:PORT")]
    bindings: Option<String>,
    /// Where requests for Workers arrive, or off [default: 127.0.0.1, one port above the API's: 7701]
    #[arg(long, value_name = "ADDR:PORT|off")]
    workers: Option<String>,
    /// What runs Workers: the engine within the node, Cloudflare's runtime, or nothing [default: embedded]
    #[arg(long, value_name = "embedded|workerd|none")]
    worker_engine: Option<String>,
    /// workerd itself, for --worker-engine workerd [default: as `starling workers install` puts it, on the PATH, or in node_modules]
    #[arg(long, value_name = "FILE")]
    workerd: Option<String>,
    /// Workers may fetch from this machine and from private networks; for development
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    workers_fetch_local: Option<String>,
    /// Where this node listens for its peers, QUIC over UDP [default: 127.0.0.1:7702]
    #[arg(long, value_name = "ADDR:PORT")]
    gossip: Option<String>,
    /// What peers dial, if that is not the gossip address
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Point of presence: IATA code of the nearest airport, such as FRA
    #[arg(long, value_name = "CODE")]
    pop: Option<String>,
    /// Node name: 1 to 63 of a-z, 0-9 and - [default: from the PoP or the host name]
    #[arg(long)]
    name: Option<String>,
    /// Join the cluster that this token of `starling invite` is from (STARLING_JOIN keeps it out of `ps`)
    #[arg(long, value_name = "TOKEN")]
    join: Option<String>,
    /// File with the cluster key, outside the data directory; made if absent [default: DATA.key]
    #[arg(long, value_name = "FILE")]
    cluster_key_file: Option<String>,
    /// Command that prints the cluster key, for a KMS or age
    #[arg(long, value_name = "COMMAND")]
    cluster_key_command: Option<String>,
    /// When a write is acknowledged: on disk (fsync), or earlier (interval, os) [default: fsync]
    #[arg(long, value_name = "fsync|interval|os")]
    durability: Option<String>,
    /// HTTPS: file with the certificate chain, PEM
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// HTTPS: file with the private key, PEM
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// HTTPS with a certificate of the cluster's own authority, for these names too
    #[arg(long, value_name = "true|NAMES", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_auto: Option<String>,
    /// Serve plain HTTP beyond loopback: a TLS proxy stands in front
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    insecure_http: Option<String>,
    /// Serve /metrics, /healthz and /readyz here too, without a token
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<String>,
    /// Requests a second with one API token; 0 for no limit [default: 0]
    #[arg(long, value_name = "NUMBER")]
    token_rate: Option<String>,
    /// Requests a second for one account; 0 for no limit [default: 0]
    #[arg(long, value_name = "NUMBER")]
    account_rate: Option<String>,
    /// Keys that an account may hold; 0 for no limit [default: 0]
    #[arg(long, value_name = "NUMBER")]
    account_keys: Option<String>,
    /// Bytes of values that an account may hold; 0 for no limit [default: 0]
    #[arg(long, value_name = "NUMBER")]
    account_bytes: Option<String>,
    /// The API needs no token; on loopback only
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    dev: Option<String>,
    /// Log filter: a level, or a list such as info,starling::net=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// How log lines look [default: text]
    #[arg(long, value_name = "text|json")]
    log_format: Option<String>,
    /// Milliseconds added to the wall clock, for tests
    #[arg(long, value_name = "MS", hide = true, allow_hyphen_values = true)]
    clock_offset_ms: Option<String>,
}

impl ServeArgs {
    pub(super) fn run(self, environment: &Environment) -> Result<(), CliError> {
        let config = Config::load(self.config.clone().as_deref(), environment, &self.flags())?;
        logging::start(&config)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|cause| CliError::Io { action: "start the runtime", cause })?;
        runtime.block_on(async {
            serve::keep_files_private();
            serve::survive_file_size_limit()?;
            serve::open_as_many_files_as_allowed();
            let data = DataDir::open(&config.data)?;
            Ok(serve::run(config, data).await?)
        })
    }

    /// The flags given, each with the key of its setting.
    fn flags(self) -> Vec<(&'static str, String)> {
        let flags = [
            ("data", self.data),
            ("api", self.api),
            ("bindings", self.bindings),
            ("workers", self.workers),
            ("worker_engine", self.worker_engine),
            ("workerd", self.workerd),
            ("workers_fetch_local", self.workers_fetch_local),
            ("gossip", self.gossip),
            ("advertise", self.advertise),
            ("pop", self.pop),
            ("name", self.name),
            ("join", self.join),
            ("cluster_key_file", self.cluster_key_file),
            ("cluster_key_command", self.cluster_key_command),
            ("durability", self.durability),
            ("tls_cert", self.tls_cert),
            ("tls_key", self.tls_key),
            ("tls_auto", self.tls_auto),
            ("insecure_http", self.insecure_http),
            ("metrics", self.metrics),
            ("token_rate", self.token_rate),
            ("account_rate", self.account_rate),
            ("account_keys", self.account_keys),
            ("account_bytes", self.account_bytes),
            ("dev", self.dev),
            ("log", self.log),
            ("log_format", self.log_format),
            ("clock_offset_ms", self.clock_offset_ms),
        ];
        flags.into_iter().filter_map(|(key, text)| Some((key, text?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::setting::SETTINGS;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn flags(line: &[String]) -> Vec<(&'static str, String)> {
        let line = ["serve".to_owned()].into_iter().chain(line.iter().cloned());
        Line::try_parse_from(line).unwrap().args.flags()
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        let line: Vec<String> =
            SETTINGS.iter().map(|setting| format!("--{}={}", setting.flag(), setting.key)).collect();
        let expected: Vec<_> = SETTINGS.iter().map(|setting| (setting.key, setting.key.to_owned())).collect();
        assert_eq!(flags(&line), expected);
    }

    #[test]
    fn dev_alone_is_true() {
        assert_eq!(flags(&["--dev".to_owned()]), [("dev", "true".to_owned())]);
        assert_eq!(flags(&["--dev=false".to_owned()]), [("dev", "false".to_owned())]);
        assert_eq!(flags(&[]), []);
    }
}

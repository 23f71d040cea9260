//! Which node a command talks to, and as whom.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::CliError;
use crate::client::Client;
use crate::config::{Config, Environment};

/// The flags of every command that talks to a running node.
#[derive(Args)]
pub(super) struct TargetArgs {
    /// Data directory of the node to ask, on this machine [default: ./starling-data]
    #[arg(long, value_name = "DIR", conflicts_with = "api")]
    data: Option<String>,
    /// Over HTTPS, the authorities to trust, PEM [env: STARLING_CA; default: the system's]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The node to ask, anywhere; its token comes from STARLING_TOKEN [env: STARLING_API_URL]
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// Configuration file to learn the data directory from [env: STARLING_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl TargetArgs {
    /// What `--config` names.
    pub(super) fn config_file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// What `--data` names.
    pub(super) fn data(&self) -> Option<&String> {
        self.data.as_ref()
    }

    /// `--api`, else `--data`, else `STARLING_API_URL`, else the configured data directory. An admin token is read
    /// from a data directory only to talk to the node that wrote it there.
    pub(super) fn client(&self, environment: &Environment) -> Result<Client, CliError> {
        let token = environment.token.clone();
        let url = match (&self.api, &self.data) {
            (Some(url), _) => Some(url),
            (None, Some(_)) => None,
            (None, None) => environment.api_url.as_ref(),
        };
        if let Some(url) = url {
            let client = Client::of_url(url, token)?;
            return Ok(match self.ca.as_ref().or(environment.ca.as_ref()) {
                Some(authorities) => client.trusting(authorities),
                None => client,
            });
        }
        let flags: Vec<_> = self.data.clone().map(|data| ("data", data)).into_iter().collect();
        let config = Config::load(self.config.as_deref(), environment, &flags)?;
        Ok(Client::of_data_dir(&config.data, token)?)
    }
}

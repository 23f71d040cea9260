//! Log lines on standard error, as the configuration asks. Nobody else sets up `tracing`.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, LogFormat};

/// Libraries that tell more at `info` than an operator wants. A filter that names one of them overrides this.
const QUIET: &str = "quinn=warn,quinn_proto=warn,quinn_udp=warn,rustls=warn,hyper=warn,hyper_util=warn,h2=warn,\
                     fjall=warn,lsm_tree=warn";

/// Why there is no logging.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one. The configuration checks it, so only a hand-made [`Config`] gets here.
    #[error("the log filter \"{0}\" can't be used; use error, warn, info, debug, trace or off")]
    Filter(String),
    /// Logging was set up before in this process.
    #[error("logging is set up already")]
    Twice,
}

/// Starts logging for the whole process. Call once.
pub fn start(config: &Config) -> Result<(), LoggingError> {
    let filter = filter(&config.log)?;
    let colours = io::stderr().is_terminal() && crate::terminal::colours_wanted();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours)
        // A line that can't be written is lost. To complain of it, where it can't be written either, would be a panic.
        .log_internal_errors(false);
    let started = match config.log_format {
        LogFormat::Text => lines.finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_ansi(false).finish().try_init(),
    };
    started.map_err(|_| LoggingError::Twice)
}

fn filter(wanted: &str) -> Result<EnvFilter, LoggingError> {
    // Later directives for the same target replace earlier ones.
    EnvFilter::builder().parse(format!("{QUIET},{wanted}")).map_err(|_| LoggingError::Filter(wanted.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_named() {
        let text = filter("debug").unwrap().to_string();
        assert!(text.contains("quinn=warn") && text.contains("debug"), "{text}");
        let text = filter("info,quinn=trace").unwrap().to_string();
        assert!(text.contains("quinn=trace") && !text.contains("quinn=warn"), "{text}");
        assert!(filter("starling=loud").is_err());
    }
}

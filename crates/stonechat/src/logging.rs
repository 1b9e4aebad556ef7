//! Logs: `tracing` to standard error, for people or as JSON, with a filter that
//! can be changed while running. It decides nothing about what is logged.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::LogFormat;

/// Changes the filter of a running process.
#[derive(Clone)]
pub(crate) struct LogControl {
    handle: reload::Handle<EnvFilter, Registry>,
    /// The filter in force, as it was given.
    text: Arc<Mutex<String>>,
}

/// In force unless the filter itself names these targets. actix-http logs at ERROR whatever
/// rubbish a stranger sends to the public port, which is nothing an operator could act on. ureq
/// logs what it writes to the trace collector, headers with secrets included, at TRACE.
const QUIET: &str = "actix_http=off,actix_server=warn,ureq=info,ureq_proto=info";

/// Reads a filter such as `info,stonechat_gateway=debug`.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(format!("{QUIET},{text}"))
}

/// Starts logging. Later calls in the same process have no effect.
pub(crate) fn start(format: LogFormat, filter_text: &str) -> LogControl {
    // The configuration was checked; fall back rather than fail over a log filter.
    let filter = filter(filter_text).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = match format {
        LogFormat::Human => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .boxed(),
    };
    // Fails only when a logger is there already, which is as good.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    LogControl {
        handle,
        text: Arc::new(Mutex::new(filter_text.to_owned())),
    }
}

impl LogControl {
    /// Puts another filter in force.
    pub(crate) fn set(&self, filter_text: &str) -> Result<(), String> {
        let filter = filter(filter_text).map_err(|error| error.to_string())?;
        self.handle
            .reload(filter)
            .map_err(|error| error.to_string())?;
        filter_text.clone_into(&mut self.text.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// The filter in force.
    pub(crate) fn filter(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        assert!(filter("info").is_ok());
        assert!(filter("warn,stonechat_gateway=debug").is_ok());
        assert!(filter("a=b=c").is_err());
        let both = filter("debug,actix_http=info").map(|filter| filter.to_string());
        let both = both.unwrap();
        assert!(
            both.contains("actix_http=info") && !both.contains("actix_http=off"),
            "{both}"
        );
        for kept in ["actix_server=warn", "ureq_proto=info", "debug"] {
            assert!(both.contains(kept), "{both}");
        }
    }
}

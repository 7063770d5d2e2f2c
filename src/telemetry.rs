//! Our own log: lines on stderr, for people or for machines.
//!
//! *Takes* a filter and a form. *Gives* the process-wide subscriber of
//! `tracing`. *Invariants*: stdout belongs to the answers of commands, the log
//! never goes there; installed once. *To add one*: a [`LogForm`].

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt};

/// What is logged if nothing is said.
pub const DEFAULT_FILTER: &str = "info";

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogForm {
    /// For people; with colours if the terminal and `NO_COLOR` allow.
    #[default]
    Human,
    /// One JSON object a line, fields flat beside `message`.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(
        "the log filter {filter:?} is not one ({source}); write e.g. `info` or `tidegate::server=debug,warn`"
    )]
    Filter {
        filter: String,
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("a log is already installed in this process")]
    AlreadyInstalled,
}

/// Installs the log of this process. `color` is ignored for JSON.
///
/// # Errors
/// A filter that cannot be read, or a second call.
pub fn install(filter: &str, form: LogForm, color: bool) -> Result<(), TelemetryError> {
    let filter = parse(filter)?;
    // A line that cannot be written (the disk is full) is lost; to say so on the same
    // stderr would panic.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let installed = match form {
        LogForm::Human => registry().with(filter).with(lines.with_ansi(color)).try_init(),
        LogForm::Json => registry().with(filter).with(lines.json().flatten_event(true)).try_init(),
    };
    installed.map_err(|_| TelemetryError::AlreadyInstalled)
}

fn parse(filter: &str) -> Result<EnvFilter, TelemetryError> {
    // Through the builder: `EnvFilter::new` would drop what it cannot read and go on.
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_an_error_with_an_example() {
        assert!(parse(DEFAULT_FILTER).is_ok());
        assert!(parse("tidegate::server=debug,warn").is_ok());
        let error = parse("tidegate=loud").expect_err("no such level").to_string();
        assert!(error.contains("tidegate=loud") && error.contains("`info`"), "{error}");
    }

    #[test]
    fn installs_once() {
        install(DEFAULT_FILTER, LogForm::Json, false).unwrap();
        assert!(matches!(install("info", LogForm::Human, false), Err(TelemetryError::AlreadyInstalled)));
    }
}

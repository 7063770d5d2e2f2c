//! `tidegate engine`.

use super::output::{Exit, Failure};
use crate::{
    app::{self, EnginePlan},
    base::chain,
    settings::Settings,
    telemetry::{self, LogForm},
};
use std::{num::NonZeroU32, path::PathBuf};

/// Runs one stock Envoy, and relays to it what the control plane sends.
///
/// Keeps what was sent last: while the control plane is away, Envoy serves on, also
/// TLS hosts that nobody has visited yet, and comes up with everything when it is
/// restarted. Private keys are kept in memory only (tmpfs). SIGTERM drains and stops
/// Envoy; SIGHUP ends this process alone, for another to take its Envoy over.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tidegate engine --server control.example.com:18000 --files /etc/tidegate \\\n    \
    --state /var/lib/tidegate-engine\n\n`tidegate bootstrap --files` makes the files, where the control plane runs; \
    envoy/tidegate-engine.service runs it under systemd."
)]
pub(super) struct EngineArgs {
    /// HOST:PORT of the control plane's xDS server.
    #[arg(long, value_name = "HOST:PORT")]
    server: String,
    /// What the control plane's certificate has to name; default: HOST.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Folder with engine.crt, engine.key and ca.crt; read at each new connection.
    #[arg(long, value_name = "DIR")]
    files: PathBuf,
    /// What this engine keeps, its Envoy's logs among it.
    #[arg(long, default_value = "./tidegate-engine", value_name = "DIR")]
    state: PathBuf,
    /// Folder on a tmpfs for private keys; default: one in /dev/shm.
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Worker threads of Envoy; default: one a core.
    #[arg(long)]
    concurrency: Option<NonZeroU32>,
    /// Percent of the machine's memory that is for this engine.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100), value_name = "PERCENT")]
    memory_share: u8,
    /// The stock Envoy to run; default: TIDEGATE_ENVOY, or the installed one.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Envoy's module; default: TIDEGATE_MODULE, or the one beside this program.
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// Logs JSON lines instead of text; TIDEGATE_LOG filters.
    #[arg(long)]
    log_json: bool,
}

pub(super) fn run(args: EngineArgs) -> Result<Exit, Failure> {
    let EngineArgs {
        server,
        server_name,
        files,
        state,
        keys,
        concurrency,
        memory_share,
        envoy,
        module,
        log_json,
    } = args;
    let port = server.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none() {
        return Err(Failure::usage("--server is HOST:PORT"));
    }
    let settings = Settings::from_environment().map_err(|why| Failure::usage(why.to_string()))?;
    let settings =
        Settings { envoy: envoy.or(settings.envoy), module: module.or(settings.module), ..settings };
    let form = if log_json { LogForm::Json } else { LogForm::Human };
    let filter = settings.log.as_deref().unwrap_or(telemetry::DEFAULT_FILTER);
    telemetry::install(filter, form, settings.color).map_err(|why| Failure::usage(why.to_string()))?;
    let plan = EnginePlan {
        server,
        server_name,
        files,
        home: state,
        keys,
        memory_share_percent: memory_share,
        concurrency,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime
        .block_on(app::run_engine(plan, settings))
        .map(|()| Exit::Fine)
        .map_err(|error| Failure::unreachable(chain(&error)))
}

//! `tidegate up` and `tidegate serve`.

use super::output::{Exit, Failure};
use crate::{
    app::{self, Engines, Plan},
    base::chain,
    settings::Settings,
    telemetry::{self, LogForm},
};
use std::{
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

/// Runs a whole site: control plane, DNS, and stock Envoys that it keeps alive.
///
/// Reads folders of ordinary manifests and serves what they say until Ctrl-C,
/// which drains the Envoys. After a crash the Envoys serve on, and the next
/// `tidegate up` on the same state directory takes them over.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate up examples/quickstart --state /tmp/state --allow-loopback-endpoints\n  \
    tidegate up /etc/tidegate/manifests --state /var/lib/tidegate --dns 192.0.2.53:53 --engines 2"
)]
pub(super) struct UpArgs {
    #[command(flatten)]
    site: SiteArgs,
    /// How many Envoys to run.
    #[arg(long, default_value_t = 1)]
    engines: u16,
    /// Worker threads of each Envoy; default: one a core.
    #[arg(long)]
    concurrency: Option<NonZeroU32>,
    /// Folder on a tmpfs where engines keep private keys; default: one in /dev/shm.
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
}

/// Runs the control plane and DNS alone, for Envoys elsewhere.
///
/// See `tidegate bootstrap` for how an Envoy joins.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tidegate serve /etc/tidegate/manifests --state /var/lib/tidegate --xds 192.0.2.10:18000"
)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    site: SiteArgs,
}

#[derive(Debug, clap::Args)]
struct SiteArgs {
    /// Folders (or files) of manifests, watched for changes.
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// Where the VIP ledger, the fleet's authority and the engines live.
    #[arg(long, default_value = "./tidegate-state", value_name = "DIR")]
    state: PathBuf,
    /// Address of the admin API. It has no password: keep it on loopback.
    #[arg(long, default_value = app::ADMIN_DEFAULT, value_name = "ADDR")]
    admin: SocketAddr,
    /// Address of the DNS server, UDP and TCP; without it names are not answered.
    #[arg(long, value_name = "ADDR")]
    dns: Option<SocketAddr>,
    /// Address of the xDS server (mTLS); port 0 takes a free one and keeps it.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    xds: SocketAddr,
    /// Names by which Envoys elsewhere reach the xDS server.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Sends traffic to endpoints on 127.0.0.0/8 and ::1: for demos and tests.
    #[arg(long)]
    allow_loopback_endpoints: bool,
    /// Logs JSON lines instead of text; TIDEGATE_LOG filters.
    #[arg(long)]
    log_json: bool,
}

pub(super) fn up(args: UpArgs) -> Result<Exit, Failure> {
    let UpArgs { site, engines, concurrency, keys } = args;
    start(site, Engines { count: engines, concurrency, keys })
}

pub(super) fn serve(args: ServeArgs) -> Result<Exit, Failure> {
    start(args.site, Engines::default())
}

fn start(args: SiteArgs, engines: Engines) -> Result<Exit, Failure> {
    let SiteArgs { folders, state, admin, dns, xds, names, allow_loopback_endpoints, log_json } = args;
    let settings = Settings::from_environment().map_err(|why| Failure::usage(why.to_string()))?;
    let form = if log_json { LogForm::Json } else { LogForm::Human };
    let filter = settings.log.as_deref().unwrap_or(telemetry::DEFAULT_FILTER);
    telemetry::install(filter, form, settings.color).map_err(|why| Failure::usage(why.to_string()))?;
    if let Some(missing) = folders.iter().find(|folder| !Path::new(folder).exists()) {
        return Err(Failure::usage(format!("{} is not there", missing.display())));
    }
    let plan = Plan {
        folders,
        state,
        admin,
        dns,
        xds,
        names,
        loopback_endpoints: allow_loopback_endpoints,
        engines,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match runtime.block_on(app::run(plan, settings)) {
        Ok(()) => Ok(Exit::Fine),
        Err(error) => Err(Failure::unreachable(chain(&error))),
    }
}

//! Start and wiring: the one room that knows all others.
//!
//! *Takes* what the command line says. *Gives* a running site until it is told to
//! stop. *Invariants*: everything is opened and bound before anything is served, so
//! that a mistake is told at once; every task is joined. *To add one* (a source, an
//! output): made in [`Parts::open`], run in [`run`].

mod engine;
mod engines;
mod limits;
mod own;
mod trust;

pub use crate::engine::EngineFiles;
pub use engine::{EnginePlan, run_engine};
pub use trust::issue_engine;

use crate::{
    admin::{self, Site},
    clock,
    desired::Desired,
    dns::{self, Responder},
    engine::{Lock, Supervisor},
    failpoint,
    inputs::fact::Age,
    pipeline::{Inlets, Kept, LedgerThread, Pipeline},
    server::{Door, Server},
    settings::Settings,
    source::files,
    store::{Cache, Opened, Store},
    translate,
};
use std::{
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

/// Where the admin API listens when nothing is said.
pub const ADMIN_DEFAULT: &str = "127.0.0.1:9180";
/// The one fleet of a standalone site.
pub const FLEET: &str = "default";
/// Questions of the admin API that may wait.
const QUERIES_MAX: usize = 64;
/// How long engines may take that are told to end: they drain, and stop an Envoy
/// that does not obey.
const END: Duration = engine::DRAIN.saturating_add(Duration::from_secs(8));

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Plan {
    pub folders: Vec<PathBuf>,
    pub state: PathBuf,
    pub admin: SocketAddr,
    pub dns: Option<SocketAddr>,
    pub xds: SocketAddr,
    /// Names in the certificate of the xDS server, besides its address.
    pub names: Vec<String>,
    pub loopback_endpoints: bool,
    pub engines: Engines,
}

/// Engines to run beside the control plane.
#[derive(Debug, Clone, Default)]
pub struct Engines {
    pub count: u16,
    /// Worker threads of each Envoy.
    pub concurrency: Option<NonZeroU32>,
    /// A folder in memory for their private keys; none: one of their choice.
    pub keys: Option<PathBuf>,
}

/// Why a site cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("{what} cannot listen on {address}: {source}; is another tidegate running?")]
    Bind { what: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Source(#[from] files::SourceError),
    #[error(transparent)]
    Dns(#[from] dns::BindError),
    #[error(transparent)]
    Authority(#[from] crate::server::authority::AuthorityError),
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    #[error(transparent)]
    Identity(#[from] crate::engine::IdentityError),
    #[error(transparent)]
    Settings(#[from] crate::settings::SettingsError),
    #[error("the addresses of this machine cannot be listed: {0}; see what `ip address` says")]
    Interfaces(std::io::Error),
    #[error("{0}")]
    Module(String),
    #[error("{path}: {why}; `tidegate bootstrap` makes one")]
    Credentials { path: PathBuf, why: String },
    #[error("a part of the site ended by itself: {0}")]
    Ended(&'static str),
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> AppError {
    let path = path.to_owned();
    move |source| AppError::File { path, source }
}

/// Everything opened and bound, nothing served yet.
struct Parts {
    opened: Opened,
    trust: trust::Trust,
    xds: TcpListener,
    admin: TcpListener,
    dns: Option<Responder>,
}

impl Parts {
    async fn open(plan: &Plan) -> Result<Self, AppError> {
        let opened = Store::open(&plan.state)?;
        failpoint::pass("ledger.opened");
        let xds = engines::listen(plan).await?;
        failpoint::pass("xds.listening");
        let at = xds.local_addr().map_err(bind("The xDS server", plan.xds))?;
        let trust = trust::Trust::open(&plan.state, at, &plan.names)?;
        let admin = TcpListener::bind(plan.admin).await.map_err(bind("The admin API", plan.admin))?;
        let dns = plan.dns.map(|address| Responder::bind(address, dns::Options::default())).transpose()?;
        Ok(Self { opened, trust, xds, admin, dns })
    }
}

fn bind(what: &'static str, address: SocketAddr) -> impl FnOnce(std::io::Error) -> AppError {
    move |source| AppError::Bind { what, address, source }
}

/// Runs a site until SIGINT or SIGTERM; then its engines are drained and stopped.
/// At SIGHUP they are left running, for the next start to adopt, and also when a part of the site breaks.
///
/// # Errors
/// What could not be opened or started, or a part that ended by itself.
#[expect(clippy::too_many_lines, reason = "the wiring is one list, read top to bottom")]
pub async fn run(plan: Plan, settings: Settings) -> Result<(), AppError> {
    limits::raise_open_files();
    // Files are read while all else is opened; the ledger says how old their objects are.
    let (ages_sender, known) = oneshot::channel();
    let (batches, source) =
        files::watch(plan.folders.clone(), files::Options::default(), known, clock::now_unix)?;
    let mut tasks: JoinSet<&'static str> = JoinSet::new();
    tasks.spawn(async move {
        source.await;
        "the source of files"
    });
    // The first random numbers of a process take 50 ms of a core.
    let seeding = tokio::task::spawn_blocking(|| {
        rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut [0])
    });
    drop(seeding);
    let Parts { opened, trust, xds, admin, dns } = Parts::open(&plan).await?;
    let admin_address = admin.local_addr().map_err(bind("The admin API", plan.admin))?;
    let xds_address = xds.local_addr().map_err(bind("The xDS server", plan.xds))?;
    let dns_address = dns.as_ref().map(Responder::address);
    let zones = dns.as_ref().map(Responder::zones).unwrap_or_default();
    let counters = dns.as_ref().map(Responder::counters).unwrap_or_default();

    let Opened { store, ledger, ages, serials } = opened;
    let known = ages.into_iter().map(|(key, seen)| (key, Age { seconds: seen.seconds, batch: seen.batch }));
    let _ = ages_sender.send(known.collect());
    let (ledger_thread, ledger_join) = LedgerThread::start(store);

    let listeners: Vec<_> =
        [Some(admin_address), Some(xds_address), dns_address].into_iter().flatten().collect();
    let options = translate::Options {
        loopback_endpoints: plan.loopback_endpoints,
        forbidden_endpoints: own::reached_at(&listeners, &own::addresses()?),
    };
    let (server, fleet, events) = Server::new(FLEET.into());
    let desired = Desired::new(options, ledger).timed(clock::running);
    let (cache, rows) = Cache::open(&plan.state)?;
    let kept = Kept::restore(cache, rows, &fleet);
    let pipeline = Pipeline::new(desired, ledger_thread.clone(), zones, fleet.clone(), kept, serials);
    let (query_sender, queries) = mpsc::channel(QUERIES_MAX);

    let supervisor = match plan.engines.count {
        0 => None,
        _ => {
            let specs = engines::specs(&plan, &settings, &trust, xds_address)?;
            Some(Supervisor::start(Lock::take(&engines::home(&plan.state))?, specs).await?)
        }
    };
    let site = Site {
        queries: query_sender,
        fleet,
        ledger: ledger_thread,
        dns: counters,
        processes: match &supervisor {
            Some(supervisor) => engines::processes(&plan.state, supervisor),
            None => Arc::new(Vec::new),
        },
    };
    tasks.spawn(async move {
        pipeline.run(Inlets { batches, events, queries }).await;
        "the pipeline"
    });
    let server = server.renewing(trust.renewal());
    let door = Door::Mutual(trust.server_config());
    tasks.spawn(async move {
        server.serve(xds, door).await;
        "the xDS server"
    });
    tasks.spawn(async move {
        warp::serve(admin::routes(site)).incoming(admin).run().await;
        "the admin API"
    });
    if let Some(responder) = dns {
        tasks.spawn(async move {
            if let Err(error) = responder.serve(std::future::pending()).await {
                tracing::error!(%error, "The DNS server ended");
            }
            "the DNS server"
        });
    }
    failpoint::pass("up.unsaid");
    let up = engines::write_up(&plan.state, admin_address, dns_address, xds_address)?;
    failpoint::pass("up.said");
    tracing::info!(admin = %admin_address, dns = ?dns_address, xds = %xds_address, engines = plan.engines.count, "Tidegate is up");
    let outcome = tokio::select! {
        told = told() => Ok(told),
        Some(ended) = tasks.join_next() => Err(AppError::Ended(ended.unwrap_or("a task that broke"))),
    };
    match (supervisor, &outcome) {
        (Some(supervisor), Ok(Told::Stop)) => {
            // The site serves on meanwhile: an engine that drains may still ask for a certificate.
            tracing::info!("Stopping: engines are drained");
            supervisor.shutdown(END).await;
        }
        (Some(supervisor), Ok(Told::HandOver)) => {
            tracing::info!("Handing over: engines run on");
            supervisor.detach().await;
        }
        (Some(supervisor), Err(error)) => {
            // A defect of ours is no reason to stop serving: the next start adopts them.
            tracing::error!(%error, "Stopping: engines are left running");
            supervisor.detach().await;
        }
        (None, _) => {}
    }
    let _ = std::fs::remove_file(up);
    tasks.shutdown().await;
    let _ = ledger_join.join();
    outcome.map(|_| ())
}

/// What a signal told us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Stop,
    HandOver,
}

/// Waits for a signal that ends a program.
pub async fn told_to_stop() {
    told().await;
}

/// Waits for SIGINT, SIGTERM or SIGHUP.
async fn told() -> Told {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).expect("signals can be listened to inside the runtime");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt()), listen(SignalKind::terminate()));
    let mut hangup = listen(SignalKind::hangup());
    tokio::select! {
        _ = interrupt.recv() => Told::Stop,
        _ = terminate.recv() => Told::Stop,
        _ = hangup.recv() => Told::HandOver,
    }
}

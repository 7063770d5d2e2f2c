//! `tidegate engine`: one Envoy, the relay before it, and what both need.

use super::{AppError, Told, file, limits, told};
use crate::{
    clock,
    engine::{
        self, AdminAddress, EngineFiles, EngineProcess, EngineSpec, EnvoyLogLevel, Link, Lock, MODULE_FILE,
        Relay, Report, Snapshot, Supervisor, Upstream, directory,
    },
    server::{Door, Identity, Server},
    settings::Settings,
    whole::{self, Readers},
    xds::{Admin, Bootstrap, ControlPlane, Share, build_bootstrap},
};
use std::{
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{net::UnixListener, sync::oneshot, task::JoinSet};

/// Client connections at once on one engine, all listeners together.
const CONNECTIONS_MAX: u32 = 100_000;
/// Envoy drains for this long when the engine is stopped.
pub(super) const DRAIN: Duration = Duration::from_secs(10);
/// The Envoy's folder in the home of its engine.
const ENVOY: &str = "envoy";
/// A file system in memory on every Linux (shm_open(3)).
const MEMORY: &str = "/dev/shm";

/// What the command line says.
#[derive(Debug, Clone)]
pub struct EnginePlan {
    /// `HOST:PORT` of the control plane.
    pub server: String,
    /// What its certificate has to name; none: the host of `server`.
    pub server_name: Option<String>,
    pub files: PathBuf,
    pub home: PathBuf,
    /// A folder in memory for private keys; none: one of our choice.
    pub keys: Option<PathBuf>,
    /// Of the machine's memory, for this engine.
    pub memory_share_percent: u8,
    pub concurrency: Option<NonZeroU32>,
}

/// Runs an engine until it is told to stop (SIGINT, SIGTERM: its Envoy is drained
/// and stopped) or to hand over (SIGHUP: its Envoy runs on for the next to adopt).
///
/// # Errors
/// What could not be opened or started, or a part that ended by itself.
pub async fn run_engine(plan: EnginePlan, settings: Settings) -> Result<(), AppError> {
    limits::raise_open_files();
    let lock = Lock::take(&plan.home)?;
    let home = std::path::absolute(&plan.home).map_err(file(&plan.home))?;
    let files = EngineFiles::within(&std::path::absolute(&plan.files).map_err(file(&plan.files))?);
    let shown = engine::Identity { given: files, renewed: home.join("identity.pem") };
    let identity = who(&shown)?;
    let keys = plan.keys.clone().or_else(|| default_keys(&home));
    let (snapshot, state) = Snapshot::open(&home, keys.as_deref())?;
    let (server, fleet, events) = Server::new(identity.fleet.clone());
    if let Some(state) = state {
        tracing::info!(
            resources = state.set.len(),
            "What the control plane sent last is served until it is there"
        );
        fleet.publish(state);
    }
    let socket = home.join("xds.sock");
    let listener = listen(&socket)?;
    let envoy = envoy(&plan, &settings, &home, &identity, &socket)?;

    let relay = Relay::new(identity.fleet.clone(), identity.engine.clone());
    let upstream = Upstream { server_name: plan.server_name(), address: plan.server, identity: shown };
    let link = Link::new(upstream, relay, snapshot, fleet, events);
    let (stop, stopped) = oneshot::channel::<()>();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        server.serve(listener, Door::Local(identity)).await;
        None
    });
    tasks.spawn(async move {
        // A dropped sender stops it as well.
        Some(link.run(async move { drop(stopped.await) }).await)
    });
    let supervisor = Supervisor::start(lock, vec![envoy]).await?;
    let mut watch = supervisor.watch();
    let signal = told();
    tokio::pin!(signal);
    let told = loop {
        report(&home, watch.borrow_and_update().get(ENVOY));
        tokio::select! {
            told = &mut signal => break Ok(told),
            Some(_) = tasks.join_next() => break Err(AppError::Ended("the relay")),
            Ok(()) = watch.changed() => {}
        }
    };
    match told {
        Ok(Told::Stop) => {
            tracing::info!("Stopping: Envoy is drained");
            supervisor.shutdown(DRAIN).await;
        }
        Ok(Told::HandOver) => {
            tracing::info!("Handing over: Envoy runs on");
            supervisor.detach().await;
        }
        // A defect of ours is no reason to stop serving: the next start adopts it.
        Err(_) => supervisor.detach().await,
    }
    drop(stop);
    let link = tasks.join_next().await;
    if matches!(told, Ok(Told::Stop)) {
        if let Some(Ok(Some(snapshot))) = link {
            snapshot.forget_keys();
        }
        Report::remove(&home);
        let _ = fs::remove_file(&socket);
    }
    told.map(|_| ())
}

/// Tells `tidegate up`, and whoever looks, how this engine is.
fn report(home: &Path, process: Option<&EngineProcess>) {
    let Some(process) = process else { return };
    let report = Report { pid: std::process::id(), envoy: process.clone() };
    if let Err(error) = report.write(home) {
        tracing::warn!(%error, "The state of this engine could not be written");
    }
}

impl EnginePlan {
    fn server_name(&self) -> String {
        let host = self.server.rsplit_once(':').map_or(&*self.server, |(host, _)| host);
        self.server_name.clone().unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned())
    }
}

/// Who we are, as our certificate says.
fn who(shown: &engine::Identity) -> Result<Identity, AppError> {
    let credentials = shown.credentials(clock::now_unix())?;
    Identity::of_pem(&credentials.certificate)
        .map_err(|why| AppError::Credentials { path: shown.given.certificate.clone(), why: why.to_string() })
}

/// One folder an engine, in memory; none where the machine has no such place.
fn default_keys(home: &Path) -> Option<PathBuf> {
    if !Path::new(MEMORY).is_dir() {
        tracing::warn!(
            "There is no {MEMORY}: private keys are forgotten when this engine restarts; see --keys"
        );
        return None;
    }
    let of_home = crate::base::Version::of(home.as_os_str()).short();
    Some(Path::new(MEMORY).join(format!("tidegate-{of_home}")))
}

fn listen(socket: &Path) -> Result<UnixListener, AppError> {
    // One that an engine left that was killed; we hold the lock of this folder.
    match fs::remove_file(socket) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(file(socket)(error)),
    }
    UnixListener::bind(socket).map_err(file(socket))
}

fn envoy(
    plan: &EnginePlan,
    settings: &Settings,
    home: &Path,
    identity: &Identity,
    socket: &Path,
) -> Result<EngineSpec, AppError> {
    let directory = directory(home, ENVOY);
    fs::create_dir_all(&directory).map_err(file(&directory))?;
    let admin = directory.join("admin.sock");
    let bootstrap = build_bootstrap(&Bootstrap {
        node: identity.engine.to_string(),
        fleet: identity.fleet.to_string(),
        control_plane: ControlPlane::Local { socket: socket.display().to_string() },
        admin: Admin::Socket(admin.display().to_string()),
        share: Share { heap_bytes: heap_bytes(plan.memory_share_percent), connections: CONNECTIONS_MAX },
    });
    let path = directory.join("bootstrap.json");
    write_if_changed(&path, &serde_json::to_vec_pretty(&bootstrap).expect("a bootstrap is JSON"))?;
    Ok(EngineSpec {
        name: ENVOY.to_owned(),
        envoy: settings.find_envoy()?,
        bootstrap: path,
        admin: AdminAddress::Unix(admin),
        module_directory: Some(installed(&module(settings)?, home)?),
        concurrency: plan.concurrency,
        log_level: EnvoyLogLevel::Info,
    })
}

/// Eight tenths of what this machine, or the cgroup we are in, may use, less what
/// other engines have: near it an Envoy sheds load instead of being killed.
fn heap_bytes(share_percent: u8) -> Option<u64> {
    let total = fs::read_to_string("/proc/meminfo").ok()?;
    let kib = total.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    })?;
    let limit =
        fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse::<u64>().ok());
    let bytes = limit.map_or(kib * 1024, |limit| limit.min(kib * 1024));
    Some(bytes / 1_000 * 8 * u64::from(share_percent))
}

/// The module to load: named, or beside this binary.
pub(super) fn module(settings: &Settings) -> Result<PathBuf, AppError> {
    if let Some(module) = &settings.module {
        return if module.is_file() {
            Ok(module.clone())
        } else {
            Err(AppError::Module(format!(
                "TIDEGATE_MODULE={} is no file; build it with `make build`",
                module.display()
            )))
        };
    }
    let own = std::env::current_exe().map_err(file(Path::new("/proc/self/exe")))?;
    let beside = own.with_file_name(MODULE_FILE);
    if beside.is_file() {
        return Ok(beside);
    }
    let message = format!(
        "the Envoy module is not there (looked for {}); build it with `make build`, or set TIDEGATE_MODULE",
        beside.display()
    );
    Err(AppError::Module(message))
}

/// Envoy keeps a module by its path once it is loaded, and a build may replace the
/// file under a running one: each content has a folder of its own.
fn installed(module: &Path, home: &Path) -> Result<PathBuf, AppError> {
    let bytes = fs::read(module).map_err(file(module))?;
    let folder = home.join("module").join(crate::base::Version::of(bytes.as_slice()).short());
    let path = folder.join(MODULE_FILE);
    if !path.is_file() {
        fs::create_dir_all(&folder).map_err(file(&folder))?;
        whole::replace(&path, Readers::All, &bytes).map_err(file(&path))?;
    }
    Ok(folder)
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<(), AppError> {
    match fs::read(path) {
        Ok(old) if old == bytes => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file(path)(error)),
        Ok(_) | Err(_) => whole::replace(path, Readers::All, bytes).map_err(file(path)),
    }
}

//! The Envoys of `tidegate up`: their bootstraps, their module, their addresses.

use super::{AppError, FLEET, Plan, bind, file, trust::Trust};
use crate::{
    engine::{self, AdminAddress, EngineSpec, EnvoyLogLevel, MODULE_FILE},
    settings::Settings,
    xds::{Admin, Bootstrap, ControlPlane, Share, build_bootstrap},
};
use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use tokio::net::TcpListener;

/// Client connections at once on one engine, all listeners together.
const CONNECTIONS_MAX: u32 = 100_000;
/// The port of the xDS server, so that Envoys left running find the next one.
const XDS_ADDRESS: &str = "xds.address";
/// Where everything listens, for scripts and tests.
const UP: &str = "up.json";

/// Where engines live.
pub(super) fn home(state: &Path) -> PathBuf {
    state.join("engines")
}

/// Listens for engines: on the port of the last time, if the port may be any.
pub(super) async fn listen(plan: &Plan) -> Result<TcpListener, AppError> {
    let known = plan.state.join(XDS_ADDRESS);
    if plan.xds.port() == 0
        && let Ok(text) = fs::read_to_string(&known)
        && let Ok(address) = text.trim().parse::<SocketAddr>()
        && address.ip() == plan.xds.ip()
        && let Ok(listener) = TcpListener::bind(address).await
    {
        return Ok(listener);
    }
    let listener = TcpListener::bind(plan.xds).await.map_err(bind("The xDS server", plan.xds))?;
    let address = listener.local_addr().map_err(bind("The xDS server", plan.xds))?;
    fs::write(&known, format!("{address}\n")).map_err(file(&known))?;
    Ok(listener)
}

/// One spec an engine, its bootstrap written.
pub(super) fn specs(
    plan: &Plan,
    settings: &Settings,
    trust: &Trust,
    xds: SocketAddr,
) -> Result<Vec<EngineSpec>, AppError> {
    let envoy = settings.find_envoy()?;
    let module = module(settings)?;
    let home = std::path::absolute(home(&plan.state)).map_err(file(&plan.state))?;
    let mut specs = Vec::new();
    for n in 0..plan.engines {
        let name = format!("engine-{n}");
        let directory = engine::directory(&home, &name);
        fs::create_dir_all(&directory).map_err(file(&directory))?;
        let socket = directory.join("admin.sock");
        let files = trust.engine(&name)?;
        let bootstrap = build_bootstrap(&Bootstrap {
            node: name.clone(),
            fleet: FLEET.to_owned(),
            control_plane: remote(&xds, &files)?,
            admin: Admin::Socket(socket.display().to_string()),
            share: Share { heap_bytes: heap_bytes(plan.engines), connections: CONNECTIONS_MAX },
        });
        let path = directory.join("bootstrap.json");
        write_if_changed(&path, &serde_json::to_vec_pretty(&bootstrap).expect("a bootstrap is JSON"))?;
        specs.push(EngineSpec {
            name,
            envoy: envoy.clone(),
            bootstrap: path,
            admin: AdminAddress::Unix(socket),
            module_directory: Some(installed(&module, &home)?),
            concurrency: plan.concurrency,
            log_level: EnvoyLogLevel::Info,
        });
    }
    Ok(specs)
}

/// Eight tenths of what this machine, or the cgroup we are in, may use, shared by
/// the engines: near it an Envoy sheds load instead of being killed.
fn heap_bytes(engines: u16) -> Option<u64> {
    let total = fs::read_to_string("/proc/meminfo").ok()?;
    let kib = total.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    })?;
    let limit =
        fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse::<u64>().ok());
    let bytes = limit.map_or(kib * 1024, |limit| limit.min(kib * 1024));
    Some(bytes / 10 * 8 / u64::from(engines.max(1)))
}

fn remote(xds: &SocketAddr, files: &super::trust::EngineFiles) -> Result<ControlPlane, AppError> {
    let text = |path: &Path| {
        let path = std::path::absolute(path).map_err(file(path))?;
        Ok::<_, AppError>(path.display().to_string())
    };
    Ok(ControlPlane::Remote {
        addresses: vec![(xds.ip().to_string(), xds.port())],
        server_name: xds.ip().to_string(),
        certificate_file: text(&files.certificate)?,
        key_file: text(&files.key)?,
        authorities_file: text(&files.authorities)?,
    })
}

/// The module to load: named, or beside this binary.
fn module(settings: &Settings) -> Result<PathBuf, AppError> {
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
        let temporary = folder.join("copying");
        fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &path)).map_err(file(&path))?;
    }
    Ok(folder)
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<(), AppError> {
    match fs::read(path) {
        Ok(old) if old == bytes => Ok(()),
        Ok(_) => fs::write(path, bytes).map_err(file(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::write(path, bytes).map_err(file(path)),
        Err(error) => Err(file(path)(error)),
    }
}

/// Tells where everything listens; the file goes when the site stops.
pub(super) fn write_up(
    state: &Path,
    admin: SocketAddr,
    dns: Option<SocketAddr>,
    xds: SocketAddr,
) -> Result<PathBuf, AppError> {
    let up = serde_json::json!({ "admin": admin, "dns": dns, "xds": xds, "pid": std::process::id() });
    let path = state.join(UP);
    let temporary = state.join("up.json.new");
    fs::write(&temporary, format!("{up}\n"))
        .and_then(|()| fs::rename(&temporary, &path))
        .map_err(file(&path))?;
    Ok(path)
}

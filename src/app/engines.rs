//! The engines of `tidegate up`, and where everything listens.

use super::{AppError, Engines, Plan, bind, engine::module, file, trust::Trust};
use crate::{
    admin::{Processes, Supervised},
    engine::{self, AgentSpec, EngineProcess, Report, Supervisor},
    settings::Settings,
    whole::{self, Readers},
};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::net::TcpListener;

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
    let text = format!("{address}\n");
    whole::replace(&known, Readers::All, text.as_bytes()).map_err(file(&known))?;
    Ok(listener)
}

/// One spec an engine.
pub(super) fn specs(
    plan: &Plan,
    settings: &Settings,
    trust: &Trust,
    xds: SocketAddr,
) -> Result<Vec<AgentSpec>, AppError> {
    let text = |path: &Path| {
        let path = std::path::absolute(path).map_err(file(path))?;
        Ok::<_, AppError>(path.display().to_string())
    };
    let Engines { count, concurrency, keys } = &plan.engines;
    let mut arguments = vec!["--envoy".to_owned(), text(&settings.find_envoy()?)?];
    arguments.extend(["--module".to_owned(), text(&module(settings)?)?]);
    arguments.extend(["--server".to_owned(), xds.to_string()]);
    if let Some(threads) = concurrency {
        arguments.extend(["--concurrency".to_owned(), threads.to_string()]);
    }
    if let Some(share) = 100_u16.checked_div(*count) {
        arguments.extend(["--memory-share".to_owned(), share.max(1).to_string()]);
    }
    let home = std::path::absolute(home(&plan.state)).map_err(file(&plan.state))?;
    let spec = |n| {
        let name = format!("engine-{n}");
        let files = trust.engine(&name)?;
        let folder = files.certificate.parent().expect("files are in a folder");
        let mut arguments = arguments.clone();
        arguments.extend(["--files".to_owned(), text(folder)?]);
        if let Some(keys) = keys {
            arguments.extend(["--keys".to_owned(), text(&keys.join(&name))?]);
        }
        Ok(AgentSpec { home: engine::directory(&home, &name), name, arguments, log: settings.log.clone() })
    };
    (0..*count).map(spec).collect()
}

/// How the engines are, for the admin API.
pub(super) fn processes(state: &Path, supervisor: &Supervisor) -> Processes {
    let (home, watch) = (home(state), supervisor.watch());
    Arc::new(move || watch.borrow().values().map(|agent| supervised(&home, agent)).collect())
}

fn supervised(home: &Path, agent: &EngineProcess) -> Supervised {
    let EngineProcess { name, pid, state, restarts: _, last_error } = agent;
    let report = Report::read(&engine::directory(home, name)).filter(|report| Some(report.pid) == *pid);
    match report {
        Some(Report { pid: _, envoy }) => Supervised {
            name: name.clone(),
            state: format!("{:?}", envoy.state),
            pid: envoy.pid,
            last_error: envoy.last_error,
        },
        None => Supervised {
            name: name.clone(),
            state: format!("engine process {state:?}"),
            pid: None,
            last_error: last_error.clone(),
        },
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
    whole::replace(&path, Readers::All, format!("{up}\n").as_bytes()).map_err(file(&path))?;
    Ok(path)
}
